"""Libraries of attention as their published signatures have them, computing the plain formula.

What each refuses and how it aligns a mask is copied from its source as facts; the comment before each names it. A
keyword that a library does not have is a TypeError here as it is there. `ALIGNED` set to top-left makes them all wrong.
"""

import types

import torch

#: Where each of them aligns a causal mask or a window, where its source does not say otherwise.
ALIGNED = "bottom-right"


def attend(q, k, v, scale, left=None, right=None, bias=None):
    """softmax(scale * Q K^T + mask + bias) V for (B, H, S, D); key/value heads are shared by groups of query heads."""
    groups = q.shape[1] // k.shape[1]
    k, v = (x.repeat_interleave(groups, dim=1).float() for x in (k, v))
    scores = q.float() @ k.transpose(-1, -2) * scale
    if bias is not None:
        scores = scores + bias
    q_len, kv_len = scores.shape[-2:]
    position = torch.arange(q_len)[:, None] + (kv_len - q_len if ALIGNED == "bottom-right" else 0)
    key = torch.arange(kv_len)[None, :]
    if left is not None:
        scores = scores.masked_fill(key < position - left, float("-inf"))
    if right is not None:
        scores = scores.masked_fill(key > position + right, float("-inf"))
    # A row that sees nothing is zero, as in FlashAttention.
    return (scores.softmax(dim=-1).nan_to_num(0.0) @ v).to(q.dtype)


def attend_bshd(q, k, v, scale, left=None, right=None, bias=None):
    """The same for (B, S, H, D)."""
    return attend(*(x.transpose(1, 2) for x in (q, k, v)), scale, left, right, bias).transpose(1, 2)


def open_below_zero(window, causal):
    """(left, right) with None for an open side, from a window that says so with -1."""
    left, right = (None if side < 0 else side for side in window)
    return left, 0 if causal else right


# flash-attn 2.8.3, flash_attn/flash_attn_interface.py
def fa2_func(
    q,
    k,
    v,
    dropout_p=0.0,
    softmax_scale=None,
    causal=False,
    window_size=(-1, -1),
    softcap=0.0,
    alibi_slopes=None,
    deterministic=False,
    return_attn_probs=False,
):
    return attend_bshd(q, k, v, softmax_scale, *open_below_zero(window_size, causal))


# the same file; no backward
def fa2_with_kvcache(
    q,
    k_cache,
    v_cache,
    k=None,
    v=None,
    rotary_cos=None,
    rotary_sin=None,
    cache_seqlens=None,
    cache_batch_idx=None,
    cache_leftpad=None,
    block_table=None,
    softmax_scale=None,
    causal=False,
    window_size=(-1, -1),
    softcap=0.0,
    rotary_interleaved=True,
    alibi_slopes=None,
    num_splits=0,
    return_softmax_lse=False,
):
    assert k is None
    assert v is None
    out = attend_bshd(q, k_cache, v_cache, softmax_scale, *open_below_zero(window_size, causal)).detach()
    return (out, None) if return_softmax_lse else out


# flash-attention's hopper/flash_attn_interface.py
def fa3_func(
    q,
    k,
    v,
    softmax_scale=None,
    causal=False,
    qv=None,
    q_descale=None,
    k_descale=None,
    v_descale=None,
    window_size=(-1, -1),
    attention_chunk=0,
    softcap=0.0,
    num_splits=1,
    pack_gqa=None,
    deterministic=False,
    sm_margin=0,
):
    return attend_bshd(q, k, v, softmax_scale, *open_below_zero(window_size, causal))


# the same as its first versions had it: out and the log-sum-exp
def fa3_func_of_old(q, k, v, softmax_scale=None, causal=False, window_size=(-1, -1), deterministic=False):
    return fa3_func(q, k, v, softmax_scale, causal, window_size=window_size), torch.zeros(1)


