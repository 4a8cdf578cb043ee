"""Two levels of a graph of short kernels: what takes a process from one to the other.

    python benchmarks/graph_levels.py VARIANT

A graph of 144 decode calls by cuDNN (batch 1, 32 heads, 2048 keys, head dim 128, bf16; two kernels a call; eight copies
of the inputs in turn, which exceed L2) is replayed 36 times. Then the variant's step is done and the same graph
replayed again, seven times in all. Prints the median of a call in us and the SM clock in MHz after each. Some variants
do something eight times before that graph is captured.
"""

from __future__ import annotations

import functools
import statistics
import sys
import time
from typing import Any, Callable

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from attnsweep.timing import cupti, smclock

_ROUNDS, _COPIES, _STEPS = 18, 8, 7
_WINDOWS, _REPLAYS, _UNTIMED = 6, 6, 2
_REST_S = 0.02
_TIMES_FIRST = 8


def main() -> None:
    """One variant in a process of its own."""
    variant = sys.argv[1]
    first, step = FIRST.get(variant) or (nothing, STEPS[variant])
    kept = [first(number) for number in range(_TIMES_FIRST)]
    graph = captured(attention)
    readings = [reading(graph)]
    for number in range(_STEPS):
        kept.append(step(number))
        readings.append(reading(graph))
    print(variant, *readings)


def inputs() -> list[tuple[torch.Tensor, ...]]:
    def normal(length: int) -> torch.Tensor:
        return torch.randn(1, 32, length, 128, device="cuda", dtype=torch.bfloat16)

    return [(normal(1), normal(2048), normal(2048)) for _ in range(_COPIES)]


def attention() -> None:
    with sdpa_kernel([SDPBackend.CUDNN_ATTENTION]):
        for _ in range(_ROUNDS):
            for q, k, v in COPIES:
                torch.nn.functional.scaled_dot_product_attention(q, k, v)


def captured(work: Callable[[], Any]) -> torch.cuda.CUDAGraph:
    work()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        work()
    return graph


def reading(graph: torch.cuda.CUDAGraph) -> str:
    """Microseconds a call and the SM clock, in windows after a rest."""
    before, after = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    times, clocks = [], []
    for _ in range(_WINDOWS):
        torch.cuda.synchronize()
        time.sleep(_REST_S)
        for replay in range(_REPLAYS):
            if replay == _UNTIMED:
                first = CLOCK.mark()
            before.record()
            graph.replay()
            after.record()
            if replay == _REPLAYS - 1:
                last = CLOCK.mark()
            after.synchronize()
            if replay >= _UNTIMED:
                times.append(before.elapsed_time(after) / (_ROUNDS * _COPIES) * 1e3)
        mhz = CLOCK.mhz(first, last)
        clocks.extend([mhz] if mhz else [])
    clock = f"@{statistics.median(clocks):.0f}" if clocks else ""
    return f"{statistics.median(times):.2f}{clock}"


def nothing(_: int) -> None:
    pass


def tiny() -> None:
    TINY.add_(1)


def replayed(_: int) -> torch.cuda.CUDAGraph:
    graph = captured(tiny)
    graph.replay()
    torch.cuda.synchronize()
    return graph


def streamed(_: int) -> torch.cuda.Stream:
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        tiny()
    torch.cuda.synchronize()
    return stream


def uncaptured(_: int) -> None:
    attention()
    torch.cuda.synchronize()


def dropped(_: int) -> None:
    captured(tiny)


@functools.cache
def tracer() -> cupti.Tracer:
    return cupti.Tracer(torch.cuda.synchronize)


def traced(_: int) -> None:
    for _ in range(3):
        tracer().trace(tiny)


STEPS: dict[str, Callable[[int], Any]] = {
    "nothing": nothing,
    "uncaptured": uncaptured,
    "memory": lambda number: torch.empty(300_000_000 * (number + 1), dtype=torch.uint8, device="cuda"),
    "stream": streamed,
    "capture": dropped,
    "capture_kept": lambda _: captured(tiny),
    "capture_replayed": replayed,
    "capture_large": lambda _: captured(attention),
    "traced": traced,
}

#: What is done before the capture, and what at each step after it.
FIRST: dict[str, tuple[Callable[[int], Any], Callable[[int], Any]]] = {
    "streams_first": (streamed, nothing),
    "captures_first": (dropped, nothing),
    "streams_first_traced": (streamed, traced),
}

if __name__ == "__main__":
    if len(sys.argv) != 2 or sys.argv[1] not in STEPS | FIRST:
        raise SystemExit(f"usage: python benchmarks/graph_levels.py {'|'.join(STEPS | FIRST)}")
    COPIES, TINY = inputs(), torch.zeros(8, device="cuda")
    SM_COUNT = torch.cuda.get_device_properties(0).multi_processor_count
    CLOCK = smclock.of(torch.cuda.current_stream().cuda_stream, SM_COUNT)
    main()
