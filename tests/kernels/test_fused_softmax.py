"""triton_fused_softmax in Triton's interpreter, by the check of a cell."""

import importlib

import pytest
from interpreting import case, refused, strided, tensors, verified

CASES = {
    "no_block_divides": case(70, 45, 64),
    "causal_longer_keys": case(37, 85, 40, heads=(4, 2), head_dim_v=24, causal=True),
    "window": case(50, 75, 16, heads=(3, 1), window=(9, 3)),
    "window_left": case(20, 90, 80, window=(20, -1)),
    "one_query": case(1, 70, 128, heads=(4, 2), batch_size=2, causal=True),
    "head_dim_256": case(10, 34, 256, heads=(1, 1)),
}


@pytest.mark.parametrize("dtype", ["fp16", "fp32"])
@pytest.mark.parametrize("name", CASES)
def test_the_output_passes_the_check(interpreted, name, dtype):
    """Against the reference, as a cell's does."""
    fields = {**CASES[name], "dtype": dtype, "direction": "fwd"}
    assert interpreted(verified, "triton_fused_softmax", fields)["check"] == "passed"


def test_strides_are_the_callers(interpreted):
    """Views of another layout, and a k whose last axis is not contiguous."""
    assert interpreted(strided, "fused_softmax") < 1e-6


def blind():
    """The rows that see no key, causal with more queries than keys."""
    attention = importlib.import_module("attnsweep.kernels.fused_softmax").attention
    return float(attention(*tensors((1, 2, 60, 16), (1, 1, 33, 16)), causal=True)[:, :, :27].abs().max())


def test_a_query_without_keys_gets_zeros(interpreted):
    """Not the mean of all values, and no NaN."""
    assert interpreted(blind) == 0.0


def test_shapes_that_do_not_fit_are_refused(interpreted):
    """With the shapes in the sentence."""
    assert "do not fit each other" in interpreted(refused, "fused_softmax", (1, 3, 8, 16), (1, 2, 8, 16), {})
