"""What records say of the protocol itself, as Markdown: python benchmarks/protocol.py FOLDER...

Spread between processes, A/A twins, agreement of `kernel_ms` with the primary timer, burst against load, what cells
cost, and cuDNN beside NVIDIA's published table. Every row comes from the records; nothing is measured here, and two
boards are never taken for one.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from pathlib import Path
from statistics import median
from typing import Any, Iterable

import pyarrow.parquet as pq

Row = dict[str, Any]
#: A case and the board that measured it.
Place = tuple[str, str]

#: Flags with which a row is no evidence for the protocol: it says itself that it is not one.
APART = {"long_call"}

#: cuDNN 9.19 on an H200, B1 H64/8 D128 bf16, TFLOP/s by kv_len: NVIDIA's cudnn-frontend, benchmark tables.
NVIDIA = {
    ("fwd", True): {2048: 484, 4096: 591, 8192: 644, 16384: 673},
    ("fwd", False): {2048: 633, 4096: 671, 8192: 691, 16384: 702},
    ("bwd", True): {2048: 370, 4096: 474, 8192: 541, 16384: 579},
}

_COLUMNS = [
    "impl",
    "compile",
    "timing",
    "scenario",
    "case",
    "direction",
    "causal",
    "q_len",
    "kv_len",
    "num_heads",
    "num_kv_heads",
    "batch_size",
    "replicate",
    "status",
    "flags",
    "timer",
    "latency_ms",
    "events_ms",
    "graph_ms",
    "kernel_ms",
    "kernel_count",
    "sustained_ms",
    "burst_clock_mhz",
    "load_clock_mhz",
    "energy_mj",
    "tflops",
    "flops",
    "wall_s",
    "overhead_s",
    "compile_s",
    "stop_reason",
    "sustained_stop_reason",
    "sweep",
    "gpu_uuid",
]


def rows_of(folders: Iterable[Path]) -> list[Row]:
    """The records of sweeps' folders or results.parquet files."""
    rows: list[Row] = []
    for folder in folders:
        paths = [folder] if folder.is_file() else sorted((folder / "cells").glob("*.parquet"))
        for path in paths:
            rows += pq.ParquetFile(path).read(columns=_COLUMNS).to_pylist()
    return rows


def table(title: str, head: list[str], lines: Iterable[list[str]]) -> None:
    """Print a Markdown table."""
    print(f"\n### {title}\n\n| {' | '.join(head)} |\n|{'---|' * len(head)}")
    for line in lines:
        print(f"| {' | '.join(line)} |")


def percent(fraction: float) -> str:
    """0.0123 as 1.23 %."""
    return f"{100 * fraction:.2f} %"


def spread(ok: list[Row]) -> None:
    """Range of the processes' medians over their median, and the worst case of each."""
    groups: dict[tuple[str, str, str, str], dict[Place, list[float]]] = defaultdict(lambda: defaultdict(list))
    for row in ok:
        if not APART & set(row["flags"]):
            kind = (row["scenario"], row["impl"], row["compile"], row["timing"])
            groups[kind][row["case"], row["gpu_uuid"]].append(row["latency_ms"])
    lines = []
    for (scenario, impl, mode, _), cases in sorted(groups.items()):
        several = {case: values for case, values in cases.items() if len(values) > 1}
        if not several:
            continue
        ranges = {case: (max(values) - min(values)) / median(values) for case, values in several.items()}
        worst = max(ranges, key=lambda case: ranges[case])
        allowed = 0.01 if scenario == "decode" else 0.005
        within = sum(one <= allowed for one in ranges.values())
        processes = sorted({len(values) for values in several.values()})
        lines.append(
            [
                scenario,
                impl,
                mode,
                f"{'/'.join(map(str, processes))}",
                percent(median(ranges.values())),
                percent(ranges[worst]),
                worst[0],
                f"{within} of {len(ranges)}",
            ]
        )
    head = ["scenario", "impl", "compile", "processes", "median range", "worst", "case", "within 0.5 % (decode 1 %)"]
    table("Between processes: (max - min) / median of the burst medians", head, lines)


