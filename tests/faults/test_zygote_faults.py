"""Faults in a zygote: cells get another one, or are spawned, or their records say why there can be none."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
import venv
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import processes
from aftermath import among, good, of, remains, strays
from attnsweep import interpreters, planning, recording
from attnsweep.interpreters import Interpreter
from attnsweep.pool import Pool, slot
from attnsweep.pool.warm import Zygote
from processes import BARE, cell, running, sweep, wait_for
from sweeps import CPU, combination, impl, one_case, settings


@pytest.fixture(autouse=True)
def marker(tmp_path, monkeypatch):
    """A world of its own for each test, and no process left after it."""
    yield from processes.alone(tmp_path, monkeypatch)


@pytest.fixture
def started(monkeypatch) -> list[Interpreter]:
    """The interpreters for which a zygote was started, in order."""
    found = []

    class Counted(Zygote):
        def __init__(self, interpreter: Interpreter, **options: Any) -> None:
            found.append(interpreter)
            super().__init__(interpreter, **options)

    monkeypatch.setattr(slot, "Zygote", Counted)
    return found


@pytest.fixture
def preloading(tmp_path, monkeypatch):
    """Write modules where zygotes find them; the interpreter that preloads them."""

    def write(**modules: str) -> Interpreter:
        for name, text in modules.items():
            (tmp_path / f"{name}.py").write_text(text)
        monkeypatch.setenv("PYTHONPATH", f"{processes.TESTS}:{tmp_path}")
        return replace(BARE, preload=tuple(modules))

    return write


# Killed and stopped


def test_killed_while_idle(tmp_path, observe):
    """It costs the next cell nothing, not even its second attempt."""
    zygotes, left = [], []

    def shoot(one, end):
        left.extend(strays())
        zygotes.append(end.outcome["columns"]["zygote"])
        if one.id == "before":
            os.kill(zygotes[0], signal.SIGKILL)
            wait_for(lambda: not running(zygotes[0]))

    needs_both = cell("kill_zygote_once", marker=str(tmp_path / "once"))
    ends = sweep(tmp_path, cell("ok", name="before"), needs_both, cell("ok", name="after"), finished=shoot)
    seen = of(ends[needs_both.id], [ends["before"], ends["after"]], left + remains())
    observe("zygote", "killed while idle", "ok; the next cell keeps its two attempts", seen.observed)
    assert seen.status == "ok"
    assert zygotes[0] != zygotes[1]
    assert seen.harmless()


#: What a zygote does instead of its first fork; `_fork` is the real one.
FORKS = {
    "before it": "os.kill(os.getpid(), signal.SIGKILL)",
    "after it, before the child's id is told": "_fork() and os.kill(os.getpid(), signal.SIGKILL)\n    return 0",
}


@pytest.mark.parametrize("when", FORKS)
def test_killed_while_forking(tmp_path, observe, started, preloading, when):
    """Nobody knows the child yet; it goes with its zygote, and the cell gets its second attempt."""
    deadly = preloading(
        deadly=(
            "import os, pathlib, signal\n"
            "_fork = os.fork\n"
            "def fork():\n"
            "    os.fork = _fork\n"
            f"    once = pathlib.Path({str(tmp_path / 'once')!r})\n"
            "    if once.exists():\n"
            "        return _fork()\n"
            "    once.touch()\n"
            f"    {FORKS[when]}\n"
            "os.fork = fork\n"
        )
    )
    seen, _ = among(tmp_path, cell("ok", name="forks", interpreter=deadly))
    observe("zygote", f"killed while forking, {when}", "ok at the second attempt", seen.observed)
    assert (tmp_path / "once").exists()
    assert seen.status == "ok"
    assert seen.harmless()
    assert started == [BARE, deadly, deadly]


def test_killed_at_every_fork(tmp_path, observe, started, preloading):
    """Two attempts, then the record says so."""
    deadly = preloading(deadly="import os, signal\nos.fork = lambda: os.kill(os.getpid(), signal.SIGKILL)\n")
    seen, _ = among(tmp_path, cell("ok", name="forks", interpreter=deadly))
    observe("zygote", "killed at every fork", "crashed: its zygote died twice", seen.observed)
    assert (seen.status, seen.reason) == ("crashed", "its zygote died twice")
    assert seen.harmless()
    assert started == [BARE, deadly, deadly]


def test_killed_between_the_request_and_the_fork(tmp_path, observe, started):
    """The request is on its way, and nobody will read it."""
    left = []

    def stop_and_shoot(zygote):
        wait_for(lambda: list(Path(tempfile.gettempdir()).glob("attnsweep-cell-*")))
        time.sleep(0.1)
        os.kill(zygote, signal.SIGKILL)

    def shoot(one, end):
        left.extend(strays())
        if one.id == "before":
            zygote = end.outcome["columns"]["zygote"]
            os.kill(zygote, signal.SIGSTOP)
            threading.Thread(target=stop_and_shoot, args=(zygote,)).start()

    ends = sweep(tmp_path, *(cell("ok", name=name) for name in ("before", "shot", "after")), finished=shoot)
    seen = of(ends["shot"], [ends["before"], ends["after"]], left + remains())
    observe("zygote", "killed between a cell's request and its fork", "ok at the second attempt", seen.observed)
    assert seen.status == "ok"
    assert seen.harmless()
    assert started == [BARE, BARE]


def test_stopped_while_idle(tmp_path, observe, started):
    """A cell that was never forked is not late: its zygote is ended for it, and it gets its second attempt."""
    left = []

    def stop(one, end):
        left.extend(strays())
        if one.id == "before":
            os.kill(end.outcome["columns"]["zygote"], signal.SIGSTOP)

    waits = cell("ok", name="waits", timeout_s=0.5)
    ends = sweep(tmp_path, cell("ok", name="before"), waits, cell("ok", name="after"), finished=stop)
    seen = of(ends["waits"], [ends["before"], ends["after"]], left + remains())
    observe("zygote", "stopped (SIGSTOP) while idle", "ok at the second attempt", seen.observed)
    assert seen.status == "ok", seen.reason
    assert seen.harmless()
    assert started == [BARE, BARE]


def test_stopped_under_a_cell(tmp_path, observe, started):
    """The last rung ends the zygote itself, and the next cell gets a new one."""
    seen, _ = among(tmp_path, cell("stop_zygote", timeout_s=0.5))
    observe("zygote", "stopped (SIGSTOP) under a cell", "timeout: stuck", seen.observed)
    assert seen.status == "timeout"
    assert "stuck: only ending its zygote ended it" in seen.reason
    assert seen.harmless(0.5 + 0.4 + 0.4)
    assert started == [BARE, BARE]


# What a preload does to it


HARM = {
    "threads": "import threading, time\nthreading.Thread(target=time.sleep, args=(600,), daemon=True).start()\n",
    "CUDA": "import ctypes, pathlib\nctypes.CDLL(str(pathlib.Path(__file__).with_name('driver.so'))).cuInit(0)\n",
}

#: A driver as far as the guard asks: it says that it is not initialised until it is.
DRIVER = """
static int initialised;
int cuInit(unsigned flags) { initialised = 1; return 0; }
int cuDeviceGetCount(int *count) { *count = 1; return initialised ? 0 : 3; }
"""


def build_driver(folder: Path) -> None:
    """A shared library that the loader takes for CUDA's driver, once somebody has loaded it."""
    command = ["cc", "-shared", "-fPIC", "-Wl,-soname,libcuda.so.1", "-x", "c", "-", "-o", str(folder / "driver.so")]
    subprocess.run(command, input=DRIVER, text=True, check=True)