# the same file; no backward
def fa3_with_kvcache(
    q,
    k_cache,
    v_cache,
    k=None,
    v=None,
    qv=None,
    rotary_cos=None,
    rotary_sin=None,
    cache_seqlens=None,
    cache_batch_idx=None,
    cache_leftpad=None,
    page_table=None,
    cu_seqlens_q=None,
    cu_seqlens_k_new=None,
    max_seqlen_q=None,
    rotary_seqlens=None,
    q_descale=None,
    k_descale=None,
    v_descale=None,
    softmax_scale=None,
    causal=False,
    window_size=(-1, -1),
    attention_chunk=0,
    softcap=0.0,
    rotary_interleaved=True,
    scheduler_metadata=None,
    num_splits=0,
    pack_gqa=None,
    sm_margin=0,
    return_softmax_lse=False,
):
    assert k is None
    assert v is None
    return fa2_with_kvcache(q, k_cache, v_cache, softmax_scale=softmax_scale, causal=causal, window_size=window_size)


# flash-attn-4 4.0.0b36, flash_attn/cute/interface.py
def fa4_func(
    q,
    k,
    v,
    qv=None,
    gather_kv_indices=None,
    softmax_scale=None,
    causal=False,
    window_size=(None, None),
    learnable_sink=None,
    softcap=0.0,
    num_splits=1,
    pack_gqa=None,
    deterministic=False,
    score_mod=None,
    score_mod_bwd=None,
    mask_mod=None,
    aux_tensors=None,
    aux_scalars=None,
    block_sparse_tensors=None,
    block_sparse_tensors_bwd=None,
    return_lse=False,
    gather_bwd_recompute_p=False,
    gather_bwd_token_chunk=None,
):
    # _resolve_causal_local_window: two negative sides are open, one alone is a bound like any other
    left, right = window_size
    if left is not None and right is not None and left < 0 and right < 0:
        left = right = None
    return attend_bshd(q, k, v, softmax_scale, left, 0 if causal else right), None


# flash-attn 2.8.3.post2, flash_attn/flash_attn_triton.py: the apply of an autograd function
def fa2_triton_func(q, k, v, bias, causal, softmax_scale, /):
    assert q.shape[2:] == k.shape[2:] == v.shape[2:], "no grouped heads"
    assert q.shape[-1] <= 128
    assert q.dtype in (torch.float16, torch.bfloat16)
    assert not causal or q.shape[1] == k.shape[1], "aligned top-left"
    return attend_bshd(q, k, v, softmax_scale, None, 0 if causal else None, bias)


# xformers 0.0.35, xformers/ops/fmha/attn_bias.py
class LowerTriangularFromBottomRightMask:
    def make_local_attention(self, window_size):
        return LowerTriangularFromBottomRightLocalAttentionMask(window_size)


class LowerTriangularFromBottomRightLocalAttentionMask(LowerTriangularFromBottomRightMask):
    def __init__(self, _window_size):
        assert _window_size > 0
        self._window_size = _window_size


class LocalAttentionFromBottomRightMask:
    def __init__(self, window_left, window_right):
        assert window_left >= 0
        assert window_right >= 0
        self.window_left, self.window_right = window_left, window_right


class LowerTriangularMaskWithTensorBias:
    def __init__(self, bias):
        self._bias = bias


class BlockDiagonalPaddedKeysMask:
    def __init__(self, q_seqlen, kv_padding, kv_seqlen):
        assert len(q_seqlen) == len(kv_seqlen)
        assert max(kv_seqlen) <= kv_padding
        # Of q_seqinfo and k_seqinfo what is read here: max_seqlen is min_seqlen, and no key is padding
        (self.q_len,), (self.kv_len,), self.sequences = set(q_seqlen), {*kv_seqlen, kv_padding}, len(q_seqlen)

    @classmethod
    def from_seqlens(cls, q_seqlen, kv_padding, kv_seqlen, causal_diagonal=None, *, device=None):
        return cls(q_seqlen, kv_padding, kv_seqlen)


