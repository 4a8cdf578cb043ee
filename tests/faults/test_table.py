"""The table of faults: a run replaces the rows of the tests that it ran, and no others."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
TESTS = """
import pytest

@pytest.mark.parametrize("number", [1, 2])
def test_swept(observe, number):
    observe("cell", f"number {number} | b", "ok", "SEEN")

def test_twice(observe):
    observe("zygote", "first", "ok", "SEEN")
    observe("cell", "second", "ok", "SEEN")

def test_skipped_now(observe):
    if "SEEN" == "later":
        pytest.skip("no GPU here")
    observe("gpu", "skipped", "ok", "SEEN")

def test_failing_now(observe):
    assert "SEEN" != "later"
    observe("cell", "failing", "ok", "SEEN")
"""
GONE = "@pytest.mark.gpu\ndef test_gone(observe):\n    observe('gpu', 'gone', 'ok', 'SEEN')\n"


class Faults:
    """A project of these few tests and the real conftest.py, and its table."""

    def __init__(self, folder: Path) -> None:
        self.tests = folder / "tests" / "faults"
        self.tests.mkdir(parents=True)
        shutil.copy(HERE.parent / "conftest.py", self.tests.parent)
        shutil.copy(HERE / "conftest.py", self.tests)
        self.markdown = folder / "table.md"
        self.markdown.write_text("# Faults\n\n<!-- written by: make reliability -->\n")
        settings = ["[pytest]", "testpaths = tests/faults", "markers =", "    gpu: none here", "addopts = -m 'not gpu'"]
        (folder / "pytest.ini").write_text("\n".join(settings))

    def run(self, seen: str, *argv: str, more: str = "") -> int:
        """Run the tests that `argv` picks, all of which observe `seen`; pytest's exit code."""
        (self.tests / "test_few.py").write_text((TESTS + more).replace("SEEN", seen))
        command = [sys.executable, "-m", "pytest", "-q", f"--faults-table={self.markdown}", *argv]
        done = subprocess.run(
            command,
            cwd=self.tests.parents[1],
            env=os.environ | {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode in (0, 1), done.stdout + done.stderr
        return done.returncode

    def rows(self) -> dict[str, str]:
        """What was observed of each fault, in the table's order."""
        lines = self.markdown.read_text().split("|--:|\n")[1].splitlines()
        cells = [re.split(r"(?<!\\) ?\| ?", line) for line in lines]
        return {fault: observed for _, _, fault, _, observed, *_ in cells}


@pytest.fixture(scope="module")
def of_everything(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The table after a run of everything."""
    made = Faults(tmp_path_factory.mktemp("everything"))
    assert made.run("before", "-m", "", more=GONE) == 0
    assert list(made.rows()) == ["failing", "number 1 \\| b", "number 2 \\| b", "second", "first", "gone", "skipped"]
    assert set(made.rows().values()) == {"before"}
    return made.markdown.read_text()


@pytest.fixture
def faults(tmp_path: Path, of_everything: str) -> Faults:
    """Where a run of everything was before."""
    made = Faults(tmp_path)
    made.markdown.write_text(of_everything)
    return made


def test_a_part_of_the_tests_replaces_its_own_rows_alone(faults: Faults) -> None:
    """Of one set of parameters, of one test with rows in two places, and none of one that another marker has."""
    everything = faults.rows()
    assert faults.run("now", "tests/faults/test_few.py::test_swept[2]", more=GONE) == 0
    assert faults.rows() == everything | {"number 2 \\| b": "now"}
    assert faults.run("then", "-k", "twice", more=GONE) == 0
    assert faults.rows() == everything | {"number 2 \\| b": "now", "second": "then", "first": "then"}
    assert list(faults.rows()) == list(everything)


def test_rows_of_tests_that_are_no_more_go(faults: Faults) -> None:
    """Whatever ran, and so do those of which nobody can tell whose they are."""
    text = faults.markdown.read_text()
    faults.markdown.write_text(text + "| cell | nobody's | ok | before | 0.0 |\n")
    everything = faults.rows()
    assert faults.run("now", "-k", "twice") == 0
    assert faults.rows().keys() == everything.keys() - {"gone", "nobody's"}


def test_a_test_that_fails_loses_its_row_and_one_that_is_skipped_does_not(faults: Faults) -> None:
    """What did not happen again is no longer said; where nothing was looked at, nothing is known anew."""
    assert faults.run("later", more=GONE) == 1
    assert "failing" not in faults.rows()
    assert faults.rows()["skipped"] == faults.rows()["gone"] == "before"
    assert faults.rows()["first"] == "later"
    assert faults.markdown.read_text().startswith("# Faults\n\n<!-- written by: make reliability -->\n\n| where |")
