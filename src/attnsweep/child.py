"""The forked child of a zygote: it becomes one cell, runs it, and says over a pipe of its own how it went.

Lines of JSON with the cell's token: `{"token", "event": "phase", ...}` while it runs, and at its end
`{"token", "outcome": {...}}`. NaN and infinities travel as the tokens NaN and Infinity, which Python's json
writes and reads. Standard library only, Python 3.9 on.
"""

from __future__ import annotations

import contextlib
import ctypes
import faulthandler
import json
import os
import pathlib
import random
import signal
import sys
import tempfile
import threading
import traceback
from typing import Any, Callable, Dict, NamedTuple, NoReturn, Optional, Tuple

#: Exit codes of a child that cannot go on and has nobody to tell.
EXIT_ORPHAN, EXIT_PIPE_LOST = 71, 72

PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36

Message = Dict[str, Any]
Entry = Callable[[Message, Callable[[Message], None]], Message]


class Job(NamedTuple):
    """What a forked child has to do: the request and where its outcome and its output go."""

    request: Message
    outcome: int
    log: int
    zygote: int


class Caught:
    """Keeps whatever a block raises: foreign code may raise anything, and all of it is an answer."""

    value: Optional[BaseException] = None

    def __enter__(self) -> Caught:
        return self

    def __exit__(self, kind: object, value: Optional[BaseException], trace: object) -> bool:
        self.value = value
        return True

    def __str__(self) -> str:
        return "".join(traceback.format_exception_only(type(self.value), self.value)).strip()


class Channel:
    """The child's end of its outcome pipe: one line a message, each with the cell's token."""

    def __init__(self, fd: int, token: str) -> None:
        self._fd, self._token, self._pid = fd, token, os.getpid()
        self._identity = self._look()
        self._lock = threading.Lock()

    def emit(self, event: Message) -> None:
        """Tell the parent something while the cell runs."""
        self._write(_encode({**event, "token": self._token}))

    def finish(self, outcome: Message) -> None:
        """Tell the parent the outcome; one that is not JSON becomes an error."""
        with Caught() as caught:
            line = _encode({"token": self._token, "outcome": outcome})
        if caught.value is not None:
            wrong = _failure(f"the outcome cannot be written as JSON: {caught}", caught.value)
            line = _encode({"token": self._token, "outcome": wrong})
        self._write(line)

    def _look(self) -> Tuple[int, int]:
        found = os.fstat(self._fd)
        return found.st_dev, found.st_ino

    def _write(self, line: bytes) -> None:
        if os.getpid() != self._pid:
            return  # a process that the cell forked has no say
        with self._lock:
            # A cell that closed every descriptor may have opened a file of its own under this number.
            try:
                lost = self._look() != self._identity
                while line and not lost:
                    line = line[os.write(self._fd, line) :]
            except OSError:
                lost = True
            if lost:
                os._exit(EXIT_PIPE_LOST)


def _encode(message: Message) -> bytes:
    # The newline in front ends whatever somebody else may have written without one.
    return b"\n" + json.dumps(message).encode() + b"\n"


def _failure(reason: str, error: BaseException) -> Message:
    """The outcome of a cell whose entry point did not return one."""
    lines = traceback.format_exception(type(error), error, error.__traceback__)
    return {
        "status": "error",
        "reason": reason,
        "traceback": "".join(lines),
        "stages": {},
        "windows": {},
        "columns": {},
    }


def become(job: Job, entry: Entry) -> NoReturn:
    """Become a cell: alone in a process group, with its own output, environment and seeds; run it and end."""
    with contextlib.suppress(OSError):
        os.setpgid(0, 0)
    prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != job.zygote:
        os._exit(EXIT_ORPHAN)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    null = os.open(os.devnull, os.O_RDONLY)
    for source, target in ((null, 0), (job.log, 1), (job.log, 2)):
        os.dup2(source, target)
    os.close(null)
    os.close(job.log)
    faulthandler.enable(2)
    # Says where a cell hung, also inside C, and then dies of the signal; SIGUSR2 for one that ignores SIGTERM.
    faulthandler.register(signal.SIGTERM, file=2, chain=True)
    faulthandler.register(signal.SIGUSR2, file=2)
    channel = Channel(job.outcome, job.request["token"])
    outcome: Message = {}
    with Caught() as caught:
        _settle(job.request)
        outcome = entry(job.request["payload"], channel.emit)
        if not isinstance(outcome, dict):
            raise TypeError(f"the entry point returned {type(outcome).__name__}, not a dict")
    if caught.value is not None:
        outcome = _failure(str(caught), caught.value)
    channel.finish(outcome)
    # Python's and C's buffers are lost by os._exit, which spares the cell the zygote's exit handlers.
    with Caught():
        sys.stdout.flush()
        sys.stderr.flush()
    ctypes.CDLL(None).fflush(None)
    os._exit(0)


def _settle(request: Message) -> None:
    """Environment, working folder, random state and the first place in the OOM killer's queue."""
    score = pathlib.Path("/proc/self/oom_score_adj")
    with contextlib.suppress(OSError):  # a container may forbid it; then the kernel chooses by size alone
        if int(score.read_text()) < 500:
            score.write_text("500")
    for name, value in request["env"].items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
    # A preloaded library may have asked for it, and would keep the zygote's TMPDIR.
    tempfile.tempdir = None
    os.chdir(request["cwd"])
    # `random` reseeds itself after a fork; numpy and torch would repeat themselves in every cell.
    seed = request["seed"]
    random.seed(seed)
    numpy, torch = sys.modules.get("numpy"), sys.modules.get("torch")
    if numpy is not None:
        numpy.random.seed(seed % 2**32)
    if torch is not None:
        torch.manual_seed(seed)


def prctl(option: int, value: int) -> None:
    """Linux's prctl(option, value); raises OSError."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(option, value, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), f"prctl({option}) failed")
