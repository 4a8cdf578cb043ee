"""What the tests of the pool share: cells of fakes, a pool to run them, and which processes are left."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Callable

from attnsweep.devices import Device
from attnsweep.interpreters import TOKEN_VARIABLE, Interpreter
from attnsweep.plan import Cell
from attnsweep.pool import Pool, locks
from attnsweep.pool.ending import Ending

#: Set in the environment of everything that a test starts, so that its processes are told from all others.
MARKER = "ATTNSWEEP_TEST_MARKER"

TESTS = Path(__file__).parent

BARE = Interpreter(sys.executable, (), (), True)
CPU = Device(kind="cpu", uuid="cpu", name="a CPU")


def cell(
    do: str,
    *,
    name: str | None = None,
    timeout_s: float = 30.0,
    interpreter: Interpreter = BARE,
    group: str = "g",
    seed: int = 0,
    **payload: Any,
) -> Cell:
    """A cell that does what `fakes.<do>` does."""
    return Cell(
        id=name or do,
        payload={"do": do, "seed": seed, **payload},
        columns={},
        interpreter=interpreter,
        timeout_s=timeout_s,
        unsupported=None,
        group=group,
    )


def sweep(
    folder: Path,
    *cells: Cell,
    devices: tuple[Device, ...] = (CPU,),
    finished: Callable[[Cell, Ending], None] = lambda cell, end: None,
    **options: Any,
) -> dict[str, Ending]:
    """Run cells through a pool that has time for nothing; the endings by cell id, each told exactly once."""
    ends: dict[str, Ending] = {}
    begun: list[str] = []

    def tell(one: Cell, device: Device, end: Ending) -> None:
        assert one.id not in ends
        assert one.id in begun
        ends[one.id] = end
        finished(one, end)

    options = {"grace_s": 0.4, "stuck_s": 0.4, **options}
    pool = Pool(list(devices), log_folder=folder / "cells", run="fakes:run", **options)
    assert pool.run(cells, lambda one, device: begun.append(one.id), tell) is None
    assert list(ends) == begun or len(devices) > 1
    return ends


def alone(tmp_path: Path, monkeypatch: Any) -> Iterator[str]:
    """A fixture's body: locks and temporary files of the test's own, its marker, and a look at what is left."""
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    monkeypatch.setenv("TMPDIR", str(temporary))
    monkeypatch.setenv(locks.VARIABLE, str(tmp_path / "locks"))
    monkeypatch.setenv("PYTHONPATH", str(TESTS))
    # It would hide output that is lost in buffers.
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)
    monkeypatch.setenv(MARKER, str(tmp_path))
    yield str(tmp_path)
    left = survivors(str(tmp_path))
    for pid in left:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    assert left == [], "processes were left running"
    assert not list(temporary.glob("attnsweep-cell-*"))


def survivors(marker: str) -> list[int]:
    """The processes below a zygote that carry a test's marker: zygotes, cells and what they left behind."""
    return [
        pid
        for pid, variables in environments()
        if f"{MARKER}={marker}".encode() in variables
        and any(variable.startswith(TOKEN_VARIABLE.encode() + b"=") for variable in variables)
    ]


def environments() -> list[tuple[int, list[bytes]]]:
    """Each process with the variables it was started with, as far as this user may look."""
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdecimal():
            with contextlib.suppress(OSError):
                found.append((int(entry), Path("/proc", entry, "environ").read_bytes().split(b"\0")))
    return found


def running(pid: int) -> bool:
    """Whether a process is there and no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def wait_for(condition: Callable[[], Any], timeout_s: float = 20.0) -> Any:
    """What `condition` returns, once it is true; fails after `timeout_s`."""
    deadline = time.monotonic() + timeout_s
    while not (value := condition()):
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.005)
    return value
