"""The report's words: what a table holds constant, what varies, its timer and intervals, and the verdict."""

from __future__ import annotations

from collections import Counter
from typing import Any

from attnsweep.report.aggregate import FLOOR, INTERVALS, MEASURED, Measurement
from attnsweep.report.derive import CASE_FIELDS, CaseRow, Section, Standing, geometric_mean
from attnsweep.report.labels import Label
from attnsweep.report.notes import LOAD
from attnsweep.report.text import count, digits, line, listing, times, whole

TIMERS = {
    "events": "CUDA events around each call",
    "graph": "a CUDA graph of many calls",
    "kernel": "busy time of the cell's own kernels",
    "host": "wall clock of one call",
}

#: What the ceilings of conf/impl cost.
CEILINGS = {
    "ceiling_matmul": "the case's FLOPs as one matrix product",
    "ceiling_copy": "the case's bytes as one copy, half of them read and half written",
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
    f"A win needs disjoint intervals, and a difference above {100 * FLOOR:g} % where fewer than {MEASURED} processes "
    "are behind either side or an interval is unknown: the variation between processes was not measured there."
)

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


def floor(section: Section) -> str:
    """The rule of a win, where it is more than that intervals are disjoint in some case of a table."""
    able = [one for case in section.cases for one in case.ranked.values()]
    unsure = any(one.ok < MEASURED or (one.interval and one.interval.kind in ("none", "range")) for one in able)
    return RULE if unsure and len(section.standings) > 1 else ""


def ceilings(section: Section) -> list[str]:
    """The labels of a table that are bounds to compare with, and have a latency somewhere."""
    marked = [text for case in section.cases for text, one in case.measured.items() if "ceiling" in one.marks]
    return sorted(set(marked))


def about_ceilings(section: Section) -> str:
    """Sentences on what the ceilings of a table are and what stands beside them; empty where it has none."""
    found = {text: section.labels[text].impl for text in ceilings(section)}
    told = [f"{text} ({CEILINGS[impl]})" if impl in CEILINGS else text for text, impl in found.items()]
    if not told:
        return ""
    said = f"Ceilings, shown and never ranked, each with its time in percent of the fastest's: {', '.join(told)}."
    shares = [of_fastest(case, text) for case in section.cases for text in found]
    above = any(share is not None and share > 1 for share in shares)
    return said + (" One above 100 % is slower than the fastest and bounds nothing in that case." if above else "")


def of_fastest(case: CaseRow, text: str) -> float | None:
    """A label's latency as a fraction of the fastest's; None where either is not there."""
    one = case.measured.get(text)
    best = case.measured[case.fastest[0]].latency_ms if case.fastest else None
    return None if one is None or one.latency_ms is None or best is None else one.latency_ms / best


def bound_ms(case: CaseRow) -> float | None:
    """The latency of the slowest ceiling of a case in ms, which is the one that binds; None where there is none."""
    found = [one.latency_ms for one in case.measured.values() if "ceiling" in one.marks and one.latency_ms is not None]
    return max(found, default=None)


