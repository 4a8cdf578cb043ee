"""What stands around a table in words: what it holds constant, what varies, its timer and its intervals."""

from __future__ import annotations

from typing import Any

from attnsweep.report.aggregate import (
    EXCESS_MS,
    FLOOR,
    GAP_MS,
    HOST_FLOOR,
    INTERVALS,
    LEVEL_MS,
    MEASURED,
    Measurement,
)
from attnsweep.report.sections import CASE_FIELDS, CaseRow, Section
from attnsweep.report.text import count, digits, line, listing, percent, whole

TIMERS = {
    "events": "CUDA events around each call",
    "graph": "a CUDA graph of many calls",
    "kernel": "busy time of the cell's own kernels",
    "host": "wall clock of one call",
}

#: Fields that often carry the same values: of those that do, a table shows the first.
_FAMILY = {
    "q_len": "len",
    "kv_len": "len",
    "num_heads": "heads",
    "num_kv_heads": "heads",
    "head_dim": "dim",
    "head_dim_v": "dim",
}

#: When a difference is a win, in a sentence.
RULE = (
    f"A win needs disjoint intervals, and a difference above {100 * FLOOR:g}% where fewer than {MEASURED} processes "
    "are behind either side or an interval is unknown: the variation between processes was not measured there."
)
#: What is asked instead of results timed by the host.
HOST_RULE = (
    f"By a CPU's wall clock the difference there must be above {100 * HOST_FLOOR:g}%, and a contended result neither "
    "wins nor loses there."
)
#: What is asked beside it of calls in a graph.
LEVEL_RULE = (
    "A call takes one of two times in a CUDA graph, and which one is chance: by a graph a win needs a difference above "
    f"{1e3 * LEVEL_MS:g} us for each kernel of the call that has more, however many processes there are."
)
#: And where the host was not this GPU's alone.
BESIDE = (
    "Other GPUs of the host were in use while some of these were measured, and beside them a call may go from one of "
    "these times to the other."
)
#: And where CUPTI's times of the kernels rank a case.
GAP_RULE = (
    "CUPTI's times of the kernels leave out what lies between those of a call, and may be longer than what these take "
    f"together: by the timer kernel a win needs a difference above {1e3 * GAP_MS:g} us for each kernel of the faster "
    f"call and {1e3 * EXCESS_MS:g} us for each of the slower, where that call has several."
)


def title(section: Section) -> str:
    """What the table holds constant, as a heading."""
    key = section.key
    parts = [key.device, key.scenario, key.direction, key.dtype]
    if key.cache and key.cache != "cold":
        parts.append(f"{key.cache} cache")
    if key.timer:
        parts.append(f"timer {key.timer}")
    return ", ".join(part for part in parts if part)


def shown_fields(section: Section) -> list[str]:
    """The case fields that vary over a table and tell its rows apart, the axis first."""
    cases = section.cases
    axis = section.key.axis
    names: list[str] = []
    seen: list[tuple[str, list[Any]]] = []
    if axis and any(case.axis_value is not None for case in cases):
        names.append(axis)
        seen.append((_FAMILY.get(axis, "len"), [case.axis_value for case in cases]))
    for name in CASE_FIELDS:
        values = [case.fields[name] for case in cases]
        same = (_FAMILY.get(name, name), values)
        if name != axis and len({str(value) for value in values}) > 1 and same not in seen:
            names.append(name)
            seen.append(same)
    apart = {tuple(str(field_value(case, name, axis)) for name in names) for case in cases}
    return names if len(apart) == len(cases) else [*names, "case"]


def field_value(case: CaseRow, name: str, axis: str) -> str:
    """A case's field as the table shows it."""
    if name == "case":
        return case.case
    value = case.axis_value if name == axis and case.axis_value is not None else case.fields.get(name)
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(str(one) for one in value) + "]"
    return whole(value) if isinstance(value, (int, float)) else line(value) or "-"


