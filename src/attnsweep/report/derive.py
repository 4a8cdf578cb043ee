"""From records to answers: cases side by side, who is fastest, by how much, over which baseline."""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from attnsweep.errors import ConfigError, Status
from attnsweep.report import labels as naming
from attnsweep.report.aggregate import Measurement, measure, unbeaten
from attnsweep.report.labels import Label
from attnsweep.report.load import Row
from attnsweep.report.pooling import newest_group
from attnsweep.report.text import line

DEFAULT_BASELINE = "naive"

#: The most tables of a report that are drawn, and told on the terminal.
LARGEST = 30

#: Fields that make a case, in the order in which tables show and sort them after the axis.
CASE_FIELDS = (
    "batch_size",
    "q_len",
    "kv_len",
    "num_heads",
    "num_kv_heads",
    "head_dim",
    "head_dim_v",
    "causal",
    "window",
    "bias",
)


@dataclass(frozen=True)
class Key:
    """What a table holds constant; nothing is compared across two of these.

    `timer` is empty unless cases had to be split by timer: then it names the one of this table.
    """

    device: str
    scenario: str
    direction: str
    dtype: str
    cache: str
    axis: str
    timer: str


@dataclass(frozen=True)
class CaseRow:
    """One case: `measured` by label text, `timer` the measure that ranks it, `fastest` those nothing beats.

    Results compete within their precision only: `fastest` is of the case's own, else (nothing of that is ranked) of the
    quantised class with the lowest latency. It holds one label where it wins, several where the lowest latency does not
    beat the others (a tie), none where nothing is ranked; the lowest latency comes first. `primary` is false where
    kernel_ms or events_ms stands in for latencies of different timers.
    """

    case: str
    fields: dict[str, Any]
    axis_value: float | None
    timer: str
    measured: dict[str, Measurement]
    fastest: tuple[str, ...]
    primary: bool = True

    @cached_property
    def ranked(self) -> dict[str, Measurement]:
        """What may be compared, fastest first."""
        able = {text: one for text, one in self.measured.items() if one.ranked}
        return dict(sorted(able.items(), key=lambda item: (item[1].latency_ms or math.inf, item[0])))

    @cached_property
    def classes(self) -> dict[str, dict[str, Measurement]]:
        """`ranked` by precision."""
        found: dict[str, dict[str, Measurement]] = defaultdict(dict)
        for text, one in self.ranked.items():
            found[one.precision][text] = one
        return dict(found)

    @cached_property
    def leaders(self) -> dict[str, tuple[str, ...]]:
        """For each precision that is ranked the labels that nothing of it beats, the lowest latency first."""
        return {precision: unbeaten(its) for precision, its in self.classes.items()}

    def rivals(self, text: str) -> dict[str, Measurement]:
        """What is ranked in the precision of a label, itself included, fastest first."""
        return self.classes.get(self.measured[text].precision, {})

    @property
    def precision(self) -> str:
        """That of `fastest`: empty for the case's own and where nothing is ranked."""
        return self.measured[self.fastest[0]].precision if self.fastest else ""

    @property
    def best_quantised(self) -> dict[str, tuple[str, ...]]:
        """For each quantised class that is ranked the labels that nothing of that class beats, as in `fastest`."""
        return {precision: texts for precision, texts in self.leaders.items() if precision}

    def ratio(self, text: str, over: str) -> float | None:
        """Latency of `over` / latency of `text`, how many times as fast; None unless both are ranked."""
        mine, other = self.measured.get(text), self.measured.get(over)
        if mine is None or other is None or not (mine.ranked and other.ranked):
            return None
        assert mine.latency_ms is not None
        assert other.latency_ms is not None
        return other.latency_ms / mine.latency_ms


@dataclass(frozen=True)
class Standing:
    """How one label did over a table: `wins` alone, `ties`, `unopposed` (no rival is ranked), `cases`.

    Wins and ties are counted among results of its own `precision`, which is empty for the case's. `speedup` over the
    baseline is a geometric mean over `speedup_cases`, `slowdown` against the fastest of each case one over `cases`.
    `complete` says that the label is ranked in every case in which anything is; `marks` are footnotes of the means.
    """

    label: Label
    wins: int
    ties: int
    unopposed: int
    cases: int
    complete: bool
    speedup: float | None
    speedup_cases: int
    slowdown: float
    marks: tuple[str, ...] = ()
    precision: str = ""


@dataclass(frozen=True)
class Section:
    """One table: its cases in order, the standings best first, and the baseline with why it is the one.

    Quantised standings come after all others.
    """

    key: Key
    cases: tuple[CaseRow, ...]
    standings: tuple[Standing, ...]
    baseline: str | None
    baseline_why: str

    @cached_property
    def rankable(self) -> tuple[CaseRow, ...]:
        """The cases in which at least one label is ranked."""
        return tuple(case for case in self.cases if case.fastest)

    @cached_property
    def contenders(self) -> tuple[Standing, ...]:
        """The standings that the verdict is about: in the case's own precision, without any in that of the first."""
        return tuple(one for one in self.standings if one.precision == self.standings[0].precision)

    @cached_property
    def labels(self) -> dict[str, Label]:
        """Every label of the table by its text: the standings' order, then what was never ranked."""
        found = {standing.label.text: standing.label for standing in self.standings}
        for case in self.cases:
            for text, one in sorted(case.measured.items()):
                found.setdefault(text, one.label)
        return found


