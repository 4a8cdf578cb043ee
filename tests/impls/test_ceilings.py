"""Ceilings do the work that they say they do, and nothing takes them for attention."""

import math
from collections import Counter
from types import SimpleNamespace

import pytest
import torch

from attnsweep import impls, metrics, worker
from attnsweep.case import Case
from attnsweep.impls import ceilings
from attnsweep.impls.ceilings import CopyCeiling, MatmulCeiling
from cells import resolved

MATMUL = {"name": "ceiling_matmul", "_target_": "attnsweep.impls.ceilings.MatmulCeiling"}
COPY = {"name": "ceiling_copy", "_target_": "attnsweep.impls.ceilings.CopyCeiling"}
SMALL = {"batch_size": 2, "q_len": 64, "kv_len": 96, "num_heads": 4, "num_kv_heads": 2, "head_dim": 32}


def case(**changed):
    """A small case with a mask and grouped heads."""
    return Case(**{**SMALL, "head_dim_v": 32, "causal": True, "dtype": "bf16", **changed})


def flux():
    """The flux shape: 260.9 GFLOP."""
    return case(batch_size=1, q_len=4608, kv_len=4608, num_heads=24, num_kv_heads=24, head_dim=128, head_dim_v=128)


@pytest.mark.parametrize("flops", [10**exponent * step for exponent in (8, 9, 10, 11, 12) for step in (1, 2.3, 7.7)])
def test_the_sides_of_a_product_make_its_flops_and_are_alike(flops):
    """Multiples of 128, at most 16384: within 10 % from 1e8 FLOPs on; from 1e10 on within 1 % and nearly a cube."""
    sides = ceilings.sides(int(flops))
    assert all(side % 128 == 0 and 0 < side <= 16384 for side in sides)
    assert 2 * math.prod(sides) / flops == pytest.approx(1, rel=0.1 if flops < 1e10 else 0.01)
    assert max(sides) <= (3 if flops < 1e10 else 1.6) * min(sides)


def test_the_smallest_and_the_largest_product_are_the_ends_of_what_a_side_can_be():
    """Fewer FLOPs than the smallest are that one's; more than the largest are not supported."""
    assert ceilings.sides(1) == (128, 128, 128)
    assert ceilings.sides(10**15) == (16384, 16384, 16384)
    assert MatmulCeiling(name="x").supports(flux(), None, "eager") is None


@pytest.mark.parametrize("dtype", ["fp32", "bf16", "fp16"])
def test_the_product_counts_what_it_multiplies_in_the_dtype_of_the_case(dtype):
    """FLOPs and bytes of the operands that it is really given, and the output is their product."""
    one = case(dtype=dtype)
    ceiling, work = MatmulCeiling(name="x"), MatmulCeiling(name="x").work(one)
    a, b, product = ceiling.operands(one, torch.Generator().manual_seed(1))
    assert str(a.dtype) == {"fp32": "torch.float32", "bf16": "torch.bfloat16", "fp16": "torch.float16"}[dtype]
    assert work.flops == 2 * a.shape[0] * a.shape[1] * b.shape[1]
    assert work.bytes_read == a.nbytes + b.nbytes
    assert work.bytes == work.bytes_read + product.nbytes
    assert (work.dtype, work.tokens, work.bound) == (dtype, 128, "compute")
    result = ceiling.run(a, b, product)
    assert torch.equal(result, a @ b)


def test_the_copy_moves_the_bytes_of_the_case_half_of_them_read():
    """In fp32, whatever the case's dtype."""
    ceiling, one = CopyCeiling(name="x"), flux()
    work = ceiling.work(one)
    assert work.bytes == metrics.bytes_moved(one) == 2 * work.bytes_read
    assert (work.flops, work.bound) == (0, "memory")
    source, target = ceiling.operands(case(), torch.Generator().manual_seed(1))
    assert source.nbytes == target.nbytes == metrics.bytes_moved(case()) // 2
    assert torch.equal(ceiling.run(source, target), -source)


@pytest.mark.parametrize("impl", [MATMUL, COPY], ids=lambda impl: impl["name"])
def test_operands_are_random_and_the_same_each_time(impl):
    """Zeros draw less power and run faster."""
    calls = [impls.build(impl).prepare(case(), "cpu") for _ in range(2)]
    first, second = (call(None, None, None).float() for call in calls)
    assert torch.equal(first, second)
    assert first.std() > 0.9
    assert first.unique().numel() > 1000


@pytest.mark.parametrize("impl", [MATMUL, COPY], ids=lambda impl: impl["name"])
def test_on_a_gpu_calls_go_round_operands_that_exceed_l2_five_times(impl, monkeypatch):
    """Each set comes before any comes again; on a CPU there is one."""
    one, ceiling = case(), impls.build(impl)
    size = sum(array.nbytes for array in ceiling.operands(one, torch.Generator()))
    properties = SimpleNamespace(L2_cache_size=size)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: properties)
    monkeypatch.setattr(torch, "Generator", lambda device, real=torch.Generator: real("cpu"))
    for device, sets in (("cuda", 5), ("cpu", 1)):
        call = ceiling.prepare(one, device)
        seen = Counter(call(None, None, None).data_ptr() for _ in range(2 * sets))
        assert len(seen) == sets
        assert set(seen.values()) == {2}


@pytest.mark.parametrize("impl", [MATMUL, COPY], ids=lambda impl: impl["name"])
@pytest.mark.parametrize("checked", [True, False])
@pytest.mark.parametrize("direction", ["fwd", "bwd", "fwd_bwd"])
def test_a_ceiling_goes_through_every_stage_and_is_no_attention(impl, checked, direction):
    """Timed like any other; not compared with attention, neither before nor after, and flagged."""
    cell = resolved(impl, {**SMALL, "head_dim_v": 32, "bias": "dense", "dtype": "bf16", "direction": direction})
    cell["check"]["enabled"] = checked
    outcome = worker.run(cell, lambda event: None)
    assert outcome["status"] == "ok", outcome["traceback"]
    columns = outcome["columns"]
    assert columns["latency_ms"] > 0
    assert columns["check"] == "skipped: a ceiling, not attention"
    assert "ceiling" in columns["flags"]
    assert "unchecked" not in columns["flags"]
    assert "max_abs_err" not in columns
    assert set(outcome["stages"]) >= {"inputs", "prepare", "check", "proof", "memory", "timing"}


def test_attention_does_the_work_of_its_case():
    """Only ceilings have work of their own."""
    naive = {"name": "naive", "_target_": "attnsweep.impls.naive.NaiveAttention"}
    assert impls.work(naive, flux()) == metrics.work(flux())
    assert impls.build(naive).is_attention
    assert not impls.build(COPY).is_attention
