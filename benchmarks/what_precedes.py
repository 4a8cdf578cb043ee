"""How long a decode kernel takes by what ran before it, and in a graph: python benchmarks/what_precedes.py

PyTorch's flash and cuDNN at batch 8, 32 heads, head dim 128, bf16, 2048 and 4096 keys: one kernel a call, over 0.27 and
0.54 GB of keys and values, several times what L2 holds. Prints the median in us by CUPTI of 6 rounds of 12 or 24 calls,
each after a rest; of a graph also its whole time over its calls, by events.
"""

from __future__ import annotations

import statistics
import time
from typing import Any, Callable

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from attnsweep.timing import cupti

_BACKENDS = {"flash": SDPBackend.FLASH_ATTENTION, "cudnn": SDPBackend.CUDNN_ATTENTION}
_ROUNDS, _REST_S = 6, 0.02
_SPIN_CYCLES = 40_000  # 20 us


def main() -> None:
    """One line for each backend and length."""
    for backend, which in _BACKENDS.items():
        for length in (2048, 4096):
            with sdpa_kernel([which]):
                print(backend, length, " ".join(f"{name}={us}" for name, us in readings(inputs(length)).items()))


def readings(copies: list[tuple[torch.Tensor, ...]]) -> dict[str, str]:
    """By what precedes each call."""
    first = copies[0]
    for one in copies:
        attention(one)
    alone, rotating = captured(copies[:1], 24), captured(copies, 6)
    flushing = captured(copies[:1], 12, flush)
    return {
        "flush": busy(lambda: [(flush(), attention(first)) for _ in range(12)]),
        "flush_spin": busy(lambda: [(flush(), spin(), attention(first)) for _ in range(12)]),
        "itself": busy(lambda: [attention(first) for _ in range(24)]),
        "itself_rotating": busy(lambda: [attention(one) for _ in range(6) for one in copies]),
        "spin_rotating": busy(lambda: [(spin(), attention(one)) for _ in range(6) for one in copies]),
        "graph": busy(alone.replay),
        "graph_rotating": busy(rotating.replay),
        "graph_flush": busy(flushing.replay),
        "graph_whole": whole(alone, 24),
        "graph_rotating_whole": whole(rotating, 24),
    }


def inputs(length: int) -> list[tuple[torch.Tensor, ...]]:
    def normal(tokens: int) -> torch.Tensor:
        return torch.randn(8, 32, tokens, 128, device="cuda", dtype=torch.bfloat16)

    return [(normal(1), normal(length), normal(length)) for _ in range(4)]


def attention(given: tuple[torch.Tensor, ...]) -> torch.Tensor:
    return torch.nn.functional.scaled_dot_product_attention(*given)


def flush() -> None:
    torch.amax(BUFFER, dim=0, out=RESULT)


def spin() -> None:
    torch.cuda._sleep(_SPIN_CYCLES)


def captured(
    copies: list[tuple[torch.Tensor, ...]], times: int, before: Callable[[], None] | None = None
) -> torch.cuda.CUDAGraph:
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(times):
            for one in copies:
                if before:
                    before()
                attention(one)
    return graph


def busy(run: Callable[[], Any]) -> str:
    """The median of the attention kernels' own times in us."""
    times = []
    for _ in range(_ROUNDS):
        time.sleep(_REST_S)
        times += [one.end - one.start for one in TRACER.trace(run) if "flash" in one.name or "cudnn" in one.name]
    return f"{statistics.median(times) / 1e3:.2f}"


def whole(graph: torch.cuda.CUDAGraph, calls: int) -> str:
    """The second of two replays after a rest, over its calls, in us."""
    times = []
    for _ in range(_ROUNDS):
        torch.cuda.synchronize()
        time.sleep(_REST_S)
        before, after = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        graph.replay()
        before.record()
        graph.replay()
        after.record()
        after.synchronize()
        times.append(before.elapsed_time(after) / calls * 1e3)
    return f"{statistics.median(times):.2f}"


if __name__ == "__main__":
    BUFFER, RESULT = torch.ones(64 * 2**20, device="cuda"), torch.empty((), device="cuda")
    TRACER = cupti.Tracer(torch.cuda.synchronize)
    main()
