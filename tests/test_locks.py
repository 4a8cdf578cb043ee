"""One sweep at a time on a device: the second waits, is told for whom, and can be interrupted meanwhile."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import processes
from attnsweep.devices import Device
from attnsweep.errors import ConfigError, Status
from attnsweep.pool import locks
from attnsweep.pool.interrupt import Stop
from processes import CPU, cell, survivors, sweep, wait_for


@pytest.fixture(autouse=True)
def marker(tmp_path, monkeypatch):
    """A world of its own for each test, and no process left after it."""
    yield from processes.alone(tmp_path, monkeypatch)


@pytest.fixture
def stop():
    """A sweep's end that nobody asks for, unless the test does."""
    stop = Stop()
    yield stop
    stop.close()


HOLDER = """
import json, sys
from pathlib import Path
from processes import CPU
from attnsweep.pool import locks
from attnsweep.pool.interrupt import Stop
locks.acquire(CPU, Path(sys.argv[1]), Stop(), print)
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def holder(tmp_path):
    """Another process that holds the CPU's lock until its stdin is closed."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path / "outputs" / "first")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "held\n"
    yield process
    process.communicate()


def free(fd: int) -> bool:
    """Whether a lock could be taken; then it was."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def never(sentence: str) -> None:
    """A `waiting` that must not be called."""
    raise AssertionError(sentence)


def test_a_second_sweep_waits_and_is_told_once_for_whom(tmp_path, holder):
    """The sentence names the process, the host, the sweep and the command; then the cell runs."""
    told = []

    def waiting(sentence):
        told.append(sentence)
        holder.stdin.close()

    ends = sweep(tmp_path, cell("ok"), waiting=waiting)
    assert ends["ok"].status is Status.OK
    assert len(told) == 1
    assert told[0].startswith(f"a CPU (cpu) is in use by process {holder.pid} on {os.uname().nodename} (sweep ")
    assert str(tmp_path / "outputs" / "first") in told[0]
    assert "locks.acquire" in told[0], "the command"
    holder.stdin = open(os.devnull)  # noqa: SIM115  (communicate() wants one that it can close)


def test_waiting_ends_with_the_sweep(tmp_path, holder, stop):
    """Ctrl-C does not wait for another sweep's end."""
    told = []

    def waiting(sentence):
        told.append(sentence)
        stop.request("SIGINT")

    assert locks.acquire(CPU, tmp_path, stop, waiting) is None
    assert len(told) == 1


def test_a_waiting_sweep_answers_ctrl_c(tmp_path, holder):
    """Through the whole pool, in a process of its own."""
    wanted = {"folder": str(tmp_path), "cells": [("ok", {})]}
    process = subprocess.Popen(
        [sys.executable, str(processes.TESTS / "parent.py"), json.dumps(wanted)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert f"in use by process {holder.pid}" in process.stderr.readline()
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert (json.loads(out), err) == ({"cause": "SIGINT", "ends": {}, "restored": True}, "")


def test_waiting_ends_when_nothing_is_left_to_run(tmp_path, holder, stop):
    """Another device of the sweep may have run it all."""
    answers = [True, True, False]
    assert locks.acquire(CPU, tmp_path, stop, lambda sentence: None, wanted=lambda: answers.pop(0)) is None
    assert answers == []


def test_devices_do_not_wait_for_each_other(tmp_path, holder, stop):
    """A lock is one device's."""
    lock = locks.acquire(Device("cuda", "GPU-7", "a GPU"), tmp_path, stop, never)
    assert lock is not None
    lock.close()


def test_a_lock_is_free_after_the_sweep(tmp_path, stop):
    """And no sooner: the file itself stays, since removing it would let two sweeps hold two files."""
    held = []

    def look(one, end):
        with pytest.raises(BlockingIOError):
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        held.append(one.id)

    path = locks.folder() / "cpu.lock"
    fd = os.open(path, os.O_RDWR | os.O_CREAT)
    sweep(tmp_path, cell("ok"), finished=look)
    assert held == ["ok"]
    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.close(fd)


def test_the_lock_outlives_a_killed_sweep_until_its_last_cell_is_dead(tmp_path, marker):
    """The zygote holds a copy: a device is never given away with a cell still on it."""
    stopped = tmp_path / "stopped"
    wanted = {"folder": str(tmp_path), "cells": [("stop_zygote", {"marker": str(stopped)})]}
    process = subprocess.Popen([sys.executable, str(processes.TESTS / "parent.py"), json.dumps(wanted)])
    wait_for(stopped.exists)
    process.kill()
    process.wait()
    fd = os.open(locks.folder() / "cpu.lock", os.O_RDWR)
    with pytest.raises(BlockingIOError):
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    assert len(survivors(marker)) == 2, "the zygote, stopped, and its cell"
    for pid in survivors(marker):
        with contextlib.suppress(ProcessLookupError):  # the zygote was first, and has killed its cell
            os.kill(pid, signal.SIGCONT)
    wait_for(lambda: free(fd))
    assert survivors(marker) == []
    os.close(fd)
    for left in (tmp_path / "tmp").glob("attnsweep-cell-*"):
        left.rmdir()


def test_a_holder_that_has_not_signed_yet_is_another_sweep(tmp_path, holder, stop):
    """The file is empty for a moment between locking and writing."""
    (locks.folder() / "cpu.lock").write_text("")
    told = []

    def waiting(sentence):
        told.append(sentence)
        stop.request()

    locks.acquire(CPU, tmp_path, stop, waiting)
    assert told == ["a CPU (cpu) is in use by another sweep; waiting for it to end"]


@pytest.mark.parametrize("what", ["file", "link"])
def test_a_folder_of_locks_that_is_none_is_refused(what):
    """In a shared temporary folder somebody else may have put something there."""
    path = locks.folder()
    for lock in path.iterdir():
        lock.unlink()
    path.rmdir()
    if what == "link":
        path.symlink_to(Path.home())
    else:
        path.write_text("")
    with pytest.raises(ConfigError, match="must be a folder of your own"):
        locks.folder()
