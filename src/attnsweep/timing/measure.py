"""From a call to the record's latency columns, by the timers that its device and framework have."""

from __future__ import annotations

from typing import Any, Optional

from attnsweep.frameworks import Framework
from attnsweep.timing import contention
from attnsweep.timing.cupti import Tracer
from attnsweep.timing.eventless import ByKernels
from attnsweep.timing.on_gpu import OnGpu
from attnsweep.timing.sampling import interval_rule, sample
from attnsweep.timing.subject import Measured, Subject
from attnsweep.timing.timers import Clock, HostTimer


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
    kind = OnGpu if framework.device_events else ByKernels
    return kind(framework, subject, clock, options, tracer).measure(primary)


def _on_cpu(framework: Framework, subject: Subject, clock: Clock, options: dict[str, Any]) -> Measured:
    waited, begin = contention.waited_s(), clock.monotonic()
    measured = Measured(sample(HostTimer(framework, subject.call, clock), clock, interval_rule(options)), subject.call)
    end = clock.monotonic()
    measured.flags = set(measured.columns.pop("flags"))
    if contention.shared(waited, contention.waited_s(), end - begin):
        measured.flags.add("contended")
    measured.columns["host_ms"] = measured.columns["latency_ms"]
    measured.windows["burst"] = [begin, end]
    return measured
