"""Which records of one label and case may be pooled: those of one machine, software and sweep, the newest."""

from __future__ import annotations

from datetime import datetime

from attnsweep.report.load import Row, moment

#: What processes must have in common to be processes of one measurement.
AGREE = ("hostname", "gpu_uuid", "driver", "torch", "jax", "impl_version", "timing", "protocol", "sweep")


def newest_group(rows: list[Row]) -> list[int]:
    """Indices of the rows that speak for a label in a case: those that agree with each other and started last.

    A field that a record does not know (it failed before it could ask) agrees with any value.
    """
    groups: list[tuple[Row, list[int]]] = []
    started = [moment(row["started_at"]) for row in rows]
    # The best informed come first: what they know decides where the others belong.
    for index in sorted(range(len(rows)), key=lambda one: (_unknown(rows[one]), -_order(started[one]), one)):
        for pattern, members in groups:
            if all(_agree(pattern[name], rows[index][name]) for name in AGREE):
                members.append(index)
                # What it knows beyond the others holds for whoever comes next
                pattern.update({name: rows[index][name] for name in AGREE if pattern[name] in (None, "")})
                break
        else:
            groups.append(({name: rows[index][name] for name in AGREE}, [index]))
    newest = max((members for _, members in groups), key=lambda members: max(started[one] for one in members))
    return sorted(newest)


def _unknown(row: Row) -> int:
    return sum(row[name] in (None, "") for name in AGREE)


def _agree(one: object, other: object) -> bool:
    return one in (None, "") or other in (None, "") or one == other


def _order(when: datetime) -> float:
    """A time as a number that also exists for the earliest there is."""
    return when.toordinal() * 86400.0 + when.hour * 3600 + when.minute * 60 + when.second + when.microsecond * 1e-6
