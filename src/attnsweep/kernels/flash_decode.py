"""Attention of few queries over many keys: the keys are split among programs, and a second kernel joins the parts.

The query heads that share a key/value head are rows of one block, so that each key is read once. After Flash-Decoding
(https://pytorch.org/blog/flash-decoding/). Forward only.
"""

from __future__ import annotations

import math
from typing import Optional

import torch
import triton
import triton.language as tl

from attnsweep.kernels.blocks import (
    INTERPRETED,
    LOG2_E,
    attend,
    bounds,
    check_shapes,
    padded,
    rows_contiguous,
    span,
)
from attnsweep.kernels.tuning import autotuned

#: The most queries that it takes; with more, flash fills a GPU without splitting.
Q_LEN_MAX = 16

#: Rows of a block: what 16 queries of four heads make. More are more blocks.
_ROWS_MAX = 64

#: Programs for each SM: about four waves of two at a time, so that the last wave is a small part.
_PROGRAMS_PER_SM = 8
#: A CPU has no SMs; the interpreter takes what gives it several splits.
_SMS_ON_A_CPU = 4

#: Splits start at multiples of this, which every BLOCK_N divides, and none is shorter than two.
_SPLIT_STEP = 32 if INTERPRETED else 128
_SPLITS_MAX = 64


def attention(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    *,
    scale: Optional[float] = None,
    causal: bool = False,
    window: Optional[tuple[int, int]] = None,
) -> torch.Tensor:
    """softmax(scale * Q K^T + mask) V, (B, H, Sq, Dv), for Sq up to 16 and no more than Skv.

    q (B, H, Sq, D), k (B, Hkv, Skv, D), v (B, Hkv, Skv, Dv) with D and Dv up to 256 and H a multiple of Hkv; masks and
    `scale` as in flash.attention. No gradients. Raises ValueError for what it cannot do.
    """
    scale = 1.0 / math.sqrt(q.shape[-1]) if scale is None else scale
    check_shapes(q, k, v, scale)
    q, k, v = rows_contiguous(q), rows_contiguous(k), rows_contiguous(v)
    batch, heads, q_len, head_dim = q.shape
    kv_heads, kv_len, head_dim_v = v.shape[1:]
    if q_len > min(Q_LEN_MAX, kv_len):
        raise ValueError(f"{q_len} queries: at most {Q_LEN_MAX}, and no more than the {kv_len} keys")
    left, right = bounds(q_len, kv_len, causal, window)
    group = heads // kv_heads
    block_rows = min(_ROWS_MAX, max(16, triton.next_power_of_2(q_len * group)))
    row_blocks = triton.cdiv(q_len * group, block_rows)
    # Keys before the first query's window are in no split
    first = max(0, kv_len - q_len - left) // _SPLIT_STEP * _SPLIT_STEP if left >= 0 else 0
    split_len = _split_len(kv_len - first, batch * kv_heads * row_blocks, q.device)
    splits = triton.cdiv(kv_len - first, split_len)
    out = torch.empty_like(q) if head_dim == head_dim_v else q.new_empty(batch, heads, q_len, head_dim_v)
    lse = torch.empty((splits, batch, heads, q_len), dtype=torch.float32, device=q.device)
    # A single split needs no joining: it writes the output
    parts = out[None]
    if splits > 1:
        parts = torch.empty((splits, batch, heads, q_len, head_dim_v), dtype=torch.float32, device=q.device)
    _SPLIT["fp32" if q.dtype == torch.float32 else "half"][(splits * row_blocks * batch * kv_heads,)](
        q,
        k,
        v,
        parts,
        lse,
        *q.stride()[:3],
        *k.stride()[:3],
        *v.stride()[:3],
        *parts.stride()[:4],
        splits,
        batch,
        kv_heads,
        q_len,
        kv_len,
        first,
        split_len,
        left,
        right,
        scale * LOG2_E,
        GROUP=group,
        HEAD_DIM=head_dim,
        HEAD_DIM_V=head_dim_v,
        BLOCK_D=padded(head_dim),
        BLOCK_DV=padded(head_dim_v),
        HAS_LEFT=left >= 0,
        HAS_RIGHT=right >= 0,
        SPLIT=splits > 1,
        BLOCK_M=block_rows,
    )
    if splits > 1:
        flash_decode_join[(batch * heads * q_len,)](
            parts,
            lse,
            out,
            *out.stride()[:3],
            splits,
            batch * heads * q_len,
            heads,
            q_len,
            HEAD_DIM_V=head_dim_v,
            BLOCK_DV=padded(head_dim_v),
            BLOCK_S=triton.next_power_of_2(splits),
        )
    return out


