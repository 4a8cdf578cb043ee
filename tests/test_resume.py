"""What has a record is done: a sweep goes on with the rest, and measures again what it is told to."""

from __future__ import annotations

import importlib.metadata
from dataclasses import replace
from pathlib import Path

import pytest

from attnsweep import environment, resume
from attnsweep.errors import Status
from attnsweep.plan import Outcome
from plans import make, record
from sweeps import combination, impl, one_case


def test_what_has_a_record_is_done_and_the_rest_is_open(tmp_path: Path) -> None:
    """Whatever its status was."""
    planned = make(tmp_path, combination("a"), combination("b"))
    done = planned.cells[1:4]
    for cell, status in zip(done, (Status.OK, Status.CRASHED, Status.UNSUPPORTED), strict=True):
        record(planned, cell, status)
    again = make(tmp_path, combination("a"), combination("b"))
    assert {one: outcome.status for one, outcome in again.done.items()} == {
        done[0].id: Status.OK,
        done[1].id: Status.CRASHED,
        done[2].id: Status.UNSUPPORTED,
    }
    assert again.done[done[0].id].latency_ms == 0.5
    assert [cell.id for cell in again.open] == [cell.id for cell in planned.cells if cell not in done]


def test_rerun_opens_cells_of_these_statuses_and_force_all(tmp_path: Path) -> None:
    """Under the same ids, so that their records are replaced."""
    planned = make(tmp_path)
    statuses = (Status.OK, Status.CRASHED, Status.TIMEOUT, Status.ERROR, Status.OOM, Status.OK)
    for cell, status in zip(planned.cells, statuses, strict=True):
        record(planned, cell, status)
    rerun = make(tmp_path, rerun=("crashed", "timeout"))
    assert [cell.id for cell in rerun.open] == [cell.id for cell in planned.cells[1:3]]
    assert make(tmp_path).open == ()
    assert len(make(tmp_path, force=True).open) == 6


def test_a_damaged_record_is_none(tmp_path: Path) -> None:
    """Cut short, empty, or without its columns: measured again."""
    planned = make(tmp_path)
    for cell in planned.cells:
        record(planned, cell, Status.OK)
    cut, empty, other = (planned.record_path(cell.id) for cell in planned.cells[:3])
    cut.write_bytes(cut.read_bytes()[:-10])
    empty.write_bytes(b"")
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"x": [1]}), other)
    assert [cell.id for cell in make(tmp_path).open] == [cell.id for cell in planned.cells[:3]]


def test_a_library_upgrade_opens_its_cells_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Old records stay beside the new cells."""
    several = [combination("a"), combination("b", impl=impl("b", distribution="other"))]
    planned = make(tmp_path, *several)
    for cell in planned.cells:
        record(planned, cell, Status.OK)
    monkeypatch.setattr(environment, "own_version", lambda name: "9" if name == "other" else planned_version)
    planned_version = planned.cells[0].columns["impl_version"] or importlib.metadata.version("torch")
    after = make(tmp_path, *several)
    assert {cell.columns["impl"] for cell in after.open} == {"b"}
    assert len(after.open) == 6
    assert all(planned.record_path(cell.id).is_file() for cell in planned.cells)


def test_records_to_be_measured_again_are_set_aside(tmp_path: Path) -> None:
    """Moved to a folder that no report reads, those to be kept untouched; then nothing is done but what is kept."""
    planned = make(tmp_path, combination())
    planned.cells_folder.mkdir(parents=True)
    for cell in planned.cells:
        planned.record_path(cell.id).write_bytes(cell.id.encode())
    kept = planned.cells[0].id
    outcome = Outcome(Status.OK, 1.0, None, ())
    resume.set_aside(replace(planned, done={kept: outcome}))
    assert [path.stem for path in planned.cells_folder.glob("*.parquet")] == [kept]
    aside = {path.stem: path.read_text() for path in (planned.cells_folder / "replaced").iterdir()}
    assert aside == {cell.id: cell.id for cell in planned.cells[1:]}


def test_what_was_set_aside_before_stays(tmp_path: Path) -> None:
    """Measured again and again: each earlier record of a cell is kept under a name of its own, a dangling link too."""
    planned = make(tmp_path, combination(scenario=one_case()))
    planned.cells_folder.mkdir(parents=True)
    (cell,) = planned.cells
    for time in ("first", "second", "third"):
        planned.record_path(cell.id).write_text(time)
        resume.set_aside(planned)
    planned.record_path(cell.id).symlink_to("nowhere")
    resume.set_aside(planned)
    planned.record_path(cell.id).write_text("fifth")
    resume.set_aside(planned)
    folder = planned.cells_folder / "replaced"
    found = {path.name: path.read_text() for path in folder.iterdir() if not path.is_symlink()}
    names = [f"{cell.id}{number}.parquet" for number in ("", ".2", ".3", ".5")]
    assert found == dict(zip(names, ("first", "second", "third", "fifth"), strict=True))
