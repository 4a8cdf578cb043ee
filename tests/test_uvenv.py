"""Environments from requirements: built once, whole or not at all, and one sweep that mixes them.

Packages come from wheels that the tests make, so that nothing is fetched; slow tests install real ones.
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
import os
import signal
import subprocess
import sys
import threading
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

import processes
from attnsweep import doctor, impls, interpreters, parquet, planning, pool, sweep, uvenv
from attnsweep.devices import Device
from attnsweep.errors import ConfigError, Status
from attnsweep.impls.naive import NaiveAttention
from plans import only
from processes import TESTS
from sweeps import CPU, GPU, combination, impl, one_case, settings

OWN = f"{sys.version_info.major}.{sys.version_info.minor}"
QUICK_PRESET = TESTS.parent / "conf" / "timing" / "quick.yaml"


def wheel(folder: Path, name: str, version: str, requires: tuple[str, ...] = (), **modules: str) -> None:
    """Write a wheel of a package whose `__init__` holds its version; `modules` are others in it."""
    info = f"{name}-{version}.dist-info"
    metadata = [f"Name: {name}", f"Version: {version}", *(f"Requires-Dist: {one}" for one in requires)]
    sources = {"__init__": f"__version__ = {version!r}\n", **modules}
    folder.mkdir(exist_ok=True)
    with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as archive:
        for module, source in sources.items():
            archive.writestr(f"{name}/{module}.py", source)
        archive.writestr(f"{info}/METADATA", "\n".join(["Metadata-Version: 2.1", *metadata, "", ""]))
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        names = [f"{name}/{module}.py" for module in sources] + [f"{info}/{one}" for one in ("METADATA", "WHEEL")]
        archive.writestr(f"{info}/RECORD", "".join(f"{one},,\n" for one in [*names, f"{info}/RECORD"]))


@pytest.fixture(autouse=True)
def caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Environments and uv's cache in folders of the test's own, and nothing but the test's wheels to install."""
    wheels = tmp_path / "wheels"
    for version in ("1", "2", "3"):
        wheel(wheels, "conflicting", version)
    wheel(wheels, "apart", "1", requires=("conflicting==1",))
    # What every cell needs, as far as a zygote and its child touch it
    wheel(wheels, "numpy", "1", random="def seed(number):\n    pass\n")
    wheel(wheels, "torch", "1", __init__="def manual_seed(number):\n    pass\n")
    monkeypatch.setenv(uvenv.VARIABLE, str(tmp_path / "envs"))
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "uv"))
    (tmp_path / "uv.toml").write_text(f'no-index = true\nfind-links = ["{wheels}"]\n')
    monkeypatch.setenv("UV_CONFIG_FILE", str(tmp_path / "uv.toml"))
    return tmp_path / "envs"


def recipe(*requirements: str, python_version: str | None = None) -> uvenv.Recipe:
    return uvenv.recipe(requirements, python_version)


def needs(name: str, *requirements: str, **changed: Any) -> Any:
    """A combination of that implementation in an environment of these requirements."""
    env = {"requirements": list(requirements), "variables": {"PYTHONPATH": str(TESTS)}}
    return combination(name, impl=impl(name, env=env, distribution="conflicting", **changed), scenario=one_case())


def fake_uv(path: Path, *lines: str) -> str:
    """A program in uv's place."""
    path.write_text("\n".join(["#!/bin/sh", *lines, ""]))
    path.chmod(0o755)
    return str(path)


# Building


def test_an_environment_is_built_once_and_holds_what_it_should(caches: Path) -> None:
    """It is said while it is built; what was asked for and what came of it stand beside it; nothing else is left."""
    said: list[str] = []
    wanted = recipe("apart", "--no-index")
    assert not wanted.built
    assert [uvenv.build(wanted, "fa9", said.append) for _ in range(2)] == [None, None]
    assert said == ["building the environment of fa9 (1 package) ..."]
    assert wanted.built
    assert (wanted.folder / uvenv.REQUIREMENTS).read_text() == "--no-index\napart\n"
    assert (wanted.folder / uvenv.FREEZE).read_text() == "apart==1\nconflicting==1\n"
    assert sorted(path.name for path in caches.iterdir()) == [wanted.folder.name, f"{wanted.folder.name}.lock"]
    code = "import sys, apart, conflicting; print(sys.prefix, conflicting.__version__)"
    found = subprocess.run([wanted.python, "-c", code], capture_output=True, text=True, check=True, cwd="/")
    assert found.stdout.split() == [str(wanted.folder), "1"]


