"""xFormers' memory_efficient_attention: what each of its kernels takes; grouped heads as five-dimensional tensors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Callable

from attnsweep.case import Case
from attnsweep.devices import Device
from attnsweep.errors import ConfigError, Missing
from attnsweep.impls.base import Attention, is_absent

#: What a case may ask of attn_bias.
_CAUSAL, _CAUSAL_WINDOW, _WINDOW = "causal mask", "causal window", "window that is not causal"
_BIAS, _CAUSAL_BIAS = "bias", "bias under a causal mask"
#: None of its classes is this one.
_MASKED_BIAS = "bias under a window, or under a causal mask with q_len unlike kv_len"

_MASKS = frozenset({_CAUSAL, _CAUSAL_WINDOW, _WINDOW})


@dataclass(frozen=True)
class _Op:
    """One of its kernels (0.0.35): its module of xformers.ops.fmha, and what its classes there take as attn_bias beside
    None, `forward_class` and BwOp; `backward` is None where there is no BwOp. `needs` is installed beside xFormers, and
    `places` are modules of which one must be there for that.
    """

    module: str
    forward: frozenset[str]
    backward: frozenset[str] | None
    needs: str | None = None
    places: tuple[str, ...] = ()
    forward_class: str = "FwOp"


#: flash3.py of 0.0.35 imports the first of them alone; earlier ones also the second, or the kernel in xFormers itself,
#: later ones leave it to mslk.
_FLASH3 = ("flash_attn_3._C", "flash_attn_interface", "xformers.flash_attn_3._C", "xformers._C_flashattention3", "mslk")
_BLACKWELL = ("fbgemm_gpu", "mslk")

OPS = {
    "cutlass": _Op("cutlass", frozenset({_CAUSAL, _CAUSAL_WINDOW, _BIAS, _CAUSAL_BIAS}), frozenset({_CAUSAL, _BIAS})),
    "cutlass_blackwell": _Op("cutlass_blackwell", _MASKS, _MASKS, "fbgemm-gpu-genai", _BLACKWELL),
    "flash": _Op("flash", _MASKS, _MASKS),
    "flash3": _Op("flash3", _MASKS, _MASKS, "flash_attn_3", _FLASH3),
    "flash3_splitkv": _Op("flash3", _MASKS, None, "flash_attn_3", _FLASH3, "FwOp_KVSplit"),
    "triton_splitk": _Op("triton_splitk", frozenset({_BIAS}), None),
}


class XformersAttention(Attention):
    """xformers.ops.memory_efficient_attention in its layout (B, M, H, K), or (B, M, G, H, K) for grouped heads.

    `op` pins one of its kernels, forward and backward; it raises where that one cannot do the case. null lets it
    dispatch. No scale is passed: its own is the case's, and cutlass_blackwell takes no other.
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
        backward = case.direction != "fwd"
        if case.group_size > 1 and backward:
            return "xFormers has no backward for grouped heads"
        if self.op is not None and backward and OPS[self.op].backward is None:
            return f"xFormers' {self.op} has no backward"
        if self.op == "flash3_splitkv" and case.q_len == case.kv_len:
            return "xFormers' flash3_splitkv splits no keys where q_len is kv_len"
        if self.op == "cutlass_blackwell" and case.q_len > case.kv_len:
            return "xFormers' cutlass_blackwell takes no more queries than keys"
        if self.op == "cutlass_blackwell" and backward and case.q_len < 8:
            return "xFormers' cutlass_blackwell takes no fewer than 8 queries backward"
        asked, names = _asked(case), _dispatched(case, device) if self.op is None else [self.op]
        if not names:
            return "xFormers has no kernel of its own for this dtype and these head dims on this GPU"
        taking = [(OPS[name].backward if backward else OPS[name].forward) or () for name in names]
        if asked is None or any(asked in taken for taken in taking):
            return None
        who = f"xFormers' {' and '.join(names)} take{'s' if len(names) == 1 else ''}"
        return f"{who} no {asked}{' backward' if backward else ''}"

    def why_missing(self) -> str | None:
        why = super().why_missing()
        if why is not None or self.op is None or not OPS[self.op].places:
            return why
        return self._lacking() if all(map(is_absent, OPS[self.op].places)) else None

    def lay_out_bias(self, bias: Any) -> Any:
        """Rows 16 bytes apart or a multiple of that, without which CUTLASS refuses it: a slice of a larger tensor, as
        its message asks for.
        """
        kv_len, step = bias.shape[-1], 16 // bias.element_size()
        if bias.stride(-2) % step == 0:
            return bias
        from torch.nn.functional import pad

        return pad(bias, (0, -kv_len % step))[..., :kv_len]

    def prepare(self, case: Case, device: str) -> Callable[..., Any]:
        attend = self.require("xformers.ops").memory_efficient_attention
        attn_bias, op = self._attn_bias(case), self._pinned()
        groups, kv_heads = case.group_size, case.num_kv_heads

        def call(q: Any, k: Any, v: Any, bias: Any = None) -> Any:
            return attend(q, k, v, attn_bias=attn_bias(bias), op=op)

        def grouped(q: Any, k: Any, v: Any, bias: Any = None) -> Any:
            # A group's query heads share one key/value head: a view with stride 0, as the library asks for.
            q = q.unflatten(2, (kv_heads, groups))
            k, v = (x.unsqueeze(3).expand(-1, -1, -1, groups, -1) for x in (k, v))
            return attend(q, k, v, attn_bias=attn_bias(bias), op=op).flatten(2, 3)

        function = grouped if groups > 1 else call
        if self.op != "flash3_splitkv":
            return function
        sequences = (case.batch_size, case.q_len)

        def in_one_row(q: Any, k: Any, v: Any) -> Any:
            q, k, v = (x.flatten(0, 1).unsqueeze(0) for x in (q, k, v))
            return function(q, k, v).squeeze(0).unflatten(0, sequences)

        return in_one_row

    def _attn_bias(self, case: Case) -> Callable[[Any], Any]:
        """From the bias of a call, or None, to what is passed as attn_bias."""
        if case.bias == "none":
            mask = self._mask_in_one_row(case) if self.op == "flash3_splitkv" else self._mask(case)
            return lambda _: mask
        heads = (case.num_heads,) if case.group_size == 1 else (case.num_kv_heads, case.group_size)
        shape = (case.batch_size, *heads, case.q_len, case.kv_len)

        def expanded(bias: Any) -> Any:
            # In one step: a view that splits the heads would give a single row another stride, and CUTLASS looks at it
            _, head, *row = bias.stride()
            return bias.as_strided(shape, (0, *(head * count for count in heads[1:]), head, *row))

        if not case.masked:
            return expanded
        # It is aligned top-left, which is bottom-right where q_len is kv_len
        causal = self.require("xformers.ops.fmha.attn_bias").LowerTriangularMaskWithTensorBias
        return lambda bias: causal(expanded(bias))

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

    def _mask_in_one_row(self, case: Case) -> Any:
        """The mask for sequences that stand one after the other in one, the only form in which flash3 splits keys."""
        biases = self.require("xformers.ops.fmha.attn_bias")
        lengths = ([case.q_len] * case.batch_size, case.kv_len, [case.kv_len] * case.batch_size)
        left, right = case.bounds
        if not case.masked:
            return biases.BlockDiagonalPaddedKeysMask.from_seqlens(*lengths)
        if right == 0 and left < 0:
            return biases.BlockDiagonalCausalWithOffsetPaddedKeysMask.from_seqlens(*lengths)
        if right == 0:
            return biases.BlockDiagonalCausalLocalAttentionPaddedKeysMask.from_seqlens_local(
                *lengths, window_size=left + 1
            )
        left, right = (case.kv_len if side < 0 else side for side in (left, right))
        return biases.BlockDiagonalLocalAttentionPaddedKeysMask.from_seqlens_local(
            *lengths, window_left=left, window_right=right
        )

    def _pinned(self) -> tuple[Any, Any] | None:
        """The pinned classes, forward and backward; raises Missing where this build of xFormers lacks them."""
        if self.op is None:
            return None
        op = OPS[self.op]
        classes = self.require(f"xformers.ops.fmha.{op.module}")
        pair = getattr(classes, op.forward_class), None if op.backward is None else classes.BwOp
        if not all(one.is_available() for one in pair if one is not None):
            raise Missing(self._lacking())
        return pair

    def _lacking(self) -> str:
        """That this build has not what `op` names, and how to get what it needs, where the YAML says that."""
        needs = None if self.op is None else OPS[self.op].needs
        why = f"this build of xFormers has no {self.op}{'' if needs is None else f', which needs {needs}'}"
        if needs is None or self.pip is None:
            return f"{why}; python -m xformers.info says what it has"
        return self.install(f"{why} (python -m xformers.info says what it has)")


def _asked(case: Case) -> str | None:
    """What the case asks of attn_bias, None where every key is seen and nothing is added."""
    left, right = case.bounds
    if case.bias != "none":
        if not case.masked:
            return _BIAS
        return _CAUSAL_BIAS if (left, right) == (-1, 0) and case.q_len == case.kv_len else _MASKED_BIAS
    if not case.masked:
        return None
    if right != 0:
        return _WINDOW
    return _CAUSAL if left < 0 else _CAUSAL_WINDOW


def _dispatched(case: Case, device: Device) -> list[str]:
    """The kernels that it chooses among for the case's dtype and head dims on this device (dispatch.py of 0.0.35),
    without what needs other packages. triton_splitk, which is tried for a few grouped queries too, takes no mask.
    """
    capability = device.compute_capability or 0
    flash = case.dtype != "fp32" and case.head_dim == case.head_dim_v <= 256 and capability >= 8.0
    return [name for name, takes in (("flash", flash), ("cutlass", capability <= 9.0)) if takes]
