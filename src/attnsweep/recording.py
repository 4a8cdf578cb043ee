"""An ending becomes a record: the one place where what a cell said and what the pool saw meet."""

from __future__ import annotations

import os
import re
import statistics
import time
from collections.abc import Callable, Container, Mapping
from dataclasses import asdict
from datetime import datetime, timezone
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attnsweep import identity, impls, metrics, parquet
from attnsweep.case import Case
from attnsweep.environment import machine
from attnsweep.errors import RecordError, Status
from attnsweep.impls.fields import LIMITS
from attnsweep.records import MEASURED, Record
from attnsweep.schema import Check

if TYPE_CHECKING:
    from attnsweep.devices import Device
    from attnsweep.plan import Cell
    from attnsweep.pool.ending import Ending

#: Clock reasons (names of devices.Sensors) that hold nothing back: nothing to do, and clocks that somebody set.
_HARMLESS = frozenset({"gpu_idle", "applications_clocks_setting"})


def write_known(cell: Cell, status: Status, reason: str, folder: Path) -> Record:
    """Write the record of a cell that needs no process: its implementation cannot do the case, or is not here."""
    record = Record(
        {
            **cell.columns,
            "gpu_uuid": None,  # of several GPUs none has seen it
            "status": status.value,
            "reason": cut_paths(reason),
            "flags": sorted(_unchecked(cell)),
            "started_at": datetime.now(timezone.utc).isoformat(timespec="milliseconds"),
        }
    )
    parquet.write(record, folder / f"{cell.id}.parquet")
    return record


def write(
    cell: Cell,
    device: Device,
    ending: Ending,
    folder: Path,
    clock: Callable[[], float] = time.monotonic,
) -> Record:
    """Write the record of an ending that has a status, and return it.

    It is written twice: to a name that nobody reads, to know what writing takes, then with that time in
    `wall_s` and `overhead_s` to its own; neither holds `ending.looked_s`. Raises OSError where the folder cannot
    be written.
    """
    columns = row(cell, device, ending)
    rehearsal = folder / f".{cell.id}.rehearsal"
    parquet.write(_record(columns, cell), rehearsal)
    wall_s = clock() - ending.requested_s - ending.looked_s
    rehearsal.unlink()
    columns["wall_s"] = wall_s
    if ending.outcome is not None:
        columns["overhead_s"] = wall_s - sum(_stages(ending).values())
    record = _record(columns, cell)
    parquet.write(record, folder / f"{cell.id}.parquet")
    return record


#: Names that `write` and `parquet.write` give to what is not finished, hidden from whoever looks for records.
_UNFINISHED = re.compile(r"\.{1,2}(?P<cell>.+?)\.(parquet|rehearsal)(\.\d+\.tmp)?")


def discard_unfinished(cells: Container[str], folder: Path) -> None:
    """Remove what a killed sweep was writing of these cells; nobody else may be recording them. Raises OSError."""
    for name in os.listdir(folder):
        found = _UNFINISHED.fullmatch(name)
        if found and found["cell"] in cells:
            (folder / name).unlink()


def _record(columns: dict[str, Any], cell: Cell) -> Record:
    """The record of these columns, or where they contradict each other one of status error that says how."""
    try:
        return Record(columns)
    except RecordError as error:
        kept = ("started_at", "wall_s", "overhead_s", "gpu_uuid")
        return Record(
            {
                **cell.columns,
                **{name: columns[name] for name in kept if name in columns},
                "status": Status.ERROR.value,
                "reason": cut_paths(f"its outcome makes no record: {error}"),
                "flags": sorted(_unchecked(cell)),
            }
        )


