"""Who is fastest, and by how much, in words that claim nothing that the intervals do not carry."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable

from attnsweep.flags import NOT_RANKED
from attnsweep.report.aggregate import EXCESS_MS, FLOOR, GAP_MS, HOST_FLOOR, LEVEL_MS, beats, left_open
from attnsweep.report.labels import Label
from attnsweep.report.notes import BEARING, LOAD, bearing
from attnsweep.report.sections import CaseRow, Section, Standing
from attnsweep.report.standings import geometric_mean
from attnsweep.report.text import count, digits, listing, percent, times
from attnsweep.report.words import relative_side

#: Half-width of an interval, as a fraction, from which the verdict warns of its ratios.
ROUGH = 0.1


def verdict(section: Section) -> str:
    """Who is fastest, in one or two sentences, claiming nothing that the intervals do not carry."""
    cases = section.rankable
    total = len(cases)
    if not total:
        return _nothing(section)
    quantised = _quantised(section)
    if len(section.contenders) == 1:
        only = section.contenders[0]
        where = "" if len(section.standings) == 1 else _own_precision(section)
        said = [f"{only.label.text} alone has a result{where} ({only.cases} of {count(len(section.cases), 'case')})"]
        said += _marks(section, [only.label.text], None)
        return ". ".join(said + quantised) + "."
    leading = _winners(section)
    said = _leaders(section, leading)
    after = _after(section, leading[0], {leading[0]}) if len(leading) == 1 else None
    own = section.contenders[0].precision
    ties = [case for case in cases if len(case.fastest) > 1 and case.precision == own]
    resting = _left_open(ties)
    if ties:
        first, tied = _foremost(section, ties), {text for case in ties for text in case.fastest}
        number = "is a tie" if len(ties) == 1 else "are ties"
        sentence = f"{len(ties)} of {count(total, 'case')} {number} {_among(section, ties)}"
        if not said and section.baseline not in tied:
            sentence += _gain(section, first)
        said.append(sentence)
        if len(said) == 1 and len(ties) == total:
            said += _next(section, first, tied)
            after = _after(section, first, tied)
        leading = list(dict.fromkeys([*leading, *(_pair(section, ties) or [first])]))
        said += resting
    said += _marks(section, leading, after)
    if any(_unsure(case) for case in cases if len(case.fastest) < len(case.ranked)):
        least = HOST_FLOOR if any(case.timer == "host" for case in cases) else FLOOR
        others = "other differences" if resting else "differences"
        said.append(f"Some of these have no interval: {others} above {100 * least:g}% were taken for real")
    if len(cases) < len(section.cases):
        missing = len(section.cases) - len(cases)
        said.append(f"{count(missing, 'case')} {'has' if missing == 1 else 'have'} no result at all")
    return ". ".join(said + quantised) + "."


def _nothing(section: Section) -> str:
    """The verdict where nothing is ranked: what was measured and does not count, and whether anything failed."""
    everything = [one for case in section.cases for one in case.measured.values()]
    barred = Counter(
        next(mark for mark in one.marks if mark in NOT_RANKED) for one in everything if one.latency_ms is not None
    )
    why = [f"{count(number, 'result')} {'is' if number == 1 else 'are'} {mark}" for mark, number in barred.items()]
    told = [listing(why)] if why else []
    told += ["see the failures"] if barred.total() < len(everything) else []
    return f"Nothing is ranked in {count(len(section.cases), 'case')}: {'; '.join(told)}."


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
    native = [case for case in section.rankable if not case.precision]
    found = {text: [case for case in native if case.ratio(text, case.fastest[0]) is not None] for text in quantised}
    speeds = {text: _speed(text, its) for text, its in found.items() if its}
    if not speeds:
        return [f"Nothing that is quantised ({classes}) has a case in common with a result in the case's own precision"]
    best = max(speeds, key=lambda text: (len(found[text]), speeds[text]))
    kinds = f"Of the quantised {best}" if len(quantised) > 1 else f"Quantised, {best}"
    said = [f"{kinds} ({quantised[best]}) {_beside(best, found[best], len(section.rankable))}"]
    only = sum(bool(case.precision) for case in section.rankable)
    if only:
        said.append(f"{count(only, 'case')} {'has' if only == 1 else 'have'} a quantised result only")
    return said


def _speed(text: str, cases: list[CaseRow]) -> float:
    """How many times as fast as the fastest a label is, in the geometric mean of cases."""
    return geometric_mean([ratio for case in cases for ratio in _ratios([case], text, case.fastest[0])])


def _beside(text: str, cases: list[CaseRow], total: int) -> str:
    """How a quantised label stands to the fastest that is not over some of `total` cases: by how much where it beats
    that, or is beaten, in any, else how often it ties.
    """
    pairs = [(case.measured[text], case.measured[case.fastest[0]]) for case in cases]
    speed = _speed(text, cases)
    faster = sum(beats(mine, its) for mine, its in pairs)
    slower = sum(beats(its, mine) for mine, its in pairs)
    ties = len(cases) - faster - slower
    tied = f"tied with the fastest that is not in {ties} of {count(total, 'case')}"
    if not (faster if speed > 1 else slower):
        others = [f"{how} in {number}" for how, number in (("faster", faster), ("slower", slower)) if number]
        return f"is {listing([tied, *others])}"
    over = f" over {len(cases)} of {total}" if len(cases) < total else ""
    return f"has {times(speed)} the speed of the fastest that is not (geometric mean{over})" + (
        f" and is tied with it in {ties}" if ties else ""
    )


def _winners(section: Section) -> list[str]:
    """The labels that win most cases; none where every case is a tie."""
    most = max(one.wins + one.unopposed for one in section.contenders)
    return [one.label.text for one in section.contenders if one.wins + one.unopposed == most] if most else []


def _leaders(section: Section, winners: list[str]) -> list[str]:
    """Sentences on who wins most cases."""
    total = len(section.rankable)
    if not winners:
        return []
    text = winners[0]
    leader = next(one for one in section.contenders if one.label.text == text)
    most = leader.wins + leader.unopposed
    if len(winners) > 1:
        return [f"{listing(winners)} are fastest in {most} of {count(total, 'case')} each"]
    said = f"{text} is fastest in {most} of {count(total, 'case')}"
    if leader.ties:
        said += f" and tied for it in {leader.ties}"
    sentences = [said + _gain(section, text)]
    sentences += _next(section, text, {text})
    rough = [name for name in dict.fromkeys((text, section.baseline)) if name and _widest(section, name) > ROUGH]
    if rough:
        widths = [f"{name} to {_about(_widest(section, name))}" for name in rough]
        sentences.append(f"Ratios are rough: the worst case is known for {listing(widths)}")
    return sentences


def _marks(section: Section, leading: list[str], after: str | None) -> list[str]:
    """A sentence on the marks of those that a verdict names: all of those that are `leading`, where they lead, and what
    bears on the speed of the one that comes `after` them and of the baseline in any case.
    """
    found: dict[str, list[str]] = {}
    for text in leading:
        marks = [mark for case in section.rankable if text in case.fastest for mark in case.measured[text].marks]
        found[text] = [mark for mark in dict.fromkeys(marks) if mark not in LOAD]
    for other in (after, section.baseline):
        if other is not None:
            marks = bearing([case.ranked[other] for case in section.rankable if other in case.ranked])
            found.setdefault(other, [mark for mark in marks if mark in BEARING])
    told = [f"on {text}: {', '.join(marks)}" for text, marks in found.items() if marks]
    return [f"Marks {'; '.join(told)}"] if told else []


def _widest(section: Section, text: str) -> float:
    """The largest side of a label's intervals over a table, as a fraction of its latency."""
    return max(
        (relative_side(case.ranked[text]) or 0.0 for case in section.rankable if text in case.ranked), default=0.0
    )


