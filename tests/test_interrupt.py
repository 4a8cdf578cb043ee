"""The sweep's own end: Ctrl-C, a scheduler's signal or SIGKILL, and nothing of it is left running."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

import processes
from attnsweep.pool import interrupt
from attnsweep.pool.interrupt import Stop
from processes import survivors, wait_for


@pytest.fixture(autouse=True)
def marker(tmp_path, monkeypatch):
    """A world of its own for each test, and no process left after it."""
    yield from processes.alone(tmp_path, monkeypatch)


class Sweep:
    """A sweep in a process of its own: one cell that ends, then one that leaves a daemon and hangs."""

    def __init__(self, tmp_path: Path, stdin: int = subprocess.DEVNULL, **wanted) -> None:
        self.hanging = tmp_path / "hanging"
        cells = [
            ("ok", {}),
            ("daemon", {"marker": str(tmp_path / "daemon"), "then": "hang", "hanging": str(self.hanging)}),
            ("ok", {}),
        ]
        self.process = subprocess.Popen(
            [
                sys.executable,
                str(processes.TESTS / "parent.py"),
                json.dumps({"folder": str(tmp_path), "cells": cells} | wanted),
            ],
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        wait_for(lambda: self.hanging.exists() or self.process.poll() is not None)
        assert self.process.poll() is None, self.process.communicate()[1]

    def result(self) -> dict:
        """What it printed in the end."""
        out, err = self.process.communicate(timeout=30)
        assert (self.process.returncode, err) == (0, "")
        return json.loads(out)


INTERRUPTED = {"ends": {"0-ok": "ok", "1-daemon": None}, "restored": True}


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_a_signal_ends_the_sweep_with_everything_below_it(tmp_path, marker, name):
    """What is done stays done, the running cell stays open, the next never starts, handlers come back."""
    sweep = Sweep(tmp_path)
    assert len(survivors(marker)) == 3, "the zygote, its cell and the daemon"
    sweep.process.send_signal(signal.Signals[name])
    assert sweep.result() == {"cause": name, **INTERRUPTED}
    assert survivors(marker) == []


def test_ctrl_c_at_a_terminal_reaches_the_sweep_alone(tmp_path, marker):
    """Twice, as people type it; the cells are in sessions of their own and are ended by their zygote."""
    terminal, stdin = pty.openpty()
    try:
        sweep = Sweep(tmp_path, stdin=stdin, terminal=True)
        os.write(terminal, b"\x03\x03")
        assert sweep.result() == {"cause": "SIGINT", **INTERRUPTED}
    finally:
        os.close(stdin)
        os.close(terminal)
    assert survivors(marker) == []


def test_a_signal_to_every_process_at_once_leaves_the_cell_open(tmp_path, marker):
    """As a scheduler cancels a job: cell and zygote die of it by themselves, which is no crash of theirs."""
    sweep = Sweep(tmp_path)
    for pid in [*survivors(marker), sweep.process.pid]:
        os.kill(pid, signal.SIGTERM)
    assert sweep.result() == {"cause": "SIGTERM", **INTERRUPTED}


def test_an_ignored_signal_stays_ignored(tmp_path):
    """nohup means it."""
    sweep = Sweep(tmp_path, ignored=["SIGHUP"])
    sweep.process.send_signal(signal.SIGHUP)
    sweep.process.send_signal(signal.SIGTERM)
    assert sweep.result() == {"cause": "SIGTERM", **INTERRUPTED}


def test_a_killed_parent_leaves_nothing(tmp_path, marker):
    """End of file tells the zygote, which kills its cell and the daemon that the cell left, and ends."""
    sweep = Sweep(tmp_path)
    assert len(survivors(marker)) == 3
    sweep.process.kill()
    sweep.process.communicate(timeout=30)
    wait_for(lambda: not survivors(marker))
    for left in (tmp_path / "tmp").glob("attnsweep-cell-*"):
        left.rmdir()  # the one thing that a killed parent cannot remove


def test_a_cell_does_not_outlive_its_zygote_although_nobody_is_there_to_see(tmp_path, marker):
    """Parent and zygote killed at once: the kernel ends the cell."""
    hanging = tmp_path / "hanging"
    wanted = {"folder": str(tmp_path), "cells": [("hang", {"marker": str(hanging)})]}
    process = subprocess.Popen([sys.executable, str(processes.TESTS / "parent.py"), json.dumps(wanted)])
    wait_for(hanging.exists)
    process.send_signal(signal.SIGSTOP)
    zygote = next(pid for pid in survivors(marker) if parent_of(pid) == process.pid)
    os.kill(zygote, signal.SIGKILL)
    wait_for(lambda: not survivors(marker))
    process.kill()
    process.wait()
    for left in (tmp_path / "tmp").glob("attnsweep-cell-*"):
        left.rmdir()


def parent_of(pid: int) -> int:
    """The process id of a process's parent."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def test_a_signal_while_a_zygote_imports_does_not_wait_for_the_import(tmp_path, marker, monkeypatch):
    """The sweep ends although nobody has said that it is ready."""
    (tmp_path / "slow.py").write_text(
        f"import time, pathlib\npathlib.Path({str(tmp_path / 'slow')!r}).touch()\ntime.sleep(600)\n"
    )
    monkeypatch.setenv("PYTHONPATH", f"{processes.TESTS}:{tmp_path}")
    wanted = {"folder": str(tmp_path), "cells": [("ok", {})], "preload": ["slow"]}
    process = subprocess.Popen(
        [sys.executable, str(processes.TESTS / "parent.py"), json.dumps(wanted)],
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    wait_for((tmp_path / "slow").exists)
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=30)
    assert json.loads(out) == {"cause": "SIGINT", "ends": {"0-ok": None}, "restored": True}


def test_a_stop_wakes_everybody_and_keeps_its_first_cause():
    """Also those who begin to wait after it."""
    stop = Stop()
    assert not stop.wait(0)
    woken = []
    threads = [threading.Thread(target=lambda: woken.append(stop.wait(30))) for _ in range(3)]
    for thread in threads:
        thread.start()
    stop.request("SIGINT")
    stop.request("SIGTERM")
    for thread in threads:
        thread.join()
    assert woken == [True] * 3
    assert stop.wait(0)
    assert (stop.requested, stop.cause) == (True, "SIGINT")
    stop.close()


def test_handlers_come_back_after_an_exception():
    """Whatever happened meanwhile."""
    stop = Stop()
    before = signal.getsignal(signal.SIGINT)
    meanwhile = []

    def fail():
        with interrupt.signals(stop):
            meanwhile.append(signal.getsignal(signal.SIGINT))
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert meanwhile != [before]
    assert signal.getsignal(signal.SIGINT) is before
    stop.close()
