"""A call's timers on a GPU: the primary one until it is content, some blocks of the others, then the load."""

from __future__ import annotations

import math
import sys
from typing import Any, Optional

from attnsweep.errors import GraphUnsupported
from attnsweep.frameworks import Framework
from attnsweep.timing import load, smclock
from attnsweep.timing.cupti import CuptiFailed, Tracer
from attnsweep.timing.rotation import Rotation
from attnsweep.timing.sampling import beside, interval_rule, sample
from attnsweep.timing.smclock import SmClock
from attnsweep.timing.statistics import median
from attnsweep.timing.stopping import SettleRule, SteadyRule
from attnsweep.timing.subject import Call, Measured, Subject
from attnsweep.timing.timers import (
    LONG_MS,
    Clock,
    EventsTimer,
    GraphTimer,
    HostTimer,
    KernelTimer,
    Timer,
    Uncountable,
    flush_ms,
    shape_of,
)

#: Calls of the host's clock beside the primary timer, and the longest they may take together.
_HOST_CALLS, _HOST_S = 10, 0.1

#: A call above this is a load of its own: no other timer and no load is run beside it.
ALONE_MS = 1000.0

#: How often a call's length is estimated at most.
_ESTIMATES = 3

#: The settle gate looks at no more blocks than this, and at no more than last about so long.
_SETTLE_BLOCKS, _SETTLE_MS = 8, 500.0


