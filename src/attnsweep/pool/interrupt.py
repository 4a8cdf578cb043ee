"""The sweep's own end (Ctrl-C, SIGTERM, SIGHUP) as one descriptor that every waiting thread polls."""

from __future__ import annotations

import os
import select
import signal
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from types import FrameType

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Stop:
    """Readable from the moment somebody asks for the end, and ever after, by every thread that polls it."""

    def __init__(self) -> None:
        self._read, self._write = os.pipe()
        self._asked = False
        self.cause: str | None = None

    def fileno(self) -> int:
        """The descriptor to poll."""
        return self._read

    @property
    def requested(self) -> bool:
        """Whether the end was asked for."""
        return self._asked

    def request(self, cause: str | None = None) -> None:
        """Ask for the end; the first cause stays. A signal handler may call it, and may interrupt it."""
        if not self._asked:
            self._asked, self.cause = True, cause
            os.write(self._write, b"\0")

    def wait(self, seconds: float) -> bool:
        """Wait for the end to be asked for, up to `seconds`; whether it was."""
        poll = select.poll()
        poll.register(self._read, select.POLLIN)
        return bool(poll.poll(seconds * 1e3))

    def close(self) -> None:
        """Give the descriptors back, when no thread polls them any more."""
        os.close(self._read)
        os.close(self._write)


@contextmanager
def listening() -> Iterator[Stop]:
    """A Stop that SIGINT, SIGTERM and SIGHUP request meanwhile."""
    with closing(Stop()) as stop, signals(stop):
        yield stop


@contextmanager
def signals(stop: Stop) -> Iterator[None]:
    """Turn SIGINT, SIGTERM and SIGHUP into `stop.request(name)` meanwhile; what was there before comes back.

    A signal that is ignored stays ignored (nohup, a background job). Only a process's main thread may set
    handlers: elsewhere this does nothing.
    """

    def handler(number: int, frame: FrameType | None) -> None:
        stop.request(signal.Signals(number).name)

    previous = {}
    if threading.current_thread() is threading.main_thread():
        for number in _SIGNALS:
            # None: a handler that C code installed, which could not be put back
            if signal.getsignal(number) not in (signal.SIG_IGN, None):
                previous[number] = signal.signal(number, handler)
    try:
        yield
    finally:
        for number, before in previous.items():
            signal.signal(number, before)
