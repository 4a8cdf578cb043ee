"""A whole sweep: what runs, what is kept, what is said, and the exit code; mostly with a pool that starts nothing."""

from __future__ import annotations

import io
import itertools
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from attnsweep import devices, environment, identity, parquet, planning, pool, recording, sweep
from attnsweep.compose import Combination
from attnsweep.devices import Device
from attnsweep.errors import AttnsweepError, ConfigError, Status
from attnsweep.folder_lock import held
from attnsweep.plan import Cell
from attnsweep.pool.ending import Ending
from attnsweep.schema import PoolSettings
from distributions import installed
from sweeps import (
    CPU,
    DEFAULT,
    GPU,
    PREFILL,
    FakePool,
    combination,
    ending,
    failed,
    fake_pool,
    impl,
    measured,
    one_case,
    settings,
)

Answer = Callable[[Cell], Ending | str]


def ok(cell: Cell) -> Ending:
    return ending(measured())


@pytest.fixture
def answered(monkeypatch: pytest.MonkeyPatch) -> Callable[[Answer], type[FakePool]]:
    """Put a fake pool in the place of the real one, on a CPU."""
    monkeypatch.setattr(devices, "find", lambda kind, gpus: [CPU])

    def put(answer: Answer) -> type[FakePool]:
        fake = fake_pool(answer)
        monkeypatch.setattr(pool, "Pool", fake)
        return fake

    return put


Answered = Callable[[Answer], type[FakePool]]


def run(tmp_path: Path, *combinations: Combination, shared: bool = False, **changed: Any) -> int:
    several = list(combinations) or [combination()]
    return sweep.run(settings(tmp_path, **changed), several, shared=shared)


def rows(tmp_path: Path) -> list[dict[str, Any]]:
    found = parquet.read(sorted((tmp_path / "s" / "cells").glob("*.parquet"))).to_pylist()
    return [dict(one) for one in found]


# Running


def test_every_cell_gets_a_record_and_success_is_zero(tmp_path: Path, answered: Answered) -> None:
    """Two implementations, six cases: twelve files, nothing else but the lock."""
    fake = answered(ok)
    assert run(tmp_path, combination("a"), combination("b")) == 0
    assert len(fake.ran) == len(rows(tmp_path)) == 12
    assert {row["status"] for row in rows(tmp_path)} == {"ok"}
    assert sorted(os.listdir(tmp_path / "s")) == [".lock", "cells"]
    assert all(name.endswith(".parquet") for name in os.listdir(tmp_path / "s" / "cells"))


def test_the_pool_gets_the_open_cells_in_order_and_the_settings(tmp_path: Path, answered: Answered) -> None:
    """The plan's order, the folder for logs, the grace between signals."""
    seen: dict[str, Any] = {}

    class Pool(answered(ok)):  # type: ignore[misc]
        def __init__(self, given: list[Device], **options: Any) -> None:
            super().__init__(given, **options)
            seen.update(options, devices=given)

    pool.Pool = Pool  # type: ignore[misc]
    one = settings(tmp_path)
    sweep.run(replace(one, pool=replace(one.pool, grace_s=1.5)), [combination()])
    planned = planning.make(one, [combination()], [CPU])
    assert Pool.ran == [cell.id for cell in planned.cells]
    assert seen["devices"] == [CPU]
    assert seen["grace_s"] == 1.5
    assert seen["log_folder"] == tmp_path / "s" / "cells"