@pytest.mark.parametrize("harm", HARM)
def test_a_preload_that_is_unfit_for_forking(tmp_path, observe, started, preloading, harm):
    """It is noticed and said once, and its cells are spawned: they import it themselves and are flagged."""
    build_driver(tmp_path)
    unfit = preloading(harmless="", harmful=HARM[harm])
    said: list[str] = []
    seen, ends = among(
        tmp_path, cell("imports", interpreter=unfit, module="harmful"), waiting=said.append, ready_timeout_s=30.0
    )
    flags = sorted(ends["imports"].flags)
    observe(
        "zygote",
        f"a library whose import {'starts threads' if harm == 'threads' else 'initialises CUDA'}, preloaded",
        "ok; spawned, said once",
        f"{seen.observed}; flags {flags}; {len(said)} warning",
    )
    assert seen.status == "ok", seen.reason
    assert ends["imports"].outcome["columns"] == {"preloaded": False}
    assert flags == ["spawned"]
    assert [ends[name].flags for name in ("before", "after")] == [frozenset()] * 2
    assert len(said) == 1
    assert "importing harmful" in said[0]
    assert harm in said[0]
    assert sys.executable in said[0]
    assert seen.harmless()
    # A zygote that preloads nothing is there already
    assert started == [BARE, unfit]


