"""What compiling cost, by label."""

from __future__ import annotations

from collections import defaultdict
from statistics import median

from attnsweep.report.load import Row
from attnsweep.report.sections import Derived
from attnsweep.report.tables import Cell, Column, Table
from attnsweep.report.text import digits


def compile_table(derived: Derived) -> Table:
    """Each compiled label with its compile times, of that the autotuner's, and cache hits; no rows for eager alone."""
    groups: dict[tuple[str, str], list[Row]] = defaultdict(list)
    for row, label, device in zip(derived.rows, derived.labels, derived.devices, strict=True):
        if row["compile_s"] is not None:
            groups[label.text, device].append(row)
    several = len({device for _, device in groups}) > 1
    columns = [Column("implementation")] + ([Column("device")] if several else [])
    columns += [Column(name, True) for name in ("cases", "processes", "median s", "longest s")]
    columns += [Column(name, True) for name in ("autotuning median s", "longest s", "cache hits")]
    rows = []
    for (text, device), its in sorted(groups.items()):
        cached = [row["compile_cache"] for row in its if row["compile_cache"]]
        rows.append(
            (
                Cell(text),
                *([Cell(device)] if several else []),
                Cell(str(len({row["case"] for row in its}))),
                Cell(str(len(its))),
                *_seconds(its, "compile_s"),
                *_seconds(its, "autotune_s"),
                Cell(f"{cached.count('hit')} of {len(cached)}" if cached else "-"),
            )
        )
    note = (
        "Seconds of the first call less those of a later one, paid once a process and case, and the part of them in "
        "which the compiler timed candidates. A hit found its kernels in the disk cache."
    )
    return Table("Compilation", (note,) if rows else (), tuple(columns), tuple(rows))


def _seconds(rows: list[Row], column: str) -> tuple[Cell, Cell]:
    """Median and longest."""
    values = [row[column] for row in rows if row[column] is not None]
    return (Cell(digits(median(values), 3)), Cell(digits(max(values), 3))) if values else (Cell("-"), Cell("-"))