class BlockDiagonalCausalWithOffsetPaddedKeysMask(BlockDiagonalPaddedKeysMask):
    pass


class BlockDiagonalLocalAttentionPaddedKeysMask(BlockDiagonalPaddedKeysMask):
    @classmethod
    def from_seqlens_local(cls, q_seqlen, kv_padding, kv_seqlen, window_left, window_right):
        made = cls(q_seqlen, kv_padding, kv_seqlen)
        made.window_left, made.window_right = window_left, window_right
        return made


class BlockDiagonalCausalLocalAttentionPaddedKeysMask(BlockDiagonalPaddedKeysMask):
    @classmethod
    def from_seqlens_local(cls, q_seqlen, kv_padding, kv_seqlen, window_size):
        made = cls(q_seqlen, kv_padding, kv_seqlen)
        made._window_size = window_size
        return made


XFORMERS_BIASES = types.SimpleNamespace(
    **{
        one.__name__: one
        for one in (
            LowerTriangularFromBottomRightMask,
            LocalAttentionFromBottomRightMask,
            LowerTriangularMaskWithTensorBias,
            BlockDiagonalPaddedKeysMask,
            BlockDiagonalCausalWithOffsetPaddedKeysMask,
            BlockDiagonalLocalAttentionPaddedKeysMask,
            BlockDiagonalCausalLocalAttentionPaddedKeysMask,
        )
    }
)
_CAUSAL = (type(None), LowerTriangularFromBottomRightMask)
_LOCAL = (*_CAUSAL, LowerTriangularFromBottomRightLocalAttentionMask, LocalAttentionFromBottomRightMask)
_HALF = (torch.float16, torch.bfloat16)


class _Op:
    """A class of a kernel: its fields have the names and the defaults of xformers/ops/fmha/common.py."""

    SUPPORTED_DTYPES = _HALF
    SUPPORTED_MAX_K, SUPPORTED_MIN_K = 256, 0
    SUPPORTS_CUSTOM_SCALE = True
    SUPPORTS_DIFFERENT_VALUE_EMBED = SUPPORTS_BMGHK = False
    ALIGNED = ("query",)

    @classmethod
    def is_available(cls):
        return True

    @classmethod
    def not_supported_reasons(cls, query, key, value, attn_bias, scale):
        k, kv, inputs = query.shape[-1], value.shape[-1], {"query": query, "key": key, "value": value}
        reasons = {
            "shape[-1]": min(k, kv) >= cls.SUPPORTED_MIN_K and max(k, kv) <= cls.SUPPORTED_MAX_K,
            "query.shape[-1] != value.shape[-1]": k == kv or cls.SUPPORTS_DIFFERENT_VALUE_EMBED,
            "dtype": query.dtype in cls.SUPPORTED_DTYPES,
            f"attn_bias type is {type(attn_bias)}": type(attn_bias) in cls.SUPPORTED_ATTN_BIAS_TYPES,
            "has custom scale": scale is None or cls.SUPPORTS_CUSTOM_SCALE,
            "operator does not support BMGHK format": query.ndim == 4 or cls.SUPPORTS_BMGHK,
        }
        for name in cls.ALIGNED:
            x, step = inputs[name], 16 // query.element_size()
            reasons[f"{name} is not aligned"] = x.shape[-1] % step == x.stride(-2) % step == 0 and x.stride(-1) <= 1
        return [why for why, right in {**reasons, **cls.more(query, key, attn_bias)}.items() if not right]

    @classmethod
    def more(cls, query, key, attn_bias):
        return {}


