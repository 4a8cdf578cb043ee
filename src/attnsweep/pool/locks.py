"""One sweep at a time on a device: flock on a file for each device, whose content names the holder."""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
from pathlib import Path
from typing import Callable

from attnsweep import lock_holder
from attnsweep.devices import Device
from attnsweep.errors import ConfigError
from attnsweep.pool.interrupt import Stop

#: How often a held lock is tried again, in seconds.
_RETRY_S = 0.25

#: The folder of locks, the same for every user and whatever TMPDIR says, or two sweeps could share a device.
FOLDER = Path("/tmp/attnsweep-locks")
#: Another one, for tests and for machines whose /tmp cannot be written.
VARIABLE = "ATTNSWEEP_LOCKS"


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

    `waiting` is told once, in a sentence, who holds it. Raises ConfigError where the lock cannot be had: a device
    that others may be using is never measured.
    """
    path = folder() / f"{device.uuid}.lock"
    fd = _opened(path)
    told = locked = False
    try:
        while not stop.requested and wanted():
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if not told:
                    # The file is empty for a moment after it was locked
                    holder = lock_holder.told(path) or "another sweep"
                    waiting(f"{device.name} ({device.uuid}) is in use by {holder}; waiting for it to end")
                    told = True
                stop.wait(_RETRY_S)
                continue
            except OSError as error:
                raise _unusable(path, error) from None
            locked = True
            lock_holder.sign(fd, sweep=str(sweep))
            return DeviceLock(fd)
        return None
    finally:
        if not locked:
            os.close(fd)


def folder() -> Path:
    """The folder of this machine's locks, made for every user where it is missing.

    Raises ConfigError where it cannot be made, or something else stands in its place.
    """
    path = Path(os.environ.get(VARIABLE) or FOLDER).absolute()
    try:
        try:
            path.mkdir(parents=True)
        except FileExistsError:
            found = path.lstat()
        else:
            path.chmod(0o1777)  # like /tmp itself; mkdir's mode is cut by the umask
            found = path.lstat()
    except OSError as error:
        raise _unusable(path, error) from None
    if not stat.S_ISDIR(found.st_mode):
        raise ConfigError(
            f"{path} must be a folder, to hold the locks of devices: remove what is there, or set {VARIABLE} to another"
        )
    return path


def _opened(path: Path) -> int:
    """A descriptor of the lock's file, made for every user where it is missing; raises ConfigError."""
    flags = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        while True:
            # Never O_CREAT on a file that is there: in a sticky folder the kernel refuses it for another user's.
            with contextlib.suppress(FileNotFoundError):
                fd = os.open(path, flags)
                break
            with contextlib.suppress(FileExistsError):
                fd = os.open(path, flags | os.O_CREAT | os.O_EXCL, 0o666)
                os.fchmod(fd, 0o666)
                break
    except OSError as error:
        raise _unusable(path, error) from None
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise ConfigError(f"{path} must be a plain file, to be the lock of a device: remove what is there")
    return fd


def _unusable(path: Path, error: OSError) -> ConfigError:
    return ConfigError(
        f"the lock that keeps two sweeps off one device cannot be had at {path} ({error.strerror}); "
        f"{VARIABLE}=FOLDER names another folder, the same for everybody on this machine"
    )
