"""On a GPU: the implementations are what they say they are, and their times are the GPU's."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from cells import resolved

pytestmark = pytest.mark.gpu
CONF = Path(__file__).parents[2] / "conf/impl"
CASE = {"batch_size": 1, "q_len": 2048, "kv_len": 2048, "num_heads": 16, "num_kv_heads": 16, "head_dim": 128}


def run(name, tmp_path, compile_mode="eager", environment=None, **fields):
    """The outcome of one cell by hand, in a process of its own."""
    impl = OmegaConf.to_container(OmegaConf.load(CONF / f"{name}.yaml"))
    case = {**CASE, "head_dim_v": 128, "dtype": "bf16", **fields}
    sampling = {"target": 0.01, "min_time_s": 0.1, "time_cap_s": 2.0, "max_samples": 1000}
    cell = resolved(impl, case, compile_mode, "cuda", **sampling)
    path = tmp_path / f"{name}.json"
    path.write_text(json.dumps(cell))
    done = subprocess.run(
        [sys.executable, "-m", "attnsweep.worker", str(path)],
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
        env={**os.environ, **(environment or {})},
    )
    return json.loads(done.stdout)


@pytest.mark.parametrize("direction", ["fwd", "fwd_bwd"])
@pytest.mark.parametrize("name", ["sdpa_flash", "sdpa_cudnn", "sdpa_efficient"])
def test_a_pinned_backend_runs_its_own_kernel(name, direction, tmp_path):
    """Names seen by CUPTI match what the YAML declares; nothing is flagged."""
    outcome = run(name, tmp_path, direction=direction, causal=True)
    assert outcome["status"] == "ok", outcome["reason"]
    assert outcome["columns"]["kernel_names"]
    assert outcome["columns"]["flags"] == []


def test_a_formula_that_the_compiler_replaced_is_flagged(tmp_path):
    """Eager, naive runs its own steps; compiled, Inductor puts a fused kernel in their place, and the row says so."""
    assert "substituted" not in run("naive", tmp_path, q_len=1)["columns"]["flags"]
    assert "substituted" in run("naive", tmp_path, "default", q_len=1)["columns"]["flags"]


def test_compiled_backends_do_not_share_a_disk_cache(tmp_path):
    """sdpa_flash compiled after sdpa_math, in one cache, still runs flash."""
    cache = {"TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "cache")}
    math = run("sdpa_math", tmp_path, "default", cache)
    flash = run("sdpa_flash", tmp_path, "default", cache)
    again = run("sdpa_flash", tmp_path, "default", cache)
    assert math["status"] == flash["status"] == "ok"
    assert "fallback" not in flash["columns"]["flags"]
    assert flash["columns"]["latency_ms"] < math["columns"]["latency_ms"] / 2
    assert again["columns"]["compile_cache"] == "hit"


@pytest.mark.parametrize("name", ["sdpa_flash", "sdpa_cudnn", "sdpa_math"])
def test_latency_agrees_with_do_bench(name, tmp_path):
    """Within what burst (ours) and a hundred milliseconds of load (triton's) differ by: 12 %."""
    ours = run(name, tmp_path, causal=True)["columns"]["latency_ms"]
    script = f"""
import torch, triton
from torch.nn.attention import SDPBackend, sdpa_kernel
backend = {{"sdpa_flash": SDPBackend.FLASH_ATTENTION, "sdpa_cudnn": SDPBackend.CUDNN_ATTENTION,
           "sdpa_math": SDPBackend.MATH}}["{name}"]
q, k, v = (torch.randn(1, 16, 2048, 128, device="cuda", dtype=torch.bfloat16) for _ in range(3))
attend = torch.nn.functional.scaled_dot_product_attention
with sdpa_kernel(backend):
    print(triton.testing.do_bench(lambda: attend(q, k, v, is_causal=True), return_mode="median"))
"""
    theirs = float(subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout)
    assert ours == pytest.approx(theirs, rel=0.12)


def test_memory_of_a_fused_kernel_is_not_the_scores(tmp_path):
    """Flash needs less than a tenth of what the scores alone take; naive needs at least those."""
    scores = 16 * 2048 * 2048 * 2
    assert run("sdpa_flash", tmp_path)["columns"]["workspace_bytes"] < scores / 10
    assert run("naive", tmp_path)["columns"]["workspace_bytes"] >= scores
