"""What failed: failures of a label, equal but for numbers, as one; with reason, traceback and how to run it again."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from dataclasses import dataclass, replace

from attnsweep.errors import Status
from attnsweep.report.load import Row
from attnsweep.report.sections import Derived
from attnsweep.report.tables import Cell, Column, Table
from attnsweep.report.text import count, cut, line

#: Kinds of failure on the terminal, and characters of each one's reason there.
KINDS = 20
REASON = 300

#: Kinds of failure whose tracebacks are on the page, and the characters that are kept of each one's end.
TOLD = 200
TRACEBACK = 20_000


#: A number that stands for itself: not the 90 of sm90, nor the 2 of fa2.
_NUMBER = re.compile(r"(?<![A-Za-z0-9_])\d+(\.\d+)*")


@dataclass(frozen=True)
class Failure:
    """Records of one label that ended alike; `reason`, `traceback` (its end) and `command` are those of the first.

    `reasons` counts the different ones, which differ in numbers alone. Only the first TOLD have a traceback.
    """

    label: str
    status: str
    reason: str
    devices: tuple[str, ...]
    scenarios: tuple[str, ...]
    cases: tuple[str, ...]
    records: int
    reasons: int
    traceback: str
    command: str


def failures(derived: Derived) -> list[Failure]:
    """Every record that is not ok, those of one label, status and reason, but for its numbers, as one; worst first."""
    groups: dict[tuple[str, str, str], list[int]] = defaultdict(list)
    for index, (row, label) in enumerate(zip(derived.rows, derived.labels, strict=True)):
        if row["status"] != Status.OK:
            groups[(label.text, line(row["status"]), _NUMBER.sub("0", _reason(row)))].append(index)
    found = []
    for (text, status, _), indices in groups.items():
        rows = [derived.rows[index] for index in indices]
        found.append(
            Failure(
                label=text,
                status=status,
                reason=_reason(rows[0]),
                devices=tuple(dict.fromkeys(derived.devices[index] for index in indices)),
                scenarios=tuple(dict.fromkeys(line(row["scenario"]) for row in rows)),
                cases=tuple(dict.fromkeys(line(row["case"]) for row in rows)),
                records=len(rows),
                reasons=len({_reason(row) for row in rows}),
                traceback=next((row["traceback"] for row in rows if row["traceback"]), "")[-TRACEBACK:],
                command=next((row["command"] for row in rows if row["command"]), ""),
            )
        )
    found.sort(key=lambda one: (_severity(one.status), one.label, -len(one.cases), one.reason))
    return [*found[:TOLD], *(replace(one, traceback="") for one in found[TOLD:])]


def _reason(row: Row) -> str:
    return line(row["reason"]) or "no reason was recorded"


def _severity(status: str) -> int:
    """Wrong results first, then what broke, then what could not be expected to work."""
    order = ("incorrect", "crashed", "timeout", "error", "compile_error", "oom", "missing", "unsupported")
    return order.index(status) if status in order else 0


def counts(derived: Derived) -> str:
    """The outcomes in one sentence: 288 records: 240 ok, 40 unsupported, 8 oom."""
    seen = Counter(line(row["status"]) for row in derived.rows)
    told = ", ".join(f"{number} {status}" for status, number in seen.most_common())
    return f"{count(len(derived.rows), 'record')}: {told}."


def failure_table(found: list[Failure], short: bool = False) -> Table:
    """The groups as a table; `short` has what fits a terminal of 80 columns, the first KINDS with short reasons."""
    devices = len({device for one in found for device in one.devices}) > 1 and not short
    scenarios = len({scenario for one in found for scenario in one.scenarios}) > 1 and not short
    columns = [Column("status"), Column("implementation")]
    columns += [Column("device")] if devices else []
    columns += [Column("scenario")] if scenarios else []
    columns += [Column("cases", True), Column("reason")]
    columns += [] if short else [Column("run the first again")]
    rows = []
    for one in found[:KINDS] if short else found:
        row = [Cell(one.status), Cell(one.label)]
        row += [Cell(", ".join(one.devices))] if devices else []
        row += [Cell(", ".join(one.scenarios))] if scenarios else []
        alike = f"and {one.reasons - 1} alike with other numbers" if one.reasons > 1 else ""
        row += [Cell(str(len(one.cases))), Cell(cut(one.reason, REASON) if short else one.reason, alike)]
        row += [] if short else [Cell(one.command, code=True)]
        rows.append(tuple(row))
    note = f"{count(len(found), 'kind')} of failure." if found else "Nothing failed."
    if short and len(found) > KINDS:
        rows.append((Cell("..."), Cell(f"and {len(found) - KINDS} more kinds"), Cell(""), Cell("see the report")))
    return Table("Failures", (note,), tuple(columns), tuple(rows))
