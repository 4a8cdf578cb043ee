"""On a GPU: our own Triton kernels, in the dtypes and with the compiler that the interpreter does not have."""

import pytest
from cell_runs import run

pytestmark = pytest.mark.gpu

CASES = {
    "plain": {},
    "causal": {"causal": True},
    "ragged": {"q_len": 1000, "kv_len": 1511, "causal": True},
    "grouped": {"num_kv_heads": 4, "causal": True},
    "window": {"window": (300, 20)},
    "narrow": {"head_dim": 64, "head_dim_v": 64, "causal": True},
    "odd_head_dims": {"head_dim": 80, "head_dim_v": 40},
    "latent": {"head_dim": 192, "causal": True},
    "wide": {"head_dim": 256, "head_dim_v": 256, "causal": True},
    "fp16": {"dtype": "fp16", "causal": True},
    "fp32": {"dtype": "fp32", "q_len": 512, "kv_len": 512, "causal": True},
}


def passed(name, compile_mode="eager", **fields):
    """The cell's output passed the check before and after timing, and its kernels ran with no copy beside them."""
    outcome = run(name, compile_mode, **fields)
    assert outcome["status"] == "ok", outcome["reason"]
    return not {"fallback", "substituted", "impure"} & set(outcome["columns"]["flags"])


@pytest.mark.parametrize("direction", ["fwd", "bwd"])
@pytest.mark.parametrize("name", CASES)
def test_flash_passes_the_check(name, direction):
    """Every mask, head dim and dtype that it takes."""
    assert passed("triton_flash", direction=direction, **CASES[name])


@pytest.mark.parametrize("name", CASES)
def test_fused_softmax_passes_the_check(name):
    """Likewise, forward."""
    assert passed("triton_fused_softmax", **CASES[name])


@pytest.mark.parametrize(("q_len", "kv_len"), [(1, 100), (1, 50001), (16, 4096)])
@pytest.mark.parametrize("name", ["causal", "grouped", "odd_head_dims", "wide", "fp32"])
def test_flash_decode_passes_the_check(name, q_len, kv_len):
    """From one split to many."""
    assert passed("triton_flash_decode", **{**CASES[name], "q_len": q_len, "kv_len": kv_len})


@pytest.mark.parametrize("compile_mode", ["default", "max-autotune-no-cudagraphs"])
@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("triton_flash", {"direction": "fwd_bwd"}),
        ("triton_fused_softmax", {}),
        ("triton_flash_decode", {"q_len": 1, "kv_len": 4096}),
    ],
)
def test_torch_compile_takes_them_whole(name, fields, compile_mode):
    """As user-defined kernels in its graph, without a break."""
    assert passed(name, compile_mode, causal=True, **fields)


def test_two_processes_choose_the_same_tiles():
    """As far as a time shows: one time within 2 % of the other, where wrong tiles are 8 % slower."""
    times = []
    for _ in range(2):
        columns = run("triton_flash", q_len=4608, kv_len=4608, num_heads=24, num_kv_heads=24)["columns"]
        assert columns["autotuned_configs"]
        times.append(columns["latency_ms"])
    assert abs(times[0] - times[1]) <= 0.02 * min(times)
