"""What load does: burst beside sustained for each result, and where another is the fastest then."""

from __future__ import annotations

from collections import Counter

from attnsweep.report.aggregate import PRECISION, Measurement, measure, unbeaten
from attnsweep.report.notes import MEANINGS, Footnotes
from attnsweep.report.sections import CaseRow, Section
from attnsweep.report.tables import Cell, Column, Table
from attnsweep.report.text import count, digits, line, listing, more
from attnsweep.report.words import field_value, shown_fields, title, width

#: Heading, column and significant digits of what is told beside the latencies.
_BESIDE = (
    ("burst clock MHz", "burst_clock_mhz", 4),
    ("load clock MHz", "load_clock_mhz", 4),
    ("load power W", "load_power_w", 3),
    ("energy a call mJ", "energy_mj", 3),
)


def under_load(case: CaseRow) -> dict[str, Measurement]:
    """The sustained latencies of a case by label, lowest first, then what is not ranked; what has none is not there."""
    found = {text: measure(one.label, list(one.rows), "sustained_ms") for text, one in case.measured.items()}
    able = sorted((not one.ranked, one.latency_ms, text) for text, one in found.items() if one.latency_ms is not None)
    return {text: found[text] for *_, text in able}


def load_table(section: Section, footnotes: Footnotes) -> Table:
    """Every result that was timed under load, with what that did to clock and power; no rows where none was."""
    names = shown_fields(section)
    found = [(case, text, one) for case in section.cases for text, one in under_load(case).items()]
    leading = {(case.case, text) for case in section.cases for text in unbeaten(_comparable(case))}
    beside = [told for told in _BESIDE if any(one.number(told[1]) is not None for _, _, one in found)]
    throttled = any(reasons(one) for _, _, one in found)
    columns = [Column(name, number=name != "case") for name in names]
    columns += [Column("implementation"), Column("burst ms", True), Column("under load ms", True)]
    columns += [Column("change", True), *(Column(heading, True) for heading, _, _ in beside)]
    columns += [Column("throttled by")] if throttled else []
    rows = []
    for case, text, one in found:
        burst = one.number("latency_ms")
        row = [Cell(field_value(case, name, section.key.axis)) for name in names]
        row += [
            Cell(text, dim=not one.ranked),
            Cell(digits(burst), best=case.primary and text in case.fastest, dim=not one.ranked),
            Cell(
                digits(one.latency_ms),
                width(one),
                footnotes.of(one, load=True),
                best=(case.case, text) in leading,
                dim=not one.ranked,
            ),
            Cell(more(one.latency_ms, burst)),
        ]
        row += [Cell(digits(one.number(column), significant)) for _, column, significant in beside]
        row += [Cell(", ".join(reasons(one)) or "-")] if throttled else []
        rows.append(tuple(row))
    notes = [
        "Median latency of short bursts after a rest, by the primary timer, and mean latency of calls back to back "
        "once steady; the fastest of each is bold. Clocks are by the GPU's own counters, power and energy are the "
        "whole board's; the percentage below a load is its interval's larger side.",
        _other_timers(section),
        load_verdict(section),
        _without(section),
    ]
    return Table(f"Under load: {title(section)}", tuple(note for note in notes if note), tuple(columns), tuple(rows))


def _other_timers(section: Section) -> str:
    """A sentence on cases whose bursts were timed by different timers; empty where there are none."""
    number = sum(not case.primary for case in section.rankable)
    told = "Bursts by different timers are not compared"
    return f"{told}: none is bold in {count(number, 'case')}, ranked by a timer that all have." if number else ""


def reasons(one: Measurement) -> list[str]:
    """Why the clock was held down under load, each reason once."""
    return list(dict.fromkeys(line(reason) for row in one.rows for reason in row["load_throttle"] or []))


def load_verdict(section: Section) -> str:
    """A sentence on the cases in which others are the fastest under load; empty where there is none.

    The rule is that of bursts, intervals and floor. A case counts where all its fastest were timed under load.
    """
    total = won = lost = 0
    overtaken: Counter[tuple[tuple[str, ...], tuple[str, ...]]] = Counter()
    for case in section.rankable:
        loads = _comparable(case)
        before = tuple(text for text in case.fastest if _native(case.measured[text]))
        if len(loads) < 2 or not before or not loads.keys() >= set(before):
            continue
        total += 1
        leaders = unbeaten(loads)
        if not set(leaders) & set(before):
            overtaken[leaders, before] += 1
        elif len(leaders) != len(before):
            won += len(leaders) == 1
            lost += len(before) == 1
    said = []
    if overtaken:
        (leaders, before), number = overtaken.most_common(1)[0]
        verb = "is" if len(leaders) == 1 else "are"
        said.append(f"{_some(leaders)} {verb} fastest in {number} of {count(total, 'case')} instead of {_some(before)}")
        others = overtaken.total() - number
        said += [f"the fastest is another in {others} more"] if others else []
    said += (
        [f"{lost} of {count(total, 'case')} won in bursts {'is a tie' if lost == 1 else 'are ties'}"] if lost else []
    )
    said += [f"{won} of {count(total, 'case')} tied in bursts {'has' if won == 1 else 'have'} a winner"] if won else []
    return f"Under load {'; '.join(said)}." if said else ""


def _comparable(case: CaseRow) -> dict[str, Measurement]:
    """What competes for the fastest under load: what is ranked in bursts too, in the case's own precision."""
    return {text: one for text, one in under_load(case).items() if text in case.ranked and _native(one)}


def _native(one: Measurement) -> bool:
    return not any(mark.startswith(PRECISION) for mark in one.marks)


def _some(labels: tuple[str, ...]) -> str:
    """Labels in a few words: both of a pair, else the first and how many others."""
    return listing(list(labels)) if len(labels) < 3 else f"{labels[0]} and {count(len(labels) - 1, 'other')}"


def _without(section: Section) -> str:
    """A sentence on results that were not timed under load, where others were."""
    missing: Counter[str] = Counter()
    for case in section.cases:
        loads = under_load(case)
        for text, one in case.measured.items():
            if loads and one.latency_ms is not None and text not in loads:
                missing[f"{text} (launch_bound)" if "launch_bound" in one.marks else text] += 1
    told = [f"{name} in {count(number, 'case')}" for name, number in missing.items()]
    why = f" Launch_bound: {MEANINGS['launch_bound']}." if "(launch_bound)" in " ".join(told) else ""
    return f"Not timed under load: {', '.join(told)}.{why}" if told else ""
