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


_CAUSAL = (type(None), LowerTriangularFromBottomRightMask)
_LOCAL = (*_CAUSAL, LowerTriangularFromBottomRightLocalAttentionMask, LocalAttentionFromBottomRightMask)


def _operator(biases, available=True):
    return type("Op", (), {"biases": biases, "is_available": classmethod(lambda cls: available)})


# xformers/ops/fmha/{cutlass,flash,flash3,triton_splitk}.py: SUPPORTED_ATTN_BIAS_TYPES, so far as they are used here
XFORMERS_OPS = {
    "cutlass": types.SimpleNamespace(FwOp=_operator(_CAUSAL), BwOp=_operator(_CAUSAL)),
    "flash": types.SimpleNamespace(FwOp=_operator(_LOCAL), BwOp=_operator(_LOCAL)),
    "flash3": types.SimpleNamespace(FwOp=_operator(_LOCAL), BwOp=_operator(_LOCAL)),
    "triton_splitk": types.SimpleNamespace(FwOp=_operator((type(None),))),
}


# xformers/ops/fmha/__init__.py
def memory_efficient_attention(query, key, value, attn_bias=None, p=0.0, scale=None, *, op=None, output_dtype=None):
    backward = any(x.requires_grad for x in (query, key, value))
    assert query.ndim == key.ndim == value.ndim
    assert not (backward and query.ndim == 5), "no BwOp has SUPPORTS_BMGHK"
    ops = XFORMERS_OPS["flash"] if op is None else None
    for one in (ops.FwOp, ops.BwOp) if ops else op[: 1 + backward]:
        assert type(attn_bias) in one.biases
    left = right = None
    if isinstance(attn_bias, LocalAttentionFromBottomRightMask):
        left, right = attn_bias.window_left, attn_bias.window_right
    elif attn_bias is not None:
        left, right = getattr(attn_bias, "_window_size", query.shape[1] + key.shape[1]) - 1, 0
    if query.ndim == 4:
        return attend_bshd(query, key, value, scale, left, right)
    assert query.shape[2:4] == key.shape[2:4] == value.shape[2:4]
    assert key.stride(3) == 0
    out = attend_bshd(query.flatten(2, 3), key[:, :, :, 0], value[:, :, :, 0], scale, left, right)
    return out.unflatten(2, query.shape[2:4])


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
        "xformers.ops.fmha.attn_bias": module(
            LowerTriangularFromBottomRightMask=LowerTriangularFromBottomRightMask,
            LocalAttentionFromBottomRightMask=LocalAttentionFromBottomRightMask,
        ),
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
