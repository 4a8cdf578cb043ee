"""Faults in the launcher: however a sweep ends, what was measured is kept, and its name goes on with the rest."""

from __future__ import annotations

import contextlib
import os
import pty
import random
import select
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from commands import Command
from quick import HANGS_AT

import processes
from conftest import Observer
from processes import survivors, wait_for

KILLS = 50
#: The sweep that is killed: each a cell that runs and a record that needs no process.
LENGTHS = range(16, 31)
#: A bound on the time from a signal to the end of the command, on a loaded machine.
BOUND_S = 8.0


@pytest.fixture(autouse=True)
def marker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A world of its own for each test, and no process left after it."""
    yield from processes.alone(tmp_path, monkeypatch)


def in_words(command: Command, code: int, seconds: float) -> str:
    """What was seen, for the table."""
    left = ", ".join(command.left()) or "nothing"
    return f"exit {code} in {seconds:.1f} s; {len(command.whole())} records, all whole; {left} left"


# Each brings a command to a moment of its life


def planning(folder: Path) -> Command:
    """It has begun to import what it needs."""
    command = Command(folder, [16])
    command.until(lambda: command.listens)
    return command


def starting(folder: Path) -> Command:
    """Its zygote is importing."""
    command = Command(folder, [16], QUICK_IMPORT=str(folder / "importing"))
    command.until((folder / "importing").exists)
    return command


def in_a_cell(folder: Path) -> Command:
    """One cell has been measured and recorded, another runs."""
    command = Command(folder, [16, HANGS_AT, 17])
    command.until(lambda: any(f"s{HANGS_AT}" in one for one in command.started()))
    return command


def writing(folder: Path) -> Command:
    """Stopped in the middle of writing a record of a cell that ran."""
    command = Command(folder, range(16, 66))

    def unfinished() -> bool:
        return any(path.name.startswith(".naive") for path in command.cells.glob(".*"))

    while True:
        command.until(unfinished)
        command.process.send_signal(signal.SIGSTOP)
        wait_for(lambda: Path(f"/proc/{command.process.pid}/stat").read_text().rpartition(")")[2].split()[0] == "T")
        if unfinished():
            return command
        command.process.send_signal(signal.SIGCONT)


#: By moment: how to come there, and how many records there must be in the end, at least and at most.
MOMENTS: dict[str, tuple[Callable[[Path], Command], int, int]] = {
    "while planning": (planning, 0, 0),
    "while zygotes start": (starting, 1, 1),
    "in a cell": (in_a_cell, 3, 5),
    "while a record is written": (writing, 51, 99),
}


@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
@pytest.mark.parametrize("times", [1, 2])
def test_a_signal_at_any_moment(
    tmp_path: Path, marker: str, observe: Observer, moment: str, name: str, times: int
) -> None:
    """128 and its number, at once, without a traceback; what was measured stays, and nothing else is left."""
    come_there, least, most = MOMENTS[moment]
    command = come_there(tmp_path)
    begin = time.monotonic()
    for _ in range(times):
        command.process.send_signal(signal.Signals[name])
    command.process.send_signal(signal.SIGCONT)
    code, out, err = command.end()
    seconds = time.monotonic() - begin
    observe(
        "launcher",
        f"{name} {moment}{', twice' * (times == 2)}",
        f"exit {128 + signal.Signals[name]} at once; what is measured is recorded, nothing else is left",
        in_words(command, code, seconds),
    )
    assert (code, err) == (128 + signal.Signals[name], "")
    assert least <= len(command.whole()) <= most
    assert command.left() == []
    assert survivors(marker) == []
    assert seconds < BOUND_S
    # There is something to go on with, unless it was still planning
    assert (f"Ended by {name}. What is done is kept; this goes on:" in out) == bool(most)


def test_ctrl_c_at_a_terminal(tmp_path: Path, marker: str, observe: Observer) -> None:
    """Pressed twice; the bar goes, and what is done and what goes on is said."""
    screen = Screen()
    command = Command(tmp_path, [16, HANGS_AT, 17], stdio=screen.theirs, QUICK_TERMINAL="1", TERM="xterm")
    os.close(screen.theirs)
    command.until(lambda: any(f"s{HANGS_AT}" in one for one in command.started()))
    begin = time.monotonic()
    os.write(screen.ours, b"\x03\x03")
    code, seconds, said = command.end()[0], time.monotonic() - begin, screen.close()
    observe(
        "launcher",
        "Ctrl-C twice at a terminal",
        "exit 130; what is measured is recorded, nothing else is left",
        in_words(command, code, seconds),
    )
    assert code == 130
    assert "Ended by SIGINT. What is done is kept; this goes on:" in said
    assert "Traceback" not in said
    assert (len(command.whole()), command.left(), survivors(marker)) == (4, [], [])


def test_a_terminal_that_goes_away(tmp_path: Path, marker: str, observe: Observer) -> None:
    """The kernel sends SIGHUP, and nothing that is said can be written any more."""
    screen = Screen()
    command = Command(tmp_path, [16, HANGS_AT, 17], stdio=screen.theirs, QUICK_TERMINAL="1", TERM="xterm")
    os.close(screen.theirs)
    command.until(lambda: any(f"s{HANGS_AT}" in one for one in command.started()))
    begin = time.monotonic()
    screen.close()
    code, seconds = command.end()[0], time.monotonic() - begin
    observe(
        "launcher",
        "its terminal is closed",
        "exit 129; what is measured is recorded, nothing else is left",
        in_words(command, code, seconds),
    )
    assert code == 129
    assert (len(command.whole()), command.left(), survivors(marker)) == (4, [], [])


class Screen:
    """A terminal that shows what the one process in it writes; `theirs` is that process's end."""

    def __init__(self) -> None:
        self.ours, self.theirs = pty.openpty()
        self._said, self._closing = bytearray(), threading.Event()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        while not self._closing.is_set():
            if select.select([self.ours], [], [], 0.05)[0]:
                try:
                    self._said += os.read(self.ours, 65536)
                except OSError:
                    return  # nobody has the other end any more

    def close(self) -> str:
        """Close it as somebody closes a window, once there is nothing new to show; all that it showed."""
        wait_for(lambda: not select.select([self.ours], [], [], 0)[0] or not self._reader.is_alive())
        self._closing.set()
        self._reader.join()
        os.close(self.ours)
        return self._said.decode("utf-8", "replace")


