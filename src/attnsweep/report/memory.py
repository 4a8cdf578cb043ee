"""What a call takes of the device's memory, by case and label."""

from __future__ import annotations

from attnsweep.report.sections import CaseRow, Section
from attnsweep.report.tables import Cell, Column, Table
from attnsweep.report.text import digits
from attnsweep.report.words import field_value, shown_fields, title


def memory_table(section: Section) -> Table:
    """Cases by what is ranked, fastest first: peak and workspace in MiB, the least peak bold; no rows without any."""
    names = shown_fields(section)
    ranked = [one.label.text for one in section.standings]
    labels = [text for text in ranked if any(_mib(case, text, "peak_memory_bytes") for case in section.cases)]
    columns = [
        *(Column(name, number=name != "case") for name in names),
        *(Column(text, number=True) for text in labels),
    ]
    rows = []
    for case in section.cases:
        peaks = {text: _mib(case, text, "peak_memory_bytes") for text in labels}
        shown = {text: digits(peak, 4) for text, peak in peaks.items() if peak}
        least = digits(min((peak for peak in peaks.values() if peak), default=None), 4)
        row = [Cell(field_value(case, name, section.key.axis)) for name in names]
        for text in labels:
            if text not in shown:
                row.append(Cell("-", dim=True))
                continue
            workspace = _mib(case, text, "workspace_bytes")
            note = "" if workspace is None else _workspace(workspace)
            row.append(Cell(shown[text], note, best=len(shown) > 1 and shown[text] == least))
        rows.append(tuple(row))
    notes = [
        "Peak device memory of one call in MiB, inputs and output included, and after it the workspace, what it needs "
        "beyond these. The least is bold. A dash: not known, as within a CUDA graph of torch.compile's."
    ]
    if any(case.measured[text].texts("jax") for case in section.cases for text in labels if text in case.measured):
        notes.append("JAX's is XLA's own plan of the program, the others' the allocator's peak.")
    return Table(f"Memory: {title(section)}", tuple(notes), tuple(columns), tuple(rows) if labels else ())


def _mib(case: CaseRow, text: str, column: str) -> float | None:
    found = case.ranked[text].memory(column) if text in case.ranked else None
    return None if found is None else found / 2**20


def _workspace(mib: float) -> str:
    """As precise as it matters beside a peak: 8288, 0.5, 0."""
    return digits(mib, 4) if mib >= 1000 else f"{round(mib, 1):g}"
