"""What a sweep says while it runs: a bar on a terminal, lines elsewhere."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Column
from rich.text import Text

from attnsweep.errors import FAILURES
from attnsweep.flags import BEARING, NOT_RANKED
from attnsweep.safe_text import line
from attnsweep.terminal import digits, duration, label, say

if TYPE_CHECKING:
    from attnsweep.plan import Cell, Outcome
    from attnsweep.pool.deadlines import Standing

#: What a cell does in each of the pool's phases.
_DOING = {"prepare": "preparing", "compile": "compiling", "check": "checking", "time": "timing"}

#: From this second on a cell is shown in the bar, in the place of the last result: quicker ones would only flicker.
_SHOWN_S = 3.0

#: Columns that the bar's counts and its time left take.
_COUNTS_WIDTH = 34

#: Where there is no terminal, a cell that takes so many seconds is spoken of, and again after as many.
_LONG_S = 60.0

#: Flags of a record that bear on its speed, or on whether that counts; the others say how it was timed, or loaded.
_ON_SPEED = frozenset((*BEARING, *NOT_RANKED))

#: How often somebody looks for such cells, in seconds.
_LOOK_S = 5.0


class Report:
    """The running sweep on the terminal: a bar with the time left and what runs, or where there is no terminal one
    line a cell, and one a minute for a cell that takes longer than that.

    `total` is the number of cells that need a process: what needs none takes no time, and would make the time left
    a promise that cannot be kept. `clock` is time.monotonic. A context manager; its methods may be called from any
    thread, one at a time, but for `running`, which may be called at any time and does not block.
    """

    def __init__(self, out: Console, total: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.out, self.total, self.clock = out, total, clock
        self.count = self.failures = 0
        self.last = "starting"
        self._running: dict[str, tuple[Cell, Standing]] = {}
        self._spoken_of: dict[str, float] = {}
        self._over = threading.Event()
        self._reminder: threading.Thread | None = None
        self.bar: Progress | None = None
        if out.is_terminal:
            self.bar = Progress(
                BarColumn(bar_width=None),
                MofNCompleteColumn(table_column=Column(no_wrap=True)),
                TextColumn("{task.fields[failures]} failed", style="red"),
                TextColumn("left"),
                TimeRemainingColumn(table_column=Column(no_wrap=True)),
                _Now(self.now),
                console=out,
                speed_estimate_period=600,
            )
            self.task = self.bar.add_task("", total=total, failures=0)

    def __enter__(self) -> Report:
        if self.bar is not None:
            self.bar.start()
        else:
            # A thread of its own: a slot that waits for a reader of standard output would keep no deadline
            self._reminder = threading.Thread(target=self._remind, name="reminder", daemon=True)
            self._reminder.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        if self.bar is not None:
            self.bar.stop()
        if self._reminder is not None:
            self._reminder.join()

    def _remind(self) -> None:
        while not self._over.wait(_LOOK_S):
            self.remind()

    def say(self, text: str) -> None:
        """A sentence of its own, above the bar."""
        say(self.out, text)

    def running(self, cell: Cell, standing: Standing) -> None:
        """Where a running cell is now."""
        self._running[cell.id] = (cell, standing)

    def now(self) -> Text:
        """The cell that runs longest, where it is, and how many run beside it; the last result where none is long.

        It leaves room for the counts: names are cut.
        """
        room, now = self.out.width - _COUNTS_WIDTH, self.clock()
        cells = sorted(self._running.values(), key=lambda one: one[1].begun_s)
        if not cells or now - cells[0][1].begun_s < _SHOWN_S:
            return _cut(self.last, room)
        cell, standing = cells[0]
        more = f" (+{len(cells) - 1})" if len(cells) > 1 else ""
        said = f": {doing(standing, now)}{more}"
        return _cut(label(cell), room - len(said)).append(said)

    def remind(self) -> None:
        """A line for each cell that has run for a minute, or for one more since its last line."""
        now = self.clock()
        for cell, standing in list(self._running.values()):
            if now - max(self._spoken_of.get(cell.id, 0.0), standing.begun_s) >= _LONG_S:
                self._spoken_of[cell.id] = now
                said = f"{label(cell)} {cell.columns['case']}: {doing(standing, now)}"
                self.say(f"{said}; it has run for {duration(now - standing.begun_s)}")

    def known(self, cell: Cell, outcome: Outcome) -> None:
        """A cell that needs no process is recorded: a line without a count, and nothing beside a bar."""
        if self.bar is None:
            self.say(f"{label(cell)} {cell.columns['case']}: {outcome.status} ({outcome.reason})")

    def cell(self, cell: Cell, outcome: Outcome) -> None:
        """One more cell is over and recorded."""
        self._running.pop(cell.id, None)
        self.count += 1
        failed = outcome.status in FAILURES
        self.failures += failed
        result = _result(outcome)
        said = f"{label(cell)} {line(cell.columns['case'])}: {result}"
        if outcome.reason:
            said += f" ({line(outcome.reason)})"
        if self.bar is None:
            width = len(str(self.total))
            self.out.print(Text(f"[{self.count:>{width}}/{self.total}] {said}"), soft_wrap=True)
            return
        if failed:
            self.out.print(Text(said, style="red"), soft_wrap=True)
        self.last = f"{label(cell)}: {result}"
        self.bar.update(self.task, completed=self.count, failures=self.failures)


def doing(standing: Standing, now: float) -> str:
    """What a cell does, for how long, and with how much of the CPU where that is known: compiling 41 s, 4.0 cores."""
    cores = "" if standing.cores is None else f", {standing.cores:.1f} cores"
    return f"{_DOING[standing.phase]} {duration(now - standing.since_s)}{cores}"


def _result(outcome: Outcome) -> str:
    """How a cell ended: its status, or the latency and what bears on it: ok 23.91 ms, contended, unstable."""
    if not outcome.latency_ms:
        return str(outcome.status)
    marks = [flag for flag in outcome.flags if flag in _ON_SPEED]
    return ", ".join([f"{outcome.status} {digits(outcome.latency_ms)} ms", *marks])


def _cut(text: str, width: int) -> Text:
    """The text in so many columns, and in eight at least."""
    cut = Text(text)
    cut.truncate(max(width, 8), overflow="ellipsis")
    return cut


class _Now(ProgressColumn):
    """What runs at this moment: asked at each refresh, so that ages grow although nobody says anything."""

    def __init__(self, now: Callable[[], Text]) -> None:
        super().__init__(Column(no_wrap=True))
        self._now = now

    def render(self, task: Task) -> Text:
        return self._now()
