"""From the processes of a cell to one latency with an interval."""

from __future__ import annotations

from itertools import permutations
from typing import Any

import pytest
from report_records import prefill, values

from attnsweep.errors import Status
from attnsweep.report.aggregate import (
    ENOUGH,
    Measurement,
    beats,
    compared,
    left_open,
    measure,
    open_ms,
    ratio,
    unbeaten,
)
from attnsweep.report.labels import Label

POINT = prefill(1, 2048)
LABEL = Label("fa2", "", "eager", "", "fa2")


def of(*rows: dict[str, Any], column: str = "latency_ms") -> Measurement:
    return measure(LABEL, list(rows), column)


def row(latency_ms: float, width: float = 0.01, **columns: Any) -> dict[str, Any]:
    return values(POINT, latency_ms=latency_ms, width=width, **columns)


def bounds(one: Measurement) -> tuple[float, float, str]:
    assert one.interval is not None
    return round(one.interval.low, 6), round(one.interval.high, 6), one.interval.kind


def test_one_process_keeps_its_own_interval() -> None:
    """Latency and interval are the record's."""
    one = of(row(2.0))
    assert one.latency_ms == 2.0
    assert bounds(one) == (1.98, 2.02, "process")


def test_a_few_processes_stretch_the_widest_interval_to_their_medians() -> None:
    """The median of 1, 1.1 and 1.4 is 1.1; the widest interval is 1.4's, 1.386 to 1.414, stretched down to 1."""
    one = of(row(1.0), row(1.1), row(1.4))
    assert one.latency_ms == 1.1
    assert bounds(one) == (1.0, 1.414, "stretched")


def test_six_processes_give_an_order_statistic() -> None:
    """With six the interval is their range; it does not look within the processes any more, as with five."""
    rows = [row(1 + number / 10, width=0.9) for number in range(ENOUGH)]
    assert of(*rows).latency_ms == pytest.approx(1.25)
    assert bounds(of(*rows)) == (1.0, 1.5, "order")
    assert bounds(of(*rows[:-1]))[2] == "stretched"


def test_without_intervals_the_range_is_said_to_be_one() -> None:
    """kernel_ms has no interval within a process: one process has none, several have their range."""
    assert bounds(of(row(1.0), column="kernel_ms")) == (0.97, 0.97, "none")
    assert bounds(of(row(1.0), row(2.0), column="kernel_ms")) == (0.97, 1.94, "range")


def test_a_failed_process_beside_good_ones_is_marked() -> None:
    """The number is of the others, and the reader is told."""
    one = of(row(1.0), values(POINT, status=Status.CRASHED))
    assert (one.status, one.latency_ms, one.ok, one.ranked) == (Status.OK, 1.0, 1, True)
    assert "partial" in one.marks


def test_an_incorrect_process_withholds_the_time_of_all() -> None:
    """A kernel that is wrong once in three is not fast, it is wrong."""
    one = of(row(1.0), row(1.0), values(POINT, status=Status.INCORRECT))
    assert (one.status, one.latency_ms, one.ranked) == (Status.INCORRECT, None, False)


def test_the_implausible_is_shown_and_not_ranked() -> None:
    """Faster than the hardware can be is a mistake of the measurement."""
    one = of(row(1.0, flags=["implausible"]))
    assert one.latency_ms == 1.0
    assert not one.ranked


def test_another_precision_is_marked() -> None:
    """A quantised result never looks like a native one."""
    assert of(row(1.0, precision_class="int8")).marks == ("precision int8",)
    assert of(row(1.0)).marks == ()


def test_failures_alone_say_how_most_of_them_ended() -> None:
    """Two timeouts and a crash are a timeout."""
    ends = [Status.TIMEOUT, Status.CRASHED, Status.TIMEOUT]
    one = of(*(values(POINT, status=status) for status in ends))
    assert (one.status, one.latency_ms, one.interval) == (Status.TIMEOUT, None, None)


def test_rates_follow_the_latency_that_ranks() -> None:
    """FLOP/s come from the merged median, not from one process."""
    one = of(row(1.0), row(3.0))
    assert one.per_second("flops") == pytest.approx(values(POINT)["flops"] / 2e-3)


@pytest.mark.parametrize(
    ("column", "timer", "kernels", "left", "by_kernel"),
    [
        ("latency_ms", "graph", (2,), 2, False),
        ("sustained_ms", "graph", (2,), 2, False),
        ("kernel_ms", "graph", (2,), 2, True),
        ("kernel_ms", "graph", (1,), 0, True),
        ("latency_ms", "kernel", (3,), 3, True),
        ("sustained_ms", "kernel", (3,), 0, False),
        ("events_ms", "graph", (2,), 0, False),
        ("latency_ms", "events", (2,), 0, False),
        ("latency_ms", "graph", (1,), 1, False),
        ("latency_ms", "graph", (None,), 2, False),
        ("latency_ms", "graph", (None, 1), 1, False),
        ("latency_ms", "graph", (2, 3), 3, False),
    ],
)
def test_a_timer_leaves_something_open_of_kernels(
    column: str, timer: str, kernels: tuple[int | None, ...], left: int, by_kernel: bool
) -> None:
    """A graph, in a load as well, and of several CUPTI's times. Where no process saw the kernels there may be two; one
    that saw them knows.
    """
    one = of(*(row(0.02, timer=timer, kernel_count=number) for number in kernels), column=column)
    assert one.time is not None
    assert (one.time.kernels, one.time.by_kernel) == (left, by_kernel)


