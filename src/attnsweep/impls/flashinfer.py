"""FlashInfer's wrappers for prefill and decode: `plan()` in `prepare`, `run()` in the call."""

from __future__ import annotations

import math
import time
from functools import partial
from typing import Any, Callable

from attnsweep.case import Case
from attnsweep.devices import Device
from attnsweep.errors import ConfigError
from attnsweep.impls.base import Attention

#: Bytes of the workspace that its documentation recommends.
WORKSPACE = 128 * 2**20
#: (head_dim, head_dim_v) of its kernels for prefill (0.7.2, is_fa3_prefill_head_dim_supported).
HEAD_DIMS = ((64, 64), (128, 128), (192, 128), (256, 256))
#: Query heads a key/value head that its decoding kernel without tensor cores is built for (DISPATCH_GQA_GROUP_SIZE).
GROUPS = (1, 2, 3, 4, 6, 8, 16)
#: Tokens a page of the KV cache holds, at most; a divisor of kv_len, so that a contiguous cache is a view of pages.
PAGE_SIZE = 16


def _window(case: Case) -> tuple[int, bool]:
    """`window_left` and `causal` of a case whose window `_unsupported_window` lets through."""
    if not case.masked:
        return -1, False
    left, right = case.bounds
    return left, right == 0


def _unsupported_window(case: Case) -> str | None:
    if case.masked and case.bounds[1] > 0:
        return "FlashInfer's window has no right side"
    return None


def _check_backend(impl: dict[str, Any]) -> None:
    if impl.get("backend", "fa2") not in ("fa2", "fa3"):
        raise ConfigError(f"impl {impl['name']}: backend must be fa2 or fa3, not {impl['backend']!r}")


class FlashInferPrefill(Attention):
    """BatchPrefillWithRaggedKVCacheWrapper over sequences of one length, `backend` fa2 or fa3; masks bottom-right."""

    module = "flashinfer"

    def __init__(self, *, backend: str, **common: Any) -> None:
        super().__init__(**common)
        self.backend = backend

    @classmethod
    def validate(cls, impl: dict[str, Any]) -> None:
        super().validate(impl)
        _check_backend(impl)

    def supports(self, case: Case, device: Device, compile_mode: str) -> str | None:
        if (case.head_dim, case.head_dim_v) not in HEAD_DIMS:
            known = ", ".join(f"{qk}/{vo}" for qk, vo in HEAD_DIMS)
            return f"head_dim/head_dim_v {case.head_dim}/{case.head_dim_v} is not among {known}"
        return _unsupported_window(case)

    def prepare(self, case: Case, device: str) -> Callable[..., Any]:
        wrapper_type = self.require("flashinfer").BatchPrefillWithRaggedKVCacheWrapper
        import torch

        workspace = torch.zeros(WORKSPACE, dtype=torch.uint8, device=device)
        wrapper = wrapper_type(workspace, kv_layout="NHD", backend=self.backend)
        window_left, causal = _window(case)
        plan = partial(
            wrapper.plan,
            _offsets(case.batch_size, case.q_len),
            _offsets(case.batch_size, case.kv_len),
            case.num_heads,
            case.num_kv_heads,
            case.head_dim,
            head_dim_vo=case.head_dim_v,
            causal=causal,
            window_left=window_left,
            sm_scale=case.scale,
            q_data_type=_dtype(case),
        )
        self.plan_s = _planned_s(plan, device)
        tokens = (
            (-1, case.num_heads, case.head_dim),
            (-1, case.num_kv_heads, case.head_dim),
            (-1, case.num_kv_heads, case.head_dim_v),
        )
        shape = (case.batch_size, case.q_len, case.num_heads, case.head_dim_v)

        def call(q: Any, k: Any, v: Any) -> Any:
            return wrapper.run(q.view(tokens[0]), k.view(tokens[1]), v.view(tokens[2])).view(shape)

        return call


class FlashInferDecode(Attention):
    """BatchDecodeWithPagedKVCacheWrapper over a contiguous cache seen as pages, with or without tensor cores.

    Several queries are verified tokens of each sequence, which it masks causally, bottom-right.
    """

    module = "flashinfer"

    def __init__(self, *, use_tensor_cores: bool, backend: str = "fa2", **common: Any) -> None:
        super().__init__(**common)
        self.use_tensor_cores = use_tensor_cores
        self.backend = backend

    @classmethod
    def validate(cls, impl: dict[str, Any]) -> None:
        super().validate(impl)
        _check_backend(impl)
        if not isinstance(impl["use_tensor_cores"], bool):
            raise ConfigError(
                f"impl {impl['name']}: use_tensor_cores must be true or false, not {impl['use_tensor_cores']!r}"
            )

    def supports(self, case: Case, device: Device, compile_mode: str) -> str | None:
        if case.q_len > 1 and not self.use_tensor_cores:
            return "FlashInfer decodes several queries a sequence with tensor cores only"
        if case.q_len > 1 and self.backend == "fa3":
            return "FlashInfer's fa3 decodes one query a sequence"
        if case.q_len > 1 and case.bounds[1] != 0:
            return "FlashInfer masks several queries a sequence causally"
        if not self.use_tensor_cores and case.group_size not in GROUPS:
            return f"{case.group_size} query heads a key/value head are not among {', '.join(map(str, GROUPS))}"
        return _unsupported_window(case)

    def prepare(self, case: Case, device: str) -> Callable[..., Any]:
        wrapper_type = self.require("flashinfer").BatchDecodeWithPagedKVCacheWrapper
        import torch

        page = math.gcd(case.kv_len, PAGE_SIZE)
        pages = case.kv_len // page
        workspace = torch.zeros(WORKSPACE, dtype=torch.uint8, device=device)
        wrapper = wrapper_type(workspace, kv_layout="NHD", use_tensor_cores=self.use_tensor_cores, backend=self.backend)
        # Versions before 0.7 know no q_len_per_req, and one query needs none.
        several = {"q_len_per_req": case.q_len} if case.q_len > 1 else {}
        plan = partial(
            wrapper.plan,
            _offsets(case.batch_size, pages),
            torch.arange(case.batch_size * pages, dtype=torch.int32, device=device),
            torch.full((case.batch_size,), page, dtype=torch.int32),
            case.num_heads,
            case.num_kv_heads,
            case.head_dim,
            page,
            window_left=_window(case)[0],
            sm_scale=case.scale,
            q_data_type=_dtype(case),
            **several,
        )
        self.plan_s = _planned_s(plan, device)
        queries = (case.batch_size * case.q_len, case.num_heads, case.head_dim)
        cache = (case.batch_size * pages, page, case.num_kv_heads, case.head_dim)
        shape = (case.batch_size, case.q_len, case.num_heads, case.head_dim_v)

        def call(q: Any, k: Any, v: Any) -> Any:
            return wrapper.run(q.view(queries), (k.view(cache), v.view(cache))).view(shape)

        return call


def _planned_s(plan: Callable[[], Any], device: str) -> float:
    """Plan, and the seconds that it takes a caller each time: the first time compiles the kernel and is not counted."""
    import torch

    plan()
    if device == "cuda":
        torch.cuda.synchronize()
    start = time.monotonic()
    plan()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.monotonic() - start


def _offsets(count: int, length: int) -> Any:
    """Where each of `count` sequences of `length` begins and the last one ends, on the CPU, where plan() wants it."""
    import torch

    return torch.arange(0, (count + 1) * length, length, dtype=torch.int32)


def _dtype(case: Case) -> str:
    """The name that it takes for a data type."""
    return {"fp16": "float16", "bf16": "bfloat16", "fp32": "float32"}[case.dtype]
