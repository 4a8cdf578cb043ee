"""The table of faults: what each test did, what must follow and what did; docs/reliability.md is printed from it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

#: Where a fault happens, in the order of the table.
PLACES = ("cell", "zygote", "launcher", "files", "gpu")


@dataclass
class Fault:
    """One row: what was done where, what must follow, what did, and the seconds that the test took."""

    place: str
    fault: str
    expected: str
    observed: str
    seconds: float


#: What precedes the table in its file.
MARK = "<!-- written by: make reliability -->"

_ROWS = pytest.StashKey[list[Fault]]()


class Observer:
    """Takes the rows of one test; the time runs from the test's start or its last row."""

    def __init__(self, rows: list[Fault]) -> None:
        self._rows, self._since = rows, time.monotonic()

    def __call__(self, place: str, fault: str, expected: str, observed: str, seconds: float | None = None) -> None:
        """Keep a row; `observed` is put together from what was seen, never from what was hoped for."""
        assert place in PLACES
        now = time.monotonic()
        took = now - self._since if seconds is None else seconds
        self._rows.append(Fault(place, fault, expected, observed, took))
        self._since = now


@pytest.fixture
def observe(request: pytest.FixtureRequest) -> Observer:
    """Observer of this test."""
    return Observer(request.config.stash.setdefault(_ROWS, []))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    """A test that passes and asked for `observe` must have left a row."""
    before = len(item.config.stash.get(_ROWS, []))
    yield
    if "observe" in getattr(item, "fixturenames", ()):
        assert len(item.config.stash[_ROWS]) > before, "the test observed nothing"


def table(rows: list[Fault], before: str) -> str:
    """The rows as a Markdown table, in the order of PLACES and of the fault's words.

    Of the table that was there `before`, the rows of places where this run looked at nothing are kept: no machine has
    both a GPU and the two cores of a CI runner.
    """

    def cell(text: str) -> str:
        return text.replace("|", "\\|").replace("\n", " ")

    lines = {place: [line for line in before.splitlines() if line.startswith(f"| {place} |")] for place in PLACES}
    for place in {row.place for row in rows}:
        own = sorted((row for row in rows if row.place == place), key=lambda one: one.fault)
        lines[place] = [
            f"| {' | '.join((place, cell(row.fault), cell(row.expected), cell(row.observed), f'{row.seconds:.1f}'))} |"
            for row in own
        ]
    head = ["| where | fault | expected | observed | s |", "|---|---|---|---|--:|"]
    return "\n".join([*head, *(line for place in PLACES for line in lines[place])]) + "\n"


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Put the table into the file that --faults-table names, in the place of what stands behind MARK."""
    named = session.config.getoption("--faults-table")
    if named:
        path = Path(named)
        head, mark, before = path.read_text(encoding="utf-8").partition(MARK)
        assert mark, f"{path} has no line {MARK}"
        rows = session.config.stash.get(_ROWS, [])
        path.write_text(f"{head}{mark}\n\n{table(rows, before)}", encoding="utf-8")