def _about(side: float) -> str:
    """How well a latency is known, from the larger side of its interval: in percent, above 100% as a factor."""
    return f"a factor of {digits(1 + side, 2)}" if side > 1 else f"±{percent(side)}"


def _foremost(section: Section, ties: list[CaseRow]) -> str:
    """The label that is tied for the fastest most often; of equals one with a kernel of its own, then the best."""
    tied = Counter(text for case in ties for text in case.fastest)
    borrowed = {text for case in ties for text in case.fastest if case.borrowed(text)}
    places = {standing.label.text: place for place, standing in enumerate(section.standings)}
    return min(tied, key=lambda text: (-tied[text], text in borrowed, places[text]))


def _among(section: Section, ties: list[CaseRow]) -> str:
    """Who is tied: both names of a pair, else one name and how many others; and who of them ran the same kernels."""
    pair = _pair(section, ties)
    if pair:
        same = all(case.alike(pair[0]) for case in ties)
        return f"between {listing(pair)}" + (", which ran the same kernels" if same else "")
    first = _foremost(section, ties)
    its = [case for case in ties if first in case.fastest]
    alike = _up_to([len(case.alike(first)) for case in its])
    told = f" ({alike} by the same kernels)" if alike != "0" else ""
    where = f" in {len(its)} of them" if len(its) < len(ties) else ""
    number = _up_to([len(case.fastest) - 1 for case in its])
    return f"for the fastest: {first} is tied with {number} {'other' if number == '1' else 'others'}{told}{where}"