# cutlass.py of the same folder
class _CutlassFwOp(_Op):
    SUPPORTED_DTYPES = (torch.float32, *_HALF)
    SUPPORTED_MAX_K = 65536
    SUPPORTED_ATTN_BIAS_TYPES = (
        *_CAUSAL,
        LowerTriangularFromBottomRightLocalAttentionMask,
        torch.Tensor,
        LowerTriangularMaskWithTensorBias,
    )
    SUPPORTS_DIFFERENT_VALUE_EMBED = SUPPORTS_BMGHK = True
    ALIGNED = ("query", "value")

    @classmethod
    def more(cls, query, key, attn_bias):
        # _check_bias_alignment
        bias = getattr(attn_bias, "_bias", attn_bias)
        if not isinstance(bias, torch.Tensor):
            return {}
        alignment = 128 // torch.finfo(bias.dtype).bits
        strides = all(bias.stride(d) % alignment == 0 for d in range(bias.ndim - 1))
        return {"attn_bias.stride(-2)": strides, "attn_bias.stride(-1) > 1": bias.stride(-1) <= 1}


class _CutlassBwOp(_CutlassFwOp):
    # "Still some infs/nans in the BW pass for local + causal"; "Fix handling of gradient" of a tensor under a mask
    SUPPORTED_ATTN_BIAS_TYPES = (*_CAUSAL, torch.Tensor)
    SUPPORTS_BMGHK = False
    ALIGNED = ("query", "key", "value")


# cutlass_blackwell.py
class _BlackwellFwOp(_Op):
    SUPPORTED_MAX_K, SUPPORTED_MIN_K = 128, 64
    SUPPORTED_ATTN_BIAS_TYPES = _LOCAL
    SUPPORTS_CUSTOM_SCALE = False
    SUPPORTS_BMGHK = True
    ALIGNED = ()

    @classmethod
    def more(cls, query, key, attn_bias):
        sizes = {"Embed dim": query.shape[-1] in (64, 128), "Only support Mq <= Mk": query.shape[1] <= key.shape[1]}
        return {**sizes, "Only support Mq >= 8": cls.SUPPORTS_BMGHK or query.shape[1] >= 8}


class _BlackwellBwOp(_BlackwellFwOp):
    SUPPORTS_BMGHK = False


# flash.py
class _FlashFwOp(_Op):
    SUPPORTED_ATTN_BIAS_TYPES = _LOCAL
    SUPPORTS_BMGHK = True


class _FlashBwOp(_FlashFwOp):
    SUPPORTS_BMGHK = False


# flash3.py
class _Flash3FwOp(_Op):
    SUPPORTED_MIN_K = 32
    SUPPORTED_ATTN_BIAS_TYPES = _LOCAL
    SUPPORTS_DIFFERENT_VALUE_EMBED = SUPPORTS_BMGHK = True
    ALIGNED = ("query", "value")


class _Flash3BwOp(_Flash3FwOp):
    SUPPORTED_MIN_K = 64
    SUPPORTS_BMGHK = False


class _Flash3FwOpKVSplit(_Flash3FwOp):
    SUPPORTED_ATTN_BIAS_TYPES = (
        type(None),
        BlockDiagonalPaddedKeysMask,
        BlockDiagonalCausalWithOffsetPaddedKeysMask,
        BlockDiagonalLocalAttentionPaddedKeysMask,
        BlockDiagonalCausalLocalAttentionPaddedKeysMask,
    )

    @classmethod
    def more(cls, query, key, attn_bias):
        # _heuristic_kvsplit: it reads the lengths of None too, and of as many queries as keys it splits none
        return {"it splits no keys": attn_bias.q_len != attn_bias.kv_len}


# triton_splitk.py
class _TritonSplitKFwOp(_Op):
    SUPPORTED_MAX_K = 512
    SUPPORTED_ATTN_BIAS_TYPES = (type(None), torch.Tensor)
    SUPPORTS_BMGHK = True
    ALIGNED = ("query", "key", "value")

    @classmethod
    def more(cls, query, key, attn_bias):
        return {"Embed dim": query.shape[-1] in (16, 32, 64, 128, 256, 512)}


