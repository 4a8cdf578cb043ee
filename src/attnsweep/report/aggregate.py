"""Several processes of one cell become one measurement with an interval."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from statistics import median

from attnsweep.errors import Status
from attnsweep.flags import NOT_RANKED
from attnsweep.report.kernel_names import short_names
from attnsweep.report.labels import Label
from attnsweep.report.load import Row
from attnsweep.report.text import line
from attnsweep.timing.statistics import median_interval

#: From so many processes on, the interval is an order statistic over them: six are the fewest with 95%.
ENOUGH = 6

#: So many processes show how processes differ; a side with fewer wins or loses only beyond FLOOR.
MEASURED = 3

#: Fraction of a latency below which a difference is no win where the variation between processes is not known.
FLOOR = 0.02

#: The same where calls are timed by the wall clock of a CPU: of 406 pairs of processes of one cell, none contended,
#: all were within it (docs/decisions.md).
HOST_FLOOR = 0.5

#: How far apart, in ms for each kernel, the two levels are at most that a call of several kernels has in a CUDA graph.
#: A process is on one of them, whatever the implementation (docs/measurement.md, Two levels of a graph).
LEVEL_MS = 0.45e-3

#: By how much longer at most a short call takes in a graph than CUPTI's times of its kernels say, in ms for each of
#: several, since what lies between two is in the graph's time alone; and by how much less it was seen to take
#: (docs/measurement.md, Two levels of a graph).
GAP_MS = 1e-3
EXCESS_MS = 0.7e-3

#: The fewest kernels of which these hold: so many are taken for granted where they could not be seen.
_SEVERAL = 2

#: How the mark of a result begins that is not in the case's own precision; its class follows.
PRECISION = "precision "

#: The columns with the interval within a process, for each latency that has one: those by the primary timer.
_ENDS = {
    "latency_ms": ("latency_ci_low_ms", "latency_ci_high_ms"),
    "sustained_ms": ("sustained_ci_low_ms", "sustained_ci_high_ms"),
}

#: What each kind of interval is, for the reader.
INTERVALS = {
    "process": "95% interval of the median within the one process",
    "stretched": "the widest 95% interval within a process, stretched to the range of the medians",
    "order": "95% interval of the median over processes, by order statistics",
    "range": "the range of the processes' medians; the processes gave no interval",
    "none": "one process that gave no interval",
}


@dataclass(frozen=True)
class Interval:
    """Where the latency lies, in ms; `kind` is a key of INTERVALS."""

    low: float
    high: float
    kind: str

    def overlaps(self, other: Interval) -> bool:
        """Whether the two have a point in common."""
        return self.low <= other.high and other.low <= self.high


@dataclass(frozen=True)
class Measurement:
    """What became of one label in one case.

    `latency_ms` is the median over the processes that are ok, by the case's timer, else None; `ranked` says
    whether it may be compared. `rows` are the records behind it, `ok` counts those with a latency. `several` is how
    many kernels a call has, 0 where it is one or the timer leaves nothing open of several; `by_kernel` says that the
    latency is CUPTI's times of them.
    """

    label: Label
    status: Status
    latency_ms: float | None
    interval: Interval | None
    ranked: bool
    ok: int
    rows: tuple[Row, ...]
    marks: tuple[str, ...]
    several: int = 0
    by_kernel: bool = False

    @property
    def precision(self) -> str:
        """The quantised classes that it was computed in; empty for the case's own precision."""
        return ", ".join(mark.removeprefix(PRECISION) for mark in self.marks if mark.startswith(PRECISION))

    @property
    def kernels(self) -> list[str]:
        """The short names of the kernels that ran, each once."""
        return short_names(name for row in self.rows for name in row.get("kernel_names") or [])

    @property
    def configs(self) -> list[str]:
        """What Triton's autotuner chose for each kernel, in whatever process, each once."""
        return list(dict.fromkeys(line(one) for row in self.rows for one in row["autotuned_configs"] or []))

    def number(self, column: str) -> float | None:
        """Median of `column` over the records that have it."""
        values = [row[column] for row in self.rows if row[column] is not None]
        return float(median(values)) if values else None

    def per_second(self, column: str) -> float | None:
        """`column` (flops or bytes) per second of this latency."""
        amount = self.number(column)
        return None if amount is None or self.latency_ms is None else amount / (self.latency_ms * 1e-3)

    def texts(self, column: str) -> list[str]:
        """The different texts in `column`, in order of appearance."""
        return list(dict.fromkeys(str(row[column]) for row in self.rows if row[column] not in (None, "")))


