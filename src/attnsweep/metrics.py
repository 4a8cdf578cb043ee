"""What a case costs in FLOPs and bytes, and so its timer; what a GPU can do, and the rates that follow from a latency.

Counting: exact visible pairs, a multiply-add is two, softmax is none, every tensor moves once. Standard
library only.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from types import MappingProxyType
from typing import Any, Optional

from attnsweep.case import Case

#: Dense operations that one SM retires in a clock: tensor cores, except fp32, which has none and runs on FMA
#: units. Hopper: 4 tensor cores x 512 bf16 FMA; 132 SMs x 4096 x 1830 MHz = 989.4e12. fp32: 128 FMA.
_HOPPER: Mapping[str, int] = MappingProxyType({"fp8": 8192, "bf16": 4096, "tf32": 2048, "fp32": 256, "fp64": 256})
#: A100 (GA100): 4 tensor cores x 256 bf16 FMA; 108 SMs x 2048 x 1410 MHz = 311.9e12. No fp8. fp32: 64 FMA.
_GA100: Mapping[str, int] = MappingProxyType({"bf16": 2048, "tf32": 1024, "fp32": 128, "fp64": 128})
#: RTX 30 (GA102): 4 tensor cores x 64 FMA with fp32 accumulation; 84 SMs x 512 x 1860 MHz = 80.0e12. fp32: 128 FMA.
_GA102: Mapping[str, int] = MappingProxyType({"bf16": 512, "tf32": 256, "fp32": 256, "fp64": 4})


@dataclass(frozen=True)
class Work:
    """What one call does: FLOPs, bytes that move and, of them, those that a cold call must read.

    `dtype` is the arithmetic's, `tokens` are the call's queries. `bound` (compute or memory) is what the work is
    measured against; None for whichever takes longer.
    """

    flops: int
    bytes: int
    bytes_read: int
    dtype: str
    tokens: int
    bound: Optional[str] = None


@dataclass(frozen=True)
class Peak:
    """The datasheet's dense peaks of one GPU: TFLOP/s by dtype (fp16 is bf16's) and memory bandwidth in GB/s.

    `name` is NVML's, exactly. `sm_count` is given where one name covers parts that differ in it. `clocked` holds
    the FLOPs of one SM in one clock, where they are known, for the peak at a sampled clock. `fp16_gain` is how many
    times as fast fp16 is that accumulates in fp16: a GeForce halves the rate where the accumulator is fp32.
    """

    name: str
    gb_per_s: float
    bf16: float
    tf32: float
    fp32: float
    fp64: float
    fp8: Optional[float] = None
    sm_count: Optional[int] = None
    clocked: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))
    fp16_gain: float = 1.0

    def tflops(self, dtype: str) -> float | None:
        """Dense TFLOP/s for elements of `dtype`; None where the GPU has no such arithmetic."""
        value: float | None = getattr(self, _kind(dtype))
        return value

    def tflops_at(self, dtype: str, sm_clock_mhz: float, sm_count: int) -> float | None:
        """Dense TFLOP/s for `dtype` with `sm_count` SMs at `sm_clock_mhz`; None where that is not known."""
        rate = self.clocked.get(_kind(dtype))
        return None if rate is None else rate * sm_count * sm_clock_mhz / 1e6


def _kind(dtype: str) -> str:
    if dtype.startswith("fp8"):
        return "fp8"
    return "bf16" if dtype == "fp16" else dtype


#: One line a GPU, each with the page it was read from: mostly reproductions of NVIDIA's data sheets, not the sheets
#: themselves. A GPU whose figures were not found, or for which pages disagree, has no line. Vendors print tensor
#: rates "with sparsity": the dense figure is half of that. Attention accumulates in fp32, so a GeForce line gives
#: the rate with fp32 accumulation. fp64 is the tensor cores' where they have it.
PEAKS: tuple[Peak, ...] = (
    # G. Lockwood's notes on H100 (from NVIDIA's white paper; H200 is the same chip); 4.8 TB/s: AnandTech on SC23
    Peak("NVIDIA H200", 4800, bf16=989.4, tf32=494.7, fp32=67, fp64=67, fp8=1979, clocked=_HOPPER),
    # the same notes: 989.4 bf16, 1978.9 fp8, 66.9 fp32; 3,350 GB/s: HPC Tech's copy of the data sheet, SXM5 column
    Peak("NVIDIA H100 80GB HBM3", 3350, bf16=989.4, tf32=494.7, fp32=67, fp64=67, fp8=1979, clocked=_HOPPER),
    # HPC Tech's copy of the H100 data sheet, PCIe column: 1,513 bf16 sparse, 51 fp32, 2,000 GB/s, 114 SMs
    Peak("NVIDIA H100 PCIe", 2000, bf16=756, tf32=378, fp32=51, fp64=51, fp8=1513, clocked=_HOPPER),
    # a news digest of H20's specifications: 148 bf16 dense, 296 at 8 bits, 74 tf32, 44 fp32, 1 fp64, 4.0 TB/s
    Peak("NVIDIA H20", 4000, bf16=148, tf32=74, fp32=44, fp64=1, fp8=296),
    # G. Lockwood's notes on A100 (from NVIDIA's data sheet): 312 bf16, 156 tf32, 19.5 fp32 and fp64 tensor; the
    # bandwidth of each variant: Thunder Compute's A100 table
    Peak("NVIDIA A100-SXM4-80GB", 2039, bf16=312, tf32=156, fp32=19.5, fp64=19.5, clocked=_GA100),
    Peak("NVIDIA A100-SXM4-40GB", 1555, bf16=312, tf32=156, fp32=19.5, fp64=19.5, clocked=_GA100),
    Peak("NVIDIA A100 80GB PCIe", 1935, bf16=312, tf32=156, fp32=19.5, fp64=19.5, clocked=_GA100),
    Peak("NVIDIA A100-PCIE-40GB", 1555, bf16=312, tf32=156, fp32=19.5, fp64=19.5, clocked=_GA100),
    # a reseller's copy of the L40S data sheet: 362.05 bf16 dense, 733 fp8, 183 tf32, 91.6 fp32, 864 GB/s; fp64:
    # HMC-Tech's database
    Peak("NVIDIA L40S", 864, bf16=362.05, tf32=183, fp32=91.6, fp64=1.43, fp8=733),
    # WareDB on RTX 4090: 165.15 bf16, 330.3 fp8, 82.58 tf32 and fp32, 1.29 fp64, 1,008 GB/s
    Peak("NVIDIA GeForce RTX 4090", 1008, bf16=165.2, tf32=82.6, fp32=82.6, fp64=1.29, fp8=330.3, fp16_gain=2),
    # HMC-Tech on RTX 3090 Ti: 80 bf16 and fp16 with fp32 accumulation (160 with fp16), 40 tf32 and fp32, 0.63 fp64;
    # 84 SMs, 1860 MHz, 1,008 GB/s: TweakTown. Pages that say 160 mean fp16 accumulation, 320 sparsity as well.
    Peak("NVIDIA GeForce RTX 3090 Ti", 1008, bf16=80, tf32=40, fp32=40, fp64=0.63, clocked=_GA102, fp16_gain=2),
)


def flops(case: Case) -> int:
    """Floating-point operations of the case's direction: a multiply-add counts two, softmax none.

    With P visible pairs, forward is 2*B*H*P*(D_qk + D_v): two products. Backward is 2*B*H*P*(3*D_qk + 2*D_v):
    five, the scores' recomputation included. H counts query heads.
    """
    pairs = 2 * case.batch_size * case.num_heads * case.visible_pairs
    forward = pairs * (case.head_dim + case.head_dim_v)
    backward = pairs * (3 * case.head_dim + 2 * case.head_dim_v)
    return {"fwd": forward, "bwd": backward, "fwd_bwd": forward + backward}[case.direction]


def bytes_moved(case: Case) -> int:
    """Compulsory bytes of the case's direction: every tensor once, keys and values with their own heads.

    Forward reads q, k, v and writes o; backward reads q, k, v, o, do and writes dq, dk, dv; fwd_bwd does
    both. Keys and values that lie outside every query's window are not compulsory and not read. A dense bias
    has the shape (1, num_heads, q_len, kv_len) and is read once by each pass; its gradient is not asked for.
    The log-sum-exp is not counted.
    """
    q, k, v, o = _tensors(case)
    seen = _seen_fraction(case)
    bias = _bias_elements(case, case.q_len * case.kv_len)
    forward = q + (k + v) * seen + bias + o
    backward = q + (k + v) * seen + bias + 2 * o + q + k + v
    elements = {"fwd": forward, "bwd": backward, "fwd_bwd": forward + backward}[case.direction]
    return int(elements) * case.element_size


def bytes_read(case: Case) -> int:
    """The least that memory must deliver to a call that starts with a cold cache.

    Less than `bytes_moved`: nothing written, no masked element of a bias, and for fwd_bwd only what the call
    starts from (q, k, v, bias, do), since the rest may still be in the cache.
    """
    q, k, v, o = _tensors(case)
    forward = q + (k + v) * _seen_fraction(case) + _bias_elements(case, case.visible_pairs)
    elements = {"fwd": forward, "bwd": forward + 2 * o, "fwd_bwd": forward + o}[case.direction]
    return int(elements) * case.element_size


def _tensors(case: Case) -> tuple[int, int, int, int]:
    """Elements of q, k, v and o."""
    queries, keys = case.batch_size * case.q_len, case.batch_size * case.kv_len
    return (
        queries * case.num_heads * case.head_dim,
        keys * case.num_kv_heads * case.head_dim,
        keys * case.num_kv_heads * case.head_dim_v,
        queries * case.num_heads * case.head_dim_v,
    )


def _seen_fraction(case: Case) -> Fraction:
    """Share of the keys that some query sees: a left bound hides those before the first query's window."""
    left, _ = case.bounds
    hidden = max(0, case.kv_len - case.q_len - left) if left >= 0 else 0
    return Fraction(case.kv_len - hidden, case.kv_len)


