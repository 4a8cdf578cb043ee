"""How a cell ended: from what its slot saw to a status, a reason and a traceback. No processes here."""

from __future__ import annotations

import re
import signal
import time
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any

from attnsweep.child import EXIT_PIPE_LOST
from attnsweep.errors import Status
from attnsweep.pool.deadlines import Late

#: Signals that a scheduler or a terminal sends to every process: not the cell's own doing.
_FROM_OUTSIDE = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)

#: Lines of the log that may explain an end.
LOG_LINES = 60


@dataclass(frozen=True)
class Ending:
    """How one cell ended.

    `status` is None when the sweep's own end interrupted it: the cell stays open and has no record. `outcome`
    is the worker's, where it arrived, and then status, reason and traceback are the worker's too. Times are
    seconds of CLOCK_MONOTONIC, `started_at` is ISO 8601 in UTC, `phase` is the last one announced.
    Samples of `telemetry` hold records.TELEMETRY's keys and `throttle`, a list of reasons. `flags` are the slot's, for
    the record, and `other_gpus_in_use` is the most that it saw before and after; `looked_s` is what it took after
    `ended_s` to look for others: no time of the cell.
    """

    status: Status | None
    reason: str | None
    traceback: str | None
    exit_signal: str | None
    outcome: dict[str, Any] | None
    started_at: str
    requested_s: float
    ended_s: float
    phase: str | None
    max_rss_bytes: int | None
    telemetry: list[dict[str, Any]]
    flags: frozenset[str] = frozenset()
    looked_s: float = 0.0
    other_gpus_in_use: int | None = None


@dataclass
class Seen:
    """What a slot saw of one attempt at a cell.

    `exit` is the exit code, or minus the signal, None where nobody could report it; `failed` is why nothing
    was forked; `late`: the deadline for which the slot ended it; `stuck`: it ended with its zygote alone;
    `strays_left`: processes that resisted SIGKILL; `died`: the zygote ended by itself; `stopped`: the sweep
    ended; `oom`: the kernel's OOM killer struck meanwhile; `capped`: the outcome was larger than allowed.
    `flags`, `looked_s` and `other_gpus_in_use` are Ending's.
    """

    started_at: str = ""
    requested_s: float = 0.0
    ended_s: float = 0.0
    outcome: dict[str, Any] | None = None
    phase: str | None = None
    capped: bool = False
    late: Late | None = None
    stuck: bool = False
    strays_left: int = 0
    died: bool = False
    stopped: bool = False
    oom: bool = False
    exit: int | None = None
    failed: str | None = None
    max_rss_bytes: int | None = None
    log_end: str = ""
    telemetry: list[dict[str, Any]] = field(default_factory=list)
    flags: frozenset[str] = frozenset()
    looked_s: float = 0.0
    other_gpus_in_use: int | None = None

    @property
    def exit_signal(self) -> str | None:
        """The name of the signal that ended the process."""
        if self.exit is None or self.exit >= 0:
            return None
        return signal_name(-self.exit)


def interrupted(seen: Seen) -> bool:
    """Whether something outside ended the attempt, so that it says nothing about the cell."""
    if seen.outcome is not None or seen.capped or seen.late is not None or seen.failed is not None or seen.stopped:
        return False
    return seen.died or (seen.exit is not None and -seen.exit in _FROM_OUTSIDE)


def decide(seen: Seen, *, cap_bytes: int) -> Ending:
    """The ending that an attempt amounts to; a second interruption counts as a crash.

    A complete outcome wins over a deadline that passed while it was being written.
    """
    status, reason, trace = _status(seen, cap_bytes)
    return Ending(
        status=status,
        reason=reason,
        traceback=trace,
        exit_signal=seen.exit_signal,
        outcome=seen.outcome,
        started_at=seen.started_at,
        requested_s=seen.requested_s,
        ended_s=seen.ended_s,
        phase=seen.phase,
        max_rss_bytes=seen.max_rss_bytes,
        telemetry=seen.telemetry,
        flags=seen.flags,
        looked_s=seen.looked_s,
        other_gpus_in_use=seen.other_gpus_in_use,
    )