@dataclass(frozen=True)
class Derived:
    """All sections, the rows behind them with their labels and devices, and how many were left aside.

    `older` counts rows of older versions, `superseded` those of older measurements of the same.
    """

    sections: tuple[Section, ...]
    rows: tuple[Row, ...]
    labels: tuple[Label, ...]
    devices: tuple[str, ...]
    older: int
    superseded: int = 0

    @cached_property
    def largest(self) -> tuple[Section, ...]:
        """The LARGEST sections with most results, in the report's order."""
        by_size = sorted(self.sections, key=lambda section: -sum(len(case.ranked) for case in section.cases))
        kept = {section.key for section in by_size[:LARGEST]}
        return tuple(section for section in self.sections if section.key in kept)


def derive(rows: list[Row], versions: str = "newest", baseline: str | None = None) -> Derived:
    """Rank `rows`; `versions` is newest or all, `baseline` a label or an implementation.

    Raises ConfigError for a baseline that no label here answers to.
    """
    devices = naming.device_names(rows)
    older = 0
    if versions == "newest":
        keep = naming.newest_versions(rows, devices)
        older = keep.count(False)
        devices = [device for device, kept in zip(devices, keep, strict=True) if kept]
        rows = [row for row, kept in zip(rows, keep, strict=True) if kept]
    labels = naming.label_all(rows, versions == "all")
    wanted = None if baseline is None else _wanted(baseline, labels)
    tables: dict[Key, list[CaseRow]] = defaultdict(list)
    cases: dict[tuple[Key, str], list[int]] = defaultdict(list)
    keys = [_key(row, device) for row, device in zip(rows, devices, strict=True)]
    for index, (row, places) in enumerate(zip(rows, _places(rows, keys), strict=True)):
        for key in places:
            cases[(key, str(row["case"]))].append(index)
    spoken: set[int] = set()
    for (key, _), found in cases.items():
        indices, replaced = _speakers(found, rows, labels)
        spoken.update(indices)
        for timer, case in _cases([rows[i] for i in indices], [labels[i] for i in indices], replaced):
            tables[replace(key, timer=timer)].append(case)
    sections = [_section(key, tables[key], wanted) for key in sorted(tables, key=_order)]
    kept = sorted(spoken)
    return Derived(
        sections=tuple(sections),
        rows=tuple(rows[index] for index in kept),
        labels=tuple(labels[index] for index in kept),
        devices=tuple(devices[index] for index in kept),
        older=older,
        superseded=len(rows) - len(kept),
    )


def _speakers(indices: list[int], rows: list[Row], labels: list[Label]) -> tuple[list[int], frozenset[Label]]:
    """Of one case's rows those that speak for their labels, and the labels that have older measurements too."""
    groups: dict[Label, list[int]] = defaultdict(list)
    for index in indices:
        groups[labels[index]].append(index)
    chosen = {label: newest_group([rows[index] for index in its]) for label, its in groups.items()}
    kept = sorted(groups[label][place] for label, places in chosen.items() for place in places)
    return kept, frozenset(label for label, places in chosen.items() if len(places) < len(groups[label]))


def _key(row: Row, device: str) -> Key:
    said = {name: line(row[name]) for name in ("scenario", "direction", "dtype", "cache", "axis")}
    return Key(device=device, timer="", **said)


def _places(rows: list[Row], keys: list[Key]) -> list[list[Key]]:
    """The tables each row belongs to: its own, for a failure those of its kind in which something was measured.

    A cell that failed before timing says the cache that was planned (cold), which on a CPU is not the one that
    the others were measured with (hot); it must not open a table of failures beside them.
    """
    measured: dict[Key, dict[Key, None]] = defaultdict(dict)
    for row, key in zip(rows, keys, strict=True):
        if row["status"] == Status.OK:
            measured[replace(key, cache="")][key] = None
    places = []
    for row, key in zip(rows, keys, strict=True):
        others = measured[replace(key, cache="")]
        places.append([key] if row["status"] == Status.OK or key in others or not others else list(others))
    return places


def _order(key: Key) -> tuple[str, ...]:
    return (key.device, key.scenario, key.direction, key.dtype, key.cache, key.axis, key.timer)


