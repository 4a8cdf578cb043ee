"""The report's tables, as models that every output shares: latencies, standings, outcomes."""

from __future__ import annotations

import math
from collections import Counter, defaultdict

from attnsweep.errors import Status
from attnsweep.flags import NOT_RANKED
from attnsweep.report.ceilings import about_ceilings, ceilings, of_fastest
from attnsweep.report.notes import Footnotes
from attnsweep.report.sections import CaseRow, Derived, Section
from attnsweep.report.tables import Cell, Column, Table
from attnsweep.report.text import count, digits, percent, rate, times
from attnsweep.report.verdict import together
from attnsweep.report.words import (
    boards,
    constants,
    field_value,
    floor,
    intervals,
    shown_fields,
    timers,
    title,
    width,
)


def latency_table(section: Section, footnotes: Footnotes) -> Table:
    """Cases by labels, the baseline first and then the fastest: latency in ms, interval, speed-up; the best bold."""
    names = shown_fields(section)
    several = len({case.timer for case in section.cases if case.timer}) > 1
    labels = [standing.label.text for standing in section.standings]
    labels.sort(key=lambda text: text != section.baseline)
    labels += ceilings(section)
    peaks = [_of_peak(case) for case in section.cases]
    peaked = any(peak is not None for peak in peaks)
    columns = [Column(name, number=name != "case") for name in names]
    columns += [Column("timer")] if several else []
    columns += [Column("fastest")] + ([Column("of peak", number=True)] if peaked else [])
    columns += [Column(text, number=True) for text in labels]
    rows = []
    for case, peak in zip(section.cases, peaks, strict=True):
        row = [Cell(field_value(case, name, section.key.axis)) for name in names]
        row += [Cell(case.timer)] if several else []
        row.append(_fastest(case, footnotes))
        row += [Cell("-" if peak is None else percent(peak, 3), dim=peak is None)] if peaked else []
        row += [_latency_cell(case, text, section.baseline, footnotes) for text in labels]
        rows.append(tuple(row))
    notes = [
        "Latency in ms (lower is better), with "
        + (f"the speed-up over {section.baseline} and " if section.baseline else "")
        + "the interval's larger side in percent of it (its ends where that is above 100%); the fastest is bold."
        + (
            " Of peak: the fastest's share of the datasheet peak, arithmetic or memory, that bounds the case."
            if peaked
            else ""
        ),
        section.baseline_why,
        timers(section),
        intervals(section),
        floor(section),
        f"All rows: {constants(section)}." if constants(section) else "",
        about_ceilings(section),
        *_apart(section),
        _absent(section),
    ]
    return Table(title(section), tuple(note for note in notes if note), tuple(columns), tuple(rows))


def _fastest(case: CaseRow, footnotes: Footnotes) -> Cell:
    if not case.fastest:
        return Cell("none", dim=True)
    told = together([case.measured[text].label for text in case.named])
    beside = []
    for precision, best in case.best_quantised.items():
        name = together([case.measured[text].label for text in sorted(best, key=case.borrowed)])
        beside.append(precision if best == case.fastest else f"{precision}: {name}")
    detail = "" if told.startswith("tie: ") else ", ".join(case.named[1:])
    return Cell(told, "; ".join(beside), footnotes.of(case.measured[case.named[0]]), detail=detail)


def _of_peak(case: CaseRow) -> float | None:
    """The fastest's fraction of the datasheet peak; None where it is not known or belongs to another latency."""
    best = case.measured[case.fastest[0]] if case.fastest else None
    return best.number("peak_fraction") if best is not None and best.primary else None


def _latency_cell(case: CaseRow, text: str, baseline: str | None, footnotes: Footnotes) -> Cell:
    one = case.measured.get(text)
    if one is None:
        return Cell("-", dim=True)
    if one.latency_ms is None:
        return Cell(str(one.status), dim=True)
    ratio = case.ratio(text, baseline) if baseline is not None else None
    share = of_fastest(case, text) if "ceiling" in one.marks else None
    bar = "not ranked" if share is None else percent(share, 3)
    note = ", ".join(part for part in (times(ratio) if ratio is not None else "", width(one)) if part)
    return Cell(
        digits(one.latency_ms),
        note if one.ranked else bar,
        footnotes.of(one),
        best=text in case.fastest,
        dim=not one.ranked,
    )


def _absent(section: Section) -> str:
    """A sentence on the labels that could be ranked and are in no case."""
    ranked = {*(standing.label.text for standing in section.standings), *ceilings(section)}
    why: dict[str, Counter[str]] = defaultdict(Counter)
    for case in section.cases:
        for text, one in case.measured.items():
            if text not in ranked:
                flag = next((mark for mark in one.marks if mark in NOT_RANKED), "no latency")
                why[text][str(one.status) if one.status is not Status.OK else flag] += 1
    told = [f"{text} ({', '.join(status for status, _ in seen.most_common())})" for text, seen in why.items()]
    return f"Ranked in no case: {', '.join(told)}." if told else ""


