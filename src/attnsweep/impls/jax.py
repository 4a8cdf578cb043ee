"""Attention in JAX: jax.nn.dot_product_attention, Pallas' Mosaic-GPU kernel, and jax-flash-attn2 with chosen blocks."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any, Callable

from attnsweep.case import Case
from attnsweep.devices import Device
from attnsweep.errors import ConfigError
from attnsweep.impls.base import Attention
from attnsweep.impls.masks import visible

IMPLEMENTATIONS = ("xla", "cudnn")
PRECISIONS = ("highest", "high", "default")

#: Shared memory that a kernel may have on sm90, and warpgroups that compute in Mosaic-GPU's.
_SHARED_BYTES, _WARPGROUPS = 227 * 1024, 2

#: So many blocks in words.
_BLOCKS = {1: "a block", 2: "two blocks"}


class JaxAttention(Attention):
    """jax.nn.dot_product_attention with `implementation` xla or cudnn; grouped heads are native.

    Its `is_causal` and its window are aligned top-left (jax/_src/nn/functions.py of 0.10.2: `jnp.tril`), which is
    bottom-right where q_len is kv_len. Elsewhere a mask made of indices in the call is passed, which XLA fuses; cuDNN
    gets it as a bias. `matmul_precision` is jax.default_matmul_precision's; null is JAX's default, TF32 for fp32.
    """

    framework = "jax"

    def __init__(self, *, implementation: str, matmul_precision: str | None = None, **common: Any) -> None:
        super().__init__(**common)
        self.implementation = implementation
        self.matmul_precision = matmul_precision

    @classmethod
    def validate(cls, impl: dict[str, Any]) -> None:
        super().validate(impl)
        name, given, precision = impl["name"], impl["implementation"], impl.get("matmul_precision")
        if given not in IMPLEMENTATIONS:
            raise ConfigError(f"impl {name}: implementation must be one of {', '.join(IMPLEMENTATIONS)}, not {given!r}")
        if precision is not None and precision not in PRECISIONS:
            raise ConfigError(
                f"impl {name}: matmul_precision must be one of {', '.join(PRECISIONS)} or null, not {precision!r}"
            )

    def supports(self, case: Case, device: Device, compile_mode: str) -> str | None:
        if case.head_dim != case.head_dim_v:
            return "jax.nn.dot_product_attention takes values of the keys' shape"
        if device.kind == "cuda" and case.dtype == "fp32" and self.matmul_precision != "highest":
            return "JAX computes fp32 products in TF32 on a GPU; impl.matmul_precision=highest asks for fp32"
        if device.kind == "cpu" and case.dtype == "fp16":
            return "JAX's fp16 products, which are summed in fp32, are for GPUs"
        return None

    def prepare(self, case: Case, device: str) -> Callable[..., Any]:
        import jax
        import jax.numpy as jnp

        said, precision = self._mask(case), self.matmul_precision
        dense = case.masked and not said
        keywords = {"scale": case.scale, "implementation": self.implementation, **said}

        def call(q: Any, k: Any, v: Any, bias: Any = None) -> Any:
            mask = None
            if dense:
                queries, keys = jnp.arange(case.q_len)[:, None], jnp.arange(case.kv_len)[None, :]
                mask = visible(case)(queries, keys)[None, None]
            with nullcontext() if precision is None else jax.default_matmul_precision(precision):
                return jax.nn.dot_product_attention(q, k, v, bias, mask, **keywords)

        return call

    def _mask(self, case: Case) -> dict[str, Any]:
        """The keywords that say the case's mask; none where there is none, or where they cannot say it."""
        left, right = case.bounds
        # cuDNN has a left side alone, and only under a causal mask
        if not case.masked or case.q_len != case.kv_len or (self.implementation == "cudnn" and right != 0):
            return {}
        if left < 0 and right == 0:
            return {"is_causal": True}
        sides = tuple(case.kv_len if side < 0 else side for side in (left, right))
        return {"is_causal": right == 0, "local_window_size": sides}