XFORMERS_OPS = {
    "cutlass": types.SimpleNamespace(FwOp=_CutlassFwOp, BwOp=_CutlassBwOp),
    "cutlass_blackwell": types.SimpleNamespace(FwOp=_BlackwellFwOp, BwOp=_BlackwellBwOp),
    "flash": types.SimpleNamespace(FwOp=_FlashFwOp, BwOp=_FlashBwOp),
    "flash3": types.SimpleNamespace(FwOp=_Flash3FwOp, BwOp=_Flash3BwOp, FwOp_KVSplit=_Flash3FwOpKVSplit),
    "triton_splitk": types.SimpleNamespace(FwOp=_TritonSplitKFwOp),
}


# dispatch.py, on an H200 without the package flash_attn_3
def xformers_dispatched(query, key, backward):
    """The classes that are tried in turn, forward or backward."""
    if backward:
        return [_FlashBwOp, _CutlassBwOp]
    few = query.ndim == 5 and query.shape[1] <= 32 and key.shape[1] >= 256 and query.shape[0] * query.shape[2] < 64
    return [_FlashFwOp, *([_TritonSplitKFwOp] if few and not query.requires_grad else []), _CutlassFwOp]


# __init__.py, and Inputs.validate_inputs of common.py
def memory_efficient_attention(query, key, value, attn_bias=None, p=0.0, scale=None, *, op=None, output_dtype=None):
    inputs = (query, key, value)
    backward = any(x.requires_grad for x in inputs)
    assert query.ndim == key.ndim == value.ndim
    assert query.dtype == key.dtype == value.dtype
    assert query.shape[2:-1] == key.shape[2:-1] == value.shape[2:-1], "We don't support broadcasting"
    bias = getattr(attn_bias, "_bias", attn_bias if isinstance(attn_bias, torch.Tensor) else None)
    if bias is not None:
        # The C++ below asks for this dtype and, of each group of heads, for this shape
        assert bias.dtype == query.dtype
        assert bias.shape == (query.shape[0], *query.shape[2:-1], query.shape[1], key.shape[1])
        assert not bias.requires_grad
    for direction in range(1 + backward):
        tried = xformers_dispatched(query, key, direction == 1) if op is None else [op[direction]]
        whys = [one.not_supported_reasons(*inputs, attn_bias, scale) for one in tried]
        if all(whys):
            raise NotImplementedError(f"No operator found for `memory_efficient_attention` with inputs: {whys}")
    scale = query.shape[-1] ** -0.5 if scale is None else scale
    left = right = None
    if isinstance(attn_bias, LowerTriangularMaskWithTensorBias):
        bias = bias + torch.full(bias.shape[-2:], float("-inf")).triu(1)  # aligned top-left
    elif hasattr(attn_bias, "window_left"):
        left, right = attn_bias.window_left, attn_bias.window_right
    elif isinstance(attn_bias, (LowerTriangularFromBottomRightMask, BlockDiagonalCausalWithOffsetPaddedKeysMask)):
        left, right = getattr(attn_bias, "_window_size", query.shape[1] + key.shape[1]) - 1, 0
    elif hasattr(attn_bias, "_window_size"):
        left, right = attn_bias._window_size - 1, 0
    heads = query.shape[2:-1]
    if query.ndim == 5:
        assert key.stride(3) == value.stride(3) == 0
        query, key, value = query.flatten(2, 3), key[:, :, :, 0], value[:, :, :, 0]
        bias = None if bias is None else bias.flatten(1, 2)
    if isinstance(attn_bias, BlockDiagonalPaddedKeysMask):
        assert len(query) == 1
        lengths = (attn_bias.q_len, attn_bias.kv_len, attn_bias.kv_len)
        query, key, value = (
            x[0].unflatten(0, (attn_bias.sequences, length)) for x, length in zip((query, key, value), lengths)
        )
        return attend_bshd(query, key, value, scale, left, right).flatten(0, 1).unflatten(1, heads).unsqueeze(0)
    return attend_bshd(query, key, value, scale, left, right, bias).unflatten(2, heads)


