"""The doctor: what is here, what is not and how to get it, loading cupti-python alone, whatever the YAML says."""

from __future__ import annotations

import io
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from rich.console import Console

from attnsweep import conf_path, devices, doctor, environment, impls, terminal, uvenv
from attnsweep.devices import Device
from composing import write
from distributions import installed
from sweeps import GPU, impl

CONF = conf_path.conf_folder()
OPTIONS = sorted(path.stem for path in (CONF / "impl").glob("*.yaml"))
FEW = ("fa2", "naive", "sdpa_cudnn")
MINE = "_target_: attnsweep.impls.FunctionAttention\nfunction: nosuchlib.attention\n"
HOSTILE = "a|b `c` [bold]d[/bold] <script>e</script> \\e[31mf\\u202eg"


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No YAML and no environments of this machine's user, and of our implementations a few, which is faster."""
    few = tmp_path / "conf"
    (few / "impl").mkdir(parents=True)
    for path in CONF.iterdir():
        if path.name != "impl":
            (few / path.name).symlink_to(path)
    for name in FEW:
        (few / "impl" / f"{name}.yaml").symlink_to(CONF / "impl" / f"{name}.yaml")
    monkeypatch.setattr(conf_path, "conf_folder", lambda: few)
    monkeypatch.delenv(conf_path.VARIABLE, raising=False)
    monkeypatch.setenv(uvenv.VARIABLE, str(tmp_path / "envs"))


