"""Which GPUs of one name are one device: those among which sweeps shared out their cases. Others are told apart.

A GPU is its UUID, wherever it is: two hosts may have one name.
"""

from __future__ import annotations

from collections import defaultdict

from attnsweep.errors import Status
from attnsweep.report.load import Row
from attnsweep.report.text import line

#: What two GPUs must have in common to have measured the same.
_SAME = ("impl", "variant", "compile", "scenario", "case", "cache")

#: What tells one process of a sweep from all others.
_PROCESS = (*_SAME, "replicate", "timing", "protocol", "impl_version", "measurement")

#: Characters of a UUID that are shown, if they tell the GPUs of a report apart: GPU- and eight digits.
_SHOWN = 12


def told_apart(rows: list[Row], names: list[str]) -> list[str]:
    """`names` of the rows' devices, with the GPU where several of a name and host measured the same.

    A row that does not know its GPU is of its sweep's; where that had several that are told apart it is unknown.
    """
    machines: dict[tuple[object, ...], list[int]] = defaultdict(list)
    for index, (row, name) in enumerate(zip(rows, names, strict=True)):
        machines[name, row["hostname"]].append(index)
    shown = _short({row["gpu_uuid"] for row in rows if row["gpu_uuid"]})
    full = list(names)
    for indices in machines.values():
        its = [rows[index] for index in indices]
        devices = _devices(its)
        if not _measured_twice(its, devices):
            continue
        of_sweep: dict[object, set[frozenset[str]]] = defaultdict(set)
        for row in its:
            if row["gpu_uuid"]:
                of_sweep[row["sweep"]].add(devices[row["gpu_uuid"]])
        for index, row in zip(indices, its, strict=True):
            able = {devices[row["gpu_uuid"]]} if row["gpu_uuid"] else of_sweep[row["sweep"]]
            full[index] += f", {_name(next(iter(able)), shown) if len(able) == 1 else 'unknown GPU'}"
    return full


def _devices(rows: list[Row]) -> dict[str, frozenset[str]]:
    """By GPU of one host's rows all those that are one device with it: among which a sweep shared out its cases.

    A sweep measures each process of a cell once: GPUs that measured the same one under a sweep's name were in different
    sweeps of that name, and had nothing to do with each other. The one with most results is asked first.
    """
    sweeps: dict[object, dict[str, set[tuple[object, ...]]]] = defaultdict(lambda: defaultdict(set))
    for row in rows:
        if row["gpu_uuid"]:
            done = sweeps[row["sweep"]][row["gpu_uuid"]]
            done |= {tuple(row.get(name) for name in _PROCESS)} if row["status"] == Status.OK else set()
    devices = {uuid: frozenset({uuid}) for boards in sweeps.values() for uuid in boards}
    for boards in sweeps.values():
        teams: list[tuple[set[str], set[tuple[object, ...]]]] = []
        for uuid in sorted(boards, key=lambda one: (-len(boards[one]), one)):
            team = next((one for one in teams if not one[1] & boards[uuid]), None)
            if team is None:
                teams.append(team := (set(), set()))
            team[0].add(uuid)
            team[1].update(boards[uuid])
        for uuids, _ in teams:
            joined = frozenset[str]().union(*(devices[uuid] for uuid in uuids))
            devices.update(dict.fromkeys(joined, joined))
    return devices


def _measured_twice(rows: list[Row], devices: dict[str, frozenset[str]]) -> bool:
    """Whether two devices have a result of the same."""
    seen: dict[tuple[object, ...], frozenset[str]] = {}
    return any(
        seen.setdefault(tuple(row[name] for name in _SAME), devices[row["gpu_uuid"]]) != devices[row["gpu_uuid"]]
        for row in rows
        if row["gpu_uuid"] and row["status"] == Status.OK
    )


def _short(uuids: set[str]) -> dict[str, str]:
    """Each UUID's first characters, as many as tell it from the others."""
    longest = max(map(len, uuids), default=0)
    length = next((n for n in range(_SHOWN, longest) if len({uuid[:n] for uuid in uuids}) == len(uuids)), longest)
    return {uuid: line(uuid[:length]) for uuid in uuids}


def _name(device: frozenset[str], shown: dict[str, str]) -> str:
    first, *others = sorted(device)
    return shown[first] + (f" and {len(others)} more" if others else "")
