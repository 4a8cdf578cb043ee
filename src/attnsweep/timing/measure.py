"""From a call to the record's latency columns: estimate, settle, sample until the rule says stop, then the rest."""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass, field, replace
from typing import Any, Callable, Optional

from attnsweep.errors import GraphUnsupported
from attnsweep.frameworks import Framework
from attnsweep.inputs import Inputs
from attnsweep.timing import contention, load, smclock
from attnsweep.timing.cupti import CuptiFailed, Tracer, busy_ms
from attnsweep.timing.smclock import SmClock
from attnsweep.timing.statistics import median, quantile
from attnsweep.timing.stopping import IntervalRule, SettleRule, SteadyRule
from attnsweep.timing.timers import (
    LONG_MS,
    Clock,
    EventsTimer,
    GraphTimer,
    HostTimer,
    KernelTimer,
    Timer,
    Uncountable,
    shape_of,
)

#: Calls of the host's clock beside the primary timer, and the longest they may take together.
_HOST_CALLS, _HOST_S = 10, 0.1

#: Blocks of the timers beside the primary one.
_BESIDE_BLOCKS = 4

#: A call above this is a load of its own: no other timer and no load is run beside it.
_ALONE_MS = 1000.0

#: Copies of the inputs together are this many times L2, so that none is left there when its turn comes again.
_TIMES_L2 = 5
_MOST_COPIES = 1024

#: Calls traced to see whether the GPU waits for launches, at most.
_MOST_TRACED = 1000

#: The settle gate looks at no more blocks than this, and at no more than last about so long.
_SETTLE_BLOCKS, _SETTLE_MS = 8, 500.0

Call = Callable[[], Any]


@dataclass(frozen=True)
class Subject:
    """What is timed: `call` on `given`, `another` the same call on other inputs, `warm_ms` the wall clock of one."""

    call: Call
    given: Inputs
    another: Callable[[Inputs], Call]
    warm_ms: float


@dataclass
class Measured:
    """Columns and flags; `windows` by regime, [begin, end] in s on the clock; `timed`, the very call that was timed."""

    columns: dict[str, Any]
    timed: Call
    windows: dict[str, list[float]] = field(default_factory=dict)
    flags: set[str] = field(default_factory=set)


def latency(
    framework: Framework,
    subject: Subject,
    clock: Clock,
    options: dict[str, Any],
    primary: str,
    tracer: Optional[Tracer],
) -> Measured:
    """The latency columns of a warm call; `options` are conf's timing, `primary` the case's timer: events, graph, or
    kernel where the framework has no events.

    On a CPU the only timer is `host`.
    """
    if not framework.on_gpu:
        return _on_cpu(framework, subject, clock, options)
    kind = _OnGpu if framework.device_events else _ByKernels
    return kind(framework, subject, clock, options, tracer).measure(primary)


def _on_cpu(framework: Framework, subject: Subject, clock: Clock, options: dict[str, Any]) -> Measured:
    waited, begin = contention.waited_s(), clock.monotonic()
    measured = Measured(sample(HostTimer(framework, subject.call, clock), clock, _rule(options)), subject.call)
    end = clock.monotonic()
    measured.flags = set(measured.columns.pop("flags"))
    if contention.shared(waited, contention.waited_s(), end - begin):
        measured.flags.add("contended")
    measured.columns["host_ms"] = measured.columns["latency_ms"]
    measured.windows["burst"] = [begin, end]
    return measured


class _OnGpu:
    """One call's timers on a GPU: the primary one until it is content, some blocks of the others, then the load."""

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
        self.blocks = {"block_ms": options["block_ms"], "rest_ms": options["rest_ms"], "sm_clock": self.sm_clock}
        self.inputs: list[Inputs] = []

    def _estimate(self) -> float:
        """Milliseconds of one call."""
        return estimate(self.framework, self.subject.call, self.subject.warm_ms)

    def measure(self, primary: str) -> Measured:
        """All of it."""
        events = EventsTimer(
            self.framework,
            self.subject.call,
            self.clock,
            call_ms=self.call_ms,
            cache=self.options["cache"],
            **self.blocks,
        )
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
        measured = self._burst(timer, timed, flags)
        columns = measured.columns
        if self.call_ms > _ALONE_MS:
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
        columns = sample(
            timer, self.clock, _rule(self.options), SettleRule(tolerance=self.options["target"], most=most)
        )
        measured = Measured(columns, timed, {"burst": [begin, self.clock.monotonic()]}, flags)
        measured.flags |= set(columns.pop("flags"))
        columns.update({"events_ms": None, "graph_ms": None, f"{timer.name}_ms": columns["latency_ms"]})
        return measured

    def _graph(self) -> GraphTimer:
        unusable: tuple[type[BaseException], ...] = (GraphUnsupported, *self.framework.out_of_memory)
        try:
            return GraphTimer(self.framework, self._rotation(), self.clock, call_ms=self.call_ms, **self.blocks)
        except unusable as error:
            self.inputs = []
            raise GraphUnsupported(str(error)) from error

    def _rotation(self) -> list[Call]:
        """The call over copies of its inputs that together exceed L2, the given ones last; over those alone where the
        cache is to be hot. The copies are made once; the calls each time, since a backward pass runs on the stream of
        its forward pass, which is another in a capture.
        """
        if not self.inputs:
            self.inputs = self._copies()
        return [self.subject.another(inputs) for inputs in self.inputs]

    def _copies(self) -> list[Inputs]:
        fw, given = self.framework, self.subject.given
        size, copies = fw.nbytes(given.all), 1
        if self.options["cache"] == "cold":
            copies = math.ceil(_TIMES_L2 * fw.l2_bytes() / size)
            if copies > _MOST_COPIES or (copies - 1) * size > fw.free_bytes() / 4:
                raise GraphUnsupported(f"{copies} copies of the inputs that evict each other from L2 are too many")
        return [*(duplicate(fw, given) for _ in range(copies - 1)), given]

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
                steps, per_step = self._rotation(), 1
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