def test_equal_content_is_one_environment() -> None:
    """Order, blanks and repetition do not matter; a package, a version or another Python does."""
    one = recipe("a==1", "b")
    assert recipe("b ", "a==1", "b").folder == one.folder
    assert recipe("a==1", "b", python_version=OWN).folder == one.folder
    others = [recipe("a==1"), recipe("a==2", "b"), recipe("a==1", "b", python_version="3.9")]
    assert len({one.folder, *(other.folder for other in others)}) == 4


def test_the_folder_is_the_users_choice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """ATTNSWEEP_ENVS, else the user's cache."""
    assert uvenv.root() == tmp_path / "envs"
    monkeypatch.delenv(uvenv.VARIABLE)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert uvenv.root() == tmp_path / "cache" / "attnsweep" / "envs"


def test_of_two_builders_one_waits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And finds it built; each says what it does."""
    started, go = tmp_path / "started", tmp_path / "go"
    os.mkfifo(go)
    real = uvenv.uv()
    slow = fake_uv(tmp_path / "uv-slow", f'[ "$1" = venv ] && touch {started} && read line < {go}', f'exec {real} "$@"')
    monkeypatch.setattr(uvenv, "uv", lambda: slow)
    said: dict[str, list[str]] = {"one": [], "two": []}
    answers: list[str | None] = []

    def build(name: str) -> None:
        answers.append(uvenv.build(recipe("conflicting"), name, said[name].append))

    threads = [threading.Thread(target=build, args=(name,)) for name in said]
    threads[0].start()
    processes.wait_for(started.exists)
    threads[1].start()
    processes.wait_for(lambda: said["two"])
    go.write_text("\n")
    for thread in threads:
        thread.join()
    assert answers == [None, None]
    assert said["one"] == ["building the environment of one (1 package) ..."]
    assert said["two"] == ["waiting for another process that builds the environment of two ..."]


@pytest.fixture
def cut_short(tmp_path: Path) -> Iterator[int]:
    """A builder that was killed while its uv still installs into something that looks whole; that uv's process id."""
    pid = tmp_path / "pid"
    lines = [
        "for venv; do :; done",
        "mkdir -p $venv/bin",
        "ln -s /bin/sh $venv/bin/python",
        f"echo $$ > {pid}.new",
        f"mv {pid}.new {pid}",
    ]
    script = fake_uv(tmp_path / "uv-cut", *lines, "kill -9 $PPID", "exec sleep 600")
    code = (
        f"from attnsweep import uvenv\nuvenv.uv = lambda: {script!r}\n"
        "uvenv.build(uvenv.recipe(['conflicting'], None), 'x', print)"
    )
    done = subprocess.run([sys.executable, "-c", code], stdout=subprocess.DEVNULL, check=False)
    assert done.returncode == -9
    number = int(pid.read_text())
    yield number
    if processes.running(number):
        os.kill(number, 9)


def test_a_build_that_was_killed_is_not_taken_for_whole(caches: Path, cut_short: int) -> None:
    """What it left is removed by the next builder, which waits for as long as the old uv still writes."""
    wanted = recipe("conflicting")
    assert len(list(caches.glob(f".{wanted.folder.name}-*/venv/bin/python"))) == 1
    assert not wanted.built
    said: list[str] = []

    def end_it(sentence: str) -> None:
        said.append(sentence)
        if "waiting" in sentence:
            os.kill(cut_short, 9)

    assert uvenv.build(wanted, "x", end_it) is None
    assert [sentence.split()[0] for sentence in said] == ["waiting", "building"]
    assert wanted.built
    assert not list(caches.glob(".*"))


