"""Lines against the axis: small multiples of one measure, with what bounds it and what failed."""

from __future__ import annotations

import math
import textwrap
from collections import defaultdict
from typing import TYPE_CHECKING, Any

from attnsweep.report import scales, unmeasured
from attnsweep.report.bounds import CEILING, ceiling_points, draw_peak, peak_of
from attnsweep.report.captions import names, set_heading
from attnsweep.report.measures import Measure
from attnsweep.report.sections import CaseRow, Section
from attnsweep.report.standings import geometric_mean
from attnsweep.report.styles import Style, draw_legend, drawable
from attnsweep.report.words import field_value, shown_fields

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: The most lines of a figure, the best standings'.
LINES = 32


def panels_of(section: Section, cases: list[CaseRow]) -> dict[str, list[CaseRow]]:
    """The cases by what varies beside the axis, each group under its title."""
    axis = section.key.axis
    beside = []
    for name in shown_fields(section):
        values: dict[float | None, set[str]] = defaultdict(set)
        for case in cases:
            values[case.axis_value].add(field_value(case, name, axis))
        if name != axis and any(len(several) > 1 for several in values.values()):
            beside.append(name)
    groups: dict[tuple[str, ...], list[CaseRow]] = defaultdict(list)
    for case in sorted(cases, key=lambda case: [_natural(case.fields.get(name)) for name in beside]):
        groups[tuple(f"{name} {field_value(case, name, axis)}" for name in beside)].append(case)
    return {", ".join(key): sorted(group, key=lambda one: one.axis_value or 0) for key, group in groups.items()}


def _natural(value: Any) -> tuple[float, str]:
    return (float(value), "") if isinstance(value, (int, float)) else (math.inf, str(value))


def line_plot(
    section: Section, panels: dict[str, list[CaseRow]], measure: Measure, styles: dict[str, Style], more: int
) -> Figure:
    """Small multiples of one measure, with one legend beside them; `more` panels are drawn nowhere, which it says."""
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine
    from matplotlib.lines import Line2D

    called = dict(zip((one.label.text for one in section.standings), names(section), strict=True))
    labels = _ordered(section, panels, measure)
    stands = dict(zip(labels, labels, strict=True)) if measure.timed else _alike(panels, labels, measure)
    places = {text: place for place, text in enumerate(labels)}
    labels.sort(key=lambda text: places[stands[text]])
    seen = set(stands.values())
    shown = [called[text] if text in seen else f"as well: {called[text]}" for text in labels]
    columns = 2 if len(panels) == 4 else min(len(panels), 3)
    rows = math.ceil(len(panels) / columns)
    legend = 0.7 + 0.073 * max(len(text) for text in [*shown, "measured ceiling"])
    wide = 5.2 if columns == 1 else 3.6
    titles = {name: _wrapped(name, int(wide / 0.088)) for name in panels}
    tall = 2.9 + 0.17 * max(text.count("\n") for text in titles.values())
    height = max(rows * tall + 0.9, 0.9 + 0.205 * (len(labels) + 3) + 0.5)
    width = columns * wide + legend + 0.2
    layout = ConstrainedLayoutEngine(rect=(0, 0, 1 - legend / width, 1))
    figure = Figure(figsize=(width, height), layout=layout)
    grid = figure.subplots(rows, columns, squeeze=False, sharey=True)
    axes = [ax for row in grid for ax in row]
    reached: list[float] = []
    for ax, (name, cases) in zip(axes, panels.items(), strict=False):
        reached += _panel(ax, cases, [text for text in labels if text in seen], measure, styles)
        scales.set_x(ax, sorted({case.axis_value for case in cases if case.axis_value is not None}), wide - 0.6)
        ax.set_title(titles[name], loc="left")
        ax.set_xlabel(_axis_title(section.key.axis))
    for ax in axes[len(panels) :]:
        ax.set_visible(False)
    for row in grid:
        row[0].set_ylabel(measure.axis)
    bounds = {name: ceiling_points(cases, measure, reached) for name, cases in panels.items()}
    for ax, bound in zip(axes, bounds.values(), strict=False):
        ax.plot(*zip(*bound, strict=True), **CEILING)
    ceiling = [value for bound in bounds.values() for _, value in bound if math.isfinite(value)]
    peak = peak_of(section, measure, max(reached, default=0.0))
    above = unmeasured.strip(list(panels.values()), labels)
    scales.set_y(axes[: len(panels)], measure, [*reached, *ceiling, *([peak] if peak else [])], above)
    for ax, cases in zip(axes, panels.values(), strict=False):
        unmeasured.draw(ax, cases, labels, styles, above)
    if peak:
        draw_peak(axes[: len(panels)], peak)
    left = len(section.standings) - len(labels)
    told = [] if measure.timed else ["device memory with inputs and outputs"]
    told += [f"{left} more not drawn"] if left > 0 else []
    told += [f"{more} more panels not drawn"] if more > 0 else []
    set_heading(figure, section, width, labels, "; ".join(told), timed=measure.timed)
    unseen: dict[str, Any] = {"linestyle": "none"}
    handles = [Line2D([], [], **(styles[text].line_options() if text in seen else unseen)) for text in labels]
    if ceiling:
        handles.append(Line2D([], [], **CEILING))
        shown.append("measured ceiling")
    every = [case for cases in panels.values() for case in cases]
    for marker, words in dict.fromkeys(mark for _, _, mark in unmeasured.failures_of(every, labels)):
        handles.append(Line2D([], [], color="#444444", marker=marker, markeredgewidth=1.6, linestyle="none"))
        shown.append(words)
    draw_legend(
        figure,
        handles,
        shown,
        "fastest first, in the mean" if measure.timed else "least first, in the mean",
        (1 - legend / width, 1 - 0.45 / height),
    )
    return figure