@pytest.mark.parametrize(
    ("statuses", "code"),
    [
        ((Status.OK, Status.OK), 0),
        ((Status.OK, Status.UNSUPPORTED), 0),
        ((Status.OK, Status.MISSING), 0),
        ((Status.OK, Status.OOM), 0),
        ((Status.OK, Status.INCORRECT), 1),
        ((Status.OK, Status.COMPILE_ERROR), 1),
        ((Status.OK, Status.TIMEOUT), 1),
        ((Status.OK, Status.CRASHED), 1),
        ((Status.OK, Status.ERROR), 1),
        ((Status.MISSING, Status.OOM), 1),
        ((Status.OK, None), 1),
    ],
)
def test_the_exit_code_goes_by_the_statuses(
    tmp_path: Path, answered: Answered, statuses: tuple[Status, Status | None], code: int
) -> None:
    """0: all recorded, one ok, none a failure of its own doing. A cell that was interrupted has no record."""
    answers = dict(zip(("a", "b"), statuses, strict=True))

    def answer(cell: Cell) -> Ending:
        status = answers[cell.columns["impl"]]
        if status is None:
            return ending()
        return ending(measured() if status is Status.OK else failed(status))

    answered(answer)
    both = [combination(name, scenario=one_case()) for name in ("a", "b")]
    assert run(tmp_path, *both) == code
    assert len(rows(tmp_path)) == 2 - statuses.count(None)


def test_unsupported_cells_are_recorded_without_a_process(tmp_path: Path, answered: Answered) -> None:
    """The pool never sees them; their rows say why."""
    fake = answered(ok)
    assert run(tmp_path, combination("a"), combination("b", impl=impl("b", supports={"dtypes": ["bf16"]}))) == 0
    assert len(fake.ran) == 6
    found = {(row["impl"], row["status"], row["reason"]) for row in rows(tmp_path)}
    assert found == {("a", "ok", None), ("b", "unsupported", "dtype fp32 is not among bf16")}


def test_what_is_known_to_be_missing_is_recorded_without_a_process(tmp_path: Path, answered: Answered) -> None:
    """A library that is not in this interpreter; where variables of its own may show it, a process looks."""
    fake = answered(ok)
    library: dict[str, Any] = {"_target_": "attnsweep.impls.FunctionAttention", "function": "no_such_library.attention"}
    library["arguments"] = {"causal": "causal"}
    elsewhere = {**library, "env": {"variables": {"PYTHONUSERBASE": "/somewhere"}}}
    assert run(tmp_path, combination(), combination(impl=impl("b", **library))) == 0
    assert len(fake.ran) == 6
    absent = [row for row in rows(tmp_path) if row["impl"] == "b"]
    assert {row["status"] for row in absent} == {"missing"}
    assert {row["reason"] for row in absent} == {
        "No module named 'no_such_library'; install it with: pip install torch"
    }
    assert {row["wall_s"] for row in absent} == {None}
    assert len(answered(ok).ran) == 0
    later = answered(ok)
    assert run(tmp_path, combination(impl=impl("c", **elsewhere))) == 0
    assert len(later.ran) == 6


