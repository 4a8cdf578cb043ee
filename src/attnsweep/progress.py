"""What a sweep says on the terminal: a bar or lines while it runs, tables before and after."""

from __future__ import annotations

import contextlib
import os
import statistics
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import TracebackType
from typing import IO, TYPE_CHECKING, TextIO, cast

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
from rich.table import Column, Table
from rich.text import Text

from attnsweep.errors import FAILURES, Status

if TYPE_CHECKING:
    from attnsweep.plan import Cell, Outcome, Plan
    from attnsweep.pool.deadlines import Standing
    from attnsweep.uvenv import Recipe

_STYLES = {Status.OK: "green", Status.UNSUPPORTED: "dim", Status.MISSING: "yellow"}


#: What a cell does in each of the pool's phases.
_DOING = {"prepare": "preparing", "compile": "compiling", "check": "checking", "time": "timing"}

#: From this second on a cell is shown in the bar, in the place of the last result: quicker ones would only flicker.
_SHOWN_S = 3.0
#: Columns that the bar's counts and its time left take.
_COUNTS_WIDTH = 34

#: Where there is no terminal, a cell that takes so many seconds is spoken of, and again after as many.
_LONG_S = 60.0
#: How often somebody looks for such cells, in seconds.
_LOOK_S = 5.0

#: The width of standard output where it is no terminal, and of the widest table of results.
_ENDLESS, _WIDEST = 10_000, 160


class Lasting:
    """A stream that falls silent, for good, at the first write that fails: a closed pipe, a full disk, a terminal
    that is gone.

    A sweep of hours must not end because nobody reads what it says. Everything else is the stream's own.
    """

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream  # None: the process was started with standard output closed
        self.silent = stream is None

    def __getattr__(self, name: str) -> object:
        return getattr(self._stream, name)

    def isatty(self) -> bool:
        """Whether it is a terminal; one that is gone is none."""
        return self._stream is not None and self._stream.isatty()

    def write(self, text: str) -> int:
        """Write the text, or drop it."""
        if self._stream is not None and not self.silent:
            try:
                return self._stream.write(text)
            except OSError:
                self._fall_silent()
        return len(text)

    def flush(self) -> None:
        """Pass on what is buffered, or drop it."""
        if self._stream is not None and not self.silent:
            try:
                self._stream.flush()
            except OSError:
                self._fall_silent()

    def _fall_silent(self) -> None:
        self.silent = True
        assert self._stream is not None
        # What is still buffered is written when the interpreter ends, whose exit code a failure would replace.
        with contextlib.suppress(OSError):
            sink = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
            os.dup2(sink, self._stream.fileno())
            os.close(sink)


def console() -> Console:
    """Standard output, `Lasting`; lines are never broken where it is not a terminal."""
    file = cast("IO[str]", Lasting(sys.stdout))
    out = Console(file=file, highlight=False, markup=False, emoji=False)
    return out if out.is_terminal else Console(file=file, highlight=False, markup=False, emoji=False, width=_ENDLESS)


def line(value: object) -> str:
    """`value` as one line in which nothing acts on a terminal or hides: unprintables show as codes."""
    text = " ".join(str(value).split())
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in text)


def label(cell: Cell) -> str:
    """The unit of comparison: impl[variant] and the compile mode, `fa2[block_q=64] default`."""
    variant = f"[{cell.columns['variant']}]" if cell.columns["variant"] else ""
    return line(f"{cell.columns['impl']}{variant} {cell.columns['compile']}")


def say(out: Console, text: str) -> None:
    """A sentence on a line of its own."""
    out.print(Text(line(text)), soft_wrap=True)


