"""The timers side by side: what launching costs, and whether the primary timer and the kernels agree."""

from __future__ import annotations

from attnsweep.report.sections import Section
from attnsweep.report.tables import Cell, Column, Table
from attnsweep.report.text import digits, more
from attnsweep.report.words import field_value, shown_fields, title

TIMERS = ("host", "events", "graph", "kernel")


def timer_table(section: Section) -> Table:
    """One row for each result; no rows where all results have one timer only, as on a CPU."""
    names = shown_fields(section)
    columns = [Column(name, number=name != "case") for name in names]
    columns += [Column("implementation"), *(Column(f"{timer} ms", True) for timer in TIMERS)]
    columns += [Column("launch us", True), Column("primary vs kernel", True)]
    rows = []
    told = False
    for case in section.cases:
        fields = [Cell(field_value(case, name, section.key.axis)) for name in names]
        for text in section.labels:
            one = case.measured.get(text)
            if one is None or one.latency_ms is None:
                continue
            times = {timer: one.number(f"{timer}_ms") for timer in TIMERS}
            told = told or sum(time is not None for time in times.values()) > 1
            primary = one.texts("timer")
            row = [*fields, Cell(text)]
            row += [Cell(digits(time), bold=timer in primary) for timer, time in times.items()]
            row += [Cell(_launch(times)), Cell(more(one.number("latency_ms"), times["kernel"]))]
            rows.append(tuple(row))
    note = (
        "Medians; the primary timer is bold. Launch: what a caller of one call waits beyond its kernels, host less "
        "kernel. Primary vs kernel: how much longer the primary timer says than the kernels were busy."
    )
    return Table(f"Timers: {title(section)}", (note,), tuple(columns), tuple(rows) if told else ())


def _launch(times: dict[str, float | None]) -> str:
    host, kernel = times["host"], times["kernel"]
    return "-" if host is None or kernel is None else digits(1e3 * (host - kernel), 3)
