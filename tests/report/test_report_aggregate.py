"""From the processes of a cell to one latency with an interval."""

from __future__ import annotations

from typing import Any

import pytest
from report_records import prefill, values

from attnsweep.errors import Status
from attnsweep.report.aggregate import ENOUGH, Measurement, measure
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
    ("column", "timer", "kernels", "open_ms"),
    [
        ("latency_ms", "graph", (2,), 0.8e-3),
        ("sustained_ms", "graph", (2,), 0.8e-3),
        ("kernel_ms", "graph", (2,), 2e-3),
        ("kernel_ms", "graph", (1,), 0.0),
        ("latency_ms", "kernel", (3,), 3e-3),
        ("sustained_ms", "kernel", (3,), 0.0),
        ("events_ms", "graph", (2,), 0.0),
        ("latency_ms", "events", (2,), 0.0),
        ("latency_ms", "graph", (1,), 0.0),
        ("latency_ms", "graph", (None,), 0.8e-3),
        ("latency_ms", "graph", (None, 1), 0.0),
        ("latency_ms", "graph", (2, 3), 1.2e-3),
    ],
)
def test_a_timer_leaves_something_open_of_several_kernels(
    column: str, timer: str, kernels: tuple[int | None, ...], open_ms: float
) -> None:
    """A graph its level, in a load as well; CUPTI's times what lies between kernels. Where no process saw the kernels
    there may be two; one that saw them knows.
    """
    one = of(*(row(0.02, timer=timer, kernel_count=number) for number in kernels), column=column)
    assert one.open_ms == pytest.approx(open_ms)


def test_a_process_without_a_latency_leaves_nothing_open() -> None:
    """What failed says nothing of how many kernels those ran that are ok."""
    failed = values(POINT, status=Status.CRASHED, timer="graph", kernel_count=9)
    assert of(row(0.02, timer="graph", kernel_count=2), failed).open_ms == pytest.approx(0.8e-3)
