"""What the kernels share: which blocks of keys a block of queries sees, loading rows, one step of the online softmax.

Scores are kept in base 2: with the softmax scale times log2(e) folded into one multiplication, exp is exp2.
"""

from __future__ import annotations

import math
import os
from typing import Optional

import torch
import triton
import triton.language as tl

LOG2_E = math.log2(math.e)

#: Triton's interpreter runs on a CPU, where nothing can be tuned and small blocks cover more edges.
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"

HEAD_DIM_MAX = 256


def check_shapes(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, scale: float) -> None:
    """Raise ValueError for tensors that are no attention problem, or one that the kernels cannot do."""
    (batch, heads, _, head_dim), (_, kv_heads, kv_len, _) = q.shape, k.shape
    if k.shape != (batch, kv_heads, kv_len, head_dim) or v.shape[:3] != k.shape[:3] or heads % kv_heads:
        raise ValueError(f"q {tuple(q.shape)}, k {tuple(k.shape)} and v {tuple(v.shape)} do not fit each other")
    if max(head_dim, v.shape[3]) > HEAD_DIM_MAX:
        raise ValueError(f"head dims {head_dim} and {v.shape[3]}: the largest is {HEAD_DIM_MAX}")
    if not (q.dtype == k.dtype == v.dtype and q.dtype in (torch.float16, torch.bfloat16, torch.float32)):
        raise ValueError(f"dtypes {q.dtype}, {k.dtype} and {v.dtype}: one of float16, bfloat16 and float32 for all")
    if not scale > 0:
        raise ValueError(f"the softmax scale must be positive, not {scale}: the maximum is taken before scaling")


def bounds(q_len: int, kv_len: int, causal: bool, window: Optional[tuple[int, int]]) -> tuple[int, int]:
    """(left, right) keys seen beside a query's own position i + kv_len - q_len; -1 where that hides nothing."""
    left, right = (-1, -1) if window is None else window
    if causal:
        right = 0
    return (-1 if left >= kv_len - 1 else left), (-1 if right >= q_len - 1 else right)


def rows_contiguous(x: torch.Tensor) -> torch.Tensor:
    """x itself where its last axis is contiguous, which the kernels take for granted, else a copy."""
    return x if x.stride(-1) == 1 else x.contiguous()


def copied_by_engine(*matrices: torch.Tensor) -> bool:
    """Whether `described` can make descriptors of these (B, H, S, D), last axis contiguous, for the GPU's copy engine.

    The engine (TMA, sm_90 on, Triton 3.4 on) takes addresses in steps of 16 bytes. Lets Triton allocate memory for the
    descriptors. In code that torch.compile traces nothing tells where memory begins: there the caller answers for that.
    """
    if not hasattr(tl, "make_tensor_descriptor"):
        return False
    if not all(x.dtype != torch.float32 and all(stride % 8 == 0 for stride in x.stride()[:3]) for x in matrices):
        return False
    if not INTERPRETED and torch.cuda.get_device_properties(matrices[0].device).major < 9:
        return False
    # In compiled code memory is Inductor's business
    if not torch.compiler.is_compiling():
        if any(x.data_ptr() % 16 for x in matrices):
            return False
        triton.set_allocator(_allocate)
    return True


def _allocate(size: int, align: int, stream: Optional[int]) -> torch.Tensor:
    return torch.empty(size, dtype=torch.int8, device="cuda")


def kind(q: torch.Tensor, v: torch.Tensor) -> str:
    """Which list of configurations flash is tuned over: larger tiles do not fit wider heads."""
    if q.dtype == torch.float32:
        return "fp32"
    dim = max(padded(q.shape[-1]), padded(v.shape[-1]))
    return "narrow" if dim <= 64 else "medium" if dim <= 128 else "wide"


def padded(dim: int) -> int:
    """The power of two that a head dim is padded to; a matrix product takes 16 at least."""
    return max(16, int(triton.next_power_of_2(dim)))


