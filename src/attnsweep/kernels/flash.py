"""Attention that never writes its scores to memory, after FlashAttention-2 (arXiv:2307.08691): the forward pass.

One program computes a block of queries. flash_backward.py has the gradients.
"""

from __future__ import annotations

import math
from typing import Any, Optional

import torch
import triton
import triton.language as tl

from attnsweep.kernels.blocks import (
    LOG2_E,
    attend,
    bounds,
    check_shapes,
    copied_by_engine,
    described,
    kind,
    load_rows,
    padded,
    place,
    rows_contiguous,
    span,
    store_rows,
)
from attnsweep.kernels.flash_backward import gradients
from attnsweep.kernels.tuning import TUNED_FOR, autotuned


def attention(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    *,
    scale: Optional[float] = None,
    causal: bool = False,
    window: Optional[tuple[int, int]] = None,
) -> torch.Tensor:
    """softmax(scale * Q K^T + mask) V, (B, H, Sq, Dv), differentiable in q, k and v.

    q (B, H, Sq, D), k (B, Hkv, Skv, D), v (B, Hkv, Skv, Dv) with D and Dv up to 256 and H a multiple of Hkv. `scale` is
    1 / sqrt(D) unless given. Causal is aligned bottom-right; `window` is (left, right) keys seen beside a query's own
    position, -1 unbounded. A query that sees no key gets zeros. Raises ValueError for what it cannot do.
    """
    scale = 1.0 / math.sqrt(q.shape[-1]) if scale is None else scale
    check_shapes(q, k, v, scale)
    left, right = bounds(q.shape[2], k.shape[2], causal, window)
    out: torch.Tensor = _Attention.apply(q, k, v, scale, left, right)
    return out


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, scale: float, left: int, right: int
    ) -> torch.Tensor:
        q, k, v = rows_contiguous(q), rows_contiguous(k), rows_contiguous(v)
        batch, heads, q_len, head_dim = q.shape
        kv_heads, kv_len, head_dim_v = v.shape[1:]
        out = torch.empty_like(q) if head_dim == head_dim_v else q.new_empty(batch, heads, q_len, head_dim_v)
        lse = torch.empty((batch, heads, q_len), dtype=torch.float32, device=q.device)
        _FORWARD[kind(q, v)][lambda meta: (triton.cdiv(q_len, meta["BLOCK_M"]) * batch * heads,)](
            q,
            k,
            v,
            out,
            lse,
            *q.stride()[:3],
            *k.stride()[:3],
            *v.stride()[:3],
            *out.stride()[:3],
            heads,
            q_len,
            kv_len,
            left,
            right,
            scale * LOG2_E,
            GROUP=heads // kv_heads,
            HEAD_DIM=head_dim,
            HEAD_DIM_V=head_dim_v,
            BLOCK_D=padded(head_dim),
            BLOCK_DV=padded(head_dim_v),
            HAS_LEFT=left >= 0,
            HAS_RIGHT=right >= 0,
            DESCRIBED=copied_by_engine(k, v),
        )
        ctx.save_for_backward(q, k, v, out, lse)
        ctx.scale, ctx.left, ctx.right = scale, left, right
        return out

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[Any, ...]:
        q, k, v, out, lse = ctx.saved_tensors
        return (*gradients(q, k, v, out, lse, grad, ctx.scale, ctx.left, ctx.right), None, None, None)


@triton.jit
def flash_forward(
    q,
    k,
    v,
    out,
    lse,
    stride_qb,
    stride_qh,
    stride_qm,
    stride_kb,
    stride_kh,
    stride_kn,
    stride_vb,
    stride_vh,
    stride_vn,
    stride_ob,
    stride_oh,
    stride_om,
    heads,
    q_len,
    kv_len,
    left,
    right,
    scale,
    GROUP: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    HEAD_DIM_V: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_DV: tl.constexpr,
    HAS_LEFT: tl.constexpr,
    HAS_RIGHT: tl.constexpr,
    DESCRIBED: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
):
    """Output and base-2 log-sum-exp of one block of queries of one head."""
    scale = tl.cast(scale, tl.float32)  # torch.compile hands it on in 64 bits
    first, pair, batch, head = place(q_len, heads, BLOCK_M, HAS_RIGHT)
    offset = kv_len - q_len
    position = first + offset + tl.arange(0, BLOCK_M)
    start, full_start, full_stop, stop = span(
        first + offset,
        tl.minimum(first + BLOCK_M, q_len) - 1 + offset,
        kv_len,
        left,
        right,
        HAS_LEFT,
        HAS_RIGHT,
        BLOCK_N,
    )
    queries = load_rows(
        q + batch * stride_qb + head * stride_qh, first, q_len, stride_qm, HEAD_DIM, BLOCK_M, BLOCK_D, True
    )
    k += batch * stride_kb + head // GROUP * stride_kh
    v += batch * stride_vb + head // GROUP * stride_vh
    keys = described(k, kv_len, stride_kn, HEAD_DIM, BLOCK_N, BLOCK_D, DESCRIBED)
    values = described(v, kv_len, stride_vn, HEAD_DIM_V, BLOCK_N, BLOCK_DV, DESCRIBED)
    acc = tl.zeros((BLOCK_M, BLOCK_DV), tl.float32)
    total = tl.zeros((BLOCK_M,), tl.float32)
    peak = tl.full((BLOCK_M,), float("-inf"), tl.float32)
    # The cut blocks at the left end, the whole ones, the cut ones at the right end
    for part in tl.static_range(0 if HAS_LEFT else 1, 3):
        acc, total, peak = attend(
            acc,
            total,
            peak,
            queries,
            keys,
            values,
            stride_kn,
            stride_vn,
            start if part == 0 else full_start if part == 1 else full_stop,
            full_start if part == 0 else full_stop if part == 1 else stop,
            position,
            kv_len,
            left,
            right,
            scale,
            HEAD_DIM,
            HEAD_DIM_V,
            HAS_LEFT,
            HAS_RIGHT,
            BLOCK_N,
            part != 1,
            DESCRIBED,
        )
    empty = total == 0.0
    acc = acc / tl.where(empty, 1.0, total)[:, None]
    store_rows(out + batch * stride_ob + head * stride_oh, first, q_len, stride_om, acc, HEAD_DIM_V, BLOCK_M, BLOCK_DV)
    rows = first + tl.arange(0, BLOCK_M)
    # +inf for a row without keys: its weights are exp2(score - inf) = 0, before any mask
    logs = tl.where(empty, float("inf"), peak + tl.log2(tl.where(empty, 1.0, total)))
    tl.store(lse + tl.cast(pair, tl.int64) * q_len + rows, logs, mask=rows < q_len)


#: (BLOCK_M, BLOCK_N, warps, stages) for head dims up to 64, 128 and 256, and for fp32, which has no tensor cores: tiles
#: that ptxas holds in the registers of an sm_90 without spilling more than a few.
_FORWARD = {
    name: autotuned(flash_forward, choices, [*TUNED_FOR, "DESCRIBED"])
    for name, choices in {
        "narrow": ((128, 64, 4, 3), (128, 128, 8, 3), (64, 64, 4, 3)),
        "medium": ((128, 128, 8, 3), (128, 128, 8, 2), (128, 64, 8, 3), (64, 64, 4, 3)),
        "wide": ((128, 64, 8, 2), (128, 32, 8, 3), (64, 32, 4, 3)),
        "fp32": ((32, 32, 4, 2), (32, 16, 4, 2)),
    }.items()
}
