"""Cells without a number in a line plot: a strip above the scale with a mark for each that failed, never a value."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from attnsweep.errors import FAILURES, Status
from attnsweep.report.sections import CaseRow
from attnsweep.report.styles import Style

if TYPE_CHECKING:
    from matplotlib.axes import Axes

#: Marker and words of what is drawn. What an implementation does not offer here (unsupported, missing) is a gap alone.
OUT_OF_MEMORY = ("x", "out of memory")
FAILED = ("+", "failed otherwise")

#: Fraction of an axis that one mark takes, and the most that all of them take together.
STEP, MOST = 0.05, 0.35


def failed(case: CaseRow, text: str) -> tuple[str, str] | None:
    """How a label's failure in a case is drawn; None where it has a result, or there was nothing to fail."""
    one = case.measured.get(text)
    if one is None or one.latency_ms is not None:
        return None
    return OUT_OF_MEMORY if one.status is Status.OOM else FAILED if one.status in FAILURES else None


def failures_of(cases: list[CaseRow], labels: list[str]) -> list[tuple[float, str, tuple[str, str]]]:
    """(axis value, label, mark) of each failure that is drawn, in the labels' order."""
    found = [(case.axis_value or 0.0, text, failed(case, text)) for text in labels for case in cases]
    return [(at, text, mark) for at, text, mark in found if mark is not None]


def strip(panels: list[list[CaseRow]], labels: list[str]) -> float:
    """The fraction of an axis that the marks take: enough for the most that any axis value has; 0 without any."""
    counts = [Counter(at for at, _, _ in failures_of(cases, labels)) for cases in panels]
    most = max((number for count in counts for number in count.values()), default=0)
    return min(STEP * most, MOST) + 0.03 if most else 0.0


def draw(ax: Axes, cases: list[CaseRow], labels: list[str], styles: dict[str, Style], height: float) -> None:
    """Draw the marks of a panel in their labels' colours, from the top edge downwards, on a ground of `height`."""
    from matplotlib.patches import Rectangle

    if not height:
        return
    ax.add_patch(Rectangle((0, 1 - height), 1, height, transform=ax.transAxes, color="#f2f2f2", linewidth=0, zorder=2))
    marks = failures_of(cases, labels)
    most = max(Counter(at for at, _, _ in marks).values(), default=1)
    step = min(STEP, (height - 0.03) / most)
    taken: Counter[float] = Counter()
    for at, text, (marker, _) in marks:
        ax.plot(
            [at],
            [1 - 0.015 - step * (taken[at] + 0.5)],
            transform=ax.get_xaxis_transform(),
            color=styles[text].colour,
            marker=marker,
            markersize=6 if marker == "x" else 8,
            markeredgewidth=1.6,
            linestyle="none",
            zorder=6,
        )
        taken[at] += 1
