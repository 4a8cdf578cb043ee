"""Scales of line plots: limits from the data, ticks at real values, and plain numbers beside them."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from attnsweep.report.measures import Measure
from attnsweep.report.text import whole

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def set_x(ax: Axes, xs: list[float], inches: float) -> None:
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


def set_y(axes: list[Axes], measure: Measure, values: list[float], above: float) -> None:
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
