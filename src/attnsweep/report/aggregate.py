"""Several processes of one cell become one measurement with an interval."""

from __future__ import annotations

import math
import re
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

#: How Inductor names what it makes: triton_poi_fused_add_0 (pointwise), red, per, tem, ...; triton_ all of them where
#: TORCHINDUCTOR_UNIQUE_KERNEL_NAMES is 0.
_INDUCTORS = re.compile(r"triton_(?:[a-z]{3}_|$)")

#: How far apart, in ms for each kernel, the two levels are at most that a call has in a CUDA graph.
#: A process is on one of them, whatever the implementation; since protocol 4 most are on the same (docs/measurement.md,
#: Two levels of a graph).
LEVEL_MS = 0.45e-3

#: By how much longer at most a short call takes in a graph than CUPTI's times of its kernels say, in ms for each of
#: several, since what lies between two is in the graph's time alone; and by how much less it was seen to take
#: (docs/measurement.md, Two levels of a graph).
GAP_MS = 1.75e-3
EXCESS_MS = 0.75e-3

#: So many kernels are taken for granted where they could not be seen.
_UNSEEN = 2

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
class Time:
    """How long a call takes by one timer: the median over `processes`, in ms, and where it lies.

    `kernels` is of how many kernels the timer leaves something open: all of a call's, 0 where nothing; `by_kernel` says
    that these are CUPTI's times of them.
    """

    ms: float
    interval: Interval
    processes: int
    kernels: int = 0
    by_kernel: bool = False

    @property
    def sure(self) -> bool:
        """Whether the variation between processes is known: MEASURED of them are there, with intervals of their own."""
        return self.processes >= MEASURED and self.interval.kind not in ("none", "range")


@dataclass(frozen=True)
class Measurement:
    """What became of one label in one case.

    `time` is that of the processes that are ok, by the case's timer or, where a label has no other, by its kernels'
    times, else None; `busy` is its kernels' time beside it. `ranked` says whether it may be compared. `rows` are the
    records behind it, `ok` counts those with a latency. `primary` is false where kernel_ms or events_ms stands in.
    """

    label: Label
    status: Status
    time: Time | None
    ranked: bool
    ok: int
    rows: tuple[Row, ...]
    marks: tuple[str, ...]
    busy: Time | None = None
    primary: bool = True

    @property
    def latency_ms(self) -> float | None:
        """The median in ms; None where there is no time."""
        return None if self.time is None else self.time.ms

    @property
    def interval(self) -> Interval | None:
        """Where the latency lies; None where there is no time."""
        return None if self.time is None else self.time.interval

    @property
    def by_kernel(self) -> bool:
        """Whether the latency is CUPTI's times of the kernels."""
        return self.time is not None and self.time.by_kernel

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

    @property
    def program(self) -> frozenset[tuple[frozenset[str], frozenset[str]]]:
        """The whole names of the kernels of a process and what Triton's autotuner chose for them, each pair once; empty
        where unseen, or where one is Inductor's: it gives one name to kernels of different sizes of blocks.
        """
        seen = [row for row in self.rows if row["kernel_names"]]
        if any(_INDUCTORS.match(name) for row in seen for name in row["kernel_names"]):
            return frozenset()
        return frozenset((frozenset(row["kernel_names"]), frozenset(row["autotuned_configs"] or [])) for row in seen)

    def number(self, column: str) -> float | None:
        """Median of `column` over the records that have it."""
        values = [row[column] for row in self.rows if row[column] is not None]
        return float(median(values)) if values else None

    def memory(self, column: str) -> float | None:
        """Median of a column of bytes that a call takes; None where nothing can be said.

        A peak below what the call reads and writes is no peak: the allocator does not see into a CUDA graph's memory.
        """
        seen = [row for row in self.rows if (row["peak_memory_bytes"] or 0) >= max(1, row["bytes"] or 0)]
        values = [row[column] for row in seen if row[column] is not None]
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
        return Measurement(label, status, None, False, len(ok), tuple(rows), tuple(marks))
    ranked = not any(flag in flags for flag in NOT_RANKED)
    seen = [row for row in ok if _positive(row["kernel_ms"])]
    busy = _time(seen, "kernel_ms") if seen else None
    primary = column == "latency_ms"
    return Measurement(label, status, _time(ok, column), ranked, len(ok), tuple(rows), tuple(marks), busy, primary)


