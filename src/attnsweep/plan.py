"""A sweep before it runs: its cells, which of them have an outcome, and about how long the others take."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from attnsweep import limits
from attnsweep.devices import Device
from attnsweep.errors import Status
from attnsweep.interpreters import Interpreter

#: Seconds: what a cell takes for compiling; and beside that and its samples (process, inputs, check).
_COMPILE_S = {"eager": 0.0, "compile": 5.0, "max_autotune": 40.0}
_BESIDE_S = {"cuda": 1.0, "cpu": 0.7}

#: What a CPU calls besides (to warm up, and for the checks, whose reference is slower), in calls of a slow CPU: 0.9 to
#: 9 in naive's and SDPA's prefill of 2048 and 4096 tokens on two cores, 4 over them all.
_CALLS_BESIDE = 4


@dataclass(frozen=True)
class Cell:
    """One isolated process to be: what the worker gets, what its record already knows, and where it runs.

    `payload` is the worker's JSON; `columns` are record columns known before it runs; `unsupported` is why it
    never needs to run; cells of one `group` (a case) run on the same slot, in order. `timeout_s` is the whole deadline,
    `phases` are those within it.
    """

    id: str
    payload: dict[str, Any]
    columns: dict[str, Any]
    interpreter: Interpreter
    timeout_s: float
    unsupported: str | None
    group: str
    phases: limits.Phases = limits.UNBOUNDED


@dataclass(frozen=True)
class Outcome:
    """What a record says in short."""

    status: Status
    latency_ms: float | None
    reason: str | None
    flags: tuple[str, ...]
    precision_class: str | None = None
    gpu_uuid: str | None = None


@dataclass(frozen=True)
class Plan:
    """A sweep before it runs.

    `cells` are all of them in running order; `done` are the outcomes of those that have a record and need no
    other, by id; `damaged` says of what stands in the place of a record why it is none; `missing` says by id what
    cells are known to lack.
    """

    name: str
    folder: Path
    devices: tuple[Device, ...]
    cells: tuple[Cell, ...]
    done: dict[str, Outcome]
    damaged: tuple[str, ...] = ()
    missing: Mapping[str, str] = field(default_factory=dict)

    @property
    def open(self) -> tuple[Cell, ...]:
        """The cells without a record, in running order; unsupported and missing ones too, which only get a record."""
        return tuple(cell for cell in self.cells if cell.id not in self.done)

    @property
    def to_run(self) -> tuple[Cell, ...]:
        """The open cells that need a process."""
        return tuple(cell for cell in self.open if cell.unsupported is None and cell.id not in self.missing)

    @property
    def estimate_s(self) -> float:
        """About how long the open cells take: sampling to the cap, load, compiling, what isolation costs, and on a CPU
        what a call takes; each as long as it may at most.
        """
        return sum(min(_seconds(cell), cell.timeout_s) for cell in self.to_run) / len(self.devices)

    def record_path(self, cell_id: str) -> Path:
        """Where the record of a cell is."""
        return self.cells_folder / f"{cell_id}.parquet"

    @property
    def cells_folder(self) -> Path:
        """The folder of records and logs."""
        return self.folder / "cells"


def _seconds(cell: Cell) -> float:
    timing, device = cell.payload["timing"], cell.columns["device"]
    seconds = float(timing["time_cap_s"]) + _load_s(timing) + _BESIDE_S[device]
    seconds += _COMPILE_S[limits.kind(cell.payload["compile"])]
    if device == "cpu":
        seconds += _CALLS_BESIDE * float(cell.columns["flops"]) / limits.SLOW_FLOPS["cpu"]
    return seconds


def _load_s(timing: dict[str, Any]) -> float:
    """How long a load takes that is steady at once."""
    return float(timing["soak_s"]) + 2 * float(timing["window_s"]) if timing["sustained"] else 0.0
