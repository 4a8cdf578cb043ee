"""One slot: a device, its warm zygotes, and the cells that run there one after the other."""

from __future__ import annotations

import errno
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from attnsweep.devices import Device, Sensors
from attnsweep.errors import Status, last_line
from attnsweep.interpreters import Interpreter, set_for_cell, why_unusable
from attnsweep.plan import Cell
from attnsweep.pool import ending, pyenv, scratch
from attnsweep.pool.attempt import Attempt
from attnsweep.pool.deadlines import Standing
from attnsweep.pool.ending import Ending, Seen
from attnsweep.pool.interrupt import Stop
from attnsweep.pool.neighbours import Neighbours
from attnsweep.pool.warm import Start, Zygote

#: How long an unexplained end waits for the sweep's own signal: a scheduler's SIGTERM reaches all at once.
_SAME_SIGNAL_S = 0.05
#: How long a cell that was killed may take to free what it holds.
_GONE_S = 10.0


@dataclass(frozen=True)
class Limits:
    """Bounds on a cell and a zygote, in seconds and bytes, and on how many zygotes a slot keeps warm."""

    grace_s: float = 5.0
    ready_timeout_s: float = 120.0
    outcome_cap_bytes: int = 64 * 1024 * 1024
    stuck_s: float = 10.0
    warm: int = 4


@dataclass(frozen=True)
class Refusal:
    """Why no cell can run in an interpreter; `unfit` is why no child forked there would live, where that is why."""

    status: Status
    reason: str
    traceback: str | None
    unfit: str | None = None


@dataclass
class Shared:
    """What the slots of one sweep have in common; `say` tells the user a sentence, `watching` is told where a
    running cell is, and must not block.

    `spawning` has the interpreters whose preload is unfit for forking, and which slot found that out: their cells
    are spawned instead.
    """

    stop: Stop
    limits: Limits
    log_folder: Path
    run: str
    cwd: str
    say: Callable[[str], None]
    watching: Callable[[Cell, Standing], None]
    refused: dict[Interpreter, Refusal] = field(default_factory=dict)
    spawning: dict[Interpreter, Slot] = field(default_factory=dict)