def _split_len(keys: int, programs: int, device: torch.device) -> int:
    """Keys of one split: as many splits as keep the GPU busy, each long enough to be worth joining."""
    sms = torch.cuda.get_device_properties(device).multi_processor_count if device.type == "cuda" else _SMS_ON_A_CPU
    wanted = triton.cdiv(_PROGRAMS_PER_SM * sms, programs)
    splits = max(1, min(wanted, keys // (2 * _SPLIT_STEP), _SPLITS_MAX))
    return int(triton.cdiv(triton.cdiv(keys, splits), _SPLIT_STEP)) * _SPLIT_STEP


@triton.jit
def flash_decode_split(
    q,
    k,
    v,
    parts,
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
    stride_ps,
    stride_pb,
    stride_ph,
    stride_pm,
    splits,
    batches,
    kv_heads,
    q_len,
    kv_len,
    first_key,
    split_len,
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
    SPLIT: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
):
    """Output and base-2 log-sum-exp of a block of (query head, query) rows over one split of the keys."""
    scale = tl.cast(scale, tl.float32)  # torch.compile hands it on in 64 bits
    split = tl.program_id(0) % splits
    rest = tl.program_id(0) // splits
    row_blocks = tl.cdiv(GROUP * q_len, BLOCK_M)
    pair = rest // row_blocks
    batch = tl.cast(pair // kv_heads, tl.int64)
    kv_head = tl.cast(pair % kv_heads, tl.int64)
    rows = rest % row_blocks * BLOCK_M + tl.arange(0, BLOCK_M)
    query = rows % q_len
    head = kv_head * GROUP + rows // q_len
    inside = rows < GROUP * q_len
    offset = kv_len - q_len
    start, full_start, full_stop, stop = span(offset, kv_len - 1, kv_len, left, right, HAS_LEFT, HAS_RIGHT, BLOCK_N)
    begin = first_key + split * split_len
    end = tl.minimum(begin + split_len, kv_len)
    cols = tl.arange(0, BLOCK_D)
    queries = tl.load(
        q + batch * stride_qb + head[:, None] * stride_qh + query[:, None] * stride_qm + cols[None, :],
        mask=inside[:, None] & (cols < HEAD_DIM)[None, :],
        other=0.0,
    )
    k += batch * stride_kb + kv_head * stride_kh
    v += batch * stride_vb + kv_head * stride_vh
    acc = tl.zeros((BLOCK_M, BLOCK_DV), tl.float32)
    total = tl.zeros((BLOCK_M,), tl.float32)
    peak = tl.full((BLOCK_M,), float("-inf"), tl.float32)
    # The cut blocks at the left end, the whole ones, the cut ones at the right end: what of them is in this split
    for part in tl.static_range(0 if HAS_LEFT else 1, 3):
        acc, total, peak = attend(
            acc,
            total,
            peak,
            queries,
            k,
            v,
            stride_kn,
            stride_vn,
            tl.maximum(begin, start if part == 0 else full_start if part == 1 else full_stop),
            tl.minimum(end, full_start if part == 0 else full_stop if part == 1 else stop),
            query + offset,
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
    empty = total == 0.0
    acc = acc / tl.where(empty, 1.0, total)[:, None]
    cols = tl.arange(0, BLOCK_DV)
    target = parts + tl.cast(split, tl.int64) * stride_ps + batch * stride_pb
    tl.store(
        target + head[:, None] * stride_ph + query[:, None] * stride_pm + cols[None, :],
        acc.to(parts.dtype.element_ty),
        mask=inside[:, None] & (cols < HEAD_DIM_V)[None, :],
    )
    if SPLIT:
        row = ((split * batches + batch) * kv_heads * GROUP + head) * q_len + query
        # -inf for a row that sees no key of this split: its part has the weight 0
        tl.store(lse + row, tl.where(empty, float("-inf"), peak + tl.log2(tl.where(empty, 1.0, total))), mask=inside)


@triton.jit
def flash_decode_join(
    parts,
    lse,
    out,
    stride_ob,
    stride_oh,
    stride_om,
    splits,
    rows,
    heads,
    q_len,
    HEAD_DIM_V: tl.constexpr,
    BLOCK_DV: tl.constexpr,
    BLOCK_S: tl.constexpr,
):
    """One row of the output: its parts' mean, weighted by what each part's keys had of the softmax's sum."""
    row = tl.cast(tl.program_id(0), tl.int64)
    split = tl.cast(tl.arange(0, BLOCK_S), tl.int64)
    cols = tl.arange(0, BLOCK_DV)
    logs = tl.load(lse + split * rows + row, mask=split < splits, other=float("-inf"))
    weights = tl.exp2(logs - tl.max(logs, 0))
    values = tl.load(
        parts + (split * rows + row)[:, None] * HEAD_DIM_V + cols[None, :],
        mask=(split < splits)[:, None] & (cols < HEAD_DIM_V)[None, :],
        other=0.0,
    )
    mean = tl.sum(values * weights[:, None], 0) / tl.sum(weights, 0)
    pair = row // q_len
    target = out + pair // heads * stride_ob + pair % heads * stride_oh + row % q_len * stride_om
    tl.store(target + cols, mean.to(out.dtype.element_ty), mask=cols < HEAD_DIM_V)


#: (BLOCK_N, warps, stages): bound by memory, so what is tuned is how much is in flight.
_SPLIT = {
    kind: autotuned(
        flash_decode_split,
        ((None, *choice) for choice in choices),
        ["HEAD_DIM", "HEAD_DIM_V", "GROUP", "BLOCK_M", "HAS_LEFT", "HAS_RIGHT"],
    )
    for kind, choices in {
        "half": ((64, 2, 3), (32, 1, 4), (32, 2, 4), (64, 4, 3), (128, 4, 2)),
        "fp32": ((16, 4, 4), (64, 4, 2)),
    }.items()
}
