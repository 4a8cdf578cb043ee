"""The report's words: what a table holds constant, what varies, its timer and intervals, and the verdict."""

from __future__ import annotations

from collections import Counter
from typing import Any

from attnsweep.report.aggregate import INTERVALS, Measurement
from attnsweep.report.derive import CASE_FIELDS, CaseRow, Section, Standing, geometric_mean
from attnsweep.report.text import count, digits, line, listing, times, whole

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


#: Half-width of an interval, as a fraction, from which the verdict warns of its ratios.
ROUGH = 0.1


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
    return f"Timer: {listing(told)}" + (", by case." if len(used) > 1 else ".")


def intervals(section: Section) -> str:
    """A sentence that says what the intervals are."""
    kinds = dict.fromkeys(
        one.interval.kind for case in section.cases for one in case.measured.values() if one.interval is not None
    )
    return f"Intervals: {'; '.join(INTERVALS[kind] for kind in kinds)}." if kinds else ""


def half_width(one: Measurement) -> str:
    """The interval's larger side in percent of the latency; empty where there is no interval."""
    side = _side(one)
    return "" if side is None else f"±{digits(100 * side, 2)}%"


def _side(one: Measurement) -> float | None:
    """The interval's larger side as a fraction of the latency."""
    if one.interval is None or one.latency_ms is None or one.interval.kind == "none":
        return None
    return max(one.interval.high - one.latency_ms, one.latency_ms - one.interval.low) / one.latency_ms


def _widest(section: Section, text: str) -> float:
    """The largest of a label's half-widths over a table."""
    return max((_side(case.ranked[text]) or 0.0 for case in section.rankable if text in case.ranked), default=0.0)


def verdict(section: Section) -> str:
    """Who is fastest, in one or two sentences, claiming nothing that the intervals do not carry."""
    cases = section.rankable
    total = len(cases)
    if not total:
        return f"Nothing is ranked in {count(len(section.cases), 'case')}: see the failures."
    if len(section.standings) == 1:
        only = section.standings[0]
        return f"{only.label.text} alone has a result ({only.cases} of {count(len(section.cases), 'case')})."
    said = _leaders(section)
    ties = [case for case in cases if len(case.fastest) > 1]
    if ties:
        tied = Counter(text for case in ties for text in case.fastest)
        names = listing([text for text, _ in tied.most_common()])
        said.append(
            f"{len(ties)} of {count(total, 'case')} {'is a tie' if len(ties) == 1 else 'are ties'}"
            f" (intervals overlap) among {names}"
        )
    if any(_unsure(case) for case in cases):
        said.append("Some of these have no interval: what is close may be a tie")
    if len(cases) < len(section.cases):
        missing = len(section.cases) - len(cases)
        said.append(f"{count(missing, 'case')} {'has' if missing == 1 else 'have'} no result at all")
    return ". ".join(sentence for sentence in said) + "."


def _unsure(case: CaseRow) -> bool:
    """Whether a case was decided without an interval of the fastest."""
    interval = case.measured[case.fastest[0]].interval
    return interval is not None and interval.kind == "none" and len(case.ranked) > 1


def _leaders(section: Section) -> list[str]:
    """Sentences on who wins most cases; none where every case is a tie."""
    total = len(section.rankable)
    most = max(one.wins + one.unopposed for one in section.standings)
    leaders = [one for one in section.standings if one.wins + one.unopposed == most]
    if not most:
        return []
    if len(leaders) > 1:
        names = listing([one.label.text for one in leaders])
        return [f"{names} are fastest in {most} of {count(total, 'case')} each"]
    leader = leaders[0]
    text = leader.label.text
    said = f"{text} is fastest in {most} of {count(total, 'case')}"
    if leader.ties:
        said += f" and tied for it in {leader.ties}"
    if leader.speedup is not None and section.baseline != text:
        over = f" over {leader.speedup_cases} of {total}" if leader.speedup_cases < total else ""
        said += f", {times(leader.speedup)} the speed of {section.baseline} (geometric mean{over})"
    sentences = [said]
    others = [one for one in section.standings if one is not leader and one.complete]
    if others and leader.complete:
        ratios = [case.ratio(text, others[0].label.text) or 1.0 for case in section.rankable]
        behind = times(geometric_mean(ratios))
        sentences.append(f"Next is {others[0].label.text}, which takes {behind} its time")
    rough = [name for name in dict.fromkeys((text, section.baseline)) if name and _widest(section, name) > ROUGH]
    if rough:
        widths = [f"{name} to ±{digits(100 * _widest(section, name), 2)}%" for name in rough]
        sentences.append(f"Ratios are rough: the worst case is known for {listing(widths)}")
    marks = dict.fromkeys(
        mark for case in section.rankable if text in case.fastest for mark in case.measured[text].marks
    )
    if marks:
        sentences.append(f"Marks on {text}: {', '.join(marks)}")
    return sentences


def placed(standing: Standing, total: int) -> str:
    """A standing's wins as a short text for a plot: 5 wins, 1 tie of 6."""
    wins = standing.wins + standing.unopposed
    parts = [count(wins, "win")] if wins or not standing.ties else []
    parts += [count(standing.ties, "tie")] if standing.ties else []
    return f"{', '.join(parts)} of {total}"