@dataclass
class Kills:
    """What came of killing sweeps: how many were killed, how many cells in flight ran again, and what was wrong."""

    sweeps: int = 0
    again: int = 0
    wrong: list[str] = field(default_factory=list)

    def expect(self, right: object, what: str) -> None:
        """Keep what is wrong, if it is."""
        if not right:
            self.wrong.append(what)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_nothing_is_lost_over_fifty_kills(tmp_path: Path, marker: str, observe: Observer) -> None:
    """SIGKILL at a random moment of a sweep, then the same name again, until it is complete; then another sweep."""
    chance = random.Random(5)
    undisturbed = Command(tmp_path, LENGTHS, name="undisturbed")
    undisturbed.until(lambda: undisturbed.holder() is not None)
    begin = time.monotonic()
    assert undisturbed.end()[0] == 0
    duration_s, cells = time.monotonic() - begin, set(undisturbed.whole())
    kills, sweeps = Kills(), 0
    while kills.sweeps < KILLS:
        sweeps += 1
        _until_complete(kills, tmp_path, f"s{sweeps}", cells, lambda: chance.uniform(0, duration_s))
    observe(
        "launcher",
        f"SIGKILL of the launcher at {KILLS} random moments of a sweep",
        "the same name goes on: every record whole, none lost, none twice, cells in flight run again",
        f"{kills.sweeps} of {KILLS} resumed: {sweeps} sweeps of {len(cells)} records complete; {kills.again} cells in "
        f"flight ran again; wrong: {', '.join(kills.wrong) or 'nothing'}",
    )
    assert kills.wrong == []
    assert kills.again > 0


def _until_complete(kills: Kills, folder: Path, name: str, cells: set[str], moment: Callable[[], float]) -> None:
    """Run a sweep and kill it, again and again, until it was quicker or there are enough kills; see what is there."""
    kept: dict[str, bytes] = {}
    flying: set[str] = set()
    code = -9
    while code == -signal.SIGKILL:
        command = Command(folder, LENGTHS, name=name)
        begun = len(command.started())
        command.begun()
        with contextlib.suppress(subprocess.TimeoutExpired):
            command.process.wait(moment() if kills.sweeps < KILLS else 100)
        command.process.kill()
        code, _, err = command.end()
        wait_for(lambda: not survivors(os.environ[processes.MARKER]))
        now, started = command.whole(), command.started()[begun:]
        kills.expect((code, err) in ((-signal.SIGKILL, ""), (0, "")), f"exit {code}: {err}")
        kills.expect(kept.items() <= now.items(), "a record was lost or written again")
        kills.expect(not set(started) & set(kept), "what has a record was measured again")
        kills.expect(len(set(started)) == len(started), "a cell was measured twice")
        kills.again += len(flying & set(started))
        flying = (flying | set(started)) - set(now)
        kept = now
        if code == -signal.SIGKILL:
            kills.expect(not command.held(), "a lock is held")
            kills.sweeps += 1
    kills.expect(set(kept) == cells and not flying, "a cell was lost")
    kills.expect(not command.left(), f"left: {command.left()}")


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_two_signals_at_random_moments(tmp_path: Path, marker: str, observe: Observer) -> None:
    """The second a moment after the first, wherever it is by then: no traceback, nothing lost, nothing left."""
    chance = random.Random(6)
    codes, wrong, kept = [], [], {}
    for number in range(16):
        name = ("SIGINT", "SIGTERM")[number % 2]
        command = Command(tmp_path, LENGTHS)
        command.until(lambda: command.listens)  # noqa: B023 - called here and now
        time.sleep(chance.uniform(0, 0.1 * number))  # the first ones when nothing can have ended yet
        command.process.send_signal(signal.Signals[name])
        time.sleep(chance.uniform(0, 0.3))
        command.process.send_signal(signal.Signals[name])
        code, _, err = command.end()
        codes.append(code)
        now = command.whole()
        # The second may come when the first has been answered, and only the interpreter's own end is left
        right = code in (0, 128 + signal.Signals[name], -signal.Signals[name]) and err == ""
        if not right or command.left() or not kept.items() <= now.items():
            wrong.append(f"exit {code} of {name}: {err} {command.left()}")
        kept = now
    last = Command(tmp_path, LENGTHS)
    ended = last.end()[0]
    observe(
        "launcher",
        f"SIGINT or SIGTERM at {len(codes)} random moments, twice within 0.3 s",
        "exit 130 or 143, or death of the second; no traceback, nothing is lost or left, the same name goes on",
        f"exits {sorted(set(codes))}; then exit {ended} with {len(last.whole())} records; wrong: {wrong or 'nothing'}",
    )
    assert wrong == []
    assert all(codes[:2]), "the signals came too late to end a sweep"
    assert (ended, len(last.whole()), last.left()) == (0, 2 * len(LENGTHS), [])
