"""The pool: the queue of cells, one thread and one lock for each device, and the sweep's own end."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path

from attnsweep.devices import Device
from attnsweep.errors import AttnsweepError
from attnsweep.plan import Cell
from attnsweep.pool import interrupt, locks, scratch
from attnsweep.pool.deadlines import Standing
from attnsweep.pool.ending import Ending
from attnsweep.pool.interrupt import Stop
from attnsweep.pool.slot import Limits, Shared, Slot

__all__ = ["Ending", "Limits", "Pool"]

Started = Callable[[Cell, Device], None]
Finished = Callable[[Cell, Device, Ending], None]


#: How long a signal may go unheard, in seconds, at most.
_WAKE_S = 0.2


def _say(sentence: str) -> None:
    print(sentence, file=sys.stderr, flush=True)


class Queue:
    """The cells not yet taken, in running order; a group's all go to its owner, which is who took its first cell."""

    def __init__(self, cells: Sequence[Cell], owners: Mapping[str, Device] | None = None) -> None:
        self._cells = list(cells)
        self._owner: dict[str, Device] = dict(owners or {})
        self._lock = threading.Lock()

    def take(self, device: Device) -> Cell | None:
        """The next cell for `device`, or None when nothing is left that it may run."""
        with self._lock:
            for index, cell in enumerate(self._cells):
                if self._owner.setdefault(cell.group, device) == device:
                    return self._cells.pop(index)
        return None

    def wanted(self, device: Device) -> bool:
        """Whether `take` would give a cell."""
        with self._lock:
            return any(self._owner.get(cell.group, device) == device for cell in self._cells)

    def retire(self, device: Device) -> None:
        """Let other devices have the groups of one that is not used any more."""
        with self._lock:
            self._owner = {group: owner for group, owner in self._owner.items() if owner != device}

    def __len__(self) -> int:
        return len(self._cells)


class Pool:
    """Runs cells, each in a process of its own, one at a time on each device.

    `log_folder` (made if missing) gets `<cell id>.log` for each cell that writes to stdout or stderr. `run`
    is the entry point of every cell, as module:function. `waiting` is told who holds a device's lock, or uses it
    although we hold that. `watching` is told, from any thread, about once a second, where a running cell is; it must
    not block. `stop` is the sweep's own end, where that can come before `run` and after it.
    """

    def __init__(
        self,
        devices: list[Device],
        *,
        log_folder: Path,
        run: str = "attnsweep.worker:run",
        grace_s: float = Limits.grace_s,
        ready_timeout_s: float = Limits.ready_timeout_s,
        outcome_cap_bytes: int = Limits.outcome_cap_bytes,
        stuck_s: float = Limits.stuck_s,
        warm: int = Limits.warm,
        waiting: Callable[[str], None] = _say,
        watching: Callable[[Cell, Standing], None] = lambda cell, standing: None,
        stop: Stop | None = None,
    ) -> None:
        self._devices, self._log_folder, self._entry = devices, log_folder.absolute(), run
        self._limits = Limits(grace_s, ready_timeout_s, outcome_cap_bytes, stuck_s, warm)
        self._waiting, self._watching, self._stop = waiting, watching, stop
        self._telling = threading.Lock()

    def run(
        self, cells: Sequence[Cell], started: Started, finished: Finished, begun: Mapping[str, str] | None = None
    ) -> str | None:
        """Run the cells; None when all are over, or the name of the signal that ended the sweep before.

        `begun` holds, by group, the UUID of the device that measured others of it before: where that one is here, it
        goes on with them, so that one device measures all that is compared.

        `started` and `finished` are called one at a time, from any thread, once for each cell that was taken.
        What a callback raises ends the sweep and is raised here. Raises AttnsweepError when devices got stuck
        and cells are left that no other device could take.
        """
        self._log_folder.mkdir(parents=True, exist_ok=True)
        scratch.discard_left()
        here = {device.uuid: device for device in self._devices}
        owners = {group: here[uuid] for group, uuid in (begun or {}).items() if uuid in here}
        queue, stop = Queue(cells, owners), Stop() if self._stop is None else self._stop
        shared = Shared(stop, self._limits, self._log_folder, self._entry, os.getcwd(), self._tell, self._watching)
        stuck: list[str] = []

        def work(device: Device) -> None:
            trouble = self._work(device, queue, shared, started, finished)
            if trouble is not None:
                stuck.append(trouble)

        def ended(future: Future[None]) -> None:
            if future.exception() is not None:
                stop.request()

        with interrupt.signals(stop):
            threads = ThreadPoolExecutor(max(1, len(self._devices)), thread_name_prefix="slot")
            try:
                futures = [threads.submit(work, device) for device in self._devices]
                for future in futures:
                    future.add_done_callback(ended)
                # The kernel may hand a signal to any thread, and its handler runs when this one next wakes up
                while wait(futures, timeout=_WAKE_S).not_done:
                    pass
            finally:
                stop.request()
                threads.shutdown()
                if self._stop is None:
                    stop.close()
        for future in futures:
            future.result()
        if stop.cause is None and len(queue):
            raise AttnsweepError(f"{'; '.join(stuck)}; {len(queue)} cells are still open")
        return stop.cause

    def _work(self, device: Device, queue: Queue, shared: Shared, started: Started, finished: Finished) -> str | None:
        """One slot's life; why it had to end early, if so."""
        lock = locks.acquire(
            device,
            shared.log_folder.parent,
            shared.stop,
            self._tell,
            wanted=lambda: queue.wanted(device),
        )
        if lock is None:
            return None
        try:
            slot = Slot(device, shared, lock.fd)
            try:
                slot.look()
                while slot.stuck is None and not shared.stop.requested:
                    cell = queue.take(device)
                    if cell is None:
                        break
                    with self._telling:
                        started(cell, device)
                    end = slot.run(cell)
                    with self._telling:
                        finished(cell, device, end)
            finally:
                slot.close()
            if slot.stuck is not None:
                queue.retire(device)
            return slot.stuck
        finally:
            lock.close()

    def _tell(self, sentence: str) -> None:
        with self._telling:
            self._waiting(sentence)
