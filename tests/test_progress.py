"""What is said of a cell that runs: in the bar at every refresh, without a terminal once a minute."""

from __future__ import annotations

import io
import re
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from attnsweep import planning, progress
from attnsweep.errors import Status
from attnsweep.plan import Cell, Outcome
from attnsweep.pool.deadlines import Standing
from processes import wait_for
from sweeps import CPU, DEFAULT, combination, settings


class Clock:
    """Seconds that a test sets."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def cells(tmp_path: Path) -> list[Cell]:
    """Cells of fa2, compiled."""
    return list(planning.make(settings(tmp_path), [combination("fa2", compile=DEFAULT)], [CPU]).cells)


def report(
    clock: Callable[[], float], terminal: bool = False, width: int = 10_000
) -> tuple[progress.Report, io.StringIO]:
    """A report of six cells on this clock, and what it writes."""
    out = io.StringIO()
    console = Console(file=out, force_terminal=terminal, width=width, markup=False, emoji=False, highlight=False)
    return progress.Report(console, 6, clock), out


@pytest.mark.parametrize(
    ("standing", "said"),
    [
        (Standing("prepare", 990.0, 990.0), "preparing 10 s"),
        (Standing("prepare", 990.0, 990.0, 0.96), "preparing 10 s, 1.0 cores"),
        (Standing("compile", 950.0, 959.0, 3.96), "compiling 41 s, 4.0 cores"),
        (Standing("check", 400.0, 400.0), "checking 10 min"),
        (Standing("time", 990.0, 998.0), "timing 2 s"),
    ],
)
def test_what_a_cell_does_is_said_with_its_age_and_its_cores(standing: Standing, said: str) -> None:
    """The phase's age, and the cores where they were looked at."""
    assert progress.doing(standing, 1000.0) == said


@pytest.mark.parametrize("width", [80, 120])
def test_the_bar_shows_the_cell_that_runs_longest(cells: list[Cell], width: int) -> None:
    """On eighty columns too; its age grows without anybody's word, and the last result is back when it is over."""
    clock = Clock()
    one, out = report(clock, terminal=True, width=width)

    def shown() -> str:
        out.truncate(0)
        assert one.bar is not None
        one.bar.refresh()
        return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", out.getvalue())

    with one:
        assert "starting" in shown()
        one.running(cells[0], Standing("compile", 950.0, 959.0, 4.0))
        one.running(cells[1], Standing("time", 960.0, 990.0))
        assert "fa2 default: compiling 41 s, 4.0 cores (+1)" in shown()
        clock.now += 60
        assert "fa2 default: compiling 2 min, 4.0 cores (+1)" in shown()
        one.cell(cells[0], Outcome(Status.OK, 0.5, None, ()))
        assert "1/6 0 failed left" in shown()
        assert "fa2 default: timing 70 s" in shown()
        one.cell(cells[1], Outcome(Status.OK, 0.25, None, ()))
        one.running(cells[2], Standing("prepare", 1058.0, 1058.0))
        assert "fa2 default: ok 0.25 ms" in shown()
        clock.now += 1
        assert "fa2 default: preparing 3 s" in shown()


def test_the_bar_shows_how_many_how_many_failed_and_the_last_result(cells: list[Cell]) -> None:
    """On a terminal failures get a line of their own above the bar, successes do not."""
    bar, out = report(Clock(), terminal=True, width=120)
    with bar:
        bar.cell(cells[0], Outcome(Status.OK, 0.4021, None, ()))
        bar.cell(cells[1], Outcome(Status.CRASHED, None, "died of SIGSEGV", ()))
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", out.getvalue())
    assert "2/6" in plain
    assert "1 failed" in plain
    assert "fa2 default: crashed" in plain
    assert f"fa2 default {cells[1].columns['case']}: crashed (died of SIGSEGV)" in plain
    assert cells[0].columns["case"] + ": ok" not in plain


@pytest.mark.parametrize("terminal", [True, False])
def test_a_result_says_what_bears_on_its_speed(cells: list[Cell], terminal: bool) -> None:
    """Beside the latency, without a word of what does not; a failure has its reason alone."""
    report_, out = report(Clock(), terminal=terminal, width=200)
    flags = ("contended", "graph_unsupported", "loose_check", "no_room", "unproven", "unstable")
    with report_:
        report_.cell(cells[0], Outcome(Status.OK, 23.914, None, flags))
        if report_.bar is not None:
            report_.bar.refresh()
        said = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", out.getvalue()).rstrip()
        assert said.endswith(": ok 23.91 ms, contended, loose_check, unstable")
        report_.cell(cells[1], Outcome(Status.CRASHED, None, "died of SIGSEGV", ("contended",)))
    assert "crashed, contended" not in out.getvalue()


def test_a_long_name_is_cut_and_what_is_said_of_it_is_not(cells: list[Cell]) -> None:
    """On eighty columns counts, time left, phase, age and cores are all there."""
    cells[0].columns["impl"] = "a_long_name_of_an_implementation"
    one, out = report(Clock(), terminal=True, width=80)
    with one:
        one.running(cells[0], Standing("compile", 950.0, 959.0, 4.0))
        assert one.bar is not None
        one.bar.refresh()
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", out.getvalue()).splitlines()[-1]
    assert re.search(r"0/6 0 failed left \S+ a_long_name\w*…: compiling 41 s, 4\.0 cores$", plain.rstrip())


def test_without_a_terminal_only_long_cells_are_spoken_of_once_a_minute(cells: list[Cell]) -> None:
    """From their first minute on; a cell of some seconds never, and none that is over."""
    clock = Clock()
    one, out = report(clock)
    one.running(cells[0], Standing("prepare", 1000.0, 1000.0))
    spoken = []
    for second in range(1, 200):
        clock.now = 1000.0 + second
        if second == 20:
            one.running(cells[0], Standing("compile", 1000.0, 1020.0, 2.0))
        if second == 150:
            one.cell(cells[0], Outcome(Status.OK, 0.5, None, ()))
            one.running(cells[1], Standing("time", 1150.0, 1150.0))
        out.truncate(0)
        out.seek(0)
        one.remind()
        spoken += [(second, line) for line in out.getvalue().splitlines()]
    case = cells[0].columns["case"]
    assert spoken == [
        (60, f"fa2 default {case}: compiling 40 s, 2.0 cores; it has run for 60 s"),
        (120, f"fa2 default {case}: compiling 2 min, 2.0 cores; it has run for 2 min"),
    ]


def test_somebody_looks_for_long_cells_while_the_report_is_open(
    cells: list[Cell], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a thread that ends with it; beside a bar there is none."""
    monkeypatch.setattr(progress, "_LOOK_S", 0.01)
    clock = Clock()
    one, out = report(clock)
    with one:
        one.running(cells[0], Standing("time", 900.0, 900.0))
        wait_for(lambda: "timing 2 min; it has run for 2 min" in out.getvalue())
    assert "reminder" not in [thread.name for thread in threading.enumerate()]
    bar, _ = report(clock, terminal=True, width=80)
    with bar:
        assert "reminder" not in [thread.name for thread in threading.enumerate()]


def test_names_cannot_act_on_the_terminal(cells: list[Cell]) -> None:
    """What runs is shown in the bar, and its name is somebody's YAML."""
    cells[0].columns["variant"] = "\x1b[2J[red]x[/red]"
    one, _ = report(Clock())
    one.running(cells[0], Standing("time", 900.0, 900.0))
    assert one.now().plain == "fa2[\\x1b[2J[red]x[/red]] default: timing 2 min"