def constants(section: Section) -> str:
    """The case fields that all rows share, in words."""
    cases = section.cases
    shown = set(shown_fields(section))
    fixed = {
        name: cases[0].fields[name]
        for name in CASE_FIELDS
        if name not in shown and len({str(case.fields[name]) for case in cases}) == 1
    }
    words = []
    for name, value in fixed.items():
        if value in (None, "none") or (name == "head_dim_v" and value == fixed.get("head_dim")):
            continue
        if name in ("q_len", "kv_len") and value == cases[0].axis_value and section.key.axis in shown:
            continue
        if name == "num_kv_heads" and value == fixed.get("num_heads"):
            continue
        if name == "causal":
            words.append("causal" if value else "not causal")
        else:
            words.append(f"{name} {field_value(cases[0], name, '')}")
    return ", ".join(words)


def timers(section: Section) -> str:
    """A sentence that names the timer of a table."""
    used = list(dict.fromkeys(case.timer for case in section.cases if case.timer))
    if not used:
        return ""
    told = [f"{name} ({TIMERS[name]})" if name in TIMERS else name for name in used]
    apart = [text for text in section.labels if any(text in case.by_kernel for case in section.cases)]
    said = f"Timer: {listing(told)}" + (", by case." if len(used) > 1 else ".")
    if apart:
        verb = "is" if len(apart) == 1 else "are"
        said += (
            f" {listing(apart)} {verb} timed by kernel ({TIMERS['kernel']}), and compared with the others by kernel_ms."
        )
    return said


def intervals(section: Section) -> str:
    """A sentence that says what the intervals are."""
    kinds = dict.fromkeys(
        one.interval.kind for case in section.cases for one in case.measured.values() if one.interval is not None
    )
    return f"Intervals: {'; '.join(INTERVALS[kind] for kind in kinds)}." if kinds else ""


def floor(section: Section) -> str:
    """The rule of a win, where it is more than that intervals are disjoint in some case of a table."""
    able = [one.time for case in section.cases for one in case.ranked.values()]
    able += [one.busy for case in section.cases if case.by_kernel for one in case.ranked.values()]
    times = [time for time in able if time is not None]
    if len(section.standings) < 2:
        return ""
    rules = [] if all(time.sure for time in times) else [RULE]
    rules += [HOST_RULE] if rules and any(case.timer == "host" for case in section.cases) else []
    left_open = {time.by_kernel for time in times if time.kernels}
    if False in left_open:
        beside = [one.number("other_gpus_in_use") for case in section.cases for one in case.ranked.values()]
        rules += [LEVEL_RULE, *([BESIDE] if any(beside) else [])]
    rules += [GAP_RULE] if True in left_open else []
    return " ".join(rules)


def split(section: Section) -> str:
    """A sentence on the other tables of cases that had to be parted by timer; empty where they were not."""
    if not section.key.timer:
        return ""
    return (
        f"This is among results timed by {section.key.timer} alone: those of the same cases by another timer are in a "
        "table of their own."
    )


def boards_of(section: Section) -> set[str]:
    """The GPUs on which a table's cases were measured, by UUID."""
    ranked = [one for case in section.cases for one in case.ranked.values()]
    return {board for one in ranked for board in one.texts("gpu_uuid")}


def boards(section: Section) -> str:
    """A sentence on a table whose cases lie on several GPUs of one model; empty where they do not."""
    used = boards_of(section)
    if len(used) < 2:
        return ""
    return (
        f"The cases lie on {len(used)} GPUs, no two of which are equally fast: lines and means go across them, ratios "
        "within a case are of one GPU unless marked other_gpu."
    )


def no_plot(section: Section) -> str:
    """Why a table has no line plot, or not of all of its cases, in a sentence; empty where it has."""
    cases = section.rankable
    off = sum(case.axis_value is None for case in cases)
    if not off:
        return ""
    if off == len(cases):
        return "There is no line plot: the records give no value for an axis."
    return f"The line plots leave out {count(off, 'case')} without a value for the axis."


def width(one: Measurement) -> str:
    """The interval's larger side in percent of the latency, both ends where that is above 100%; empty without one."""
    side = relative_side(one)
    if side is None or one.interval is None:
        return ""
    if side > 1:
        return f"{digits(one.interval.low, 2)} to {digits(one.interval.high, 2)}"
    return f"±{percent(side)}"


def relative_side(one: Measurement) -> float | None:
    """The interval's larger side as a fraction of the latency."""
    if one.interval is None or one.latency_ms is None or one.interval.kind == "none":
        return None
    return max(one.interval.high - one.latency_ms, one.latency_ms - one.interval.low) / one.latency_ms
