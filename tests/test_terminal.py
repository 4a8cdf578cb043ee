"""Whatever text is printed acts on no terminal, and numbers are said as people say them."""

from __future__ import annotations

import io
import re
from dataclasses import replace
from pathlib import Path

from rich.console import Console
from rich.table import Table

from attnsweep import dry_run, planning, progress, results
from attnsweep.errors import Status
from attnsweep.plan import Outcome, Plan
from attnsweep.terminal import duration, print_table
from sweeps import CPU, combination, one_case, settings

HOSTILE = "[red]x[/red] \x1b]0;owned\x07 \x1b[2J\r\n:smile: \u202egnirts \x9b31m {0} %s"


def terminal(width: int = 100) -> tuple[Console, io.StringIO]:
    """A console that takes itself for a colour terminal, and what it wrote."""
    out = io.StringIO()
    return Console(file=out, force_terminal=True, width=width, markup=False, emoji=False, highlight=False), out


def hostile_plan(tmp_path: Path) -> Plan:
    named = combination(HOSTILE, variant=HOSTILE, scenario=one_case())
    planned = planning.make(settings(tmp_path), [named, combination(scenario=one_case())], [CPU])
    return replace(planned, cells=tuple(replace(one, unsupported=HOSTILE) for one in planned.cells))


def harmless(text: str) -> None:
    """Nothing in the text acts on a terminal but rich's own colours and cursor, and the words are shown as they are."""
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e]", plain.replace("\r", ""))
    assert "\x1b[2J" not in text
    assert "[red]x[/red]" in plain.replace("\n", "")


def test_text_from_records_cannot_act_on_the_terminal(tmp_path: Path) -> None:
    """Markup, control sequences, bidirectional overrides: shown as codes, in lines, bar and tables alike."""
    planned = hostile_plan(tmp_path)
    outcome = Outcome(Status.ERROR, None, HOSTILE, ())
    for is_terminal in (True, False):
        console, out = terminal()
        if not is_terminal:
            out = io.StringIO()
            console = Console(file=out, width=10_000, markup=False, emoji=False, highlight=False)
        with progress.Report(console, 2) as report:
            for cell in planned.cells:
                report.cell(cell, outcome)
            report.say(HOSTILE)
        harmless(out.getvalue())
        dry_run.show(console, replace(planned, missing={cell.id: HOSTILE for cell in planned.cells}), {})
        results.show(console, planned.cells, {cell.id: outcome for cell in planned.cells})
        harmless(out.getvalue())


def test_a_table_wider_than_the_terminal_is_whole_and_fills_no_line_with_blanks() -> None:
    """The terminal would break those too, and show empty lines between the rows."""
    console, out = terminal(20)
    table = Table(box=None, show_header=False, width=60)
    for row in (("a" * 30, "b" * 20), ("short", "")):
        table.add_row(*row)
    print_table(console, table)
    lines = out.getvalue().splitlines()
    assert [line.split() for line in lines] == [["a" * 30, "b" * 20], ["short"]]
    assert [line.rstrip() for line in lines] == lines


def test_durations_are_said_as_people_say_them() -> None:
    """Seconds, then minutes, then hours."""
    said = [duration(seconds) for seconds in (0, 45.4, 89, 120, 20 * 60, 5399, 3 * 3600 + 600)]
    assert said == ["0 s", "45 s", "89 s", "2 min", "20 min", "1 h 30 min", "3 h 10 min"]
