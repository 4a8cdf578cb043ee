"""The parent's end of a zygote: starting it, talking to it, and making sure that nothing of it is left."""

from __future__ import annotations

import array
import contextlib
import errno
import json
import os
import secrets
import select
import signal
import socket
import subprocess
import time
from enum import Enum
from pathlib import Path
from typing import Any

from attnsweep.interpreters import TOKEN_VARIABLE, Interpreter
from attnsweep.pool import pyenv
from attnsweep.pool.interrupt import Stop

_PACKET_BYTES = 1 << 20
#: How long a zygote may take to kill its cell and end, once its socket is closed, before it is killed itself.
_CLOSE_S = 8.0
#: How long processes that were sent SIGKILL may take to go.
_KILL_S = 5.0


class Start(Enum):
    """How a zygote's start ended."""

    READY = "ready"
    REFUSED = "refused"
    DIED = "died"
    LATE = "late"
    STOPPED = "stopped"


class Zygote:
    """One warm process and the control socket to it. Raises OSError when its interpreter cannot start."""

    def __init__(self, interpreter: Interpreter, *, run: str, log_folder: Path, hold: int) -> None:
        self.interpreter = interpreter
        self.ready: dict[str, Any] = {}
        self._token = secrets.token_hex(16)
        self.log_path = log_folder / f"zygote-{self._token[:8]}.log"
        folder = pyenv.import_folder()
        environment = pyenv.environment(interpreter, folder, self._token)
        self.control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            with theirs, self.log_path.open("ab") as log:
                # A session of its own: a terminal's Ctrl-C never reaches it. No PDEATHSIG: that would follow
                # the thread which starts it; it reads end of file instead.
                self._process = subprocess.Popen(
                    [interpreter.python, "-m", "attnsweep.zygote", str(theirs.fileno())],
                    pass_fds=(theirs.fileno(),),
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    cwd=folder,
                    env=environment,
                    start_new_session=True,
                )
        except OSError:
            self.control.close()
            self.log_path.unlink(missing_ok=True)
            raise
        self.send({"preload": interpreter.preload, "run": run}, [hold])

    def await_ready(self, stop: Stop, timeout_s: float) -> Start:
        """Wait until it has imported everything; its answer is in `ready` where there is one."""
        deadline = time.monotonic() + timeout_s
        poll = select.poll()
        poll.register(self.control, select.POLLIN)
        poll.register(stop, select.POLLIN)
        while not stop.requested:
            left = deadline - time.monotonic()
            if left <= 0:
                return Start.LATE
            if self.control.fileno() in dict(poll.poll(left * 1e3)):
                answer = self.receive()
                if answer is None:
                    return Start.DIED
                self.ready = answer
                return Start.READY if answer["ready"] else Start.REFUSED
        return Start.STOPPED

    def send(self, message: dict[str, Any], fds: list[int] | None = None) -> bool:
        """Send one message with copies of `fds`; False when nobody takes it. Raises ValueError: too large."""
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
        try:
            self.control.sendmsg([json.dumps(message).encode()], rights, socket.MSG_NOSIGNAL | socket.MSG_DONTWAIT)
        except (ConnectionError, BlockingIOError):
            return False
        except OSError as error:
            if error.errno != errno.EMSGSIZE:
                raise
            raise ValueError("it is larger than a message to a process can be") from None
        return True

    def receive(self) -> dict[str, Any] | None:
        """The next message, or None when the zygote is dead."""
        try:
            data = self.control.recv(_PACKET_BYTES)
        except ConnectionError:
            return None
        if not data:
            return None
        message = json.loads(data)
        return message if isinstance(message, dict) else None

    def alive(self) -> bool:
        """Whether it still runs."""
        return self._process.poll() is None

    def hang_up(self) -> None:
        """Tell it to kill its cell and end, without waiting for that."""
        self.control.close()

    def close(self, *, kill: bool = False, cell: int | None = None) -> list[int]:
        """End it with everything below it; the process ids of what resisted even SIGKILL.

        `kill` does not wait for it to clean up by itself; `cell` is the process group of a cell that it may
        have left.
        """
        self.control.close()
        if not kill:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(_CLOSE_S)
        self._process.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_KILL_S)
        if cell is not None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(cell, signal.SIGKILL)
        left = kill_marked(self._token, _KILL_S)
        if self._process.poll() is None:
            left.append(self._process.pid)
        with contextlib.suppress(OSError):  # its folder is gone, or cannot be written any more
            if self.log_path.stat().st_size == 0:
                self.log_path.unlink()
        return left

    def last_words(self, lines: int = 20) -> str:
        """The last lines that it wrote itself."""
        try:
            with self.log_path.open("rb") as file:
                file.seek(max(0, self.log_path.stat().st_size - 65536))
                text = file.read().decode("utf-8", "replace")
        except FileNotFoundError:
            return ""
        return "\n".join(text.splitlines()[-lines:])


def discard_logs(folder: Path) -> None:
    """Remove the empty logs of zygotes whose sweep was killed; no other may run in this folder. Raises OSError."""
    for path in folder.glob("zygote-*.log"):
        if path.stat().st_size == 0:
            path.unlink()


def marked(token: str) -> list[int]:
    """The living processes that carry a zygote's token in the environment they were started with."""
    found = []
    mark = f"{TOKEN_VARIABLE}={token}".encode()
    for entry in os.listdir("/proc"):
        if entry.isdecimal():
            with contextlib.suppress(OSError):  # it ended meanwhile, or is not ours to look at
                if mark in Path("/proc", entry, "environ").read_bytes().split(b"\0"):
                    found.append(int(entry))
    return found


def kill_marked(token: str, timeout_s: float) -> list[int]:
    """SIGKILL what carries the token and wait for it to be gone; the process ids of what resisted."""
    deadline = time.monotonic() + timeout_s
    while left := marked(token):
        for pid in left:
            _kill_if_marked(pid, token, deadline)
        if time.monotonic() > deadline:
            return left
    return []


def _kill_if_marked(pid: int, token: str, deadline: float) -> None:
    # The pidfd pins the process: between the second look and the signal its id cannot become another's. It is
    # readable when the whole process is dead; its environment is gone before that, and its GPU memory after.
    with contextlib.suppress(OSError):
        pidfd = os.pidfd_open(pid)
        try:
            if f"{TOKEN_VARIABLE}={token}".encode() in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)
                poll = select.poll()
                poll.register(pidfd, select.POLLIN)
                poll.poll(max(0.0, deadline - time.monotonic()) * 1e3)
        finally:
            os.close(pidfd)