def test_a_process_without_a_latency_leaves_nothing_open() -> None:
    """What failed says nothing of how many kernels those ran that are ok."""
    failed = values(POINT, status=Status.CRASHED, timer="graph", kernel_count=9)
    one = of(row(0.02, timer="graph", kernel_count=2), failed)
    assert one.time is not None
    assert one.time.kernels == 2


@pytest.mark.parametrize(
    ("fast", "slow", "open_us"),
    [
        ((1, "graph"), (1, "graph"), 0.45),
        ((2, "graph"), (2, "graph"), 0.9),
        ((1, "graph"), (3, "graph"), 1.35),
        ((3, "graph"), (1, "graph"), 1.35),
        ((3, "graph"), (9, "events"), 1.35),
        ((1, "kernel"), (1, "kernel"), 0.0),
        ((1, "kernel"), (10, "kernel"), 7.5),
        ((10, "kernel"), (1, "kernel"), 17.5),
        ((2, "kernel"), (5, "kernel"), 7.25),
    ],
)
def test_what_a_timer_leaves_open_between_two(fast: tuple[int, str], slow: tuple[int, str], open_us: float) -> None:
    """By a graph either may be on another level; by CUPTI's times the faster lacks its gaps, and the slower may
    take less.
    """
    times = compared(*(of(row(0.02, timer=timer, kernel_count=number)) for number, timer in (fast, slow)))
    assert times is not None
    assert open_ms(*times) == pytest.approx(open_us / 1e3)


@pytest.mark.parametrize(
    ("fast", "slow", "won"),
    [((5, 1), (24, 20), True), ((14, 1), (24, 12), True), ((14, 1), (22.3, 12), False), ((14, 2), (18.8, 2), False)],
)
def test_by_the_kernels_times_each_of_two_counts_with_its_own_kernels(
    fast: tuple[float, int], slow: tuple[float, int], won: bool
) -> None:
    """A call of one kernel has no gaps, however many the slower one has; us and kernels."""
    one, other = (of(row(us / 1e3, width=1e-3, timer="kernel", kernel_count=number)) for us, number in (fast, slow))
    assert (beats(one, other), left_open(one, other) is not None) == (won, not won)
    assert not beats(other, one)


def mixed(own_us: float, kernel_us: float | None, kernels: int, timer: str = "graph", **columns: Any) -> Measurement:
    """One process by a timer of its own, with its kernels' time beside it; where that is the timer, by it alone."""
    kernel_ms = None if kernel_us is None else kernel_us / 1e3
    return of(row(own_us / 1e3, width=1e-3, timer=timer, kernel_ms=kernel_ms, kernel_count=kernels, **columns))


def test_two_are_compared_by_their_kernels_where_one_has_nothing_else() -> None:
    """And by their own timers otherwise, whatever their kernels take: 30.6 us against 21.7 is 1.41, not 1.25."""
    naive, cudnn, jax = mixed(30.6, 26.0, 5), mixed(21.7, 20.8, 2), mixed(22.9, 22.9, 4, "kernel")
    assert ratio(cudnn, naive) == pytest.approx(30.6 / 21.7)
    assert ratio(cudnn, jax) == pytest.approx(22.9 / 20.8)
    assert ratio(jax, naive) == pytest.approx(26.0 / 22.9)
    assert ratio(jax, jax) == 1.0
    assert (beats(cudnn, naive), beats(cudnn, jax), beats(jax, naive)) == (True, False, False)
    assert left_open(cudnn, jax) is not None


def test_a_call_whose_kernels_were_not_seen_beats_kernels_that_take_longer_than_all_of_it() -> None:
    """CUPTI did not see them: no ratio, and what has kernels alone beats no such call, whose gaps nobody knows."""
    unseen, jax = mixed(10.0, None, 1), mixed(90.0, 90.0, 3, "kernel")
    assert (compared(unseen, jax), ratio(unseen, jax), ratio(jax, unseen)) == (None, None, None)
    assert [beats(unseen, jax), beats(jax, unseen)] == [True, False]
    near, far = mixed(87.0, None, 1), mixed(190.0, None, 1)
    assert [beats(near, jax), beats(jax, far), beats(far, jax)] == [False, False, False]
    assert left_open(near, jax) is not None
    assert left_open(jax, far) is None


@pytest.mark.parametrize("order", list(permutations(range(3))))
def test_of_a_pairwise_rule_that_is_no_order_something_is_fastest_and_nothing_beaten_is(order: tuple[int, ...]) -> None:
    """By the kernels the first two would beat each other through the third; the lowest latency is never beaten."""
    a, b = mixed(20.0, 30.0, 1), mixed(22.0, 18.0, 1)
    every = {"a": a, "b": b, "jax": mixed(24.0, 24.0, 1, "kernel")}
    assert (beats(a, b), beats(b, every["jax"]), beats(every["jax"], a)) == (True, True, False)
    assert unbeaten({name: every[name] for name in (list(every)[place] for place in order)}) == ("a",)


def test_what_another_beats_is_not_fastest_although_the_first_does_not() -> None:
    """The first, of many kernels, leaves open what the second does not."""
    first, second, third = mixed(20.0, 20.0, 9), mixed(20.5, 20.5, 1), mixed(22.0, 22.0, 1)
    assert not beats(first, third)
    assert unbeaten({"first": first, "second": second, "third": third}) == ("first", "second")


def test_of_equals_the_one_by_its_kernels_alone_comes_last() -> None:
    """Its latency lacks what lies between its kernels, so that it may be the lower one."""
    assert unbeaten({"jax": mixed(33.3, 33.3, 2, "kernel"), "fa4": mixed(33.6, 33.4, 1)}) == ("fa4", "jax")