class Slot:
    """A device whose lock is held (`lock` is its descriptor), until `close`.

    `stuck` says, once a process of a cell resisted SIGKILL, that this device is not to be used again.
    """

    def __init__(self, device: Device, shared: Shared, lock: int) -> None:
        self.device, self._shared, self._lock = device, shared, lock
        self._warm: OrderedDict[Interpreter, Zygote] = OrderedDict()
        self._sensors = Sensors(device.uuid) if device.kind == "cuda" else None
        self._neighbours = Neighbours(device, self._sensors, shared.stop, shared.say)
        self._flags: frozenset[str] = frozenset()
        self.stuck: str | None = None

    def look(self) -> None:
        """Before the first cell: where the device is busy without us, every cell that runs here is flagged."""
        if self._neighbours.busy():
            self._flags = frozenset({"gpu_busy"})

    def close(self) -> None:
        """End all zygotes and give the sensors back."""
        for zygote in self._warm.values():
            zygote.hang_up()
        for interpreter in list(self._warm):
            self._end(interpreter)
        if self._sensors is not None:
            self._sensors.close()

    def run(self, cell: Cell) -> Ending:
        """Run one cell; one that something outside interrupted gets a second attempt."""
        limits = self._shared.limits
        for again in (False, True):
            zygote = self._zygote(cell.interpreter)
            if zygote is None:
                return self._not_run(cell)
            seen = self._watched(zygote, cell)
            if not ending.interrupted(seen):
                break
            if self._shared.stop.wait(_SAME_SIGNAL_S):
                seen.stopped = True
            if again or self.stuck:
                break
        return ending.decide(seen, cap_bytes=limits.outcome_cap_bytes)

    def _watched(self, zygote: Zygote, cell: Cell) -> Seen:
        """One attempt, whether others had the device open just before or after it, and how many others were in use."""
        foreign, others = self._neighbours.foreign(), [self._neighbours.others()]
        seen = self._attempt(zygote, cell)
        # What is stuck there would be taken for somebody else's.
        if not (foreign or seen.stopped or self.stuck):
            begin = time.monotonic()
            foreign = self._neighbours.foreign()
            others.append(self._neighbours.others())
            seen.looked_s = time.monotonic() - begin
        seen.other_gpus_in_use = max((number for number in others if number is not None), default=None)
        seen.flags = self._flags | ({"foreign_process"} if foreign else set())
        if zygote.interpreter != cell.interpreter:
            seen.flags |= {"spawned"}
        return seen

    def _attempt(self, zygote: Zygote, cell: Cell) -> Seen:
        limits = self._shared.limits
        try:
            temporary = scratch.Folder()
        except OSError as error:
            now = time.monotonic()
            why = f"its folder for temporary files cannot be made ({error.strerror})"
            return Seen(started_at=ending.timestamp(), requested_s=now, ended_s=now, failed=why)
        try:
            with Attempt(
                zygote,
                log_path=self._shared.log_folder / f"{cell.id}.log",
                timeout_s=cell.timeout_s,
                phases=cell.phases,
                grace_s=limits.grace_s,
                stuck_s=limits.stuck_s,
                cap_bytes=limits.outcome_cap_bytes,
                stop=self._shared.stop,
                sensors=self._sensors,
                tell=lambda standing: self._shared.watching(cell, standing),
            ) as attempt:
                attempt.run(self._request(cell, temporary.path))
                if attempt.seen.stuck and attempt.group is None:
                    # Nothing was forked: its zygote is as good as dead, and the cell is not late
                    attempt.seen.died, attempt.seen.late = True, None
                if not attempt.reported or attempt.seen.strays_left:
                    self._end(zygote.interpreter, kill=not attempt.seen.stopped, cell=attempt.group)
                    if not attempt.gone(_GONE_S):
                        self._retire(attempt.group)
                return attempt.finish()
        finally:
            temporary.discard()

    def _request(self, cell: Cell, temporary: str) -> dict[str, Any]:
        visible = self.device.uuid if self.device.kind == "cuda" else ""
        return {
            "id": cell.id,
            "payload": cell.payload,
            "seed": int(cell.payload.get("seed", 0)),
            "env": {**pyenv.restored(cell.interpreter), **set_for_cell(visible, temporary)},
            "cwd": self._shared.cwd,
        }

    def _zygote(self, interpreter: Interpreter) -> Zygote | None:
        """The interpreter's warm zygote, started if need be; None when it is refused or the sweep ends.

        Where what it preloads is unfit for forking, it is one that preloads nothing (isolation=spawn).
        """
        interpreter = self._forkable(interpreter)
        zygote = self._warm.get(interpreter)
        if zygote is not None and zygote.alive():
            self._warm.move_to_end(interpreter)
            return zygote
        if zygote is not None:
            self._end(interpreter)
        if self._shared.stop.requested or interpreter in self._shared.refused:
            return None
        while len(self._warm) >= self._shared.limits.warm:
            self._end(next(iter(self._warm)))
        for _ in range(2):
            started = self._start(interpreter)
            if isinstance(started, Zygote):
                return started
            if self._shared.stop.wait(_SAME_SIGNAL_S):
                return None
            if started.unfit is not None and interpreter.preload:
                self._spawn(interpreter, started.unfit)
                return self._zygote(interpreter)
            self._shared.refused[interpreter] = started
            # One that died may have been shot from outside; one that said no says it again.
            if started.status is not Status.CRASHED:
                return None
        return None

    def _forkable(self, interpreter: Interpreter) -> Interpreter:
        return replace(interpreter, preload=()) if interpreter in self._shared.spawning else interpreter

    def _spawn(self, interpreter: Interpreter, why: str) -> None:
        """From now on its cells are spawned; the slot that found it out first tells the user why."""
        if self._shared.spawning.setdefault(interpreter, self) is self:
            self._shared.say(
                f"{why}: cells in {interpreter.python} import it themselves, which takes longer, "
                "and get the flag spawned"
            )

    def _start(self, interpreter: Interpreter) -> Zygote | Refusal:
        """A zygote that is ready, or why there is none."""
        shared, python = self._shared, interpreter.python
        missing = why_unusable(python)
        if missing is not None:
            return Refusal(Status.MISSING, missing, None)
        try:
            zygote = Zygote(interpreter, run=shared.run, log_folder=shared.log_folder, hold=self._lock)
        except OSError as error:
            unusable = isinstance(error, PermissionError) or error.errno == errno.ENOEXEC
            status = Status.MISSING if unusable else Status.ERROR
            return Refusal(status, f"{python} cannot be started: {error.strerror}", None)
        self._warm[interpreter] = zygote
        start = zygote.await_ready(shared.stop, shared.limits.ready_timeout_s)
        if start is Start.READY:
            return zygote
        answer, words = zygote.ready, zygote.last_words() or None
        self._end(interpreter, kill=start is not Start.REFUSED)
        if start is Start.REFUSED:
            needs, install = answer.get("needs"), f"install it with: {python} -m pip install"
            if interpreter.recipe is not None:
                install = "its env.requirements must name what brings"
            install = f"; {install} {needs}" if needs else ""
            # A library that is not there is missing; what is unfit for forking with nothing preloaded is in the way.
            unfit = answer["why"] if answer.get("unfit") else None
            status = Status.MISSING if unfit is None else Status.ERROR
            return Refusal(status, f"{python} cannot run cells: {answer['why']}{install}", words, unfit)
        if start is Start.LATE:
            seconds = shared.limits.ready_timeout_s
            return Refusal(Status.ERROR, f"{python} was not ready for cells within {seconds:g} s", words)
        importing = f", which imports {', '.join(interpreter.preload)}" if interpreter.preload else ""
        said = f": {last_line(words)} (more in {zygote.log_path})" if words else ""
        return Refusal(Status.CRASHED, f"its zygote died twice before it was ready ({python}{importing}){said}", words)

    def _end(self, interpreter: Interpreter, *, kill: bool = False, cell: int | None = None) -> None:
        left = self._warm.pop(interpreter).close(kill=kill, cell=cell)
        if left:
            self._retire(*left)

    def _retire(self, *left: int | None) -> None:
        processes = ", ".join(str(pid) for pid in left)
        self.stuck = f"{self.device.name} ({self.device.uuid}): SIGKILL does not end process {processes}"

    def _not_run(self, cell: Cell) -> Ending:
        refusal = self._shared.refused.get(self._forkable(cell.interpreter))
        if refusal is None or self._shared.stop.requested:
            return ending.without_process(None, None, None)
        return ending.without_process(refusal.status, refusal.reason, refusal.traceback)
