"""The studies of conf/study: the cases that they are for, and each one in small on a CPU."""

from __future__ import annotations

import json
import re
import runpy
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from attnsweep import cli, impls, planning, scenarios
from attnsweep.case import Case
from attnsweep.compose import Combination
from composing import study
from processes import TESTS
from sweeps import GPU


def combinations(name: str) -> list[Combination]:
    return study(name)[1]


def cases(made: list[Combination]) -> set[Case]:
    """All cases of the combinations, each once."""
    grids = {json.dumps(one.scenario): one.scenario for one in made}
    return {problem.case for grid in grids.values() for problem in scenarios.expand(grid, "full")}


def names(made: list[Combination]) -> set[str]:
    return {str(one.impl["name"]) for one in made}


def modes(made: list[Combination]) -> set[str]:
    return {str(one.compile["name"]) for one in made}


def test_flux_is_six_lengths_of_everything_that_is_not_for_decoding() -> None:
    """Whatever of conf/impl an H200 can run on a Flux case in some compile mode is in it, in all four modes."""
    made, everything = combinations("flux"), combinations("llm")
    flux = cases(made)
    assert sorted(case.q_len - 4096 for case in flux) == [128, 256, 320, 384, 448, 512]
    assert {(case.batch_size, case.num_heads, case.head_dim, case.dtype, case.causal) for case in flux} == {
        (1, 24, 128, "bf16", False)
    }
    assert modes(made) == {"eager", "default", "max_autotune", "jit"}
    assert len(made) == 4 * len(names(made))
    able = {
        str(one.impl["name"])
        for one in everything
        if any(impls.why_unsupported(one.impl, case, GPU, one.compile) is None for case in flux)
    }
    assert able <= names(made)
    assert not any("decode" in name for name in names(made))


def test_llm_is_a_prompt_and_a_token_of_every_batch_size() -> None:
    """Prefill of 2048 to 8192 tokens in batches of 1 and 4, one token over 2048 and 4096 in batches of 1, 4 and 8."""
    made = combinations("llm")
    found = cases(made)
    assert {(case.batch_size, case.kv_len) for case in found if case.q_len == case.kv_len} == {
        (batch, length) for batch in (1, 4) for length in (2048, 4096, 8192)
    }
    assert {(case.batch_size, case.kv_len) for case in found if case.q_len == 1} == {
        (batch, length) for batch in (1, 4, 8) for length in (2048, 4096)
    }
    assert len(found) == 12
    assert {(case.num_heads, case.head_dim) for case in found} == {(32, 128)}
    assert modes(made) == {"eager", "default", "jit"}


def test_mha_grid_is_540_cases_of_which_its_blocks_vary_the_forward_ones() -> None:
    """3 batches, 5 lengths, 3 counts of heads, 3 head dims, bias or not, both directions; nine pairs of blocks."""
    grid, blocks = combinations("mha_grid"), combinations("mha_grid_blocks")
    assert len(cases(grid)) == 3 * 5 * 3 * 3 * 2 * 2
    assert {(case.dtype, case.causal) for case in cases(grid)} == {("fp16", False)}
    assert cases(blocks) == {case for case in cases(grid) if case.direction == "fwd" and case.bias == "none"}
    sizes = [(one.impl["kernel_options"]["BLOCK_M"], one.impl["kernel_options"]["BLOCK_N"]) for one in blocks]
    assert sorted(sizes) == [(q, k) for q in (32, 64, 128) for k in (32, 64, 128)]
    assert len({one.variant for one in blocks}) == 9


def test_mha_grid_is_in_jax_too() -> None:
    """The same cases under jax.jit, and the forward ones with nine pairs of blocks in both forms of jax-flash-attn2."""
    grid, blocks = combinations("mha_grid_jax"), combinations("mha_grid_jax_blocks")
    assert cases(grid) == cases(combinations("mha_grid"))
    assert cases(blocks) == {case for case in cases(grid) if case.direction == "fwd"}
    assert modes(grid) == modes(blocks) == {"jit"}
    assert {impls.framework(one.impl) for one in [*grid, *blocks]} == {"jax"}
    assert {one.impl["env"]["variables"]["FLASH_ATTN_BLOCK_PTR"] for one in blocks} == {"0", "1"}
    assert len({(one.impl["name"], one.variant) for one in blocks}) == 2 * 9


def test_fusion_is_three_implementations_that_all_run_on_a_gpu() -> None:
    """128 to 32768 tokens by doubling; none of the three refuses a case."""
    made = combinations("fusion")
    found = cases(made)
    assert sorted(case.q_len for case in found) == [128 * 2**power for power in range(9)]
    assert {(case.batch_size, case.num_heads, case.head_dim, case.dtype, case.causal) for case in found} == {
        (1, 32, 128, "fp16", False)
    }
    assert [str(one.impl["name"]) for one in made] == ["naive", "triton_fused_softmax", "triton_flash"]
    assert all(impls.why_unsupported(one.impl, case, GPU, one.compile) is None for one in made for case in found)


STUDIES = ["flux", "llm", "mha_grid", "mha_grid_blocks", "mha_grid_jax", "mha_grid_jax_blocks", "fusion"]


@pytest.mark.parametrize("name", STUDIES)
def test_the_table_of_the_document_is_what_a_dry_run_plans(name: str, tmp_path: Path) -> None:
    """Cases, cells that an H200 would run, and how many of them there are with one process each."""
    text = (TESTS.parent / "docs" / "studies.md").read_text()
    stated = re.search(rf"^\| `{name}` \|[^|]*\| (\d+) \| (\d+)(?: \(`timing=quick`: (\d+)\))? \|", text, re.MULTILINE)
    assert stated is not None
    settings, made = study(name)
    planned = planning.make(replace(settings, dry_run=True, output_dir=str(tmp_path)), made, [GPU])
    once = [cell for cell in planned.to_run if cell.columns["replicate"] == 0]
    assert int(stated[1]) == len({cell.group for cell in planned.cells})
    assert int(stated[2]) == len(planned.to_run)
    assert stated[3] is None or int(stated[3]) == len(once)