def _up_to(numbers: list[int]) -> str:
    """The most of some numbers, as text that says whether there are less."""
    return f"{'up to ' if len(set(numbers)) > 1 else ''}{max(numbers)}"


def _pair(section: Section, ties: list[CaseRow]) -> list[str]:
    """The two that are tied wherever anything is, where they are different implementations; else nothing."""
    tied = list(dict.fromkeys(text for case in ties for text in case.fastest))
    return tied if len(tied) == 2 and not _akin([section.labels[text] for text in tied]) else []


def _left_open(ties: list[CaseRow]) -> list[str]:
    """A sentence on the ties by a graph, and one on those by CUPTI's times, that would be none but for what the timer
    leaves open; none where there are none.
    """
    gap = f"{1e3 * GAP_MS:g} us a kernel of the faster call and {1e3 * EXCESS_MS:g} us one of the slower"
    by = {
        False: f"the two levels of a CUDA graph: differences up to {1e3 * LEVEL_MS:g} us a kernel",
        True: f"what lies between the kernels of a call: differences up to {gap}",
    }
    found = Counter(by_kernel for case in ties for by_kernel in sorted(_rests(case)))
    said = []
    for by_kernel, number in found.items():
        some = "The tie rests" if len(ties) == 1 else f"{number} of the ties {'rests' if number == 1 else 'rest'}"
        said.append(f"{some} on {by[by_kernel]} were not taken for real")
    return said


def _rests(tie: CaseRow) -> set[bool]:
    """Whether it is by the kernels' times, or by others, that what leads a tie would beat another of it, or be beaten,
    but for what the timer leaves open.
    """
    first, *others = (tie.measured[text] for text in tie.fastest)
    pairs = (left_open(first, other) or left_open(other, first) for other in others)
    return {any(time.by_kernel for time in pair) for pair in pairs if pair is not None}


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
    after = _after(section, text, leading)
    if after is None:
        return []
    ratio = geometric_mean(_ratios(section.rankable, text, after))
    if ratio <= 1 - 5e-4:
        return [f"In the mean over all cases {after} is faster and takes {percent(1 - ratio)} less time"]
    # How far behind the baseline is has been said.
    return [f"Next is {after}" + ("" if after == section.baseline or math.isinf(ratio) else f", {_behind(ratio)}")]


def _ratios(cases: Iterable[CaseRow], text: str, over: str) -> list[float]:
    """How many times as fast as another a label is, in each case in which they are compared."""
    found = (case.ratio(text, over) for case in cases)
    return [ratio for ratio in found if ratio is not None]


def _after(section: Section, text: str, leading: set[str]) -> str | None:
    """The best standing that is not `leading`, where both it and `text` have every case."""
    complete = [standing.label.text for standing in section.contenders if standing.complete]
    return next((one for one in complete if one not in leading), None) if text in complete else None


def _behind(ratio: float) -> str:
    """How a time compares with the leader's, of which it is `ratio`, not below 1: a percentage below a tenth."""
    if ratio >= 1.1:
        return f"which takes {times(ratio)} its time"
    return "equally fast in the mean" if ratio < 1 + 5e-4 else f"{percent(ratio - 1)} slower"


def _unsure(case: CaseRow) -> bool:
    """Whether a case was decided without an interval of the fastest."""
    interval = case.measured[case.fastest[0]].interval
    return interval is not None and interval.kind == "none" and len(case.rivals(case.fastest[0])) > 1


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


def placed(standing: Standing, total: int) -> str:
    """A standing's wins as a short text for a plot: 5 wins, 1 tie of 6."""
    parts = [count(standing.wins, "win")] if standing.wins or not (standing.ties or standing.unopposed) else []
    parts += [count(standing.ties, "tie")] if standing.ties else []
    parts += [f"{standing.unopposed} unopposed"] if standing.unopposed else []
    among = f" in {standing.precision}" if standing.precision else ""
    return f"{', '.join(parts)} of {total}{among}"
