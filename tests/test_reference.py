"""Reference and check: the formula and its gradients are right, and what is wrong is refused."""

import pytest
import torch

from attnsweep import check, inputs, reference
from attnsweep.case import Case
from attnsweep.errors import Incorrect
from attnsweep.frameworks.torch import Torch
from attnsweep.impls.naive import NaiveAttention
from attnsweep.impls.sdpa import SdpaAttention
from numpy_framework import Numpy

CPU = {"kind": "cpu", "uuid": "cpu", "name": "test"}
OPTIONS = {"enabled": True, "forward_factor": 2.0, "backward_factor": 3.0}
MASKS = {
    "none": {},
    "causal": {"causal": True},
    "window": {"window": (2, 1)},
    "left": {"window": (3, -1)},
    "causal_window": {"causal": True, "window": (2, 5)},
    "bias": {"bias": "dense", "causal": True},
}


def case(**fields):
    """A small case with all sizes different and grouped heads."""
    sizes = {
        "batch_size": 2,
        "q_len": 5,
        "kv_len": 9,
        "num_heads": 6,
        "num_kv_heads": 2,
        "head_dim": 8,
        "head_dim_v": 4,
    }
    return Case(**{**sizes, "dtype": "fp32", **fields})


def by_autograd(problem, given):
    """The plain formula in fp64 with an explicit mask, gradients by autograd; layout bhsd."""
    q, k, v, g = (x.transpose(1, 2).double() for x in (given.q, given.k, given.v, given.cotangent))
    leaves = [x.detach().requires_grad_(True) for x in (q, k, v)]
    with torch.enable_grad():
        q, k, v = leaves
        k, v = (x.repeat_interleave(problem.group_size, dim=1) for x in (k, v))
        scores = q @ k.transpose(-1, -2) * problem.scale
        if given.bias is not None:
            scores = scores + given.bias.double()
        seen = torch.tensor([[problem.visible(i, j) for j in range(problem.kv_len)] for i in range(problem.q_len)])
        out = torch.softmax(scores.masked_fill(~seen, float("-inf")), dim=-1) @ v
        return (out, *torch.autograd.grad(out, leaves, g))


@pytest.mark.parametrize("mask", MASKS)
def test_results_equal_autograd_on_the_plain_formula(mask):
    """Output and all three gradients, with grouped heads, q_len unlike kv_len and head_dim_v unlike head_dim."""
    problem, framework = case(direction="fwd_bwd", **MASKS[mask]), Torch(CPU)
    given = inputs.make(framework, problem, 0)
    for ours, expected in zip(
        reference.compute(framework, problem, given, "fp64"), by_autograd(problem, given), strict=True
    ):
        torch.testing.assert_close(ours, expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("limit", [1, 50, 10**6])
def test_chunks_do_not_change_the_result(monkeypatch, limit):
    """One row and one head at a time gives what all at once gives."""
    problem, framework = case(direction="fwd_bwd", causal=True), Torch(CPU)
    given = inputs.make(framework, problem, 0)
    monkeypatch.setattr(reference, "_CHUNK_CPU", limit)
    for ours, expected in zip(
        reference.compute(framework, problem, given, "fp64"), by_autograd(problem, given), strict=True
    ):
        torch.testing.assert_close(ours, expected, rtol=1e-10, atol=1e-10)


def test_the_reference_knows_no_framework():
    """numpy and torch compute the same reference from the same inputs."""
    problem = case(direction="fwd_bwd", causal=True)
    ours = reference.compute(Torch(CPU), problem, inputs.make(Torch(CPU), problem, 3), "fp64")
    theirs = reference.compute(Numpy(), problem, inputs.make(Numpy(), problem, 3), "fp64")
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, torch.from_numpy(other), rtol=1e-10, atol=1e-10)


def verify(problem, produce):
    """Run the check on produce(given) for a bf16-like problem in torch."""
    framework = Torch(CPU)
    given = inputs.make(framework, problem, 0, "bhsd")
    return check.verify(framework, problem, given, lambda: produce(given), OPTIONS)


def plain(problem, given):
    """The right answer in the case's dtype."""
    return reference.compute(Torch(CPU), problem, given, problem.dtype)


PROBLEM = {
    "batch_size": 2,
    "q_len": 40,
    "kv_len": 48,
    "num_heads": 6,
    "num_kv_heads": 2,
    "head_dim": 16,
    "head_dim_v": 16,
}


