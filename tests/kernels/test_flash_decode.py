"""triton_flash_decode: splits and their joining in Triton's interpreter, by the check of a cell."""

import importlib

import pytest
from interpreting import case, refused, strided, tensors, verified, with_hidden_nan

#: The interpreter's splits are multiples of 32 keys, at least 64 of them; a CPU wants 32 programs.
CASES = {
    "one_query": case(1, 333, 64, heads=(4, 4), batch_size=2, causal=True),
    "grouped": case(1, 300, 128, heads=(8, 2), causal=True),
    "several_queries": case(5, 203, 40, heads=(4, 2), head_dim_v=24, causal=True),
    "rows_of_two_blocks": case(16, 90, 16, heads=(10, 2), causal=True),
    "one_split": case(3, 37, 16, causal=True),
    "as_many_keys": case(16, 16, 16, causal=True),
    "window": case(16, 400, 16, heads=(2, 1), window=(135, 2)),
    "window_in_one_split": case(2, 400, 16, heads=(2, 1), causal=True, window=(9, 0)),
    "not_causal": case(16, 130, 80),
    "head_dim_256": case(1, 129, 256, heads=(2, 1)),
}


@pytest.mark.parametrize("dtype", ["fp16", "fp32"])
@pytest.mark.parametrize("name", CASES)
def test_the_output_passes_the_check(interpreted, name, dtype):
    """Against the reference, as a cell's does: one split and several, packed heads, queries that see less than all."""
    fields = {**CASES[name], "dtype": dtype, "direction": "fwd"}
    assert interpreted(verified, "triton_flash_decode", fields)["check"] == "passed"


def test_strides_are_the_callers(interpreted):
    """Views of another layout, and a k whose last axis is not contiguous."""
    assert interpreted(strided, "flash_decode") < 1e-6


def test_blocks_that_the_mask_hides_are_not_read(interpreted):
    """Values there that are no numbers do not reach the output."""
    hidden, bad = interpreted(with_hidden_nan, "flash_decode", 4)
    assert hidden >= 128
    assert bad == 0


def test_more_queries_than_it_is_for_are_refused(interpreted):
    """17, and more than there are keys."""
    for q_len, kv_len in ((17, 32), (9, 8)):
        sentence = interpreted(refused, "flash_decode", (1, 1, q_len, 16), (1, 1, kv_len, 16), {})
        assert sentence == f"{q_len} queries: at most 16, and no more than the {kv_len} keys"


def lengths(keys):
    """Keys of a split for 1, 4 and 1000 (batch, head) pairs."""
    import torch

    module = importlib.import_module("attnsweep.kernels.flash_decode")
    return [module._split_len(keys, programs, torch.device("cpu")) for programs in (1, 4, 1000)]


def test_fewer_heads_make_more_splits(interpreted):
    """As many as keep the GPU busy, each of 64 keys at least, and one where there are heads enough."""
    assert interpreted(lengths, 4096) == [128, 512, 4096]
    assert interpreted(lengths, 100) == [128, 128, 128]


def split_and_whole():
    """The largest difference between an output in many splits and the same in one."""
    module = importlib.import_module("attnsweep.kernels.flash_decode")
    q, k, v = tensors((1, 2, 3, 16), (1, 1, 500, 16))
    many = module.attention(q, k, v, causal=True)
    module._SPLITS_MAX = 1
    try:
        return float((many - module.attention(q, k, v, causal=True)).abs().max())
    finally:
        module._SPLITS_MAX = 64


def test_joined_splits_are_the_whole(interpreted):
    """But for rounding, which differs somewhere."""
    assert 0 < interpreted(split_and_whole) < 1e-6
