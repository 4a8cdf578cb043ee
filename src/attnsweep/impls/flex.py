"""PyTorch's FlexAttention: a kernel that exists only compiled, with a block mask planned once."""

from __future__ import annotations

from typing import Any, Callable

from attnsweep.case import Case
from attnsweep.devices import Device
from attnsweep.errors import ConfigError
from attnsweep.impls.base import Attention
from attnsweep.impls.masks import visible

#: Below this many queries PyTorch takes its decoding kernel, which splits the keys by the blocks of the mask: given no
#: mask it has one block and no split, and takes up to 4.5 times as long. With many queries no mask is the faster way,
#: by 14 to 19 % (both on an H200, torch 2.11; docs/decisions.md).
_DECODING_QUERIES = 128

#: The keys of kernel_options: those of torch 2.13's FlexKernelOptions (torch/nn/attention/flex_attention.py) and what
#: torch/_inductor/kernel/flex reads besides. PyTorch passes any other on as a constant that no kernel reads. A prefix
#: names the pass that alone is to have it.
_OF_EITHER_PASS = (
    "num_warps",
    "num_stages",
    "num_consumer_groups",
    "num_buffers_warp_spec",
    "PRESCALE_QK",
    "ROWS_GUARANTEED_SAFE",
    "BLOCKS_ARE_CONTIGUOUS",
    "USE_TMA",
)
#: PyTorch documents them, and reads them on AMD's GPUs alone, where nothing is measured here.
_AMDS = ("kpack", "matrix_instr_nonkdim", "waves_per_eu")
_OF_FORWARD = ("BLOCK_M", "BLOCK_N")
#: flex_decoding.py alone reads them: it has the calls of fewer than _DECODING_QUERIES queries.
_OF_DECODING = ("SPLIT_KV", "SAFE_N_BOUNDARY")
_OF_BACKWARD = ("BLOCK_M1", "BLOCK_N1", "BLOCK_M2", "BLOCK_N2", "WRITE_DQ")
#: flex_cpu.py's only one.
_OF_CPUS = ("PARTITION_SIZE",)
#: Read before prefixes are taken off, so they have none.
_OF_THE_CALL = ("FORCE_USE_FLEX_ATTENTION", "BACKEND", "FLOAT32_PRECISION")
OPTIONS = (
    *(*_OF_FORWARD, *_OF_BACKWARD, *_OF_EITHER_PASS, *_OF_THE_CALL),
    *(*_OF_DECODING, *_AMDS, *_OF_CPUS),
)
_PREFIXED = {
    *(f"fwd_{key}" for key in (*_OF_FORWARD, *_OF_EITHER_PASS)),
    *(f"bwd_{key}" for key in (*_OF_BACKWARD, *_OF_EITHER_PASS)),
}


def _unread(key: str, device: str, case: Case) -> bool:
    """Whether no kernel of a call reads an option: each pass has some of its own, and so have decoding and CPUs."""
    if device == "cpu" or key in _OF_CPUS:
        return device != "cpu" or key not in _OF_CPUS
    if key in _AMDS or (key in _OF_DECODING and case.q_len >= _DECODING_QUERIES):
        return True
    of_forward = key in (*_OF_FORWARD, *_OF_DECODING) or key.startswith("fwd_")
    of_backward = key in _OF_BACKWARD or key.startswith("bwd_")
    return (of_backward and case.direction == "fwd") or (of_forward and case.direction == "bwd")


class FlexAttention(Attention):
    """torch.nn.attention.flex_attention; the mask is a BlockMask, made in `prepare`; `block_size` is its tile: so many
    queries and keys, or [queries, keys].
    """

    def __init__(
        self, *, block_size: int | list[int] = 128, kernel_options: dict[str, Any] | None = None, **common: Any
    ) -> None:
        super().__init__(**common)
        self.block_size = block_size
        self.kernel_options = kernel_options

    @classmethod
    def validate(cls, impl: dict[str, Any]) -> None:
        super().validate(impl)
        name, size, options = impl["name"], impl.get("block_size", 128), impl.get("kernel_options")
        sides = size if isinstance(size, list) and len(size) == 2 else [size]
        if any(not isinstance(one, int) or isinstance(one, bool) or one < 1 for one in sides):
            raise ConfigError(f"impl {name}: block_size must be a positive integer, or [QUERIES, KEYS], not {size!r}")
        if options is not None and not isinstance(options, dict):
            raise ConfigError(
                f"impl {name}: kernel_options must be null or a mapping such as {{BLOCK_M: 64}}, not {options!r}"
            )
        for key, value in (options or {}).items():
            if not isinstance(key, str):
                raise ConfigError(f"impl {name}: the keys of kernel_options must be names, not {key!r}")
            if key not in OPTIONS and key not in _PREFIXED:
                raise ConfigError(
                    f"impl {name}: kernel_options has no key {key}; the keys are {', '.join(OPTIONS)}, those of one "
                    "pass also as fwd_KEY or bwd_KEY"
                )
            if not isinstance(value, (int, float, str)):
                raise ConfigError(
                    f"impl {name}: kernel_options.{key} must be a number, true or false, or text, not {value!r}"
                )

    def supports(self, case: Case, device: Device, compile_mode: str) -> str | None:
        if compile_mode == "eager":
            return (
                "FlexAttention's kernel exists only compiled; eager it materialises the scores. "
                "Use compile=default or another torch.compile mode"
            )
        if device.kind == "cpu" and case.direction != "fwd":
            return "FlexAttention on a CPU has no backward"
        return None

    def prepare(self, case: Case, device: str) -> Callable[..., Any]:
        from torch.nn.attention.flex_attention import create_block_mask, flex_attention, noop_mask

        block_mask = None
        if case.masked or case.q_len < _DECODING_QUERIES:
            see = visible(case) if case.masked else None
            block_mask = create_block_mask(
                (lambda batch, head, query, key: see(query, key)) if see is not None else noop_mask,
                None,
                None,
                case.q_len,
                case.kv_len,
                device=device,
                BLOCK_SIZE=self.block_size,
            )
        keywords: dict[str, Any] = {"scale": case.scale, "block_mask": block_mask}
        if case.group_size > 1:
            keywords["enable_gqa"] = True
        if self.kernel_options:
            keywords["kernel_options"] = dict(self.kernel_options)
            if any(_unread(key, device, case) for key in self.kernel_options):
                self.flags = frozenset({"options_unread"})

        def call(q: Any, k: Any, v: Any) -> Any:
            return flex_attention(q, k, v, **keywords)

        return call
