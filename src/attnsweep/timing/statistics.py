"""What samples say: quantiles, the median and the mean with 95 % intervals, a shift of level. Standard library only."""

from __future__ import annotations

import math
from typing import Sequence


def median(values: Sequence[float]) -> float:
    """The median of at least one value."""
    return quantile(values, 0.5)


def quantile(values: Sequence[float], fraction: float) -> float:
    """The quantile by linear interpolation between order statistics (Hyndman and Fan's type 7)."""
    ordered = sorted(values)
    position = fraction * (len(ordered) - 1)
    below = math.floor(position)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (position - below)


def median_interval(values: Sequence[float]) -> tuple[float, float] | None:
    """The narrowest order-statistic interval (low, high) that holds the median with at least 95 %.

    Distribution-free: the number of values below the median is binomial(n, 1/2). None for fewer than six values,
    from which no such interval exists.
    """
    ordered = sorted(values)
    count = len(ordered)
    cut = _cut(count)
    return None if cut is None else (ordered[cut], ordered[count - 1 - cut])


def level_shift(values: Sequence[float], fewest: int = 3) -> float:
    """How far apart two levels are that a series in order moved between, once and for good; 0 where it did not.

    The widest gap that parts all values before some place from all after it, with `fewest` on either side.
    """
    shift = 0.0
    for place in range(fewest, len(values) - fewest + 1):
        before, after = values[:place], values[place:]
        shift = max(shift, min(before) - max(after), min(after) - max(before))
    return shift


def mean(values: Sequence[float]) -> float:
    """The mean of at least one value."""
    return math.fsum(values) / len(values)


#: Batches of `mean_interval`, and Student's t for 95 % with one degree of freedom less.
_BATCHES, _STUDENT = 10, 2.262


def mean_interval(values: Sequence[float]) -> tuple[float, float] | None:
    """The 95 % interval of the mean of a stream, by the means of ten batches in order; None for fewer than ten values.

    Neighbours of a stream are alike (a clock that swings), so single values would claim more than they know.
    """
    count = len(values)
    if count < _BATCHES:
        return None
    edges = [count * batch // _BATCHES for batch in range(_BATCHES + 1)]
    means = [mean(values[start:end]) for start, end in zip(edges, edges[1:])]
    centre = mean(means)
    spread = math.sqrt(math.fsum((one - centre) ** 2 for one in means) / (_BATCHES - 1))
    half = _STUDENT * spread / math.sqrt(_BATCHES)
    return centre - half, centre + half


def _cut(count: int) -> int | None:
    """How many values to leave out at each end; None where even leaving out none is not enough."""
    if count > 1000:  # the normal approximation is exact to a place here, and the sum below overflows a float
        return math.floor(count / 2 - 0.98 * math.sqrt(count)) - 1
    tail, cut = 0.0, -1
    for below in range(count // 2):
        tail += math.comb(count, below) / 2.0**count
        if 2 * tail > 0.05:
            break
        cut = below
    return None if cut < 0 else cut
