"""What bounds the lines of a plot: the measured ceiling and the datasheet's peak, where they are near."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from attnsweep import metrics
from attnsweep.case import DTYPES
from attnsweep.report.ceilings import bound_ms
from attnsweep.report.measures import Measure
from attnsweep.report.sections import CaseRow, Section
from attnsweep.report.text import whole

if TYPE_CHECKING:
    from matplotlib.axes import Axes

#: How the measured ceiling is drawn.
CEILING: dict[str, Any] = {"color": "#444444", "linewidth": 1.2, "linestyle": (0, (1, 1.4)), "marker": "_", "zorder": 2}


def ceiling_points(cases: list[CaseRow], measure: Measure, reached: list[float]) -> list[tuple[float, float]]:
    """Axis values with the measured ceiling there; a gap where it is unknown or over 4 x from what is `reached`."""
    points = []
    for case in cases:
        any_one = next(iter(case.ranked.values()), None)
        value = measure.value(any_one, bound_ms(case)) if any_one is not None and measure.timed else None
        if value is not None and measure.kind == "latency":
            near = value >= min(reached, default=value) / 4
        else:
            near = value is not None and value <= 4 * max(reached, default=value)
        points.append((case.axis_value or 0.0, value if value is not None and near else math.nan))
    return points


def peak_of(section: Section, measure: Measure, highest: float) -> float | None:
    """The datasheet peak of the section's device in the measure's unit; None where unknown or over 4 x `highest`."""
    if measure.kind in ("latency", "memory"):
        return None
    rows = [row for case in section.rankable for one in case.ranked.values() for row in one.rows]
    # A row that failed before the GPU was asked knows no SM count: it says nothing against the others' line.
    lines = {line.name: line for row in rows if (line := metrics.peak(row["gpu_name"], row["sm_count"])) is not None}
    known = {row["gpu_name"] for row in rows if row["gpu_name"]}
    if len(lines) != 1 or set(lines) != known:
        return None
    line = next(iter(lines.values()))
    value: float | None = line.gb_per_s
    if measure.kind == "throughput":
        # The dtype is text from a record: only what a case can have is looked up.
        tflops = line.tflops(section.key.dtype) if section.key.dtype in DTYPES else None
        value = None if tflops is None else tflops * 1e12 / measure.scale
    return value if value is not None and highest > 0 and value <= 4 * highest else None


def draw_peak(axes: list[Axes], peak: float) -> None:
    """A thin dashed line across every panel, named in the first."""
    for number, ax in enumerate(axes):
        ax.axhline(peak, color="#444444", linewidth=0.8, linestyle=(0, (5, 3)), zorder=1.5)
        if number == 0:
            ax.annotate(
                f"datasheet peak {whole(round(peak))}",
                (0, peak),
                xycoords=("axes fraction", "data"),
                xytext=(3, -2.5),
                textcoords="offset points",
                va="top",
                fontsize=7.5,
                color="#444444",
                bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.6},
            )
