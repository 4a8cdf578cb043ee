"""What a process of its own costs a cell: forked from a warm process, against a fresh interpreter, in one run.

    python benchmarks/isolation.py [--device auto|cpu|cuda] [--cells 20] [--limit SECONDS] [--above SECONDS]

Runs one small case as replicates of one sweep (the pool, as always), then the same cells by hand, a fresh interpreter
each (`python -m attnsweep.worker`), and prints the overhead of both: wall clock less the stages import, inputs,
prepare, check, proof, memory and timing, where a fresh interpreter's import of the framework counts as overhead,
since it is what forking saves. On a GPU the floor stands beside them: a forked child that makes a CUDA context and
exits, with nothing else (context.py). It exits 1 when the median overhead of a forked cell is over --limit, or on a GPU
more than --above over that floor.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import context

from attnsweep import devices, parquet


def forked(device: str, cells: int, folder: Path) -> list[dict[str, object]]:
    """The records of one sweep of `cells` replicates of naive attention on 512 tokens."""
    sweep = [
        sys.executable, "-c", "from attnsweep.cli import main; raise SystemExit(main())",
        "impl=naive", "scenario=prefill", "scenario.batch_size=1", "scenario.seq_len=512", "scenario.num_heads=4",
        "timing=quick", f"timing.replicates={cells}", f"device={device}", "name=isolation", f"output_dir={folder}",
    ]  # fmt: skip
    subprocess.run(sweep, check=True, stdout=subprocess.DEVNULL)
    rows = parquet.read(sorted((folder / "isolation/cells").glob("*.parquet"))).to_pylist()
    failed = [row["reason"] for row in rows if row["status"] != "ok"]
    if failed or len(rows) != cells:
        raise SystemExit(f"{len(rows)} of {cells} cells have a record, {len(failed)} failed: {failed[:1]}")
    return rows


def fresh(rows: list[dict[str, object]], folder: Path) -> list[float]:
    """Overhead in seconds of the same cells, each in an interpreter of its own."""
    overheads = []
    for number, row in enumerate(rows):
        path = folder / f"{number}.json"
        path.write_text(str(row["config"]))
        start = time.monotonic()
        done = subprocess.run(
            [sys.executable, "-m", "attnsweep.worker", str(path)], check=True, capture_output=True, text=True
        )
        wall_s = time.monotonic() - start
        stages = json.loads(done.stdout)["stages"]
        overheads.append(wall_s - sum(seconds for stage, seconds in stages.items() if stage != "import"))
    return overheads


def main() -> int:
    """Measure both, print a table, hold the forked cells to the limit."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--cells", type=int, default=20)
    parser.add_argument("--limit", type=float)
    parser.add_argument("--above", type=float)
    options = parser.parse_args()
    if options.above is not None and devices.find(options.device)[0].kind != "cuda":
        parser.error("--above is over the floor of a GPU's context, and this would run on a CPU: give --limit")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        rows = forked(options.device, options.cells, folder)
        ours = [float(str(row["overhead_s"])) for row in rows]
        theirs = fresh(rows, folder)
    kinds = {"forked": ours, "fresh interpreter": theirs}
    if rows[0]["device"] == "cuda":
        kinds["bare context"] = [context.fork()["total"] for _ in range(options.cells)]
    print(f"{options.cells} cells on {rows[0]['device_name']}, overhead of one in seconds")
    print(f"{'':18}{'median':>8}{'min':>8}{'max':>8}")
    for name, values in kinds.items():
        print(f"{name:18}{statistics.median(values):8.3f}{min(values):8.3f}{max(values):8.3f}")
    found = statistics.median(ours)
    over = options.limit is not None and found > options.limit
    if over:
        print(f"the median of the forked cells is above {options.limit} s", file=sys.stderr)
    far = options.above is not None and found > statistics.median(kinds["bare context"]) + options.above
    if far:
        print(f"the median of the forked cells is more than {options.above} s above the floor", file=sys.stderr)
    return int(over or far)


if __name__ == "__main__":
    sys.exit(main())