def test_what_is_too_old_is_recorded_without_a_process(
    tmp_path: Path, answered: Answered, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In this interpreter and in another; where variables of its own may show a newer one, a process looks."""
    info = installed(tmp_path / "site", "older", "1.0.6")
    (info.parent / "older.py").write_text("raise SystemExit('it was imported')")
    monkeypatch.syspath_prepend(str(info.parent))
    library: dict[str, Any] = {"_target_": "attnsweep.impls.FunctionAttention", "function": "older.attention"}
    library |= {"arguments": {"causal": "causal"}, "distribution": "older", "min_version": "2"}
    variables = {"variables": {"PYTHONPATH": str(info.parent)}}
    several = [
        combination("a"),
        combination("b", impl=impl("b", **library)),
        combination("c", impl=impl("c", **library, env={"python": sys.executable, **variables})),
        combination("d", impl=impl("d", **library, env=variables)),
    ]
    fake = answered(ok)
    assert run(tmp_path, *several) == 0
    assert len(fake.ran) == 12
    found = {(row["impl"], row["status"], row["reason"], row["impl_version"]) for row in rows(tmp_path)}
    sentence = "older 1.0.6 is below 2; install it with: pip install 'older>=2'"
    assert {one for one in found if one[0] in "bc"} == {(name, "missing", sentence, "1.0.6") for name in "bc"}


def test_a_framework_that_has_no_gpu_here_is_recorded_without_a_process(
    tmp_path: Path, answered: Answered, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is asked of the device that the sweep is for, and not for a CPU."""
    monkeypatch.setattr(environment, "why_no_gpu", lambda framework: f"{framework} has none")
    fake = answered(ok)
    monkeypatch.setattr(devices, "find", lambda device, gpus: [GPU])
    assert run(tmp_path) == 1
    assert not fake.ran
    assert {(row["status"], row["reason"]) for row in rows(tmp_path)} == {("missing", "torch has none")}
    monkeypatch.setattr(devices, "find", lambda device, gpus: [CPU])
    assert run(tmp_path, combination("b")) == 0


def test_a_sweep_goes_on_where_it_stopped(tmp_path: Path, answered: Answered) -> None:
    """Only cells without a record run; rerun and force replace records under the same ids."""
    answered(lambda cell: ending(failed(Status.CRASHED)) if cell.columns["q_len"] == 64 else ending(measured()))
    assert run(tmp_path) == 1
    first = {row["cell_id"] for row in rows(tmp_path)}
    assert answered(ok).ran == []
    later = answered(ok)
    assert run(tmp_path, combination(), combination("b")) == 1
    assert len(later.ran) == 6
    assert not set(later.ran) & first
    again = answered(ok)
    assert run(tmp_path, rerun=("crashed",)) == 0
    assert len(again.ran) == 2
    forced = answered(ok)
    assert run(tmp_path, force=True) == 0
    assert set(forced.ran) == first
    assert len(rows(tmp_path)) == 12


def test_a_case_goes_on_at_the_gpu_that_began_it(
    tmp_path: Path, answered: Answered, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The pool is told which GPU measured what is already there of each case, by this command line or another."""
    fake = answered(ok)
    told: list[dict[str, str]] = []
    plain = fake.run

    def run_told(self: FakePool, cells: Any, started: Any, finished: Any, begun: Any = None) -> str | None:
        told.append(begun)
        return plain(self, cells, started, finished, begun)

    monkeypatch.setattr(fake, "run", run_told)
    two = [replace(GPU, uuid="GPU-1"), replace(GPU, uuid="GPU-2")]
    monkeypatch.setattr(devices, "find", lambda kind, gpus: two)
    run(tmp_path, combination("a", scenario=one_case()))
    run(tmp_path, *(combination(name, scenario=one_case()) for name in ("a", "b")))
    (tmp_path / "s/cells/noise.parquet").write_bytes(b"noise")
    run(tmp_path, combination("c", scenario=one_case()))
    assert told == [{}, *[{"b1-h4-s32-d16-causal-fp32-fwd": "GPU-1"}] * 2]


@pytest.mark.parametrize(("status", "code"), [(Status.OK, 0), (Status.ERROR, 1)])
def test_nothing_to_do_is_said_and_exits_by_the_records(
    tmp_path: Path, answered: Answered, capsys: pytest.CaptureFixture[str], status: Status, code: int
) -> None:
    """A second call of a complete sweep runs nothing and keeps its verdict."""
    answered(lambda cell: ending(measured() if status is Status.OK else failed(status)))
    run(tmp_path)
    capsys.readouterr()
    fake = answered(ok)
    assert run(tmp_path) == code
    assert fake.ran == []
    assert "Nothing to do: all 6 cells" in capsys.readouterr().out
    run(tmp_path, combination(scenario=one_case()))
    assert f"Nothing to do: the one cell of {tmp_path / 's'} has a record." in capsys.readouterr().out


def test_the_end_of_a_sweep_names_results_counts_and_what_to_do_next(
    tmp_path: Path, answered: Answered, capsys: pytest.CaptureFixture[str]
) -> None:
    """A line a cell, the table with the best marked, counts by status, the folder, the report's command."""
    latencies = {"a": 0.4021, "b": 0.25}
    answered(
        lambda cell: (
            ending(measured(latencies[cell.columns["impl"]]))
            if cell.columns["impl"] in latencies
            else ending(failed(Status.OOM, "out of memory"))
        )
    )
    run(tmp_path, *(combination(name, scenario=one_case()) for name in ("a", "b", "c")))
    lines = capsys.readouterr().out.splitlines()
    case = "b1-h4-s32-d16-causal-fp32-fwd"
    assert re.fullmatch(rf"\[[123]/3\] a eager {case}: ok 0\.4021 ms", next(one for one in lines if "] a" in one))
    assert any(one.endswith(f"c eager {case}: oom (out of memory)") for one in lines)
    assert lines[3].split() == ["ms", "a", "eager", "b", "eager", "c", "eager"]
    assert lines[4].split() == [case, "0.4021", "0.25*", "oom"]
    assert lines[5].startswith("* lowest median of its case")
    assert lines[6] == "2 ok, 1 oom"
    assert lines[7].split() == ["Records:", str(tmp_path / "s" / "cells")]
    assert lines[8].split() == ["Report:", "attnsweep-report", str(tmp_path / "s")]


def test_an_environment_without_cupti_is_spoken_of_at_its_first_cell(
    tmp_path: Path, answered: Answered, capsys: pytest.CaptureFixture[str]
) -> None:
    """Once for each reason and environment, not once a cell; the others without a word."""
    why = "cupti-python cannot be imported: No module named 'elftools'"
    unproven = measured(flags=["unproven"], unproven_reason=why)
    answered(lambda cell: ending(measured() if cell.columns["impl"] == "b" else unproven))
    there = {"python": sys.executable, "variables": {"PYTHONPATH": "/nowhere"}}
    cells = (combination("a"), combination("b"), combination("c", impl=impl("c", env=there)))
    run(tmp_path, *cells)
    said = [one for one in capsys.readouterr().out.splitlines() if "elftools" in one]
    told = f"unproven: which kernels ran cannot be seen ({why}); said once for its environment"
    assert sorted(said) == [f"{name} eager: {told}" for name in "ac"]


def test_a_launchers_job_may_be_one_that_nothing_can_do(tmp_path: Path, answered: Answered) -> None:
    """Alone it is a mistake; one job of several just records why, and is no success."""
    fake = answered(ok)
    never = combination(impl=impl("a", supports={"dtypes": ["bf16"]}))
    with pytest.raises(ConfigError, match="dtype fp32"):
        run(tmp_path, never)
    assert not (tmp_path / "s").exists()
    assert run(tmp_path, never, shared=True) == 1
    assert fake.ran == []
    assert len(rows(tmp_path)) == 6


# Resume by identity


def test_rerun_replaces_exactly_the_records_with_these_statuses_and_force_all(
    tmp_path: Path, answered: Answered
) -> None:
    """Under the same ids; the others are not touched, not even written again."""
    statuses = [Status.CRASHED, Status.OK, Status.TIMEOUT, Status.OOM, Status.ERROR, Status.INCORRECT]
    ends = iter(statuses)
    answered(lambda cell: ending(measured() if (one := next(ends)) is Status.OK else failed(one)))
    run(tmp_path)
    before = files(tmp_path)
    wanted = {row["cell_id"] for row in rows(tmp_path) if row["status"] in ("crashed", "timeout", "error")}
    again = answered(lambda cell: ending(measured(0.25)))
    run(tmp_path, rerun=("crashed", "timeout", "error"))
    after = files(tmp_path)
    assert set(again.ran) == wanted
    assert len(wanted) == 3
    assert {one for one in after if after[one] != before[one]} == wanted
    assert set(after) == set(before)
    forced = answered(lambda cell: ending(measured(0.125)))
    run(tmp_path, force=True)
    assert set(forced.ran) == set(files(tmp_path)) == set(before)
    assert {row["latency_ms"] for row in rows(tmp_path)} == {0.125}


def files(tmp_path: Path) -> dict[str, bytes]:
    """What each record's file holds, by cell."""
    return {path.stem: path.read_bytes() for path in (tmp_path / "s" / "cells").glob("*.parquet")}


OURS: dict[str, Any] = {
    "_target_": "attnsweep.impls.FunctionAttention",
    "function": "attnsweep.kernels.flash.attention",
    "arguments": {"is_causal": "causal"},
    "distribution": "torch",
}


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A copy of our kernels' source that counts as theirs."""
    folder = tmp_path / "attnsweep" / "kernels"
    shutil.copytree(Path(identity.__file__).with_name("kernels"), folder)
    monkeypatch.setattr(identity, "__file__", str(folder.with_name("identity.py")))
    identity.kernels_digest.cache_clear()
    yield folder
    identity.kernels_digest.cache_clear()


@pytest.mark.parametrize("changed", ["the library's version", "a kernel's source", "the GPU's name"])
def test_what_another_measurement_would_be_makes_new_cells(
    tmp_path: Path, answered: Answered, monkeypatch: pytest.MonkeyPatch, source: Path, changed: str
) -> None:
    """All are measured again, under ids of their own, and the old records stay as they are."""
    gpu = GPU
    answered(ok)
    monkeypatch.setattr(devices, "find", lambda kind, gpus: [gpu])
    one = combination("ours", impl=impl("ours", **OURS))
    assert run(tmp_path, one) == 0
    before = files(tmp_path)
    same = answered(ok)
    monkeypatch.setattr(devices, "find", lambda kind, gpus: [gpu])
    assert run(tmp_path, one) == 0
    assert same.ran == []
    if changed == "the library's version":
        monkeypatch.setattr(environment, "own_version", lambda name: {"torch": "99.0"}[name])
    elif changed == "a kernel's source":
        (source / "blocks.py").write_bytes((source / "blocks.py").read_bytes() + b"# one more line\n")
        identity.kernels_digest.cache_clear()
    else:
        gpu = replace(GPU, name="NVIDIA H100 80GB HBM3")
    assert run(tmp_path, one) == 0
    assert len(same.ran) == len(before) == 6
    after = files(tmp_path)
    assert set(after) == set(before) | set(same.ran)
    assert len(after) == 12
    assert before.items() <= after.items()


@pytest.mark.parametrize(
    "changed",
    [
        {"gpus": [0]},
        {"shard": (2, 3)},
        {"study": "flux"},
        {"isolation": "spawn"},
        {"pool": PoolSettings(timeout_s=3.0, grace_s=1.0)},
        {"name": "other"},
        {"output_dir": "elsewhere"},
    ],
    ids=lambda changed: next(iter(changed)),
)
def test_where_and_how_a_sweep_runs_makes_no_new_cells(
    tmp_path: Path, answered: Answered, monkeypatch: pytest.MonkeyPatch, changed: dict[str, Any]
) -> None:
    """What has a record is done; a folder that was moved goes on under its new name."""
    monkeypatch.chdir(tmp_path)
    answered(ok)
    assert run(tmp_path) == 0
    fake = answered(ok)
    there = replace(settings(tmp_path), **changed)
    (tmp_path / "elsewhere").mkdir()
    os.rename(tmp_path / "s", Path(there.output_dir) / there.name)
    assert sweep.run(there, [combination()]) == 0
    assert fake.ran == []


# Trouble


def test_a_signal_keeps_what_is_done_and_says_how_to_go_on(
    tmp_path: Path, answered: Answered, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C after three cells: three records, none for the one interrupted, 130, and the command with the name."""
    count = itertools.count()
    answered(lambda cell: "SIGINT" if next(count) == 3 else ending(measured()))
    monkeypatch.setattr(sys, "argv", ["/venv/bin/attnsweep", "impl=naive", "scenario.seq_len=32,64", "-m"])
    assert run(tmp_path) == 130
    assert len(rows(tmp_path)) == 3
    out = capsys.readouterr().out
    assert "Ended by SIGINT" in out
    assert "    attnsweep impl=naive scenario.seq_len=32,64 name=s -m\n" in out
    rest = answered(ok)
    assert run(tmp_path) == 0
    assert len(rest.ran) == 3


@pytest.mark.parametrize(("name", "code"), [("SIGTERM", 143), ("SIGHUP", 129)])
def test_other_signals_exit_as_shells_expect(tmp_path: Path, answered: Answered, name: str, code: int) -> None:
    """128 and the signal's number."""
    assert code == 128 + signal.Signals[name]
    answered(lambda cell: name)
    assert run(tmp_path) == code


@pytest.mark.parametrize("forced", [False, True])
def test_the_first_record_that_cannot_be_written_ends_the_sweep(
    tmp_path: Path,
    answered: Answered,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    forced: bool,
) -> None:
    """A full disk: one sentence, the line that goes on, exit code 1, and no hours of measuring for nothing."""
    fake = answered(ok)
    real = recording.write

    def full(cell: Cell, *rest: Any) -> Any:
        if cell.columns["q_len"] == 64:
            raise OSError(28, "No space left on device")
        return real(cell, *rest)

    monkeypatch.setattr(recording, "write", full)
    monkeypatch.setattr(sys, "argv", ["attnsweep", "impl=naive", *["force=true"] * forced])
    assert run(tmp_path, force=forced) == 1
    done = len(rows(tmp_path))
    assert len(fake.ran) == done + 1 < 6
    said = capsys.readouterr()
    assert re.fullmatch(r"attnsweep: the record of \S+ could not be written: No space left on device\n", said.err)
    assert "    attnsweep impl=naive name=s\n" in said.out
    monkeypatch.undo()
    assert len(planning.make(settings(tmp_path), [combination()], [CPU]).open) == 6 - done


def test_an_unsupported_record_that_cannot_be_written_ends_the_sweep_before_any_cell(
    tmp_path: Path, answered: Answered, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is the first to be written."""
    fake = answered(ok)

    def full(*given: Any) -> Any:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(recording, "write_known", full)
    assert run(tmp_path, combination("a"), combination("b", impl=impl("b", supports={"dtypes": ["bf16"]}))) == 1
    assert fake.ran == []
    assert "No space left on device" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("again", "typed"), [({"force": True}, "++force=true"), ({"rerun": ("crashed",)}, "rerun=[crashed]")]
)
def test_measuring_again_goes_on_where_it_was_interrupted(
    tmp_path: Path,
    answered: Answered,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    again: dict[str, Any],
    typed: str,
) -> None:
    """The line that is printed measures what was not reached, and nothing twice; the old records are kept apart."""
    answered(lambda cell: ending(failed(Status.CRASHED)))
    assert run(tmp_path) == 1
    old = {path.name: path.read_bytes() for path in (tmp_path / "s" / "cells").glob("*.parquet")}
    count = itertools.count()
    first = answered(lambda cell: "SIGINT" if next(count) == 2 else ending(measured()))
    monkeypatch.setattr(sys, "argv", ["attnsweep", "impl=naive", typed, "name=s"])
    assert run(tmp_path, **again) == 130
    assert "    attnsweep impl=naive name=s\n" in capsys.readouterr().out
    assert {row["status"] for row in rows(tmp_path)} == {"ok"}
    aside = {path.name: path.read_bytes() for path in (tmp_path / "s" / "cells" / "replaced").iterdir()}
    assert aside == old
    rest = answered(ok)
    assert run(tmp_path) == 0
    assert (len(first.ran), len(rest.ran)) == (2, 4)
    assert not set(first.ran) & set(rest.ran)


def test_devices_that_got_stuck_leave_cells_open_and_an_exit_code_of_one(
    tmp_path: Path, answered: Answered, capsys: pytest.CaptureFixture[str]
) -> None:
    """What the pool raises for them is said; the records until then stay."""

    class Stuck(answered(ok)):  # type: ignore[misc]
        def run(self, cells: list[Cell], *callbacks: Any) -> str | None:
            super().run(cells[:2], *callbacks)
            raise AttnsweepError("GPU-0 is stuck; 4 cells are still open")

    pool.Pool = Stuck  # type: ignore[misc]
    assert run(tmp_path) == 1
    assert len(rows(tmp_path)) == 2
    assert "GPU-0 is stuck" in capsys.readouterr().out


def test_a_folder_that_cannot_be_made_is_a_mistake(tmp_path: Path, answered: Answered) -> None:
    """A file stands where the folder should be."""
    answered(ok)
    (tmp_path / "s").write_text("in the way")
    with pytest.raises(ConfigError, match="cannot be made"):
        run(tmp_path)


def test_the_folder_is_held_while_cells_run_and_before_any_does(tmp_path: Path, answered: Answered) -> None:
    """The pool runs inside the lock; a sweep that is refused runs nothing."""
    refused = []

    def answer(cell: Cell) -> Ending:
        with pytest.raises(ConfigError) as caught, held(tmp_path / "s"):
            pass
        refused.append(caught.value)
        return ending(measured())

    fake = answered(answer)
    run(tmp_path)
    assert len(refused) == 6
    with held(tmp_path / "s"), pytest.raises(ConfigError):
        run(tmp_path, force=True)
    assert len(fake.ran) == 6


# The dry run


def test_a_dry_run_lists_every_cell_and_writes_nothing(
    tmp_path: Path, answered: Answered, capsys: pytest.CaptureFixture[str]
) -> None:
    """Why each would be skipped, how many there are and run, and about how long; exit code 0."""
    fake = answered(ok)
    library = {"_target_": "attnsweep.impls.FunctionAttention", "function": "no_such_library.attention"}
    arguments = {"arguments": {"causal": "causal"}, "distribution": "no-such-library"}
    several = [
        combination("a"),
        combination("b", impl=impl("b", supports={"dtypes": ["bf16"]})),
        combination("c", impl=impl("c", **library, **arguments)),
        combination("a", compile=DEFAULT),
    ]
    assert run(tmp_path, *several, dry_run=True) == 0
    assert fake.ran == []
    assert os.listdir(tmp_path) == []
    lines = [" ".join(one.split()) for one in capsys.readouterr().out.splitlines()]
    assert lines.count("a eager 0 to run") == lines.count("a default 0 to run") == 6
    assert lines.count("b eager 0 unsupported: dtype fp32 is not among bf16") == 6
    assert sum(one.startswith("c eager 0 missing: No module named 'no_such_library'") for one in lines) == 6
    assert sum(one == "b1-h4-s32-d16-causal-fp32-fwd" for one in lines) == 1
    assert re.fullmatch(r"24 cells, 12 to run, about \d+ s on AMD EPYC at 10 GFLOP/s", lines[-1])


def test_a_dry_run_shows_what_is_done(tmp_path: Path, answered: Answered, capsys: pytest.CaptureFixture[str]) -> None:
    """By the status that its record has."""
    answered(lambda cell: ending(failed(Status.TIMEOUT)))
    run(tmp_path, combination(scenario={**PREFILL, "seq_len": 32}))
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "s" / "cells").iterdir()}
    capsys.readouterr()
    assert run(tmp_path, dry_run=True) == 0
    out = capsys.readouterr().out
    assert out.count("done: timeout") == 2
    assert "6 cells, 4 to run" in out
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "s" / "cells").iterdir()} == before


# The terminal


def test_the_bar_counts_what_takes_time(tmp_path: Path, answered: Answered, capsys: pytest.CaptureFixture[str]) -> None:
    """Unsupported cells are done at once: counted, they would promise an early end. Their lines have no number."""
    answered(ok)
    run(tmp_path, combination("a"), combination("b", impl=impl("b", supports={"dtypes": ["bf16"]})))
    lines = capsys.readouterr().out.splitlines()
    assert sum(bool(re.match(r"\[\d/6\] a eager ", one)) for one in lines) == 6
    assert sum(one.startswith("b eager ") and "unsupported (dtype fp32" in one for one in lines) == 6


class Failing(io.StringIO):
    """A stream whose every write is buffered, and whose flush fails."""

    def __init__(self, error: OSError, at: str, terminal: bool) -> None:
        super().__init__()
        self.error, self.at, self.terminal, self.tries = error, at, terminal, 0

    def isatty(self) -> bool:
        return self.terminal

    def write(self, text: str) -> int:
        return self._fail("write", len(text))

    def flush(self) -> None:
        self._fail("flush", 0)

    def _fail(self, at: str, answer: int) -> int:
        if self.at == at:
            self.tries += 1
            raise self.error
        return answer


@pytest.mark.parametrize("is_terminal", [True, False])
@pytest.mark.parametrize("at", ["write", "flush"])
@pytest.mark.parametrize("error", [BrokenPipeError(32, "Broken pipe"), OSError(28, "No space"), OSError(5, "I/O")])
def test_output_that_fails_costs_nothing_but_itself(
    tmp_path: Path,
    answered: Answered,
    monkeypatch: pytest.MonkeyPatch,
    error: OSError,
    at: str,
    is_terminal: bool,
) -> None:
    """A reader that left, a full disk, a terminal that is gone: it is tried once, then silence; all is recorded."""
    answered(ok)
    stream = Failing(error, at, is_terminal)
    monkeypatch.setattr(sys, "stdout", stream)
    monkeypatch.setenv("TERM", "xterm")
    assert run(tmp_path) == 0
    assert stream.tries == 1
    assert len(rows(tmp_path)) == 6


def test_a_terminal_that_hangs_up_ends_the_sweep_with_its_own_code(
    tmp_path: Path, answered: Answered, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SIGHUP is heard although what is said of it cannot be printed."""
    answered(lambda cell: "SIGHUP")
    monkeypatch.setattr(sys, "stdout", Failing(OSError(5, "I/O"), "write", True))
    assert run(tmp_path) == 129


@pytest.mark.parametrize("where", ["pipe", "full", "closed", "terminal"])
def test_a_real_output_that_fails_leaves_the_exit_code(tmp_path: Path, where: str) -> None:
    """In a process of its own, whose last flush must not fail either."""
    code = f"""
import sys
from pathlib import Path
from attnsweep import devices, pool, sweep
from attnsweep.pool import Pool
from sweeps import CPU, combination, ending, fake_pool, measured, settings
devices.find = lambda kind, gpus: [CPU]
pool.Pool = fake_pool(lambda cell: ending(measured()))
sys.stdin.read()
sys.exit(sweep.run(settings(Path({str(tmp_path)!r})), [combination()]))
"""
    ours, theirs = os.pipe() if where == "pipe" else os.openpty() if where == "terminal" else (-1, -1)
    if where in ("full", "closed"):
        theirs = os.open("/dev/full", os.O_WRONLY)
    command = [sys.executable, "-c", code]
    if where == "closed":
        command = ["sh", "-c", 'exec "$@" >&-', "sh", *command]
    process = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=theirs,
        stderr=subprocess.PIPE,
        cwd=Path(__file__).parent,
        env={**os.environ, "TERM": "xterm"},
        text=True,
    )
    os.close(theirs)
    if ours >= 0:
        os.close(ours)
    _, said = process.communicate("", timeout=60)
    assert (process.returncode, said) == (0, "")
    assert len(rows(tmp_path)) == 6


# For real


def test_a_real_sweep_on_this_cpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command line, Hydra, plan, pool, worker and records together: each cell measured, and nothing left to do."""
    monkeypatch.setenv("ATTNSWEEP_LOCKS", str(tmp_path / "locks"))
    line = "impl=naive,fa2 timing=quick scale=tiny scenario.dtype=fp32 scenario.tiny.batch_size=1 device=cpu name=real"
    command = [sys.executable, "-c", "import sys; from attnsweep.cli import main; sys.exit(main())", *line.split()]
    first = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert first.returncode == 0, first.stdout + first.stderr
    found = parquet.read(sorted((tmp_path / "outputs" / "real" / "cells").glob("*.parquet"))).to_pylist()
    statuses = sorted((row["impl"], row["status"], row["q_len"]) for row in found)
    assert statuses == [
        *[("fa2", "unsupported", length) for length in (32, 64)],
        *[("naive", "ok", length) for length in (32, 64)],
    ]
    for row in found:
        if row["status"] == "ok":
            assert 0 < row["latency_ci_low_ms"] <= row["latency_ms"] <= row["latency_ci_high_ms"]
            assert row["check"] == "passed"
            stages = ("inputs_s", "prepare_s", "check_s", "proof_s", "memory_s", "timing_s")
            assert all(row[name] > 0 for name in stages)
            assert 0 < row["overhead_s"] < row["wall_s"] - sum(row[name] for name in stages) + 1e-6
    again = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert again.returncode == 0
    assert "Nothing to do: all 4 cells" in again.stdout