def _rounded(x, steps):
    """x as it is after rounding to `steps` steps on each side of zero, by the largest of a token."""
    step = x.float().abs().amax(dim=-1, keepdim=True).clamp_min(1e-6) / steps
    return ((x.float() / step).round() * step).to(x.dtype)


def _sage(q, k, v, tensor_layout, is_causal, sm_scale, smooth_k, steps_v=None):
    tokens = {"HND": 2, "NHD": 1}[tensor_layout]
    q, k, v = (x.detach() for x in (q, k, v))
    # "Only applicable when qo_len == kv_len": nothing says where it would be aligned
    assert not is_causal or q.shape[tokens] == k.shape[tokens]
    if smooth_k:
        k = k - k.mean(dim=tokens, keepdim=True)
    v = v if steps_v is None else _rounded(v, steps_v)
    function = attend if tensor_layout == "HND" else attend_bshd
    return function(_rounded(q, 127), _rounded(k, 127), v, sm_scale, None, 0 if is_causal else None)


# sageattention 1.0.6, sageattention/core.py
def sageattn(q, k, v, tensor_layout="HND", is_causal=False, sm_scale=None, smooth_k=True, **kwargs):
    assert not kwargs
    assert q.shape[-1] in (64, 96, 128)
    if smooth_k:
        k -= k.mean(dim={"HND": 2, "NHD": 1}[tensor_layout], keepdim=True)
    return _sage(q, k, v, tensor_layout, is_causal, sm_scale, False)


# SageAttention 2's sageattention/core.py
def sageattn_qk_int8_pv_fp16_cuda(
    q,
    k,
    v,
    tensor_layout="HND",
    is_causal=False,
    qk_quant_gran="per_thread",
    sm_scale=None,
    pv_accum_dtype="fp32",
    smooth_k=True,
    smooth_v=False,
    return_lse=False,
    **kwargs,
):
    assert not kwargs
    return _sage(q, k, v, tensor_layout, is_causal, sm_scale, smooth_k)


def sageattn_qk_int8_pv_fp16_triton(
    q,
    k,
    v,
    tensor_layout="HND",
    quantization_backend="triton",
    is_causal=False,
    sm_scale=None,
    smooth_k=True,
    return_lse=False,
    **kwargs,
):
    assert not kwargs
    return _sage(q, k, v, tensor_layout, is_causal, sm_scale, smooth_k)


def sageattn_qk_int8_pv_fp8_cuda_sm90(
    q,
    k,
    v,
    tensor_layout="HND",
    is_causal=False,
    qk_quant_gran="per_thread",
    sm_scale=None,
    pv_accum_dtype="fp32+fp32",
    smooth_k=True,
    return_lse=False,
    **kwargs,
):
    assert not kwargs
    return _sage(q, k, v, tensor_layout, is_causal, sm_scale, smooth_k, steps_v=32)


# transformer-engine 2.20.2, pytorch/attention/dot_product_attention/{dot_product_attention,utils}.py
class DotProductAttention:
    def __init__(
        self,
        num_attention_heads,
        kv_channels,
        num_gqa_groups=None,
        attention_dropout=0.0,
        qkv_format="sbhd",
        attn_mask_type="causal",
        window_size=None,
        bottom_right_diagonal=None,
        softcap=0.0,
        sequence_parallel=False,
        tp_size=1,
        get_rng_state_tracker=None,
        tp_group=None,
        layer_number=None,
        attention_type="self",
        cp_group=None,
        cp_global_ranks=None,
        cp_stream=None,
        cp_comm_type="p2p",
        softmax_scale=None,
        softmax_type="vanilla",
        return_max_logit=False,
        name=None,
    ):
        # check_set_window_size
        causal = "causal" in attn_mask_type
        left, right = window_size if window_size is not None else (-1, 0 if causal else -1)
        assert right == 0 if causal else (left, right) == (-1, -1) or min(left, right) >= 0
        assert qkv_format == "bshd"
        self.shapes = (num_attention_heads, num_gqa_groups, *kv_channels)
        self.mask_type, self.type, self.scale = attn_mask_type, attention_type, softmax_scale
        self.left, self.right = (None if side < 0 else side for side in (left, right))

    def __call__(
        self,
        query_layer=None,
        key_layer=None,
        value_layer=None,
        attention_mask=None,
        qkv_format=None,
        *,
        core_attention_bias_type="no_bias",
        core_attention_bias=None,
    ):
        assert (query_layer.shape[2], key_layer.shape[2], key_layer.shape[3], value_layer.shape[3]) == self.shapes
        same = query_layer.shape[1] == key_layer.shape[1]
        assert self.type == ("self" if same else "cross")
        assert self.mask_type != "causal" or same, "aligned top-left"
        assert (core_attention_bias_type == "post_scale_bias") == (core_attention_bias is not None)
        inputs = (query_layer, key_layer, value_layer, self.scale, self.left, self.right, core_attention_bias)
        return attend_bshd(*inputs).flatten(2, 3)


