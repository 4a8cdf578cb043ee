"""From records to tables: which rows speak for a case, in which table they stand, and by which timer it is ranked."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, replace

from attnsweep.errors import Status
from attnsweep.report import labels as naming
from attnsweep.report import standings
from attnsweep.report.aggregate import measure
from attnsweep.report.labels import Label
from attnsweep.report.load import Row
from attnsweep.report.pooling import choose
from attnsweep.report.sections import CASE_FIELDS, CaseRow, Derived, Key
from attnsweep.report.text import line

#: The labels that have each mark.
Marks = Mapping[str, frozenset[Label]]


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
    wanted = None if baseline is None else standings.chosen(baseline, labels)
    tables: dict[Key, list[CaseRow]] = defaultdict(list)
    cases: dict[tuple[Key, str], list[int]] = defaultdict(list)
    keys = [_key(row, device) for row, device in zip(rows, devices, strict=True)]
    for index, (row, places) in enumerate(zip(rows, _places(rows, keys), strict=True)):
        for key in places:
            cases[(key, str(row["case"]))].append(index)
    spoken: set[int] = set()
    superseded: set[int] = set()
    for (key, _), found in cases.items():
        said = _speakers(found, rows, labels)
        spoken.update(said.indices)
        superseded.update(said.superseded)
        indices = said.indices
        for timer, case in _cases([rows[i] for i in indices], [labels[i] for i in indices], said.marks):
            tables[replace(key, timer=timer)].append(case)
    sections = [standings.ranked(key, tables[key], wanted) for key in sorted(tables, key=_order)]
    kept = sorted(spoken)
    return Derived(
        sections=tuple(sections),
        rows=tuple(rows[index] for index in kept),
        labels=tuple(labels[index] for index in kept),
        devices=tuple(devices[index] for index in kept),
        older=older,
        superseded=len(superseded - spoken),
        outweighed=len(rows) - len(spoken | superseded),
    )


@dataclass(frozen=True)
class _Speakers:
    """Of one case's rows those that speak for their labels, those that are superseded, and marks by label for both
    reasons to leave some out.
    """

    indices: list[int]
    superseded: list[int]
    marks: Marks


def _speakers(indices: list[int], rows: list[Row], labels: list[Label]) -> _Speakers:
    groups: dict[Label, list[int]] = defaultdict(list)
    for index in indices:
        groups[labels[index]].append(index)
    chosen = {label: choose([rows[index] for index in its]) for label, its in groups.items()}
    return _Speakers(
        sorted(groups[label][place] for label, its in chosen.items() for place in its.speaks),
        sorted(groups[label][place] for label, its in chosen.items() for place in its.superseded),
        {
            "superseded": frozenset(label for label, its in chosen.items() if its.superseded),
            "outweighed": frozenset(label for label, its in chosen.items() if its.outweighed),
        },
    )


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


def _cases(rows: list[Row], labels: list[Label], marks: Marks) -> list[tuple[str, CaseRow]]:
    """One case as rows of tables: one where a timer is common to all that is ok, else one for each timer.

    Common is the primary one, or that by which all were measured as well: the kernels' own time, then events. Beside
    graphs a call too long for one stands by events, whose own 3 us are nothing in it. A label that has its kernels'
    time alone stands beside the others by that, and says nothing of what is common to them.
    """
    groups: dict[Label, list[Row]] = defaultdict(list)
    for row, label in zip(rows, labels, strict=True):
        groups[label].append(row)
    used = {label: {_timer(row) for row in its if row["status"] == Status.OK} for label, its in groups.items()}
    apart = frozenset(label for label, timers in used.items() if timers == {"kernel"})
    every = [row for row in rows if row["status"] == Status.OK]
    ok = [row for row, label in zip(rows, labels, strict=True) if row["status"] == Status.OK and label not in apart]
    if not ok:
        ok, apart = every, frozenset()
    timers = sorted({_timer(row) for row in ok})
    if timers == ["events", "graph"] and all(_too_long(row) for row in ok if row["timer"] == "events"):
        timers = ["graph"]
    if len(timers) <= 1:
        # Where nothing is ok, the timer that the case would have been ranked on is still said.
        planned = sorted({str(row["timer"]) for row in rows if row["timer"]})
        name = timers[0] if timers else planned[0] if len(planned) == 1 else ""
        return [("", _case(groups, "latency_ms", name, marks, apart))]
    for timer in ("kernel", "events"):
        if all(row[f"{timer}_ms"] is not None and row[f"{timer}_ms"] > 0 for row in ok):
            return [("", _case(groups, f"{timer}_ms", timer, marks, apart))]
    split = []
    for timer in sorted({_timer(row) for row in every}):
        part: dict[Label, list[Row]] = {}
        for label, its in groups.items():
            mine = [r for r in its if r["status"] != Status.OK or _timer(r) == timer]
            if mine:
                part[label] = mine
        split.append((timer, _case(part, "latency_ms", timer, marks)))
    return split


def _timer(row: Row) -> str:
    return str(row["timer"] or "unknown")


#: From here on, in ms, an event pair's own 3 us are 0.3 % of a call at most.
_LONG_MS = 1.0


def _too_long(row: Row) -> bool:
    """Whether a call that has no graph is so long that events say as much, with its launches hidden."""
    flags = set(row["flags"] or ())
    return "graph_unsupported" in flags and "unhidden" not in flags and (row["latency_ms"] or 0.0) >= _LONG_MS


def _case(
    groups: dict[Label, list[Row]], column: str, timer: str, marks: Marks, apart: frozenset[Label] = frozenset()
) -> CaseRow:
    """One case by `column`, but the labels of `apart` by their latency, which is their kernels' time."""
    told = frozenset[Label]() if column == "kernel_ms" else apart
    extra = {**marks, "other_gpu": _elsewhere(groups), "kernel_time": told}
    measured = {
        label.text: measure(
            label,
            rows,
            "latency_ms" if label in apart else column,
            tuple(mark for mark, its in extra.items() if label in its),
        )
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


def _elsewhere(groups: dict[Label, list[Row]]) -> frozenset[Label]:
    """The labels that another GPU measured than most of the case, of GPUs with as many than the first by name."""
    used = {label: {row["gpu_uuid"] for row in rows if row["status"] == Status.OK} for label, rows in groups.items()}
    boards = Counter(board for its in used.values() for board in its)
    home = set(sorted(boards, key=lambda board: (-boards[board], str(board)))[:1])
    return frozenset(label for label, its in used.items() if its - home)
