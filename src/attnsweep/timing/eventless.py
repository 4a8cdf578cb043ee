"""A call's timers on a GPU whose framework has no events: CUPTI's times of its kernels, else the host's clock."""

from __future__ import annotations

import sys

from attnsweep.timing import load
from attnsweep.timing.cupti import CuptiFailed, Tracer, busy_ms
from attnsweep.timing.on_gpu import ALONE_MS, OnGpu
from attnsweep.timing.subject import Measured
from attnsweep.timing.timers import LONG_MS, HostTimer, KernelTimer, Uncountable, shape_of

#: Calls traced to see whether the GPU waits for launches, at most.
_MOST_TRACED = 1000


class ByKernels(OnGpu):
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
        if self.call_ms > ALONE_MS:
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
            raise CuptiFailed("none can be seen (unproven_reason says why)")
        cache, flush_ms = self.options["cache"], 0.0
        if cache == "cold":
            self.framework.flush_cache()  # compiles what reads
            flush_ms = busy_ms(self.tracer.trace(self.framework.flush_cache))
        shape = shape_of(self.call_ms, flush_ms, self.options["block_ms"], self.options["rest_ms"])
        return KernelTimer(self.framework, self.subject.call, self.clock, self.tracer, shape=shape, cache=cache)
