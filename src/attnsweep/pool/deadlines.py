"""When a cell is late: by its phase, by what that may take, and by the CPU time that it was seen to use.

Prepare and compile may take BUSY_TIMES their limit while the cell uses the CPU; one that does not is taken to hang.
No processes here: CPU time comes from a function.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from attnsweep.limits import BUSY_TIMES, Phases

#: What a worker announces, by the limit that it comes under; before its first word a cell prepares.
_LIMIT_OF = {
    "import": "prepare",
    "inputs": "prepare",
    "prepare": "prepare",
    "compile": "compile",
    "check": "check",
    "proof": "time",
    "memory": "time",
    "timing": "time",
}
#: Where a slow cell is told from one that hangs. Elsewhere nobody looks, least of all while it is timed.
_LOOKED_AT = ("prepare", "compile")

#: Seconds between two looks, at most; the window in which a cell must have used the CPU not to be taken for one that
#: hangs, at most; the one that is told of; and the one for the cores that are shown. A short limit has shorter ones.
_LOOK_S, _IDLE_S, _TOLD_S, _SHOWN_S = 1.0, 30.0, 60.0, 5.0
_LOOKS_IN_A_LIMIT, _WINDOWS_IN_A_LIMIT = 8, 4

#: Cores used on average over that window: more than threads that only poll, less than any compiler on a busy machine.
_BUSY_CORES = 0.1


@dataclass(frozen=True)
class Late:
    """Why a cell is to be ended: a setting of `pool`, the seconds it allowed, and how many times that.

    `cpu_s` of CPU were used in the last `window_s`, None where nobody looked; `busy` says that this is much.
    """

    setting: str
    limit_s: float
    times: int = 1
    cpu_s: float | None = None
    window_s: float | None = None
    busy: bool = False


@dataclass(frozen=True)
class Standing:
    """Where a running cell is: prepare, compile, check or time, since when, and with how many cores.

    Times are seconds of CLOCK_MONOTONIC, `begun_s` the cell's; `cores` is None where nobody looks.
    """

    phase: str
    begun_s: float
    since_s: float
    cores: float | None = None


class Readings:
    """CPU seconds as they were read, of the last minute; what a reading falls below its predecessor is ignored."""

    def __init__(self, now: float) -> None:
        self._read = deque([(now, 0.0)])
        self._last_s = 0.0

    def add(self, now: float, cpu_s: float) -> None:
        """Keep a reading of CPU seconds since the cell began."""
        used = self._read[-1][1] + max(0.0, cpu_s - self._last_s)
        self._last_s = cpu_s
        self._read.append((now, used))
        while len(self._read) > 2 and self._read[1][0] <= now - _TOLD_S:
            self._read.popleft()

    def over(self, window_s: float) -> tuple[float, float]:
        """CPU seconds used in about the last `window_s` before the last reading, and the exact window."""
        end, used = self._read[-1]
        begin, before = next((one for one in reversed(self._read) if one[0] <= end - window_s), self._read[0])
        return used - before, end - begin


class Watch:
    """One cell's deadlines from its request on, at `now`; `cpu_s` reads its CPU time.

    Tell it of phases by `enter`, ask it by `late` at the latest when `wake` says. Times are of CLOCK_MONOTONIC.
    """

    def __init__(self, timeout_s: float, phases: Phases, now: float, cpu_s: Callable[[], float]) -> None:
        self._timeout_s, self._phases, self._cpu_s = timeout_s, phases, cpu_s
        self._begun = now
        self._readings = Readings(now)
        self._enter("prepare", now)

    def enter(self, phase: str, now: float) -> bool:
        """The cell has announced a phase; whether another limit holds from now on."""
        name = _LIMIT_OF.get(phase, self._phase)
        if name == self._phase:
            return False
        self._enter(name, now)
        return True

    def _enter(self, name: str, now: float) -> None:
        self._phase, self._since = name, now
        self._limit_s = float(getattr(self._phases, f"{name}_s"))
        self._look_s = min(_LOOK_S, self._limit_s / _LOOKS_IN_A_LIMIT)
        self._next_look = now + self._look_s

    @property
    def _looked_at(self) -> bool:
        return self._phase in _LOOKED_AT

    def wake(self, now: float) -> float:
        """When `look` and `late` have something new to say."""
        whole = self._begun + self._timeout_s
        soft = self._since + self._limit_s
        if not self._looked_at:
            return min(whole, soft)
        hard = self._since + BUSY_TIMES * self._limit_s
        return min(whole, self._next_look, soft if now < soft else hard)

    def look(self, now: float) -> bool:
        """Read the CPU time where that is due; whether it was."""
        if not self._looked_at or now < self._next_look:
            return False
        self._next_look = now + self._look_s
        self._readings.add(now, self._cpu_s())
        return True

    def late(self, now: float) -> Late | None:
        """Why the cell is to be ended now, or None."""
        took = now - self._since
        if now - self._begun >= self._timeout_s:
            return self._late("timeout_s", self._timeout_s)
        if took < self._limit_s:
            return None
        if not self._looked_at:
            return self._late(f"{self._phase}_s", self._limit_s)
        if took >= BUSY_TIMES * self._limit_s:
            return self._late(f"{self._phase}_s", self._limit_s, BUSY_TIMES)
        return None if self._busy(*self._idle_window()) else self._late(f"{self._phase}_s", self._limit_s)

    def standing(self) -> Standing:
        """Where the cell is, for whoever watches."""
        cores = None
        if self._looked_at:
            cpu_s, window_s = self._readings.over(_SHOWN_S)
            cores = cpu_s / window_s if window_s else None
        return Standing(self._phase, self._begun, self._since, cores)

    def _idle_window(self) -> tuple[float, float]:
        return self._readings.over(min(_IDLE_S, self._limit_s / _WINDOWS_IN_A_LIMIT))

    def _late(self, setting: str, limit_s: float, times: int = 1) -> Late:
        if not self._looked_at:
            return Late(setting, limit_s, times)
        cpu_s, window_s = self._idle_window()
        busy = self._busy(cpu_s, window_s)
        if busy:
            cpu_s, window_s = self._readings.over(_TOLD_S)
        return Late(setting, limit_s, times, cpu_s, window_s, busy)

    @staticmethod
    def _busy(cpu_s: float, window_s: float) -> bool:
        return window_s > 0 and cpu_s >= _BUSY_CORES * window_s
