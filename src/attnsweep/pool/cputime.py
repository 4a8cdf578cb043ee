"""CPU time of a cell, read from outside: everything below its zygote, which serves one cell at a time."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")

#: Processes that are looked at; of more than that, which only a runaway has, the rest is left out.
_MOST = 1000


def below(pid: int) -> float:
    """CPU seconds, user and system, used by all that descend from a process, it left out.

    Children that a descendant has waited for count too, so that a compiler's short-lived helpers do not vanish. A
    daemon counts where the process is a subreaper. It may fall when somebody ends whose parent ignores SIGCHLD.
    """
    ticks = 0
    seen: set[int] = set()
    left = _children(pid)
    while left and len(seen) < _MOST:
        one = left.pop()
        if one not in seen:
            seen.add(one)
            # What ended meanwhile is counted by its parent, at the next look at the latest
            with contextlib.suppress(OSError):
                ticks += _ticks(one)
            left += _children(one)
    return ticks / _TICKS_PER_S


def _ticks(pid: int) -> int:
    """utime, stime, cutime and cstime, the 14th to 17th field of proc(5)'s stat; the second may hold blanks."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(int(field) for field in fields[11:15])


def _children(pid: int) -> list[int]:
    found: list[int] = []
    with contextlib.suppress(OSError):
        for task in os.listdir(f"/proc/{pid}/task"):
            with contextlib.suppress(OSError):
                found += map(int, Path(f"/proc/{pid}/task/{task}/children").read_text().split())
    return found
