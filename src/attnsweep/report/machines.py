"""Where the numbers come from: hosts, devices, drivers, libraries, clocks and power, dates."""

from __future__ import annotations

from collections import defaultdict

from attnsweep.report.load import Row, moment
from attnsweep.report.sections import Derived
from attnsweep.report.tables import Cell, Column, Table
from attnsweep.report.text import line, listing, span

_TEXTS = (
    ("driver", "driver"),
    ("CUDA", "cuda"),
    ("cuDNN", "cudnn"),
    ("torch", "torch"),
    ("triton", "triton"),
    ("JAX", "jax"),
    ("jaxlib", "jaxlib"),
    ("Python", "python"),
    ("attnsweep", "attnsweep"),
    ("timing preset", "timing"),
    ("study", "study"),
    ("sweep", "sweep"),
)
_RANGES = (
    ("SM clock while timing, by NVML, rests included", "sm_clock_mhz", "MHz"),
    ("SM clock in bursts, by counters", "burst_clock_mhz", "MHz"),
    ("SM clock under load, by counters", "load_clock_mhz", "MHz"),
    ("memory clock while timing", "mem_clock_mhz", "MHz"),
    ("power while timing, by NVML, rests included", "power_w", "W"),
    ("power under load", "load_power_w", "W"),
    ("power limit", "power_limit_w", "W"),
    ("highest temperature", "temperature_c", "C"),
)


def machine_table(derived: Derived) -> Table:
    """One column for each device of each host, one row for each thing known about it."""
    groups: dict[tuple[str, str], list[Row]] = defaultdict(list)
    for row, device in zip(derived.rows, derived.devices, strict=True):
        groups[(device, line(row["hostname"]) or "unknown host")].append(row)
    described = {key: _describe(*key, rows) for key, rows in sorted(groups.items())}
    names = [name for name in next(iter(described.values())) if any(one[name] for one in described.values())]
    rows = tuple(
        (Cell(name), *(Cell(one[name] or "-", dim=not one[name]) for one in described.values())) for name in names
    )
    columns = (
        Column(""),
        *(Column(device if device.endswith(f" on {host}") else f"{device} on {host}") for device, host in described),
    )
    return Table("Machines", (), columns, rows)


def _describe(device: str, host: str, rows: list[Row]) -> dict[str, str]:
    said = {"device": device, "host": host, "GPUs used": _distinct(rows, "gpu_uuid", counted=True)}
    said["SMs"] = _distinct(rows, "sm_count")
    said |= {name: _distinct(rows, column) for name, column in _TEXTS}
    for name, column, unit in _RANGES:
        said[name] = span([row[column] for row in rows if row[column] is not None], unit)
    for name, column in (("throttle reasons seen", "throttle"), ("throttle reasons under load", "load_throttle")):
        said[name] = ", ".join(sorted({line(reason) for row in rows for reason in row[column] or []}))
    started = sorted(moment(row["started_at"]) for row in rows if row["started_at"])
    if started:
        first, last = (f"{one:%Y-%m-%d %H:%M}" for one in (started[0], started[-1]))
        said["measured (UTC)"] = first if first == last else f"{first} to {last}"
    else:
        said["measured (UTC)"] = ""
    said["records"] = str(len(rows))
    return said


def _distinct(rows: list[Row], column: str, counted: bool = False) -> str:
    values = sorted({line(row[column]) for row in rows if row[column] not in (None, "")})
    return (str(len(values)) if values else "") if counted else ", ".join(values)


def library_table(derived: Derived) -> Table:
    """The versions of the libraries that provide the implementations."""
    groups: dict[tuple[str, str], dict[str, None]] = defaultdict(dict)
    for row, label in zip(derived.rows, derived.labels, strict=True):
        if row["impl_version"]:
            key = (line(row["distribution"]) or label.impl, line(row["impl_version"]))
            groups[key][label.impl] = None
    rows = tuple(
        (Cell(distribution), Cell(version), Cell(listing(sorted(names))))
        for (distribution, version), names in sorted(groups.items())
    )
    columns = (Column("distribution"), Column("version"), Column("implementations"))
    return Table("Libraries", () if rows else ("No record names a version.",), columns, rows)