@triton.jit
def place(length, heads, BLOCK: tl.constexpr, HEAVY_LAST: tl.constexpr = False):
    """What a program computes, of blocks of `length` rows for each head of each batch: (first row, pair, batch, head).

    The last two have 64 bits, `pair` numbers them together. HEAVY_LAST begins with the last block, which under a causal
    mask has the most keys: so the last wave has the short ones.
    """
    blocks = tl.cdiv(length, BLOCK)
    block = tl.program_id(0) % blocks
    if HEAVY_LAST:
        block = blocks - 1 - block
    pair = tl.program_id(0) // blocks
    return block * BLOCK, pair, tl.cast(pair // heads, tl.int64), tl.cast(pair % heads, tl.int64)


@triton.jit
def span(first, last, length, before, after, HAS_BEFORE: tl.constexpr, HAS_AFTER: tl.constexpr, BLOCK: tl.constexpr):
    """What positions first..last see of 0..length - 1, each from `before` below itself to `after` above.

    Returns (start, full_start, full_stop, stop): blocks from full_start to full_stop are seen wholly by all, those on
    either side in part, the others by none. All but `stop` are multiples of BLOCK.
    """
    start, full_start = 0, 0
    stop, full_stop = length, length
    if HAS_AFTER:
        stop = tl.minimum(length, tl.maximum(last + after + 1, 0))
        full_stop = tl.minimum(length, tl.maximum(first + after + 1, 0))
    full_stop = full_stop // BLOCK * BLOCK
    if HAS_BEFORE:
        start = tl.maximum(first - before, 0) // BLOCK * BLOCK
        full_start = tl.minimum(tl.cdiv(tl.maximum(last - before, 0), BLOCK), tl.cdiv(stop, BLOCK)) * BLOCK
        full_stop = tl.maximum(full_start, full_stop)
    return start, full_start, full_stop, stop


@triton.jit
def visible(position, key, kv_len, left, right, HAS_LEFT: tl.constexpr, HAS_RIGHT: tl.constexpr):
    """Whether queries at `position` see `key`; the two broadcast."""
    seen = key < kv_len
    if HAS_RIGHT:
        seen = seen & (key <= position + right)
    if HAS_LEFT:
        seen = seen & (key >= position - left)
    return seen


@triton.jit
def described(
    base,
    rows,
    stride,
    COLS: tl.constexpr,
    BLOCK: tl.constexpr,
    BLOCK_COLS: tl.constexpr,
    DESCRIBED: tl.constexpr,
):
    """What load_rows reads a (rows, COLS) matrix by: a descriptor for the GPU's copy engine, or `base` as it is."""
    if DESCRIBED:
        return tl.make_tensor_descriptor(base, [rows, COLS], [tl.cast(stride, tl.int64), 1], [BLOCK, BLOCK_COLS])
    else:
        return base


@triton.jit
def load_rows(
    base,
    row,
    rows,
    stride,
    COLS: tl.constexpr,
    BLOCK: tl.constexpr,
    BLOCK_COLS: tl.constexpr,
    CHECKED: tl.constexpr,
    DESCRIBED: tl.constexpr = False,
):
    """(BLOCK, BLOCK_COLS) from `row` on, 0 beyond COLS and, where CHECKED or DESCRIBED, beyond `rows`."""
    if DESCRIBED:
        values = base.load([row, 0])
    else:
        index = tl.arange(0, BLOCK)
        cols = tl.arange(0, BLOCK_COLS)[None, :]
        # 64 bits for the block's own address only: a long cache in layout (B, S, H, D) has more than 2**31 elements
        pointers = base + tl.cast(row, tl.int64) * stride + index[:, None] * stride + cols
        if CHECKED:
            inside = (row + index)[:, None] < rows
            if COLS != BLOCK_COLS:
                inside = inside & (cols < COLS)
            values = tl.load(pointers, mask=inside, other=0.0)
        elif COLS != BLOCK_COLS:
            values = tl.load(pointers, mask=cols < COLS, other=0.0)
        else:
            values = tl.load(pointers)
    return values


@triton.jit
def store_rows(base, row, rows, stride, values, COLS: tl.constexpr, BLOCK: tl.constexpr, BLOCK_COLS: tl.constexpr):
    """Write (BLOCK, BLOCK_COLS) values from `row` on, as far as `rows` and COLS go, in the target's dtype."""
    index = tl.arange(0, BLOCK)
    cols = tl.arange(0, BLOCK_COLS)[None, :]
    pointers = base + tl.cast(row, tl.int64) * stride + index[:, None] * stride + cols
    inside = ((row + index)[:, None] < rows) & (cols < COLS)
    tl.store(pointers, values.to(base.dtype.element_ty), mask=inside)


@triton.jit
def attend(
    acc,
    total,
    peak,
    q,
    k,
    v,
    stride_k,
    stride_v,
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
    DESCRIBED: tl.constexpr = False,
):
    """The online softmax over keys from `start` to `stop`: acc (M, Dv), sums `total` and maxima `peak` (M), updated.

    `k` and `v` are what `described` made. `scale` has log2(e) in it, and so have the maxima. MASKED is for blocks that
    the mask or the end of the keys cuts.
    """
    BLOCK_D: tl.constexpr = q.shape[1]
    BLOCK_DV: tl.constexpr = acc.shape[1]
    for n in tl.range(start, stop, BLOCK_N):
        keys = load_rows(k, n, kv_len, stride_k, HEAD_DIM, BLOCK_N, BLOCK_D, MASKED, DESCRIBED)
        scores = tl.dot(q, tl.trans(keys), input_precision="ieee")
        if MASKED:
            key = n + tl.arange(0, BLOCK_N)[None, :]
            seen = visible(position[:, None], key, kv_len, left, right, HAS_LEFT, HAS_RIGHT)
            scores = tl.where(seen, scores, float("-inf"))
        grown = tl.maximum(peak, tl.max(scores, 1) * scale)
        shift = grown
        if MASKED:
            # A row that has seen no key yet: -inf less -inf is not a number
            shift = tl.where(grown == float("-inf"), 0.0, grown)
        weights = tl.exp2(tl.fma(scores, scale, -shift[:, None]))
        kept = tl.exp2(peak - shift)
        total = total * kept + tl.sum(weights, 1)
        acc = acc * kept[:, None]
        values = load_rows(v, n, kv_len, stride_v, HEAD_DIM_V, BLOCK_N, BLOCK_DV, MASKED, DESCRIBED)
        acc = tl.dot(weights.to(values.dtype), values, acc, input_precision="ieee")
        peak = grown
    return acc, total, peak
