"""Faults in what the report reads: it says what it left out, blocks on nothing, and reports the rest."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from attnsweep import parquet
from attnsweep.records import SCHEMA_VERSION, Record
from conftest import Observer

#: Seconds that a small report may take on a loaded machine.
BOUND_S = 60.0


def record(path: Path, **columns: Any) -> Path:
    """Write one good record of a CPU's to `path`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    good = {"cell_id": path.stem, "impl": "good", "case": "c", "status": "ok", "latency_ms": 1.0, "timer": "host"}
    parquet.write(Record(good | columns), path)
    return path


def cut_short(path: Path) -> None:
    record(path).write_bytes(path.read_bytes()[:-300])


def overwritten(path: Path) -> None:
    record(path)
    with path.open("r+b") as file:
        file.seek(path.stat().st_size // 4)
        file.write(b"\xa5" * (path.stat().st_size // 2))


def newer(path: Path) -> None:
    table = pq.read_table(record(path))
    place = table.schema.get_field_index("schema_version")
    pq.write_table(table.set_column(place, "schema_version", pa.array([SCHEMA_VERSION + 1])), path)


FAULTS: dict[str, tuple[Callable[[Path], object], str]] = {
    "a record cut short": (cut_short, "a file that is not a readable file of records"),
    "a record overwritten with noise": (overwritten, "a file that is not a readable file of records"),
    "an empty record": (lambda path: path.touch(), "a file that is not a readable file of records"),
    "a pipe in a record's place": (os.mkfifo, "neither a file nor a folder"),
    "a record that links to itself": (lambda path: path.symlink_to(path.name), "a link that leads nowhere"),
    "a record of a newer schema": (newer, "a file that has schema version"),
}


def report(folder: Path) -> subprocess.CompletedProcess[str]:
    """attnsweep-report in a process of its own."""
    code = "import sys; from attnsweep.report.cli import main; sys.exit(main())"
    return subprocess.run(
        [sys.executable, "-c", code, str(folder)],
        env=os.environ | {"COLUMNS": "400"},
        capture_output=True,
        text=True,
        timeout=BOUND_S,
        check=False,
    )


@pytest.mark.parametrize("fault", FAULTS)
def test_a_damaged_record_costs_the_report_that_record(fault: str, tmp_path: Path, observe: Observer) -> None:
    """It is said with its reason, the other one is reported, and nothing temporary is left."""
    damage, reason = FAULTS[fault]
    record(tmp_path / "cells" / "good.parquet")
    damage(tmp_path / "cells" / "bad.parquet")
    done = report(tmp_path)
    said = [line for line in done.stdout.splitlines() if line.startswith("Left out")]
    other = "the other reported" if "good alone has a result (1 of 1 case)" in done.stdout else "the other lost"
    hidden = [path.name for path in tmp_path.rglob(".*")]
    left = f"left {hidden}" if hidden else "nothing left"
    told = said[0].split(":")[0] if said else "nothing said"
    observe("files", f"{fault}, read by attnsweep-report", "exit 0, it is said why, the other is reported",
            f"exit {done.returncode}; {told}; {other}; {left}")  # fmt: skip
    assert (done.returncode, done.stderr, other, hidden) == (0, "", "the other reported", [])
    assert len(said) == 1
    assert reason in said[0]
    assert "bad.parquet" in said[0]


def test_a_folder_of_noise_is_no_report(tmp_path: Path, observe: Observer) -> None:
    """Exit code 2, one sentence that names them, and no folder begun."""
    (tmp_path / "cells").mkdir()
    for number in range(3):
        (tmp_path / "cells" / f"{number}.parquet").write_bytes(os.urandom(5000))
    done = report(tmp_path)
    begun = "report/ begun" if (tmp_path / "report").exists() else "no report/"
    observe("files", "only noise, read by attnsweep-report", "exit 2, one sentence, no report",
            f"exit {done.returncode}; {done.stderr.strip().replace(str(tmp_path), 'DIR')[:150]}; {begun}")  # fmt: skip
    assert (done.returncode, done.stdout, begun) == (2, "", "no report/")
    assert done.stderr.count("\n") == 1
    assert all(f"/{number}.parquet (" in done.stderr for number in range(3))
