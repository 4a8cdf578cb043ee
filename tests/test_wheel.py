"""The wheel: holds every YAML and the launcher, and sweeps from an empty folder in a fresh environment."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this checkout."""
    folder = tmp_path_factory.mktemp("dist")
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    done = subprocess.run(build, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (found,) = folder.glob("*.whl")
    return found


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bin folder of a fresh environment with the wheel in it, and this environment's packages behind it."""
    folder = tmp_path_factory.mktemp("fresh")
    venv.create(folder, with_pip=True)
    python = folder / "bin" / "python"
    subprocess.run(
        [python, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", str(wheel)], env=clean(), check=True
    )
    site = subprocess.run(
        [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
        capture_output=True,
        text=True,
        check=True,
    )
    # A line of a .pth only lengthens sys.path: .pth files over there, an editable attnsweep's too, are not read.
    (Path(site.stdout.strip()) / "behind.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return folder / "bin"


def clean() -> dict[str, str]:
    """The environment without what could lead an interpreter back to this checkout."""
    return {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "ATTNSWEEP"))}


def run(program: Path, *argv: str, cwd: Path) -> str:
    done = subprocess.run(
        [program, *argv], cwd=cwd, env=clean(), capture_output=True, text=True, timeout=200, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_every_yaml_and_the_launcher_are_in_the_wheel(wheel: Path) -> None:
    """Some ways to build lose one or the other without a word."""
    names = zipfile.ZipFile(wheel).namelist()
    packed = {name.removeprefix("attnsweep/conf/") for name in names if name.endswith(".yaml")}
    assert packed == {str(path.relative_to(ROOT / "conf")) for path in (ROOT / "conf").rglob("*.yaml")}
    assert len(packed) > 20
    assert "hydra_plugins/attnsweep_launcher/plugin.py" in names
    assert "hydra_plugins/__init__.py" not in names


def test_the_fresh_environment_runs_its_own_copy(installed: Path, tmp_path: Path) -> None:
    """Else the other tests here would test the checkout."""
    code = "import attnsweep.cli, attnsweep.conf_path as c; print(attnsweep.cli.__file__); print(c.conf_folder())"
    module, conf = run(installed / "python", "-c", code, cwd=tmp_path).split()
    assert Path(module).is_relative_to(installed.parent)
    assert Path(conf) == Path(module).parent / "conf"


def test_it_says_its_version_and_help(installed: Path, tmp_path: Path) -> None:
    """The entry point works, and finds its groups."""
    assert run(installed / "attnsweep", "--version", cwd=tmp_path).startswith("attnsweep ")
    assert re.search(r"^study: .*\bquickstart\b", run(installed / "attnsweep", "-h", cwd=tmp_path), re.MULTILINE)


def test_it_plans_and_sweeps_in_an_empty_folder(installed: Path, tmp_path: Path) -> None:
    """A dry run writes nothing; a sweep of tiny cases leaves a record for each."""
    argv = ["impl=naive", "scale=tiny", "timing=quick", "device=cpu", "name=n"]
    assert "4 cells, 4 to run" in run(installed / "attnsweep", *argv, "dry_run=true", cwd=tmp_path)
    assert list(tmp_path.iterdir()) == []
    assert "4 ok" in run(installed / "attnsweep", *argv, cwd=tmp_path)
    assert len(list((tmp_path / "outputs" / "n" / "cells").glob("*.parquet"))) == 4


def test_the_doctor_finds_the_wheels_implementations(installed: Path, tmp_path: Path) -> None:
    """The entry point works without a checkout."""
    found = run(installed / "attnsweep-doctor", cwd=tmp_path)
    assert [line.split()[1] for line in found.splitlines() if line.startswith("naive ")] == ["yes"]
