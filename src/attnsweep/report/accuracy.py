"""How far from the reference, by label: what a speed is paid with."""

from __future__ import annotations

from collections import defaultdict

from attnsweep.errors import Status
from attnsweep.report.load import Row
from attnsweep.report.sections import Derived
from attnsweep.report.tables import Cell, Column, Table
from attnsweep.report.text import digits

_WORST = (
    ("output / formula", "err_ratio"),
    ("gradients / formula", "grad_err_ratio"),
    ("relative L1", "rel_l1"),
    ("relative L2", "rel_l2"),
)


def accuracy_table(derived: Derived) -> Table:
    """The worst error of each label on a device in a dtype, over its cases that are ok; no rows without a check."""
    groups: dict[tuple[str, str, str, str], list[Row]] = defaultdict(list)
    for row, label, device in zip(derived.rows, derived.labels, derived.devices, strict=True):
        if row["status"] == Status.OK and any(row[column] is not None for _, column in _WORST):
            groups[label.text, device, str(row["dtype"]), str(row["precision_class"] or "native")].append(row)
    several = len({device for _, device, _, _ in groups}) > 1
    shown = [(title, column) for title, column in _WORST if any(_known(its, column) for its in groups.values())]
    rows = []
    for (text, device, dtype, precision), its in sorted(groups.items()):
        worst = [max(_known(its, column), default=None) for _, column in shown]
        rows.append(
            (
                Cell(text),
                *([Cell(device)] if several else []),
                Cell(dtype),
                Cell(precision, dim=precision == "native"),
                Cell(str(len({row["case"] for row in its}))),
                *(Cell("-" if one is None else digits(one, 3), dim=one is None) for one in worst),
            )
        )
    columns = (
        Column("implementation"),
        *([Column("device")] if several else []),
        Column("dtype"),
        Column("precision"),
        Column("cases", True),
        *(Column(title, True) for title, _ in shown),
    )
    note = (
        'The worst over cases, on ordinary inputs, against a reference of higher precision. "/ formula" is the '
        "largest error as a multiple of the plain formula's in the same dtype; by default outputs may have 2 and "
        "gradients 3, beside a grain of that dtype."
    )
    return Table("Accuracy", (note,) if rows else (), columns, tuple(rows))


def _known(rows: list[Row], column: str) -> list[float]:
    return [row[column] for row in rows if row[column] is not None]
