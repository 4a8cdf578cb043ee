"""What faulty cells cost the good ones beside them: a sweep of 30 cells alone, and with 10 faulty ones mixed in.

    python benchmarks/faulty_neighbours.py [OUTPUT_DIR]

Needs a GPU; of several it takes the first, since no two are equally fast. The faulty ones take 70 % of its memory, then
run out of memory, write to an illegal address, die of a segmentation fault, leave without a word, or spin for two
minutes (ended at 15 s): two of each. Prints the largest difference of a good cell's median between the two sweeps, and
exits with 1 where it is above 1 %.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from attnsweep import parquet

ROOT = Path(__file__).resolve().parents[1]
GOOD = "sdpa_cudnn,sdpa_flash,sdpa_efficient"
LENGTHS = ",".join(str(length) for length in range(2048, 2048 + 10 * 128, 128))
LIMIT = 0.01


def sweep(output_dir: Path, name: str, implementations: str) -> list[dict[str, object]]:
    """Run the sweep (it goes on by name) and return its records."""
    argv = [
        sys.executable, "-c", "from attnsweep.cli import main; raise SystemExit(main())",
        f"impl={implementations}", "scenario=prefill", "scenario.batch_size=4", f"scenario.seq_len={LENGTHS}",
        "timing=standard", "timing.sustained=false", "timing.replicates=1", "device=cuda", "gpus=[0]",
        "pool.timeout_s=15", "pool.grace_s=2", f"name={name}", f"output_dir={output_dir}",
        "--config-dir", os.path.relpath(ROOT / "benchmarks/faults"),
    ]  # fmt: skip
    inherited = os.environ.get("PYTHONPATH", "")
    code = subprocess.run(
        argv, env={**os.environ, "PYTHONPATH": f"{ROOT / 'tests'}:{inherited}"}, check=False
    ).returncode
    if code > 1:
        raise SystemExit(code)
    rows: list[dict[str, object]] = parquet.read(sorted((output_dir / name / "cells").glob("*.parquet"))).to_pylist()
    return rows


def main() -> int:
    """Both sweeps, and the comparison."""
    output_dir = Path(sys.argv[1] if len(sys.argv) > 1 else "outputs")
    alone = {row["cell_id"]: row for row in sweep(output_dir, "good_alone", GOOD)}
    mixed = {row["cell_id"]: row for row in sweep(output_dir, "good_and_faulty", f"{GOOD},faulty")}
    faulty = [row for row in mixed.values() if row["impl"] == "faulty"]
    both = [name for name in alone if alone[name]["status"] == mixed[name]["status"] == "ok"]
    moved = sorted((abs(mixed[name]["latency_ms"] / alone[name]["latency_ms"] - 1), name) for name in both)  # type: ignore[operator]
    print(f"{len(alone)} cells alone; {len(mixed)} mixed, {len(faulty)} of them faulty:")
    for row in faulty:
        print(f"  {row['kv_len']:>5}  {row['status']:<8} {row['wall_s']:5.1f} s  {str(row['reason'])[:90]}")
    for moved_by, name in moved[-5:]:
        print(f"  {moved_by:7.2%}  {name}")
    print(f"{len(both)} of {len(alone)} ok in both; the largest difference of a median is {moved[-1][0]:.2%}")
    return int(len(both) < len(alone) or moved[-1][0] > LIMIT)


if __name__ == "__main__":
    raise SystemExit(main())