def measure(label: Label, rows: list[Row], column: str, extra: tuple[str, ...] = ()) -> Measurement:
    """The records of one label in one case as one measurement; `column` is latency_ms, kernel_ms or sustained_ms.

    Not ranked is what has no ok process, a process that was incorrect, or one with a flag of NOT_RANKED. `extra`
    are marks beyond the records' own.
    """
    ok = [row for row in rows if row["status"] == Status.OK and _positive(row[column])]
    failed = Counter(str(row["status"]) for row in rows if row["status"] != Status.OK)
    flags = dict.fromkeys(flag for row in rows for flag in row["flags"] or [])
    marks = [str(flag) for flag in flags]
    classes = dict.fromkeys(row["precision_class"] for row in rows)
    marks += [f"{PRECISION}{one}" for one in classes if one not in (None, "", "native")]
    if ok and failed:
        marks.append("partial")
    if len({row["impl_version"] for row in ok}) > 1:
        marks.append("versions")
    if len({tuple(row["autotuned_configs"]) for row in ok if row["autotuned_configs"]}) > 1:
        marks.append("configs")
    marks += extra
    if Status.INCORRECT in failed:
        status = Status.INCORRECT
    elif ok:
        status = Status.OK
    else:
        known = [Status(name) for name, _ in failed.most_common() if name in set(Status)]
        status = known[0] if known else Status.ERROR
    if status is not Status.OK:
        return Measurement(label, status, None, None, False, len(ok), tuple(rows), tuple(marks))
    medians = [float(row[column]) for row in ok]
    within = [_within(row, *_ENDS[column]) for row in ok] if column in _ENDS else []
    interval = _interval(medians, [one for one in within if one is not None])
    ranked = not any(flag in flags for flag in NOT_RANKED)
    timers = {row["timer"] for row in ok}
    by_kernel = column == "kernel_ms" or (column == "latency_ms" and "kernel" in timers)
    # A load of what is timed by a graph is replays of it, and one of what CUPTI times is not its times.
    several = _several(ok) if by_kernel or (column in _ENDS and "graph" in timers) else 0
    return Measurement(
        label, status, median(medians), interval, ranked, len(ok), tuple(rows), tuple(marks), several, by_kernel
    )


def beats(fast: Measurement, slow: Measurement) -> bool:
    """Whether `fast` may be said to be faster than `slow`: the one rule behind wins, ties, bold and verdicts.

    The intervals must be disjoint, and the difference above what `_floor` says and what the timer leaves open.
    """
    return _apart(fast, slow, max(_floor(fast, slow), open_ms(fast, slow) / (fast.latency_ms or math.inf)))


def left_open(fast: Measurement, slow: Measurement) -> bool:
    """Whether `fast` would beat `slow` but for what the timer leaves open."""
    return _apart(fast, slow, _floor(fast, slow)) and not beats(fast, slow)


def open_ms(fast: Measurement, slow: Measurement) -> float:
    """The difference in ms that the timer leaves open at most between two calls, of which one seems to be faster.

    By CUPTI's times, which may be below what the faster takes and above what the slower does; by a graph its level,
    on which one of both may be alone.
    """
    if fast.by_kernel or slow.by_kernel:
        return GAP_MS * fast.several + EXCESS_MS * slow.several
    return LEVEL_MS * max(fast.several, slow.several)


def _apart(fast: Measurement, slow: Measurement, floor: float) -> bool:
    """Whether the intervals are disjoint, and `slow` takes longer than `fast` by more than the fraction `floor`."""
    if fast.latency_ms is None or slow.latency_ms is None or fast.interval is None or slow.interval is None:
        return False
    return not fast.interval.overlaps(slow.interval) and slow.latency_ms > fast.latency_ms * (1 + floor)


def sure(one: Measurement) -> bool:
    """Whether the variation between processes is known: there are MEASURED of them, with an interval of their own."""
    return one.ok >= MEASURED and one.interval is not None and one.interval.kind not in ("none", "range")


def _floor(fast: Measurement, slow: Measurement) -> float:
    """The fraction below which a difference is no win for want of processes: none where both sides are `sure`, else
    FLOOR.

    By the wall clock of a CPU it is HOST_FLOOR, and where either side was contended nothing is enough: what shares the
    CPU with one process need not share it with the other, and made them differ by any factor.
    """
    if sure(fast) and sure(slow):
        return 0.0
    if not any("host" in one.texts("timer") for one in (fast, slow)):
        return FLOOR
    return math.inf if any("contended" in one.marks for one in (fast, slow)) else HOST_FLOOR


def unbeaten(ranked: dict[str, Measurement]) -> tuple[str, ...]:
    """Of measurements by label, fastest first, the first and those that it does not beat."""
    return tuple(text for text, one in ranked.items() if not beats(next(iter(ranked.values())), one))


def _several(ok: list[Row]) -> int:
    """How many kernels a call has; 0 where it is one."""
    kernels = max((row["kernel_count"] for row in ok if row["kernel_count"] is not None), default=_SEVERAL)
    return kernels if kernels >= _SEVERAL else 0


def _positive(value: float | None) -> bool:
    return value is not None and math.isfinite(value) and value > 0


def _within(row: Row, lower: str, upper: str) -> tuple[float, float] | None:
    low, high = row[lower], row[upper]
    return (low, high) if low is not None and high is not None and low <= high else None


def _interval(medians: list[float], within: list[tuple[float, float]]) -> Interval:
    """The interval of the median, from the processes' medians and the intervals within them."""
    over = median_interval(medians)
    if over is not None:
        return Interval(*over, "order")
    if not within:
        kind = "range" if len(medians) > 1 else "none"
        return Interval(min(medians), max(medians), kind)
    low, high = max(within, key=lambda one: one[1] - one[0])
    kind = "stretched" if len(medians) > 1 else "process"
    return Interval(min(low, *medians), max(high, *medians), kind)
