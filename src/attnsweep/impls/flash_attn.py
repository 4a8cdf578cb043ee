"""flash-attn's version in Triton, whose function is called by position."""

from __future__ import annotations

from typing import Any, Callable

from attnsweep.case import Case
from attnsweep.impls.base import Attention


class FlashAttentionTriton(Attention):
    """flash_attn.flash_attn_triton.flash_attn_func(q, k, v, bias, causal, softmax_scale), in bshd.

    It is the `apply` of an autograd function (2.8.3, flash_attn_triton.py): PyTorch's takes no keywords, or with them
    none of the defaults (2.13).
    """

    module = "flash_attn.flash_attn_triton"

    def prepare(self, case: Case, device: str) -> Callable[..., Any]:
        attend = self.require("flash_attn.flash_attn_triton").flash_attn_func
        causal, scale = case.effective_causal, case.scale

        def call(q: Any, k: Any, v: Any, bias: Any = None) -> Any:
            return attend(q, k, v, bias, causal, scale)

        return call
