"""The sustained regime: calls back to back until latency is steady, as training and serving run them."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from itertools import cycle
from typing import Any, Callable, Sequence

from attnsweep.frameworks import Event, Framework
from attnsweep.timing.smclock import SmClock
from attnsweep.timing.statistics import mean, mean_interval, median
from attnsweep.timing.stopping import SteadyRule
from attnsweep.timing.timers import Clock

#: A sample is a mean over calls of at least this long, and a stretch a run of samples that is issued at once; two
#: stretches are under way at a time. Without events of the device a stretch is one sample: its end is known when it was
#: waited for, late by some 10 us.
_SAMPLE_MS, STRETCH_MS = 1.0, 20.0

#: Share of stretches that the GPU may have waited for.
STARVED = 0.1


@dataclass
class _Stretch:
    events: list[Event]
    first_mark: int
    last_mark: int
    starved: bool


def run(
    framework: Framework,
    steps: Sequence[Callable[[], Any]],
    clock: Clock,
    rule: SteadyRule,
    sm_clock: SmClock,
    *,
    step_ms: float,
    calls_per_step: int,
) -> tuple[dict[str, Any], list[float] | None]:
    """The sustained columns and flags, and the window [begin, end] of the steady part in s on the clock.

    `steps` are issued in turn, each holding `calls_per_step` calls and taking about `step_ms`: a call over copies of
    its inputs, or a graph's replay. Where launching cannot keep up with the GPU there is no load: `launch_bound` and
    no latency.
    """
    turn = cycle(steps)
    per_sample = max(1, round((_SAMPLE_MS if framework.device_events else STRETCH_MS) / step_ms))
    samples = max(1, round(STRETCH_MS / (per_sample * step_ms)))
    spare: list[Event] = []
    under_way: deque[_Stretch] = deque()
    durations: list[list[float]] = []
    starts: list[list[float]] = []
    clocks: list[float | None] = []
    starved = 0

    def issue(previous: Event) -> _Stretch:
        # The stretch before has been issued whole; if the GPU is through with it already, it waits for this one.
        starved = previous.reached()
        first_mark = sm_clock.mark()
        events = []
        for number in range(samples):
            for _ in range(per_sample):
                next(turn)()
            if number == samples - 1:
                last_mark = sm_clock.mark()
            event = spare.pop() if spare else framework.event()
            event.record()
            events.append(event)
        return _Stretch(events, first_mark, last_mark, starved)

    framework.synchronize()
    base = framework.event()
    base.record()
    base.wait()
    base_s = clock.monotonic()
    last_read, last_issued = base, base
    end_s = 0.0
    while not rule.done():
        while len(under_way) < 2:
            under_way.append(issue(last_issued))
            last_issued = under_way[-1].events[-1]
        stretch = under_way.popleft()
        stretch.events[-1].wait()
        times = []
        begin_s = []
        for event in stretch.events:
            begin_s.append(end_s)
            ms = last_read.ms_until(event)
            times.append(ms / (per_sample * calls_per_step))
            end_s += ms / 1e3
            if last_read is not base:
                spare.append(last_read)
            last_read = event
        clocks.append(sm_clock.mhz(stretch.first_mark, stretch.last_mark))
        starved += stretch.starved and len(durations) > 0  # nothing was under way before the first
        durations.append(times)
        starts.append(begin_s)
        rule.add(times, end_s)
    framework.synchronize()
    if starved > STARVED * len(durations):
        return {"flags": ["launch_bound"]}, None
    counted = rule.stretches()
    steady = [one for number in counted for one in durations[number]]
    interval = mean_interval(steady)
    known = [clocks[number] for number in counted]
    edges = [*(begin[0] for begin in starts), end_s]
    return {
        "sustained_ms": mean(steady),
        "sustained_ci_low_ms": interval[0] if interval else None,
        "sustained_ci_high_ms": interval[1] if interval else None,
        "sustained_stop_reason": rule.why(),
        "sustained_samples_ms": [one for stretch in durations for one in stretch],
        "sustained_start_s": [one for stretch in starts for one in stretch],
        "sustained_clock_mhz": [one for one in clocks if one is not None],
        "sustained_clock_start_s": [begin[0] for begin, one in zip(starts, clocks) if one is not None],
        "load_clock_mhz": median([one for one in known if one is not None]) if any(known) else None,
        "flags": [] if rule.why() == "steady" else ["unsteady"],
    }, [base_s + starts[counted[0]][0], base_s + edges[counted[-1] + 1]]