def standings_table(section: Section, footnotes: Footnotes, short: bool = False) -> Table:
    """Who won how often and by how much; `short` headings leave the baseline to the line above."""
    unopposed = any(one.unopposed for one in section.standings)
    columns = [Column("implementation"), Column("wins", True), Column("ties", True)]
    columns += [Column("unopposed", True)] if unopposed else []
    columns += [Column("cases", True)]
    columns += [Column("speed-up" if short else f"speed-up over {section.baseline}", True)] if section.baseline else []
    columns += [Column("vs best" if short else "time against the fastest", True)]
    total = len(section.cases)
    rows = []
    most = max((one.wins + one.unopposed for one in section.contenders), default=0)
    for one in section.standings:
        leads = most > 0 and one.wins + one.unopposed == most and one in section.contenders
        row = [
            Cell(one.label.text, marks=footnotes.label(section, one.label.text), best=leads),
            Cell(str(one.wins)),
            Cell(str(one.ties)),
        ]
        row += [Cell(str(one.unopposed))] if unopposed else []
        row.append(Cell(f"{one.cases} of {total}", dim=not one.complete))
        marks = footnotes.of(one)
        row += [Cell(_mean(one.speedup, one.speedup_cases, total), marks=marks)] if section.baseline else []
        row.append(Cell(_mean(one.slowdown, one.slowdown_cases, total), marks=marks))
        rows.append(tuple(row))
    notes = [
        "Geometric means; an implementation without a result in every case says over how many its mean goes, "
        "and is placed after those that have all." + (" Bold: the most wins." if most else ""),
        section.baseline_why,
    ]
    if unopposed:
        notes.append("Unopposed: nothing else is ranked in that case in its precision.")
    if any(len(case.rivals(case.fastest[0])) == 1 for case in section.rankable):
        notes.append("Times against the fastest leave out those of a fastest that is unopposed.")
    notes += [*_apart(section), *filter(None, [boards(section)])]
    return Table(title(section), tuple(notes), tuple(columns), tuple(rows))


def _apart(section: Section) -> list[str]:
    """What wins and bold mean where a table has quantised results too."""
    if not any(one.precision for one in section.standings):
        return []
    return [
        "Quantised results win and tie among those of their own class; the fastest that a time is compared with is "
        "of the case's own precision wherever anything of that is ranked."
    ]


def _mean(value: float | None, over: int, total: int) -> str:
    return times(value) + (f" over {over}" if value is not None and over < total else "")


def best_table(section: Section, footnotes: Footnotes, short: bool = False) -> Table:
    """Each case with its fastest, how many are tied with it, and the first that is beaten; `short` fits a terminal, and
    is without its tokens per second.
    """
    names = shown_fields(section)
    columns = [Column(name, number=name != "case") for name in names]
    tied = any(len(case.fastest) > 1 for case in section.cases)
    columns += [Column("fastest")] + ([Column("tied with")] if tied else []) + [Column("ms", True)]
    told = not short and any(case.tokens_per_s(case.named[0]) for case in section.cases if case.ranked)
    columns += [Column("tokens/s", True)] if told else []
    columns += [Column("speed-up", True)] if section.baseline else []
    columns += [Column("next"), Column("slower", True)]
    rows = []
    for case in section.cases:
        row = [Cell(field_value(case, name, section.key.axis)) for name in names]
        ranked = case.ranked
        if not ranked:
            rows.append((*row, Cell("none", dim=True), *[Cell("-")] * (len(columns) - len(names) - 1)))
            continue
        best = case.named[0]
        row.append(Cell(best, marks=footnotes.of(ranked[best]), best=len(case.fastest) == 1))
        row += [Cell(_tied(case, best))] if tied else []
        row.append(Cell(digits(ranked[best].latency_ms)))
        row += [Cell(rate(case.tokens_per_s(best)))] if told else []
        if section.baseline:
            base = ranked.get(section.baseline)
            row.append(Cell(times(case.ratio(best, section.baseline)), marks=footnotes.of(base) if base else ()))
        after = _after(case, best)
        ratio = None if after is None else case.ratio(best, after)
        row += [
            Cell(after or "-", marks=footnotes.of(ranked[after]) if after else ()),
            Cell("-" if ratio is None else f"+{percent(ratio - 1)}"),
        ]
        rows.append(tuple(row))
    return Table(title(section), (), tuple(columns), tuple(rows))


def _tied(case: CaseRow, best: str) -> str:
    """How many are tied with the best, and how many of them ran its kernels."""
    others, alike = len(case.fastest) - 1, len(case.alike(best))
    if not others:
        return "-"
    return count(others, "other") + (f" ({alike} by the same kernels)" if alike else "")


def _after(case: CaseRow, best: str) -> str | None:
    """The first of what is beaten; what has no time in common with the best comes last."""
    beaten = {text: case.ratio(best, text) for text in case.rivals(best) if text not in case.fastest}
    return min(beaten, key=lambda text: beaten[text] or math.inf, default=None)


def status_table(derived: Derived) -> Table:
    """How many records ended how, by label."""
    statuses = [status for status in Status if any(row["status"] == status for row in derived.rows)]
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for row, label in zip(derived.rows, derived.labels, strict=True):
        counts[label.text][row["status"]] += 1
    columns = [Column("implementation"), *(Column(str(status), True) for status in statuses)]
    rows = [
        (Cell(text), *(Cell(str(seen[status]) if seen[status] else "-") for status in statuses))
        for text, seen in sorted(counts.items())
    ]
    total = Counter(row["status"] for row in derived.rows)
    if len(rows) > 1:
        rows.append((Cell("all", bold=True), *(Cell(str(total[status]), bold=True) for status in statuses)))
    return Table(
        "Outcomes",
        ("Records by how they ended; what is known to be unsupported or missing had no process.",),
        tuple(columns),
        tuple(rows),
    )