def _bias_elements(case: Case, pairs: int) -> int:
    return case.num_heads * pairs if case.bias == "dense" else 0


def peak(device_name: str | None, sm_count: int | None = None) -> Peak | None:
    """The line for exactly this NVML name (and SM count, where the line has one), or None."""
    for line in PEAKS:
        if line.name == device_name and line.sm_count in (None, sm_count):
            return line
    return None


#: Where launching and the events' own 3 us weigh, a graph of many calls is the timer. A round GPU decides, not the
#: one at hand: rows of one case must be comparable.
_SMALL_S, _ROUND_FLOPS, _ROUND_BYTES = 2e-4, 1e15, 4e12


def primary_timer(case: Case, device_events: bool = True) -> str:
    """The timer that ranks this case on a GPU, `graph` or `events`: it belongs to the case, not to a GPU or a row.

    `kernel` where the framework has no events: the only one that sees its kernels.
    """
    if not device_events:
        return "kernel"
    seconds = max(flops(case) / _ROUND_FLOPS, bytes_moved(case) / _ROUND_BYTES)
    return "graph" if seconds < _SMALL_S else "events"


def work(case: Case) -> Work:
    """What attention does in this case."""
    return Work(flops(case), bytes_moved(case), bytes_read(case), case.dtype, case.batch_size * case.q_len)


