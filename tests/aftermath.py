"""What follows a fault, as it is seen: its own end, the cells beside it, and whatever is left of it."""

from __future__ import annotations

import fcntl
import os
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from attnsweep import recording
from attnsweep.errors import Status
from attnsweep.plan import Cell
from attnsweep.pool import locks
from attnsweep.pool.ending import Ending
from processes import MARKER, cell, survivors, sweep

#: What a loaded machine may add to any cell, in seconds.
MARGIN_S = 8.0


@dataclass
class Aftermath:
    """The fault's status, reason, traceback, signal and seconds; the other cells' statuses; what was left behind."""

    status: str
    reason: str | None
    traceback: str | None
    exit_signal: str | None
    seconds: float
    others: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)

    @property
    def observed(self) -> str:
        """In words, for the table."""
        # As a record has it, and without the test's own folder
        reason = recording.cut_paths(self.reason or "").replace(f"{os.environ[MARKER]}/", "")
        what = f"{self.status}: {reason[:100]}" if reason else self.status
        left = ", ".join(sorted(set(self.left))) or "nothing"
        text = f"{what}; {self.others.count('ok')} of {len(self.others)} others ok; {left} left"
        return "".join(one if one.isprintable() else "?" for one in text)

    def harmless(self, within_s: float = 0.0) -> bool:
        """Whether it cost no other cell, left nothing and was over in `within_s` seconds on a machine at rest."""
        return set(self.others) == {"ok"} and self.left == [] and self.seconds < within_s + MARGIN_S


def of(end: Ending, others: Iterable[Ending], left: list[str]) -> Aftermath:
    """What became of the cell whose ending is `end`."""
    seconds = end.ended_s - end.requested_s
    statuses = [str(one.status) for one in others]
    return Aftermath(str(end.status), end.reason, end.traceback, end.exit_signal, seconds, statuses, left)


def among(folder: Path, fault: Cell, **options: Any) -> tuple[Aftermath, dict[str, Ending]]:
    """Run a cell between two good ones in a pool of bare zygotes; what followed, and all the endings."""
    left: list[str] = []
    ends = sweep(
        folder,
        cell("ok", name="before"),
        fault,
        cell("ok", name="after"),
        finished=lambda one, end: left.extend(strays()),
        **options,
    )
    others = [end for name, end in ends.items() if name != fault.id]
    return of(ends[fault.id], others, left + remains()), ends


def good(ends: dict[str, Ending]) -> bool:
    """Whether all the cells are ok."""
    return {end.status for end in ends.values()} == {Status.OK}


def same_zygote(ends: dict[str, Ending]) -> bool:
    """Whether the cells before and after the fault are children of one zygote: it needed no other."""
    zygotes = [(ends[name].outcome or {})["columns"]["zygote"] for name in ("before", "after")]
    return zygotes[0] == zygotes[1]


def strays() -> list[str]:
    """What cells left behind although their pool goes on: processes beside its zygotes, temporary folders."""
    marked = survivors(os.environ[MARKER])
    found = [f"process {pid}" for pid in marked if parent_of(pid) not in (os.getpid(), None)]
    return found + [path.name for path in Path(tempfile.gettempdir()).glob("attnsweep-cell-*")]


def remains() -> list[str]:
    """What a pool left behind: processes, temporary folders, locks that are held."""
    processes = [f"process {pid}" for pid in survivors(os.environ[MARKER])]
    held = [path.name for path in locks.folder().glob("*.lock") if not _free(path)]
    return processes + strays() + held


def parent_of(pid: int) -> int | None:
    """The process id of a process's parent; None where it has ended."""
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except (FileNotFoundError, ProcessLookupError):
        return None


def _free(path: Path) -> bool:
    with path.open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True
