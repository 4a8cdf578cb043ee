"""The table of the kernels that ran."""

from __future__ import annotations

from collections import Counter, defaultdict

from attnsweep.report.sections import Derived
from attnsweep.report.tables import Cell, Column, Table


def kernel_table(derived: Derived) -> Table:
    """Each label with the kernels that were seen running for it, and in how many cases."""
    seen: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    cases: Counter[tuple[str, str]] = Counter()
    for section in derived.sections:
        for case in section.cases:
            for text, one in case.measured.items():
                if one.kernels:
                    seen[(text, section.key.device)].update(one.kernels)
                    cases[(text, section.key.device)] += 1
    several = len({device for _, device in seen}) > 1
    columns = [Column("implementation")] + ([Column("device")] if several else [])
    columns += [Column("kernels (in how many cases)"), Column("cases", True)]
    rows = []
    for (text, device), names in sorted(seen.items()):
        told = ", ".join(
            name if number == cases[(text, device)] else f"{name} ({number})" for name, number in names.most_common()
        )
        place = [Cell(device)] if several else []
        rows.append((Cell(text), *place, Cell(told), Cell(str(cases[(text, device)]))))
    note = (
        "What the profiler saw run, without namespaces and template arguments; a number in brackets counts "
        "the cases of a kernel that did not run in all of them."
    )
    return Table(
        "Kernels that ran", (note if rows else "No record names the kernels that ran.",), tuple(columns), tuple(rows)
    )
