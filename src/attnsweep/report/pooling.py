"""Which records of one label and case are one measurement, and which of several measurements speaks."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from attnsweep.errors import Status
from attnsweep.report.load import CONFIGURATION, Row, moment

#: What is measured, and where: the newest of it counts.
SUBJECT = ("hostname", "gpu_uuid", "driver", "torch", "jax", "impl_version", "protocol", CONFIGURATION)

#: What processes must have in common to be processes of one measurement.
AGREE = (*SUBJECT, "timing", "sweep")

#: Flags of outputs that were not held to the check that attnsweep comes with.
_UNCHECKED = frozenset({"unchecked", "loose_check"})


@dataclass(frozen=True)
class Choice:
    """Indices of a label's rows in a case: those that `speaks` for it, and those left out for either reason.

    `superseded` are of another machine, software or configuration than the newest, or were less strictly checked.
    `outweighed` differ in timing preset or sweep alone, and have fewer processes that are ok, or as many and older.
    """

    speaks: tuple[int, ...]
    superseded: tuple[int, ...]
    outweighed: tuple[int, ...]


def choose(rows: list[Row]) -> Choice:
    """Of the groups of rows that agree with each other the one that speaks.

    The newest says what is measured, and where; of the groups of that, which differ in timing preset or sweep alone,
    the one with most processes that are ok speaks, of equals the newest, but none from before a group with an incorrect
    output. Groups whose outputs were checked loosely, or not at all, count where there are no others, or where even so
    one was incorrect. A field that a record does not know (it failed before it could ask, or is of an older version)
    agrees with any value.
    """
    started = [moment(row["started_at"]) for row in rows]
    groups = _groups(rows, started)

    def latest(group: _Group) -> datetime:
        return max(started[one] for one in group.members)

    def having(group: _Group, status: Status) -> int:
        return sum(rows[one]["status"] == status for one in group.members)

    def checked(group: _Group) -> bool:
        return not any(_UNCHECKED & set(rows[one]["flags"] or ()) for one in group.members)

    trusted = [group for group in groups if checked(group) or having(group, Status.INCORRECT)] or groups
    same = _subject(sorted(trusted, key=latest, reverse=True))
    wrong = [latest(group) for group in same if having(group, Status.INCORRECT)]
    able = [group for group in same if not wrong or latest(group) >= max(wrong)]
    best = max(able, key=lambda group: (having(group, Status.OK), latest(group)))
    return Choice(
        speaks=tuple(sorted(best.members)),
        superseded=tuple(sorted(one for group in groups if group not in same for one in group.members)),
        outweighed=tuple(sorted(one for group in same if group is not best for one in group.members)),
    )


@dataclass(frozen=True)
class _Group:
    """Indices of rows that agree with each other, and what they know of AGREE together."""

    pattern: Row
    members: list[int]


def _groups(rows: list[Row], started: list[datetime]) -> list[_Group]:
    groups: list[_Group] = []
    newest_first = sorted(range(len(rows)), key=lambda one: started[one], reverse=True)
    # The best informed come first: what they know decides where the others belong.
    for index in sorted(newest_first, key=lambda one: sum(map(_unknown, map(rows[one].get, AGREE)))):
        group = next((one for one in groups if _agree(one.pattern, rows[index], AGREE)), None)
        if group is None:
            groups.append(group := _Group(dict.fromkeys(AGREE), []))
        group.members.append(index)
        _learn(group.pattern, rows[index])
    return groups


def _subject(groups: list[_Group]) -> list[_Group]:
    """Of groups, the newest first, those that may be of one subject: the first, and what contradicts none of these."""
    pattern: Row = dict.fromkeys(AGREE)
    same = []
    for group in groups:
        if _agree(pattern, group.pattern, SUBJECT):
            same.append(group)
            _learn(pattern, group.pattern)
    return same


def _learn(pattern: Row, row: Row) -> None:
    """What a row knows beyond those before it holds for whoever comes next."""
    pattern.update({name: row.get(name) for name in AGREE if _unknown(pattern[name])})


def _agree(one: Row, other: Row, names: tuple[str, ...]) -> bool:
    return all(_unknown(one.get(name)) or _unknown(other.get(name)) or one[name] == other[name] for name in names)


def _unknown(value: object) -> bool:
    return value in (None, "")
