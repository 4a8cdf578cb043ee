"""Faults in a cell: whatever one does, it gets its status, no other cell is harmed, and nothing is left of it."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from mounting import needs_mount, under

import aftermath
import processes
from aftermath import Aftermath, among, remains, same_zygote, strays
from attnsweep import parquet, planning, recording
from attnsweep.devices import Device
from attnsweep.plan import Cell
from attnsweep.pool import Pool
from attnsweep.pool.ending import Ending
from processes import cell, running, survivors, wait_for
from sweeps import CPU, combination, one_case, settings

GRACE_S = 0.5


@dataclass(frozen=True)
class Deed:
    """What an implementation does, the status it must get, and words of its reason and of its traceback."""

    fault: str
    status: str
    reason: str = ""
    where: str = ""
    timeout_s: float = 60.0
    direction: str = "fwd"

    @property
    def expected(self) -> str:
        """In words, for the table."""
        return f"{self.status}: {self.reason}" if self.reason else self.status


#: Modules of libraries that do something when they are imported.
LIBRARIES = {
    "raises_at_import": "raise RuntimeError('built for another driver')\n",
    "exits_at_import": "import sys\nsys.exit('no licence')\n",
    "threads_at_import": (
        "import threading, time\n"
        "threading.Thread(target=time.sleep, args=(600,), daemon=True).start()\n"
        "import torch\n"
        "def attention(q, k, v, causal):\n"
        "    return torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=causal)\n"
    ),
}

#: By deed of fake_impls.Fake, or by library; each between two implementations that are in order, in one sweep.
DEEDS = {
    "raises_at_import": Deed("exception at import of the library", "error", "built for another driver", "in require"),
    "exits_at_import": Deed("sys.exit at import of the library", "error", "SystemExit: no licence", "in require"),
    "threads_at_import": Deed("a library whose import starts threads, in the cell", "ok"),
    "fails_to_build": Deed("exception at build", "error", "ValueError: no such tile", "in build"),
    "raises_in_prepare": Deed("exception in prepare", "error", "ValueError: no plan", "in prepare"),
    "raises": Deed("exception at the first call", "error", "ValueError: the kernel said", "in call_raises"),
    "raises_in_timing": Deed("exception in the middle of timing", "error", "one call too many", "measure.py"),
    "raises_in_backward": Deed("exception in backward", "error", "no gradient today", "backward", direction="bwd"),
    "wrong": Deed("wrong output", "incorrect", "differs from the reference"),
    "not_finite": Deed("NaN output", "incorrect", "not finite"),
    "right_at_first": Deed("right in the check, wrong afterwards", "incorrect", "after timing, on other inputs"),
    "segfault_in_timing": Deed(
        "segmentation fault", "crashed", "died of SIGSEGV (in phase timing)", "timed_segfault_in_timing"
    ),
    "abort": Deed("abort (SIGABRT)", "crashed", "died of SIGABRT (in phase timing)", "timed_abort"),
    "shot": Deed("SIGKILL from outside", "crashed", "died of SIGKILL (in phase timing)"),
    "shot_once": Deed("SIGTERM from outside, once", "ok"),
    "shot_twice": Deed("SIGTERM from outside, at both attempts", "crashed", "SIGTERM, not sent by the sweep"),
    "exit_0": Deed("os._exit(0)", "crashed", "exit 0 without outcome (in phase timing)"),
    "system_exit": Deed("sys.exit", "error", "SystemExit: 3", "do_system_exit"),
    "system_exit_in_a_thread": Deed("SystemExit in a thread", "ok"),
    "hang": Deed("hang in Python", "timeout", "still running after", "in do_hang", timeout_s=1.5),
    "hang_in_c": Deed("hang in C ignoring SIGTERM", "timeout", "still running", "in do_hang_in_c", timeout_s=1.5),
    "stops": Deed("stops itself (SIGSTOP)", "timeout", "still running after", timeout_s=2.0),
    "never_exits": Deed("deadlock at exit (atexit, a thread that never ends)", "ok"),
    "leaks": Deed("host memory exhausted (RLIMIT_AS), Python's", "oom", "out of host memory", "in do_leaks"),
    "eats_what_there_is": Deed("host memory exhausted (RLIMIT_AS), PyTorch's", "oom", "allocate", "in do_eats"),
    "surrogates": Deed("a reason that is no UTF-8", "error", "half a character: ?", "in call_surrogates"),
    "closes_everything": Deed("closes all descriptors", "crashed", "it closed the pipe for it"),
    "upheaval": Deed("changes folder, environment, umask, handlers, limits", "ok"),
    "forges": Deed("a result forged on stdout", "incorrect", "differs from the reference"),
}

#: Signals that the test sends, one an attempt, when the cell has said that it waits for them.
SHOTS = {"shot": [signal.SIGKILL], "shot_once": [signal.SIGTERM], "shot_twice": [signal.SIGTERM] * 2}


@dataclass
class Swept:
    """Aftermaths and records by deed, the statuses of the implementations in order by their turn, the folder."""

    seen: dict[str, Aftermath]
    rows: dict[str, dict[str, Any]]
    beside: list[str]
    folder: Path


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Swept]:
    """One sweep by the real worker in children of one zygote: each deed between two that are in order."""
    folder = tmp_path_factory.mktemp("cells")
    with pytest.MonkeyPatch.context() as patch:
        alone = processes.alone(folder, patch)
        next(alone)
        libraries = folder / "libraries"
        libraries.mkdir()
        for name, text in LIBRARIES.items():
            (libraries / f"{name}.py").write_text(text)
        patch.setenv("PYTHONPATH", f"{processes.TESTS}:{libraries}")
        # Others may be testing beside this
        patch.setenv("OMP_NUM_THREADS", "1")
        yield _sweep(folder)
        next(alone, None)


def _sweep(folder: Path) -> Swept:
    cells = _cells(folder)
    rows: dict[str, dict[str, Any]] = {}
    ends: dict[str, tuple[Ending, list[str]]] = {}
    marksmen = []

    def started(one: Cell, device: Device) -> None:
        shots = SHOTS.get(one.columns["impl"], [])
        marksmen.append(threading.Thread(target=_shoot, args=(folder / one.columns["impl"], shots)))
        marksmen[-1].start()

    def finished(one: Cell, device: Device, end: Ending) -> None:
        name = one.columns["impl"]
        rows[name] = recording.write(one, device, end, folder / "s" / "cells").values
        ends[name] = end, strays()

    Pool([CPU], log_folder=folder / "s" / "cells", grace_s=GRACE_S, stuck_s=GRACE_S).run(cells, started, finished)
    for marksman in marksmen:
        marksman.join()
    left = remains()
    beside = {name: end for name, (end, _) in ends.items() if name not in DEEDS}
    seen = {name: aftermath.of(ends[name][0], beside.values(), ends[name][1] + left) for name in DEEDS}
    return Swept(seen, rows, [str(end.status) for end in beside.values()], folder)


def _cells(folder: Path) -> list[Cell]:
    """A cell a deed, each between two of implementations in order."""
    timing = {
        "name": "blink", "replicates": 1, "target": 0.5, "min_blocks": 6, "min_time_s": 0.0, "time_cap_s": 0.2,
        "max_samples": 100, "block_ms": 10.0, "rest_ms": 5.0, "cache": "cold", "sustained": False, "soak_s": 0.3,
        "window_s": 0.3, "steady": 0.02, "load_cap_s": 2.0,
    }  # fmt: skip
    order = [f"order{number}" for number in range(len(DEEDS) + 1)]
    combinations = [
        combination(
            name,
            impl=_impl(name, folder),
            scenario=one_case(num_heads=2, direction=DEEDS[name].direction if name in DEEDS else "fwd"),
            timing=timing,
        )
        for name in [*DEEDS, *order]
    ]
    planned = planning.make(settings(folder), combinations, [CPU])
    planned.cells_folder.mkdir(parents=True)
    by_name = {one.columns["impl"]: one for one in planned.to_run}
    cells = [by_name[order[0]]]
    for name, deed, beside in zip(DEEDS, DEEDS.values(), order[1:], strict=True):
        cells += [replace(by_name[name], timeout_s=deed.timeout_s), by_name[beside]]
    return cells


def _impl(name: str, folder: Path) -> dict[str, Any]:
    if name in LIBRARIES:
        function = {"_target_": "attnsweep.impls.FunctionAttention", "function": f"{name}.attention"}
        return {"name": name, "layout": "bhsd", "arguments": {"causal": "causal"}, **function}
    deed = {"shot_twice": "shot"}.get(name, name if name in DEEDS else "ok")
    marker = {"marker": str(folder / name)} if name in SHOTS else {}
    return {"name": name, "_target_": "fake_impls.Fake", "deed": deed, "layout": "bhsd", **marker}


def _shoot(marker: Path, shots: list[signal.Signals]) -> None:
    """Send each of the signals to the process that the file names, which is another one each time."""
    shot = {""}

    def aimed() -> set[str]:
        return {path.read_text() for path in [marker] if path.exists()} - shot

    for number in shots:
        pid = wait_for(aimed)
        shot |= pid
        os.kill(int(*pid), number)


@pytest.mark.parametrize("name", DEEDS)
def test_a_fault_in_a_cell_costs_that_cell_alone(swept, observe, name):
    """Its record has the status, the reason and the place; those beside it are measured, nothing of it is left."""
    deed, seen, row = DEEDS[name], swept.seen[name], swept.rows[name]
    observe("cell", deed.fault, deed.expected, seen.observed, seen.seconds)
    assert (seen.status, row["status"]) == (deed.status, deed.status), (seen.reason, seen.traceback)
    assert deed.reason in (row["reason"] or "")
    assert deed.where in (row["traceback"] or "")
    assert (row["latency_ms"] is not None) == (deed.status == "ok")
    assert (row["reason"] is None) == (deed.status == "ok")
    assert seen.harmless(deed.timeout_s + GRACE_S if deed.status == "timeout" else 0.0), seen
    assert len(seen.others) == len(DEEDS) + 1


def test_a_record_tells_how_far_its_cell_came(swept):
    """The stages before a failure, the signal of a crash, the file of each that nobody wrote twice."""
    rows = swept.rows
    assert rows["raises_in_timing"]["timing_s"] > 0
    assert rows["raises"]["prepare_s"] > 0
    assert rows["raises"]["timing_s"] is None
    assert rows["fails_to_build"]["inputs_s"] is None
    assert {name for name, row in rows.items() if row["exit_signal"]} == {
        "segfault_in_timing", "abort", "shot", "shot_twice", "hang", "hang_in_c", "stops",
    }  # fmt: skip
    assert (rows["hang"]["exit_signal"], rows["hang_in_c"]["exit_signal"]) == ("SIGTERM", "SIGKILL")
    written = parquet.read(sorted((swept.folder / "s" / "cells").glob("*.parquet"))).to_pylist()
    assert sorted(row["impl"] for row in written) == sorted(rows)
    assert len(rows) == 2 * len(DEEDS) + 1


# What needs no implementation: in children of a bare zygote


@pytest.fixture
def marker(tmp_path, monkeypatch):
    """A world of its own for a test, and no process left after it."""
    yield from processes.alone(tmp_path, monkeypatch)


def test_a_gigabyte_of_noise(tmp_path, marker, observe):
    """Half on stdout, half on stderr, no UTF-8 in it: the log stays small, and nothing waits for it."""
    seen, _ = among(tmp_path, cell("noise", bytes=2**30, timeout_s=60))
    log = tmp_path / "cells" / "noise.log"
    kept = f"ok; a log of {log.stat().st_size / 2**20:.1f} MiB"
    observe(
        "cell", "a gigabyte on stdout and stderr, invalid UTF-8", "ok; a log of 1.3 MiB", f"{kept}; {seen.observed}"
    )
    assert seen.status == "ok"
    assert 2**20 < log.stat().st_size < (256 + 1024 + 1) * 1024
    assert b" bytes left out ...]\n" in log.read_bytes()
    assert seen.harmless(10)


def test_last_words_that_are_no_text(tmp_path, marker, observe):
    """What cannot be decoded is replaced in the traceback."""
    seen, _ = among(tmp_path, cell("noise", bytes=2**21, code=7))
    observe("cell", "invalid UTF-8 as the last words", "crashed: exit 7 without outcome", seen.observed)
    assert (seen.status, seen.reason) == ("crashed", "exit 7 without outcome")
    assert set(seen.traceback) == {"\ufffd"}
    assert seen.harmless()


def test_a_grandchild_that_keeps_the_pipes(tmp_path, marker, observe):
    """A cell ends with its process, not with the end of its pipes."""
    seen, ends = among(tmp_path, cell("grandchild", timeout_s=30))
    observe("cell", "a grandchild that keeps the pipes open", "ok; the grandchild killed", seen.observed)
    assert seen.status == "ok"
    assert same_zygote(ends)
    assert seen.harmless()


@pytest.mark.parametrize(
    ("then", "status"), [("ok", "ok"), ("segfault", "crashed"), ("hang_ignoring_sigterm", "timeout")]
)
def test_a_daemon_is_killed_with_its_cell(tmp_path, marker, observe, then, status):
    """It left the process group and the session, holds every descriptor and ignores signals."""
    daemon = cell("daemon", marker=str(tmp_path / "pid"), then=then, timeout_s=1.0 if status == "timeout" else 30.0)
    seen, ends = among(tmp_path, daemon)
    pid = int((tmp_path / "pid").read_text())
    observe("cell", f"a daemon (double fork, setsid), its cell {then}", f"{status}; killed", seen.observed)
    assert seen.status == status
    assert seen.harmless(1.4)
    assert same_zygote(ends)
    assert not running(pid)


def test_a_daemon_is_killed_although_its_zygote_is_dead(tmp_path, marker, observe):
    """The token in its environment finds it."""
    seen, _ = among(tmp_path, cell("daemon", marker=str(tmp_path / "pid"), then="kill_zygote"))
    observe("cell", "a daemon, and its cell kills the zygote", "crashed: its zygote died twice", seen.observed)
    assert seen.status == "crashed"
    assert seen.reason.startswith("its zygote died twice")
    assert seen.harmless()
    assert not running(int((tmp_path / "pid").read_text()))


def test_the_first_generations_of_a_fork_bomb_end_with_the_deadline(tmp_path, marker, observe):
    """32 processes that ignore SIGTERM, in sessions of their own."""
    counts = []

    def count():
        wait_for(lambda: len(survivors(marker)) >= 33)
        counts.append(len(survivors(marker)) - 1)

    counter = threading.Thread(target=count)
    counter.start()
    seen, ends = among(tmp_path, cell("fork_tree", generations=5, timeout_s=2.0))
    counter.join()
    observe(
        "cell", "a fork bomb's first generations", "timeout; all killed", f"{counts} processes, then {seen.observed}"
    )
    assert counts == [32]
    assert same_zygote(ends)
    assert seen.status == "timeout"
    assert seen.harmless(2.4)


def test_a_daemon_that_changes_its_process_all_the_time(tmp_path, marker, observe):
    """A thousand processes one after the other, each an orphan: the zygote gets hold of one."""
    seen, ends = among(tmp_path, cell("hop", hops=1000))
    observe("cell", "a daemon that forks and ends, again and again", "ok; killed", seen.observed)
    assert same_zygote(ends)
    assert seen.status == "ok"
    assert seen.harmless()


def test_descriptors_closed_and_taken_by_others(tmp_path, marker, observe):
    """Nothing is written into a stranger's file that has taken the pipe's number."""
    victim = tmp_path / "victim"
    victim.write_text("mine")
    seen, _ = among(tmp_path, cell("close_everything_and_open", file=str(victim)))
    text = f"{seen.observed}; the file unchanged: {victim.read_text() == 'mine'}"
    observe("cell", "closes all descriptors and opens others in their place", "crashed; the file unchanged", text)
    assert (seen.status, seen.reason) == ("crashed", "exit 72 without outcome: it closed the pipe for it")
    assert victim.read_text() == "mine"
    assert seen.harmless()


def test_a_result_forged_on_every_descriptor(tmp_path, marker, observe):
    """Neither without the token, nor as a torn line in front of the true one."""
    seen, ends = among(tmp_path, cell("forge"))
    observe("cell", "a result forged on every open descriptor", "incorrect: the true one", seen.observed)
    assert (seen.status, seen.reason) == ("incorrect", "the true one")
    assert ends["forge"].outcome["columns"] == {}
    assert seen.harmless()


def test_an_outcome_beyond_the_cap(tmp_path, marker, observe):
    """The cell that writes it is ended, not waited for; a large one below the cap arrives whole."""
    seen, _ = among(tmp_path, cell("too_large", bytes=30_000_000), outcome_cap_bytes=1_000_000)
    observe("cell", "an outcome above the size cap", "error: outcome too large", seen.observed)
    assert (seen.status, seen.reason) == ("error", "outcome too large: more than 1000000 bytes")
    assert seen.harmless()
    large, ends = among(tmp_path, cell("large"), outcome_cap_bytes=1_000_000)
    assert large.status == "ok"
    assert len(ends["large"].outcome["columns"]["samples"]) == 100_000


@pytest.mark.parametrize(
    ("do", "reason"),
    [
        ("not_json", "the outcome cannot be written as JSON"),
        ("not_dict", "the entry point returned int, not a dict"),
        ("no_status", "the outcome has no valid status: 'splendid'"),
    ],
)
def test_an_outcome_that_is_none(tmp_path, marker, observe, do, reason):
    """The reason says what is wrong with it."""
    seen, _ = among(tmp_path, cell(do))
    observe("cell", f"an outcome that is none ({do})", f"error: {reason}", seen.observed)
    assert seen.status == "error"
    assert reason in seen.reason
    assert seen.harmless()


def test_nan_infinities_and_surrogates_in_an_outcome(tmp_path, marker, observe):
    """They cross the pipe, and so do large integers."""
    seen, ends = among(tmp_path, cell("odd_values"))
    columns = ends["odd_values"].outcome["columns"]
    observe("cell", "NaN, infinities and surrogates in an outcome", "ok; as they were", f"{seen.observed}; {columns!a}")
    assert math.isnan(columns["nan"])
    assert (columns["inf"], columns["text"], columns["big"]) == (-math.inf, "\ud800 \u0000", 2**70)
    assert seen.harmless()


def test_a_temporary_folder_that_its_cell_deletes(tmp_path, marker, observe):
    """It is gone before the slot would remove it; where a link stands there, that goes and its target stays."""
    seen, _ = among(tmp_path, cell("delete_tmpdir"))
    observe("cell", "deletes its own TMPDIR", "ok", seen.observed)
    assert seen.status == "ok"
    assert seen.harmless()
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "file").touch()
    seen, _ = among(tmp_path, cell("replace_tmpdir", link=str(mine)))
    text = f"{seen.observed}; the link's target unchanged: {(mine / 'file').exists()}"
    observe("cell", "puts a link in the place of its TMPDIR", "ok; the link's target unchanged", text)
    assert seen.status == "ok"
    assert (mine / "file").exists()
    assert seen.harmless()


#: Runs a cell among good ones in a process of its own; what followed is printed.
ASIDE = """
import json, pathlib, sys, aftermath, processes
folder, do, payload = sys.argv[1:]
seen, _ = aftermath.among(pathlib.Path(folder), processes.cell(do, **json.loads(payload)))
print(json.dumps(vars(seen)))
"""


def aside(prefix: list[str], folder: Path, do: str, **payload: Any) -> Aftermath:
    """What `among` gives in a process that `prefix` starts."""
    command = [*prefix, sys.executable, "-c", ASIDE, str(folder), do, json.dumps(payload)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return Aftermath(**json.loads(done.stdout))


@needs_mount
def test_a_temporary_folder_that_its_cell_fills(tmp_path, marker, observe):
    """The disk is full for this cell, and empty again for the next."""
    seen = aside(under(f"{tmp_path}/tmp", "size=8m"), tmp_path, "fill_tmpdir", megabytes=32)
    observe("cell", "fills its TMPDIR, and with it the disk", "error: no space left", seen.observed)
    assert (seen.status, seen.reason) == ("error", "OSError: [Errno 28] No space left on device")
    assert seen.harmless()


def test_a_temporary_folder_that_may_not_be_written_any_more(tmp_path, marker, observe):
    """It is removed all the same, and what its links point at stays as it is."""
    linked = tmp_path / "linked"
    linked.mkdir(mode=0o500)
    # Root may write everywhere, but for this
    nobody = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"] if os.geteuid() == 0 else []
    seen = aside(nobody, tmp_path, "lock_tmpdir", link=str(linked))
    observe("cell", "takes its own permissions in its TMPDIR away", "ok", seen.observed)
    assert seen.status == "ok"
    assert seen.harmless()
    assert linked.stat().st_mode & 0o777 == 0o500


@pytest.mark.parametrize("name", ["SIGUSR1", "SIGRTMIN", "SIGHUP"])
def test_any_other_signal_has_its_name(tmp_path, marker, observe, name):
    """Also one without a name in Python's signal module, and one that may come from a terminal."""
    seen, _ = among(tmp_path, cell("signal_self", signal=name))
    observe("cell", f"dies of {name}", f"crashed: {name}", seen.observed)
    assert (seen.status, seen.exit_signal) == ("crashed", name)
    assert name in seen.reason
    assert seen.harmless()
