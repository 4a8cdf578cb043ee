"""Medians, means and their intervals: exact small cases, and how often an interval holds what it is of."""

import math
import random
import statistics as stdlib

import pytest

from attnsweep.timing.statistics import level_shift, mean_interval, median, median_interval, quantile


@pytest.mark.parametrize("values", [[3.0], [1.0, 2.0], [5.0, 1.0, 3.0], [4.0, 1.0, 2.0, 9.0]])
def test_median_is_the_standard_librarys(values):
    """Odd and even counts, any order."""
    assert median(values) == stdlib.median(values)


def test_quantiles_interpolate_between_order_statistics():
    """Type 7, numpy's default."""
    assert quantile([0.0, 10.0, 20.0, 30.0], 0.1) == pytest.approx(3.0)
    assert quantile([0.0, 10.0, 20.0, 30.0], 1.0) == 30.0


def test_six_values_are_the_fewest_with_an_interval():
    """1 - 2 * 2^-6 = 0.969 is the first above 95 %, and it is the whole range."""
    assert median_interval([1.0] * 5) is None
    assert median_interval([3.0, 1.0, 6.0, 2.0, 5.0, 4.0]) == (1.0, 6.0)


@pytest.mark.parametrize(("n", "cut"), [(6, 0), (8, 0), (9, 1), (12, 2), (20, 5), (30, 9)])
def test_the_interval_of_a_median_is_the_textbooks(n, cut):
    """Known ranks for 95 %; one rank narrower would hold less."""
    assert median_interval([float(number) for number in range(n)]) == (cut, n - 1 - cut)
    narrower = sum(math.comb(n, k) for k in range(cut + 2)) / 2**n
    assert 1 - 2 * narrower < 0.95


@pytest.mark.parametrize("count", [6, 15, 40, 1500])
def test_the_interval_covers_the_median_as_often_as_it_says(count):
    """At least 95 % of intervals from skewed samples hold the true median (0.6931 of an exponential)."""
    draw = random.Random(count)
    rounds = 400
    covered = 0
    for _ in range(rounds):
        low, high = median_interval([draw.expovariate(1.0) for _ in range(count)])
        covered += low <= 0.693147 <= high
    assert covered / rounds >= 0.92


def test_the_interval_of_a_mean_holds_it_for_a_stream_whose_neighbours_are_alike():
    """A swing of 2 % with a period of 200 values under noise: 95 % of 400 intervals or nearly so, no needle."""
    stream, held = random.Random(0), 0
    for _ in range(400):
        shift = stream.random() * 6.28
        values = [1 + 0.01 * math.sin(shift + i * 6.28 / 200) + stream.gauss(0, 0.02) for i in range(1000)]
        low, high = mean_interval(values)
        held += low <= 1 <= high
        assert high - low < 0.02
    assert held / 400 > 0.93


def test_ten_values_are_the_fewest_with_an_interval_of_the_mean():
    """One for each batch."""
    assert mean_interval([1.0] * 9) is None
    assert mean_interval([2.0] * 10) == (2.0, 2.0)


@pytest.mark.parametrize(
    ("values", "shift"),
    [
        ([5.0, 5.1, 5.2, 4.0, 4.1, 4.2], 0.8),
        ([4.0, 4.1, 4.2, 5.0, 5.1, 5.2], 0.8),
        ([4.0, 5.0, 4.0, 5.0, 4.0, 5.0], 0.0),
        ([5.0, 5.0, 4.0, 4.0, 4.0, 4.0], 0.0),
        ([5.0] * 6, 0.0),
        ([1.0, 2.0], 0.0),
    ],
)
def test_a_shift_is_the_gap_between_two_levels(values, shift):
    """Down or up; not what goes back and forth, nor what too few values show."""
    assert level_shift(values) == pytest.approx(shift)