def _lengths(indptr):
    assert indptr.dtype == torch.int32
    (length,) = set(indptr.diff().tolist())
    return length


# flashinfer-python 0.7.2.post1, flashinfer/prefill.py
class BatchPrefillWithRaggedKVCacheWrapper:
    def __init__(
        self,
        float_workspace_buffer,
        kv_layout="NHD",
        use_cuda_graph=False,
        qo_indptr_buf=None,
        kv_indptr_buf=None,
        custom_mask_buf=None,
        mask_indptr_buf=None,
        backend="auto",
        jit_args=None,
        jit_kwargs=None,
        variant_owns_mask=False,
    ):
        assert float_workspace_buffer.dtype == torch.uint8
        assert kv_layout == "NHD"
        assert backend in ("fa2", "fa3")

    def plan(
        self,
        qo_indptr,
        kv_indptr,
        num_qo_heads,
        num_kv_heads,
        head_dim_qk,
        head_dim_vo=None,
        custom_mask=None,
        packed_custom_mask=None,
        causal=False,
        pos_encoding_mode="NONE",
        use_fp16_qk_reduction=False,
        window_left=-1,
        logits_soft_cap=None,
        sm_scale=None,
        rope_scale=None,
        rope_theta=None,
        q_data_type="float16",
        kv_data_type=None,
        o_data_type=None,
    ):
        self.q_len, self.kv_len = _lengths(qo_indptr), _lengths(kv_indptr)
        self.shapes = [(num_qo_heads, head_dim_qk), (num_kv_heads, head_dim_qk), (num_kv_heads, head_dim_vo)]
        self.dtype, self.scale = getattr(torch, q_data_type), sm_scale
        self.left, self.right = None if window_left < 0 else window_left, 0 if causal else None

    def run(self, q, k, v, *args, out=None, lse=None, return_lse=False, enable_pdl=None):
        assert [tuple(x.shape[1:]) for x in (q, k, v)] == self.shapes
        assert q.dtype == self.dtype
        q, k, v = (
            x.detach().unflatten(0, (-1, length)) for x, length in ((q, self.q_len), (k, self.kv_len), (v, self.kv_len))
        )
        return attend_bshd(q, k, v, self.scale, self.left, self.right).flatten(0, 1)


