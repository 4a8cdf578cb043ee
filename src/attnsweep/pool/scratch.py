"""The folder for temporary files that each cell gets: it goes with the cell; after a kill, with the next sweep."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
from pathlib import Path

_PREFIX = "attnsweep-cell-"


class Folder:
    """A new folder at `path`, until `discard`. A lock on it says, until this process's death, that it is in use.

    Raises OSError where none can be made.
    """

    def __init__(self) -> None:
        self.path = tempfile.mkdtemp(prefix=_PREFIX)
        self._fd = _locked(self.path, fcntl.LOCK_SH)
        while not os.path.isdir(self.path):  # somebody took it for one that was left, before it was locked
            self.path = tempfile.mkdtemp(prefix=_PREFIX)
            self._fd = _locked(self.path, fcntl.LOCK_SH)

    def discard(self) -> None:
        """Remove the folder, whatever the cell has made of it."""
        _remove(self.path)
        if self._fd is not None:
            os.close(self._fd)


def discard_left() -> None:
    """Remove the folders of this user's sweeps that were killed."""
    for path in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        fd = _locked(str(path), fcntl.LOCK_EX)
        if fd is not None:
            _remove(str(path))
            os.close(fd)


def _locked(path: str, how: int) -> int | None:
    """A descriptor with a lock on this user's folder; None where somebody holds it, it is gone, or cannot be locked."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return None
    with contextlib.suppress(OSError):
        fcntl.flock(fd, how | fcntl.LOCK_NB)
        found = os.fstat(fd)
        if found.st_uid == os.getuid() and os.path.samestat(found, os.stat(path)):
            return fd
    os.close(fd)
    return None


def _remove(folder: str) -> None:
    """Remove a cell's temporary folder, whatever the cell has made of it; follows no link.

    What cannot be removed (a mount, say) must not cost the sweep: it stays.
    """
    with contextlib.suppress(OSError):  # a folder, as it should be
        os.unlink(folder)
    shutil.rmtree(folder, ignore_errors=True)
    if os.path.isdir(folder):
        # Caches like to take away the right to write to their folders
        with contextlib.suppress(OSError):
            os.chmod(folder, 0o700)
            for parent, folders, _ in os.walk(folder):
                for path in (os.path.join(parent, name) for name in folders):
                    if not os.path.islink(path):
                        os.chmod(path, 0o700)
        shutil.rmtree(folder, ignore_errors=True)