def test_the_plain_formula_passes_with_an_error_ratio_of_one():
    """The yardstick measures itself as one."""
    problem = Case(**PROBLEM, causal=True, dtype="bf16", direction="fwd_bwd")
    columns = verify(problem, lambda given: plain(problem, given))
    assert columns["check"] == "passed"
    assert columns["err_ratio"] == pytest.approx(1.0)
    assert columns["grad_err_ratio"] == pytest.approx(1.0)
    assert columns["cosine"] > 0.999
    assert 0 < columns["rel_l1"] < 0.02


@pytest.mark.parametrize(
    ("direction", "has", "lacks"), [("fwd", "err_ratio", "grad_err_ratio"), ("bwd", "grad_err_ratio", "err_ratio")]
)
def test_the_output_and_the_gradients_have_an_error_ratio_each(direction, has, lacks):
    """What a direction does not return has none."""
    problem = Case(**PROBLEM, dtype="bf16", direction=direction)
    columns = verify(problem, lambda given: plain(problem, given))
    assert columns[has] == pytest.approx(1.0)
    assert lacks not in columns


def test_the_worst_gradient_is_recorded_beside_a_good_output():
    """An output that errs like the plain formula, one gradient with twice its error and the worst relative L1."""
    problem = Case(**PROBLEM, dtype="bf16", direction="fwd_bwd")
    framework = Torch(CPU)

    def twice(given):
        out, dq, dk, dv = plain(problem, given)
        exact = reference.compute(framework, problem, given, "fp32")[2]
        return out, dq, (exact + 2 * (dk.float() - exact)).bfloat16(), dv

    columns = verify(problem, twice)
    assert columns["err_ratio"] == pytest.approx(1.0)
    assert columns["grad_err_ratio"] == pytest.approx(2.0, rel=0.1)
    given = inputs.make(framework, problem, 0, "bhsd")
    exact, ours = reference.compute(framework, problem, given, "fp32")[2], twice(given)[2].float()
    assert columns["rel_l1"] == pytest.approx(float((ours - exact).abs().mean() / exact.abs().mean()))


def sdpa_top_left(given, problem):
    """PyTorch's is_causal, aligned top-left: the classic mistake where q_len is not kv_len."""
    return (
        torch.nn.functional.scaled_dot_product_attention(
            given.q, given.k, given.v, is_causal=True, enable_gqa=True, scale=problem.scale
        ),
    )


def swapped_heads(problem, given):
    return (plain(problem, given)[0].flip(1),)


def one_element_off(problem, given):
    out = plain(problem, given)[0].clone()
    out[1, 3, 7, 2] += 0.5
    return (out,)


def nan_element(problem, given):
    out = plain(problem, given)[0].clone()
    out[0, 0, 0, 0] = float("nan")
    return (out,)


def transposed(problem, given):
    return (plain(problem, given)[0].transpose(1, 2),)


def other_dtype(problem, given):
    return (plain(problem, given)[0].float(),)


def zeros(problem, given):
    return (torch.zeros_like(plain(problem, given)[0]),)


def never_written(problem, given):
    """An output left as the allocator found it: what poisoned memory is for."""
    return (torch.full_like(plain(problem, given)[0], float("nan")),)


@pytest.mark.parametrize(
    ("mistake", "sentence"),
    [
        (lambda p, g: sdpa_top_left(g, p), "differs from the reference"),
        (swapped_heads, "differs from the reference"),
        (one_element_off, "differs from the reference"),
        (zeros, "differs from the reference"),
        (nan_element, "not finite"),
        (never_written, "not finite"),
        (transposed, "shape"),
        (other_dtype, "fp32, not bf16"),
    ],
)
def test_what_is_wrong_is_refused_with_its_numbers(mistake, sentence):
    """Wrong mask, heads, layout, dtype, one element, NaN: each is Incorrect, and says check failed."""
    problem = Case(**PROBLEM, causal=True, dtype="bf16")
    with pytest.raises(Incorrect, match=sentence) as caught:
        verify(problem, lambda given: mistake(problem, given))
    assert caught.value.columns["check"] == "failed"


LONG = {"batch_size": 1, "q_len": 1024, "kv_len": 1024, "num_heads": 2, "num_kv_heads": 2, "head_dim": 32}


