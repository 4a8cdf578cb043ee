"""How each label did over a table: the baseline, wins and ties, and geometric means of ratios."""

from __future__ import annotations

import math
from typing import Any

from attnsweep.errors import ConfigError
from attnsweep.report import labels as naming
from attnsweep.report.labels import Label
from attnsweep.report.sections import CASE_FIELDS, CaseRow, Key, Section, Standing
from attnsweep.report.text import digits

DEFAULT_BASELINE = "naive"


def ranked(key: Key, cases: list[CaseRow], wanted: Label | None) -> Section:
    ordered = sorted(cases, key=_case_order)
    rankable = [case for case in ordered if case.fastest]
    labels = {text: one.label for case in ordered for text, one in case.measured.items()}
    complete = [text for text in labels if rankable and all(text in case.ranked for case in rankable)]
    baseline, why = _baseline(labels, complete, rankable, wanted)
    standings = [_standing(label, rankable, text in complete, baseline) for text, label in labels.items()]
    placed = [one for one in standings if one.cases]
    placed.sort(key=lambda one: _place(one, rankable))
    return Section(key, tuple(ordered), tuple(placed), baseline, why)


def _place(one: Standing, rankable: list[CaseRow]) -> tuple[Any, ...]:
    """Sorts standings. Of those that are equal as they are shown, one with kernels of its own comes first."""
    text = one.label.text
    borrowed = any(case.borrowed(text) for case in rankable if text in case.ranked)
    slowdown = math.inf if one.slowdown is None else one.slowdown
    shown = slowdown if math.isinf(slowdown) else float(digits(slowdown, 3))
    return (one.precision, not one.complete, -one.cases, shown, borrowed, slowdown, text)


def _case_order(case: CaseRow) -> tuple[Any, ...]:
    def sortable(value: Any) -> tuple[int, float, str]:
        if value is None:
            return (0, 0.0, "")
        return (1, float(value), "") if isinstance(value, (int, float)) else (2, 0.0, str(value))

    return (sortable(case.axis_value), *(sortable(case.fields[name]) for name in CASE_FIELDS), case.case)


def chosen(baseline: str, labels: list[Label]) -> Label:
    """The label that the user means: by its text, else by the implementation, as plain as there is one."""
    choices = {label.text: label for label in labels}
    named = {label.in_full: label for label in labels} | choices
    if baseline in named:
        return named[baseline]
    same = [label for label in choices.values() if label.impl == baseline]
    if not same:
        raise ConfigError(f"--baseline: no label is called {baseline!r}, choose one of {', '.join(sorted(choices))}")
    same.sort(key=lambda label: naming.version_key(label.version), reverse=True)
    return min(same, key=lambda label: (bool(label.variant), label.compile != "eager", label.variant))


def _baseline(
    labels: dict[str, Label], complete: list[str], rankable: list[CaseRow], wanted: Label | None
) -> tuple[str | None, str]:
    """The label that speed-ups refer to, or None, and a sentence about it."""
    if not rankable:
        return None, "No baseline: nothing is ranked."
    if wanted is not None:
        having = sum(wanted.text in case.ranked for case in rankable)
        if not having:
            return (
                None,
                f"No speed-ups: the chosen baseline {wanted.text} is ranked in no case of this table.",
            )
        if having == len(rankable):
            return wanted.text, f"Baseline: {wanted.text} (chosen)."
        some = f"it is ranked in {having} of {len(rankable)} cases, and the others have no speed-up"
        return wanted.text, f"Baseline: {wanted.text} (chosen); {some}."
    able = {text for case in rankable for text in case.ranked}
    if len(able) == 1:
        return None, f"No speed-ups: {next(iter(able))} alone is ranked."
    native = {text for case in rankable for text, one in case.ranked.items() if not one.precision}
    if native:
        complete = [text for text in complete if text in native]
    if not complete:
        return None, "No speed-ups: no implementation is ok in every case, so there is no baseline."
    naive = [labels[text] for text in complete if labels[text].impl == DEFAULT_BASELINE and labels[text].plain]
    if naive:
        newest = max(naive, key=lambda label: naming.version_key(label.version))
        return newest.text, f"Baseline: {newest.text}."
    slowest = max(complete, key=lambda text: (_slowdown(text, rankable)[0] or 0.0, text))
    return slowest, f"Baseline: {slowest}, the slowest that is ok in every case."


def _standing(label: Label, rankable: list[CaseRow], complete: bool, baseline: str | None) -> Standing:
    text = label.text
    mine = [case for case in rankable if text in case.ranked]
    leading = [(case, case.leaders[case.measured[text].precision]) for case in mine]
    alone = [case for case, leaders in leading if leaders == (text,)]
    unopposed = sum(len(case.rivals(text)) == 1 for case in alone)
    ratios = [case.ratio(text, baseline) for case in mine] if baseline is not None else []
    known = [ratio for ratio in ratios if ratio is not None]
    slowdown, compared = _slowdown(text, mine)
    used = {version for case in mine for version in case.measured[text].texts("impl_version")}
    return Standing(
        label=label,
        wins=len(alone) - unopposed,
        ties=sum(text in leaders and len(leaders) > 1 for _, leaders in leading),
        unopposed=unopposed,
        cases=len(mine),
        complete=complete,
        speedup=geometric_mean(known) if known else None,
        speedup_cases=len(known),
        slowdown=slowdown,
        slowdown_cases=compared,
        marks=("mixed versions",) if len(used) > 1 else (),
        precision=next((case.measured[text].precision for case in mine if case.measured[text].precision), ""),
    )


def _slowdown(text: str, cases: list[CaseRow]) -> tuple[float | None, int]:
    """The geometric mean of a label's times against the fastest's, and of how many cases; None for none.

    A case in which it is the fastest without a rival says nothing: its 1.00 would make a mean better than the label is.
    """
    told = [case for case in cases if text not in case.fastest or len(case.rivals(text)) > 1]
    ratios = [case.ratio(case.fastest[0], text) for case in told]
    known = [ratio for ratio in ratios if ratio is not None]
    return geometric_mean(known) if known else None, len(known)


def geometric_mean(values: list[float]) -> float:
    """Geometric mean of positive numbers; infinity for none."""
    return math.exp(math.fsum(math.log(value) for value in values) / len(values)) if values else math.inf
