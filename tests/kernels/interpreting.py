"""What the tests of kernels call in a process that has Triton's interpreter, by the fixture `interpreted`.

bf16 is not among the dtypes: the interpreter (triton 3.9) multiplies its bits as integers.
"""

import importlib
import os
from pathlib import Path

import yaml

CONF = Path(__file__).parents[2] / "conf/impl"


def switch_on():
    """Before triton is imported: the functions that it brings are interpreted too."""
    os.environ["TRITON_INTERPRET"] = "1"
    import torch

    torch.set_num_threads(1)


def verified(name, fields, peaky=False):
    """The record's error columns of a case, by an implementation of conf/impl; raises Incorrect as a cell does."""
    from attnsweep import check, impls, inputs
    from attnsweep.case import Case
    from attnsweep.frameworks.torch import Torch

    framework, case = Torch({"kind": "cpu", "uuid": "cpu", "name": "test"}), Case.from_dict(fields)
    implementation = impls.build(yaml.safe_load((CONF / f"{name}.yaml").read_text()))
    given = (inputs.make_peaky if peaky else inputs.make)(framework, case, 0, implementation.layout)
    function = implementation.prepare(case, "cpu")
    call = framework.differentiate(function, given, case.direction)
    options = {"enabled": True, "forward_factor": 2.0, "backward_factor": 3.0}
    return check.verify(framework, case, given, call, options, peaky=peaky)


def case(q_len, kv_len, head_dim, *, heads=(2, 2), head_dim_v=None, **fields):
    """The fields of a case; `heads` are (num_heads, num_kv_heads)."""
    return {
        "batch_size": 1,
        "q_len": q_len,
        "kv_len": kv_len,
        "num_heads": heads[0],
        "num_kv_heads": heads[1],
        "head_dim": head_dim,
        "head_dim_v": head_dim_v or head_dim,
        "dtype": "fp16",
        **fields,
    }


def tensors(q_shape, kv_shape, head_dim_v=None, layout="bhsd"):
    """q, k and v in fp32 with these shapes (B, H, S, D); in the layout bshd as views with other strides."""
    import torch

    generator = torch.Generator().manual_seed(0)
    shapes = (q_shape, kv_shape, (*kv_shape[:3], head_dim_v or kv_shape[3]))
    if layout == "bhsd":
        return [torch.randn(shape, generator=generator) for shape in shapes]
    return [torch.randn((b, s, h, d), generator=generator).transpose(1, 2) for b, h, s, d in shapes]


def formula(q, k, v, causal=False):
    """The plain formula in fp64, zeros for a query that sees no key."""
    import torch

    group, offset = q.shape[1] // k.shape[1], k.shape[2] - q.shape[2]
    q, k, v = q.double(), k.double().repeat_interleave(group, 1), v.double().repeat_interleave(group, 1)
    scores = q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5
    if causal:
        seen = torch.ones(scores.shape[-2:], dtype=torch.bool).tril(offset)
        scores = scores.masked_fill(~seen, float("-inf"))
    return torch.softmax(scores, -1).nan_to_num() @ v


def strided(module):
    """The largest difference from the formula, for inputs that are views of the layout bshd and a k of odd strides."""
    attention = importlib.import_module(f"attnsweep.kernels.{module}").attention
    q, k, v = tensors((2, 4, 13, 24), (2, 2, 45, 24), 40, layout="bshd")
    k = k.transpose(2, 3).contiguous().transpose(2, 3)
    out = attention(q, k, v, causal=True)
    return float((out - formula(q, k, v, causal=True)).abs().max())


def with_hidden_nan(module, q_len, differentiable=False):
    """(keys that are NaN because no query sees their blocks, values of the output and of dq that are not finite)."""
    import torch

    attention = importlib.import_module(f"attnsweep.kernels.{module}").attention
    q, k, v = tensors((1, 2, q_len, 16), (1, 2, 160, 16))
    # The first query stands at 160 - q_len and sees 9 keys
    hidden = (160 - q_len - 8) // 16 * 16
    k[:, :, :hidden] = v[:, :, :hidden] = float("nan")
    found = [attention(q, k, v, causal=True, window=(8, 0))]
    if differentiable:
        with torch.enable_grad():
            q.requires_grad_()
            found += torch.autograd.grad(attention(q, k, v, causal=True, window=(8, 0)).sum(), q)
    return hidden, sum(int((~torch.isfinite(x)).sum()) for x in found)


def refused(module, q_shape, kv_shape, changes):
    """The sentence with which a call is refused, or None; `changes` are keywords, dtypes of k and v among them."""
    import torch

    attention = importlib.import_module(f"attnsweep.kernels.{module}").attention
    q, k, v = tensors(q_shape, kv_shape)
    if "dtype" in changes:
        k = k.to(getattr(torch, changes.pop("dtype")))
    try:
        attention(q, k, v, **changes)
    except ValueError as error:
        return str(error)
    return None