class _ByKernels(_OnGpu):
    """One call's timers on a GPU whose framework has no events: CUPTI's times of its kernels, which need none.

    Without CUPTI, or where a call does not run the same number of kernels each time, the host's clock is what is left:
    `timer` says so, and that nothing is evicted before a call.
    """

    def _estimate(self) -> float:
        warm_ms = self.subject.warm_ms
        if self.tracer is None or warm_ms > 20:
            return warm_ms
        try:
            return max(busy_ms(self.tracer.trace(self.subject.call)), 1e-3)
        except CuptiFailed:
            return warm_ms

    def measure(self, primary: str) -> Measured:
        """All of it."""
        flags = {"long_call"} if self.call_ms > LONG_MS else set()
        try:
            measured = self._burst(self._kernels(), self.subject.call, flags)
        except (Uncountable, CuptiFailed) as error:
            print(f"attnsweep: its kernels cannot be timed: {error}", file=sys.stderr)
            host = HostTimer(self.framework, self.subject.call, self.clock)
            measured = self._burst(host, self.subject.call, flags)
            measured.columns["cache"] = "hot"
        if self.call_ms > _ALONE_MS:
            return measured
        measured.columns["host_ms"] = self._host()
        # A dispatching thread hides from the host whether launches keep up; CUPTI sees it
        if self.options["sustained"] and self.tracer is not None:
            if self._starved(self.tracer):
                measured.flags.add("launch_bound")
            else:
                self._sustain(measured, None)
        return measured

    def _starved(self, tracer: Tracer) -> bool:
        """Whether the GPU waits for launches while calls are issued back to back."""
        count = max(2, min(round(load.STRETCH_MS / self.call_ms), _MOST_TRACED))

        def calls() -> None:
            for _ in range(count):  # no list of them: the memory of all their results would be needed
                self.subject.call()

        try:
            seen = tracer.trace(calls)
        except CuptiFailed:
            return True
        if not seen:
            return True
        span_ms = (max(one.end for one in seen) - seen[0].start) / 1e6
        return busy_ms(seen) < (1 - load.STARVED) * span_ms

    def _kernels(self) -> KernelTimer:
        """The timer; raises Uncountable and CuptiFailed."""
        if self.tracer is None:
            raise CuptiFailed("CUPTI is not there")
        cache, flush_ms = self.options["cache"], 0.0
        if cache == "cold":
            self.framework.flush_cache()  # compiles what reads
            flush_ms = busy_ms(self.tracer.trace(self.framework.flush_cache))
        shape = shape_of(self.call_ms, flush_ms, self.options["block_ms"], self.options["rest_ms"])
        return KernelTimer(self.framework, self.subject.call, self.clock, self.tracer, shape=shape, cache=cache)


def duplicate(framework: Framework, given: Inputs) -> Inputs:
    """The same inputs in other memory."""
    names = ("q", "k", "v", "bias", "cotangent")
    copies = {name: getattr(given, name) for name in names if getattr(given, name) is not None}
    return replace(given, **{name: framework.copy(array) for name, array in copies.items()})


def beside(timer: Timer) -> float | None:
    """The median of some blocks of a timer that is not the primary one; None where its launches did not hide."""
    blocks = [timer.block() for _ in range(_BESIDE_BLOCKS)]
    if not all(block.hidden for block in blocks):
        return None
    return median([median(block.samples_ms) for block in blocks])


def sample(timer: Timer, clock: Clock, rule: IntervalRule, settle: SettleRule | None = None) -> dict[str, Any]:
    """Blocks until the rule is content. `latency_ms` is the median over block medians, its interval's centre.

    Blocks before `settle` is content do not count; they are kept, with -1 for their block.
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
    skipped_blocks = len(clocks)
    while not rule.done():
        rule.add(block(len(rule.block_medians)), clock.monotonic() - settled)
    interval = rule.interval()
    flags = timer.flags | ({"unstable"} if rule.why() == "time" else set())
    if settle is not None and not settle.settled():
        flags.add("unsettled")
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


def _rule(options: dict[str, Any]) -> IntervalRule:
    return IntervalRule(
        target=options["target"],
        min_blocks=options["min_blocks"],
        min_time_s=options["min_time_s"],
        time_cap_s=options["time_cap_s"],
        max_samples=options["max_samples"],
    )


def _steady(options: dict[str, Any]) -> SteadyRule:
    return SteadyRule(
        soak_s=options["soak_s"], window_s=options["window_s"], steady=options["steady"], cap_s=options["load_cap_s"]
    )


def estimate(framework: Framework, call: Call, warm_ms: float) -> float:
    """Milliseconds of one call on the device, at least a microsecond: five behind one pair of events, or `warm_ms`
    where that is long.
    """
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
    return max(before.ms_until(after) / 5, 1e-3)