def row(cell: Cell, device: Device, ending: Ending) -> dict[str, Any]:
    """The record's columns of an ending, but for the two that writing it decides.

    What only a measured cell may carry is dropped unless the status is ok; error numbers stay.
    """
    assert ending.status is not None
    outcome = ending.outcome or {}
    columns: dict[str, Any] = {**cell.columns, **machine(device), **_stages(ending, "_s")}
    columns.update({name: value for name, value in (outcome.get("columns") or {}).items() if value is not None})
    if isinstance(columns.get("unproven_reason"), str):  # as an outcome's columns should be
        columns["unproven_reason"] = cut_paths(columns["unproven_reason"])
    telemetry = ending.telemetry
    columns.update(
        status=Status(ending.status).value,
        reason=None if ending.reason is None else cut_paths(ending.reason),
        traceback=None if ending.traceback is None else cut_paths(ending.traceback),
        exit_signal=ending.exit_signal,
        started_at=ending.started_at,
        other_gpus_in_use=ending.other_gpus_in_use,
        telemetry=[{**sample, "time_s": sample["time_s"] - ending.requested_s} for sample in telemetry] or None,
    )
    windows = outcome.get("windows") or {}
    inside = _inside(telemetry, windows.get("burst"))
    columns.update(_summary(inside))
    flags = ending.flags.union(columns.get("flags") or [])
    if set(columns["throttle"] or []) - _HARMLESS:
        flags |= {"throttled"}
    flags |= _unchecked(cell)
    if ending.status is Status.OK and columns.get("latency_ms"):
        columns.update(_under_load(_inside(telemetry, windows.get("load")), columns.get("sustained_ms")))
        flags |= _rated(columns, cell, inside)
    else:
        columns = {name: value for name, value in columns.items() if name not in MEASURED}
    columns["flags"] = sorted(flags)
    return columns


def _unchecked(cell: Cell) -> set[str]:
    """The flag of a cell that is not held to the check that attnsweep comes with, whether or not it came that far: a
    report lets none of its kind speak over what was.
    """
    if not impls.is_attention(cell.payload["impl"]):
        return set()
    if not cell.payload["check"]["enabled"]:
        return {"unchecked"}
    return {"loose_check"} if _loosened(cell) else set()


def _loosened(cell: Cell) -> bool:
    """Whether the check of a cell's output allows more than the shipped one does."""
    precision = impls.precision(cell.payload["impl"])
    if precision is not None:
        return bool(precision["cosine"] < LIMITS["cosine"] or precision["rel_l1"] > LIMITS["rel_l1"])
    applied = identity.applying(cell.payload["check"], cell.payload["case"]["direction"])
    shipped = asdict(Check())
    return any(limit > shipped[name] for name, limit in applied.items() if name != "enabled")


def _rated(columns: dict[str, Any], cell: Cell, inside: list[Mapping[str, Any]]) -> set[str]:
    """Put the rates into the columns of a measured cell; the flag `implausible` where they cannot be."""
    work = impls.work(cell.payload["impl"], Case.from_dict(cell.payload["case"]))
    latency_ms, name, sm_count = columns["latency_ms"], columns["device_name"], columns.get("sm_count")
    # NVML's reading is the rests' too; what the GPU counted is the blocks' alone
    clock_mhz = columns.get("burst_clock_mhz", columns["sm_clock_mhz"])
    columns.update(metrics.rates(work, latency_ms, name, clock_mhz, sm_count))
    clocks = [sample["sm_clock_mhz"] for sample in inside if sample.get("sm_clock_mhz") is not None]
    clocks += columns.get("block_clock_mhz", [])
    # The fastest of what may rank, at the highest clock seen, by either: impossible is what no reading makes possible
    ranking = [columns.get(one) for one in ("latency_ms", "events_ms", "kernel_ms", "sustained_ms")]
    why = metrics.implausible(
        work,
        min(one for one in ranking if one is not None),
        name,
        cold=columns["cache"] == "cold",
        sm_clock_mhz=max(clocks, default=None),
        sm_count=sm_count,
        native=columns.get("precision_class", "native") == "native",
    )
    return set() if why is None else {"implausible"}


def _stages(ending: Ending, suffix: str = "") -> dict[str, float]:
    stages = (ending.outcome or {}).get("stages") or {}
    return {f"{name}{suffix}": float(seconds) for name, seconds in stages.items()}


