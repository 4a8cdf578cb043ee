"""xFormers' memory_efficient_attention; grouped heads as its five-dimensional tensors with an expanded dimension."""

from __future__ import annotations

from typing import Any, Callable

from attnsweep.case import Case
from attnsweep.devices import Device
from attnsweep.errors import ConfigError, Missing
from attnsweep.impls.base import Attention

#: Its own kernels: the module of xformers.ops.fmha and the pair of classes there (0.0.35), forward and backward.
OPS = {
    "cutlass": ("cutlass", "FwOp", "BwOp"),
    "flash": ("flash", "FwOp", "BwOp"),
    "flash3": ("flash3", "FwOp", "BwOp"),
    "triton_splitk": ("triton_splitk", "FwOp", None),
}


class XformersAttention(Attention):
    """xformers.ops.memory_efficient_attention in its layout (B, M, H, K), or (B, M, G, H, K) for grouped heads.

    `op` pins one of its kernels, forward and backward; it raises where that one cannot do the case. null lets it
    dispatch.
    """

    module = "xformers.ops"

    def __init__(self, *, op: str | None = None, **common: Any) -> None:
        super().__init__(**common)
        self.op = op

    @classmethod
    def validate(cls, impl: dict[str, Any]) -> None:
        super().validate(impl)
        if impl.get("op") is not None and impl["op"] not in tuple(OPS):
            raise ConfigError(f"impl {impl['name']}: op must be one of {', '.join(OPS)} or null, not {impl['op']!r}")

    def supports(self, case: Case, device: Device, compile_mode: str) -> str | None:
        if case.group_size > 1 and case.direction != "fwd":
            return "xFormers has no backward for grouped heads"
        if case.direction != "fwd" and self.op is not None and OPS[self.op][2] is None:
            return f"xFormers' {self.op} has no backward"
        return None

    def prepare(self, case: Case, device: str) -> Callable[..., Any]:
        attend = self.require("xformers.ops").memory_efficient_attention
        mask, op = self._mask(case), self._pinned()
        scale, groups, kv_heads = case.scale, case.group_size, case.num_kv_heads

        def call(q: Any, k: Any, v: Any, bias: Any = None) -> Any:
            return attend(q, k, v, attn_bias=mask if bias is None else bias, scale=scale, op=op)

        def grouped(q: Any, k: Any, v: Any) -> Any:
            # A group's query heads share one key/value head: a view with stride 0, as the library asks for.
            q = q.unflatten(2, (kv_heads, groups))
            k, v = (x.unsqueeze(3).expand(-1, -1, -1, groups, -1) for x in (k, v))
            return attend(q, k, v, attn_bias=mask, scale=scale, op=op).flatten(2, 3)

        return grouped if groups > 1 else call

    def _mask(self, case: Case) -> Any:
        """The mask as one of its bias classes, aligned bottom-right; None where every key is seen."""
        if not case.masked:
            return None
        biases = self.require("xformers.ops.fmha.attn_bias")
        left, right = case.bounds
        if right == 0:
            causal = biases.LowerTriangularFromBottomRightMask()
            # Its window counts the query's own key.
            return causal if left < 0 else causal.make_local_attention(left + 1)
        left, right = (case.kv_len if side < 0 else side for side in (left, right))
        return biases.LocalAttentionFromBottomRightMask(window_left=left, window_right=right)

    def _pinned(self) -> tuple[Any, Any] | None:
        """The pinned classes, forward and backward; raises Missing where this build of xFormers lacks them."""
        if self.op is None:
            return None
        module, forward, backward = OPS[self.op]
        classes = self.require(f"xformers.ops.fmha.{module}")
        pair = getattr(classes, forward), None if backward is None else getattr(classes, backward)
        if not all(one.is_available() for one in pair if one is not None):
            raise Missing(f"this build of xFormers has no {self.op}; python -m xformers.info says what it has")
        return pair
