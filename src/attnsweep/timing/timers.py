"""Timers: each runs a block of calls and gives their durations; none knows when to stop.

`events` pairs CUDA events around each call, `graph` around a CUDA graph of many calls, `kernel` takes CUPTI's times of
the call's own kernels, all three in blocks after a rest; `host` is wall clock with synchronisation, the only one on a
CPU.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, Callable, Protocol, Sequence

from attnsweep.errors import GraphUnsupported
from attnsweep.frameworks import Framework
from attnsweep.timing.cupti import Activity, Tracer, busy_ms
from attnsweep.timing.smclock import NoSmClock, SmClock
from attnsweep.timing.statistics import median

#: Timed calls in one block at most: with its flush, events and kernels a call stays some ten entries of the launch
#: queue (1024 deep), so that a whole block can wait behind the blocker.
_MOST_CALLS = 24

#: Untimed calls at the start of a block: the first after a rest is slow.
_LEAD_CALLS = 2

#: Above these a block is one untimed and one timed call, then one timed call alone.
LONG_MS, _VERY_LONG_MS = 3.0, 10.0

#: How often a block is tried, behind a blocker of at first and at most so many milliseconds.
_ATTEMPTS, _FIRST_BLOCKER_MS, _LONGEST_BLOCKER_MS = 6, 1.0, 50.0

#: A graph holds calls for about this long, so that its own launch is nothing, and at most so many calls.
_REPLAY_MS, _MOST_CAPTURED = 2.0, 2048

#: How often a graph whose replay is too short is captured again with more calls.
_RECAPTURES = 3


@dataclass(frozen=True)
class Block:
    """Durations of a block's timed calls (ms), when each was issued (s on the clock), whether launches hid, and the SM
    clock meanwhile (MHz), where it is known."""

    samples_ms: list[float]
    starts_s: list[float]
    hidden: bool
    clock_mhz: float | None = None


class Clock(Protocol):
    """Monotonic time in seconds, and sleeping; tests give a fake one."""

    def monotonic(self) -> float:
        """Seconds since some point."""

    def sleep(self, seconds: float) -> None:
        """Wait."""


class Timer(Protocol):
    """Something that times blocks of calls."""

    name: str

    @property
    def flags(self) -> set[str]:
        """What a reader should know of the blocks so far."""

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


@dataclass(frozen=True)
class Shape:
    """How a block is made: untimed calls, timed calls, and the rest before them."""

    lead: int
    calls: int
    rest_s: float


def shape_of(call_ms: float, flush_ms: float, block_ms: float, rest_ms: float) -> Shape:
    """As many calls as fit into `block_ms`, flushes included, after two untimed ones; long calls alone."""
    lead = 0 if call_ms > _VERY_LONG_MS else 1 if call_ms > LONG_MS else _LEAD_CALLS
    fits = int(block_ms / (call_ms + flush_ms + 1e-3)) - lead
    return Shape(lead, 1 if call_ms > LONG_MS else max(1, min(fits, _MOST_CALLS)), rest_ms / 1e3)


class EventsTimer:
    """CUDA events around each call, in blocks of the given shape.

    The rest before each keeps clock and power those of a burst. A block is issued whole behind a spin kernel, so that
    no call waits for its launch; `unhidden` is flagged where that could not be had. `cache` cold reads 256 MB before
    each call, hot reads nothing.
    """

    name = "events"

    def __init__(
        self,
        framework: Framework,
        call: Callable[[], Any],
        clock: Clock,
        *,
        shape: Shape,
        cache: str,
        sm_clock: SmClock | None = None,
    ) -> None:
        self._framework, self._call, self._clock = framework, call, clock
        self._cold, self.shape = cache == "cold", shape
        self._sm_clock = sm_clock or NoSmClock()
        self.flags: set[str] = set()
        self._blocker_ms = _FIRST_BLOCKER_MS
        self._events = [(framework.event(), framework.event()) for _ in range(self.shape.calls)]

    def block(self) -> Block:
        """One rest and one block; while launches do not hide, tries again behind a longer blocker, and where that was
        not it, because the launch queue is full, with fewer calls as well.

        A call that waits for the device itself never hides: after the first failure nothing more is tried.
        """
        for attempt in range(1 if "unhidden" in self.flags else _ATTEMPTS):
            block = self._attempt()
            if block.hidden:
                return block
            if attempt:
                self.shape = replace(self.shape, calls=max(1, self.shape.calls // 2))
        self.flags.add("unhidden")
        self._blocker_ms = _FIRST_BLOCKER_MS
        return block

    def _attempt(self) -> Block:
        fw, clock, sm_clock = self._framework, self._clock, self._sm_clock
        fw.synchronize()
        clock.sleep(self.shape.rest_s)
        starts = []
        issued = clock.monotonic()
        fw.spin(self._blocker_ms)
        for _ in range(self.shape.lead):
            if self._cold:
                fw.flush_cache()
            self._call()
        events = self._events[: self.shape.calls]
        first = sm_clock.mark()
        for before, after in events:
            if self._cold:
                fw.flush_cache()
            starts.append(clock.monotonic())
            before.record()
            self._call()
            after.record()
        last = sm_clock.mark()
        hidden = not events[0][0].reached()
        host_ms = (clock.monotonic() - issued) * 1e3
        fw.synchronize()
        # The next blocker covers this block's launches with room to spare, and is no longer than it must be.
        self._blocker_ms = min(max(host_ms * 1.5, 0.2), _LONGEST_BLOCKER_MS)
        durations = [before.ms_until(after) for before, after in events]
        return Block(durations, starts, hidden, sm_clock.mhz(first, last))


class GraphTimer:
    """CUDA events around a graph of many calls: no launch is in it. A sample is a replay's time over its calls.

    `calls` are the same call over copies of the inputs that together exceed L2 (cold), or one call (hot); the graph
    goes round them for about 2 ms. A block is at most `block_ms` of replays, the first untimed, after a rest of
    `rest_ms`; `call_ms` is an estimate of one call. Raises GraphUnsupported where a call cannot be captured, or is so
    slow that one round is longer than a block.
    """

    name = "graph"

    def __init__(
        self,
        framework: Framework,
        calls: Sequence[Callable[[], Any]],
        clock: Clock,
        *,
        call_ms: float,
        block_ms: float,
        rest_ms: float,
        sm_clock: SmClock | None = None,
    ) -> None:
        if len(calls) > 1 and len(calls) * call_ms > block_ms:
            raise GraphUnsupported(f"{len(calls)} copies of the inputs, one call each, take longer than a block")
        self._framework, self._given = framework, list(calls)  # the inputs live as long as the graph
        self._capture(call_ms)
        replay_ms = self._replay_ms()
        for _ in range(_RECAPTURES):
            # A short replay: the estimate was the host's time, and the graph's own launch would be in the number
            if replay_ms >= _REPLAY_MS / 2 or self.calls + len(calls) > _MOST_CAPTURED:
                break
            self._capture(replay_ms / self.calls)
            replay_ms = self._replay_ms()
        self._timer = EventsTimer(
            framework,
            self.graph.replay,
            clock,
            shape=Shape(1, max(1, min(int(block_ms / replay_ms) - 1, _MOST_CALLS)), rest_ms / 1e3),
            cache="hot",  # the copies of the inputs have evicted each other, or nothing is to be
            sm_clock=sm_clock,
        )

    def _capture(self, call_ms: float) -> None:
        count = len(self._given)
        rounds = max(1, min(math.ceil(_REPLAY_MS / (count * call_ms)), _MOST_CAPTURED // count))
        self.calls = count * rounds
        self.graph = self._framework.capture(self._given * rounds)

    def _replay_ms(self) -> float:
        """Milliseconds of one replay, after one untimed."""
        before, after = self._framework.event(), self._framework.event()
        self.graph.replay()
        self._framework.synchronize()
        before.record()
        self.graph.replay()
        after.record()
        self._framework.synchronize()
        return before.ms_until(after)

    @property
    def flags(self) -> set[str]:
        """What a reader should know."""
        return self._timer.flags

    def last(self) -> Any:
        """Replay, and what the last of the captured calls returned."""
        self.graph.replay()
        return self.graph.result

    def block(self) -> Block:
        """One rest and one block of replays."""
        block = self._timer.block()
        return replace(block, samples_ms=[ms / self.calls for ms in block.samples_ms])


class KernelTimer:
    """CUPTI's times of the call's own kernels, copies and fills: how long at least one of them ran.

    Blocks are made as those of `events`, cold L2 included. What belongs to a call is told by counting: raises
    Uncountable where a call does not run the same number of kernels each time.
    """

    name = "kernel"

    def __init__(
        self,
        framework: Framework,
        call: Callable[[], Any],
        clock: Clock,
        tracer: Tracer,
        *,
        shape: Shape,
        cache: str,
    ) -> None:
        self._framework, self._call, self._clock, self._tracer = framework, call, clock, tracer
        self._cold, self._shape = cache == "cold", shape
        self.flags: set[str] = set()
        self._flushes = len(tracer.trace(framework.flush_cache)) if self._cold else 0
        self._kernels = len(tracer.trace(call))

    def block(self) -> Block:
        """One rest and one block."""
        shape = self._shape
        starts: list[float] = []

        def run() -> None:
            for _ in range(shape.lead + shape.calls):
                if self._cold:
                    self._framework.flush_cache()
                starts.append(self._clock.monotonic())
                self._call()

        self._framework.synchronize()
        self._clock.sleep(shape.rest_s)
        seen = self._tracer.trace(run)
        step = self._flushes + self._kernels
        if not self._kernels or len(seen) != step * len(starts):
            raise Uncountable(f"{len(seen)} activities in {len(starts)} calls of {self._kernels} kernels")
        each = [busy_ms(_part(seen, index, step, self._flushes)) for index in range(len(starts))]
        return Block(each[shape.lead :], starts[shape.lead :], hidden=True)


class Uncountable(Exception):
    """A call runs now more, now fewer kernels."""


def _part(seen: list[Activity], index: int, step: int, flushes: int) -> list[Activity]:
    """The activities of one call, without its flush."""
    return seen[index * step + flushes : (index + 1) * step]


def flush_ms(framework: Framework) -> float:
    """What one flush takes, as the median of five."""
    framework.flush_cache()
    times = []
    for _ in range(5):
        before, after = framework.event(), framework.event()
        before.record()
        framework.flush_cache()
        after.record()
        framework.synchronize()
        times.append(before.ms_until(after))
    return median(times)
