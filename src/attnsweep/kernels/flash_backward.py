"""The gradients of flash.attention, after FlashAttention-2 (arXiv:2307.08691).

One program computes dq for a block of queries, or dk and dv for a block of keys with all query heads that share them,
so that grouped heads are summed in registers. The weights are computed again from each row's log-sum-exp.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from attnsweep.kernels.blocks import (
    LOG2_E,
    kind,
    load_rows,
    padded,
    place,
    rows_contiguous,
    span,
    store_rows,
    visible,
)
from attnsweep.kernels.tuning import TUNED_FOR, autotuned


def gradients(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    out: torch.Tensor,
    lse: torch.Tensor,
    grad: torch.Tensor,
    scale: float,
    left: int,
    right: int,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """dq, dk and dv, shaped as q, k and v, from the output's gradient.

    `out` (B, H, Sq, Dv) and `lse` (B, H, Sq), in base 2, are the forward pass's; `left` and `right` are blocks.bounds'.
    """
    grad = rows_contiguous(grad)
    batch, heads, q_len, head_dim = q.shape
    kv_heads, kv_len, head_dim_v = v.shape[1:]
    delta = torch.empty_like(lse)
    rows = 32
    flash_delta[(triton.cdiv(q_len, rows) * batch * heads,)](
        out,
        grad,
        delta,
        *out.stride()[:3],
        *grad.stride()[:3],
        heads,
        q_len,
        HEAD_DIM_V=head_dim_v,
        BLOCK_DV=padded(head_dim_v),
        BLOCK_M=rows,
    )
    dq, dk, dv = torch.empty_like(q), torch.empty_like(k), torch.empty_like(v)
    strides = (*q.stride()[:3], *k.stride()[:3], *v.stride()[:3], *grad.stride()[:3])
    sizes = (heads, q_len, kv_len, left, right, scale * LOG2_E, scale)
    constants = {
        "GROUP": heads // kv_heads,
        "HEAD_DIM": head_dim,
        "HEAD_DIM_V": head_dim_v,
        "BLOCK_D": padded(head_dim),
        "BLOCK_DV": padded(head_dim_v),
        "HAS_LEFT": left >= 0,
        "HAS_RIGHT": right >= 0,
    }
    _DKDV[kind(q, v)][lambda meta: (triton.cdiv(kv_len, meta["BLOCK_N"]) * batch * kv_heads,)](
        q, k, v, grad, lse, delta, dk, dv, *strides, *dk.stride()[:3], *dv.stride()[:3], *sizes, **constants
    )
    _DQ[kind(q, v)][lambda meta: (triton.cdiv(q_len, meta["BLOCK_M"]) * batch * heads,)](
        q, k, v, grad, lse, delta, dq, *strides, *dq.stride()[:3], *sizes, **constants
    )
    return dq, dk, dv


@triton.jit
def flash_delta(
    out,
    grad,
    delta,
    stride_ob,
    stride_oh,
    stride_om,
    stride_gb,
    stride_gh,
    stride_gm,
    heads,
    q_len,
    HEAD_DIM_V: tl.constexpr,
    BLOCK_DV: tl.constexpr,
    BLOCK_M: tl.constexpr,
):
    """delta = rowsum(out * grad), what the softmax's gradient takes away from each row."""
    first, pair, batch, head = place(q_len, heads, BLOCK_M)
    o = load_rows(
        out + batch * stride_ob + head * stride_oh, first, q_len, stride_om, HEAD_DIM_V, BLOCK_M, BLOCK_DV, True
    )
    g = load_rows(
        grad + batch * stride_gb + head * stride_gh, first, q_len, stride_gm, HEAD_DIM_V, BLOCK_M, BLOCK_DV, True
    )
    rows = first + tl.arange(0, BLOCK_M)
    sums = tl.sum(o.to(tl.float32) * g.to(tl.float32), 1)
    tl.store(delta + tl.cast(pair, tl.int64) * q_len + rows, sums, mask=rows < q_len)


@triton.jit
def _dq_blocks(
    dq,
    q,
    grad,
    lse,
    delta,
    k,
    v,
    stride_kn,
    stride_vn,
    start,
    stop,
    position,
    kv_len,
    left,
    right,
    scale,
    HEAD_DIM: tl.constexpr,
    HEAD_DIM_V: tl.constexpr,
    HAS_LEFT: tl.constexpr,
    HAS_RIGHT: tl.constexpr,
    BLOCK_N: tl.constexpr,
    MASKED: tl.constexpr,
):
    """dq (M, D) less the softmax scale, with what the keys from `start` to `stop` add to it."""
    BLOCK_D: tl.constexpr = q.shape[1]
    BLOCK_DV: tl.constexpr = grad.shape[1]
    for n in tl.range(start, stop, BLOCK_N):
        keys = load_rows(k, n, kv_len, stride_kn, HEAD_DIM, BLOCK_N, BLOCK_D, MASKED)
        values = load_rows(v, n, kv_len, stride_vn, HEAD_DIM_V, BLOCK_N, BLOCK_DV, MASKED)
        scores = tl.dot(q, tl.trans(keys), input_precision="ieee")
        weights = tl.exp2(tl.fma(scores, scale, -lse[:, None]))
        if MASKED:
            key = n + tl.arange(0, BLOCK_N)[None, :]
            seen = visible(position[:, None], key, kv_len, left, right, HAS_LEFT, HAS_RIGHT)
            weights = tl.where(seen, weights, 0.0)
        d_weights = tl.dot(grad, tl.trans(values), input_precision="ieee")
        d_scores = weights * (d_weights - delta[:, None])
        dq = tl.dot(d_scores.to(keys.dtype), keys, dq, input_precision="ieee")
    return dq


