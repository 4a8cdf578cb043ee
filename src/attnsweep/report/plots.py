"""Plots as PNG and SVG: latency, rate and memory against the axis, latency under load, who won by how much."""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attnsweep import metrics
from attnsweep.case import DTYPES
from attnsweep.report import unmeasured
from attnsweep.report.aggregate import Measurement
from attnsweep.report.bars import winner_bars
from attnsweep.report.captions import names, set_heading
from attnsweep.report.derive import CaseRow, Derived, Section
from attnsweep.report.load import Row
from attnsweep.report.styles import Style, assign, drawable, settings
from attnsweep.report.text import whole
from attnsweep.report.traces import load_plot, traced
from attnsweep.report.words import bound_ms, field_value, shown_fields, title

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: Kinds of plots that show a measure against the axis; the others stand beside a table.
AGAINST_AXIS = ("latency", "throughput", "bandwidth", "memory")

#: Panels of one figure; more become further figures, up to FIGURES of one measure.
PANELS = 6
FIGURES = 8

#: The most lines of a figure, the best standings'.
LINES = 32

#: Axis values with a peak of memory from which on there is a plot of it.
ENOUGH = 3

#: How the measured ceiling is drawn.
CEILING: dict[str, Any] = {"color": "#444444", "linewidth": 1.2, "linestyle": (0, (1, 1.4)), "marker": "_", "zorder": 2}

DPI = 160


@dataclass(frozen=True)
class Plot:
    """One figure in two files: `stem` is their name without the ending, `alt` says what is to be seen."""

    section: Section
    kind: str
    stem: str
    alt: str


@dataclass(frozen=True)
class Measure:
    """What a line plot shows on its y axis, computed from a measurement in units of `scale`."""

    kind: str
    axis: str
    scale: float
    log: bool

    @property
    def timed(self) -> bool:
        """Whether it depends on the latency."""
        return self.kind != "memory"

    def value(self, one: Measurement, latency_ms: float | None) -> float | None:
        """The measure at a latency (the median, or an end of its interval)."""
        if latency_ms is None or latency_ms <= 0:
            return None
        if not self.timed:
            return _peak_memory(one)
        if self.kind == "latency":
            return latency_ms
        amount = one.number("bytes" if self.kind == "bandwidth" else "flops")
        rate = 0.0 if amount is None else amount / (latency_ms * 1e-3) / self.scale
        return rate if rate > 0 else None


def draw_all(derived: Derived, folder: Path, raw: Callable[[Row], Row]) -> list[Plot]:
    """Write every plot into `folder`, made if need be, and say which; plots of an earlier run are removed.

    `raw` gives the raw columns of a row.
    """
    import matplotlib as mpl

    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.iterdir():
        if re.fullmatch(rf"({'|'.join(AGAINST_AXIS)}|load|winners)-.*\.(png|svg)", old.name):
            old.unlink()
    styles = assign(list(derived.labels))
    drawn: list[Plot] = []
    taken: set[str] = set()
    with mpl.rc_context(settings()):
        for section in derived.largest:
            for kind, alt, figure in _figures(section, styles, raw):
                stem = _stem(kind, section, taken)
                _save(figure, folder / stem)
                drawn.append(Plot(section, kind, stem, alt))
    return drawn


def _stem(kind: str, section: Section, taken: set[str]) -> str:
    """A file name from harmless characters alone, different from those in `taken`, to which it is added."""
    key = section.key
    cache = key.cache if key.cache != "cold" else ""
    words = [key.device, key.scenario, key.direction, key.dtype, cache, key.timer]
    slug = re.sub(r"[^a-z0-9]+", "-", " ".join(words).lower()).strip("-")[:80].strip("-")
    base = f"{kind}-{slug or 'unnamed'}"
    stem, number = base, 1
    while stem in taken:
        number += 1
        stem = f"{base}-{number}"
    taken.add(stem)
    return stem


def _save(figure: Figure, path: Path) -> None:
    layout = figure.get_layout_engine()
    if layout is not None:
        # Once for both files.
        layout.execute(figure)
        figure.set_layout_engine("none")
    figure.savefig(path.with_name(path.name + ".png"), dpi=DPI, metadata={"Software": None})
    figure.savefig(path.with_name(path.name + ".svg"), metadata={"Date": None, "Creator": "attnsweep"})


