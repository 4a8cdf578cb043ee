"""The stopping rule, replayed on streams of blocks without a GPU."""

import math
import random

import pytest

from attnsweep.timing.stopping import IntervalRule, SettleRule, SteadyRule


def rule(**changes):
    """A rule of 2 %, six blocks, a second."""
    return IntervalRule(
        **{
            "target": 0.02,
            "min_blocks": 6,
            "min_time_s": 0.0,
            "time_cap_s": 1.0,
            "max_samples": 1000,
            **changes,
        }
    )


def feed(one, blocks, step_s=0.03):
    """Feed blocks until the rule is content; returns how many it took."""
    for count, block in enumerate(blocks, start=1):
        one.add(block, count * step_s)
        if one.done():
            return count
    return None


def test_a_steady_stream_stops_at_six_blocks():
    """Fewer give no interval at 95 %."""
    one = rule()
    assert feed(one, [[1.0, 1.01]] * 50) == 6
    assert one.why() == "interval"


def test_not_before_the_shortest_time():
    """Six calls of a microsecond are no measurement."""
    one = rule(min_time_s=0.5)
    assert feed(one, [[1.0]] * 50) == 17


def test_a_noisy_stream_stops_at_the_cap_and_says_so():
    """Two modes 20 % apart never give an interval of 2 %."""
    one = rule()
    assert feed(one, [[1.0], [1.2]] * 100) == 34
    assert one.why() == "time"


def test_a_step_in_the_stream_is_waited_out():
    """After the step the median must belong to one side for certain."""
    one = rule(time_cap_s=100)
    took = feed(one, [[1.0]] * 5 + [[1.3]] * 200)
    assert took is not None
    assert took > 12
    assert one.interval() == (1.3, 1.3)


def test_a_drift_beyond_the_target_stops_at_the_cap():
    """Each block 1 % slower than the one before: more of them know the median less."""
    one = rule()
    assert feed(one, [[1.01**count] for count in range(100)]) == 34
    assert one.why() == "time"


def test_outliers_do_not_move_the_interval():
    """One block in ten is three times as long; the median does not care."""
    draw = random.Random(0)
    one = rule()
    blocks = [[3.0] if draw.random() < 0.1 else [1.0 + 0.001 * draw.random()] for _ in range(100)]
    assert feed(one, blocks) < 20
    assert one.why() == "interval"


def test_the_most_samples_stop_it_too():
    """A call of a microsecond does not fill the record."""
    one = rule(target=0.0, max_samples=100)
    draw = random.Random(0)
    assert feed(one, [[draw.random() for _ in range(10)] for _ in range(50)]) == 10
    assert one.why() == "samples"


def test_slow_calls_may_take_four_times_the_cap_to_reach_six_blocks():
    """A call of half a second gets its interval; one of ten seconds stops at one block, without."""
    slow, slower = rule(), rule()
    assert feed(slow, [[500.0]] * 20, step_s=0.5) == 6
    assert slow.interval() == (500.0, 500.0)
    assert feed(slower, [[1e4]] * 5, step_s=10.0) == 1
    assert slower.interval() is None
    assert slower.why() == "time"


def settle(*medians, **options):
    """How many blocks the gate holds back, and whether they settled."""
    gate = SettleRule(**{"tolerance": 0.01, **options})
    for count, one in enumerate(medians, start=1):
        gate.add([one])
        if gate.done():
            return count, gate.settled()
    return None


def test_two_blocks_that_agree_open_the_gate():
    """The least that can say anything."""
    assert settle(1.0, 1.005, 1.0) == (2, True)


def test_a_step_is_waited_for():
    """A slow start, then the level: the gate opens on the second block of the level."""
    assert settle(1.2, 1.1, 1.0, 1.001) == (4, True)


def test_two_modes_do_not_hold_the_gate_for_ever():
    """A clock that jumps between two values: after eight blocks sampling begins, and it is said."""
    assert settle(*[1.0, 1.1] * 10) == (8, False)


def load(stream, seconds=0.02, **options):
    """Feed stretches of `seconds`, each a latency, until the rule is content; the rule and how many it took."""
    one = SteadyRule(**{"soak_s": 1.0, "window_s": 0.5, "steady": 0.005, "cap_s": 4.0, **options})
    for count in range(1, 10_000):
        one.add([stream(count * seconds)], count * seconds)
        if one.done():
            return one, count * seconds
    raise AssertionError("it never stops")


def test_a_level_load_is_steady_after_the_soak_and_two_windows():
    """One second, then twice half a second, all of which count."""
    one, end_s = load(lambda now: 1.0)
    assert one.why() == "steady"
    assert 2.0 <= end_s <= 2.05
    assert len(one.stretches()) == 50


def test_a_step_under_load_is_waited_for():
    """7 % slower from 1.7 s on: the windows before the step is over do not count."""
    one, end_s = load(lambda now: 1.0 if now < 1.7 else 1.07)
    assert one.why() == "steady"
    assert end_s >= 3.0
    assert min(one.stretches()) * 0.02 >= 1.9


def test_drift_stops_at_the_cap():
    """2 % a second is never steady, and what counts is the end of it."""
    one, end_s = load(lambda now: 1.0 + 0.02 * now)
    assert one.why() == "time"
    assert 4.0 <= end_s <= 4.05
    assert min(one.stretches()) * 0.02 >= 2.9


def test_a_clock_that_swings_does_not_hold_up_a_steady_load():
    """2 % up and down, five times a window: the means agree."""
    one, end_s = load(lambda now: 1.0 + 0.01 * math.sin(now * 20 * math.pi))
    assert one.why() == "steady"
    assert end_s <= 2.05


def test_stretches_longer_than_a_window_are_windows():
    """Calls of 0.7 s: soak of two, then one a window."""
    one, end_s = load(lambda now: 1.0, seconds=0.7)
    assert one.why() == "steady"
    assert end_s == pytest.approx(2.8)
    assert list(one.stretches()) == [2, 3]


def test_a_cap_before_two_windows_takes_what_there_is():
    """All since the soak; where even that was not reached, all."""
    assert list(load(lambda now: 1.0, seconds=3.0)[0].stretches()) == [1]
    assert list(load(lambda now: 1.0, seconds=5.0)[0].stretches()) == [0]


def test_a_timer_of_coarse_resolution_still_stops():
    """Readings in steps of half a microsecond: a block median is one of two values, and the interval closes."""
    stream = random.Random(0)
    blocks = [[round(stream.gauss(0.0171, 0.0003) / 0.0005) * 0.0005 for _ in range(24)] for _ in range(200)]
    one = rule(target=0.02)
    assert feed(one, blocks) is not None
    assert one.why() == "interval"
