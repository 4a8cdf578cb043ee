"""The stopping rule, replayed on streams of blocks without a GPU."""

import random

from attnsweep.timing.stopping import IntervalRule


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