def twins(ok: list[Row]) -> None:
    """Medians over processes of an implementation and of its twin."""
    groups: dict[tuple[str, Place], dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for row in ok:
        groups[row["scenario"], (row["case"], row["gpu_uuid"])][row["impl"]].append(row["latency_ms"])
    differences = []
    for (scenario, (case, _)), impls in sorted(groups.items()):
        for impl in impls:
            if f"{impl}_twin" in impls:
                one, other = median(impls[impl]), median(impls[f"{impl}_twin"])
                differences.append((abs(one - other) / one, scenario, case, impl))
    if not differences:
        return
    within = sum(one[0] <= 0.005 for one in differences)
    print(f"\nA/A: {within} of {len(differences)} cases within 0.5 %.")
    lines = [[scenario, case, impl, percent(one)] for one, scenario, case, impl in sorted(differences)[-5:]]
    table("A/A twins, the five largest differences", ["scenario", "case", "impl", "difference"], lines)


def agreement(ok: list[Row]) -> None:
    """kernel_ms against latency_ms: within 3 % or a microsecond a kernel."""
    groups: dict[tuple[str, str, str], list[Row]] = defaultdict(list)
    for row in ok:
        if row["kernel_ms"] is not None:
            groups[(row["scenario"], row["impl"], row["compile"])].append(row)
    lines = []
    for (scenario, impl, mode), its in sorted(groups.items()):
        off = [(row["kernel_ms"] - row["latency_ms"]) / row["latency_ms"] for row in its]
        within = sum(
            abs(row["kernel_ms"] - row["latency_ms"]) <= max(0.03 * row["latency_ms"], 1e-3 * row["kernel_count"])
            for row in its
        )
        lines.append(
            [
                scenario,
                impl,
                mode,
                percent(median(off)),
                percent(min(off)),
                percent(max(off)),
                f"{within} of {len(its)}",
            ]
        )
    head = ["scenario", "impl", "compile", "median", "least", "most", "within 3 % or 1 us a kernel"]
    table("kernel_ms less latency_ms, of latency_ms", head, lines)


def beside_kernel(ok: list[Row]) -> None:
    """What `events` and `graph` read beyond the kernel, for calls that are one kernel, by how long it takes."""
    kept = [row for row in ok if row["kernel_count"] == 1 and None not in (row["events_ms"], row["graph_ms"])]
    edges, lines = [0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 2.0], []
    for low, high in zip(edges, edges[1:]):
        its = [row for row in kept if row["kernel_ms"] is not None and low <= row["kernel_ms"] < high]
        if its:
            cells = [f"{low:g} to {high:g} ms", str(len(its))]
            for timer in ("events_ms", "graph_ms"):
                off = [row[timer] - row["kernel_ms"] for row in its]
                share = [(row[timer] - row["kernel_ms"]) / row["kernel_ms"] for row in its]
                cells += [
                    f"{1e3 * median(off):.2f}",
                    f"{1e3 * min(off):.2f} to {1e3 * max(off):.2f}",
                    percent(median(share)),
                ]
            lines.append(cells)
    head = ["kernel", "rows", "events: median, us", "range", "of it", "graph: median, us", "range", "of it"]
    if lines:
        table("events_ms and graph_ms less kernel_ms, one kernel a call", head, lines)


def load(ok: list[Row]) -> None:
    """Burst against load."""
    lines = []
    for row in sorted(ok, key=lambda one: (one["scenario"], one["case"], one["impl"])):
        if row["sustained_ms"] is not None:
            clocks = [row["burst_clock_mhz"], row["load_clock_mhz"]]
            lines.append(
                [row["impl"], row["case"], f"{row['latency_ms']:.4f}", f"{row['sustained_ms']:.4f}"]
                + [percent(row["sustained_ms"] / row["latency_ms"] - 1)]
                + ["-" if one is None else f"{one:.0f}" for one in clocks]
                + ["-" if row["energy_mj"] is None else f"{row['energy_mj']:.1f}", row["sustained_stop_reason"]]
            )
    head = ["impl", "case", "burst ms", "sustained ms", "slower", "MHz", "MHz under load", "mJ a call", "ended by"]
    if lines:
        table("Burst and load", head, lines)


def cost(rows: list[Row]) -> None:
    """Wall time of a cell, everything included, and what compiling adds."""
    groups: dict[tuple[str, str, str], list[Row]] = defaultdict(list)
    for row in rows:
        if row["status"] == "ok":
            groups[(row["timing"], row["scenario"], row["compile"])].append(row)
    lines = [
        [
            timing,
            scenario,
            mode,
            str(len(its)),
            f"{median(row['wall_s'] for row in its):.2f}",
            f"{max(row['wall_s'] for row in its):.2f}",
            f"{median(row['overhead_s'] for row in its):.3f}",
        ]
        for (timing, scenario, mode), its in sorted(groups.items())
    ]
    table("What a cell costs, s", ["timing", "scenario", "compile", "cells", "median", "most", "overhead_s"], lines)


def compiling(ok: list[Row]) -> None:
    """What a compiled cell takes longer than its eager twin, from inputs to record, and how much of it is compiling."""
    twins: dict[tuple[str, Place], dict[str, Row]] = defaultdict(dict)
    for row in ok:
        twins[row["impl"], (row["case"], row["gpu_uuid"])][row["compile"]] = row
    pairs: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for (impl, _), its in twins.items():
        if {"eager", "default"} <= set(its):
            pairs[impl].append((its["default"]["wall_s"] - its["eager"]["wall_s"], its["default"]["compile_s"]))
    lines = []
    for impl, its in sorted(pairs.items()):
        added = [one for one, _ in its]
        numbers = [
            median(added),
            max(added),
            median(own for _, own in its),
            max(own for _, own in its),
            max(one - own for one, own in its),
        ]
        within = f"{sum(one <= 3 for one in added)} of {len(its)}"
        lines.append([impl, str(len(its)), *(f"{one:.2f}" for one in numbers), within])
    head = ["impl", "pairs", "median", "most", "compile_s, median", "most", "the rest, most", "within 3 s"]
    if lines:
        table("What compile=default adds to a cell, s", head, lines)


def nvidia(ok: list[Row]) -> None:
    """cuDNN beside NVIDIA's own figures."""
    lines = []
    for (direction, causal), published in NVIDIA.items():
        for length, theirs in published.items():
            its = [
                row
                for row in ok
                if row["impl"] == "sdpa_cudnn"
                and (row["direction"], row["causal"], row["kv_len"], row["q_len"])
                == (direction, causal, length, length)
                and (row["batch_size"], row["num_heads"], row["num_kv_heads"]) == (1, 64, 8)
            ]
            for row in its:
                under = None if row["sustained_ms"] is None else row["flops"] / row["sustained_ms"] / 1e9
                lines.append(
                    [
                        direction,
                        "causal" if causal else "full",
                        str(length),
                        str(theirs),
                        f"{row['tflops']:.0f}",
                        percent(row["tflops"] / theirs - 1),
                        "-" if under is None else f"{under:.0f}",
                        "-" if under is None else percent(under / theirs - 1),
                    ]
                )
    head = ["direction", "mask", "length", "NVIDIA", "burst", "difference", "under load", "difference"]
    if lines:
        table("cuDNN on 1x64/8xNx128 bf16, TFLOP/s", head, lines)


def main() -> None:
    if len(sys.argv) < 2:
        raise SystemExit(__doc__)
    rows = rows_of(Path(one) for one in sys.argv[1:])
    ok = [row for row in rows if row["status"] == "ok"]
    print(f"{len(rows)} records, {len(ok)} ok.")
    spread(ok)
    twins(ok)
    agreement(ok)
    beside_kernel(ok)
    load(ok)
    nvidia(ok)
    cost(rows)
    compiling(ok)


if __name__ == "__main__":
    main()
