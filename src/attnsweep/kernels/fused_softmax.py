"""Attention in two steps: one kernel writes the softmax of the scores to memory, a matrix product takes it to V.

A teaching baseline between the plain formula and flash: the scores are read and written once instead of several times,
and memory still grows with q_len * kv_len. Forward only.
"""

from __future__ import annotations

import math
from typing import Optional

import torch
import triton
import triton.language as tl

from attnsweep.kernels.blocks import (
    LOG2_E,
    bounds,
    check_shapes,
    load_rows,
    padded,
    place,
    rows_contiguous,
    span,
    visible,
)
from attnsweep.kernels.tuning import autotuned


def attention(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    *,
    scale: Optional[float] = None,
    causal: bool = False,
    window: Optional[tuple[int, int]] = None,
) -> torch.Tensor:
    """softmax(scale * Q K^T + mask) V, (B, H, Sq, Dv), by way of the weights (B, H, Sq, Skv) in q's dtype.

    q (B, H, Sq, D), k (B, Hkv, Skv, D), v (B, Hkv, Skv, Dv) with D up to 256 and H a multiple of Hkv; masks and `scale`
    as in flash.attention. No gradients. Raises ValueError for what it cannot do.
    """
    scale = 1.0 / math.sqrt(q.shape[-1]) if scale is None else scale
    check_shapes(q, k, v, scale)
    q, k = rows_contiguous(q), rows_contiguous(k)
    batch, heads, q_len, head_dim = q.shape
    kv_heads, kv_len = k.shape[1:3]
    left, right = bounds(q_len, kv_len, causal, window)
    weights = q.new_empty(batch, heads, q_len, kv_len)
    _SCORES["fp32" if q.dtype == torch.float32 else "half"][
        lambda meta: (triton.cdiv(q_len, meta["BLOCK_M"]) * batch * heads,)
    ](
        q,
        k,
        weights,
        *q.stride()[:3],
        *k.stride()[:3],
        heads,
        q_len,
        kv_len,
        left,
        right,
        scale * LOG2_E,
        GROUP=heads // kv_heads,
        HEAD_DIM=head_dim,
        BLOCK_D=padded(head_dim),
        HAS_LEFT=left >= 0,
        HAS_RIGHT=right >= 0,
    )
    # A group's query heads are more rows against the same values
    out = torch.matmul(weights.view(batch, kv_heads, -1, kv_len), v)
    return out.view(batch, heads, q_len, v.shape[3])


@triton.jit
def fused_scores_softmax(
    q,
    k,
    weights,
    stride_qb,
    stride_qh,
    stride_qm,
    stride_kb,
    stride_kh,
    stride_kn,
    heads,
    q_len,
    kv_len,
    left,
    right,
    scale,
    GROUP: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    BLOCK_D: tl.constexpr,
    HAS_LEFT: tl.constexpr,
    HAS_RIGHT: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
):
    """The weights of one block of queries of one head: a pass for each row's maximum and sum, and one that writes."""
    scale = tl.cast(scale, tl.float32)  # torch.compile hands it on in 64 bits
    first, pair, batch, head = place(q_len, heads, BLOCK_M)
    offset = kv_len - q_len
    rows = first + tl.arange(0, BLOCK_M)
    position = rows[:, None] + offset
    start, _, _, stop = span(
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
    peak = tl.full((BLOCK_M,), float("-inf"), tl.float32)
    total = tl.zeros((BLOCK_M,), tl.float32)
    for n in tl.range(start, stop, BLOCK_N):
        keys = load_rows(k, n, kv_len, stride_kn, HEAD_DIM, BLOCK_N, BLOCK_D, True)
        scores = tl.dot(queries, tl.trans(keys), input_precision="ieee")
        key = n + tl.arange(0, BLOCK_N)[None, :]
        seen = visible(position, key, kv_len, left, right, HAS_LEFT, HAS_RIGHT)
        scores = tl.where(seen, scores, float("-inf"))
        grown = tl.maximum(peak, tl.max(scores, 1) * scale)
        shift = tl.where(grown == float("-inf"), 0.0, grown)
        total = total * tl.exp2(peak - shift) + tl.sum(tl.exp2(tl.fma(scores, scale, -shift[:, None])), 1)
        peak = grown
    empty = total == 0.0
    shift = tl.where(empty, 0.0, peak)
    inverse = 1.0 / tl.where(empty, 1.0, total)
    weights += (tl.cast(pair, tl.int64) * q_len + first) * kv_len
    # Hidden keys are written too, as zeros: the product that follows reads every one
    for n in tl.range(0, kv_len, BLOCK_N):
        keys = load_rows(k, n, kv_len, stride_kn, HEAD_DIM, BLOCK_N, BLOCK_D, True)
        scores = tl.dot(queries, tl.trans(keys), input_precision="ieee")
        key = n + tl.arange(0, BLOCK_N)[None, :]
        seen = visible(position, key, kv_len, left, right, HAS_LEFT, HAS_RIGHT)
        values = tl.where(seen, tl.exp2(tl.fma(scores, scale, -shift[:, None])) * inverse[:, None], 0.0)
        row = tl.cast(tl.arange(0, BLOCK_M), tl.int64)[:, None]
        inside = (rows[:, None] < q_len) & (key < kv_len)
        tl.store(weights + row * kv_len + key, values.to(weights.dtype.element_ty), mask=inside)


_KEY = ["HEAD_DIM", "HAS_LEFT", "HAS_RIGHT"]

#: (BLOCK_M, BLOCK_N, warps, stages); fp32 has no tensor cores.
_SCORES = {
    kind: autotuned(fused_scores_softmax, choices, _KEY)
    for kind, choices in {
        "half": ((128, 128, 8, 3), (128, 64, 8, 3), (64, 128, 4, 3), (64, 64, 4, 3)),
        "fp32": ((32, 32, 4, 2), (32, 16, 4, 2)),
    }.items()
}
