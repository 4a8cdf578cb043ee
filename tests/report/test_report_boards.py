"""Two GPUs of one model are never taken for one, whatever their hosts are called, and neither hides the other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from report_records import prefill, values, write

from attnsweep.errors import Status
from attnsweep.report import load
from attnsweep.report.accuracy import accuracy_table
from attnsweep.report.build import write_report
from attnsweep.report.compiling import compile_table
from attnsweep.report.derive import derive
from attnsweep.report.labels import device_names
from attnsweep.report.machines import machine_table
from attnsweep.report.sections import Derived

SHORT, LONG = prefill(1, 2048), prefill(1, 4096)
A, B, C, D = (f"GPU-{letter * 8}-0000-0000-0000-000000000000" for letter in "abcd")


def run(uuid: str | None, minute: int = 0, points: Any = (SHORT, LONG), **columns: Any) -> list[dict[str, Any]]:
    """What a sweep on one GPU records: naive and fa2 twice, all of it as slow as the GPU's letter is late."""
    slow = 1.0 if uuid is None else 1.0 + "abcd".index(uuid[4])
    return [
        values(point, impl, mode, replicate=replicate, latency_ms=slow * ms, gpu_uuid=uuid, **columns)
        | {"started_at": f"2026-11-20T10:{minute:02d}:00+00:00", "kernel_ms": None, "events_ms": slow * ms}
        for point in points
        for impl, mode, ms in (("naive", "eager", 8.0), ("fa2", "default", 2.0))
        for replicate in range(2)
    ]


def derived(folder: Path, *runs: list[dict[str, Any]]) -> Derived:
    """All of them, each in a folder of its own below one folder of results, as the report has them."""
    for number, rows in enumerate(runs):
        write(folder / str(number) / str(rows[0]["sweep"]), rows)
    return derive(load.load([folder]).rows())


def figures(found: Derived) -> dict[str, set[tuple[str, float | None, int, str]]]:
    """By device every latency: of whom, how long, by how many processes, on which GPUs."""
    told: dict[str, set[tuple[str, float | None, int, str]]] = {}
    for section in found.sections:
        for case in section.cases:
            for one in case.measured.values():
                seen = (one.label.impl, one.latency_ms, one.ok, " ".join(one.texts("gpu_uuid")))
                told.setdefault(section.key.device, set()).add(seen)
    return told


SAME_HOST = {"hostname": "vm"}


def test_a_sweep_shared_out_stays_together_beside_another_of_its_name(tmp_path: Path) -> None:
    """Hosts of one name: what measured everything itself is apart, and those that shared it out are one device."""
    parts = [run(uuid, points=(point,), **SAME_HOST) for uuid, point in ((B, SHORT), (C, LONG))]
    found = derived(tmp_path, run(A, **SAME_HOST), *parts)
    assert {name: len(told) for name, told in figures(found).items()} == {
        "NVIDIA H200, GPU-aaaaaaaa": 2,
        "NVIDIA H200, GPU-bbbbbbbb and 1 more": 4,
    }


def test_a_cold_and_a_hot_sweep_measured_different_things(tmp_path: Path) -> None:
    """One GPU took the cold cells and another the hot ones: nothing was measured twice."""
    found = derived(tmp_path, run(A, **SAME_HOST, sweep="x"), run(B, **SAME_HOST, sweep="y", cache="hot"))
    assert {section.key.device for section in found.sections} == {"NVIDIA H200"}


@pytest.mark.parametrize("changed", [{"timing": "standard"}, {"protocol": 9}, {"measurement": "ab"}, {"cache": "hot"}])
def test_a_sweep_that_goes_on_otherwise_is_on_the_same_device(tmp_path: Path, changed: dict[str, Any]) -> None:
    """Shared out over two GPUs, then one of them measures all with other settings: not the same measured twice."""
    parts = [run(uuid, points=(point,), **SAME_HOST) for uuid, point in ((A, SHORT), (B, LONG))]
    found = derived(tmp_path, *parts, run(A, 5, **SAME_HOST, **changed))
    assert {section.key.device for section in found.sections} == {"NVIDIA H200"}


@pytest.mark.parametrize("newer", [A, B])
@pytest.mark.parametrize(
    ("one", "other", "devices"),
    [
        ({"sweep": "x"}, {"sweep": "y"}, ["NVIDIA H200, GPU-aaaaaaaa", "NVIDIA H200, GPU-bbbbbbbb"]),
        ({}, {}, ["NVIDIA H200, GPU-aaaaaaaa", "NVIDIA H200, GPU-bbbbbbbb"]),
        ({"hostname": "one"}, {"hostname": "two"}, ["NVIDIA H200 on one", "NVIDIA H200 on two"]),
    ],
    ids=["two sweeps of a host, or of two of one name", "one sweep's name, on two hosts of one name", "two hosts"],
)
def test_the_same_cases_on_two_gpus_are_two_devices(
    tmp_path: Path, one: dict[str, str], other: dict[str, str], devices: list[str], newer: str
) -> None:
    """Each has all of its own numbers and none of the other's, whichever is newer, in every table of latencies."""
    found = derived(tmp_path, run(A, int(newer == A), **SAME_HOST | one), run(B, int(newer == B), **SAME_HOST | other))
    assert figures(found) == {
        devices[0]: {("naive", 8.0, 2, A), ("fa2", 2.0, 2, A)},
        devices[1]: {("naive", 16.0, 2, B), ("fa2", 4.0, 2, B)},
    }
    assert found.superseded == 0
    assert {mark for s in found.sections for c in s.cases for one in c.measured.values() for mark in one.marks} == set()


