"""One sweep at a time on a device: flock on a file for each device, whose content names the holder."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import platform
import shlex
import stat
import sys
import tempfile
from pathlib import Path
from typing import Callable

from attnsweep.devices import Device
from attnsweep.errors import ConfigError
from attnsweep.pool.interrupt import Stop

#: How often a held lock is tried again, in seconds.
_RETRY_S = 0.25


class DeviceLock:
    """The right to use one device, held until `close` and the death of every process with a copy of `fd`."""

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def close(self) -> None:
        """Give up this copy. Never LOCK_UN: that would unlock the zygotes' copies too, with a cell alive."""
        os.close(self.fd)


def acquire(
    device: Device,
    sweep: Path,
    stop: Stop,
    waiting: Callable[[str], None],
    wanted: Callable[[], bool] = lambda: True,
) -> DeviceLock | None:
    """Wait for the device's lock; None when `stop` was requested or the lock is no longer `wanted`.

    `waiting` is told once, in a sentence, who holds it. Raises ConfigError when the folder of locks is not
    the user's own.
    """
    path = folder() / f"{device.uuid}.lock"
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    told = locked = False
    try:
        while not stop.requested and wanted():
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if not told:
                    waiting(f"{device.name} ({device.uuid}) is in use by {_holder(path)}; waiting for it to end")
                    told = True
                stop.wait(_RETRY_S)
                continue
            locked = True
            _sign(fd, sweep)
            return DeviceLock(fd)
        return None
    finally:
        if not locked:
            os.close(fd)


def folder() -> Path:
    """The folder of this user's locks on this machine, made where it is missing.

    Raises ConfigError when something else stands in its place.
    """
    path = Path(tempfile.gettempdir()) / f"attnsweep-locks-{os.getuid()}"
    with contextlib.suppress(FileExistsError):
        path.mkdir(mode=0o700)
    found = path.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
        raise ConfigError(f"{path} must be a folder of your own to hold the locks of devices; remove it")
    return path


def _sign(fd: int, sweep: Path) -> None:
    holder = {
        "pid": os.getpid(),
        "host": platform.node(),
        "sweep": str(sweep),
        "command": shlex.join(sys.orig_argv),
    }
    os.ftruncate(fd, 0)
    os.pwrite(fd, json.dumps(holder).encode(), 0)


def _holder(path: Path) -> str:
    """Who holds the lock, as a sentence goes on; the file is empty for a moment after it was locked."""
    try:
        holder = json.loads(path.read_bytes())
        # One line, whatever the command was, and no control characters for the terminal.
        command = " ".join("".join(c if c.isprintable() else " " for c in str(holder["command"])).split())
        return f"process {holder['pid']} on {holder['host']} (sweep {holder['sweep']}, {command[:200]})"
    except (ValueError, KeyError, TypeError):
        return "another sweep"
