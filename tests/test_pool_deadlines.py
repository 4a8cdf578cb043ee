"""Deadlines of phases with real processes: what works lives on, what sleeps does not, and nothing lives for ever."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import processes
from attnsweep.errors import Status
from attnsweep.limits import Phases
from attnsweep.plan import Cell
from attnsweep.pool import cputime
from attnsweep.pool.deadlines import Standing
from processes import cell, sweep


@pytest.fixture(autouse=True)
def marker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A world of its own for each test, and no process left after it."""
    yield from processes.alone(tmp_path, monkeypatch)


def limited(do: str, limits: Phases, **payload: Any) -> Cell:
    """A cell that does what `fakes.<do>` does, within these limits."""
    return replace(cell(do, **payload), phases=limits)


@pytest.mark.parametrize(("phase", "where"), [("prepare", "itself"), ("compile", "child"), ("prepare", "daemon")])
def test_a_cell_that_uses_the_cpu_beyond_its_limit_comes_to_its_end(tmp_path: Path, phase: str, where: str) -> None:
    """As a slow compile does, in the cell, in a child of it in a session of its own, or in a daemon."""
    working = limited("burn", Phases(prepare_s=1.2, compile_s=1.2), phase=phase, where=where, seconds=1.9)
    end = sweep(tmp_path, working)["burn"]
    assert end.status is Status.OK, end.reason
    assert end.ended_s - end.requested_s > 1.9


@pytest.mark.parametrize("phase", ["inputs", "compile"])
def test_a_cell_that_sleeps_ends_at_its_limit(tmp_path: Path, phase: str) -> None:
    """The reason has the phase, the limit, that it was idle, and the setting; the traceback has the place."""
    end = sweep(tmp_path, limited("sleep", Phases(prepare_s=1.0, compile_s=1.0), phase=phase))["sleep"]
    setting = {"inputs": "prepare_s", "compile": "compile_s"}[phase]
    assert end.status is Status.TIMEOUT
    late = rf"still running after its deadline of 1 s \(in phase {phase}\)"
    assert re.fullmatch(rf"{late}: no CPU time for 0\.\d+ s; pool\.{setting} raises it", end.reason)
    assert "in sleep" in end.traceback
    assert 1.0 <= end.ended_s - end.requested_s < 2.5


def test_a_cell_that_works_for_ever_ends_at_three_times_its_limit(tmp_path: Path) -> None:
    """The reason says that it was busy until then."""
    spins = limited("burn", Phases(compile_s=1.0), phase="compile", where="itself", seconds=600)
    end = sweep(tmp_path, spins)["burn"]
    assert end.status is Status.TIMEOUT
    said = (
        r"still running after 3 times its deadline of 1 s \(in phase compile\): "
        r"still busy, \d\.\d s of CPU in the last \S+ s; pool\.compile_s raises it"
    )
    assert re.fullmatch(said, end.reason)
    assert 3.0 <= end.ended_s - end.requested_s < 5.0


@pytest.mark.parametrize(("phase", "setting"), [("check", "check_s"), ("proof", "time_s"), ("timing", "time_s")])
def test_checks_and_timing_end_at_their_limit_whatever_they_use(tmp_path: Path, phase: str, setting: str) -> None:
    """And a cell that is timed is not looked at."""
    limits = Phases(prepare_s=30.0, check_s=0.5, time_s=0.5)
    end = sweep(tmp_path, limited("burn", limits, phase=phase, where="itself", seconds=600))["burn"]
    assert end.status is Status.TIMEOUT
    assert end.reason == f"still running after its deadline of 0.5 s (in phase {phase}); pool.{setting} raises it"


def test_cpu_time_is_not_read_while_a_cell_is_timed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once a second before, never in it."""
    looks: list[int] = []
    below = cputime.below
    monkeypatch.setattr(cputime, "below", lambda pid: looks.append(pid) or below(pid))  # type: ignore[func-returns-value]
    sweep(tmp_path, limited("burn", Phases(time_s=1.5), phase="timing", where="itself", seconds=600))
    assert looks == []
    sweep(tmp_path, limited("burn", Phases(), phase="compile", where="itself", seconds=1.5))
    assert len(looks) == 1


def test_whoever_watches_is_told_phase_age_and_cores(tmp_path: Path) -> None:
    """At the start, when another limit holds, and at each look."""
    told: list[tuple[str, Standing]] = []
    working = limited("burn", Phases(compile_s=2.0), phase="compile", where="child", seconds=1.5)
    end = sweep(tmp_path, working, watching=lambda one, standing: told.append((one.id, standing)))["burn"]
    assert end.status is Status.OK
    assert {one for one, _ in told} == {"burn"}
    standings = [standing for _, standing in told]
    assert [one.phase for one in standings][:3] == ["prepare", "compile", "compile"]
    assert standings[1].since_s > standings[0].begun_s == standings[1].begun_s
    assert max(one.cores or 0.0 for one in standings) > 0.1