def duration(seconds: float) -> str:
    """Seconds as a person says them: 45 s, 20 min, 3 h 10 min."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"


def doing(standing: Standing, now: float) -> str:
    """What a cell does, for how long, and with how much of the CPU where that is known: compiling 41 s, 4.0 cores."""
    cores = "" if standing.cores is None else f", {standing.cores:.1f} cores"
    return f"{_DOING[standing.phase]} {duration(now - standing.since_s)}{cores}"


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
        result = f"{outcome.status} {_ms(outcome.latency_ms)} ms" if outcome.latency_ms else str(outcome.status)
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


def dry_run(out: Console, plan: Plan, unbuilt: Mapping[str, Recipe]) -> None:
    """Every cell and why it would be skipped, then how many there are and about how long they take.

    `unbuilt` says by cell id which environment would be built first.
    """
    table = _table("implementation", "process", "")
    case = None
    for cell in plan.cells:
        if cell.group != case:
            case = cell.group
            table.add_row(Text(line(case), style="bold"))
        table.add_row(
            Text(f"  {label(cell)}"),
            Text(str(cell.columns["replicate"])),
            _prospect(plan, cell, unbuilt.get(cell.id)),
        )
    _print(out, table)
    build = len(set(unbuilt.values()))
    note = f" once {_count(build, 'environment')} {'is' if build == 1 else 'are'} built" if build else ""
    out.print(
        Text(
            f"{_count(len(plan.cells), 'cell')}, {len(plan.to_run)} to run{note}, "
            f"about {duration(plan.estimate_s)} on {_places(plan)}"
        ),
        soft_wrap=True,
    )


def _prospect(plan: Plan, cell: Cell, unbuilt: Recipe | None) -> Text:
    done = plan.done.get(cell.id)
    if done is not None:
        return Text(f"done: {done.status}", style="dim")
    if cell.unsupported is not None:
        return Text(line(f"unsupported: {cell.unsupported}"), style="dim")
    if cell.id in plan.missing:
        return Text(line(f"missing: {plan.missing[cell.id]}"), style="yellow")
    if unbuilt is not None:
        return Text(f"to run, once its environment of {_count(unbuilt.packages, 'package')} is built")
    return Text("to run")


def _places(plan: Plan) -> str:
    name = line(plan.devices[0].name)
    return name if len(plan.devices) == 1 else f"{len(plan.devices)} x {name}"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def results(out: Console, cells: Sequence[Cell], outcomes: Mapping[str, Outcome]) -> None:
    """Latencies in ms, a row a case, the best of each marked with *; a status where there is none."""
    labels = list(dict.fromkeys(label(cell) for cell in sorted(cells, key=label)))
    rows: dict[str, dict[str, list[Outcome]]] = {}
    for cell in cells:
        if cell.id in outcomes:
            row = rows.setdefault(cell.columns["case"], {})
            row.setdefault(label(cell), []).append(outcomes[cell.id])
    if not rows:
        return
    shown = {case: _row(row) for case, row in rows.items()}
    wide = max(map(len, shown)) + sum(max(len(one), 10) + 3 for one in labels)
    if wide <= min(out.width, _WIDEST):
        table = _table("ms", *labels)
        for case, entries in shown.items():
            table.add_row(Text(line(case)), *(entries.get(one, Text("")) for one in labels))
    else:
        table = _table("case", "ms, best first")
        for case, entries in shown.items():
            several = Text(", ").join(Text.assemble(f"{name} ", entry) for name, entry in entries.items())
            table.add_row(Text(line(case)), several)
    _print(out, table)


def _row(row: Mapping[str, list[Outcome]]) -> dict[str, Text]:
    """What to show for each label of a case: the fastest first, those without a latency last."""
    medians = {
        name: statistics.median(latencies)
        for name, several in row.items()
        if (latencies := [one.latency_ms for one in several if one.latency_ms is not None])
    }
    barred = {name: _barred(row[name]) for name in medians}
    classes = {name: _precision(row[name]) for name in medians}
    # A result in the case's own precision is never second to one that is not
    best = min(
        (name for name in medians if not barred[name]),
        key=lambda name: (classes[name] is not None, medians[name]),
        default=None,
    )
    shown = {}
    for name in sorted(medians, key=lambda one: medians[one]):
        failed = [one for one in row[name] if one.latency_ms is None]
        text = Text(_ms(medians[name]) + ("*" if name == best else ""), style="bold" if name == best else "")
        if failed:
            text.append(f" ({len(failed)} of {len(row[name])} {failed[0].status})", style="red")
        if classes[name]:
            text.append(f" {line(str(classes[name]))}", style="dim")
        if barred[name]:
            text.append(f" {barred[name]}", style="red" if barred[name] == "implausible" else "dim")
        shown[name] = text
    for name, several in row.items():
        if name not in medians:
            status = several[0].status
            shown[name] = Text(str(status), style=_STYLES.get(status, "red"))
    return shown


def _precision(several: Sequence[Outcome]) -> str | None:
    """The precision class that a label declares, None for the case's own."""
    return next((one.precision_class for one in several if one.precision_class not in (None, "native")), None)


def _barred(several: list[Outcome]) -> str | None:
    """The flag for which a result cannot be the best of its case, or None."""
    flags = {flag for one in several for flag in one.flags}
    return next((flag for flag in ("implausible", "ceiling") if flag in flags), None)


def counts(statuses: Iterable[Status]) -> str:
    """How many cells ended how: `12 ok, 3 unsupported, 1 crashed`."""
    found = list(statuses)
    return ", ".join(f"{found.count(status)} {status}" for status in Status if status in found) or "no cells"


def _ms(latency_ms: float | None) -> str:
    """Four significant digits at least: what an interval of 1 % can bear."""
    assert latency_ms is not None
    return f"{latency_ms:.4g}" if latency_ms < 1000 else f"{latency_ms:.0f}"


def _table(*headers: str) -> Table:
    table = Table(box=None, pad_edge=False, show_edge=False, padding=(0, 2, 0, 0))
    for header in headers:
        table.add_column(Text(line(header)), overflow="fold")
    return table


def _print(out: Console, table: Table) -> None:
    """A table, without the blanks that would fill its lines up."""
    with out.capture() as captured:
        out.print(table)
    for text in captured.get().splitlines():
        row = Text.from_ansi(text)
        row.rstrip()
        out.print(row, soft_wrap=True)