# flashinfer-python 0.7.2.post1, flashinfer/decode.py
class BatchDecodeWithPagedKVCacheWrapper:
    def __init__(
        self,
        float_workspace_buffer,
        kv_layout="NHD",
        use_cuda_graph=False,
        use_tensor_cores=False,
        paged_kv_indptr_buffer=None,
        paged_kv_indices_buffer=None,
        paged_kv_last_page_len_buffer=None,
        backend="auto",
        jit_args=None,
    ):
        assert not float_workspace_buffer.any(), "must be initialized to 0 for its first use"
        assert kv_layout == "NHD"
        self.use_tensor_cores = use_tensor_cores

    def plan(
        self,
        indptr,
        indices,
        last_page_len,
        num_qo_heads,
        num_kv_heads,
        head_dim,
        page_size,
        *,
        pos_encoding_mode="NONE",
        window_left=-1,
        window_right=0,
        logits_soft_cap=None,
        q_data_type="float16",
        kv_data_type=None,
        o_data_type=None,
        data_type=None,
        sm_scale=None,
        rope_scale=None,
        rope_theta=None,
        non_blocking=True,
        block_tables=None,
        seq_lens=None,
        fixed_split_size=None,
        disable_split_kv=False,
        q_len_per_req=1,
        is_causal=None,
    ):
        assert self.use_tensor_cores or (q_len_per_req == 1 and num_qo_heads // num_kv_heads in (1, 2, 3, 4, 6, 8, 16))
        assert indices.dtype == last_page_len.dtype == torch.int32
        self.pages, self.last = indices.view(-1, _lengths(indptr)), set(last_page_len.tolist())
        self.q_shape, self.kv_shape = (num_qo_heads, head_dim), (page_size, num_kv_heads, head_dim)
        self.q_len, self.dtype, self.scale = q_len_per_req, getattr(torch, q_data_type), sm_scale
        self.left = None if window_left < 0 else window_left

    def run(self, q, paged_kv_cache, *args, out=None, lse=None, return_lse=False, enable_pdl=None, window_left=None):
        k, v = paged_kv_cache
        assert tuple(q.shape[1:]) == self.q_shape
        assert tuple(k.shape[1:]) == tuple(v.shape[1:]) == self.kv_shape
        assert q.dtype == self.dtype
        assert self.last == {self.kv_shape[0]}
        k, v = (x.detach()[self.pages.long()].flatten(1, 2) for x in (k, v))
        q = q.detach().unflatten(0, (-1, self.q_len))
        return attend_bshd(q, k, v, self.scale, self.left, 0 if self.q_len > 1 else None).flatten(0, 1)


def modules():
    """What sys.modules would hold if they were installed."""
    module = types.SimpleNamespace
    hub = module(flash_attn_func=fa2_func, __name__="kernel")
    fa3 = module(flash_attn_func=fa3_func, flash_attn_with_kvcache=fa3_with_kvcache)
    return {
        "flash_attn": module(flash_attn_func=fa2_func, flash_attn_with_kvcache=fa2_with_kvcache),
        "flash_attn.flash_attn_triton": module(flash_attn_func=fa2_triton_func),
        "flash_attn.cute": module(flash_attn_func=fa4_func),
        "flash_attn_interface": fa3,
        "xformers.ops": module(memory_efficient_attention=memory_efficient_attention),
        "xformers.ops.fmha.attn_bias": XFORMERS_BIASES,
        **{f"xformers.ops.fmha.{name}": ops for name, ops in XFORMERS_OPS.items()},
        "sageattention": module(
            sageattn=sageattn,
            sageattn_qk_int8_pv_fp16_cuda=sageattn_qk_int8_pv_fp16_cuda,
            sageattn_qk_int8_pv_fp16_triton=sageattn_qk_int8_pv_fp16_triton,
            sageattn_qk_int8_pv_fp8_cuda_sm90=sageattn_qk_int8_pv_fp8_cuda_sm90,
        ),
        "transformer_engine.pytorch": module(DotProductAttention=DotProductAttention),
        "kernels": module(
            get_kernel=lambda repo_id, *, revision=None, version=None, trust_remote_code=False: {
                "kernels-community/flash-attn2": hub,
                "kernels-community/flash-attn3": fa3,
            }[repo_id]
        ),
        "flashinfer": module(
            BatchPrefillWithRaggedKVCacheWrapper=BatchPrefillWithRaggedKVCacheWrapper,
            BatchDecodeWithPagedKVCacheWrapper=BatchDecodeWithPagedKVCacheWrapper,
        ),
    }
