"""What the records of docs/results say of the studies' claims, as Markdown: python benchmarks/claims.py

Every figure is computed from committed sweeps: `everything` (flux and llm), `fa4_flashinfer`, `fp16`, `mha_grid`,
`mha_grid_blocks`, `mha_grid_jax` and `fusion`, and from what `everything` had before.
README.md, docs/measurement.md, docs/studies.md and the sweeps' own READMEs quote the tables; a test compares.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from statistics import geometric_mean, median
from typing import Any, TypeVar

import pyarrow.parquet as pq

from attnsweep.report import labels as naming
from attnsweep.report.aggregate import Measurement, beats, compared, measure

RESULTS = Path(__file__).parents[1] / "docs" / "results"

Name = TypeVar("Name")

#: An implementation and its compile mode.
Label = tuple[str, str]
Cases = dict[str, dict[str, Any]]

#: Whose kernels are a library's, compiled or not.
LIBRARIES = (
    "sdpa",
    "sdpa_cudnn",
    "sdpa_flash",
    "sdpa_efficient",
    "fa2",
    "xformers",
    "xformers_flash",
    "xformers_cutlass",
)
#: Of mha_grid: what has scores and weights in no memory, and what has.
FUSED = ("fa4", "sdpa_cudnn", "sdpa", "triton_flash", "flex", "fa2", "xformers", "sdpa_flash", "sdpa_efficient")
FORMULAS = ("naive", "sdpa_math")
_QUADRANTS = (("fwd", "none"), ("fwd", "dense"), ("bwd", "none"), ("bwd", "dense"))

_COLUMNS = [
    "impl",
    "compile",
    "scenario",
    "direction",
    "case",
    "status",
    "flags",
    "timer",
    "latency_ms",
    "latency_ci_low_ms",
    "latency_ci_high_ms",
    "kernel_ms",
    "kernel_count",
    "impl_version",
    "precision_class",
    "autotuned_configs",
    "tflops",
    "tokens_per_s",
    "batch_size",
    "kv_len",
    "peak_memory_bytes",
    "workspace_bytes",
    "gpu_uuid",
    "bias",
]


def read(sweep: str, scenario: str, direction: str = "fwd", file: str = "results") -> dict[Label, Cases]:
    """The ok records of one scenario of a committed sweep, by label and case, without the ceilings."""
    found: dict[Label, Cases] = {}
    for row in pq.read_table(RESULTS / sweep / f"{file}.parquet", columns=_COLUMNS).to_pylist():
        its = (row["scenario"], row["direction"]) == (scenario, direction)
        if row["status"] == "ok" and its and not row["impl"].startswith("ceiling_"):
            found.setdefault((row["impl"], row["compile"]), {})[row["case"]] = row
    return found


def as_run(found: dict[Label, Cases]) -> dict[str, Cases]:
    """Each implementation as people run it: uncompiled, JAX's jitted, FlexAttention compiled."""
    mode = {"flex": "default"}
    return {impl: its for (impl, how), its in found.items() if how == mode.get(impl, "eager") or how == "jit"}


def pair(one: dict[str, Any], other: dict[str, Any]) -> tuple[float, float]:
    """ms of both, which one GPU measured, by which reports compare them."""
    assert one["gpu_uuid"] == other["gpu_uuid"], (one["case"], one["impl"], other["impl"])
    times = compared(_measured(one), _measured(other))
    assert times is not None
    return times[0].ms, times[1].ms