class OnGpu:
    """The timers of one call, by CUDA events or a graph of it."""

    def __init__(
        self, framework: Framework, subject: Subject, clock: Clock, options: dict[str, Any], tracer: Optional[Tracer]
    ) -> None:
        self.framework, self.subject, self.clock, self.options, self.tracer = (
            framework,
            subject,
            clock,
            options,
            tracer,
        )
        self.call_ms = self._estimate()
        self.sm_clock: SmClock = smclock.of(framework.stream(), framework.sm_count())
        self.rotation = Rotation(framework, subject, options["cache"])

    def _estimate(self) -> float:
        """Milliseconds of one call."""
        return estimate(self.framework, self.subject.call, self.subject.warm_ms)

    def measure(self, primary: str) -> Measured:
        """All of it."""
        events = self._events()
        flags: set[str] = set()
        graph: GraphTimer | None = None
        # A long call's launch is nothing beside it: a graph says nothing new.
        if primary == "graph" or self.call_ms <= LONG_MS:
            try:
                graph = self._graph()
            except GraphUnsupported as error:
                print(f"attnsweep: no graph of it: {error}", file=sys.stderr)
                if primary == "graph":
                    flags.add("graph_unsupported")
        timer: Timer = graph if graph is not None and primary == "graph" else events
        timed = graph.last if graph is not None and timer is graph else self.subject.call
        if timer is events and self.call_ms > LONG_MS:
            flags.add("long_call")
        measured = self._burst(timer, timed, flags)
        columns = measured.columns
        if self.call_ms > ALONE_MS:
            return measured
        for other in (events, graph):
            if other is not None and other is not timer:
                columns[f"{other.name}_ms"] = beside(other)
        columns["kernel_ms"] = self._kernel(events)
        columns["host_ms"] = self._host()
        self._sustain(measured, graph if timer is graph else None)
        return measured

    def _burst(self, timer: Timer, timed: Call, flags: set[str]) -> Measured:
        """The columns by the primary timer; `timed` is the call that it times."""
        begin = self.clock.monotonic()
        most = max(2, min(_SETTLE_BLOCKS, int(_SETTLE_MS / self.call_ms)))
        settle = SettleRule(tolerance=self.options["target"], most=most)
        columns = sample(timer, self.clock, interval_rule(self.options), settle, self.framework.device_allocations)
        measured = Measured(columns, timed, {"burst": [begin, self.clock.monotonic()]}, flags)
        measured.flags |= set(columns.pop("flags"))
        columns.update({"events_ms": None, "graph_ms": None, f"{timer.name}_ms": columns["latency_ms"]})
        return measured

    def _events(self) -> EventsTimer:
        flushes_ms = flush_ms(self.framework) if self.options["cache"] == "cold" else 0.0
        return EventsTimer(
            self.framework,
            self.subject.call,
            self.clock,
            shape=shape_of(self.call_ms, flushes_ms, self.options["block_ms"], self.options["rest_ms"]),
            cache=self.options["cache"],
            sm_clock=self.sm_clock,
        )

    def _graph(self) -> GraphTimer:
        unusable: tuple[type[BaseException], ...] = (GraphUnsupported, *self.framework.out_of_memory)
        try:
            return GraphTimer(
                self.framework,
                self.rotation.calls(),
                self.clock,
                call_ms=self.call_ms,
                block_ms=self.options["block_ms"],
                rest_ms=self.options["rest_ms"],
                sm_clock=self.sm_clock,
            )
        except unusable as error:
            self.rotation.forget()
            raise GraphUnsupported(str(error)) from error

    def _kernel(self, events: EventsTimer) -> float | None:
        if self.tracer is None:
            return None
        try:
            timer = KernelTimer(
                self.framework,
                self.subject.call,
                self.clock,
                self.tracer,
                shape=events.shape,
                cache=self.options["cache"],
            )
            return beside(timer)
        except (Uncountable, CuptiFailed):
            return None

    def _host(self) -> float:
        host = HostTimer(self.framework, self.subject.call, self.clock)
        deadline = self.clock.monotonic() + _HOST_S
        walls = host.block().samples_ms
        while len(walls) < _HOST_CALLS and self.clock.monotonic() < deadline:
            walls += host.block().samples_ms
        return median(walls)

    def _sustain(self, measured: Measured, graph: GraphTimer | None) -> None:
        """The load, where it is asked for and memory suffices."""
        if self.options["sustained"]:
            try:
                self._load(measured, graph)
            except self.framework.out_of_memory:
                # What was timed before stays: it is the same whether or not copies of the inputs fit beside it
                measured.flags.add("no_room")

    def _load(self, measured: Measured, graph: GraphTimer | None) -> None:
        """The sustained columns: by graph replays where that is the primary timer, else call after call."""
        if graph is not None:
            steps, per_step = [graph.graph.replay], graph.calls
        else:
            try:
                steps, per_step = self.rotation.calls(), 1
            except GraphUnsupported:
                steps, per_step = [self.subject.call], 1
            if len(steps) == 1:  # a second backward pass on the same inputs would hold a second graph
                steps = [self.subject.call]
        columns, window = load.run(
            self.framework,
            steps,
            self.clock,
            _steady(self.options),
            self.sm_clock,
            step_ms=self.call_ms * per_step,
            calls_per_step=per_step,
        )
        measured.flags |= set(columns.pop("flags"))
        measured.columns.update(columns)
        if window is not None:
            measured.windows["load"] = window


def _steady(options: dict[str, Any]) -> SteadyRule:
    return SteadyRule(
        soak_s=options["soak_s"], window_s=options["window_s"], steady=options["steady"], cap_s=options["load_cap_s"]
    )


def estimate(framework: Framework, call: Call, warm_ms: float) -> float:
    """Milliseconds of one call on the device, at least a microsecond: five behind one pair of events, or `warm_ms`
    where that is long. What is above `warm_ms`, for which the host waited for one call, is read up to three times and
    the least taken: the host was held up between two launches.
    """
    if warm_ms > 20:
        return warm_ms
    least = math.inf
    for _ in range(_ESTIMATES):
        least = min(least, _five(framework, call))
        if least <= warm_ms:
            break
    return max(least, 1e-3)


def _five(framework: Framework, call: Call) -> float:
    """Milliseconds of one of five calls behind one pair of events."""
    before, after = framework.event(), framework.event()
    framework.synchronize()
    framework.spin(1.0)
    before.record()
    for _ in range(5):
        call()
    after.record()
    framework.synchronize()
    return before.ms_until(after) / 5
