"""What else uses a slot's GPU, looked for while nothing of the sweep is alive there, and which others are in use."""

from __future__ import annotations

import time
from typing import Callable, Protocol

from attnsweep.devices import Device
from attnsweep.pool.interrupt import Stop

#: How long the driver may list a process that is dead, and how often to look meanwhile, in seconds.
_LISTED_S, _LISTED_AGAIN_S = 0.2, 0.01
#: How long work that has ended may stay in NVML's utilisation, a mean over up to a second.
_BUSY_S, _BUSY_AGAIN_S = 2.0, 0.1


class Counters(Protocol):
    """What is asked of a GPU: devices.Sensors."""

    def compute_processes(self) -> int | None:
        """How many processes have it open; None where that cannot be told."""

    def utilization(self) -> int | None:
        """Per cent of the last while in which it computed; None where that cannot be told."""

    def other_gpus_in_use(self) -> int | None:
        """How many other GPUs processes have open; None where that cannot be told."""


class Neighbours:
    """Who else is on a GPU, said once in a sentence through `say`; on a CPU, without `counters`, nobody is seen."""

    def __init__(self, device: Device, counters: Counters | None, stop: Stop, say: Callable[[str], None]) -> None:
        self._name, self._counters, self._stop, self._say = f"{device.name} ({device.uuid})", counters, stop, say
        self._told = False

    def busy(self) -> bool:
        """Whether it computes and goes on computing: to be asked before anything of the sweep ran on it."""
        if self._counters is None:
            return False
        percent = self._lasting(self._counters.utilization, _BUSY_S, _BUSY_AGAIN_S)
        if percent:
            self._say(f"{self._name} was busy before this sweep used it ({percent} %): its cells get the flag gpu_busy")
        return percent > 0

    def foreign(self) -> bool:
        """Whether any process has it open: to be asked while none of the sweep's can have."""
        if self._counters is None:
            return False
        count = self._lasting(self._counters.compute_processes, _LISTED_S, _LISTED_AGAIN_S)
        if count and not self._told:
            others = "1 process that is" if count == 1 else f"{count} processes that are"
            self._say(f"{self._name} is used by {others} not this sweep's: cells get the flag foreign_process")
            self._told = True
        return count > 0

    def others(self) -> int | None:
        """How many other GPUs of the host are in use, by whomever; None where that cannot be told."""
        return None if self._counters is None else self._counters.other_gpus_in_use()

    def _lasting(self, read: Callable[[], int | None], seconds: float, again_s: float) -> int:
        """The reading that is left after `seconds` without a 0; 0 as well where it cannot be told or the sweep ends."""
        deadline = time.monotonic() + seconds
        while value := read():
            if time.monotonic() >= deadline:
                return value
            if self._stop.wait(again_s):
                break
        return 0