def bound(done: Work, line: Peak) -> str | None:
    """What the work is measured against: "compute" or "memory"; None where the dtype has no peak."""
    tflops = line.tflops(done.dtype)
    if tflops is None:
        return None
    if done.bound is not None:
        return done.bound
    compute_s, memory_s = done.flops / (tflops * 1e12), done.bytes / (line.gb_per_s * 1e9)
    return "compute" if compute_s > memory_s else "memory"


def rates(
    done: Work,
    latency_ms: float,
    device_name: str | None,
    sm_clock_mhz: float | None = None,
    sm_count: int | None = None,
) -> dict[str, Any]:
    """The record's rate columns for a latency in milliseconds, but for flops and bytes; fractions are None on a
    device that is not in PEAKS.

    `peak_fraction` is against the datasheet peak that bounds the work, FLOP/s or bytes/s.
    `peak_fraction_at_clock` puts the arithmetic peak at the sampled SM clock; a memory peak does not depend
    on it and stays.
    """
    seconds = latency_ms / 1e3
    tflops, gb_per_s = done.flops / seconds / 1e12, done.bytes / seconds / 1e9
    columns: dict[str, Any] = {
        "tflops": tflops,
        "gb_per_s": gb_per_s,
        "tokens_per_s": done.tokens / seconds,
        "peak_fraction": None,
        "peak_fraction_at_clock": None,
        "bound": None,
    }
    line = peak(device_name, sm_count)
    datasheet = None if line is None else line.tflops(done.dtype)
    if line is None or datasheet is None:
        return columns
    columns["bound"] = bound(done, line)
    if columns["bound"] == "memory":
        columns["peak_fraction"] = columns["peak_fraction_at_clock"] = gb_per_s / line.gb_per_s
        return columns
    columns["peak_fraction"] = tflops / datasheet
    if sm_clock_mhz and sm_count:
        at_clock = line.tflops_at(done.dtype, sm_clock_mhz, sm_count)
        columns["peak_fraction_at_clock"] = None if at_clock is None else tflops / at_clock
    return columns


