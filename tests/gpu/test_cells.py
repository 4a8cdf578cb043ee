"""On a GPU: the implementations are what they say they are, and their times are the GPU's."""

import subprocess
import sys

import pytest
from cell_runs import run

pytestmark = pytest.mark.gpu


@pytest.mark.parametrize("direction", ["fwd", "fwd_bwd"])
@pytest.mark.parametrize("name", ["sdpa_flash", "sdpa_cudnn", "sdpa_efficient"])
def test_a_pinned_backend_runs_its_own_kernel(name, direction):
    """Names seen by CUPTI match what the YAML declares; at most a copy beside its own kernels is flagged."""
    outcome = run(name, direction=direction, causal=True)
    assert outcome["status"] == "ok", outcome["reason"]
    assert outcome["columns"]["kernel_names"]
    assert set(outcome["columns"]["flags"]) <= ({"impure"} if direction == "fwd_bwd" else set())


def test_a_formula_that_the_compiler_replaced_is_flagged():
    """Eager, naive runs its own steps; compiled, Inductor puts a fused kernel in their place, and the row says so."""
    assert "substituted" not in run("naive", q_len=1)["columns"]["flags"]
    assert "substituted" in run("naive", "default", q_len=1)["columns"]["flags"]


def test_compiled_backends_do_not_share_a_disk_cache(tmp_path):
    """sdpa_flash compiled after sdpa_math, in one cache, still runs flash."""
    cache = {"TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "cache")}
    math = run("sdpa_math", "default", cache)
    flash = run("sdpa_flash", "default", cache)
    again = run("sdpa_flash", "default", cache)
    assert math["status"] == flash["status"] == "ok"
    assert "fallback" not in flash["columns"]["flags"]
    assert flash["columns"]["latency_ms"] < math["columns"]["latency_ms"] / 2
    assert again["columns"]["compile_cache"] == "hit"


@pytest.mark.parametrize("name", ["sdpa_flash", "sdpa_cudnn", "sdpa_math"])
def test_latency_agrees_with_do_bench(name):
    """Within what burst (ours) and a hundred milliseconds of load (triton's) differ by: 12 %."""
    ours = run(name, causal=True)["columns"]["latency_ms"]
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


def test_memory_of_a_fused_kernel_is_not_the_scores():
    """Flash needs less than a tenth of what the scores alone take; naive needs at least those."""
    scores = 16 * 2048 * 2048 * 2
    assert run("sdpa_flash")["columns"]["workspace_bytes"] < scores / 10
    assert run("naive")["columns"]["workspace_bytes"] >= scores


@pytest.mark.parametrize("direction", ["fwd", "fwd_bwd"])
def test_a_cuda_graph_mode_replays_and_pays_for_its_copies(direction):
    """torch.compile's CUDA graphs copy q, k, v into memory of their own at every call, and the row says so."""
    outcome = run("sdpa_flash", "reduce-overhead", direction=direction)
    assert outcome["status"] == "ok", outcome["reason"]
    assert "impure" in outcome["columns"]["flags"]
    assert "fallback" not in outcome["columns"]["flags"]


def test_a_backward_pass_alone_is_not_timed_in_a_cuda_graph_mode():
    """Torch would run it without a graph, under the name of one: the plan leaves it out, and a cell refuses it."""
    outcome = run("sdpa_flash", "reduce-overhead", direction="bwd")
    assert outcome["status"] == "compile_error"
    assert "CUDA graph" in outcome["reason"]


def test_autotuning_is_a_part_of_compiling(tmp_path):
    """Inductor times Triton configurations of the decomposed formula; a second process finds them on disk."""
    cache = {"TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "cache")}
    columns = run("sdpa_math", "max-autotune-no-cudagraphs", cache)["columns"]
    assert 0 < columns["autotune_s"] < columns["compile_s"]
    assert any(one.startswith("triton_") for one in columns["autotuned_configs"])
    again = run("sdpa_math", "max-autotune-no-cudagraphs", cache)["columns"]
    assert again["autotune_s"] < columns["autotune_s"]


@pytest.mark.parametrize(
    ("name", "dtype", "direction"),
    [
        *(
            (name, dtype, "fwd_bwd")
            for name in ("sdpa_flash", "sdpa_cudnn", "fa2", "flex")
            for dtype in ("bf16", "fp16")
        ),
        *((name, "bf16", "bwd") for name in ("sdpa_flash", "sdpa_cudnn", "fa2", "flex")),
        *((name, "fp32", "fwd_bwd") for name in ("sdpa_efficient", "sdpa_math")),
    ],
)
def test_gradients_of_real_kernels_pass_both_checks(name, dtype, direction):
    """On ordinary and on peaky inputs, causal and with grouped heads where the kernel takes them."""
    if name == "fa2":
        pytest.importorskip("flash_attn")
    heads = 16 if name == "sdpa_efficient" else 4
    mode = "default" if name == "flex" else "eager"
    outcome = run(name, mode, dtype=dtype, direction=direction, causal=True, num_kv_heads=heads)
    assert outcome["status"] == "ok", outcome["reason"]
    assert outcome["columns"]["grad_err_ratio"] > 0
