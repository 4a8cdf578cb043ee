"""Which processes are one measurement, which of several measurements speaks, and how devices stay apart."""

from __future__ import annotations

from typing import Any

import pytest
from report_records import prefill, values

from attnsweep.errors import Status
from attnsweep.report.build import content_of
from attnsweep.report.derive import derive
from attnsweep.report.load import Loaded
from attnsweep.report.machines import machine_table
from attnsweep.report.notes import Footnotes
from attnsweep.report.pooling import newest_group
from attnsweep.report.sections import Derived
from attnsweep.report.summary import standings_table

POINT = prefill(1, 2048)


def at(minute: int, latency_ms: float | None = 1.0, **columns: Any) -> dict[str, Any]:
    return values(POINT, latency_ms=latency_ms, started_at=f"2026-11-20T10:{minute:02d}:00+00:00", **columns)


def only(derived: Derived) -> Any:
    assert len(derived.sections) == 1
    return derived.sections[0].cases[0].measured["fa2"]


@pytest.mark.parametrize("column", ["gpu_uuid", "driver", "torch", "jax", "timing", "sweep"])
def test_what_differs_is_not_pooled_and_the_newest_speaks(column: str) -> None:
    """The older measurement is not in the number, the reader is told, and it is not counted among the processes."""
    rows = [(0, 1.0, "one"), (5, 3.0, "other"), (1, 1.2, "one")]
    derived = derive([at(minute, ms, replicate=n, **{column: said}) for n, (minute, ms, said) in enumerate(rows)])
    one = only(derived)
    assert (one.latency_ms, one.ok, one.marks) == (3.0, 1, ("superseded",))
    assert (len(derived.rows), derived.superseded) == (1, 2)
    assert "superseded" in dict(Footnotes(derived).legend())["a"]


def test_what_another_board_measured_than_the_rest_of_its_case_is_marked() -> None:
    """Boards of one model differ; a failure, or a case of its own on another board, is no reason for a mark."""
    rows = [at(0, 1.0, impl=name, gpu_uuid="GPU-1") for name in ("fa2", "naive")]
    rows += [at(1, 1.0, impl="late", gpu_uuid="GPU-2")]
    rows += [values(POINT, status=Status.OOM, impl="failed", gpu_uuid="GPU-2")]
    derived = derive(rows)
    measured = derived.sections[0].cases[0].measured
    assert {name: one.marks for name, one in measured.items() if one.marks} == {"late": ("other_gpu",)}
    assert "other_gpu" in dict(Footnotes(derived).legend())["a"]
    assert derive([row | {"gpu_uuid": None} for row in rows]).sections[0].cases[0].measured["late"].marks == ()


def test_replicates_that_agree_are_pooled() -> None:
    """Two processes of one sweep, without a mark."""
    one = only(derive([at(0, 1.0), at(1, 3.0, replicate=1)]))
    assert (one.latency_ms, one.ok, one.marks) == (2.0, 2, ())


def test_a_failure_that_knows_nothing_belongs_to_its_sweep() -> None:
    """It died before it could ask for driver, torch and GPU: it makes the cell partial and opens no group."""
    lost = values(POINT, status=Status.CRASHED, started_at="2026-11-20T10:09:00+00:00")
    lost |= {"driver": None, "torch": None, "gpu_uuid": None}
    assert newest_group([at(0), lost]) == [0, 1]
    one = only(derive([at(0), lost]))
    assert (one.status, one.marks) == (Status.OK, ("partial",))


def test_what_does_not_know_its_gpu_brings_no_two_together() -> None:
    """It agrees with either of two that do not agree, and is of one of them: no median goes over both."""
    lacking = [at(9, 1.0, gpu_uuid=None), *(at(n, float(n), gpu_uuid=f"GPU-{n}", driver=None) for n in (2, 8))]
    assert newest_group(lacking) == [0, 2]


def test_a_newer_sweep_that_failed_speaks_too() -> None:
    """An old time is no answer once the same no longer works."""
    broken = values(POINT, status=Status.CRASHED, sweep="later", started_at="2026-11-20T10:09:00+00:00")
    assert only(derive([at(0), broken])).status == Status.CRASHED


def test_records_without_a_time_do_not_fail() -> None:
    """The earliest there is."""
    assert newest_group([at(0) | {"started_at": None}, at(0, sweep="b")]) == [1]


def test_two_hosts_are_two_devices() -> None:
    """Each has its table under its own name; with one host the name stays clean."""
    derived = derive([at(0), at(1, hostname="node-2")])
    assert [section.key.device for section in derived.sections] == ["NVIDIA H200 on node-1", "NVIDIA H200 on node-2"]
    assert [column.title for column in machine_table(derived).columns[1:]] == [
        "NVIDIA H200 on node-1", "NVIDIA H200 on node-2",
    ]  # fmt: skip
    assert [section.key.device for section in derive([at(0)]).sections] == ["NVIDIA H200"]


def test_what_was_superseded_is_said(tmp_path: Any) -> None:
    """In the lead of the report."""
    import pyarrow as pa

    derived = derive([at(0), at(1, sweep="later")])
    lead = content_of(derived, Loaded(pa.table({}), 1, 0, ()), ()).lead
    assert "1 record superseded by newer measurements of the same left out." in lead


def test_a_mean_over_different_versions_is_marked() -> None:
    """One case has only the old library, another only the new: the geometric mean mixes both."""
    other = prefill(1, 4096)
    rows = [values(POINT, impl_version="2.8"), values(other, impl_version="2.9")]
    rows += [values(point, "naive") for point in (POINT, other)]
    derived = derive(rows)
    notes = Footnotes(derived)
    rows_shown = standings_table(derived.sections[0], notes).rows
    marks = {row[0].text: [cell.marks for cell in row if cell.marks] for row in rows_shown}
    assert marks == {"fa2": [("a",), ("a",)], "naive": []}
    assert notes.legend()[0][1].startswith("mixed versions: ")