def test_ctrl_c_leaves_nothing_behind(tmp_path: Path, caches: Path) -> None:
    """Neither a folder nor the uv that fills it."""
    pid = tmp_path / "pid"
    script = fake_uv(tmp_path / "uv-hangs", f"echo $$ > {pid}.new", f"mv {pid}.new {pid}", "exec sleep 600")
    code = (
        f"from attnsweep import uvenv\nuvenv.uv = lambda: {script!r}\n"
        "uvenv.build(uvenv.recipe(['conflicting'], None), 'x', print)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as builder:
        processes.wait_for(pid.exists)
        assert list(caches.glob(".*"))
        builder.send_signal(signal.SIGINT)
        _, said = builder.communicate(timeout=30)
    assert b"KeyboardInterrupt" in said
    assert [path.suffix for path in caches.iterdir()] == [".lock"]
    processes.wait_for(lambda: not processes.running(int(pid.read_text())))


def test_an_environment_whose_python_is_gone_is_built_again() -> None:
    """Its base interpreter may have been removed."""
    wanted = recipe("conflicting")
    assert uvenv.build(wanted, "x", lambda sentence: None) is None
    Path(wanted.python).unlink()
    assert not wanted.built
    assert uvenv.build(wanted, "x", lambda sentence: None) is None
    assert wanted.built


def test_another_python_is_asked_for_by_its_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And this one by its path, so that uv need not look for it."""
    asked = tmp_path / "asked"
    fake = fake_uv(tmp_path / "uv-asked", f'echo "$@" >> {asked}', "echo no such Python >&2", "exit 2")
    monkeypatch.setattr(uvenv, "uv", lambda: fake)
    for version in ("3.9", OWN):
        why = uvenv.build(recipe("conflicting", python_version=version), "x", lambda sentence: None)
        assert why == "its environment cannot be built: no such Python"
    first, second = asked.read_text().splitlines()
    assert "--python 3.9 " in first
    assert f"--python {sys.executable} " in second


@pytest.mark.parametrize(
    ("preference", "taken"),
    [("managed", ""), ("only-system", " (which uv takes with UV_PYTHON_PREFERENCE=managed)")],
)
def test_a_python_that_uv_does_not_find_is_said_with_how_to_get_it(
    monkeypatch: pytest.MonkeyPatch, preference: str, taken: str
) -> None:
    """In uv's words and ours; a managed one is of no use to a uv that is told to take only the system's."""
    monkeypatch.setenv("UV_PYTHON_PREFERENCE", preference)
    monkeypatch.setenv("UV_PYTHON_DOWNLOADS", "automatic" if preference == "only-system" else "never")
    monkeypatch.setenv("PATH", "")
    monkeypatch.setenv("UV_PYTHON_INSTALL_DIR", "/nowhere")
    missing = "3.14" if OWN != "3.14" else "3.13"
    why = uvenv.build(recipe("conflicting", python_version=missing), "x", lambda sentence: None)
    assert why is not None
    assert why.startswith(f"its environment cannot be built: error: No interpreter found for Python {missing} in ")
    advice = f"; uv python install {missing} brings one{taken}, or env.python names an environment of your own"
    assert why.endswith(advice)


def test_what_cannot_be_resolved_is_said_in_uvs_words(caches: Path) -> None:
    """Nothing of it stays, and the next sweep tries again."""
    for _ in range(2):
        why = uvenv.build(recipe("apart", "conflicting==2"), "x", lambda sentence: None)
        assert why is not None
        assert "conflicting==2" in why
        assert "unsatisfiable" in why
        assert "\n" not in why
    assert [path.suffix for path in caches.iterdir()] == [".lock"]


def test_words_without_end_are_cut_in_the_middle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What failed stands first, why it did not build last."""
    lines = [
        "echo error: first >&2",
        "i=0; while [ $i -lt 300 ]; do echo middle >&2; i=$((i+1)); done",
        "echo last >&2",
    ]
    fake = fake_uv(tmp_path / "uv-long", *lines, "exit 1")
    monkeypatch.setattr(uvenv, "uv", lambda: fake)
    why = uvenv.build(recipe("conflicting"), "x", lambda sentence: None)
    assert why is not None
    assert why.startswith("its environment cannot be built: error: first middle")
    assert why.endswith("middle last")
    assert len(why) < 1300


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the variable that moves it."""
    (tmp_path / "file").write_text("")
    monkeypatch.setenv(uvenv.VARIABLE, str(tmp_path / "file" / "below"))
    why = uvenv.build(recipe("conflicting"), "x", lambda sentence: None)
    assert why is not None
    assert f"{tmp_path}/file/below (Not a directory); ATTNSWEEP_ENVS names another folder" in why


def test_uv_is_this_environments_or_the_first_on_the_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Or none, which is said with how to get it."""
    assert Path(str(uvenv.uv())).is_file()
    monkeypatch.setattr(uvenv.importlib.util, "find_spec", lambda name: None)
    program = fake_uv(tmp_path / "uv")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert uvenv.uv() == program
    monkeypatch.setenv("PATH", "")
    assert uvenv.uv() is None
    assert uvenv.build(recipe("conflicting"), "x", lambda sentence: None) == uvenv.INSTALL_UV


# What a YAML may say


@pytest.mark.parametrize(
    ("env", "words"),
    [
        ({"requirements": "torch"}, "requirements must be a list of lines"),
        ({"requirements": ["a\nb"]}, "requirements must be a list of lines"),
        ({"requirements": [""]}, "requirements must be a list of lines"),
        ({"requirements": ["a"], "python_version": 3.1}, 'python_version must be a version in quotes such as "3.11"'),
        ({"requirements": ["a"], "python_version": "--help"}, "python_version must be a version"),
        ({"requirements": ["a"], "python": "/usr/bin/python3"}, "exclude each other"),
        ({"requirements": ["a", "-r /tmp/b.txt"]}, "'-r /tmp/b.txt', but .* write out what that says"),
        ({"requirements": [" --requirement=/tmp/b.txt"]}, "write out what that says"),
        ({"requirements": ["a", "-c /tmp/b.txt"]}, "write out what that says"),
        ({"requirements": ["a", "--constraint /tmp/b.txt"]}, "write out what that says"),
        ({"python": ""}, "python must be the path of an interpreter, not ''"),
        ({"python": " "}, "python must be the path of an interpreter"),
        ({"python_version": "3.11"}, "goes with env.requirements"),
    ],
)
def test_a_value_that_cannot_be_meant_is_refused(env: dict[str, Any], words: str) -> None:
    """3.10 without quotes would be 3.1, no path the working folder; an edited file would leave the environment as it
    was.
    """
    one = impl("a", env=env)

    def read() -> None:
        impls.bind(one)
        interpreters.host(one, "fork", "cpu")

    with pytest.raises(ConfigError, match=words):
        read()


@pytest.mark.parametrize(("kind", "more"), [("cpu", ()), ("cuda", ("cupti-python",))])
def test_what_every_cell_needs_is_added(kind: str, more: tuple[str, ...]) -> None:
    """numpy and the framework, on a GPU what sees its kernels; nobody should have to know."""
    where = interpreters.host(impl("a", env={"requirements": ["torch==2.6"], "python_version": "3.12"}), "fork", kind)
    assert where.recipe == uvenv.Recipe((*more, "numpy", "torch", "torch==2.6"), "3.12")
    assert where.python == where.recipe.python
    assert not where.own


@pytest.mark.parametrize(("device", "packages"), [(CPU, 3), (GPU, 4)])
def test_a_plan_and_the_doctor_mean_one_environment(tmp_path: Path, device: Device, packages: int) -> None:
    """That of the device they are told, whatever else the machine has."""
    one = needs("a", "conflicting==1")
    recipe = only(tmp_path, one, device=device, dry_run=True).interpreter.recipe
    assert recipe is not None
    assert recipe.packages == packages
    assert doctor.look("a", one.impl, device).where == f"{packages} packages, Python {recipe.python_version}"


def test_a_library_that_is_not_there_is_for_the_requirements() -> None:
    """pip is not in such an environment."""

    class Mine(NaiveAttention):
        module = "mylib.sub"

    assert Mine(name="a", distribution="mylib").install("no").endswith("; install it with: pip install mylib")
    assert (
        Mine(name="a", distribution="mylib", env={"requirements": []})
        .install("no")
        .endswith("env.requirements must name what brings it (mylib)")
    )


# Sweeping


@pytest.fixture
def swept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., dict[str, dict[str, Any]]]]:
    """Sweep with env_entry in the worker's place; the records by implementation."""

    def run(*combinations: Any, code: int = 0) -> dict[str, dict[str, Any]]:
        assert sweep.run(settings(tmp_path, device="cpu"), list(combinations)) == code
        rows = parquet.read(sorted((tmp_path / "s" / "cells").glob("*.parquet"))).to_pylist()
        return {row["impl"]: row for row in rows}

    real = pool.Pool
    monkeypatch.setattr(pool, "Pool", lambda devices, **options: real(devices, run="env_entry:run", **options))
    for _ in processes.alone(tmp_path, monkeypatch):
        yield run