def test_late_rows_are_held_to_their_own_error_not_to_that_of_the_first():
    """A key hidden from the last half of a causal mask is a small error there, and still refused."""
    problem = Case(**LONG, head_dim_v=32, causal=True, dtype="bf16")

    def own_key_hidden(given):
        q, k, v = (x.float() for x in (given.q, given.k, given.v))
        scores = q @ k.transpose(-1, -2) * problem.scale
        rows, keys = torch.arange(1024)[:, None], torch.arange(1024)[None, :]
        seen = (keys <= rows) & ~((rows >= 512) & (keys == rows))
        return ((torch.softmax(scores.masked_fill(~seen, float("-inf")), -1) @ v).bfloat16(),)

    with pytest.raises(Incorrect, match="in rows 512 and on"):
        verify(problem, own_key_hidden)


def test_many_small_errors_are_refused_where_no_single_one_is():
    """Everything off by what one element may be off by: no maximum is beyond the rule, the norm of the error is."""
    problem = Case(**LONG, head_dim_v=32, dtype="bf16")

    def nudged(given):
        exact = reference.compute(Torch(CPU), problem, given, "fp32")[0]
        return ((exact + 0.002 * torch.sign(exact)).bfloat16(),)

    with pytest.raises(Incorrect, match="of the reference's norm"):
        verify(problem, nudged)


def test_a_wrong_gradient_is_refused_though_the_output_is_right():
    """Each result is held to the rule by itself."""
    problem = Case(**PROBLEM, dtype="bf16", direction="fwd_bwd")

    def halved(given):
        out, dq, dk, dv = plain(problem, given)
        return out, dq, dk * 0.5, dv

    with pytest.raises(Incorrect, match="dk differs"):
        verify(problem, halved)


SHAPES = {
    "causal": {"q_len": 300, "kv_len": 300, "causal": True},
    "full": {"q_len": 300, "kv_len": 300},
    "window": {"q_len": 130, "kv_len": 300, "window": (32, 0)},
    "bias": {"q_len": 64, "kv_len": 300, "bias": "dense", "causal": True},
    "decode": {"q_len": 1, "kv_len": 1024},
}
CORRECT = {
    "naive": lambda: NaiveAttention(name="naive", layout="bhsd"),
    "math": lambda: SdpaAttention(name="math", layout="bhsd", backend="math"),
    "flash": lambda: SdpaAttention(name="flash", layout="bhsd", backend="flash"),
}


@pytest.mark.parametrize("peaky", [False, True], ids=["ordinary", "peaky"])
@pytest.mark.parametrize("dtype", ["bf16", "fp16", "fp32"])
@pytest.mark.parametrize(
    ("impl", "shape"),
    # PyTorch's flash takes no other masks.
    [(impl, shape) for impl in CORRECT for shape in SHAPES if impl != "flash" or shape in ("causal", "full", "decode")],
)
def test_correct_implementations_pass_in_every_dtype(impl, shape, dtype, peaky):
    """Output and gradients with grouped heads, also where the softmax is nearly one-hot and fp32 is all there is."""
    sizes = {"batch_size": 1, "num_heads": 4, "num_kv_heads": 2, "head_dim": 128, "head_dim_v": 128}
    problem, framework = Case(**sizes, dtype=dtype, direction="fwd_bwd", **SHAPES[shape]), Torch(CPU)
    given = (inputs.make_peaky if peaky else inputs.make)(framework, problem, 1, "bhsd")
    function = CORRECT[impl]().prepare(problem, "cpu")
    call = framework.differentiate(function, given, "fwd_bwd")
    assert check.verify(framework, problem, given, call, OPTIONS, peaky=peaky)["check"] == "passed"


def test_peaky_inputs_do_not_excuse_a_few_wrong_rows():
    """The last 32 of 1024 keys are hidden, which only the rows with all their weight there can tell."""
    problem = Case(**LONG, head_dim_v=32, dtype="bf16")
    framework = Torch(CPU)
    given = inputs.make_peaky(framework, problem, 0, "bhsd")

    def last_keys_hidden():
        q, k, v = (x.float() for x in (given.q, given.k, given.v))
        scores = q @ k.transpose(-1, -2) * problem.scale
        scores[..., -32:] = float("-inf")
        return ((torch.softmax(scores, -1) @ v).bfloat16(),)

    with pytest.raises(Incorrect):
        check.verify(framework, problem, given, last_keys_hidden, OPTIONS, peaky=True)