#: What memory may deliver beyond the datasheet before it is called impossible: the H200's clock and bus make
#: 4.917 TB/s where its datasheet says 4.8.
_MEMORY_MARGIN = 1.03

#: How far a clock that was not read may lie above the datasheet's: an H200 boosts to 1980 MHz from 1830 (8 %), an
#: RTX 4090 was overclocked on air to 3150 from 2520 (25 %, techgoing.com). Liquid nitrogen goes further.
_CLOCK_MARGIN = 1.25

#: fp32 products may be made of three of tf32 each: CUTLASS's OpMultiplyAddFastF32, which PyTorch's memory-efficient
#: attention uses (mem_eff_attention/gemm_kernel_utils.h).
_TF32_PRODUCTS = 3

#: The narrowest arithmetic of a GPU in PEAKS over its 16-bit rate: GA102 does int4 at eight times it.
_NARROWEST = 8


def implausible(
    done: Work,
    latency_ms: float,
    device_name: str | None,
    *,
    cold: bool,
    sm_clock_mhz: float | None = None,
    sm_count: int | None = None,
    native: bool = True,
) -> str | None:
    """Why no such GPU can be this fast, in a sentence; None where it can, or where the GPU is not in PEAKS.

    `sm_clock_mhz` is the highest that was seen; where none was, the datasheet's peak holds, with a margin for the
    clock. `native` is false for an implementation that declares a precision class of its own. The memory's limit
    counts reads only, and only from a cold cache.
    """
    line = peak(device_name, sm_count)
    if line is None:
        return None
    seconds = latency_ms / 1e3
    limit, where = _limit(line, done.dtype, native, sm_clock_mhz, sm_count)
    tflops = done.flops / seconds / 1e12
    if tflops > limit:
        return f"{tflops:.0f} TFLOP/s, and {where} can do {limit:.0f}"
    gb_per_s = done.bytes_read / seconds / 1e9
    if cold and gb_per_s > line.gb_per_s * _MEMORY_MARGIN:
        return f"{gb_per_s:.0f} GB/s read from a cold cache, and the memory delivers {line.gb_per_s:.0f}"
    return None


def _limit(line: Peak, dtype: str, native: bool, sm_clock_mhz: float | None, sm_count: int | None) -> tuple[float, str]:
    """The most TFLOP/s that any arithmetic of the GPU does for results of `dtype`, a case's, and of which GPU."""
    if line.clocked and sm_clock_mhz and sm_count:
        where = f"{sm_count} SMs at {sm_clock_mhz:.0f} MHz"
        bf16, tf32, fp32 = (line.clocked[kind] * sm_count * sm_clock_mhz / 1e6 for kind in ("bf16", "tf32", "fp32"))
    else:
        where = f"{line.name} at {_CLOCK_MARGIN:g} times its datasheet's clock"
        bf16, tf32, fp32 = (_CLOCK_MARGIN * rate for rate in (line.bf16, line.tf32, line.fp32))
    if not native:
        return _NARROWEST * bf16, where
    if dtype == "fp32":
        return max(fp32, tf32 / _TF32_PRODUCTS), where
    return bf16 * (line.fp16_gain if dtype == "fp16" else 1), where