def test_a_preload_is_found_unfit_once(tmp_path, started, preloading):
    """However many cells want it; the zygote that they get is a warm one like others."""
    unfit = preloading(harmful=HARM["threads"])
    said: list[str] = []
    cells = [cell(do, name=name, interpreter=unfit) for name, do in (("a", "ok"), ("b", "ok"), ("c", "kill_zygote"))]
    ends = sweep(tmp_path, *cells, cell("ok", name="d", interpreter=unfit), waiting=said.append)
    assert [str(end.status) for end in ends.values()] == ["ok", "ok", "crashed", "ok"]
    assert [end.flags for end in ends.values()] == [{"spawned"}] * 4
    assert len({ends[name].outcome["columns"]["zygote"] for name in "ab"}) == 1
    assert len(said) == 1
    assert started == [unfit, BARE, BARE, BARE]


def test_two_slots_that_find_it_out_at_the_same_time_say_it_once(tmp_path, preloading):
    """The sweep has one terminal."""
    unfit = preloading(harmful=f"import time\ntime.sleep(0.5)\n{HARM['threads']}")
    said: list[str] = []
    devices = tuple(replace(processes.CPU, uuid=f"cpu-{name}") for name in "ab")
    cells = [cell("ok", name=name, group=name, interpreter=unfit) for name in "abcd"]
    assert good(sweep(tmp_path, *cells, devices=devices, waiting=said.append))
    assert len(said) == 1


def test_a_driver_that_is_only_loaded_is_no_harm(tmp_path, started, preloading):
    """Importing torch loads CUDA's driver, and initialises nothing."""
    build_driver(tmp_path)
    loads = preloading(loads=HARM["CUDA"].replace(".cuInit(0)", ""))
    assert good(sweep(tmp_path, cell("ok", interpreter=loads)))
    assert started == [loads]


@pytest.mark.slow
def test_a_record_shows_that_its_cell_was_spawned(tmp_path, observe, preloading):
    """By the real worker, which imports the framework in the child."""
    unfit = preloading(harmful=HARM["threads"])
    (planned,) = planning.make(settings(tmp_path), [combination(scenario=one_case(), timing=BLINK)], [CPU]).to_run
    rows = []
    said: list[str] = []
    (tmp_path / "cells").mkdir()
    Pool([CPU], log_folder=tmp_path / "cells", waiting=said.append).run(
        [replace(planned, interpreter=replace(unfit, preload=("harmful", "torch")))],
        lambda one, device: None,
        lambda one, device, end: rows.append(recording.write(one, device, end, tmp_path / "cells").values),
    )
    seen = f"{rows[0]['status']}; flags {rows[0]['flags']}; {len(said)} warning; {remains()} left"
    observe("zygote", "the record of a cell whose preload was unfit", "ok; flag spawned", seen)
    assert (rows[0]["status"], rows[0]["latency_ms"] > 0) == ("ok", True), rows[0]["reason"]
    assert "spawned" in rows[0]["flags"]
    assert len(said) == 1
    assert remains() == []


BLINK: dict[str, Any] = {
    "name": "blink", "replicates": 1, "target": 0.5, "min_blocks": 6, "min_time_s": 0.0, "time_cap_s": 0.2,
    "max_samples": 100, "block_ms": 10.0, "rest_ms": 5.0, "cache": "cold", "sustained": False, "soak_s": 0.3,
    "window_s": 0.3, "steady": 0.02, "load_cap_s": 2.0,
}  # fmt: skip


def test_an_interpreter_that_starts_threads_by_itself(tmp_path, observe, preloading):
    """No zygote of it can be forked, whatever it preloads: the records say why."""
    # `site` imports it at every start
    unfit = replace(preloading(sitecustomize=HARM["threads"]), preload=("base64",))
    said: list[str] = []
    left: list[str] = []
    ends = sweep(
        tmp_path,
        *(cell("ok", name=name, interpreter=unfit) for name in ("one", "two")),
        waiting=said.append,
        finished=lambda one, end: left.extend(strays()),
    )
    seen = of(ends["one"], [], left + remains())
    observe("zygote", "an interpreter that starts threads by itself", "error for its cells", seen.observed)
    assert {str(end.status) for end in ends.values()} == {"error"}
    assert "started threads" in ends["one"].reason
    assert ends["two"].reason == ends["one"].reason
    assert seen.left == []


# Interpreters that are none


