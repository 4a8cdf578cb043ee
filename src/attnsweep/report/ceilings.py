"""Ceilings in a table: which there are, what they cost, and how the fastest stands to them."""

from __future__ import annotations

from attnsweep.report.aggregate import ratio
from attnsweep.report.sections import CaseRow, Section

#: What the ceilings of conf/impl cost.
CEILINGS = {
    "ceiling_matmul": "the case's FLOPs as one matrix product",
    "ceiling_copy": "the case's bytes as one copy, half of them read and half written",
}


def ceilings(section: Section) -> list[str]:
    """The labels of a table that are bounds to compare with, and have a latency somewhere."""
    marked = [text for case in section.cases for text, one in case.measured.items() if "ceiling" in one.marks]
    return sorted(set(marked))


def about_ceilings(section: Section) -> str:
    """Sentences on what the ceilings of a table are and what stands beside them; empty where it has none."""
    found = {text: section.labels[text].impl for text in ceilings(section)}
    told = [f"{text} ({CEILINGS[impl]})" if impl in CEILINGS else text for text, impl in found.items()]
    if not told:
        return ""
    said = f"Ceilings, shown and never ranked, each with its time in percent of the fastest's: {', '.join(told)}."
    shares = [of_fastest(case, text) for case in section.cases for text in found]
    above = any(share is not None and share > 1 for share in shares)
    return said + (" One above 100% is slower than the fastest and bounds nothing in that case." if above else "")


def of_fastest(case: CaseRow, text: str) -> float | None:
    """A label's time as a fraction of the fastest's; None where either is not there."""
    one = case.measured.get(text)
    return None if one is None or not case.fastest else ratio(case.measured[case.fastest[0]], one)


def bound_ms(case: CaseRow) -> float | None:
    """The latency of the slowest ceiling of a case in ms, which is the one that binds; None where there is none."""
    found = [one.latency_ms for one in case.measured.values() if "ceiling" in one.marks and one.latency_ms is not None]
    return max(found, default=None)