def _ordered(section: Section, panels: dict[str, list[CaseRow]], measure: Measure) -> list[str]:
    """The labels that are drawn, the best standings': what is fastest, or takes least memory, first.

    In the mean over each one's cases of how far it is from the best there: a case that it failed says nothing. What has
    no memory that is known is in no plot of it.
    """
    drawn = section.standings[:LINES]
    means = {one.label.text: math.inf if one.slowdown is None else one.slowdown for one in drawn}
    if not measure.timed:
        every = [case for cases in panels.values() for case in cases]
        middles = {text: [point[1] for point in _points(every, text, measure)] for text in means}
        least = [min(filter(math.isfinite, at), default=math.nan) for at in zip(*middles.values(), strict=True)]
        for text, its in middles.items():
            over = [value / best for value, best in zip(its, least, strict=True) if math.isfinite(value)]
            means[text] = geometric_mean(over) if over else math.inf
    return [text for text in sorted(means, key=lambda text: means[text]) if measure.timed or math.isfinite(means[text])]


def _alike(panels: dict[str, list[CaseRow]], labels: list[str], measure: Measure) -> dict[str, str]:
    """For each label the one whose line stands for it: itself, or an earlier one whose line lies on its own all along.

    What has a mark for a failure keeps its own look, which the mark has too.
    """
    every = [case for cases in panels.values() for case in cases]
    failing = {text for _, text, _ in unmeasured.failures_of(every, labels)}
    stands: dict[str, str] = {}
    lines: dict[str, list[float]] = {}
    for text in labels:
        its = [point[1] for point in _points(every, text, measure)]
        stands[text] = next((one for one in lines if text not in failing and _hides(lines[one], its)), text)
        if stands[text] == text and text not in failing:
            lines[text] = its
    return stands


def _hides(one: list[float], other: list[float]) -> bool:
    """Whether two lines differ by less than 2 % wherever either is, as no eye sees on a scale of octaves."""
    return all(
        math.isclose(mine, its, rel_tol=0.02) or (math.isnan(mine) and math.isnan(its))
        for mine, its in zip(one, other, strict=True)
    )


def _points(cases: list[CaseRow], text: str, measure: Measure) -> list[tuple[float, float, float, float]]:
    """Axis value, measure, and both ends of its interval of a label in each case; not a number where there is none."""
    points = []
    for case in cases:
        one = case.ranked.get(text)
        at = math.nan if case.axis_value is None else case.axis_value
        middle = None if one is None else measure.value(one, one.latency_ms)
        if one is None or middle is None:
            # A gap in the line: nothing is drawn between the neighbours of a case that failed.
            points.append((at, math.nan, math.nan, math.nan))
            continue
        ends = (one.interval.low, one.interval.high) if one.interval and measure.timed else (None, None)
        low, high = (measure.value(one, end) or middle for end in ends)
        points.append((at, middle, low, high))
    return points


def _panel(
    ax: Axes, cases: list[CaseRow], labels: list[str], measure: Measure, styles: dict[str, Style]
) -> list[float]:
    """Draw one panel's lines with their intervals; every value reached is returned."""
    reached: list[float] = []
    for text in labels:
        at, middles, lows, highs = zip(*_points(cases, text, measure), strict=True)
        reached += [value for value in (*middles, *lows, *highs) if math.isfinite(value)]
        ax.plot(at, middles, **styles[text].line_options())
        ax.fill_between(at, lows, highs, color=styles[text].colour, alpha=0.22, linewidth=0)
    return reached


def _wrapped(name: str, room: int) -> str:
    """A panel's title in lines of at most `room` characters, between two fields."""
    kept = drawable(name).replace(" ", "\xa0").replace(",\xa0", ", ")
    return "\n".join(textwrap.wrap(kept, room)).replace("\xa0", " ")


def _axis_title(axis: str) -> str:
    """The axis with its unit: every length is in tokens, a resolution in pixels."""
    unit = " (tokens)" if axis.endswith("_len") else " (px)" if axis == "resolution" else ""
    return drawable(axis or "axis", 30) + unit
