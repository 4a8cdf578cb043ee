"""Blocks of one timer until enough is known: the columns of the primary timer, the median of another."""

from __future__ import annotations

from typing import Any, Callable

from attnsweep.timing.statistics import median, quantile
from attnsweep.timing.stopping import IntervalRule, SettleRule
from attnsweep.timing.timers import Clock, Timer

#: Blocks of the timers beside the primary one.
_BESIDE_BLOCKS = 4


def sample(
    timer: Timer,
    clock: Clock,
    rule: IntervalRule,
    settle: SettleRule | None = None,
    allocations: Callable[[], int | None] = lambda: None,
) -> dict[str, Any]:
    """Blocks until the rule is content. `latency_ms` is the median over block medians, its interval's centre.

    Blocks before `settle` is content do not count; they are kept, with -1 for their block. `allocations` says how often
    the device was asked for memory: `allocating` is flagged where it was while blocks counted.
    """
    samples: list[float] = []
    starts: list[float] = []
    numbers: list[int] = []
    clocks: list[float | None] = []
    begin = clock.monotonic()

    def block(number: int) -> list[float]:
        one = timer.block()
        samples.extend(one.samples_ms)
        starts.extend(start - begin for start in one.starts_s)
        numbers.extend([number] * len(one.samples_ms))
        clocks.append(one.clock_mhz)
        return one.samples_ms

    while settle is not None and not settle.done():
        settle.add(block(-1))
    settled, skipped = clock.monotonic(), len(samples)
    skipped_blocks, allocated = len(clocks), allocations()
    while not rule.done():
        rule.add(block(len(rule.block_medians)), clock.monotonic() - settled)
    interval = rule.interval()
    flags = timer.flags | ({"unstable"} if rule.why() == "time" else set())
    if allocations() != allocated:
        flags.add("allocating")
    if settle is not None and not settle.settled():
        flags.add("unsettled")
    if settle is not None and rule.stepped():
        flags.add("stepped")
    known = [mhz for mhz in clocks if mhz is not None]
    counted = [mhz for mhz in clocks[skipped_blocks:] if mhz is not None]
    return {
        "timer": timer.name,
        "latency_ms": median(rule.block_medians),
        "latency_ci_low_ms": interval[0] if interval else None,
        "latency_ci_high_ms": interval[1] if interval else None,
        "p10_ms": quantile(samples[skipped:], 0.1),
        "p90_ms": quantile(samples[skipped:], 0.9),
        "stop_reason": rule.why(),
        "samples_ms": samples,
        "sample_start_s": starts,
        "sample_block": numbers,
        "settle_s": settled - begin if settle is not None else None,
        "block_clock_mhz": known or None,
        "burst_clock_mhz": median(counted) if counted else None,
        "flags": sorted(flags),
    }


def interval_rule(options: dict[str, Any]) -> IntervalRule:
    return IntervalRule(
        target=options["target"],
        min_blocks=options["min_blocks"],
        min_time_s=options["min_time_s"],
        time_cap_s=options["time_cap_s"],
        max_samples=options["max_samples"],
    )


def beside(timer: Timer) -> float | None:
    """The median of some blocks of a timer that is not the primary one; None where its launches did not hide."""
    blocks = [timer.block() for _ in range(_BESIDE_BLOCKS)]
    if not all(block.hidden for block in blocks):
        return None
    return median([median(block.samples_ms) for block in blocks])