def _time(ok: list[Row], column: str) -> Time:
    """The time in `column` of one or more processes that have it."""
    medians = [float(row[column]) for row in ok]
    within = [_within(row, *_ENDS[column]) for row in ok] if column in _ENDS else []
    interval = _interval(medians, [one for one in within if one is not None])
    timers = {row["timer"] for row in ok}
    by_kernel = column == "kernel_ms" or (column == "latency_ms" and "kernel" in timers)
    # A load of what is timed by a graph is replays of it, and one of what CUPTI times is not its times.
    kernels = _kernels(ok) if by_kernel or (column in _ENDS and "graph" in timers) else 0
    # Between the kernels of a call that is one there is nothing
    return Time(median(medians), interval, len(ok), 0 if by_kernel and kernels == 1 else kernels, by_kernel)


def compared(one: Measurement, other: Measurement) -> tuple[Time, Time] | None:
    """The times of two by which they are compared: what each is ranked by, or, where that is the kernels' time of one
    alone, that of both; None where one has none.
    """
    if one.by_kernel == other.by_kernel:
        times = one.time, other.time
    else:
        times = one.time if one.by_kernel else one.busy, other.time if other.by_kernel else other.busy
    mine, its = times
    return None if mine is None or its is None else (mine, its)


def ratio(one: Measurement, over: Measurement) -> float | None:
    """Time of `over` / time of `one`, how many times as fast that is; None where they are not compared."""
    pair = compared(one, over)
    return None if pair is None else pair[1].ms / pair[0].ms


def beats(fast: Measurement, slow: Measurement) -> bool:
    """Whether `fast` may be said to be faster than `slow`: the one rule behind wins, ties, bold and verdicts.

    The intervals must be disjoint, and the difference above what `_floor` says and what the timer leaves open. What
    has the lower latency is not beaten, whatever two are compared by: so there is always something unbeaten.
    """
    pair = _apart(fast, slow)
    return pair is not None and pair[1].ms - pair[0].ms > open_ms(*pair)


def left_open(fast: Measurement, slow: Measurement) -> tuple[Time, Time] | None:
    """The times of two by which `fast` would beat `slow` but for what the timer leaves open; None where it does, or
    would not.
    """
    return None if beats(fast, slow) else _apart(fast, slow)


def open_ms(fast: Time, slow: Time) -> float:
    """The difference in ms that the timer leaves open at most between two calls, of which one seems to be faster.

    By CUPTI's times, which may be below what the faster takes and above what the slower does; by a graph its level,
    on which one of both may be alone.
    """
    if fast.by_kernel or slow.by_kernel:
        return GAP_MS * fast.kernels + EXCESS_MS * slow.kernels
    return LEVEL_MS * max(fast.kernels, slow.kernels)


def _apart(fast: Measurement, slow: Measurement) -> tuple[Time, Time] | None:
    """The times by which two are compared, where the intervals are disjoint and `slow` takes longer than `fast` by more
    than `_floor` says; else None.
    """
    pair = compared(fast, slow) or _whole(fast, slow)
    if pair is None or (fast.latency_ms or 0.0) >= (slow.latency_ms or 0.0):
        return None
    less, more = pair
    far = more.ms > less.ms * (1 + _floor(fast, slow, pair)) and not less.interval.overlaps(more.interval)
    return pair if far else None


def _whole(fast: Measurement, slow: Measurement) -> tuple[Time, Time] | None:
    """A whole call whose kernels were not seen, and another's kernels: the first takes no less than its own."""
    unseen = fast.busy is None and not fast.by_kernel
    return (fast.time, slow.time) if unseen and slow.by_kernel and fast.time and slow.time else None


def _floor(fast: Measurement, slow: Measurement, pair: tuple[Time, Time]) -> float:
    """The fraction below which a difference is no win for want of processes: none where both times are `sure`, else
    FLOOR.

    By the wall clock of a CPU it is HOST_FLOOR, and where either side was contended nothing is enough: what shares the
    CPU with one process need not share it with the other, and made them differ by any factor.
    """
    if all(time.sure for time in pair):
        return 0.0
    if not any("host" in one.texts("timer") for one in (fast, slow)):
        return FLOOR
    return math.inf if any("contended" in one.marks for one in (fast, slow)) else HOST_FLOOR


def unbeaten(ranked: dict[str, Measurement]) -> tuple[str, ...]:
    """Of measurements by label, fastest first, those that no other beats; beside others what has its kernels' time
    alone comes last.
    """
    kept = [text for text, one in ranked.items() if not any(beats(other, one) for other in ranked.values())]
    return tuple(sorted(kept, key=lambda text: ranked[text].by_kernel))


def _kernels(ok: list[Row]) -> int:
    """How many kernels a call has."""
    return max((row["kernel_count"] for row in ok if row["kernel_count"] is not None), default=_UNSEEN)


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
