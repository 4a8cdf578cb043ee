"""Transformer Engine's DotProductAttention; its backend comes from the environment, before it is imported."""

from __future__ import annotations

from typing import Any, Callable

from attnsweep.case import Case
from attnsweep.impls.base import Attention


class TransformerEngineAttention(Attention):
    """transformer_engine.pytorch.DotProductAttention with qkv_format bshd.

    `env.variables` leaves one backend on: NVTE_FUSED_ATTN, NVTE_FLASH_ATTN, NVTE_UNFUSED_ATTN. It raises ValueError
    where that one cannot do the case.
    """

    module = "transformer_engine.pytorch"

    def prepare(self, case: Case, device: str) -> Callable[..., Any]:
        mask_type, window = mask(case)
        attention = self.require("transformer_engine.pytorch").DotProductAttention(
            num_attention_heads=case.num_heads,
            kv_channels=(case.head_dim, case.head_dim_v),
            num_gqa_groups=case.num_kv_heads,
            attention_dropout=0.0,
            qkv_format="bshd",
            attn_mask_type=mask_type,
            window_size=window,
            attention_type="self" if case.q_len == case.kv_len else "cross",
            softmax_scale=case.scale,
        )
        heads = (case.num_heads, case.head_dim_v)

        def call(q: Any, k: Any, v: Any, bias: Any = None) -> Any:
            if bias is None:
                return attention(q, k, v).unflatten(2, heads)
            biased = attention(q, k, v, core_attention_bias_type="post_scale_bias", core_attention_bias=bias)
            return biased.unflatten(2, heads)

        return call


def mask(case: Case) -> tuple[str, tuple[int, int]]:
    """`attn_mask_type` and `window_size` of a case; a window without a causal mask is aligned bottom-right there.

    It allows (-1, 0) and (left, 0) for a causal mask, (-1, -1) and (left, right) for none (2.20,
    check_set_window_size), so an open side of a window is one of kv_len.
    """
    if not case.masked:
        return "no_mask", (-1, -1)
    left, right = case.bounds
    if right == 0:
        return "causal" if case.q_len == case.kv_len else "causal_bottom_right", (left, 0)
    return "no_mask", (case.kv_len if left < 0 else left, case.kv_len if right < 0 else right)