def split(section: Section) -> str:
    """A sentence on the other tables of cases that had to be parted by timer; empty where they were not."""
    if not section.key.timer:
        return ""
    return (
        f"This is among results timed by {section.key.timer} alone: those of the same cases by another timer are in a "
        "table of their own."
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
    quantised = _quantised(section)
    if len(section.contenders) == 1:
        only = section.contenders[0]
        where = "" if len(section.standings) == 1 else _own_precision(section)
        said = [f"{only.label.text} alone has a result{where} ({only.cases} of {count(len(section.cases), 'case')})"]
        return ". ".join(said + quantised) + "."
    said = _leaders(section)
    own = section.contenders[0].precision
    ties = [case for case in cases if len(case.fastest) > 1 and case.precision == own]
    if ties:
        number = "is a tie" if len(ties) == 1 else "are ties"
        sentence = f"{len(ties)} of {count(total, 'case')} {number} {_among(section, ties)}"
        if not said:
            sentence += _gain(section, _foremost(section, ties))
        said.append(sentence)
        if len(said) == 1 and len(ties) == total:
            said += _next(section, _foremost(section, ties), {text for case in ties for text in case.fastest})
    if any(_unsure(case) for case in cases):
        said.append(f"Some of these have no interval: differences above {100 * FLOOR:g} % were taken for real")
    if len(cases) < len(section.cases):
        missing = len(section.cases) - len(cases)
        said.append(f"{count(missing, 'case')} {'has' if missing == 1 else 'have'} no result at all")
    return ". ".join(said + quantised) + "."


def _own_precision(section: Section) -> str:
    """Whose results a verdict is about, where there are others too."""
    precision = section.contenders[0].precision
    return f" in precision {precision}" if precision else " in the case's own precision"


def _quantised(section: Section) -> list[str]:
    """Sentences on quantised results: the best of them against the fastest of the others; none where there is none."""
    quantised = {one.label.text: one.precision for one in section.standings if one.precision}
    if not quantised:
        return []
    classes = listing(list(dict.fromkeys(quantised.values())))
    if section.contenders[0].precision:
        return [f"All of it is quantised ({classes}): nothing is ranked in the case's own precision"]
    ratios: dict[str, list[float]] = {text: [] for text in quantised}
    for case in section.rankable:
        for text in ratios.keys() & case.ranked.keys():
            if not case.precision:
                ratios[text].append(case.ratio(text, case.fastest[0]) or 1.0)
    compared = {text: found for text, found in ratios.items() if found}
    if not compared:
        return [f"Nothing that is quantised ({classes}) has a case in common with a result in the case's own precision"]
    best = max(compared, key=lambda text: (len(compared[text]), geometric_mean(compared[text])))
    number, total = len(compared[best]), len(section.rankable)
    over = f" over {number} of {total}" if number < total else ""
    kinds = f"Of the quantised {best}" if len(quantised) > 1 else f"Quantised, {best}"
    speed = times(geometric_mean(compared[best]))
    said = [f"{kinds} ({quantised[best]}) has {speed} the speed of the fastest that is not (geometric mean{over})"]
    only = sum(bool(case.precision) for case in section.rankable)
    if only:
        said.append(f"{count(only, 'case')} {'has' if only == 1 else 'have'} a quantised result only")
    return said


def together(labels: list[Label]) -> str:
    """The labels of a case's `fastest` in a few words; all names only for a pair of different implementations."""
    first = labels[0]
    if len(labels) == 1:
        return first.text
    if len(labels) == 2 and not _akin(labels):
        return f"tie: {first.text}, {labels[1].text}"
    return f"{first.text}, tied with {count(len(labels) - 1, 'other')}"


def _akin(labels: list[Label]) -> bool:
    """Whether the labels are one implementation in different compile modes."""
    return len({(label.impl, label.variant, label.version) for label in labels}) == 1


def _foremost(section: Section, ties: list[CaseRow]) -> str:
    """The label that is tied for the fastest most often; of equals one with a kernel of its own, then the best."""
    tied = Counter(text for case in ties for text in case.fastest)
    borrowed = {text for case in ties for text in case.fastest if "substituted" in case.measured[text].marks}
    places = {standing.label.text: place for place, standing in enumerate(section.standings)}
    return min(tied, key=lambda text: (-tied[text], text in borrowed, places[text]))


def _among(section: Section, ties: list[CaseRow]) -> str:
    """Who is tied: both names of a pair, else one name and how many others."""
    tied = list(dict.fromkeys(text for case in ties for text in case.fastest))
    if len(tied) == 2 and not _akin([section.labels[text] for text in tied]):
        return f"among {listing(tied)}"
    first = _foremost(section, ties)
    others = [len(case.fastest) - 1 for case in ties if first in case.fastest]
    upto = "up to " if len(set(others)) > 1 else ""
    where = f" in {len(others)} of them" if len(others) < len(ties) else ""
    return f"for the fastest: {first} is tied with {upto}{count(max(others), 'other')}{where}"


def _gain(section: Section, text: str) -> str:
    """How much faster than the baseline a label is, as the end of a sentence; empty where it is not known."""
    standing = next(one for one in section.standings if one.label.text == text)
    if standing.speedup is None or section.baseline == text:
        return ""
    total = len(section.rankable)
    over = f" over {standing.speedup_cases} of {total}" if standing.speedup_cases < total else ""
    return f", {times(standing.speedup)} the speed of {section.baseline} (geometric mean{over})"


def _next(section: Section, text: str, leading: set[str]) -> list[str]:
    """A sentence on the best standing that is not `leading`, against `text`; none unless both have every case."""
    complete = {standing.label.text for standing in section.contenders if standing.complete}
    after = next((one.label.text for one in section.contenders if one.complete and one.label.text not in leading), None)
    if after is None or text not in complete:
        return []
    ratio = geometric_mean([case.ratio(text, after) or 1.0 for case in section.rankable])
    if ratio <= 1 - 5e-4:
        return [f"In the mean over all cases {after} is faster and takes {digits(100 * (1 - ratio), 2)} % less time"]
    # How far behind the baseline is has been said.
    return [f"Next is {after}" + ("" if after == section.baseline else f", {_behind(ratio)}")]


def _behind(ratio: float) -> str:
    """How a time compares with the leader's, of which it is `ratio`, not below 1: a percentage below a tenth."""
    if ratio >= 1.1:
        return f"which takes {times(ratio)} its time"
    return "equally fast in the mean" if ratio < 1 + 5e-4 else f"{digits(100 * (ratio - 1), 2)} % slower"


def _unsure(case: CaseRow) -> bool:
    """Whether a case was decided without an interval of the fastest."""
    interval = case.measured[case.fastest[0]].interval
    return interval is not None and interval.kind == "none" and len(case.rivals(case.fastest[0])) > 1


def _leaders(section: Section) -> list[str]:
    """Sentences on who wins most cases; none where every case is a tie."""
    total = len(section.rankable)
    most = max(one.wins + one.unopposed for one in section.contenders)
    leaders = [one for one in section.contenders if one.wins + one.unopposed == most]
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
    sentences = [said + _gain(section, text)]
    sentences += _next(section, text, {text})
    rough = [name for name in dict.fromkeys((text, section.baseline)) if name and _widest(section, name) > ROUGH]
    if rough:
        widths = [f"{name} to ±{digits(100 * _widest(section, name), 2)}%" for name in rough]
        sentences.append(f"Ratios are rough: the worst case is known for {listing(widths)}")
    marks = dict.fromkeys(
        mark
        for case in section.rankable
        if text in case.fastest
        for mark in case.measured[text].marks
        if mark not in LOAD
    )
    if marks:
        sentences.append(f"Marks on {text}: {', '.join(marks)}")
    return sentences


def placed(standing: Standing, total: int) -> str:
    """A standing's wins as a short text for a plot: 5 wins, 1 tie of 6."""
    parts = [count(standing.wins, "win")] if standing.wins or not (standing.ties or standing.unopposed) else []
    parts += [count(standing.ties, "tie")] if standing.ties else []
    parts += [f"{standing.unopposed} unopposed"] if standing.unopposed else []
    among = f" in {standing.precision}" if standing.precision else ""
    return f"{', '.join(parts)} of {total}{among}"