def without_process(status: Status | None, reason: str | None, traceback: str | None) -> Ending:
    """The ending, now, of a cell for which no process was forked."""
    now = time.monotonic()
    return Ending(
        status=status,
        reason=reason,
        traceback=traceback,
        exit_signal=None,
        outcome=None,
        started_at=timestamp(),
        requested_s=now,
        ended_s=now,
        phase=None,
        max_rss_bytes=None,
        telemetry=[],
    )


def timestamp() -> str:
    """Now, as records hold it: ISO 8601, UTC, with milliseconds."""
    return datetime.now(timezone.utc).isoformat(timespec="milliseconds")


def _status(seen: Seen, cap_bytes: int) -> tuple[Status | None, str | None, str | None]:
    during = f" (in phase {seen.phase})" if seen.phase else ""
    log = seen.log_end or None
    if seen.capped:
        return Status.ERROR, f"outcome too large: more than {cap_bytes} bytes{during}", log
    if seen.outcome is not None:
        return _of_outcome(seen.outcome)
    if seen.stopped:
        return None, None, None
    if seen.failed is not None:
        return Status.ERROR, f"no process could be started for it: {seen.failed}", log
    if seen.late is not None:
        stuck = "; stuck: only ending its zygote ended it" if seen.stuck else ""
        return Status.TIMEOUT, f"{_lateness(seen.late, during)}{stuck}", _where(seen)
    if seen.died:
        return Status.CRASHED, f"its zygote died twice{during}", log
    if seen.oom and seen.exit_signal == "SIGKILL":
        return (
            Status.OOM,
            f"probably out of host memory: the kernel's OOM killer struck meanwhile{during}",
            log,
        )
    if interrupted(seen):
        return Status.CRASHED, f"{seen.exit_signal}, not sent by the sweep, ended it twice{during}", log
    if seen.exit_signal is not None:
        return Status.CRASHED, f"died of {seen.exit_signal}{during}", log
    if seen.exit == EXIT_PIPE_LOST:
        return Status.CRASHED, f"exit {seen.exit} without outcome: it closed the pipe for it{during}", log
    return Status.CRASHED, f"exit {seen.exit} without outcome{during}", log


def _lateness(late: Late, during: str) -> str:
    """What was late, whether it was busy, and which setting gives it longer."""
    times = f"{late.times} times " if late.times > 1 else ""
    said = f"still running after {times}its deadline of {late.limit_s:g} s{during}"
    if late.cpu_s is not None and late.window_s is not None:
        used = f"{late.cpu_s:.1f} s of CPU in the last {late.window_s:.3g} s"
        nothing = f"no CPU time for {late.window_s:.3g} s"
        said += f": {'still busy, ' if late.busy else ''}{used if late.cpu_s >= 0.05 else nothing}"
    return f"{said}; pool.{late.setting} raises it"


def _of_outcome(outcome: dict[str, Any]) -> tuple[Status, str | None, str | None]:
    try:
        status = Status(outcome.get("status"))
    except ValueError:
        return Status.ERROR, f"the outcome has no valid status: {outcome.get('status')!r}", None
    reason, trace = outcome.get("reason"), outcome.get("traceback")
    return status, None if reason is None else str(reason), None if trace is None else str(trace)


def _where(seen: Seen) -> str | None:
    """The traceback that SIGTERM's handler printed, or the last lines of the log where there is none."""
    lines = seen.log_end.splitlines()
    for index, line in enumerate(lines):
        if re.match(r"(Current thread|Thread) 0x[0-9a-f]+", line):
            return "\n".join(lines[index:])
    return seen.log_end or None


def signal_name(number: int) -> str:
    """A signal's name, or SIG<number> for one without."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"SIG{number}"
