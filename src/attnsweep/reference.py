"""The plain formula of attention and its gradients, in any precision, in chunks that fit beside the case.

In one precision above the case it is the reference; in the case's own dtype it is the yardstick for what that
dtype costs (FlashAttention's rule, tests/test_flash_attn.py of Dao-AILab/flash-attention).
"""

from __future__ import annotations

from attnsweep.case import Case
from attnsweep.frameworks import Array, Framework
from attnsweep.inputs import Inputs

#: Elements of a chunk of scores: 2**27 in fp32 are 512 MiB on a GPU; a CPU takes 64 MiB.
_CHUNK_GPU = 2**27
_CHUNK_CPU = 2**24

REFERENCE_DTYPE = {"fp16": "fp32", "bf16": "fp32", "fp32": "fp64"}


def compute(framework: Framework, case: Case, inputs: Inputs, dtype: str) -> tuple[Array, ...]:
    """The case's results by the plain formula, every step rounded to `dtype`.

    Returns what the direction asks for, (out,), (dq, dk, dv) or (out, dq, dk, dv), each in `dtype` and in the
    layout bhsd. The inputs are taken as they are stored, already rounded to the case's dtype.
    """
    with framework.exact():
        return _compute(framework, case, inputs, dtype)


def _compute(framework: Framework, case: Case, inputs: Inputs, dtype: str) -> tuple[Array, ...]:
    canonical = [
        array if array is None or inputs.layout == "bhsd" else framework.swap(array, 1, 2)
        for array in (inputs.q, inputs.k, inputs.v, inputs.cotangent)
    ]
    per_batch = [_one_batch(framework, case, canonical, inputs.bias, index, dtype) for index in range(case.batch_size)]
    return tuple(framework.concat(list(parts)) for parts in zip(*per_batch))


def _one_batch(
    fw: Framework, case: Case, canonical: list[Array], bias: Array | None, index: int, dtype: str
) -> tuple[Array, ...]:
    """The results of one batch entry, each with a leading axis of size one."""
    limit = _CHUNK_GPU if fw.on_gpu else _CHUNK_CPU
    # A chunk is some key/value heads with all their query heads, and some rows of queries.
    heads_step = max(1, min(case.num_kv_heads, limit // (case.group_size * case.q_len * case.kv_len)))
    rows_step = max(1, min(case.q_len, limit // (heads_step * case.group_size * case.kv_len)))
    results = []
    for first in range(0, case.num_kv_heads, heads_step):
        heads = slice(first, min(first + heads_step, case.num_kv_heads))
        query_heads = slice(heads.start * case.group_size, heads.stop * case.group_size)
        q, cotangent = (
            None if array is None else fw.cast(array[index, query_heads], dtype)
            for array in (canonical[0], canonical[3])
        )
        k, v = (fw.cast(array[index, heads], dtype) for array in (canonical[1], canonical[2]))
        head_bias = None if bias is None else fw.cast(bias[0, query_heads], dtype)
        results.append(_some_heads(fw, case, q, k, v, head_bias, cotangent, rows_step, dtype))
    return tuple(fw.concat(list(parts))[None] for parts in zip(*results))


def _some_heads(
    fw: Framework,
    case: Case,
    q: Array,
    k: Array,
    v: Array,
    bias: Array | None,
    cotangent: Array | None,
    rows_step: int,
    dtype: str,
) -> tuple[Array, ...]:
    """q (H, Sq, D), k (Hkv, Skv, D), v (Hkv, Skv, Dv): the results of these heads, rows in chunks."""
    groups, kv_heads = case.group_size, fw.shape(k)[0]
    out, dq, dk, dv = [], [], None, None
    # (Hkv, 1, ...) broadcasts over the query heads of a group.
    k, v = k[:, None], v[:, None]
    k_t, v_t = fw.swap(k, -1, -2), fw.swap(v, -1, -2)
    for start in range(0, case.q_len, rows_step):
        rows = slice(start, min(start + rows_step, case.q_len))
        q_rows = _grouped(fw, q[:, rows], kv_heads, groups)
        scores = fw.matmul(q_rows, k_t) * case.scale
        if bias is not None:
            scores = scores + _grouped(fw, bias[:, rows], kv_heads, groups)
        visible = _visible(fw, case, rows)
        if visible is not None:
            scores = fw.where(visible, scores, float("-inf"))
        probabilities = fw.softmax(scores)
        if case.direction != "bwd":
            out.append(_flat(fw, fw.matmul(probabilities, v)))
        if cotangent is None:
            continue
        g_rows = _grouped(fw, cotangent[:, rows], kv_heads, groups)
        # Gradients accumulate over chunks of rows; like a matmul's accumulator, in at least fp32.
        wide = "fp64" if dtype == "fp64" else "fp32"
        p_wide, dp_wide = fw.cast(probabilities, wide), fw.cast(fw.matmul(g_rows, v_t), wide)
        ds = fw.cast(p_wide * (dp_wide - fw.sum_last(p_wide * dp_wide)), dtype) * case.scale
        dq.append(_flat(fw, fw.matmul(ds, k)))
        # Folding a group's query heads into the rows sums their gradients in one product.
        fold = (kv_heads, -1)
        dk_rows = fw.matmul(fw.swap(ds.reshape(*fold, case.kv_len), -1, -2), q_rows.reshape(*fold, case.head_dim))
        dv_rows = fw.matmul(
            fw.swap(probabilities.reshape(*fold, case.kv_len), -1, -2), g_rows.reshape(*fold, case.head_dim_v)
        )
        dk = fw.cast(dk_rows, wide) if dk is None else dk + fw.cast(dk_rows, wide)
        dv = fw.cast(dv_rows, wide) if dv is None else dv + fw.cast(dv_rows, wide)
    results = [fw.concat(out, axis=1)] if out else []
    if cotangent is not None:
        results += [fw.concat(dq, axis=1), fw.cast(dk, dtype), fw.cast(dv, dtype)]
    return tuple(results)


def _grouped(fw: Framework, x: Array, kv_heads: int, groups: int) -> Array:
    """(H, rows, n) as (Hkv, groups, rows, n)."""
    return x.reshape(kv_heads, groups, *fw.shape(x)[1:])


def _flat(fw: Framework, x: Array) -> Array:
    """(Hkv, groups, rows, n) as (H, rows, n)."""
    return x.reshape(-1, *fw.shape(x)[2:])


def _visible(fw: Framework, case: Case, rows: slice) -> Array | None:
    """The mask of some rows, (rows, Skv), True where a query sees a key; None where every one does."""
    if not case.masked:
        return None
    left, right = case.bounds
    position = fw.arange(rows.start + case.kv_len - case.q_len, rows.stop - rows.start)[:, None]
    keys = fw.arange(0, case.kv_len)[None, :]
    visible = keys >= 0
    if right >= 0:
        visible = visible & (keys <= position + right)
    if left >= 0:
        visible = visible & (keys >= position - left)
    return visible
