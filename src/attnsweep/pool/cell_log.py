"""What a cell writes to stdout and stderr, kept in a bounded file: its beginning and its end."""

from __future__ import annotations

import contextlib
from collections import deque
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

HEAD_BYTES = 256 * 1024
TAIL_BYTES = 1024 * 1024


class CellLog:
    """The log file of one cell: its first HEAD_BYTES at once, its last TAIL_BYTES on closing.

    Of what came between, a line says how much there was. A cell that writes nothing leaves no file. A file that
    cannot be written (its folder is gone, the disk is full) is given up: no cell is worth less without its log.
    """

    def __init__(self, path: Path, *, head_bytes: int = HEAD_BYTES, tail_bytes: int = TAIL_BYTES) -> None:
        self._path, self._head_left, self._tail_bytes = path, head_bytes, tail_bytes
        self._file: BinaryIO | None = None
        self._head_end = b""
        self._tail: deque[bytes] = deque()
        self._tail_size = 0
        self._dropped = 0
        self._lost = False
        try:
            path.unlink(missing_ok=True)
        except OSError:
            self._lost = True

    def __enter__(self) -> CellLog:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def write(self, data: bytes) -> None:
        """Take more of the output."""
        if not data:
            return
        head, data = data[: self._head_left], data[self._head_left :]
        if head:
            self._put(head)
            self._head_left -= len(head)
            self._head_end = (self._head_end + head)[-self._tail_bytes :]
        if not data:
            return
        self._tail.append(data)
        self._tail_size += len(data)
        while self._tail_size - len(self._tail[0]) >= self._tail_bytes:
            first = self._tail.popleft()
            self._tail_size -= len(first)
            self._dropped += len(first)

    def last_lines(self, count: int) -> str:
        """The last lines of the output so far, undecodable bytes replaced."""
        end = self._end()
        if not self._dropped and self._tail_size < self._tail_bytes:
            end = self._head_end + end
        return "\n".join(end.decode("utf-8", "replace").splitlines()[-count:])

    def close(self) -> None:
        """Write what was held back of the end."""
        if self._file is None:
            return
        end = self._end()
        dropped = self._dropped + self._tail_size - len(end)
        if dropped:
            self._put(f"\n[... {dropped} bytes left out ...]\n".encode())
        self._put(end)
        with contextlib.suppress(OSError):  # a network's file system may say only now that it kept nothing
            self._file.close()
        self._file = None

    def _put(self, data: bytes) -> None:
        """Write to the file, made at the first need; after the first failure nothing is tried again."""
        if self._lost:
            return
        try:
            if self._file is None:
                self._file = self._path.open("wb", buffering=0)
            self._file.write(data)
        except OSError:
            self._lost = True

    def _end(self) -> bytes:
        return b"".join(self._tail)[-self._tail_bytes :]
