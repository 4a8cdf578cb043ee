"""Timers: each runs a block of calls and gives their durations; none knows when to stop.

`events` pairs CUDA events around each call behind a cold L2 and a launch blocker; `host` is wall clock with
synchronisation, the only one on a CPU.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Callable, Protocol

from attnsweep.frameworks import Framework

#: Timed calls in one block at most: with its flush, events and kernels a call stays some ten entries of the launch
#: queue (1024 deep), so that a whole block can wait behind the blocker.
_MOST_CALLS = 24

#: Untimed calls at the start of a block: the first after a rest is slow.
_LEAD_CALLS = 2

#: Above these a block is one untimed and one timed call, then one timed call alone.
_LONG_MS, _VERY_LONG_MS = 3.0, 10.0


#: How often a block is tried again, behind a blocker of at first and at most so many milliseconds.
_ATTEMPTS, _FIRST_BLOCKER_MS, _LONGEST_BLOCKER_MS = 5, 1.0, 50.0


@dataclass(frozen=True)
class Block:
    """Durations of a block's timed calls (ms), when each was issued (s on the clock), and whether launches hid."""

    samples_ms: list[float]
    starts_s: list[float]
    hidden: bool


class Clock(Protocol):
    """Monotonic time in seconds, and sleeping; tests give a fake one."""

    def monotonic(self) -> float:
        """Seconds since some point."""

    def sleep(self, seconds: float) -> None:
        """Wait."""


class Timer(Protocol):
    """Something that times blocks of calls."""

    name: str
    flags: set[str]

    def block(self) -> Block:
        """Run one block."""


class HostTimer:
    """Wall clock of one call with synchronisation before and after: what the caller of one call sees."""

    name = "host"

    def __init__(self, framework: Framework, call: Callable[[], Any], clock: Clock) -> None:
        self._framework, self._call, self._clock = framework, call, clock
        self.flags: set[str] = set()

    def block(self) -> Block:
        """One call."""
        self._framework.synchronize()
        start = self._clock.monotonic()
        self._call()
        self._framework.synchronize()
        return Block([(self._clock.monotonic() - start) * 1e3], [start], hidden=True)


class EventsTimer:
    """CUDA events around each call, in blocks of at most `block_ms` of work after a rest of `rest_ms`.

    The rest keeps clock and power those of a burst. A block is issued whole behind a spin kernel, so that no call
    waits for its launch; `unhidden` is flagged where that could not be had. `cache` cold reads 256 MB before each
    call, hot reads nothing. `call_ms` is an estimate of one call, which sets the number of calls of a block.
    """

    name = "events"

    def __init__(
        self,
        framework: Framework,
        call: Callable[[], Any],
        clock: Clock,
        *,
        call_ms: float,
        cache: str,
        block_ms: float,
        rest_ms: float,
    ) -> None:
        self._framework, self._call, self._clock = framework, call, clock
        self._cold, self._rest_s = cache == "cold", rest_ms / 1e3
        self.flags: set[str] = set()
        if call_ms > _LONG_MS:
            self.flags.add("long_call")
        self._lead = 0 if call_ms > _VERY_LONG_MS else 1 if call_ms > _LONG_MS else _LEAD_CALLS
        flush_ms = self._flush_ms() if self._cold else 0.0
        fits = int(block_ms / (call_ms + flush_ms + 1e-3)) - self._lead
        self._calls = 1 if call_ms > _LONG_MS else max(1, min(fits, _MOST_CALLS))
        self._blocker_ms = _FIRST_BLOCKER_MS
        self._events = [(framework.event(), framework.event()) for _ in range(self._calls)]

    def block(self) -> Block:
        """One rest and one block; tries again behind a longer blocker, with fewer calls, while launches do not hide.

        A call that waits for the device itself never hides: after the first failure nothing more is tried.
        """
        for _ in range(1 if "unhidden" in self.flags else _ATTEMPTS):
            block = self._attempt()
            if block.hidden:
                return block
            self._blocker_ms = min(2 * self._blocker_ms, _LONGEST_BLOCKER_MS)
            self._calls = max(1, self._calls // 2)
        self.flags.add("unhidden")
        self._blocker_ms = _FIRST_BLOCKER_MS
        return block

    def _attempt(self) -> Block:
        fw, clock = self._framework, self._clock
        fw.synchronize()
        clock.sleep(self._rest_s)
        starts = []
        issued = clock.monotonic()
        fw.spin(self._blocker_ms)
        for _ in range(self._lead):
            if self._cold:
                fw.flush_cache()
            self._call()
        events = self._events[: self._calls]
        for before, after in events:
            if self._cold:
                fw.flush_cache()
            starts.append(clock.monotonic())
            before.record()
            self._call()
            after.record()
        hidden = not events[0][0].reached()
        host_ms = (clock.monotonic() - issued) * 1e3
        fw.synchronize()
        # The next blocker covers this block's launches with room to spare, and is no longer than it must be.
        if hidden:
            self._blocker_ms = min(max(host_ms * 1.5, 0.2), _LONGEST_BLOCKER_MS)
        return Block([before.ms_until(after) for before, after in events], starts, hidden)

    def _flush_ms(self) -> float:
        """What one flush takes, as the median of five."""
        fw = self._framework
        fw.flush_cache()
        times = []
        for _ in range(5):
            before, after = fw.event(), fw.event()
            before.record()
            fw.flush_cache()
            after.record()
            fw.synchronize()
            times.append(before.ms_until(after))
        return sorted(times)[2]
