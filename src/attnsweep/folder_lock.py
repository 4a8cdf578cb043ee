"""One sweep in a folder at a time: a lock on a file there, which names its holder."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from attnsweep import lock_holder
from attnsweep.errors import ConfigError


@contextmanager
def held(folder: Path, *, shared: bool = False, shard: tuple[int, int] | None = None) -> Iterator[None]:
    """Hold the folder against a second sweep into it; shards and a launcher's jobs share it.

    Raises ConfigError naming the holder.
    """
    lock = _Lock(folder / ".lock", folder, exclusive=not shared and shard is None)
    try:
        own = None
        if shard is not None:
            own = _Lock(folder / f".lock-{shard[0]}-of-{shard[1]}", folder, exclusive=True)
        try:
            yield
        finally:
            if own is not None:
                own.close()
    finally:
        lock.close()


class _Lock:
    """A lock on a file, until `close` or this process's death; an exclusive one names its holder in it."""

    def __init__(self, path: Path, folder: Path, *, exclusive: bool) -> None:
        self.exclusive = exclusive
        try:
            self.fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise _unusable(path, error) from None
        try:
            fcntl.flock(self.fd, (fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH) | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = lock_holder.told(path) or "a shard of it or a launcher's job"
            os.close(self.fd)
            raise ConfigError(
                f"another sweep is running into {folder}: {holder}; wait for it to end, or give another name="
            ) from None
        except OSError as error:
            os.close(self.fd)
            raise _unusable(path, error) from None
        # Nobody else holds it exclusively, so whatever stands there is of one that died
        if exclusive:
            lock_holder.sign(self.fd)
        else:
            lock_holder.clear(self.fd)

    def close(self) -> None:
        """Let go; the file stays, empty."""
        if self.exclusive:
            lock_holder.clear(self.fd)
        os.close(self.fd)


def _unusable(path: Path, error: OSError) -> ConfigError:
    return ConfigError(
        f"{path}, which keeps two sweeps out of one folder, cannot be locked ({error.strerror}); "
        "give an output_dir= where files can be written and locked"
    )