def _inside(telemetry: list[dict[str, Any]], window: list[float] | None) -> list[Mapping[str, Any]]:
    """The readings of the device in a window of the outcome; none where it was not opened."""
    if window is None:
        return []
    begin, end = window
    return [sample for sample in telemetry if begin <= sample["time_s"] <= end]


def _summary(samples: list[Mapping[str, Any]]) -> dict[str, Any]:
    """The record's machine columns of these readings; None where nothing was read."""
    return {
        "sm_clock_mhz": _reduced(samples, "sm_clock_mhz", statistics.median),
        "mem_clock_mhz": _reduced(samples, "mem_clock_mhz", statistics.median),
        "power_w": _reduced(samples, "power_w", statistics.fmean),
        "temperature_c": _reduced(samples, "temperature_c", max),
        "throttle": _reasons(samples),
    }


def _under_load(samples: list[Mapping[str, Any]], sustained_ms: float | None) -> dict[str, Any]:
    """The record's columns of the readings under the steady load; none where no latency was taken there."""
    if sustained_ms is None:
        return {}
    mean_w = _reduced(samples, "power_w", statistics.fmean)
    counted_w = _counted_power_w(samples)
    power_w = mean_w if counted_w is None else counted_w
    return {
        "load_power_w": mean_w,
        "load_throttle": _reasons(samples),
        "energy_mj": None if power_w is None else power_w * sustained_ms,
    }


def _counted_power_w(samples: list[Mapping[str, Any]]) -> float | None:
    """The mean power by the energy counter; None where it did not move twice.

    The counter stands still for tens of ms, so only the readings at which it had moved say when it had a value.
    """
    read = [(sample["time_s"], sample["energy_mj"]) for sample in samples if sample.get("energy_mj") is not None]
    moved = [after for before, after in pairwise(read) if after[1] != before[1]]
    if len(moved) < 2:
        return None
    (begin_s, begin_mj), (end_s, end_mj) = moved[0], moved[-1]
    return float((end_mj - begin_mj) / (end_s - begin_s) / 1e3)


def _reduced(samples: list[Mapping[str, Any]], key: str, reduce: Callable[[list[float]], float]) -> float | None:
    values = [float(sample[key]) for sample in samples if sample.get(key) is not None]
    return reduce(values) if values else None


def _reasons(samples: list[Mapping[str, Any]]) -> list[str] | None:
    """The throttle reasons seen, each once; None where nothing was read."""
    return sorted({reason for sample in samples for reason in sample.get("throttle") or []}) if samples else None


#: A path in quotes may hold spaces; a bare one ends at the first character that no tool prints in a path.
_PATH = re.compile(r"""(?<=")/[^"\n]+(?=")|(?<=')/[^'\n]+(?=')|(?<![\w.~/<>-])/[^\s"'`:;,()\[\]{}<>|]+""")

#: What a path is cut to, first match first: an installed package, this package, the standard library.
_CUTS = (
    re.compile(r".*/(?:site|dist)-packages/(.+)"),
    re.compile(r".*/(attnsweep/.+)"),
    re.compile(r".*/lib(?:64)?/(python3\.\d+/.+)"),
)


def cut_paths(text: str) -> str:
    """The text with its paths cut to the package: nothing of where home and the working folder are."""
    text = _PATH.sub(lambda match: _cut(match[0]), text)
    # What is left of the two by their very names, wherever it stands: a bare path with blanks is no _PATH
    for folder, short in ((os.getcwd(), "."), (os.path.expanduser("~"), "~")):
        for name in sorted({folder, os.path.realpath(folder)} - {"/"}):
            whole = rf"(?<![\w.-]){re.escape(name)}"
            text = re.sub(rf"{whole}/(?=[\w.-])", "" if short == "." else f"{short}/", text)
            text = re.sub(rf"{whole}(?![\w.-])", short, text)
    return text


def _cut(path: str) -> str:
    for pattern in _CUTS:
        found = pattern.fullmatch(path)
        if found:
            return found[1]
    return path