@triton.jit
def flash_dq(
    q,
    k,
    v,
    grad,
    lse,
    delta,
    dq,
    stride_qb,
    stride_qh,
    stride_qm,
    stride_kb,
    stride_kh,
    stride_kn,
    stride_vb,
    stride_vh,
    stride_vn,
    stride_gb,
    stride_gh,
    stride_gm,
    stride_dqb,
    stride_dqh,
    stride_dqm,
    heads,
    q_len,
    kv_len,
    left,
    right,
    scale,
    softmax_scale,
    GROUP: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    HEAD_DIM_V: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_DV: tl.constexpr,
    HAS_LEFT: tl.constexpr,
    HAS_RIGHT: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
):
    """dq of one block of queries of one head."""
    scale = tl.cast(scale, tl.float32)  # torch.compile hands it on in 64 bits
    softmax_scale = tl.cast(softmax_scale, tl.float32)
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
    g = load_rows(
        grad + batch * stride_gb + head * stride_gh, first, q_len, stride_gm, HEAD_DIM_V, BLOCK_M, BLOCK_DV, True
    )
    rows = first + tl.arange(0, BLOCK_M)
    row_lse = tl.load(lse + tl.cast(pair, tl.int64) * q_len + rows, mask=rows < q_len, other=float("inf"))
    row_delta = tl.load(delta + tl.cast(pair, tl.int64) * q_len + rows, mask=rows < q_len, other=0.0)
    k += batch * stride_kb + head // GROUP * stride_kh
    v += batch * stride_vb + head // GROUP * stride_vh
    acc = tl.zeros((BLOCK_M, BLOCK_D), tl.float32)
    # The cut blocks at the left end, the whole ones, the cut ones at the right end
    for part in tl.static_range(0 if HAS_LEFT else 1, 3):
        acc = _dq_blocks(
            acc,
            queries,
            g,
            row_lse,
            row_delta,
            k,
            v,
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
        )
    store_rows(
        dq + batch * stride_dqb + head * stride_dqh,
        first,
        q_len,
        stride_dqm,
        acc * softmax_scale,
        HEAD_DIM,
        BLOCK_M,
        BLOCK_D,
    )


@triton.jit
def _dkdv_blocks(
    dk,
    dv,
    k,
    v,
    q,
    grad,
    lse,
    delta,
    stride_qm,
    stride_gm,
    start,
    stop,
    key,
    q_len,
    kv_len,
    left,
    right,
    scale,
    HEAD_DIM: tl.constexpr,
    HEAD_DIM_V: tl.constexpr,
    HAS_LEFT: tl.constexpr,
    HAS_RIGHT: tl.constexpr,
    BLOCK_M: tl.constexpr,
    MASKED: tl.constexpr,
):
    """dk (N, D) less the softmax scale and dv (N, Dv), with what the queries from `start` to `stop` add.

    The scores are transposed, so that weights and their gradients are the left factor of a product as they come.
    """
    BLOCK_D: tl.constexpr = k.shape[1]
    BLOCK_DV: tl.constexpr = v.shape[1]
    for m in tl.range(start, stop, BLOCK_M):
        rows = m + tl.arange(0, BLOCK_M)
        queries = load_rows(q, m, q_len, stride_qm, HEAD_DIM, BLOCK_M, BLOCK_D, MASKED)
        g = load_rows(grad, m, q_len, stride_gm, HEAD_DIM_V, BLOCK_M, BLOCK_DV, MASKED)
        if MASKED:
            row_lse = tl.load(lse + rows, mask=rows < q_len, other=float("inf"))
            row_delta = tl.load(delta + rows, mask=rows < q_len, other=0.0)
        else:
            row_lse = tl.load(lse + rows)
            row_delta = tl.load(delta + rows)
        scores = tl.dot(k, tl.trans(queries), input_precision="ieee")
        weights = tl.exp2(tl.fma(scores, scale, -row_lse[None, :]))
        if MASKED:
            position = rows + (kv_len - q_len)
            seen = visible(position[None, :], key[:, None], kv_len, left, right, HAS_LEFT, HAS_RIGHT)
            weights = tl.where(seen, weights, 0.0)
        dv = tl.dot(weights.to(g.dtype), g, dv, input_precision="ieee")
        d_weights = tl.dot(v, tl.trans(g), input_precision="ieee")
        d_scores = weights * (d_weights - row_delta[None, :])
        dk = tl.dot(d_scores.to(queries.dtype), queries, dk, input_precision="ieee")
    return dk, dv