def _cases(rows: list[Row], labels: list[Label], replaced: frozenset[Label]) -> list[tuple[str, CaseRow]]:
    """One case as rows of tables: one where a timer is common to all that is ok, else one for each timer.

    Common is the primary one, or that by which all were measured as well: the kernels' own time, then events.
    """
    groups: dict[Label, list[Row]] = defaultdict(list)
    for row, label in zip(rows, labels, strict=True):
        groups[label].append(row)
    ok = [row for row in rows if row["status"] == Status.OK]
    timers = sorted({str(row["timer"] or "unknown") for row in ok})
    if len(timers) <= 1:
        # Where nothing is ok, the timer that the case would have been ranked on is still said.
        planned = sorted({str(row["timer"]) for row in rows if row["timer"]})
        name = timers[0] if timers else planned[0] if len(planned) == 1 else ""
        return [("", _case(groups, "latency_ms", name, replaced))]
    for timer in ("kernel", "events"):
        if all(row[f"{timer}_ms"] is not None and row[f"{timer}_ms"] > 0 for row in ok):
            return [("", _case(groups, f"{timer}_ms", timer, replaced))]
    split = []
    for timer in timers:
        part: dict[Label, list[Row]] = {}
        for label, its in groups.items():
            mine = [r for r in its if r["status"] != Status.OK or str(r["timer"] or "unknown") == timer]
            if mine:
                part[label] = mine
        split.append((timer, _case(part, "latency_ms", timer, replaced)))
    return split


def _case(groups: dict[Label, list[Row]], column: str, timer: str, replaced: frozenset[Label]) -> CaseRow:
    measured = {
        label.text: measure(label, rows, column, ("superseded",) if label in replaced else ())
        for label, rows in groups.items()
    }
    first = next(iter(groups.values()))[0]
    values = [row["axis_value"] for rows in groups.values() for row in rows if row["axis_value"] is not None]
    fields = {name: first[name] for name in CASE_FIELDS}
    case = CaseRow(
        str(first["case"]), fields, values[0] if values else None, timer, measured, (), column == "latency_ms"
    )
    if not case.ranked:
        return case
    # Of the case's own precision where there is one: the others' speed has a price.
    leaders = case.leaders
    return replace(case, fastest=leaders.get("") or next(iter(leaders.values())))


def _section(key: Key, cases: list[CaseRow], wanted: Label | None) -> Section:
    ordered = sorted(cases, key=_case_order)
    rankable = [case for case in ordered if case.fastest]
    labels = {text: one.label for case in ordered for text, one in case.measured.items()}
    complete = [text for text in labels if rankable and all(text in case.ranked for case in rankable)]
    baseline, why = _baseline(labels, complete, rankable, wanted)
    standings = [_standing(label, rankable, text in complete, baseline) for text, label in labels.items()]
    placed = [one for one in standings if one.cases]
    placed.sort(key=lambda one: (one.precision, not one.complete, -one.cases, one.slowdown, one.label.text))
    return Section(key, tuple(ordered), tuple(placed), baseline, why)


def _case_order(case: CaseRow) -> tuple[Any, ...]:
    def sortable(value: Any) -> tuple[int, float, str]:
        if value is None:
            return (0, 0.0, "")
        return (1, float(value), "") if isinstance(value, (int, float)) else (2, 0.0, str(value))

    return (sortable(case.axis_value), *(sortable(case.fields[name]) for name in CASE_FIELDS), case.case)


def _wanted(baseline: str, labels: list[Label]) -> Label:
    """The label that the user means: by its text, else by the implementation, as plain as there is one."""
    choices = {label.text: label for label in labels}
    if baseline in choices:
        return choices[baseline]
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
    native = {text for case in rankable for text, one in case.ranked.items() if not one.precision}
    if native:
        complete = [text for text in complete if text in native]
    if not complete:
        return None, "No speed-ups: no implementation is ok in every case, so there is no baseline."
    naive = [labels[text] for text in complete if labels[text].impl == DEFAULT_BASELINE and labels[text].plain]
    if naive:
        newest = max(naive, key=lambda label: naming.version_key(label.version))
        return newest.text, f"Baseline: {newest.text}."
    slowest = max(complete, key=lambda text: (geometric_mean([_latency(case, text) for case in rankable]), text))
    return slowest, f"Baseline: {slowest}, the slowest that is ok in every case."


def _standing(label: Label, rankable: list[CaseRow], complete: bool, baseline: str | None) -> Standing:
    text = label.text
    mine = [case for case in rankable if text in case.ranked]
    leading = [(case, case.leaders[case.measured[text].precision]) for case in mine]
    alone = [case for case, leaders in leading if leaders == (text,)]
    unopposed = sum(len(case.rivals(text)) == 1 for case in alone)
    ratios = [case.ratio(text, baseline) for case in mine] if baseline is not None else []
    known = [ratio for ratio in ratios if ratio is not None]
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
        slowdown=geometric_mean([_latency(case, text) / _latency(case, case.fastest[0]) for case in mine]),
        marks=("mixed versions",) if len(used) > 1 else (),
        precision=next((case.measured[text].precision for case in mine if case.measured[text].precision), ""),
    )


def _latency(case: CaseRow, text: str) -> float:
    latency = case.measured[text].latency_ms
    assert latency is not None
    return latency


def geometric_mean(values: list[float]) -> float:
    """Geometric mean of positive numbers; infinity for none."""
    return math.exp(math.fsum(math.log(value) for value in values) / len(values)) if values else math.inf
