"""How far processes of one cell are apart by a CPU's wall clock, as Markdown: python benchmarks/pairs.py FILE...

Of two processes of one cell neither is the faster, so whatever a rule calls a win is none. Each file is a sweep with
several processes a cell, such as `attnsweep study=quickstart timing.replicates=8`; nothing is measured here.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from itertools import combinations
from pathlib import Path
from statistics import median
from typing import Any

import pyarrow.parquet as pq

from attnsweep.timing.statistics import quantile

Row = dict[str, Any]
FLOORS = (0.02, 0.15, 0.5)
_COLUMNS = ["impl", "case", "status", "flags", "latency_ms", "latency_ci_low_ms", "latency_ci_high_ms"]


def pairs_of(path: Path) -> list[tuple[Row, Row]]:
    """Every two processes of a cell that are ok, the one with the lower median first."""
    cells: dict[tuple[str, str], list[Row]] = defaultdict(list)
    for row in pq.read_table(path, columns=_COLUMNS).to_pylist():
        if row["status"] == "ok":
            cells[row["impl"], row["case"]].append(row)
    return [pair for its in cells.values() for pair in combinations(sorted(its, key=lambda r: r["latency_ms"]), 2)]


def line(name: str, pairs: list[tuple[Row, Row]]) -> str:
    """A row of the table."""
    apart = [slow["latency_ms"] / fast["latency_ms"] - 1 for fast, slow in pairs]
    disjoint = [fast["latency_ci_high_ms"] < slow["latency_ci_low_ms"] for fast, slow in pairs]
    won = [sum(one and far > floor for one, far in zip(disjoint, apart, strict=True)) / len(pairs) for floor in FLOORS]
    shares = [median(apart), quantile(apart, 0.95), max(apart), *won]
    return f"| {name} | {len(pairs)} | {' | '.join(f'{100 * share:.3g} %' for share in shares)} |"


def main() -> None:
    """Print the table."""
    pairs = [pair for path in sys.argv[1:] for pair in pairs_of(Path(path))]
    head = ["", "pairs", "median apart", "95 % within", "at most", *(f'"won" beyond {100 * f:.0f} %' for f in FLOORS)]
    print(f"| {' | '.join(head)} |\n|---|{'--:|' * (len(head) - 1)}")
    for name, wanted in (("neither contended", False), ("one or both contended", True)):
        mine = [pair for pair in pairs if any("contended" in row["flags"] for row in pair) == wanted]
        if mine:
            print(line(name, mine))


if __name__ == "__main__":
    main()
