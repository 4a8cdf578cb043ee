"""The statuses a cell can end with, the exceptions that become them, and what an exception says is wrong.

    AttnsweepError
    |-- ConfigError       a mistake in YAML or on the command line: one sentence, exit code 2
    |-- RecordError       a record whose fields contradict its status, or a file that holds none
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

import re
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
    """A record whose fields contradict its status, or a file that holds no record that can be read."""


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


#: Characters of a message that are looked at: a compiler may hand on a whole source.
_LONGEST = 20_000
#: And of a line that a program said last.
_LINE = 200

#: Where in its source Triton's compiler met what is wrong: a position, the lines up to it, and a caret below the last.
_PLACE = re.compile(r"at \d+:\d+:\n(?:(?:.*\n)*?\s*\^|\s*<source \w+>)[ ]*(?:\n|$)")


def said(error: BaseException) -> str:
    """What an exception says is wrong: its message without the place in a source, or where there is no more to it (an
    error in a function that was called from there) what its cause says; empty where nobody says anything.
    """
    told: list[str] = []
    seen: list[BaseException] = []
    while error not in seen:
        seen.append(error)
        told.append(_PLACE.sub("", str(error)[:_LONGEST]).strip())
        cause = error.__cause__
        if cause is None or (told[-1] and not told[-1].endswith(":")):
            break
        error = cause
    if len(told) > 1 and not told[-1]:
        told[-1] = type(error).__name__
    return " ".join(one for one in told if one)


def first_line(text: str) -> str:
    """The first line that is not blank, with the next where it only announces that."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return " ".join(lines[: 2 if lines[0].endswith(":") else 1]) if lines else "no message"


#: Where an interpreter that dies begins to print the stacks of its threads.
_STACKS = re.compile(r"^(?:Current thread|Thread) 0x", re.MULTILINE)


def last_line(text: str) -> str:
    """The last line that is not blank, above the stacks that a dying interpreter prints; empty without one."""
    lines = [line.strip() for line in _STACKS.split(text, maxsplit=1)[0].splitlines() if line.strip()]
    return lines[-1][:_LINE] if lines else ""
