"""The table of faults: what each test did, what must follow and what did; docs/reliability.md is printed from it."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

#: Where a fault happens, in the order of the table.
PLACES = ("cell", "zygote", "launcher", "files", "gpu")


@dataclass
class Fault:
    """One row: what was done where, what must follow, what did, and the seconds that `test` took."""

    place: str
    fault: str
    expected: str
    observed: str
    seconds: float
    test: str


@dataclass
class Seen:
    """What this run did: its rows, and the tests that ran to their end, whichever it was."""

    rows: list[Fault] = field(default_factory=list)
    ran: set[str] = field(default_factory=set)


#: What precedes the table in its file.
MARK = "<!-- written by: make reliability -->"

#: A row of the table; which test wrote it stands in a comment at its end.
ROW = re.compile(r"\| (?P<place>\w+) \| (?P<fault>.*?) \| .* <!-- (?P<test>.*) --> \|")

_SEEN = pytest.StashKey[Seen]()


def cell(text: str) -> str:
    """`text` as a cell of the table, or in a comment."""
    return text.replace("|", "\\|").replace("\n", " ").replace("-->", "--&gt;")


def name_of(nodeid: str) -> str:
    """A test by its file's name, whatever folder pytest was called in: test_x.py::test_y[z]."""
    file, _, test = nodeid.partition("::")
    return cell(f"{Path(file).name}::{test}")


class Observer:
    """Takes the rows of one test; the time runs from the test's start or its last row."""

    def __init__(self, rows: list[Fault], test: str) -> None:
        self._rows, self._test, self._since = rows, test, time.monotonic()

    def __call__(self, place: str, fault: str, expected: str, observed: str, seconds: float | None = None) -> None:
        """Keep a row; `observed` is put together from what was seen, never from what was hoped for."""
        assert place in PLACES
        now = time.monotonic()
        took = now - self._since if seconds is None else seconds
        self._rows.append(Fault(place, fault, expected, observed, took, self._test))
        self._since = now


def _seen(config: pytest.Config) -> Seen:
    return config.stash.setdefault(_SEEN, Seen())


@pytest.fixture
def observe(request: pytest.FixtureRequest) -> Observer:
    """Observer of this test."""
    return Observer(_seen(request.config).rows, name_of(request.node.nodeid))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    """A test that passes and asked for `observe` must have left a row."""
    seen, test = _seen(item.config), name_of(item.nodeid)
    seen.ran.add(test)
    try:
        yield
    except (pytest.skip.Exception, KeyboardInterrupt):
        seen.ran.remove(test)
        raise
    if "observe" in getattr(item, "fixturenames", ()):
        assert any(row.test == test for row in seen.rows), "the test observed nothing"


def table(seen: Seen, before: str, existing: set[str]) -> str:
    """The rows as a Markdown table, in the order of PLACES and of the fault's words.

    Of the table that was there `before`, the rows of tests that exist and did not run now are kept: no machine has both
    a GPU and the two cores of a CI runner.
    """
    lines = [
        f"| {' | '.join((row.place, *map(cell, (row.fault, row.expected, row.observed)), f'{row.seconds:.1f}'))} "
        f"<!-- {row.test} --> |"
        for row in seen.rows
        if row.test in seen.ran
    ]
    earlier = filter(ROW.fullmatch, before.splitlines())
    lines += [line for line in earlier if _row(line)["test"] in existing - seen.ran]
    lines.sort(key=lambda line: (PLACES.index(_row(line)["place"]), _row(line)["fault"]))
    return "\n".join(["| where | fault | expected | observed | s |", "|---|---|---|---|--:|", *lines]) + "\n"


def _row(line: str) -> re.Match[str]:
    found = ROW.fullmatch(line)
    assert found
    return found


def every_test() -> set[str]:
    """The tests of this folder, whether this run was asked for them or not."""
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-m", "", "-p", "no:cacheprovider"]
    done = subprocess.run([*command, str(Path(__file__).parent)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return {name_of(line) for line in done.stdout.splitlines() if "::" in line}


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Put the table into the file that --faults-table names, in the place of what stands behind MARK."""
    named = session.config.getoption("--faults-table")
    if named:
        path = Path(named)
        head, mark, before = path.read_text(encoding="utf-8").partition(MARK)
        assert mark, f"{path} has no line {MARK}"
        written = table(_seen(session.config), before, every_test())
        path.write_text(f"{head}{mark}\n\n{written}", encoding="utf-8")
