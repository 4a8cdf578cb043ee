"""What PyTorch does with CUDA streams beside single calls: events in them, graphs of calls that were captured."""

from __future__ import annotations

from contextlib import suppress
from typing import Any, Callable

import torch


class CudaEvent:
    """A CUDA event on the current stream."""

    def __init__(self) -> None:
        self._event = torch.cuda.Event(enable_timing=True)

    def record(self) -> None:
        self._event.record()

    def reached(self) -> bool:
        return bool(self._event.query())

    def wait(self) -> None:
        self._event.synchronize()

    def ms_until(self, later: CudaEvent) -> float:
        return float(self._event.elapsed_time(later._event))


#: Streams to be used before the first capture. A process that has used five, or captured four graphs, replays all its
#: graphs slower from then on, by 0.35 to 0.44 us a kernel on an H200: all but a few do, and those are told by nothing
#: (docs/measurement.md, Two levels of a graph).
_STREAMS = 8


def use_streams() -> None:
    """Take the process to where more streams, or more graphs, change nothing in how long a graph takes."""
    for _ in range(_STREAMS):
        with torch.cuda.stream(torch.cuda.Stream()):
            torch.cuda._sleep(1)
    torch.cuda.synchronize()


class CapturedGraph:
    """A CUDA graph of calls that were captured on `stream`."""

    def __init__(self, calls: list[Callable[[], Any]], stream: torch.cuda.Stream) -> None:
        self._graph = torch.cuda.CUDAGraph()
        torch.cuda.synchronize()
        pool = torch.cuda.graph_pool_handle()
        with torch.cuda.stream(stream):
            # A backward pass runs on the stream of its forward pass: that must be this one, so it is made here.
            for call in dict.fromkeys(calls):
                call()
            torch.cuda.synchronize()
            # Not torch.cuda.graph: its garbage collection takes 0.1 s
            self._graph.capture_begin(pool=pool)
            try:
                for call in calls:
                    self.result = call()
            finally:
                try:
                    self._graph.capture_end()
                except RuntimeError:
                    # It leaves the allocator waiting for the end of this capture, and then nothing cached is ever freed
                    with suppress(AttributeError, RuntimeError):
                        torch._C._cuda_endAllocateToPool(torch.cuda.current_device(), pool)
                    raise
        torch.cuda.synchronize()

    def replay(self) -> None:
        self._graph.replay()