def _figures(section: Section, styles: dict[str, Style], raw: Callable[[Row], Row]) -> list[tuple[str, str, Figure]]:
    made: list[tuple[str, str, Figure]] = []
    labels = [standing.label.text for standing in section.standings[:LINES]]
    cases = [case for case in section.cases if case.axis_value is not None and _drawn(case, labels)]
    if any(case.ranked for case in cases):
        panels = list(_panels(section, cases).items())
        for measure in (Measure("latency", "latency (ms)", 1.0, log=True), _rate(cases), *_memory(cases, labels)):
            for start in range(0, min(len(panels), PANELS * FIGURES), PANELS):
                part = dict(panels[start : start + PANELS])
                more = len(panels) - PANELS * FIGURES if start == PANELS * (FIGURES - 1) else 0
                alt = f"{measure.axis} against {section.key.axis or 'the axis'}: {title(section)}"
                made.append((measure.kind, alt, _lines(section, part, measure, styles, more)))
    load = traced(section, raw)
    if load is not None:
        alt = f"Latency and SM clock against time under load: {title(section)}"
        made.append(("load", alt, load_plot(section, load, styles)))
    if section.standings:
        made.append(("winners", f"Who is fastest, by how much: {title(section)}", winner_bars(section, styles)))
    return made


def _drawn(case: CaseRow, labels: list[str]) -> bool:
    return bool(case.ranked) or any(unmeasured.failed(case, text) for text in labels)


def _peak_memory(one: Measurement) -> float | None:
    """Bytes at the peak of a call; None where they are not known."""
    found = one.number("peak_memory_bytes")
    return found if found is not None and found > 0 else None


def _memory(cases: list[CaseRow], labels: list[str]) -> list[Measure]:
    """Peak memory, where it is known at ENOUGH axis values for a line to say how it grows; else nothing."""
    known = {
        case.axis_value
        for case in cases
        for text in labels
        if text in case.ranked and _peak_memory(case.ranked[text]) is not None
    }
    return [Measure("memory", "peak memory of a call", 1.0, log=True)] if len(known) >= ENOUGH else []


def _rate(cases: list[CaseRow]) -> Measure:
    """Bandwidth where memory bounds most measurements, else arithmetic, in the unit that reads best.

    Where the device's peaks are unknown, a case of under 10 operations a byte counts as bound by memory.
    """
    bounds, best = [], {"bytes": 0.0, "flops": 0.0}
    for case in cases:
        for one in case.ranked.values():
            flops, moved = one.number("flops"), one.number("bytes")
            guess = ["memory"] if flops is not None and moved and flops / moved < 10 else ["compute"]
            bounds += one.texts("bound") or guess
            for column in best:
                best[column] = max(best[column], one.per_second(column) or 0.0)
    if bounds.count("memory") * 2 > len(bounds):
        return Measure("bandwidth", "GB/s (compulsory bytes / latency)", 1e9, log=False)
    if best["flops"] < 1e12:
        return Measure("throughput", "GFLOP/s", 1e9, log=False)
    return Measure("throughput", "TFLOP/s", 1e12, log=False)


def _panels(section: Section, cases: list[CaseRow]) -> dict[str, list[CaseRow]]:
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


