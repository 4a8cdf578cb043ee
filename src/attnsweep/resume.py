"""What a sweep's folder already holds: the cells with a record that stands, and those to be measured again."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import fields, replace
from itertools import count
from pathlib import Path
from typing import Any

from attnsweep import parquet
from attnsweep.errors import RecordError, Status
from attnsweep.plan import Outcome, Plan


def reopened(plan: Plan, *, force: bool, rerun: Iterable[str]) -> Plan:
    """The plan with `done` as the folder has it now: cells with a record that can be read whole, but for those to
    be measured again.

    `force` opens every cell, `rerun` those whose record has one of these statuses.
    """
    again = {Status(status) for status in rerun}
    done, damaged = {}, []
    for cell in plan.cells:
        path = plan.record_path(cell.id)
        if force or not os.path.lexists(path):
            continue
        try:
            outcome = _read(path)
        except RecordError as error:
            damaged.append(str(error))
            continue
        if outcome.status not in again:
            done[cell.id] = outcome
    return replace(plan, done=done, damaged=tuple(damaged))


def set_aside(plan: Plan) -> None:
    """Move what stands in the place of open cells' records to cells/replaced/, which no report reads.

    What is there already stays: the second file of a cell is called `<id>.2.parquet`. From then on a cell has a record
    exactly where this run, or one that goes on with it, has measured it. Raises OSError.
    """
    for cell in plan.open:
        path = plan.record_path(cell.id)
        if os.path.lexists(path):
            replaced = plan.cells_folder / "replaced"
            replaced.mkdir(exist_ok=True)
            os.replace(path, _unused(replaced, path))


def _unused(folder: Path, path: Path) -> Path:
    """The first of this name and its successors, `name.2.parquet` and on, that nothing in `folder` has."""
    names = (path.name if number == 1 else f"{path.stem}.{number}{path.suffix}" for number in count(1))
    return next(folder / name for name in names if not os.path.lexists(folder / name))


def begun(plan: Plan) -> dict[str, str]:
    """By case, the UUID of the device that measured most of it so far, whichever sweeps filled the folder; nothing
    where there is but one device.
    """
    measured: dict[str, Counter[str]] = {}
    if len(plan.devices) > 1:
        for path in sorted(plan.cells_folder.glob("*.parquet")):
            # A record that cannot be read says nothing of where it was measured
            with suppress(RecordError):
                for row in parquet.read([path]).select(["case", "gpu_uuid", "latency_ms"]).to_pylist():
                    if None not in (row["gpu_uuid"], row["latency_ms"]):
                        measured.setdefault(row["case"], Counter())[row["gpu_uuid"]] += 1
    return {case: uuids.most_common(1)[0][0] for case, uuids in measured.items()}


def outcome_of(values: Mapping[str, Any]) -> Outcome:
    """The outcome in a record's columns. Raises KeyError or ValueError where they are no record's."""
    return Outcome(
        Status(values["status"]),
        values["latency_ms"],
        values["reason"],
        tuple(values["flags"] or ()),
        values["precision_class"],
        values["gpu_uuid"],
    )


def _read(path: Path) -> Outcome:
    """The outcome in a cell's file; RecordError where that is not, whole, the record of that cell."""
    if not path.is_file():
        raise RecordError(f"{path} is not a file")
    names = ["cell_id", *(field.name for field in fields(Outcome))]
    rows = parquet.read([path]).select(names).to_pylist()
    if [row["cell_id"] for row in rows] != [path.stem]:
        raise RecordError(f"{path} holds no record of that cell")
    try:
        return outcome_of(rows[0])
    except ValueError as error:
        raise RecordError(f"{path}: {error}") from None