class MosaicAttention(Attention):
    """jax.experimental.pallas.ops.gpu.attention_mgpu.attention, FlashAttention-3's scheme on sm90; fp16.

    Two warpgroups take `block_q` queries each, and `max_concurrent_steps` blocks of `block_kv` keys are in flight. Of
    the backward pass, which knows no causal mask, one kernel keeps `block_q_dq` queries and goes over blocks of
    `block_kv_dq` keys, the other keeps `block_kv_dkv` keys and goes over blocks of `block_q_dkv` queries, in each of
    `compute_wgs_bwd` warpgroups. It does not scale the scores: q is scaled in each call, as its caller must.
    """

    framework = "jax"
    module = "jax.experimental.pallas.ops.gpu.attention_mgpu"

    def __init__(
        self,
        *,
        block_q: int = 64,
        block_kv: int = 128,
        max_concurrent_steps: int = 2,
        block_q_dq: int = 64,
        block_kv_dq: int = 64,
        block_q_dkv: int = 64,
        block_kv_dkv: int = 64,
        compute_wgs_bwd: int = 2,
        **common: Any,
    ) -> None:
        super().__init__(**common)
        self.block_q, self.block_kv, self.max_concurrent_steps = block_q, block_kv, max_concurrent_steps
        self.backward = {
            "block_q_dq": block_q_dq,
            "block_kv_dq": block_kv_dq,
            "block_q_dkv": block_q_dkv,
            "block_kv_dkv": block_kv_dkv,
            "compute_wgs_bwd": compute_wgs_bwd,
        }

    @classmethod
    def validate(cls, impl: dict[str, Any]) -> None:
        super().validate(impl)
        for key in ("block_q", "block_kv", "block_q_dq", "block_kv_dq", "block_q_dkv", "block_kv_dkv"):
            _multiple(impl, key, impl.get(key, 64), 64)
        steps, warpgroups = impl.get("max_concurrent_steps", 2), impl.get("compute_wgs_bwd", 2)
        if warpgroups not in _BLOCKS or isinstance(warpgroups, bool):
            raise ConfigError(f"impl {impl['name']}: compute_wgs_bwd must be 1 or 2, not {warpgroups!r}")
        if not isinstance(steps, int) or steps < 2:
            raise ConfigError(f"impl {impl['name']}: max_concurrent_steps must be 2 or more, not {steps!r}")

    def supports(self, case: Case, device: Device, compile_mode: str) -> str | None:
        if case.head_dim % 64:
            return f"head_dim {case.head_dim} is no multiple of 64"
        if case.direction != "fwd" and case.effective_causal:
            return "its backward pass takes no causal mask"
        if case.direction != "fwd" and compile_mode == "eager":
            return "outside jax.jit its backward pass is compiled anew in each call. Use compile=jit"
        queries, keys = self._blocks(case)
        for count, size in queries:
            if case.q_len % (count * size):
                return f"q_len {case.q_len} is no multiple of {_BLOCKS[count]} of {size} queries"
        for count, size in keys:
            if case.kv_len % (count * size):
                return f"kv_len {case.kv_len} is no multiple of {_BLOCKS[count]} of {size} keys"
        held = self._held(case)
        if held > _SHARED_BYTES:
            return f"its blocks take {held} bytes of shared memory, and there are {_SHARED_BYTES}: smaller ones may fit"
        return None

    def _blocks(self, case: Case) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
        """(how many, of which size): blocks of which q_len must be a multiple, and those for kv_len."""
        queries, keys = [(_WARPGROUPS, self.block_q)], [(1, self.block_kv)]
        if case.direction != "fwd":
            sizes, warpgroups = self.backward, self.backward["compute_wgs_bwd"]
            queries += [(warpgroups, sizes["block_q_dq"]), (1, sizes["block_q_dkv"])]
            keys += [(1, sizes["block_kv_dq"]), (warpgroups, sizes["block_kv_dkv"])]
        return queries, keys

    def _held(self, case: Case) -> int:
        """Bytes of shared memory for the rows that the largest of the kernels keeps, and those that it has in flight:
        q and k, v forward; q, dO and k, v for dQ; k, v and q, dO for dK and dV.
        """
        steps = min(self.max_concurrent_steps, case.kv_len // self.block_kv)
        rows = [_WARPGROUPS * self.block_q + 2 * steps * self.block_kv]
        if case.direction != "fwd":
            sizes, warpgroups = self.backward, self.backward["compute_wgs_bwd"]
            for own, length, block, other in (
                (warpgroups * sizes["block_q_dq"], case.q_len, sizes["block_kv_dq"], case.kv_len),
                (warpgroups * sizes["block_kv_dkv"], case.kv_len, sizes["block_q_dkv"], case.q_len),
            ):
                steps = min(self.max_concurrent_steps, length // own, other // block)
                rows.append(2 * own + 2 * steps * block)
        return 2 * case.head_dim * max(rows)

    def prepare(self, case: Case, device: str) -> Callable[..., Any]:
        library = self.require(str(self.module))
        config = library.TuningConfig(
            block_q=self.block_q,
            block_kv=self.block_kv,
            max_concurrent_steps=self.max_concurrent_steps,
            causal=case.effective_causal,
            **({} if case.direction == "fwd" else self.backward),
        )
        scale = case.scale

        def call(q: Any, k: Any, v: Any) -> Any:
            return library.attention(q * scale, k, v, config)

        return call


class JaxFlashAttention2(Attention):
    """jax-flash-attn2 0.0.1, whose Triton kernels take block sizes; it has no causal mask of its own.

    FLASH_ATTN_BLOCK_PTR in `env.variables` says how they address memory: 1 by block pointers, 0 by blocks of pointers.
    """

    framework = "jax"
    module = "jax_flash_attn2"

    def __init__(self, *, blocksize_q: int = 128, blocksize_k: int = 128, **common: Any) -> None:
        super().__init__(**common)
        self.blocksize_q, self.blocksize_k = blocksize_q, blocksize_k

    @classmethod
    def validate(cls, impl: dict[str, Any]) -> None:
        super().validate(impl)
        for key in ("blocksize_q", "blocksize_k"):
            _multiple(impl, key, impl.get(key, 16), 16)

    def prepare(self, case: Case, device: str) -> Callable[..., Any]:
        attention: Callable[..., Any] = self.require("jax_flash_attn2").get_cached_flash_attention(
            backend="gpu",
            platform="triton",
            blocksize_q=self.blocksize_q,
            blocksize_k=self.blocksize_k,
            softmax_scale=case.scale,
        )
        return attention


def _multiple(impl: dict[str, Any], key: str, value: Any, step: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < step or value % step:
        raise ConfigError(f"impl {impl['name']}: {key} must be a multiple of {step}, not {value!r}")