def faster(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Whether one is faster than another by the rule of reports."""
    return beats(_measured(one), _measured(other))


def _measured(row: dict[str, Any]) -> Measurement:
    text = f"{row['impl']} ({row['compile']})"
    return measure(naming.Label(row["impl"], "", row["compile"], "", text), [row], "latency_ms")


def ratios(one: Cases, other: Cases) -> list[float]:
    """Times of one over those of another, in each case that both have."""
    pairs = [pair(one[case], other[case]) for case in one if case in other]
    return [mine / its for mine, its in pairs]


def spread(values: list[float]) -> str:
    """The geometric mean, least and most."""
    if len(values) == 1:
        return f"{values[0]:.2f}"
    return f"{geometric_mean(values):.2f} ({min(values):.2f} to {max(values):.2f})"


def table(head: list[str], rows: Iterator[list[str]]) -> list[str]:
    """A Markdown table."""
    lines = [head, ["---", *["--:"] * (len(head) - 1)], *rows]
    return [f"| {' | '.join(line)} |" for line in lines]


def overview() -> list[str]:
    """README.md's: a few implementations in six cases, the fastest of all that ran in bold."""
    shown = {
        "prefill, ms": ("prefill", "fwd", 1, 8192, "latency_ms"),
        "TFLOP/s": ("prefill", "fwd", 1, 8192, "tflops"),
        "backward, ms": ("prefill", "bwd", 1, 8192, "latency_ms"),
        "flux, ms": ("flux", "fwd", 1, 4608, "latency_ms"),
        "TFLOP/s ": ("flux", "fwd", 1, 4608, "tflops"),
        "backward, ms ": ("flux", "bwd", 1, 4608, "latency_ms"),
        "decode, ms": ("decode", "fwd", 1, 4096, "latency_ms"),
        "batch 8, ms": ("decode", "fwd", 8, 4096, "latency_ms"),
    }
    impls = ["fa4", "flashinfer_prefill_fa3", "sdpa_cudnn", "jax_cudnn", "triton_flash", "flex", "fa2", "sdpa_flash"]
    impls += ["sdpa_efficient", "naive", "flashinfer_decode", "triton_flash_decode"]
    columns = []
    for scenario, direction, batch, length, column in shown.values():
        found = as_run(read("everything", scenario, direction))
        one = {impl: _case(its, batch, length) for impl, its in found.items()}
        rows = {impl: row for impl, row in one.items() if row}
        first = _fastest(rows)
        columns.append({impl: _bold(f"{rows[impl][column]:.3g}", impl in first) for impl in rows})

    def rows_of() -> Iterator[list[str]]:
        for impl in impls:
            yield [f"`{impl}`", *(column.get(impl, "") for column in columns)]

    return table(["", *(name.strip() for name in shown)], rows_of())


def flux() -> list[str]:
    """ms at the six lengths of text, the rate at the longest, and the backward pass there."""
    found, back = as_run(read("everything", "flux")), as_run(read("everything", "flux", "bwd"))
    lengths = (4224, 4352, 4416, 4480, 4544, 4608)

    def rows() -> Iterator[list[str]]:
        for impl, its in sorted(
            found.items(), key=lambda one: geometric_mean(r["latency_ms"] for r in one[1].values())
        ):
            by_length = {row["kv_len"]: row for row in its.values()}
            cells = [f"{by_length[length]['latency_ms']:.3g}" for length in lengths]
            gradient = [f"{row['latency_ms']:.3g}" for row in back.get(impl, {}).values()] or ["-"]
            yield [f"`{impl}`", *cells, f"{by_length[4608]['tflops']:.0f}", *gradient]

    return table(["ms", *(str(length - 4096) for length in lengths), "TFLOP/s at 512", "backward at 512"], rows())


def compiled() -> list[str]:
    """How many times as fast a compiled call is as an uncompiled one: the geometric mean, least and most."""
    sweeps = _compiled_sweeps()
    flux = sweeps["flux"][1]
    impls = sorted(
        {impl for impl, mode in flux if mode == "default" and (impl, "eager") in flux},
        key=lambda impl: geometric_mean(ratios(flux[impl, "eager"], flux[impl, "default"])),
    )

    def rows() -> Iterator[list[str]]:
        for impl in impls:
            cells = [f"`{impl}`"]
            for mode, found in sweeps.values():
                both = _eager_and(found, impl, mode)
                said = spread([one / other for one, other in (pair(*two) for two in both)]) if both else "-"
                cells.append(said + _substituted([its for _, its in both]))
            yield cells

    return table(["eager / compiled", *sweeps], rows())


def compiled_libraries() -> list[str]:
    """How much longer a library's own kernel takes compiled than uncompiled, in all pairs."""

    def rows() -> Iterator[list[str]]:
        for name, (mode, found) in _compiled_sweeps().items():
            both = [two for impl in LIBRARIES for two in _eager_and(found, impl, mode)]
            times = [pair(*two) for two in both]
            percent = sorted((its / eager - 1) * 100 for eager, its in times)
            us = sorted((its - eager) * 1e3 for eager, its in times)
            said = (f"{percent[0]:.1f} to {percent[-1]:.1f}", f"{us[0]:.1f} to {us[-1]:.1f}")
            yield [name, str(len({eager["impl"] for eager, _ in both})), str(len(both)), *said]

    return table(["compiled, libraries' kernels", "of how many", "pairs", "% longer", "us longer"], rows())


def fastest() -> list[str]:
    """Whom nothing beats in each case, JAX's last, the first's time and tokens per second, and FlashAttention 2's."""
    scenarios = {name: as_run(read("everything", name)) for name in ("prefill", "decode")}

    def rows() -> Iterator[list[str]]:
        for name, found in scenarios.items():
            shapes = sorted({(row["batch_size"], row["kv_len"]) for row in found["fa2"].values()})
            for batch, length in shapes:
                one = {impl: _case(its, batch, length) for impl, its in found.items()}
                its_rows = {impl: row for impl, row in one.items() if row}
                first = sorted(
                    _fastest(its_rows),
                    key=lambda impl: (its_rows[impl]["timer"] == "kernel", its_rows[impl]["latency_ms"]),
                )
                best, fa2 = its_rows[first[0]], its_rows["fa2"]
                said = [f"{row['latency_ms']:.4g}" for row in (best, fa2)]
                rate = [f"{row['tokens_per_s']:,.0f}".replace(",", " ") for row in (best, fa2)]
                yield [
                    f"{name} {batch} x {length}",
                    ", ".join(f"`{i}`" for i in first),
                    said[0],
                    rate[0],
                    said[1],
                    rate[1],
                ]

    return table(["case", "fastest, then its ties", "ms", "tokens/s", "`fa2`, ms", "tokens/s"], rows())


def winners() -> list[str]:
    """Each one's time over FlashAttention 2's, and in how many cases it is the faster."""
    columns = [as_run(read("everything", *which)) for which in (("prefill",), ("prefill", "bwd"), ("decode",))]
    impls = sorted({impl for found in columns for impl in found} - {"fa2"}, key=lambda impl: _order(impl, columns))

    def rows() -> Iterator[list[str]]:
        for impl in impls:
            yield [f"`{impl}`", *(_against(found.get(impl), found["fa2"]) for found in columns)]

    return table(["time / `fa2`'s", "prefill", "prefill, backward", "decode"], rows())


def backward() -> list[str]:
    """Backward passes of prefill, compiled where that changes them: each time over FlashAttention 2's and cuDNN's."""
    found = read("everything", "prefill", "bwd")
    shown = {f"`{impl}`": its for impl, its in as_run(found).items()}
    shown |= {f"`{impl}` compiled": found[impl, "default"] for impl in ("triton_flash", "naive", "sdpa_math")}
    against = [found["fa2", "eager"], found["sdpa_cudnn", "eager"]]

    def rows() -> Iterator[list[str]]:
        for name, its in sorted(shown.items(), key=lambda one: geometric_mean(ratios(one[1], against[0]))):
            yield [name, *("1" if its is other else _against(its, other) for other in against), _rates(its)]

    return table(["", "time / `fa2`'s", "time / `sdpa_cudnn`'s", "TFLOP/s"], rows())


def winners_compiled() -> list[str]:
    """The same of the formulas, which compiling changes."""
    columns = [read("everything", name) for name in ("prefill", "decode")]

    def rows() -> Iterator[list[str]]:
        for impl in ("naive", "sdpa_math"):
            against = [_against(found[impl, "default"], found["fa2", "eager"]) for found in columns]
            yield [f"`{impl}` compiled", *against]

    return table(["time / `fa2`'s", "prefill", "decode"], rows())


def decode() -> list[str]:
    """us of a token and the kernels of a call, of what is made for decoding beside what is not."""
    found, seen_later = as_run(read("everything", "decode")), as_run(read("fa4_flashinfer", "decode"))
    shapes = [(batch, length) for batch in (1, 4, 8) for length in (2048, 4096)]
    impls = ["sdpa_cudnn", "triton_flash_decode", "flashinfer_decode", "flashinfer_decode_tc", "flashinfer_prefill_fa2"]
    impls += ["xformers_triton_splitk", "fa2_decode", "fa2", "fa4", "flashinfer_prefill_fa3", "triton_flash", "naive"]

    def rows() -> Iterator[list[str]]:
        for impl in impls:
            its = [row for row in (_case(found[impl], *shape) for shape in shapes) if row]
            kernels = [row["kernel_count"] or seen_later[impl][row["case"]]["kernel_count"] for row in its]
            us = [f"{row['latency_ms'] * 1e3:.1f}" for row in its]
            yield [f"`{impl}`", *(f"{one} ({n:.0f})" for one, n in zip(us, kernels, strict=True))]

    return table(["us (kernels)", *(f"{batch} x {length}" for batch, length in shapes)], rows())


def memory() -> list[str]:
    """Peak memory of a call and the part of it that is workspace, MiB, batch 1."""
    found = read("everything", "prefill")

    def rows() -> Iterator[list[str]]:
        for impl in ("naive", "fa2", "sdpa_cudnn", "fa4"):
            its = sorted(found[impl, "eager"].values(), key=lambda row: row["kv_len"])
            yield [f"`{impl}`", *(_mib(row) for row in its if row["batch_size"] == 1)]

    return table(["peak (workspace), MiB", "2048", "4096", "8192"], rows())


def grid() -> list[str]:
    """JAX's sample of mha_grid: times over XLA's and cuDNN's where both have the case, least and highest rate."""

    def rows() -> Iterator[list[str]]:
        for direction, bias in _QUADRANTS:
            group = direction if bias == "none" else f"{direction}, bias"
            found = as_run(_grid_cases("mha_grid_jax", direction, bias))
            for impl, its in sorted(found.items()):
                against = ["1" if impl == other else _against(its, found[other]) for other in ("jax_xla", "jax_cudnn")]
                yield [f"`{impl}`, {group}", str(len(its)), *against, _rates(its)]

    return table(["", "cases", "time / `jax_xla`'s", "time / `jax_cudnn`'s", "TFLOP/s"], rows())


def grid_torch() -> list[str]:
    """mha_grid's sample: times over the formulas' and cuDNN's where both have the case, least and highest rate."""

    def rows() -> Iterator[list[str]]:
        for direction, bias in _QUADRANTS:
            group = direction if bias == "none" else f"{direction}, bias"
            found = _grid_cases("mha_grid", direction, bias)
            uncompiled = as_run(found)
            against = [uncompiled.get(impl, {}) for impl in ("naive", "sdpa_math", "sdpa_cudnn")]
            shown = {f"`{impl}`": uncompiled[impl] for impl in (*FUSED, *FORMULAS) if impl in uncompiled}
            shown |= {f"`{i}` compiled": found[i, "default"] for i in FORMULAS if (i, "default") in found}
            for name, its in shown.items():
                over = ["1" if its is other else _against(its, other) for other in against]
                yield [f"{name}, {group}{_substituted([*its.values()])}", str(len(its)), *over, _rates(its)]

    return table(["", "cases", *(f"time / `{i}`'s" for i in ("naive", "sdpa_math", "sdpa_cudnn")), "TFLOP/s"], rows())


def formula() -> list[str]:
    """Each case of mha_grid's sample that the plain formula has: its ms, the fastest fused, and who is no faster."""

    def rows() -> Iterator[list[str]]:
        for which in _QUADRANTS:
            found = _grid_cases("mha_grid", *which)
            uncompiled = as_run(found)
            cases = sorted(uncompiled.get("naive", {}).items(), key=lambda one: one[1]["latency_ms"])
            for case, naive in cases:
                fused = {impl: uncompiled[impl][case] for impl in FUSED if case in uncompiled.get(impl, {})}
                first = sorted(_fastest(fused), key=lambda impl: fused[impl]["latency_ms"])
                slow = [f"`{impl}`" for impl, row in fused.items() if not faster(row, naive)] or ["-"]
                both = found["naive", "default"][case], uncompiled.get("sdpa_math", {}).get(case)
                times = [f"{row['latency_ms']:.3g}{_substituted([row])}" if row else "-" for row in (naive, *both)]
                best = [f"{fused[first[0]]['latency_ms']:.3g}", ", ".join(f"`{impl}`" for impl in first)]
                yield [f"`{case}`", *times, *best, f"all {len(fused)}" if len(slow) == len(fused) else ", ".join(slow)]

    head = [
        "ms",
        "`naive`",
        "`naive` compiled",
        "`sdpa_math`",
        "fastest fused",
        "which",
        "fused, no faster than `naive`",
    ]
    return table(head, rows())


def blocks() -> list[str]:
    """FlexAttention's ms by its blocks, queries x keys: `no room` where they do not fit, nothing where not run."""
    path = RESULTS / "mha_grid_blocks" / "results.parquet"
    by_case: dict[tuple[int, int, str], dict[tuple[int, int], dict[str, Any]]] = {}
    for row in pq.read_table(path, columns=[*_COLUMNS, "variant", "head_dim", "reason"]).to_pylist():
        queries, keys = (int(size) for size in re.findall(r"BLOCK_[MN]=(\d+)", row["variant"]))
        by_case.setdefault((row["head_dim"], row["kv_len"], row["case"]), {})[queries, keys] = row
    sizes = sorted({size for its in by_case.values() for size in its})

    def cell(row: dict[str, Any] | None, first: bool) -> str:
        if row is None:
            return ""
        if row["status"] == "ok":
            return _bold(f"{row['latency_ms']:.3g}", first)
        return "no room" if "shared memory" in row["reason"] else str(row["status"])

    def rows() -> Iterator[list[str]]:
        for (_, _, case), its in sorted(by_case.items()):
            first = _fastest({size: row for size, row in its.items() if row["status"] == "ok"})
            yield [f"`{case}`", *(cell(its.get(size), size in first) for size in sizes)]

    return table(["`flex`, ms", *(f"{queries} x {keys}" for queries, keys in sizes)], rows())


def halves() -> list[str]:
    """Pallas' Mosaic-GPU kernel, which takes fp16 alone, beside cuDNN, both through JAX: its time over cuDNN's."""

    def rows() -> Iterator[list[str]]:
        for scenario in ("flux", "prefill"):
            found = as_run(read("fp16", scenario))
            its, other = found["jax_mosaic_gpu"], found["jax_cudnn"]
            yield [scenario, f"{len(its)} of {len(other)}", _against(its, other), _rates(its), _rates(other)]

    return table(["fp16", "cases", "time / `jax_cudnn`'s", "TFLOP/s", "`jax_cudnn`'s TFLOP/s"], rows())


def seen() -> list[str]:
    """fa4 and FlashInfer where their kernels were seen: how many, and times over `everything`'s, fa2's and cuDNN's."""

    def rows() -> Iterator[list[str]]:
        for scenario, direction in (
            ("flux", "fwd"),
            ("flux", "bwd"),
            ("prefill", "fwd"),
            ("prefill", "bwd"),
            ("decode", "fwd"),
        ):
            found, before = (as_run(read(sweep, scenario, direction)) for sweep in ("fa4_flashinfer", "everything"))
            for impl in sorted(set(found) - {"fa2", "fa2_decode", "sdpa_cudnn"}):
                its, its_before = found[impl], before[impl]
                kernels = " or ".join(str(n) for n in sorted({int(row["kernel_count"]) for row in its.values()}))
                # Two hosts, so no wins are counted
                times = spread([its[case]["latency_ms"] / its_before[case]["latency_ms"] for case in its])
                group = scenario if direction == "fwd" else f"{scenario}, backward"
                against = [_against(its, found[other]) for other in ("fa2", "sdpa_cudnn")]
                yield [f"`{impl}`, {group}", str(len(its)), kernels, times, *against]

    head = ["", "cases", "kernels", "time / `everything`'s", "time / `fa2`'s", "time / `sdpa_cudnn`'s"]
    return table(head, rows())


def again() -> list[str]:
    """How far the times of llm's cells are from those that GPUs of another host took hours before, in per cent."""

    def rows() -> Iterator[list[str]]:
        for name, which in {
            "prefill": ("prefill", "fwd"),
            "prefill, backward": ("prefill", "bwd"),
            "decode": ("decode", "fwd"),
        }.items():
            later, earlier = read("everything", *which), read("protocol", *which, file="replaced")
            pairs = [(its[case], earlier.get(label, {}).get(case)) for label, its in later.items() for case in its]
            off = sorted((one["latency_ms"] / other["latency_ms"] - 1) * 100 for one, other in pairs if other)
            within = [f"{sum(abs(one) <= most for one in off) / len(off):.0%}" for most in (1, 2, 5)]
            yield [name, str(len(off)), f"{round(median(off), 1) + 0.0:.1f}", *within, f"{off[0]:.1f} to {off[-1]:.1f}"]

    return table(["", "cells", "median, %", "within 1 %", "within 2 %", "within 5 %", "all, %"], rows())


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


def growth() -> list[str]:
    """How many times the time and the workspace of a length are those of half of it."""
    found = read("fusion", "prefill")
    impls = ("naive", "triton_fused_softmax", "triton_flash")
    columns = [(column, impl) for column in ("latency_ms", "workspace_bytes") for impl in impls]
    held = [{row["kv_len"]: row[column] for row in found[impl, "eager"].values()} for column, impl in columns]

    def rows() -> Iterator[list[str]]:
        lengths = sorted(held[0])
        for half, length in zip(lengths, lengths[1:], strict=False):
            yield [f"{half} to {length}", *(f"{its[length] / its[half]:.2f}" for its in held)]

    names = {"latency_ms": "time", "workspace_bytes": "workspace"}
    return table(["tokens", *(f"`{impl}`, {names[column]}" for column, impl in columns)], rows())


def _case(its: Cases, batch: int, length: int) -> dict[str, Any] | None:
    return next((row for row in its.values() if (row["batch_size"], row["kv_len"]) == (batch, length)), None)


def _fastest(rows: dict[Name, dict[str, Any]]) -> list[Name]:
    """Whom none of the others beats."""
    return [name for name, row in rows.items() if not any(faster(other, row) for other in rows.values())]


def _against(its: Cases | None, other: Cases) -> str:
    common = [case for case in its or {} if case in other]
    if not its or not common:
        return "-"
    wins = sum(faster(its[case], other[case]) for case in common)
    over = f" of {len(common)}" if len(common) < len(other) else ""
    return f"{spread(ratios(its, other))}, faster in {wins}{over}"


def _order(impl: str, columns: list[dict[str, Cases]]) -> tuple[int, float]:
    """By the first column that has it."""
    at = next(i for i, found in enumerate(columns) if impl in found)
    return at, geometric_mean(ratios(columns[at][impl], columns[at]["fa2"]))


def _compiled_sweeps() -> dict[str, tuple[str, dict[Label, Cases]]]:
    """A compile mode and the records that have it beside eager, by the name of their column."""
    flux = read("everything", "flux")
    return {
        "flux": ("default", flux),
        "flux, max_autotune": ("max_autotune", flux),
        "prefill": ("default", read("everything", "prefill")),
        "prefill, backward": ("default", read("everything", "prefill", "bwd")),
        "decode": ("default", read("everything", "decode")),
        "mha_grid": ("default", read("mha_grid", "prefill")),
        "mha_grid, backward": ("default", read("mha_grid", "prefill", "bwd")),
    }


def _eager_and(found: dict[Label, Cases], impl: str, mode: str) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """The records of an implementation uncompiled and in a mode, in each case that both have."""
    eager, its = found.get((impl, "eager"), {}), found.get((impl, mode), {})
    return [(eager[case], its[case]) for case in eager if case in its]


def _grid_cases(sweep: str, direction: str, bias: str) -> dict[Label, Cases]:
    """The cases of a sample of mha_grid with a bias, or those without."""
    found = {
        label: {case: row for case, row in its.items() if row["bias"] == bias}
        for label, its in read(sweep, "prefill", direction).items()
    }
    return {label: its for label, its in found.items() if its}


def _rates(its: Cases) -> str:
    """The least and the highest TFLOP/s."""
    rate = sorted({round(row["tflops"]) for row in its.values()})
    return " to ".join(map(str, rate[:: max(len(rate) - 1, 1)]))


def _substituted(rows: list[dict[str, Any]]) -> str:
    """Of how many the framework took another's kernel."""
    n = sum("substituted" in row["flags"] for row in rows)
    return "" if n == 0 else " substituted" if n == len(rows) else f" substituted in {n} of {len(rows)}"


def _bold(text: str, bold: bool) -> str:
    return f"**{text}**" if bold else text


def _mib(row: dict[str, Any]) -> str:
    return f"{row['peak_memory_bytes'] / 2**20:.0f} ({row['workspace_bytes'] / 2**20:.0f})"


TABLES = (
    *(overview, flux, compiled, compiled_libraries, fastest, winners, winners_compiled, decode, memory),
    *(grid, grid_torch, formula, fusion, growth, backward, blocks, halves, again, seen),
)


def main() -> int:
    for made in TABLES:
        print("\n".join(["", *made()]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
