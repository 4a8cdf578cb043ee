"""xFormers' memory_efficient_attention: masks are objects of its own, grouped heads a fifth dimension."""

from __future__ import annotations

from typing import Any, Callable

from attnsweep.case import Case
from attnsweep.impls.base import Attention


class XformersAttention(Attention):
    """xformers.ops.memory_efficient_attention in its layout (B, M, H, K), or (B, M, G, H, K) for grouped heads."""

    module = "xformers.ops"

    def prepare(self, case: Case, device: str) -> Callable[..., Any]:
        attend = self.require("xformers.ops").memory_efficient_attention
        mask: Any = None
        if case.effective_causal:
            mask = self.require("xformers.ops.fmha.attn_bias").LowerTriangularFromBottomRightMask()
        scale, groups, kv_heads = case.scale, case.group_size, case.num_kv_heads

        def call(q: Any, k: Any, v: Any, bias: Any = None) -> Any:
            return attend(q, k, v, attn_bias=mask if bias is None else bias, scale=scale)

        def grouped(q: Any, k: Any, v: Any) -> Any:
            # A group's query heads share one key/value head: a view with stride 0, as the library asks for.
            q = q.unflatten(2, (kv_heads, groups))
            k, v = (x.unsqueeze(3).expand(-1, -1, -1, groups, -1) for x in (k, v))
            return attend(q, k, v, attn_bias=mask, scale=scale).flatten(2, 3)

        return grouped if groups > 1 else call
