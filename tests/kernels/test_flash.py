"""triton_flash: outputs and gradients in Triton's interpreter, by the check of a cell."""

import importlib

import pytest
from interpreting import case, formula, refused, strided, tensors, verified, with_hidden_nan

#: The interpreter's blocks are 32 queries by 16 keys.
CASES = {
    "no_block_divides": case(70, 45, 64),
    "whole_blocks": case(64, 64, 16, batch_size=2),
    "causal_longer_keys": case(37, 85, 40, heads=(4, 2), head_dim_v=24, causal=True),
    "causal_square": case(65, 65, 32, causal=True),
    "window": case(50, 75, 16, heads=(3, 1), window=(9, 3)),
    "window_left": case(40, 90, 16, heads=(2, 1), window=(20, -1)),
    "window_right": case(40, 60, 16, window=(-1, 5)),
    "window_of_nearly_all": case(20, 60, 16, window=(55, 15)),
    "causal_window": case(33, 133, 80, heads=(2, 1), causal=True, window=(40, 0)),
    # With one key the gradient is nothing but rounding, and the check allows none
    "window_of_itself": case(35, 50, 16, window=(0, 0), direction="fwd"),
    "one_query": case(1, 70, 64, heads=(4, 2), causal=True),
    "one_key": case(1, 1, 16, direction="fwd"),
    "wider_values": case(20, 36, 24, head_dim_v=72),
    "head_dim_128": case(20, 40, 128, heads=(2, 1), causal=True),
    "head_dim_256": case(10, 34, 256, heads=(1, 1), head_dim_v=128),
}


@pytest.mark.parametrize("dtype", ["fp16", "fp32"])
@pytest.mark.parametrize("name", CASES)
def test_output_and_gradients_pass_the_check(interpreted, name, dtype):
    """Against the reference, as a cell's are: lengths, heads, masks and head dims that no block divides."""
    fields = {"direction": "fwd_bwd", **CASES[name], "dtype": dtype}
    assert interpreted(verified, "triton_flash", fields)["check"] == "passed"


def test_a_running_maximum_may_grow(interpreted):
    """A nearly one-hot softmax, whose maximum comes late, is right too."""
    fields = {**case(70, 90, 32, causal=True), "direction": "fwd_bwd"}
    assert interpreted(verified, "triton_flash", fields, peaky=True)["check"] == "passed"


def test_strides_are_the_callers(interpreted):
    """Views of another layout, and a k whose last axis is not contiguous."""
    assert interpreted(strided, "flash") < 1e-6


def blind():
    """Causal with more queries than keys: outputs and gradients of the rows that see no key, and the largest error."""
    import torch

    attention = importlib.import_module("attnsweep.kernels.flash").attention
    with torch.enable_grad():
        leaves = [x.requires_grad_() for x in tensors((1, 2, 60, 16), (1, 1, 33, 16))]
        out, expected = attention(*leaves, causal=True), formula(*leaves, causal=True)
        # A sum's gradient is expanded: every stride of it is 0
        ours, theirs = (torch.autograd.grad(x.sum(), leaves) for x in (out, expected))
    rows = [float(x[:, :, :27].abs().max()) for x in (out, ours[0])]
    return rows, max(float((a - b).abs().max()) for a, b in zip((out, *ours), (expected, *theirs), strict=True))


def test_a_query_without_keys_gets_zeros(interpreted):
    """Its output and its gradient; the others' are not touched by it."""
    rows, error = interpreted(blind)
    assert rows == [0.0, 0.0]
    assert error < 1e-5


def test_blocks_that_the_mask_hides_are_not_read(interpreted):
    """Values there that are no numbers reach neither the output nor dq."""
    hidden, bad = interpreted(with_hidden_nan, "flash", 32, differentiable=True)
    assert hidden >= 112
    assert bad == 0


@pytest.mark.parametrize(
    ("q_shape", "kv_shape", "changes", "sentence"),
    [
        ((1, 2, 8, 16), (1, 2, 8, 24), {}, "do not fit each other"),
        ((1, 3, 8, 16), (1, 2, 8, 16), {}, "do not fit each other"),
        ((2, 2, 8, 16), (1, 2, 8, 16), {}, "do not fit each other"),
        ((1, 1, 8, 264), (1, 1, 8, 264), {}, "the largest is 256"),
        ((1, 1, 8, 16), (1, 1, 8, 16), {"scale": 0.0}, "must be positive"),
        ((1, 1, 8, 16), (1, 1, 8, 16), {"dtype": "float16"}, "one of float16, bfloat16 and float32 for all"),
    ],
)
def test_what_is_no_problem_of_attention_is_refused(interpreted, q_shape, kv_shape, changes, sentence):
    """With the shapes or the values in the sentence."""
    assert sentence in interpreted(refused, "flash", q_shape, kv_shape, changes)
