"""On a GPU: JAX's rows are the GPU's times, by CUPTI alone, and stand where torch's stand for the same kernels."""

import pytest
from cell_runs import CASE, run

from attnsweep import metrics
from attnsweep.case import Case

pytestmark = pytest.mark.gpu

LOAD = {"sustained": True, "soak_s": 1.0, "window_s": 1.0, "steady": 0.01, "load_cap_s": 5.0}


def columns(impl, mode="jit", **fields):
    """The columns of a cell that must be ok; skipped where its library is not here."""
    outcome = run(impl, mode, **fields)
    if outcome["status"] == "missing":
        pytest.skip(outcome["reason"])
    assert outcome["status"] == "ok", (outcome["reason"], outcome["traceback"])
    return outcome["columns"]


@pytest.mark.timeout(300)
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("name", ["jax_xla", "jax_cudnn", "jax_mosaic_gpu"])
def test_a_row_of_jax_is_timed_by_its_kernels(name, causal):
    """No event is made up, no kernel is faster than the GPU, a load is near the burst, and XLA's plan is its memory."""
    row = columns(name, dtype="fp16", causal=causal, timing=LOAD)
    case = Case(**{**CASE, "head_dim_v": 128, "dtype": "fp16", "causal": causal})
    assert row["timer"] == "kernel"
    assert (row["events_ms"], row["graph_ms"]) == (None, None)
    assert row["latency_ms"] == row["kernel_ms"] < row["host_ms"]
    assert metrics.flops(case) / (row["kernel_ms"] * 1e-3) < 1.1e15
    assert row["kernel_names"]
    if "launch_bound" not in row["flags"]:
        assert 0.8 * row["kernel_ms"] < row["sustained_ms"] < 1.5 * row["kernel_ms"]
    assert row["peak_memory_bytes"] >= 4 * case.q_len * case.num_heads * case.head_dim * 2
    assert row["sm_count"] > 0


@pytest.mark.timeout(300)
@pytest.mark.parametrize("direction", ["fwd", "bwd", "fwd_bwd"])
def test_cudnn_is_cudnn_in_both_frameworks(direction):
    """Flux's shape in bf16: the kernel's time agrees within a fifth, since the versions of cuDNN may differ."""
    fields = {"q_len": 4608, "kv_len": 4608, "num_heads": 24, "num_kv_heads": 24, "direction": direction}
    jax, torch = columns("jax_cudnn", **fields), columns("sdpa_cudnn", "eager", **fields)
    assert "fallback" not in jax["flags"]
    assert jax["kernel_ms"] == pytest.approx(torch["kernel_ms"], rel=0.2)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("direction", ["bwd", "fwd_bwd"])
@pytest.mark.parametrize("head_dim", [64, 128])
def test_mosaics_backward_pass_is_right(head_dim, direction):
    """Grouped heads, and fewer queries than keys."""
    fields = {"dtype": "fp16", "num_kv_heads": 4, "q_len": 1024, "head_dim": head_dim, "head_dim_v": head_dim}
    row = columns("jax_mosaic_gpu", **fields, direction=direction)
    assert row["check"] == "passed"


@pytest.mark.timeout(300)
def test_a_hot_cache_is_faster_in_jax_too():
    """A decode step whose keys and values fit into L2: the read before each call evicts them."""
    fields = {"q_len": 1, "kv_len": 2048, "num_heads": 32, "num_kv_heads": 32}
    cold = columns("jax_cudnn", **fields)
    hot = columns("jax_cudnn", **fields, timing={"cache": "hot"})
    assert hot["kernel_ms"] < 0.95 * cold["kernel_ms"]