@triton.jit
def flash_dkdv(
    q,
    k,
    v,
    grad,
    lse,
    delta,
    dk,
    dv,
    stride_qb,
    stride_qh,
    stride_qm,
    stride_kb,
    stride_kh,
    stride_kn,
    stride_vb,
    stride_vh,
    stride_vn,
    stride_gb,
    stride_gh,
    stride_gm,
    stride_dkb,
    stride_dkh,
    stride_dkn,
    stride_dvb,
    stride_dvh,
    stride_dvn,
    heads,
    q_len,
    kv_len,
    left,
    right,
    scale,
    softmax_scale,
    GROUP: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    HEAD_DIM_V: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_DV: tl.constexpr,
    HAS_LEFT: tl.constexpr,
    HAS_RIGHT: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
):
    """dk and dv of one block of keys of one key/value head, over all query heads that share it."""
    scale = tl.cast(scale, tl.float32)  # torch.compile hands it on in 64 bits
    softmax_scale = tl.cast(softmax_scale, tl.float32)
    first, _, batch, kv_head = place(kv_len, heads // GROUP, BLOCK_N)
    offset = kv_len - q_len
    # A key is seen from `right` below its own query to `left` above it: the forward pass's window turned round
    start, full_start, full_stop, stop = span(
        first - offset,
        tl.minimum(first + BLOCK_N, kv_len) - 1 - offset,
        q_len,
        right,
        left,
        HAS_RIGHT,
        HAS_LEFT,
        BLOCK_M,
    )
    # Keys beyond the end are zeros whose gradients are not stored: a block that they cut needs no mask
    keys = load_rows(
        k + batch * stride_kb + kv_head * stride_kh, first, kv_len, stride_kn, HEAD_DIM, BLOCK_N, BLOCK_D, True
    )
    values = load_rows(
        v + batch * stride_vb + kv_head * stride_vh, first, kv_len, stride_vn, HEAD_DIM_V, BLOCK_N, BLOCK_DV, True
    )
    key = first + tl.arange(0, BLOCK_N)
    acc_k = tl.zeros((BLOCK_N, BLOCK_D), tl.float32)
    acc_v = tl.zeros((BLOCK_N, BLOCK_DV), tl.float32)
    for member in tl.range(0, GROUP):
        head = kv_head * GROUP + member
        row = (batch * heads + head) * q_len
        # The cut blocks at the low end, the whole ones, the cut ones at the high end
        for part in tl.static_range(0 if HAS_RIGHT else 1, 3):
            acc_k, acc_v = _dkdv_blocks(
                acc_k,
                acc_v,
                keys,
                values,
                q + batch * stride_qb + head * stride_qh,
                grad + batch * stride_gb + head * stride_gh,
                lse + row,
                delta + row,
                stride_qm,
                stride_gm,
                start if part == 0 else full_start if part == 1 else full_stop,
                full_start if part == 0 else full_stop if part == 1 else stop,
                key,
                q_len,
                kv_len,
                left,
                right,
                scale,
                HEAD_DIM,
                HEAD_DIM_V,
                HAS_LEFT,
                HAS_RIGHT,
                BLOCK_M,
                part != 1,
            )
    store_rows(
        dk + batch * stride_dkb + kv_head * stride_dkh,
        first,
        kv_len,
        stride_dkn,
        acc_k * softmax_scale,
        HEAD_DIM,
        BLOCK_N,
        BLOCK_D,
    )
    store_rows(
        dv + batch * stride_dvb + kv_head * stride_dvh,
        first,
        kv_len,
        stride_dvn,
        acc_v,
        HEAD_DIM_V,
        BLOCK_N,
        BLOCK_DV,
    )


#: (BLOCK_M, BLOCK_N, warps, stages), as flash.py's.
_DQ = {
    name: autotuned(flash_dq, choices, TUNED_FOR)
    for name, choices in {
        "narrow": ((128, 64, 4, 3), (128, 128, 8, 2), (64, 64, 4, 3)),
        "medium": ((128, 64, 8, 2), (128, 64, 8, 3), (64, 64, 4, 2)),
        "wide": ((128, 32, 8, 2), (64, 32, 4, 2)),
        "fp32": ((32, 16, 4, 1), (16, 16, 4, 1)),
    }.items()
}
_DKDV = {
    name: autotuned(flash_dkdv, choices, TUNED_FOR)
    for name, choices in {
        "narrow": ((64, 128, 8, 3), (64, 64, 4, 3)),
        "medium": ((64, 128, 8, 2), (64, 128, 8, 3), (32, 128, 8, 3), (64, 64, 8, 2)),
        "wide": ((32, 64, 8, 2), (64, 32, 8, 2), (32, 32, 8, 2)),
        "fp32": ((16, 32, 4, 1), (16, 16, 4, 1)),
    }.items()
}
