"""From a call to the record's latency columns: estimate, sample until the rule says stop, summarise."""

from __future__ import annotations

from typing import Any, Callable

from attnsweep.frameworks import Framework
from attnsweep.timing import contention
from attnsweep.timing.statistics import median, quantile
from attnsweep.timing.stopping import IntervalRule
from attnsweep.timing.timers import Clock, EventsTimer, HostTimer, Timer

#: Calls of the host's clock beside the primary timer, and the longest they may take together.
_HOST_CALLS, _HOST_S = 10, 0.1


def latency(
    framework: Framework, call: Callable[[], Any], clock: Clock, options: dict[str, Any], warm_ms: float
) -> dict[str, Any]:
    """The latency columns of a warm call, by `events` on a GPU and `host` on a CPU, and its flags.

    `options` are conf's timing; `warm_ms` is the wall clock of a warm call, which is more than the device's time.
    """
    host = HostTimer(framework, call, clock)
    if framework.on_gpu:
        timer: Timer = EventsTimer(
            framework,
            call,
            clock,
            call_ms=_estimate(framework, call, warm_ms),
            cache=options["cache"],
            block_ms=options["block_ms"],
            rest_ms=options["rest_ms"],
        )
        columns = sample(timer, clock, _rule(options))
        deadline = clock.monotonic() + _HOST_S
        walls = host.block().samples_ms
        while len(walls) < _HOST_CALLS and clock.monotonic() < deadline:
            walls += host.block().samples_ms
        columns["host_ms"] = median(walls)
    else:
        waited, begin = contention.waited_s(), clock.monotonic()
        columns = sample(host, clock, _rule(options))
        if contention.shared(waited, contention.waited_s(), clock.monotonic() - begin):
            columns["flags"].append("contended")
        columns["host_ms"] = columns["latency_ms"]
    return columns


def sample(timer: Timer, clock: Clock, rule: IntervalRule) -> dict[str, Any]:
    """Blocks until the rule is content. `latency_ms` is the median over block medians, its interval's centre."""
    samples: list[float] = []
    starts: list[float] = []
    numbers: list[int] = []
    begin = clock.monotonic()
    while not rule.done():
        block = timer.block()
        numbers += [len(rule.block_medians)] * len(block.samples_ms)
        samples += block.samples_ms
        starts += [start - begin for start in block.starts_s]
        rule.add(block.samples_ms, clock.monotonic() - begin)
    interval = rule.interval()
    return {
        "timer": timer.name,
        "latency_ms": median(rule.block_medians),
        "latency_ci_low_ms": interval[0] if interval else None,
        "latency_ci_high_ms": interval[1] if interval else None,
        "p10_ms": quantile(samples, 0.1),
        "p90_ms": quantile(samples, 0.9),
        "stop_reason": rule.why(),
        "samples_ms": samples,
        "sample_start_s": starts,
        "sample_block": numbers,
        "flags": sorted(timer.flags | ({"unstable"} if rule.why() == "time" else set())),
    }


def _rule(options: dict[str, Any]) -> IntervalRule:
    return IntervalRule(
        target=options["target"],
        min_blocks=options["min_blocks"],
        min_time_s=options["min_time_s"],
        time_cap_s=options["time_cap_s"],
        max_samples=options["max_samples"],
    )


def _estimate(framework: Framework, call: Callable[[], Any], warm_ms: float) -> float:
    """Milliseconds of one call on the device: five behind one pair of events, or `warm_ms` where that is long."""
    if warm_ms > 20:
        return warm_ms
    before, after = framework.event(), framework.event()
    framework.synchronize()
    framework.spin(1.0)
    before.record()
    for _ in range(5):
        call()
    after.record()
    framework.synchronize()
    return before.ms_until(after) / 5
