"""Plans of a few combinations, and records put where a sweep would."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from attnsweep import parquet, planning
from attnsweep.compose import Combination
from attnsweep.devices import Device
from attnsweep.errors import Status
from attnsweep.plan import Cell, Plan
from attnsweep.records import Record
from sweeps import CPU, combination, one_case, settings


def make(tmp_path: Path, *combinations: Combination, device: Device = CPU, **changed: Any) -> Plan:
    """The plan of these combinations, or of one with six cases, on this device; `changed` are settings."""
    return planning.make(settings(tmp_path, **changed), combinations or [combination()], [device])


def only(tmp_path: Path, one: Combination | None = None, device: Device = CPU, **changed: Any) -> Cell:
    """The cell of a combination with a single case."""
    one = combination(scenario=one_case()) if one is None else one
    (cell,) = make(tmp_path, one, device=device, **changed).cells
    return cell


def record(planned: Plan, cell: Cell, status: Status) -> None:
    """Put a record of that status where a sweep would."""
    planned.cells_folder.mkdir(parents=True, exist_ok=True)
    rest = {"latency_ms": 0.5} if status is Status.OK else {"reason": "because"}
    parquet.write(Record({**cell.columns, "status": status.value, **rest}), planned.record_path(cell.id))
