"""What is timed, and what comes of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Callable

from attnsweep.inputs import Inputs

Call = Callable[[], Any]


@dataclass(frozen=True)
class Subject:
    """What is timed: `call` on `given`, `another` the same call on other inputs, `warm_ms` the wall clock of one."""

    call: Call
    given: Inputs
    another: Callable[[Inputs], Call]
    warm_ms: float


@dataclass
class Measured:
    """Columns and flags; `windows` by regime, [begin, end] in s on the clock; `timed`, the very call that was timed."""

    columns: dict[str, Any]
    timed: Call
    windows: dict[str, list[float]] = field(default_factory=dict)
    flags: set[str] = field(default_factory=set)
