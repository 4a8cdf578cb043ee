"""The command in a process of its own, with the cells of quick.py, and what it left behind."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

import processes
from aftermath import remains
from attnsweep import parquet

HERE = Path(__file__).parent
#: One case a length: a cell that runs, and one that its implementation cannot do on a CPU.
LINE = ("impl=naive,fa2", "device=cpu", "timing=quick", "scenario.batch_size=1", "scenario.dtype=fp32")


class Command:
    """`attnsweep` with these lengths of queries, in `folder`, as the sweep `name`."""

    def __init__(
        self,
        folder: Path,
        lengths: Iterable[int],
        *more: str,
        name: str = "s",
        under: Sequence[str] = (),
        stdio: int | None = None,
        **variables: str,
    ) -> None:
        self.folder, self.name = folder, name
        lengths = f"scenario.seq_len=[{','.join(map(str, lengths))}]"
        self.process = subprocess.Popen(
            [*under, sys.executable, str(HERE / "quick.py"), *LINE, lengths, f"name={name}", *more],
            cwd=folder,
            env={
                **os.environ,
                "PYTHONPATH": f"{processes.TESTS}:{HERE}",
                "QUICK_LOG": str(folder / "started"),
                **variables,
            },
            stdin=subprocess.DEVNULL if stdio is None else stdio,
            stdout=subprocess.PIPE if stdio is None else stdio,
            stderr=subprocess.PIPE if stdio is None else stdio,
            text=True,
            start_new_session=True,
        )

    @property
    def cells(self) -> Path:
        """The folder of its records."""
        return self.folder / "outputs" / self.name / "cells"

    @property
    def listens(self) -> bool:
        """Whether it has begun to handle SIGTERM, which it does first of all."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        caught = int(next(line.split()[1] for line in status.splitlines() if line.startswith("SigCgt")), 16)
        return bool(caught >> 14 & 1)

    def until(self, condition: object) -> None:
        """Wait for something while it runs."""
        assert callable(condition)
        processes.wait_for(lambda: condition() or self.process.poll() is not None)
        assert self.process.poll() is None, self.process.communicate()

    def begun(self) -> None:
        """Wait until it holds its folder, or has ended already."""
        processes.wait_for(lambda: self.holder() == self.process.pid or self.process.poll() is not None)

    def end(self) -> tuple[int, str, str]:
        """Wait for its end: exit code, or minus the signal that it died of; stdout; stderr."""
        out, err = self.process.communicate(timeout=60)
        return self.process.returncode, out, err

    def whole(self) -> dict[str, bytes]:
        """The records there are, by cell; each can be read."""
        paths = sorted(self.cells.glob("*.parquet"))
        assert parquet.read(paths)["cell_id"].to_pylist() == [path.stem for path in paths]
        return {path.stem: path.read_bytes() for path in paths}

    def started(self) -> list[str]:
        """The cells that began to run, in order, over all the sweeps in this folder."""
        path = self.folder / "started"
        return path.read_text().splitlines() if path.exists() else []

    def holder(self) -> int | None:
        """The process that has held the folder last, unless it has let go of it by itself."""
        path = self.cells.parent / ".lock"
        text = path.read_text() if path.exists() else ""
        return json.loads(text)["pid"] if text else None

    def held(self) -> str | None:
        """Who holds the folder, if anybody does."""
        with contextlib.suppress(FileNotFoundError), (self.cells.parent / ".lock").open() as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return f"the lock of process {self.holder()}"
        return None

    def left(self) -> list[str]:
        """What it left: processes, temporary folders, locks that are held, files that are not finished."""
        held = self.held()
        found = remains() + ([] if held is None else [held])
        return found + [path.name for path in self.cells.glob("*") if path.name.startswith((".", "zygote"))]
