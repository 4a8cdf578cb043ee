"""Faults that only a GPU has: its memory exhausted, its context poisoned, its SMs kept busy."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from attnsweep import parquet

pytestmark = [pytest.mark.gpu, pytest.mark.timeout(400)]

TESTS = Path(__file__).parents[1]

#: The deadline of a cell, in seconds.
DEADLINE_S = 30

#: By name: the deed, the call that does it (None: prepare), the status, and what its reason or traceback must hold.
#: A cell's first call and three warm ones come before the check's; at 4096 tokens the timer is events, not a graph.
FAULTS: dict[str, tuple[str, int | None, str, str]] = {
    "oom_in_prepare": ("out_of_memory", None, "oom", "in prepare"),
    "oom_in_check": ("out_of_memory", 5, "oom", "in _check"),
    "oom_in_timing": ("out_of_memory", 40, "oom", "measure.py"),
    "illegal_at_first": ("illegal_address", 1, "error", "illegal memory access"),
    "illegal_in_timing": ("illegal_address", 40, "error", "illegal memory access"),
    "spins": ("spins", 1, "timeout", "in spins"),
}
GOOD = ("good_a", "good_b")


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, dict[str, Any]], float, Path]:
    """The records by implementation, the seconds that the sweep took, its folder."""
    folder = tmp_path_factory.mktemp("gpu_faults")
    (folder / "conf/impl").mkdir(parents=True)
    everyone = {**{name: fault[:2] for name, fault in FAULTS.items()}, **dict.fromkeys(GOOD, ("nothing", None))}
    for name, (deed, at) in everyone.items():
        at_yaml = "null" if at is None else at
        yaml = f"name: {name}\n_target_: gpu_faults.Faulty\nbackend: null\ndeed: {deed}\nat: {at_yaml}\nlayout: bhsd\n"
        (folder / f"conf/impl/{name}.yaml").write_text(yaml)
    begin = time.monotonic()
    done = subprocess.run(
        [
            sys.executable, "-c", "from attnsweep.cli import main; raise SystemExit(main())",
            f"impl={','.join(everyone)}", "scenario=prefill", "scenario.batch_size=1", "scenario.seq_len=4096",
            "timing=quick", "device=cuda", "name=faults", f"pool.timeout_s={DEADLINE_S}", "pool.grace_s=2",
            "--config-dir", str(folder / "conf"),
        ],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": f"{TESTS}:{os.environ.get('PYTHONPATH', '')}"},
        capture_output=True,
        text=True,
        timeout=360,
    )  # fmt: skip
    rows = parquet.read(sorted((folder / "outputs/faults/cells").glob("*.parquet"))).to_pylist()
    assert len(rows) == len(everyone), done.stdout + done.stderr
    return {row["impl"]: row for row in rows}, time.monotonic() - begin, folder


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_on_the_gpu_is_a_status(swept: Any, observe: Any, name: str) -> None:
    """By its own name, from the stage where it happened, within its deadline."""
    rows, _, _ = swept
    row, (deed, at, status, words) = rows[name], FAULTS[name]
    when = "in prepare" if at is None else f"at call {at}"
    seen = f"{row['status']}: {(row['reason'] or '')[:80]}"
    observe("gpu", f"{deed.replace('_', ' ')} {when}", f"{status}; memory free for the next cell", seen, row["wall_s"])
    assert row["status"] == status, row["traceback"]
    assert words in f"{row['reason']}\n{row['traceback']}"
    assert row["wall_s"] < DEADLINE_S + 2 + 15


def test_others_have_the_whole_gpu(swept: Any, observe: Any) -> None:
    """Cells among the faulty ones take 70 % of the memory and are right."""
    rows, seconds, _ = swept
    good = [rows[name]["status"] for name in GOOD]
    observe("gpu", "good cells among the faulty", "ok", ", ".join(good), seconds)
    assert good == ["ok"] * len(GOOD), [rows[name]["reason"] for name in GOOD]
