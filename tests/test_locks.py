"""One sweep at a time on a device: the second waits, is told for whom, and can be interrupted meanwhile."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import signal
import stat
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


def test_what_a_holder_signed_with_acts_on_no_terminal(tmp_path, holder, stop):
    """Anybody may write into the file: its sweep and its command become one harmless line."""
    sign = {"pid": 7, "host": "h", "sweep": "a\x1b[2J", "command": "b\n\u202ec"}
    (locks.folder() / "cpu.lock").write_text(json.dumps(sign))
    told = []

    def waiting(sentence):
        told.append(sentence)
        stop.request()

    locks.acquire(CPU, tmp_path, stop, waiting)
    assert told[0].startswith("a CPU (cpu) is in use by process 7 on h (sweep a\\x1b[2J, b \\u202ec); ")


@pytest.mark.parametrize("what", ["file", "link"])
def test_a_folder_of_locks_that_is_none_is_refused(what):
    """In a shared temporary folder somebody else may have put something there."""
    path = locks.folder()
    path.rmdir()
    if what == "link":
        path.symlink_to(Path.home())
    else:
        path.write_text("")
    with pytest.raises(ConfigError, match="must be a folder, to hold the locks"):
        locks.folder()


def test_every_user_of_the_machine_shares_one_folder(monkeypatch, tmp_path):
    """Whatever TMPDIR and the user are, or two sweeps could be on one device; the variable names another."""
    monkeypatch.delenv(locks.VARIABLE)
    monkeypatch.setattr(locks, "FOLDER", tmp_path / "fixed")
    assert locks.folder() == tmp_path / "fixed"
    monkeypatch.setenv("TMPDIR", str(tmp_path / "elsewhere"))
    monkeypatch.setattr(os, "getuid", lambda: 12345)
    assert locks.folder() == tmp_path / "fixed"
    monkeypatch.setenv(locks.VARIABLE, str(tmp_path / "mine"))
    assert locks.folder() == tmp_path / "mine"


def test_another_user_may_lock_too(tmp_path, stop):
    """Under any umask the folder is for all, like /tmp itself, and so is a lock's file."""
    before = os.umask(0o077)
    try:
        lock = locks.acquire(CPU, tmp_path, stop, never)
    finally:
        os.umask(before)
    assert lock is not None
    lock.close()
    assert stat.S_IMODE(locks.folder().stat().st_mode) == 0o1777
    assert stat.S_IMODE((locks.folder() / "cpu.lock").stat().st_mode) == 0o666


def test_a_link_in_the_place_of_a_lock_is_not_followed(tmp_path, stop):
    """It would be emptied and written over."""
    victim = tmp_path / "victim"
    victim.write_text("precious")
    (locks.folder() / "cpu.lock").symlink_to(victim)
    with pytest.raises(ConfigError, match="cannot be had at"):
        locks.acquire(CPU, tmp_path, stop, never)
    assert victim.read_text() == "precious"


@pytest.mark.parametrize("put", [Path.mkdir, os.mkfifo])
def test_what_is_no_file_is_no_lock(tmp_path, stop, put):
    """A folder or a pipe of that name is a mistake said in a sentence."""
    put(locks.folder() / "cpu.lock")
    with pytest.raises(ConfigError, match=r"cpu\.lock"):
        locks.acquire(CPU, tmp_path, stop, never)


def test_a_folder_that_cannot_be_made_is_said_with_the_way_out(monkeypatch, tmp_path):
    """A read-only /tmp never means measuring without a lock."""
    (tmp_path / "file").write_text("")
    monkeypatch.setenv(locks.VARIABLE, str(tmp_path / "file" / "locks"))
    with pytest.raises(ConfigError, match=r"cannot be had at .*ATTNSWEEP_LOCKS=FOLDER names another") as caught:
        sweep(tmp_path, cell("ok"))
    assert "\n" not in str(caught.value)


def test_a_file_system_without_locks_is_said(monkeypatch, tmp_path, stop):
    """As some network file systems are."""

    def refuse(fd, how):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(ConfigError, match="No locks available"):
        locks.acquire(CPU, tmp_path, stop, never)
