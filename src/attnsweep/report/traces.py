"""Latency and SM clock against time under load, for the largest case of a table."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING

from attnsweep.report.aggregate import Measurement
from attnsweep.report.captions import names, set_heading
from attnsweep.report.load import Row
from attnsweep.report.sections import CaseRow, Section
from attnsweep.report.styles import Style, draw_legend, drawable
from attnsweep.report.sustained import under_load
from attnsweep.report.text import digits, listing, more
from attnsweep.report.words import field_value, shown_fields

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: Lines of one figure, and how many times as slow as the fastest the slowest of them may be: what load does is some
#: per cent, and the axis is linear.
LINES = 6
REACH = 3.0

#: Seconds of load that become one point, and the most points of a line.
BIN_S = 0.05
POINTS = 150

Series = list[tuple[float, float]]


@dataclass(frozen=True)
class Trace:
    """One process under load: (seconds, ms) and (seconds, MHz), each thinned out; what bursts had beside it, by its
    primary `timer`.
    """

    text: str
    name: str
    timer: str
    burst_ms: float
    load_ms: float
    burst_clock_mhz: float | None
    latency: Series
    clock: Series


@dataclass(frozen=True)
class Load:
    """The traces of one case, the best standing first, and how many slower implementations are left out."""

    case: CaseRow
    traces: tuple[Trace, ...]
    left_out: int


def traced(section: Section, raw: Callable[[Row], Row]) -> Load | None:
    """The traces of the case with the largest axis value of which there are samples; None where there are none.

    `raw` gives the raw columns of a row; it is asked for those that are drawn alone.
    """
    shown = {one.label.text: name for one, name in zip(section.standings, names(section), strict=True)}
    for case in reversed(section.rankable):
        loads = under_load(case)
        chosen = _best_modes([loads[text] for text in shown if text in loads and text in case.ranked])
        reach = REACH * min((one.latency_ms or 0.0 for one in chosen), default=0.0)
        near = [one for one in chosen if (one.latency_ms or 0.0) <= reach][:LINES]
        drawn = tuple(trace for one in near if (trace := _trace(one, shown[one.label.text], raw)) is not None)
        if drawn:
            return Load(case, drawn, len(chosen) - len(drawn))
    return None


def _best_modes(placed: list[Measurement]) -> list[Measurement]:
    """Of measurements, best first, the first of each implementation: its compile modes often run the same kernel."""
    first: dict[tuple[str, str, str], Measurement] = {}
    for one in placed:
        first.setdefault((one.label.impl, one.label.variant, one.label.version), one)
    return list(first.values())


def _trace(one: Measurement, name: str, raw: Callable[[Row], Row]) -> Trace | None:
    """The process whose sustained latency is nearest to the median of all, as a line; None without samples."""
    middle = one.latency_ms
    assert middle is not None
    able = [row for row in one.rows if row["sustained_ms"]]
    row = min(able, key=lambda row: abs(row["sustained_ms"] - middle))
    columns = raw(row)
    latency = thinned(columns["sustained_start_s"], columns["sustained_samples_ms"])
    clock = thinned(columns["sustained_clock_start_s"], columns["sustained_clock_mhz"])
    if not latency:
        return None
    burst = (str(row["timer"]), row["latency_ms"], row["sustained_ms"], row["burst_clock_mhz"])
    return Trace(one.label.text, name, *burst, latency, clock)


def thinned(times: list[float] | None, values: list[float] | None) -> Series:
    """Medians over bins of BIN_S, wider where there would be more than POINTS; each at the middle of its bin."""
    pairs = [
        (time, value)
        for time, value in zip(times or [], values or [], strict=False)
        if time is not None and value is not None and math.isfinite(time) and math.isfinite(value)
    ]
    if not pairs:
        return []
    begin = min(time for time, _ in pairs)
    width = max(BIN_S, (max(time for time, _ in pairs) - begin) / POINTS)
    bins: dict[int, list[float]] = {}
    for time, value in pairs:
        bins.setdefault(int((time - begin) / width), []).append(value)
    return [(begin + (number + 0.5) * width, median(its)) for number, its in sorted(bins.items())]


def load_plot(section: Section, load: Load, styles: dict[str, Style]) -> Figure:
    """Latency above, the SM clock below where it is known; strokes before the load began are those of bursts."""
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine
    from matplotlib.lines import Line2D

    traces = load.traces
    shown = [drawable(f"{one.name}: {digits(one.burst_ms)} to {digits(one.load_ms)} ms", 90) for one in traces]
    shown = [f"{text} ({more(one.load_ms, one.burst_ms)})" for text, one in zip(shown, traces, strict=True)]
    clocks = any(one.clock for one in traces)
    legend = 0.7 + 0.073 * max(len(text) for text in shown)
    width, height = 5.8 + legend, 4.9 if clocks else 3.6
    figure = Figure(figsize=(width, height), layout=ConstrainedLayoutEngine(rect=(0, 0, 1 - legend / width, 1)))
    panels = figure.subplots(2 if clocks else 1, 1, sharex=True, squeeze=False, height_ratios=[2, 1][: 1 + clocks])
    above, below = panels[0][0], panels[-1][0]
    end = max(time for one in traces for time, _ in one.latency)
    for one in traces:
        _draw(above, one.latency, styles[one.text])
        _stroke(above, end, one.burst_ms, styles[one.text])
        if one.clock:
            _draw(below, one.clock, styles[one.text])
            if one.burst_clock_mhz is not None:
                _stroke(below, end, one.burst_clock_mhz, styles[one.text])
    above.set_ylabel("latency (ms)")
    above.annotate("burst", (-0.045 * end, 1), xycoords=("data", "axes fraction"), ha="center", va="bottom", fontsize=8)
    above.axvline(0, color="#444444", linewidth=0.8, linestyle=(0, (2, 2)))
    if clocks:
        below.set_ylabel("SM clock (MHz)")
        below.axvline(0, color="#444444", linewidth=0.8, linestyle=(0, (2, 2)))
    below.set_xlabel("seconds under load")
    below.set_xlim(-0.09 * end, 1.02 * end)
    set_heading(figure, section, width, [one.text for one in traces], _which(section, load), timed=False)
    handles = [Line2D([], [], **styles[one.text].line_options()) for one in traces]
    draw_legend(figure, handles, shown, "burst to steady load", (1 - legend / width, 1 - 0.55 / height))
    return figure


def _draw(ax: Axes, series: Series, style: Style) -> None:
    times, values = zip(*series, strict=True)
    ax.plot(times, values, **style.line_options(), markevery=(len(series) // 16, max(1, len(series) // 8)))


def _stroke(ax: Axes, end: float, value: float, style: Style) -> None:
    """A short thick line before the load of `end` seconds begins: what bursts had."""
    ax.plot([-0.075 * end, -0.015 * end], [value] * 2, color=style.colour, linewidth=3)


def _which(section: Section, load: Load) -> str:
    """The case that is drawn, by what tells it apart in its table, how bursts were timed, and what of it is not."""
    told = ", ".join(f"{name} {field_value(load.case, name, section.key.axis)}" for name in shown_fields(section))
    modes = {label.compile for label in section.labels.values()}
    chosen = ", in its best compile mode" if len(modes) > 1 else ""
    left = f"; {load.left_out} slower left out" if load.left_out else ""
    timers = listing(list(dict.fromkeys(one.timer for one in load.traces)))
    return f"{told or load.case.case}; bursts by {timers}; one process each{chosen}{left}"