def _lines(
    section: Section, panels: dict[str, list[CaseRow]], measure: Measure, styles: dict[str, Style], more: int
) -> Figure:
    """Small multiples of one measure, with one legend beside them; `more` panels are drawn nowhere, which it says."""
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine
    from matplotlib.lines import Line2D

    labels = [standing.label.text for standing in section.standings[:LINES]]
    shown = names(section)[:LINES]
    columns = 2 if len(panels) == 4 else min(len(panels), 3)
    rows = math.ceil(len(panels) / columns)
    legend = 0.7 + 0.073 * max((len(text) for text in [*shown, "measured ceiling"]), default=0)
    height = max(rows * 2.9 + 0.9, 0.9 + 0.205 * (len(labels) + 3) + 0.5)
    wide = 5.2 if columns == 1 else 3.6
    width = columns * wide + legend + 0.2
    layout = ConstrainedLayoutEngine(rect=(0, 0, 1 - legend / width, 1))
    figure = Figure(figsize=(width, height), layout=layout)
    grid = figure.subplots(rows, columns, squeeze=False, sharey=True)
    axes = [ax for row in grid for ax in row]
    reached: list[float] = []
    for ax, (name, cases) in zip(axes, panels.items(), strict=False):
        reached += _panel(ax, cases, labels, measure, styles)
        _ticks_x(ax, sorted({case.axis_value for case in cases if case.axis_value is not None}), wide - 0.6)
        ax.set_title(drawable(name), loc="left")
        ax.set_xlabel(_axis_title(section.key.axis))
    for ax in axes[len(panels) :]:
        ax.set_visible(False)
    for row in grid:
        row[0].set_ylabel(measure.axis)
    bounds = {name: _bounds(cases, measure, reached) for name, cases in panels.items()}
    for ax, bound in zip(axes, bounds.values(), strict=False):
        ax.plot(*zip(*bound, strict=True), **CEILING)
    ceiling = [value for bound in bounds.values() for _, value in bound if math.isfinite(value)]
    peak = _peak(section, measure, max(reached, default=0.0))
    above = unmeasured.strip(list(panels.values()), labels)
    _finish_y(axes[: len(panels)], measure, [*reached, *ceiling, *([peak] if peak else [])], above)
    for ax, cases in zip(axes, panels.values(), strict=False):
        unmeasured.draw(ax, cases, labels, styles, above)
    if peak:
        _draw_peak(axes[: len(panels)], peak)
    left = len(section.standings) - len(labels)
    told = [] if measure.timed else ["device memory with inputs and outputs"]
    told += [f"{left} slower not drawn"] if left > 0 else []
    told += [f"{more} more panels not drawn"] if more > 0 else []
    set_heading(figure, section, width, "; ".join(told), timed=measure.timed)
    handles = [Line2D([], [], **styles[text].line_options()) for text in labels]
    if ceiling:
        handles.append(Line2D([], [], **CEILING))
        shown.append("measured ceiling")
    every = [case for cases in panels.values() for case in cases]
    for marker, words in dict.fromkeys(mark for _, _, mark in unmeasured.failures_of(every, labels)):
        handles.append(Line2D([], [], color="#444444", marker=marker, markeredgewidth=1.6, linestyle="none"))
        shown.append(words)
    figure.legend(
        handles,
        shown,
        title="fastest first",
        title_fontsize=8.5,
        alignment="left",
        loc="upper left",
        bbox_to_anchor=(1 - legend / width, 1 - 0.45 / height),
        handlelength=3.2,
    )
    return figure


def _bounds(cases: list[CaseRow], measure: Measure, reached: list[float]) -> list[tuple[float, float]]:
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


def _peak(section: Section, measure: Measure, highest: float) -> float | None:
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


def _draw_peak(axes: list[Axes], peak: float) -> None:
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


def _axis_title(axis: str) -> str:
    """The axis with its unit: every length is in tokens, a resolution in pixels."""
    unit = " (tokens)" if axis.endswith("_len") else " (px)" if axis == "resolution" else ""
    return drawable(axis or "axis", 30) + unit


def _panel(
    ax: Axes, cases: list[CaseRow], labels: list[str], measure: Measure, styles: dict[str, Style]
) -> list[float]:
    """Draw one panel's lines with their intervals; every value reached is returned."""
    reached: list[float] = []
    for text in labels:
        points = []
        for case in cases:
            one = case.ranked.get(text)
            middle = None if one is None else measure.value(one, one.latency_ms)
            if one is None or middle is None:
                # A gap in the line: nothing is drawn between the neighbours of a case that failed.
                points.append((case.axis_value, math.nan, math.nan, math.nan))
                continue
            ends = (one.interval.low, one.interval.high) if one.interval and measure.timed else (None, None)
            low, high = (measure.value(one, end) or middle for end in ends)
            points.append((case.axis_value, middle, low, high))
        at, middles, lows, highs = zip(*points, strict=True)
        reached += [value for value in (*middles, *lows, *highs) if math.isfinite(value)]
        ax.plot(at, middles, **styles[text].line_options())
        ax.fill_between(at, lows, highs, color=styles[text].colour, alpha=0.22, linewidth=0)
    return reached