@pytest.mark.parametrize("kind", ["absent", "a folder", "not executable", "no program"])
def test_an_interpreter_that_is_none(tmp_path, observe, kind):
    """Whatever stands at the path that env.python names."""
    path = tmp_path / "python"
    if kind == "a folder":
        path.mkdir()
    elif kind != "absent":
        path.write_text("not a program")
        path.chmod(0o755 if kind == "no program" else 0o644)
    seen, _ = among(tmp_path, cell("ok", interpreter=replace(BARE, python=str(path), own=False)))
    observe("zygote", f"an interpreter that is none ({kind})", "missing, with its path", seen.observed)
    assert seen.status == "missing"
    assert str(path) in seen.reason
    assert seen.harmless()


#: Programs that are no Python, or none of our age: what each says to whatever it is asked.
NO_PYTHON = {
    "no Python": "exit 0",
    "Python 2.7": "echo 'SyntaxError: invalid syntax' >&2; exit 1",
    "Python 3.7": "echo \"ModuleNotFoundError: No module named 'importlib.metadata'\" >&2; exit 1",
}


@pytest.mark.parametrize("kind", NO_PYTHON)
def test_a_program_that_is_no_python_of_ours(tmp_path, observe, kind):
    """Missing before anything runs; where it is put there later, a crash that names it and its last words."""
    path = tmp_path / "python"
    path.write_text(f"#!/bin/sh\n{NO_PYTHON[kind]}\n")
    path.chmod(0o755)
    foreign = combination(impl=impl("naive", env={"python": str(path)}), scenario=one_case())
    (planned,) = planning.make(settings(tmp_path), [foreign], [CPU]).cells
    why = interpreters.why_missing(planned.payload["impl"], planned.interpreter, None, "cpu")
    assert why is not None
    seen, _ = among(tmp_path, cell("ok", name="later", interpreter=replace(BARE, python=str(path), own=False)))
    text = f"missing ({why.rpartition(': ')[2]}); later {seen.observed}"
    observe("zygote", f"an interpreter that is {kind}", "missing in the plan; later crashed", text)
    assert why.startswith(f"{path} is no Python 3.9 or newer that runs: ")
    assert seen.status == "crashed"
    assert str(path) in seen.reason
    assert seen.harmless()


@pytest.fixture
def environment(tmp_path):
    """A virtual environment without packages, but for one that imports `text` at every start."""

    def make(text: str = "") -> Interpreter:
        venv.create(tmp_path / "env", with_pip=False, symlinks=True)
        packages = next((tmp_path / "env" / "lib").glob("python*/site-packages"))
        (packages / "at_start.pth").write_text(text)
        return replace(BARE, python=str(tmp_path / "env" / "bin" / "python"), own=False)

    return make


def test_a_python_that_is_too_old(tmp_path, observe, environment):
    """One that lacks what 3.9 brought; the reason names the version that is needed."""
    # There need be no old one here: this is what makes 3.8 fail
    old = environment("import os; del os.pidfd_open, os.waitstatus_to_exitcode\n")
    seen, _ = among(tmp_path, cell("ok", name="old", interpreter=old))
    observe("zygote", "an interpreter older than Python 3.9", "missing: Python 3.9 or newer is needed", seen.observed)
    assert seen.status == "missing"
    assert "Python 3.9 or newer are needed" in seen.reason
    assert old.python in seen.reason
    assert seen.harmless()


def test_an_environment_without_numpy(tmp_path, observe, environment):
    """The reason says what to install into which interpreter; also where nothing is preloaded."""
    bare = environment()
    wanted = replace(bare, preload=("numpy", "torch"))
    seen, _ = among(tmp_path, cell("ok", name="numpy", interpreter=wanted))
    observe("zygote", "an environment without numpy", "missing, with what to install", seen.observed)
    assert seen.status == "missing"
    assert "No module named 'numpy'" in seen.reason
    assert f"{bare.python} -m pip install numpy" in seen.reason
    assert seen.harmless()


def test_an_environment_without_a_framework_whose_cells_are_spawned(tmp_path, observe, environment):
    """The worker finds out."""
    (planned,) = planning.make(settings(tmp_path), [combination(scenario=one_case(), timing=BLINK)], [CPU]).to_run
    ends = []
    Pool([CPU], log_folder=tmp_path / "cells").run(
        [replace(planned, interpreter=environment())],
        lambda one, device: None,
        lambda one, device, end: ends.append(end),
    )
    seen = of(ends[0], [], remains())
    observe("zygote", "an environment without a framework, isolation=spawn", "missing", seen.observed)
    assert seen.status == "missing"
    assert "torch cannot be imported" in seen.reason
    assert "pip install torch" in seen.reason
    assert seen.left == []
