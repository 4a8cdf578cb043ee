"""What a report is made of: tables of cases side by side, who is fastest in each case, and the standings."""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from attnsweep.report.aggregate import Measurement, ratio, unbeaten
from attnsweep.report.labels import Label
from attnsweep.report.load import Row

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
    quantised class with the lowest latency. It holds one label where it wins, several where no other beats them (a
    tie), none where nothing is ranked; the lowest latency by `timer` comes first. `primary` is false where kernel_ms or
    events_ms stands in for latencies of different timers.
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
        """For each precision that is ranked the labels that nothing of it beats, in the order of `fastest`."""
        return {precision: unbeaten(its) for precision, its in self.classes.items()}

    @cached_property
    def by_kernel(self) -> tuple[str, ...]:
        """The ranked labels that have their kernels' time alone, beside others that have another timer; else none."""
        found = tuple(text for text, one in self.ranked.items() if one.by_kernel)
        return found if len(found) < len(self.ranked) else ()

    @cached_property
    def named(self) -> tuple[str, ...]:
        """`fastest` as it is told: of equals one with a kernel of its own before one that was given another's."""
        return tuple(sorted(self.fastest, key=lambda text: self.borrowed(text)))

    def borrowed(self, text: str) -> bool:
        """Whether the compiler put another implementation's kernel in this one's place."""
        return "substituted" in self.measured[text].marks

    def alike(self, text: str) -> tuple[str, ...]:
        """The others of `fastest` for which the very kernels of a label were seen running; no variants of one
        implementation, whose fields may be constants of kernels that have one name.
        """
        mine = self.measured[text]
        others = ((other, self.measured[other]) for other in self.fastest if other != text)
        return tuple(
            other
            for other, its in others
            if mine.program
            and its.program == mine.program
            and (its.label.impl != mine.label.impl or its.label.variant == mine.label.variant)
        )

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
        """How many times as fast as `over` a label is; None unless both are ranked, with a time in common."""
        mine, other = self.ranked.get(text), self.ranked.get(over)
        return None if mine is None or other is None else ratio(mine, other)

    def tokens_per_s(self, text: str) -> float | None:
        """Query tokens per second at a label's latency; None where it has none."""
        latency_ms, batch, queries = self.measured[text].latency_ms, self.fields["batch_size"], self.fields["q_len"]
        return None if latency_ms is None or not batch or not queries else batch * queries / (latency_ms * 1e-3)


@dataclass(frozen=True)
class Standing:
    """How one label did over a table: `wins` alone, `ties`, `unopposed` (no rival is ranked), `cases`.

    Wins and ties are counted among results of its own `precision`, which is empty for the case's. `speedup` over the
    baseline is a geometric mean over `speedup_cases`, `slowdown` against the fastest of each case one over
    `slowdown_cases`, those of `cases` in which the two can be compared.
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
    slowdown: float | None
    slowdown_cases: int
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

    `older` counts rows of older versions, `superseded` and `outweighed` those left out for the reasons of
    pooling.Choice.
    """

    sections: tuple[Section, ...]
    rows: tuple[Row, ...]
    labels: tuple[Label, ...]
    devices: tuple[str, ...]
    older: int
    superseded: int = 0
    outweighed: int = 0

    @cached_property
    def largest(self) -> tuple[Section, ...]:
        """The LARGEST sections with most results, in the report's order."""
        by_size = sorted(self.sections, key=lambda section: -sum(len(case.ranked) for case in section.cases))
        kept = {section.key for section in by_size[:LARGEST]}
        return tuple(section for section in self.sections if section.key in kept)
