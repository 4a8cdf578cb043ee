"""A sweep's medians beside triton.testing.do_bench on the same calls, run now on the same GPU.

    python benchmarks/do_bench.py outputs/h200 [--output FILE.md]

For every eager forward case of the sweep that is ok, the implementation is built as the worker builds it, on the same
inputs, and given to do_bench (25 ms warm-up, 100 ms of repetitions, median). One process an implementation. do_bench
runs back to back for 100 ms, so that it lies between our burst and sustained regimes, and clears L2 by writing to it.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

from attnsweep import frameworks, impls, inputs, parquet
from attnsweep.case import Case


def rows_of(folder: Path) -> list[dict[str, Any]]:
    """The eager forward records of a sweep that are ok, first replicates only."""
    paths = sorted((folder / "cells").glob("*.parquet"))
    columns = ("impl", "case", "scenario", "latency_ms", "config", "compile", "direction", "status", "replicate")
    wanted = {"compile": "eager", "direction": "fwd", "status": "ok", "replicate": 0}
    rows = ({name: row[name] for name in columns} for row in parquet.read(paths).to_pylist())
    return [row for row in rows if all(row[name] == value for name, value in wanted.items())]


def one(configs: list[str]) -> None:
    """Print do_bench's median of each resolved cell; all of one implementation."""
    import torch
    from triton.testing import do_bench

    def median_ms(cell: dict[str, Any]) -> float:
        case, implementation = Case.from_dict(cell["case"]), impls.build(cell["impl"])
        framework = frameworks.load("torch", cell["device"])
        given = inputs.make(framework, case, cell["seed"], implementation.layout)
        function = implementation.prepare(case, "cuda")
        return float(do_bench(lambda: function(*given.arguments), return_mode="median"))

    for config in configs:
        print(median_ms(json.loads(config)), flush=True)
        torch.cuda.empty_cache()


def main() -> int:
    """Compare, print the table, write it where asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--output", type=Path)
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        one(json.load(sys.stdin))
        return 0
    rows = rows_of(options.folder)
    lines = ["| scenario | case | implementation | attnsweep ms | do_bench ms | do_bench / attnsweep |"]
    lines.append("|---|---|---|---|---|---|")
    ratios: dict[str, list[float]] = {}
    for name in sorted({row["impl"] for row in rows}):
        mine = [row for row in rows if row["impl"] == name]
        done = subprocess.run(
            [sys.executable, __file__, str(options.folder), "--one"],
            input=json.dumps([row["config"] for row in mine]),
            capture_output=True,
            text=True,
            check=True,
        )
        for row, theirs in zip(mine, map(float, done.stdout.split()), strict=True):
            ratio = theirs / row["latency_ms"]
            ratios.setdefault(row["scenario"], []).append(ratio)
            cells = (row["scenario"], row["case"], name, f"{row['latency_ms']:.4f}", f"{theirs:.4f}", f"{ratio:.3f}")
            lines.append(f"| {' | '.join(cells)} |")
    summary = [
        f"{scenario}: median ratio {statistics.median(values):.3f}, {min(values):.3f} to {max(values):.3f}, "
        f"{len(values)} rows"
        for scenario, values in ratios.items()
    ]
    print("\n".join(summary))
    if options.output:
        options.output.write_text("\n".join([*summary, "", *lines]) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