@pytest.fixture
def told(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """What the doctor prints for these arguments."""

    def run(*argv: str) -> str:
        assert doctor.main(argv) == 0
        return capsys.readouterr().out

    return run


Told = Callable[..., str]


def row(text: str, name: str) -> str:
    """The one line of plain output that begins with `name`."""
    (found,) = [one for one in text.splitlines() if one.split("  ")[0] == name]
    return found


def test_every_implementation_is_in_the_table(told: Told, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once each, in columns; the machine stands above them."""
    monkeypatch.setattr(conf_path, "conf_folder", lambda: CONF)
    found = told()
    table = found.partition("Implementations\n")[2].splitlines()
    assert [one.split()[0] for one in table[3:] if one] == OPTIONS
    assert [row(found, "Python").split()[1].rstrip(",")] == [sys.version.split()[0]]
    assert environment.own_version("torch") in row(found, "torch")
    assert devices.cpu().name in row(found, "CPU")
    assert all(one == one.rstrip() for one in found.splitlines())


def test_nothing_heavy_is_loaded() -> None:
    """A look must not cost what a sweep's process costs, nor touch a GPU."""
    code = "import sys; from attnsweep import doctor; doctor.main([]); print(sorted(sys.modules), file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"torch", "jax", "triton", "pandas", "pyarrow"} & set(eval(done.stderr.splitlines()[-1]))


def test_what_is_not_here_is_said_with_how_to_get_it(
    told: Told, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A library, a device, an interpreter, a distribution of another interpreter, a framework, uv."""
    other = f"env: {{python: {sys.executable}}}\ndistribution: notthere\n"
    write(
        tmp_path / "mine",
        impl__lib=f"{MINE}pip: nosuchlib[gpu]\n",
        impl__both=f"{MINE}supports: {{devices: [cuda]}}\n",
        impl__gone=f"{MINE}env: {{python: /nowhere/python}}\n",
        impl__apart=MINE + other,
        impl__nameless=f"{MINE}env: {{python: {sys.executable}}}\n",
        impl__built=f"{MINE}env: {{requirements: [nosuchlib], python_version: '3.12'}}\n",
    )
    found = told("--config-dir", str(tmp_path / "mine"))
    assert row(found, "lib").endswith("No module named 'nosuchlib'; install it with: pip install nosuchlib[gpu]")
    assert "runs on cuda, not on cpu; No module named 'nosuchlib'" in row(found, "both")
    assert "there is no Python interpreter at /nowhere/python" in row(found, "gone")
    assert "notthere is not installed in its environment; install it with: pip install notthere" in row(found, "apart")
    assert row(found, "nameless").split()[1] == "unknown"
    assert "once built" in row(found, "built")
    assert "3 packages, Python 3.12" in row(found, "built")
    monkeypatch.setattr(uvenv, "uv", lambda: None)
    assert row(told("--config-dir", str(tmp_path / "mine")), "built").endswith(uvenv.INSTALL_UV)
    assert not uvenv.root().exists()


def test_what_is_here_has_its_version(told: Told, tmp_path: Path) -> None:
    """Of this environment, or of the one that it names."""
    yaml = "_target_: attnsweep.impls.FunctionAttention\nfunction: numpy.linalg.solve\ndistribution: numpy\n"
    write(tmp_path / "mine", impl__here=yaml, impl__there=f"{yaml}env: {{python: {sys.executable}}}\n")
    found = told("--config-dir", str(tmp_path / "mine"))
    version = environment.own_version("numpy")
    assert row(found, "here").split() == ["here", "yes", version, "own"]
    assert row(found, "there").split() == ["there", "yes", version, sys.executable]


def test_what_is_here_in_too_old_a_version_is_not_available(
    told: Told, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In this environment, or in the one that it names; nothing is imported to see that."""
    site = tmp_path / "site"
    (site / "older").mkdir(parents=True)
    (site / "older" / "__init__.py").write_text("raise SystemExit('it was imported')")
    installed(site, "older", "1.0.6")
    monkeypatch.syspath_prepend(str(site))
    yaml = "_target_: attnsweep.impls.FunctionAttention\nfunction: older.attention\ndistribution: older\n"
    there = f"env: {{python: {sys.executable}, variables: {{PYTHONPATH: {site}}}}}\n"
    write(
        tmp_path / "mine",
        impl__here=f"{yaml}min_version: '2'\n",
        impl__there=f"{yaml}min_version: '2'\n{there}",
        impl__enough=f"{yaml}min_version: '1.0'\n",
        impl__unquoted=f"{yaml}min_version: 2\n",
    )
    found = told("--config-dir", str(tmp_path / "mine"))
    for name in ("here", "there"):
        assert row(found, name).split()[:3] == [name, "no", "1.0.6"]
        assert row(found, name).endswith("  older 1.0.6 is below 2; install it with: pip install 'older>=2'")
    assert row(found, "enough").split()[:3] == ["enough", "yes", "1.0.6"]
    assert row(found, "unquoted").endswith('min_version must be a version in quotes such as "2.1", not 2')


@pytest.mark.parametrize("found", [[], [GPU]], ids=["no GPU", "a GPU"])
def test_a_cupti_that_cannot_be_imported_is_said_where_there_is_a_gpu(
    found: list[Device], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With its version and why; elsewhere it has nothing to see and may want a driver."""
    (tmp_path / "cupti").mkdir()
    (tmp_path / "cupti" / "__init__.py").write_text("import nosuchelftools")
    installed(tmp_path, "cupti-python", "13.4.0")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "cupti", raising=False)
    monkeypatch.delitem(sys.modules, "cupti.cupti", raising=False)
    (told,) = [cells[1].text for cells in doctor.machine(found, "").rows if cells[0].text == "cupti-python"]
    why = ", but cupti-python cannot be imported: No module named 'nosuchelftools'"
    assert told == "13.4.0" + (why if found else "")


def test_yaml_that_is_wrong_costs_its_own_row(told: Told, tmp_path: Path) -> None:
    """With the sentence that the sweep would say."""
    write(
        tmp_path / "mine",
        impl__typo=f"{MINE}suports: {{}}\n",
        impl__syntax="a: [",
        impl__classless="_target_: nosuchmodule.Class\n",
        impl__notapython=f"{MINE}env: {{python: /bin/true}}\n",
    )
    found = told("--config-dir", str(tmp_path / "mine"))
    assert "no such key: suports" in row(found, "typo")
    assert "syntax.yaml" in row(found, "syntax")
    assert "nosuchmodule.Class cannot be imported" in row(found, "classless")
    assert "/bin/true is no Python 3.9 or newer that runs: it said nothing" in row(found, "notapython")
    assert len(found.splitlines()) == len(told().splitlines()) + 4


def test_a_submodule_is_looked_for_below_its_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """flash-attn 2 has a flash_attn without the cute of flash-attn 4; neither is imported to see that."""
    package = tmp_path / "nosuchlib"
    package.mkdir()
    (package / "__init__.py").write_text("raise SystemExit('it was imported')")
    (package / "inside.py").write_text("")
    monkeypatch.syspath_prepend(str(tmp_path))
    function = {"_target_": "attnsweep.impls.FunctionAttention", "name": "a"}
    assert impls.why_missing({**function, "function": "nosuchlib.inside.f"}) is None
    why = impls.why_missing({**function, "function": "nosuchlib.cute.f", "distribution": "nosuch-4"})
    assert why == "No module named 'nosuchlib.cute'; install it with: pip install nosuch-4"


@pytest.mark.parametrize("argv", [["--nosuch"], ["DIR"], ["--config-dir"], ["--config-dir", "/no\x1bwhere"]])
def test_a_mistake_is_exit_code_2(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """And nothing else is; one sentence says it."""
    assert doctor.main(argv) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("attnsweep-doctor: ")
    assert said.err.count("\n") == 1
    assert "\x1b" not in said.err


def test_text_from_yaml_is_harmless_everywhere(told: Told, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Plain, in Markdown and on a terminal."""
    write(tmp_path / "mine", impl__bad=f'{MINE}pip: "{HOSTILE}"\n')
    plain = told("--config-dir", str(tmp_path / "mine"))
    assert "[bold]d[/bold] <script>e</script> \\x1b[31mf\\u202eg" in row(plain, "bad")
    markdown = told("--config-dir", str(tmp_path / "mine"), "--markdown")
    assert "a\\|b \\`c\\` \\[bold\\]d\\[/bold\\] &lt;script&gt;e&lt;/script&gt; \\\\x1b\\[31mf\\\\u202eg" in markdown
    screen = io.StringIO()
    wide = Console(file=screen, force_terminal=True, color_system=None, width=300, markup=True)
    monkeypatch.setattr(terminal, "console", lambda: wide)
    assert doctor.main(["--config-dir", str(tmp_path / "mine")]) == 0
    assert "[bold]d[/bold] <script>e</script> \\x1b[31mf\\u202eg" in screen.getvalue()
    assert "\u202e" not in screen.getvalue()


def test_markdown_is_two_tables(told: Told) -> None:
    """Each with a heading, and no row of another width."""
    found = told("--markdown").splitlines()
    assert [one for one in found if one.startswith("#")] == ["## This machine", "## Implementations"]
    rows = [one for one in found if one.startswith("|")]
    widths = [one.replace("\\|", "").count("|") for one in rows]
    assert sorted(set(widths)) == [3, 6]
    assert widths.count(6) == len(FEW) + 2


class NVMLError(Exception):
    """What NVML raises."""


def fake_nvml(count: int) -> SimpleNamespace:
    return SimpleNamespace(
        NVMLError=NVMLError,
        nvmlInit=lambda: None,
        nvmlShutdown=lambda: None,
        nvmlSystemGetDriverVersion=lambda: "580.1",
        nvmlSystemGetCudaDriverVersion_v2=lambda: 13020,
        nvmlDeviceGetCount=lambda: count,
    )


def test_gpus_are_listed_and_decide_what_can_run(told: Told, monkeypatch: pytest.MonkeyPatch) -> None:
    """With memory, power limit and driver; hidden ones are counted."""
    monkeypatch.setitem(sys.modules, "pynvml", fake_nvml(3))
    monkeypatch.setattr(devices, "visible_gpus", lambda: [GPU])
    found = told()
    assert row(found, "GPU 0").endswith("NVIDIA H200, GPU-0, 140 GiB, 700 W, compute capability 9.0")
    assert row(found, "NVML").endswith("driver 580.1, for CUDA up to 13.2; CUDA_VISIBLE_DEVICES hides 2 of the GPUs")
    assert row(found, "sdpa_cudnn").split()[1] == "yes"
    assert "device" not in row(found, "fa2")


def test_a_gpu_that_is_lost_is_said(told: Told, monkeypatch: pytest.MonkeyPatch) -> None:
    """The doctor is for machines that are not well."""

    def lost() -> list[Device]:
        raise NVMLError("GPU is lost")

    monkeypatch.setitem(sys.modules, "pynvml", fake_nvml(1))
    monkeypatch.setattr(devices, "visible_gpus", lost)
    assert "not available (GPU is lost)" in row(told(), "NVML")


def test_a_framework_that_is_not_here_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the framework itself is the library."""
    monkeypatch.setattr(doctor.importlib.util, "find_spec", lambda name: None)
    finding = doctor.look("naive", impl("naive"), devices.cpu())
    assert (finding.available, finding.why) == ("no", "No module named 'torch'; install it with: pip install torch")
