"""What came out of a sweep: the table of latencies, and how many cells ended how."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.text import Text

from attnsweep.errors import Status
from attnsweep.flags import NOT_RANKED
from attnsweep.safe_text import line
from attnsweep.terminal import bare_table, digits, label, print_table, say

if TYPE_CHECKING:
    from attnsweep.plan import Cell, Outcome

_STYLES = {Status.OK: "green", Status.UNSUPPORTED: "dim", Status.MISSING: "yellow"}

#: So many labels of a case are named that are missing or unsupported, where a case has a line; more are counted.
_NAMED = 3

#: The width of the widest table.
_WIDEST = 160


def show(out: Console, cells: Sequence[Cell], outcomes: Mapping[str, Outcome]) -> None:
    """Latencies in ms, a row a case, the lowest that may be compared marked with *; a status where there is none."""
    labels = list(dict.fromkeys(label(cell) for cell in sorted(cells, key=label)))
    # A cold and a hot cache, or two presets, are two measurements of a case
    several = [name for name in ("cache", "timing") if len({cell.columns[name] for cell in cells}) > 1]
    rows: dict[str, dict[str, list[Outcome]]] = {}
    for cell in cells:
        if cell.id in outcomes:
            row = rows.setdefault(", ".join(cell.columns[name] for name in ("case", *several)), {})
            row.setdefault(label(cell), []).append(outcomes[cell.id])
    if not rows:
        return
    shown = {case: _row(row) for case, row in rows.items()}
    wide = max(map(len, shown)) + sum(max(len(one), 10) + 3 for one in labels)
    if wide <= min(out.width, _WIDEST):
        table = bare_table("ms", *labels)
        for case, entries in shown.items():
            table.add_row(Text(line(case)), *(entries.get(one, Text("")) for one in labels))
    else:
        table = bare_table("case", "ms, best first")
        for case, entries in shown.items():
            table.add_row(Text(line(case)), Text(", ").join(_ranking(entries)))
    print_table(out, table)
    if any("*" in entry.plain for entries in shown.values() for entry in entries.values()):
        say(out, "* lowest median of its case; attnsweep-report says whether by more than chance")


def _ranking(entries: Mapping[str, Text]) -> Iterator[Text]:
    """Each label with what to show for it, but for what is missing or unsupported where that would be a paragraph."""
    found = Counter(entry.plain for entry in entries.values())
    counted = [status for status in (Status.UNSUPPORTED, Status.MISSING) if found[status] > _NAMED]
    for name, entry in entries.items():
        if entry.plain not in counted:
            yield Text.assemble(f"{name} ", entry)
    for status in counted:
        yield Text(f"{found[status]} {status}", style=_STYLES[status])


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
        text = Text(digits(medians[name]) + ("*" if name == best else ""), style="bold" if name == best else "")
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
    """The flag for which a result is compared with no other, or None."""
    flags = {flag for one in several for flag in one.flags}
    return next((flag for flag in NOT_RANKED if flag in flags), None)


def counts(statuses: Iterable[Status]) -> str:
    """How many cells ended how: `12 ok, 3 unsupported, 1 crashed`."""
    found = list(statuses)
    return ", ".join(f"{found.count(status)} {status}" for status in Status if status in found) or "no cells"
