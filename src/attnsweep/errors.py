"""The statuses a cell can end with, and the exceptions that become them.

    AttnsweepError
    |-- ConfigError       a mistake in YAML or on the command line: one sentence, exit code 2
    |-- RecordError       a record whose fields contradict its status
    |-- GraphUnsupported  a call cannot be captured in a CUDA graph; a cell's other timers go on
    `-- CellError         raised inside a cell; each carries the status it becomes
        |-- Unsupported   the implementation cannot do this case
        |-- Missing       its library or hardware is not here
        |-- Incorrect     it ran, and the numbers are wrong
        `-- CompileError  building, JIT or torch.compile failed

`worker.py` is the one place that turns exceptions into statuses. Standard library only, Python 3.9 on: the
worker may run in an environment of its own.
"""

from __future__ import annotations

from enum import Enum
from typing import ClassVar


class Status(str, Enum):
    """How a cell ended. Only `OK` may carry a latency."""

    OK = "ok"
    INCORRECT = "incorrect"
    UNSUPPORTED = "unsupported"
    MISSING = "missing"
    COMPILE_ERROR = "compile_error"
    OOM = "oom"
    TIMEOUT = "timeout"
    CRASHED = "crashed"
    ERROR = "error"

    def __str__(self) -> str:
        return self.value


#: Statuses that make a sweep's exit code 1: something is wrong, not merely absent.
FAILURES = frozenset({Status.INCORRECT, Status.COMPILE_ERROR, Status.TIMEOUT, Status.CRASHED, Status.ERROR})


class AttnsweepError(Exception):
    """The root of everything this project raises on purpose."""


class ConfigError(AttnsweepError):
    """A mistake of the user's in YAML or on the command line, said in one sentence with the choices."""


class RecordError(AttnsweepError):
    """A record whose fields contradict its status."""


class GraphUnsupported(AttnsweepError):
    """A call cannot be captured in a CUDA graph, and why; not an end of the cell."""


class CellError(AttnsweepError):
    """Raised inside a cell; `status` is what the cell's record will say."""

    status: ClassVar[Status] = Status.ERROR


class Unsupported(CellError):
    """The implementation cannot compute this case; the message says why."""

    status = Status.UNSUPPORTED


class Missing(CellError):
    """A library or hardware is not here; the message says how to install it."""

    status = Status.MISSING


class Incorrect(CellError):
    """The output is wrong; `columns` holds the error numbers for the record."""

    status = Status.INCORRECT

    def __init__(self, message: str, columns: dict[str, object] | None = None) -> None:
        super().__init__(message)
        self.columns = columns or {}


class CompileError(CellError):
    """Building, JIT compilation or torch.compile failed; never answered by running eager."""

    status = Status.COMPILE_ERROR
