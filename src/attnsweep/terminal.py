"""What is printed: on a stream that may fail, as text that acts on no terminal, with numbers as people say them."""

from __future__ import annotations

import contextlib
import os
import sys
from typing import IO, TYPE_CHECKING, TextIO, cast

from rich.console import Console
from rich.table import Table
from rich.text import Text

from attnsweep.safe_text import line

if TYPE_CHECKING:
    from attnsweep.plan import Cell

#: The width of standard output where it is no terminal.
_ENDLESS = 10_000


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


def say(out: Console, text: str) -> None:
    """A sentence on a line of its own."""
    out.print(Text(line(text)), soft_wrap=True)


def label(cell: Cell) -> str:
    """The unit of comparison: impl[variant] and the compile mode, `fa2[block_q=64] default`."""
    variant = f"[{cell.columns['variant']}]" if cell.columns["variant"] else ""
    return line(f"{cell.columns['impl']}{variant} {cell.columns['compile']}")


def duration(seconds: float) -> str:
    """Seconds as a person says them: 45 s, 20 min, 3 h 10 min."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"


def digits(latency_ms: float) -> str:
    """A latency with four significant digits at least: what an interval of 1 % can bear."""
    return f"{latency_ms:.4g}" if latency_ms < 1000 else f"{latency_ms:.0f}"


def bare_table(*headers: str) -> Table:
    """An empty table without borders."""
    table = Table(box=None, pad_edge=False, show_edge=False, padding=(0, 2, 0, 0))
    for header in headers:
        table.add_column(Text(line(header)), overflow="fold")
    return table


def print_table(out: Console, table: Table) -> None:
    """Print a table, as wide as it is, without the blanks that would fill its lines up."""
    with out.capture() as captured:
        out.print(table, crop=False)
    for text in captured.get().splitlines():
        row = Text.from_ansi(text)
        row.rstrip()
        out.print(row, soft_wrap=True)
