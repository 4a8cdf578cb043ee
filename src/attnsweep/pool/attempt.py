"""One attempt at one cell: its two pipes, its deadlines and what its zygote says, as its slot watches them."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import secrets
import select
import signal
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

from attnsweep.limits import Phases
from attnsweep.pool import cputime
from attnsweep.pool.cell_log import CellLog
from attnsweep.pool.deadlines import Standing, Watch
from attnsweep.pool.ending import LOG_LINES, Seen, timestamp
from attnsweep.pool.interrupt import Stop
from attnsweep.pool.warm import Zygote

#: Seconds between two readings of a GPU's sensors.
SAMPLE_S = 0.02
#: Readings kept of one cell; beyond it every second one goes and the interval doubles.
MOST_SAMPLES = 16384

_PIPE_BYTES = 1 << 20


class Sampler(Protocol):
    """What a slot reads while a cell is timed: devices.Sensors, or nothing on a CPU."""

    def sample(self) -> dict[str, Any]:
        """One reading."""


class Inbox:
    """The parent's end of an outcome pipe: lines of JSON, of which only those with the token count.

    `outcome` is the first complete one, `phase` the last announced, `phases` all since somebody last took them out;
    `capped`: more than `cap_bytes` came.
    """

    def __init__(self, token: str, cap_bytes: int) -> None:
        self._token, self._cap = token, cap_bytes
        self._rest = bytearray()
        self._searched = 0
        self._size = 0
        self.outcome: dict[str, Any] | None = None
        self.phase: str | None = None
        self.phases: list[str] = []
        self.capped = False

    def feed(self, data: bytes) -> None:
        """Take more bytes of the pipe."""
        self._size += len(data)
        if self._size > self._cap:
            self.capped = True
            self._rest.clear()
            return
        self._rest += data
        while (end := self._rest.find(b"\n", self._searched)) >= 0:
            line = bytes(self._rest[:end])
            del self._rest[: end + 1]
            self._searched = 0
            self._take(line)
        self._searched = len(self._rest)

    def _take(self, line: bytes) -> None:
        try:
            message = json.loads(line)
        except (ValueError, RecursionError):
            return  # what a cell writes to every descriptor it finds is not for us
        if not isinstance(message, dict) or message.get("token") != self._token:
            return
        if isinstance(message.get("outcome"), dict):
            if self.outcome is None:
                self.outcome = message["outcome"]
        elif message.get("event") == "phase":
            self.phase = str(message.get("phase"))
            self.phases.append(self.phase)


class Attempt:
    """One run of a cell in a zygote's child, from the request to the zygote's report of its end.

    `run` watches it; where the zygote could not report, the caller ends that; `finish` is what was seen.
    """

    def __init__(
        self,
        zygote: Zygote,
        *,
        log_path: Path,
        timeout_s: float,
        phases: Phases,
        grace_s: float,
        stuck_s: float,
        cap_bytes: int,
        stop: Stop,
        sensors: Sampler | None,
        tell: Callable[[Standing], None],
    ) -> None:
        self._zygote, self._stop, self._sensors, self._tell = zygote, stop, sensors, tell
        self._grace_s, self._stuck_s = grace_s, stuck_s
        self._watch = Watch(timeout_s, phases, time.monotonic(), self._cpu_s)
        self._token = secrets.token_hex(16)
        self._inbox = Inbox(self._token, cap_bytes)
        self._log = CellLog(log_path)
        self._outcome_read, self._outcome_write = os.pipe()
        self._log_read, self._log_write = os.pipe()
        for fd in (self._outcome_read, self._log_read):
            os.set_blocking(fd, False)
            with contextlib.suppress(PermissionError):  # past the user's limit for pipes: it is only slower
                fcntl.fcntl(fd, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
        self._poll = select.poll()
        self._sample_s = SAMPLE_S
        self._id = ""
        self._rungs: list[tuple[float, int | None]] = []
        self._over = False
        self._pidfd = -1
        self.group: int | None = None
        self.seen = Seen()

    def __enter__(self) -> Attempt:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._log.close()
        self._close_write_ends()
        if self._pidfd >= 0:
            os.close(self._pidfd)
        os.close(self._outcome_read)
        os.close(self._log_read)

    def _close_write_ends(self) -> None:
        for fd in (self._outcome_write, self._log_write):
            if fd >= 0:
                os.close(fd)
        self._outcome_write = self._log_write = -1

    @property
    def reported(self) -> bool:
        """Whether the zygote said how the child ended; if not, the zygote itself has to be ended."""
        return self.seen.exit is not None or self.seen.failed is not None

    def run(self, request: dict[str, Any]) -> None:
        """Send the request and watch until the cell is over, the zygote is dead, or the sweep ends."""
        seen = self.seen
        self._id = request["id"]
        seen.started_at = timestamp()
        seen.requested_s = now = time.monotonic()
        ooms = oom_kills()
        self._tell(self._watch.standing())
        try:
            sent = self._zygote.send({**request, "token": self._token}, [self._outcome_write, self._log_write])
        except ValueError as error:
            seen.failed, self._over = str(error), True
        else:
            self._over = seen.died = not sent
        # Whoever keeps a write end hides the end of file.
        self._close_write_ends()
        for fd in (self._outcome_read, self._log_read, self._zygote.control.fileno(), self._stop.fileno()):
            self._poll.register(fd, select.POLLIN)
        next_sample = now
        while not self._over:
            wake = self._rungs[0][0] if self._rungs else self._watch.wake(time.monotonic())
            if self._sampling:
                wake = min(wake, next_sample)
            # What happened comes before the clock: a parent that was stopped wakes up late.
            self._handle({fd for fd, _ in self._poll.poll(max(0.0, wake - time.monotonic()) * 1e3)})
            now = time.monotonic()
            if not self._over and not self._rungs:
                self._mind(now)
            while not self._over and self._rungs and now >= self._rungs[0][0]:
                self._climb(self._rungs.pop(0)[1])
            if self._sampling and now >= next_sample and not self._over:
                self._sample()
                next_sample = max(next_sample + self._sample_s, now)
        seen.oom = oom_kills() > ooms

    def gone(self, timeout_s: float) -> bool:
        """Wait for the cell's death, for when its zygote cannot: only then is its GPU memory free."""
        if self._pidfd < 0:
            return True
        poll = select.poll()
        poll.register(self._pidfd, select.POLLIN)
        return bool(poll.poll(timeout_s * 1e3))

    def finish(self) -> Seen:
        """What was seen, with whatever the pipes still hold; all that wrote into them is dead by now."""
        seen = self.seen
        seen.ended_s = time.monotonic()
        # Bounded by what a pipe holds: should somebody have escaped and still write, it ends all the same.
        for _ in range(1 + _PIPE_BYTES // 65536):
            if not self._read_outcome():
                break
        for _ in range(1 + _PIPE_BYTES // 65536):
            if not self._read_log():
                break
        seen.outcome = None if self._inbox.capped else self._inbox.outcome
        seen.phase, seen.capped = self._inbox.phase, self._inbox.capped
        seen.log_end = self._log.last_lines(LOG_LINES)
        return seen

    def _mind(self, now: float) -> None:
        """Look at the CPU time where that is due, and begin to end the cell once it is late."""
        if self._watch.look(now):
            self._tell(self._watch.standing())
        self.seen.late = self._watch.late(now)
        if self.seen.late is not None:
            self._rungs = self._ladder(now)

    def _cpu_s(self) -> float:
        return cputime.below(self._zygote.ready["pid"])

    def _ladder(self, deadline: float) -> list[tuple[float, int | None]]:
        """When to send which signal to the cell; the last rung, None, is for the zygote itself."""
        kill = deadline + self._grace_s
        # A cell that ignores SIGTERM printed no traceback; SIGUSR2 asks for it again, shortly before the end.
        ask = kill - min(0.25, self._grace_s / 2)
        return [
            (deadline, signal.SIGTERM),
            (ask, signal.SIGUSR2),
            (kill, signal.SIGKILL),
            (kill + self._stuck_s, None),
        ]

    def _climb(self, number: int | None) -> None:
        if number is None:
            self.seen.stuck = self._over = True
        else:
            self._zygote.send({"id": self._id, "signal": number})

    def _handle(self, ready: set[int]) -> None:
        if self._log_read in ready:
            self._read_log()
        if self._outcome_read in ready:
            was_capped = self._inbox.capped
            self._read_outcome()
            if self._inbox.capped and not was_capped:
                self._zygote.send({"id": self._id, "signal": signal.SIGKILL})
                self._rungs = [(time.monotonic() + self._stuck_s, None)]
        if self._zygote.control.fileno() in ready:
            self._hear()
        if self._stop.fileno() in ready and not self._over:
            self.seen.stopped = self._over = True

    def _hear(self) -> None:
        message = self._zygote.receive()
        if message is None:
            self.seen.died = self._over = True
        elif "pid" in message:
            self.group = message["pid"]
            with contextlib.suppress(ProcessLookupError):  # it is over, and its zygote was quicker
                self._pidfd = os.pidfd_open(message["pid"])
        elif "failed" in message:
            self.seen.failed, self._over = message["failed"], True
        else:
            self.seen.exit, self._over = message["exit"], True
            self.seen.max_rss_bytes = message["maxrss_kib"] * 1024
            self.seen.strays_left = message["left"]

    def _read_log(self) -> bool:
        data = self._read(self._log_read)
        self._log.write(data)
        return bool(data)

    def _read_outcome(self) -> bool:
        data = self._read(self._outcome_read)
        self._inbox.feed(data)
        for phase in self._inbox.phases:
            if self._watch.enter(phase, time.monotonic()):
                self._tell(self._watch.standing())
        self._inbox.phases.clear()
        return bool(data)

    def _read(self, fd: int) -> bytes:
        try:
            data = os.read(fd, 65536)
        except BlockingIOError:
            return b""
        if not data:
            # End of file would wake the poll for ever.
            with contextlib.suppress(KeyError):
                self._poll.unregister(fd)
        return data

    @property
    def _sampling(self) -> bool:
        """Whether the GPU's sensors are read: a reading holds the driver, and contexts that come up or go beside many
        of them take longer (docs/results/isolation.md).
        """
        return self._sensors is not None and self._inbox.phase == "timing"

    def _sample(self) -> None:
        assert self._sensors is not None
        telemetry = self.seen.telemetry
        telemetry.append(self._sensors.sample())
        if len(telemetry) >= MOST_SAMPLES:
            del telemetry[1::2]
            self._sample_s *= 2


def oom_kills() -> int:
    """How many processes the kernel's OOM killer has killed on this machine since it started."""
    with open("/proc/vmstat", "rb") as file:
        for line in file:
            if line.startswith(b"oom_kill "):
                return int(line.split()[1])
    return 0
