"""Inputs: the same bits in every framework, near-normal, different for every tensor and seed."""

import numpy as np
import pytest
import torch

from attnsweep import inputs
from attnsweep.case import Case
from attnsweep.frameworks.torch import Torch
from numpy_framework import Numpy

CPU = {"kind": "cpu", "uuid": "cpu", "name": "test"}


def case(**fields):
    """A small case with all sizes different."""
    sizes = {
        "batch_size": 2,
        "q_len": 5,
        "kv_len": 7,
        "num_heads": 6,
        "num_kv_heads": 3,
        "head_dim": 4,
        "head_dim_v": 8,
    }
    return Case(**{**sizes, "dtype": "fp32", **fields})


@pytest.mark.parametrize("dtype", ["fp32", "fp16"])
def test_numpy_and_torch_agree_in_every_bit(dtype):
    """A torch and a numpy implementation are given the same problem."""
    shape = (3, 1001)
    ours = inputs.near_normal(Torch(CPU), shape, dtype, seed=7, tensor="q").numpy()
    theirs = inputs.near_normal(Numpy(), shape, dtype, seed=7, tensor="q")
    np.testing.assert_array_equal(ours, theirs)


def test_chunks_join_without_a_seam(monkeypatch):
    """The chunk size is an implementation detail that no bit depends on."""
    whole = inputs.near_normal(Numpy(), (1000,), "fp32", 0, "k")
    monkeypatch.setattr(inputs, "_CHUNK", 64)
    np.testing.assert_array_equal(whole, inputs.near_normal(Numpy(), (1000,), "fp32", 0, "k"))


def test_values_are_near_normal():
    """Four uniforms: mean 0, standard deviation 2/sqrt(3), no correlation between neighbours or tensors."""
    x = inputs.near_normal(Numpy(), (200_000,), "fp64", 0, "q")
    y = inputs.near_normal(Numpy(), (200_000,), "fp64", 0, "k")
    assert abs(x.mean()) < 0.01
    assert x.std() == pytest.approx(2 / 3**0.5, rel=0.01)
    assert abs(np.corrcoef(x[:-1], x[1:])[0, 1]) < 0.01
    assert abs(np.corrcoef(x, y)[0, 1]) < 0.01


def test_indices_beyond_31_bits_still_hash():
    """Wrapping around is arithmetic on 32 bits, the same in both frameworks."""
    start = 2**31 - 3
    np.testing.assert_array_equal(Torch(CPU).arange(start, 8).numpy(), Numpy().arange(start, 8))


def test_seed_and_tensor_choose_the_stream():
    """No two tensors and no two seeds share values."""
    streams = [
        inputs.near_normal(Numpy(), (64,), "fp32", seed, tensor).tobytes() for seed in (0, 1) for tensor in "qkv"
    ]
    assert len(set(streams)) == 6


def test_layouts_hold_the_same_elements():
    """bhsd is bshd with two axes swapped, in memory too."""
    bshd = inputs.make(Torch(CPU), case(direction="bwd"), 0, "bshd")
    bhsd = inputs.make(Torch(CPU), case(direction="bwd"), 0, "bhsd")
    for one, other in zip(bshd.all, bhsd.all, strict=True):
        assert torch.equal(one.transpose(1, 2), other)
        assert other.is_contiguous()


@pytest.mark.parametrize("dtype", ["fp16", "bf16", "fp32"])
def test_peaky_inputs_are_the_same_with_a_larger_q(dtype):
    """Exactly, in every dtype, and no score of fp16 overflows before it is scaled, however the signs fall."""
    problem = case(direction="bwd", dtype=dtype, kv_len=4096)
    plain, peaky = (make(Torch(CPU), problem, 3) for make in (inputs.make, inputs.make_peaky))
    assert torch.equal(peaky.q.double(), 8 * plain.q.double())
    for one, other in zip((plain.k, plain.v, plain.cotangent), (peaky.k, peaky.v, peaky.cotangent), strict=True):
        assert torch.equal(one, other)
    assert 3 < plain.k.abs().max() <= 4
    assert torch.finfo(torch.float16).max > inputs.PEAK * 4 * 4 * 256


def test_a_bias_is_one_matrix_a_head_and_only_where_asked_for():
    """(1, heads, queries, keys), handed to the implementation as a fourth argument."""
    given = inputs.make(Numpy(), case(bias="dense"), 0)
    assert given.bias.shape == (1, 6, 5, 7)
    assert len(given.arguments) == 4
    assert len(inputs.make(Numpy(), case(), 0).arguments) == 3