def _ticks_x(ax: Axes, xs: list[float], inches: float) -> None:
    """Ticks at the real values, thinned where they would overlap on an axis of `inches`.

    The axis is logarithmic where the values span a factor of four. The last value always has its tick.
    """
    from matplotlib.ticker import FixedFormatter, FixedLocator, NullLocator

    log = xs[0] > 0 and xs[-1] >= 4 * xs[0]
    places = [math.log2(x) if log else x for x in xs]
    if log:
        ax.set_xscale("log", base=2)
    reach = (places[-1] - places[0]) or 1.0
    pad = 0.06 * reach
    low, high = places[0] - pad, places[-1] + pad
    if len(xs) == 1:
        reach = max(abs(places[0]), 1.0) / 2
        low, high = places[0] - reach, places[0] + reach
    ax.set_xlim((2**low, 2**high) if log else (low, high))
    kept: list[int] = []
    for index in reversed(range(len(xs))):
        room = 0.078 * (len(whole(xs[index])) + 1) / inches
        if not kept or (places[kept[-1]] - places[index]) / (high - low) >= room:
            kept.append(index)
    ax.xaxis.set_major_locator(FixedLocator([xs[index] for index in kept]))
    ax.xaxis.set_major_formatter(FixedFormatter([whole(xs[index]) for index in kept]))
    ax.xaxis.set_minor_locator(NullLocator())


def _finish_y(axes: list[Axes], measure: Measure, values: list[float], above: float) -> None:
    """Shared limits from the data and their intervals, and ticks with plain numbers; none in the fraction `above`."""
    from matplotlib.ticker import FixedFormatter, FixedLocator, NullLocator

    if not values:
        return
    low, high = (min(values), max(values)) if measure.log else (0.0, max(values) * 1.06)
    if measure.log:
        axes[0].set_yscale("log")
        margin = max((high / low) ** 0.06, 1.02)
        low, high = low / margin, high * margin
    room = above / (1 - above)
    axes[0].set_ylim(low, high * (high / low) ** room if measure.log else high + (high - low) * room)
    ticks, shown = _ticks_y(low, high, measure.log) if measure.timed else _ticks_bytes(low, high)
    for ax in axes:
        ax.yaxis.set_major_locator(FixedLocator(ticks))
        ax.yaxis.set_major_formatter(FixedFormatter(shown))
        ax.yaxis.set_minor_locator(NullLocator())


def _ticks_bytes(low: float, high: float) -> tuple[list[float], list[str]]:
    """Ticks at powers of two between `low` and `high`, six at most, as people say bytes: 64 MiB, 1 GiB."""
    powers = range(math.ceil(math.log2(low)), math.floor(math.log2(high)) + 1)
    powers = powers[:: -(-len(powers) // 6) or 1]
    ticks = [2.0**power for power in powers]
    units = ("B", "KiB", "MiB", "GiB", "TiB")
    places = [min(max(power // 10, 0), len(units) - 1) for power in powers]
    return ticks, [f"{tick / 1024**place:g} {units[place]}" for tick, place in zip(ticks, places, strict=True)]


def _ticks_y(low: float, high: float, log: bool) -> tuple[list[float], list[str]]:
    """Ticks between `low` and `high` with their texts; 1, 2, 5 of each decade of a log axis, more where it is short."""
    from matplotlib.ticker import MaxNLocator

    if log:
        decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        wide = math.log10(high / low) >= 3.3
        for steps in ((1.0,) if wide else (1.0, 2.0, 5.0), (1.0, 1.5, 2.0, 3.0, 5.0, 7.0)):
            ticks = [step * 10.0**power for power in decades for step in steps if low <= step * 10.0**power <= high]
            if len(ticks) >= 3:
                return ticks, [f"{tick:.10g}" for tick in ticks]
    ticks = [
        float(tick) for tick in MaxNLocator(6, steps=[1, 2, 2.5, 5, 10]).tick_values(low, high) if low <= tick <= high
    ]
    decimals = max(len(f"{tick:.10g}".partition(".")[2]) for tick in ticks) if ticks else 0
    return ticks, [f"{tick:.{decimals}f}" for tick in ticks]