def test_one_sweep_mixes_three_environments(
    swept: Callable[..., dict[str, dict[str, Any]]], capsys: pytest.CaptureFixture[str]
) -> None:
    """Each cell imports its environment's version, which is the record's, and nothing of the parent's but attnsweep."""
    several = [
        needs("one", "conflicting==1"),
        needs("two", "conflicting==2"),
        needs("three", "conflicting==3", isolation="spawn"),
    ]
    found = swept(*several)
    expected = {"one": "1", "two": "2", "three": "3"}
    assert {name: row["impl_version"] for name, row in found.items()} == expected
    assert {name: row["check"] for name, row in found.items()} == expected
    seen = {name: eval(row["kernel_names"][0]) for name, row in found.items()}
    assert len({one["prefix"] for one in seen.values()}) == 3
    assert all(one["parents"] == [] and one["attnsweep"] == ["attnsweep"] for one in seen.values())
    assert {name: one["preloaded"] for name, one in seen.items()} == {"one": True, "two": True, "three": False}
    assert capsys.readouterr().out.count("building the environment of") == 3
    assert swept(*several) == found
    assert "building" not in capsys.readouterr().out


def test_an_environment_that_cannot_be_had_costs_its_own_cells(swept: Callable[..., dict[str, dict[str, Any]]]) -> None:
    """They are missing, in uv's words."""
    found = swept(needs("good", "conflicting==1"), needs("bad", "apart", "conflicting==2"))
    assert [found[name]["status"] for name in ("good", "bad")] == [Status.OK, Status.MISSING]
    assert "unsatisfiable" in found["bad"]["reason"]
    assert found["bad"]["impl_version"] is None