def test_what_the_documents_say_was_checked_is_what_the_records_say() -> None:
    """Every table that benchmarks/claims.py makes of the committed records stands in the document that quotes it."""
    root = TESTS.parent
    made = subprocess.run([sys.executable, root / "benchmarks/claims.py"], capture_output=True, text=True, check=True)
    tables = made.stdout.strip().split("\n\n")
    quoted = dict.fromkeys(range(len(tables)), "docs/studies.md")
    quoted |= {0: "README.md", 9: "docs/results/mha_grid_jax/README.md", 10: "docs/results/mha_grid/README.md"}
    quoted |= {14: "docs/results/everything/README.md", 15: "docs/results/mha_grid_blocks/README.md"}
    quoted |= {16: "docs/results/fp16/README.md", 17: "docs/measurement.md"}
    quoted |= {18: "docs/results/fa4_flashinfer/README.md"}
    assert len(tables) == 19
    missing = [n for n, one in enumerate(tables) if f"\n\n{one}\n\n" not in (root / quoted[n]).read_text()]
    assert not missing


def test_no_table_of_the_checked_is_by_hand() -> None:
    """Below the overview every table of docs/studies.md is one that benchmarks/claims.py prints."""
    root = TESTS.parent
    made = subprocess.run([sys.executable, root / "benchmarks/claims.py"], capture_output=True, text=True, check=True)
    text = (root / "docs" / "studies.md").read_text().split("\n## ", 1)[1]
    assert set(re.findall(r"^\|.*", text, re.MULTILINE)) <= set(made.stdout.splitlines())


def test_two_levels_of_a_graph_are_no_win() -> None:
    """In claims.py a win is one of reports: above 2 %, above 0.45 us a kernel where a graph was timed, and by the
    kernels' times above 1.75 us for each of the faster call's and 0.75 us for each of the slower's.
    """
    faster = runpy.run_path(str(TESTS.parent / "benchmarks/claims.py"))["faster"]

    def call(us: float, kernels: int, timer: str = "graph") -> dict[str, object]:
        ms = us / 1e3
        known = {"status": "ok", "impl": "fa2", "compile": "eager", "latency_ci_low_ms": ms, "latency_ci_high_ms": ms}
        unknown = dict.fromkeys(("flags", "impl_version", "precision_class", "autotuned_configs"))
        return {**known, **unknown, "timer": timer, "latency_ms": ms, "kernel_ms": ms, "kernel_count": kernels}

    assert not faster(call(16.4, 2), call(17.1, 2))
    assert not faster(call(16.4, 1), call(17.1, 2))
    assert faster(call(16.1, 2), call(17.1, 2))
    assert faster(call(16.4, 1), call(17.1, 1))
    assert faster(call(16.4, 2, "events"), call(17.1, 2, "events"))
    assert not faster(call(98.1, 1), call(100.0, 1))
    assert faster(call(14.0, 2), call(19.1, 2, "kernel"))
    assert not faster(call(14.0, 2), call(18.9, 2, "kernel"))


def test_times_of_two_gpus_are_not_compared() -> None:
    """In claims.py two records are a pair only where one GPU measured both."""
    pair = runpy.run_path(str(TESTS.parent / "benchmarks/claims.py"))["pair"]
    rows = pq.read_table(TESTS.parent / "docs/results/everything/results.parquet").to_pylist()
    one, same, other = (
        next(row for row in rows if row["status"] == "ok" and (row["impl"], row["kv_len"]) == (impl, length))
        for impl, length in (("naive", 4224), ("fa2", 4224), ("naive", 4352))
    )
    assert pair(one, same) == (one["latency_ms"], same["latency_ms"])
    with pytest.raises(AssertionError):
        pair(one, other)


#: Of the studies that take all of conf/impl, what every test machine has: no environment is to be built here.
HERE = "impl=[naive,sdpa,sdpa_math,sdpa_flash,flex,ceiling_matmul,ceiling_copy]"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "sample", "fewer"),
    [
        ("flux", 16, [HERE]),
        ("llm", 11, [HERE]),
        ("mha_grid", 9, []),
        ("mha_grid_blocks", 4, []),
        ("mha_grid_jax", 1, ["scenario.dtype=bf16"]),  # XLA's fp16 products are for GPUs
        ("fusion", 4, []),
    ],
)
def test_every_study_runs_in_small_on_a_cpu(
    name: str, sample: int, fewer: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At most one cell of each implementation, variant and compile mode that a CPU has, and nothing wrong with any."""
    monkeypatch.chdir(tmp_path)
    argv = [f"study={name}", "scale=tiny", "timing=quick", "timing.time_cap_s=0.2", "device=cpu", f"sample={sample}"]
    assert cli.main([*argv, *fewer]) == 0
    rows = [pq.read_table(path).to_pylist()[0] for path in (tmp_path / "outputs" / name / "cells").glob("*.parquet")]
    assert {row["study"] for row in rows} == {name}
    assert Counter(row["status"] for row in rows) == {"ok": sample}
    assert ["options_unread" in row["flags"] for row in rows] == [name == "mha_grid_blocks"] * sample
    kinds = Counter((row["impl"], row["variant"], row["compile"]) for row in rows)
    assert max(kinds.values()) == (4 if name == "fusion" else 1)