def test_gpus_among_which_a_sweep_shared_out_its_cases_are_one_device(tmp_path: Path) -> None:
    """One table; each case is of one GPU, also after another sweep that shared the same cases out otherwise."""
    first = run(A, points=[SHORT]) + run(B, points=[LONG])
    found = derived(tmp_path / "one", first)
    assert figures(found) == {
        "NVIDIA H200": {("naive", 8.0, 2, A), ("fa2", 2.0, 2, A), ("naive", 16.0, 2, B), ("fa2", 4.0, 2, B)}
    }
    later = run(B, 5, points=[SHORT], sweep="later") + run(A, 5, points=[LONG], sweep="later")
    again = derived(tmp_path / "two", first, later)
    assert figures(again) == figures(found)
    assert again.superseded == 8


def test_gpus_that_measured_nothing_of_the_same_are_one_device(tmp_path: Path) -> None:
    """Then there is nothing to tell apart, and what they measured of one case is compared, with a mark."""
    rows = [run(A)[:2], [row | {"sweep": "later"} for row in run(B)[2:4]]]
    assert [row["impl"] for its in rows for row in its] == ["naive", "naive", "fa2", "fa2"]
    found = derived(tmp_path, *rows)
    assert figures(found) == {"NVIDIA H200": {("naive", 8.0, 2, A), ("fa2", 4.0, 2, B)}}
    (case,) = found.sections[0].cases
    assert {text for text, one in case.measured.items() if "other_gpu" in one.marks} != set()


def test_a_sweep_that_went_on_with_another_gpu_is_one_device(tmp_path: Path) -> None:
    """The case that was under way has processes of both, and the newer speak; nobody's cases are torn apart."""
    found = derived(tmp_path, run(A, points=[SHORT])[::2] + run(B, 5, points=[SHORT])[1::2] + run(B, 9, points=[LONG]))
    assert figures(found) == {
        "NVIDIA H200": {("naive", 16.0, 1, B), ("fa2", 4.0, 1, B), ("naive", 16.0, 2, B), ("fa2", 4.0, 2, B)}
    }


def test_groups_of_gpus_are_told_apart_by_their_first(tmp_path: Path) -> None:
    """Two sweeps on two GPUs each, and as many characters of a UUID as it takes."""
    rows = [
        run(A, points=[SHORT]) + run(B, points=[LONG]),
        run(C, points=[SHORT], sweep="y") + run(D, points=[LONG], sweep="y"),
    ]
    assert figures(derived(tmp_path, *rows)).keys() == {
        "NVIDIA H200, GPU-aaaaaaaa and 1 more",
        "NVIDIA H200, GPU-cccccccc and 1 more",
    }
    alike = [values(SHORT, gpu_uuid=uuid) for uuid in ("GPU-12345678-1", "GPU-12345678-2")]
    assert device_names(alike) == ["NVIDIA H200, GPU-12345678-1", "NVIDIA H200, GPU-12345678-2"]


def test_what_does_not_know_its_gpu_is_of_its_sweeps(tmp_path: Path) -> None:
    """Where two hosts of one name had one sweep's name nobody can say, and it says that; a newer one still counts."""
    missing = values(SHORT, "fa3", status=Status.MISSING, impl_version=None) | {"gpu_uuid": None}
    rows = [*run(A, sweep="x"), *run(B, sweep="y")]
    assert device_names([*rows, missing | {"sweep": "y"}])[-1] == "NVIDIA H200, GPU-bbbbbbbb"
    assert device_names([*run(A), *run(B), missing])[-1] == "NVIDIA H200, unknown GPU"
    lost = values(SHORT, status=Status.CRASHED) | {"gpu_uuid": None, "started_at": "2026-11-20T11:00:00+00:00"}
    assert [row["status"] for row in load.load([write(tmp_path, [values(SHORT), lost])]).rows()] == [Status.CRASHED]


def test_the_host_is_said_beside_the_gpu() -> None:
    """Where another host has the same model too."""
    rows = [*run(A, hostname="one"), *run(B, hostname="one"), *run(C, hostname="two")]
    assert sorted(set(device_names(rows))) == [
        "NVIDIA H200 on two",
        "NVIDIA H200, GPU-aaaaaaaa on one",
        "NVIDIA H200, GPU-bbbbbbbb on one",
    ]


def test_no_other_table_mixes_them_either(tmp_path: Path) -> None:
    """Errors, compile times and clocks have a row or a column of each GPU, and the page and its plots are written."""
    rows = [row | {"err_ratio": 1.0, "compile_s": row["compile_s"] and 3.0} for row in run(A)]
    rows += [row | {"err_ratio": 1.5, "compile_s": row["compile_s"] and 9.0} for row in run(B)]
    loaded = load.load([write(tmp_path, rows)])
    found = derive(loaded.rows())
    a, b = "NVIDIA H200, GPU-aaaaaaaa", "NVIDIA H200, GPU-bbbbbbbb"
    compiled = [[cell.text for cell in row] for row in compile_table(found).rows]
    assert [row[:5] for row in compiled] == [
        ["fa2 (default)", a, "2", "4", "3.00"],
        ["fa2 (default)", b, "2", "4", "9.00"],
    ]
    errors = [[cell.text for cell in row] for row in accuracy_table(found).rows]
    assert [(row[0], row[1], row[5]) for row in errors] == [
        ("fa2 (default)", a, "1.00"), ("fa2 (default)", b, "1.50"), ("naive", a, "1.00"), ("naive", b, "1.50"),
    ]  # fmt: skip
    assert [column.title for column in machine_table(found).columns] == ["", f"{a} on node-1", f"{b} on node-1"]
    write_report(found, loaded, tmp_path / "report")
    plots = {path.stem for path in (tmp_path / "report" / "plots").iterdir()}
    assert {name.split("gpu-")[1][:8] for name in plots} == {"aaaaaaaa", "bbbbbbbb"}
