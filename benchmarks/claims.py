"""What the records of docs/results say of the studies' claims, as Markdown: python benchmarks/claims.py

Every figure is computed from two committed sweeps, `h200` (the shapes of `llm` and `flux`, uncompiled and compiled) and
`fusion`; docs/studies.md quotes the tables, and a test compares.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from statistics import geometric_mean
from typing import Any

import pyarrow.parquet as pq

RESULTS = Path(__file__).parents[1] / "docs" / "results"

#: An implementation and its compile mode.
Label = tuple[str, str]
Cases = dict[str, dict[str, Any]]

_COLUMNS = [
    "impl",
    "compile",
    "scenario",
    "case",
    "status",
    "flags",
    "latency_ms",
    "batch_size",
    "kv_len",
    "peak_memory_bytes",
    "workspace_bytes",
]


def read(sweep: str, scenario: str) -> dict[Label, Cases]:
    """The ok records of one scenario of a committed sweep, by label and case."""
    found: dict[Label, Cases] = {}
    for row in pq.read_table(RESULTS / sweep / "results.parquet", columns=_COLUMNS).to_pylist():
        if row["status"] == "ok" and row["scenario"] == scenario:
            found.setdefault((row["impl"], row["compile"]), {})[row["case"]] = row
    return found


def ratios(one: Cases, other: Cases) -> list[float]:
    """Latencies of one over those of another, case by case."""
    assert one.keys() == other.keys()
    return [one[case]["latency_ms"] / other[case]["latency_ms"] for case in one]


def table(head: list[str], rows: Iterator[list[str]]) -> list[str]:
    """A Markdown table."""
    lines = [head, ["---", *["--:"] * (len(head) - 1)], *rows]
    return [f"| {' | '.join(line)} |" for line in lines]


def compiled() -> list[str]:
    """How many times as fast compile=default is: the geometric mean over six cases, least and most."""
    scenarios = {name: read("h200", name) for name in ("flux", "prefill", "decode")}

    def rows() -> Iterator[list[str]]:
        for impl in ("sdpa_cudnn", "sdpa_flash", "sdpa_efficient", "fa2", "xformers", "sdpa_math", "naive"):
            cells = [f"`{impl}`"]
            for found in scenarios.values():
                gain = ratios(found[impl, "eager"], found[impl, "default"])
                flagged = any("substituted" in row["flags"] for row in found[impl, "default"].values())
                said = f"{geometric_mean(gain):.2f} ({min(gain):.2f} to {max(gain):.2f})"
                cells.append(said + (" substituted" if flagged else ""))
            yield cells

    return table(["eager / default", *scenarios], rows())


def winners() -> list[str]:
    """The time of each over FlashAttention 2's, and in how many of six cases it is lower by more than 2 %."""
    scenarios = {name: read("h200", name) for name in ("prefill", "decode")}
    labels = [("sdpa_cudnn", "eager"), ("flex", "default"), ("xformers", "eager"), ("sdpa_flash", "eager")]
    labels += [("sdpa_efficient", "eager"), ("naive", "default"), ("naive", "eager"), ("sdpa_math", "eager")]

    def rows() -> Iterator[list[str]]:
        for impl, mode in labels:
            cells = [f"`{impl}`" if mode == "eager" else f"`{impl}` compiled"]
            for found in scenarios.values():
                times = ratios(found[impl, mode], found["fa2", "eager"])
                faster = sum(one < 0.98 for one in times)
                cells.append(f"{geometric_mean(times):.2f} ({min(times):.2f} to {max(times):.2f}), faster in {faster}")
            yield cells

    return table(["time / `fa2`'s", *scenarios], rows())


def memory() -> list[str]:
    """Peak memory of a call and the part of it that is workspace, MiB, batch 1."""
    found = read("h200", "prefill")

    def rows() -> Iterator[list[str]]:
        for impl in ("naive", "fa2", "sdpa_cudnn"):
            its = sorted(found[impl, "eager"].values(), key=lambda row: row["kv_len"])
            yield [f"`{impl}`", *(_mib(row) for row in its if row["batch_size"] == 1)]

    return table(["peak (workspace), MiB", "2048", "4096", "8192"], rows())


def fusion() -> list[str]:
    """ms, and the workspace in MiB, of the study's three implementations at each length."""
    found = {impl: its for (impl, _), its in read("fusion", "prefill").items()}
    impls = ("naive", "triton_fused_softmax", "triton_flash")
    by_length = {impl: {row["kv_len"]: row for row in found[impl].values()} for impl in impls}

    def rows() -> Iterator[list[str]]:
        for length in sorted(by_length["triton_flash"]):
            its = [by_length[impl].get(length) for impl in impls]
            times = [f"{row['latency_ms']:.3g}" if row else "-" for row in its]
            yield [str(length), *times, *(f"{row['workspace_bytes'] / 2**20:.1f}" if row else "-" for row in its)]

    return table(["tokens", *(f"`{impl}`, ms" for impl in impls), *(f"`{impl}`, MiB" for impl in impls)], rows())


def _mib(row: dict[str, Any]) -> str:
    return f"{row['peak_memory_bytes'] / 2**20:.0f} ({row['workspace_bytes'] / 2**20:.0f})"


def main() -> int:
    for made in (compiled, winners, memory, fusion):
        print("\n".join(["", *made()]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