def test_an_environment_with_too_old_a_version_costs_its_own_cells(
    swept: Callable[..., dict[str, dict[str, Any]]],
) -> None:
    """They are missing by what was installed, before anything runs; the doctor says the same."""
    new = needs("new", "conflicting==2", min_version="2")
    old = needs("old", "conflicting==1", min_version="2")
    found = swept(new, old)
    assert [found[name]["status"] for name in ("new", "old")] == [Status.OK, Status.MISSING]
    why = "conflicting 1 is below 2; its env.requirements must name what brings it ('conflicting>=2')"
    assert (found["old"]["reason"], found["old"]["impl_version"], found["old"]["wall_s"]) == (why, "1", None)
    assert doctor.look("old", old.impl, CPU).why == why


def test_without_uv_they_are_missing(
    swept: Callable[..., dict[str, dict[str, Any]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With how to get it."""
    monkeypatch.setattr(uvenv, "uv", lambda: None)
    assert swept(needs("a", "conflicting"), code=1)["a"]["reason"] == uvenv.INSTALL_UV


def test_a_dry_run_builds_nothing_and_says_what_would_be(
    tmp_path: Path, caches: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two cells share the environment; without uv they are missing."""
    several = [needs("a", "conflicting==1"), needs("b", "conflicting==1")]
    assert sweep.run(settings(tmp_path, device="cpu", dry_run=True), several) == 0
    said = capsys.readouterr().out
    assert said.count("to run, once its environment of 3 packages is built") == 2
    assert "2 cells, 2 to run once 1 environment is built" in said
    assert not caches.exists()
    monkeypatch.setattr(uvenv, "uv", lambda: None)
    sweep.run(settings(tmp_path, device="cpu", dry_run=True), several)
    said = capsys.readouterr().out
    assert said.count(f"missing: {uvenv.INSTALL_UV}") == 2
    assert "2 cells, 0 to run, about" in said


def test_what_no_cell_would_run_in_is_not_built(tmp_path: Path, caches: Path) -> None:
    """An implementation for GPUs, planned on a CPU, fetches nothing."""
    on_gpus = needs("a", "conflicting==1", supports={"devices": ["cuda"]})
    planning.make(settings(tmp_path), [on_gpus], [CPU], hopeless=True, say=lambda sentence: pytest.fail(sentence))
    assert not caches.exists()


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_real_packages_at_conflicting_versions_in_one_sweep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """torch in three environments beside numpy at three versions: all correct, each record with its own numpy."""
    for name in ("UV_CONFIG_FILE", "UV_CACHE_DIR"):
        monkeypatch.delenv(name)
    if "PIP_FIND_LINKS" in os.environ:  # uv reads none of pip's variables
        monkeypatch.setenv("UV_FIND_LINKS", os.environ["PIP_FIND_LINKS"])
    torch = f"torch=={importlib.metadata.version('torch').partition('+')[0]}"

    def real(name: str, *requirements: str, **changed: Any) -> Any:
        env = {"requirements": [torch, *requirements]} if requirements else {}
        return combination(name, impl=impl(name, env=env, distribution="numpy", **changed), scenario=one_case())

    several = [
        real("parents"),
        real("old", "numpy==1.26.4"),
        real("newer", "numpy==2.2.6", isolation="spawn"),
    ]
    chosen = [dataclasses.replace(one, timing=yaml.safe_load(QUICK_PRESET.read_text())) for one in several]
    assert sweep.run(settings(tmp_path, device="cpu"), chosen) == 0
    rows = parquet.read(sorted((tmp_path / "s" / "cells").glob("*.parquet"))).to_pylist()
    found = {row["impl"]: (row["status"], row["check"], row["impl_version"]) for row in rows}
    versions = {"parents": importlib.metadata.version("numpy"), "old": "1.26.4", "newer": "2.2.6"}
    assert found == {name: ("ok", "passed", version) for name, version in versions.items()}
    assert len(set(versions.values())) == 3
