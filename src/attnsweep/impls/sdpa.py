"""PyTorch's scaled_dot_product_attention, with one backend pinned or with PyTorch's own choice."""

from __future__ import annotations

from typing import Any, Callable

from attnsweep.case import Case
from attnsweep.devices import Device
from attnsweep.errors import ConfigError
from attnsweep.impls.base import Attention
from attnsweep.impls.masks import dense

BACKENDS = ("flash", "cudnn", "efficient", "math")


class SdpaAttention(Attention):
    """torch.nn.functional.scaled_dot_product_attention; `backend` is flash, cudnn, efficient, math or null.

    A cell is a process of its own, so the backend is pinned by switching the others off for the whole process: no
    context manager is entered in the timed call, and PyTorch raises where the one left cannot do the case.
    `is_causal` is aligned top-left there; where that differs from bottom-right a mask is passed instead.
    """

    def __init__(self, *, backend: str | None = None, **common: Any) -> None:
        super().__init__(**common)
        self.backend = backend

    @classmethod
    def validate(cls, impl: dict[str, Any]) -> None:
        super().validate(impl)
        if impl.get("backend") is not None and impl["backend"] not in BACKENDS:
            raise ConfigError(
                f"impl {impl['name']}: backend must be one of {', '.join(BACKENDS)} or null, not {impl['backend']!r}"
            )

    def supports(self, case: Case, device: Device, compile_mode: str) -> str | None:
        if self.backend != "flash":
            return None
        if case.window is not None or (case.effective_causal and case.q_len != case.kv_len):
            return "PyTorch's flash takes no mask but is_causal, which is aligned top-left"
        if case.head_dim != case.head_dim_v:
            return "PyTorch's flash takes one head dim for queries, keys and values"
        if device.kind == "cuda" and case.dtype not in ("fp16", "bf16"):
            return f"PyTorch's flash takes fp16 and bf16 on a GPU, not {case.dtype}"
        return None

    def prepare(self, case: Case, device: str) -> Callable[..., Any]:
        import torch
        from torch.nn.functional import scaled_dot_product_attention

        if self.backend is not None:
            switches = {
                "flash": torch.backends.cuda.enable_flash_sdp,
                "cudnn": torch.backends.cuda.enable_cudnn_sdp,
                "efficient": torch.backends.cuda.enable_mem_efficient_sdp,
                "math": torch.backends.cuda.enable_math_sdp,
            }
            for name, switch in switches.items():
                switch(name == self.backend)
        is_causal = case.effective_causal and case.q_len == case.kv_len and case.window is None
        mask = None if is_causal else dense(case, device)
        keywords: dict[str, Any] = {"scale": case.scale}
        if case.group_size > 1:
            keywords["enable_gqa"] = True

        def call(q: Any, k: Any, v: Any, bias: Any = None) -> Any:
            if bias is None:
                return scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=is_causal, **keywords)
            return scaled_dot_product_attention(q, k, v, attn_mask=bias, **keywords)

        if case.bias == "dense" and case.masked:
            return _with_masked_bias(call, is_causal, case, device)
        return call


def _with_masked_bias(call: Callable[..., Any], is_causal: bool, case: Case, device: str) -> Callable[..., Any]:
    """SDPA takes one mask: a bias and a boolean mask become one additive mask, in every call as a caller would."""
    mask = dense(case, device)

    def masked(q: Any, k: Any, v: Any, bias: Any) -> Any:
        return call(q, k, v, bias.masked_fill(~mask, float("-inf")))  # type: ignore[operator]

    return masked
