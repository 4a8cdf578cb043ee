"""What a line plot shows on its y axis: latency, a rate or memory, and which of them a table has."""

from __future__ import annotations

from dataclasses import dataclass

from attnsweep.report.aggregate import Measurement
from attnsweep.report.sections import CaseRow

#: Axis values with a peak of memory from which on there is a plot of it.
ENOUGH = 3


@dataclass(frozen=True)
class Measure:
    """What a line plot shows on its y axis, computed from a measurement in units of `scale`."""

    kind: str
    axis: str
    scale: float
    log: bool

    @property
    def timed(self) -> bool:
        """Whether it depends on the latency."""
        return self.kind != "memory"

    def value(self, one: Measurement, latency_ms: float | None) -> float | None:
        """The measure at a latency (the median, or an end of its interval)."""
        if latency_ms is None or latency_ms <= 0:
            return None
        if not self.timed:
            return one.memory("peak_memory_bytes")
        if self.kind == "latency":
            return latency_ms
        amount = one.number("bytes" if self.kind == "bandwidth" else "flops")
        rate = 0.0 if amount is None else amount / (latency_ms * 1e-3) / self.scale
        return rate if rate > 0 else None


def measures_of(cases: list[CaseRow], labels: list[str]) -> list[Measure]:
    """What there are line plots of for these cases and labels."""
    return [Measure("latency", "latency (ms)", 1.0, log=True), _rate(cases), *_memory(cases, labels)]


def _memory(cases: list[CaseRow], labels: list[str]) -> list[Measure]:
    """Peak memory, where it is known at ENOUGH axis values for a line to say how it grows; else nothing."""
    known = {
        case.axis_value
        for case in cases
        for text in labels
        if text in case.ranked and case.ranked[text].memory("peak_memory_bytes") is not None
    }
    return [Measure("memory", "peak memory of a call", 1.0, log=True)] if len(known) >= ENOUGH else []


def _rate(cases: list[CaseRow]) -> Measure:
    """Bandwidth where memory bounds most measurements, else arithmetic, in the unit that reads best.

    Where the device's peaks are unknown, a case of under 10 operations a byte counts as bound by memory.
    """
    bounds, best = [], {"bytes": 0.0, "flops": 0.0}
    for case in cases:
        for one in case.ranked.values():
            flops, moved = one.number("flops"), one.number("bytes")
            guess = ["memory"] if flops is not None and moved and flops / moved < 10 else ["compute"]
            bounds += one.texts("bound") or guess
            for column in best:
                best[column] = max(best[column], one.per_second(column) or 0.0)
    if bounds.count("memory") * 2 > len(bounds):
        return Measure("bandwidth", "GB/s (compulsory bytes / latency)", 1e9, log=False)
    if best["flops"] < 1e12:
        return Measure("throughput", "GFLOP/s", 1e9, log=False)
    return Measure("throughput", "TFLOP/s", 1e12, log=False)
