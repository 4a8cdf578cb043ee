"""How the kernels choose their tiles: by their times in bursts, which is how a measurement reads them first.

A small form of what `timing.timers.EventsTimer` does: the kernels stand alone, on PyTorch and Triton.
"""

from __future__ import annotations

import math
import time
import warnings
from typing import Any, Callable, Iterable, Optional, Sequence

import torch
import triton

from attnsweep.kernels.blocks import INTERPRETED

#: What flash is tuned for anew. Lengths are not in it: a longer sequence is not tuned again.
TUNED_FOR = ("HEAD_DIM", "HEAD_DIM_V", "HAS_LEFT", "HAS_RIGHT")

#: Bursts of at most so many calls, for about so long, after a rest.
_BURSTS, _MOST_CALLS, _BURST_MS, _REST_S = 5, 10, 5.0, 0.02

#: Reading so many float32, 256 MB, leaves nothing of the inputs in L2, and nothing that must be written back.
_EVICTING = 2**26

#: Launches hide behind a spin of this many cycles, 2 ms at 2 GHz, or a longer one at the next attempt, 0.1 s at most:
#: nothing hides where launches wait for the GPU (CUDA_LAUNCH_BLOCKING).
_SPIN_CYCLES, _ATTEMPTS, _LONGER, _LONGEST_CYCLES = 4_000_000, 3, 4, 256_000_000


def configs(*choices: tuple[Optional[int], int, int, int]) -> list[triton.Config]:
    """Configurations to tune over, from (BLOCK_M or None where the caller sets it, BLOCK_N, warps, stages)."""

    def config(rows: Optional[int], keys: int, warps: int, stages: int) -> triton.Config:
        sizes = {"BLOCK_N": keys} if rows is None else {"BLOCK_M": rows, "BLOCK_N": keys}
        return triton.Config(sizes, num_warps=warps, num_stages=stages)

    if INTERPRETED:
        return [config(choices[0][0] and 32, 16, 4, 1)]
    return [config(*choice) for choice in choices]


def autotuned(
    kernel: Any, choices: Iterable[tuple[Optional[int], int, int, int]], key: Sequence[str]
) -> triton.runtime.Autotuner:
    """`kernel`, tuned in bursts over `choices` (see `configs`), anew for other values of the arguments in `key`."""
    # Not triton.autotune: that of triton 3.2 takes a do_bench and drops it
    return triton.runtime.Autotuner(
        kernel, kernel.arg_names, configs(*choices), list(key), None, None, do_bench=in_bursts
    )


def in_bursts(call: Callable[[], Any], quantiles: Sequence[float]) -> list[float]:
    """Quantiles of the ms that a call takes with L2 cold, in bursts after rests; raises what `call` raises, and warns
    where the host could not keep up, whose time is in them then.

    Triton's own `do_bench` runs back to back for 0.1 s, a load under which an H200's clock falls: of one kernel it
    chose tiles that take 8 % longer in bursts, or did not, by the host (docs/decisions.md).
    """
    read, largest = torch.ones(_EVICTING, device="cuda"), torch.empty((), device="cuda")

    def evict() -> None:
        torch.amax(read, dim=0, out=largest)

    call()  # compiles
    (first,), _ = _burst(call, evict, 1, 0)
    count = max(1, min(_MOST_CALLS, int(_BURST_MS / max(first, 1e-3))))
    bursts = _BURSTS if count > 1 else 2
    times, shown, cycles = [], 0, _SPIN_CYCLES
    for _ in range(bursts):
        time.sleep(_REST_S)
        for _ in range(_ATTEMPTS):
            burst, hidden = _burst(call, evict, count, cycles)
            if hidden:
                break
            cycles = min(cycles * _LONGER, _LONGEST_CYCLES)
        times += burst[1:] or burst  # the first call after a rest is slow
        shown += not hidden
    if 2 * shown > bursts:
        warnings.warn("tiles are chosen by times that hold the host's: launches were not hidden", RuntimeWarning, 2)
    times.sort()
    return [times[min(len(times) - 1, math.floor(share * len(times)))] for share in quantiles]


def _burst(call: Callable[[], Any], evict: Callable[[], None], count: int, cycles: int) -> tuple[list[float], bool]:
    """The ms of each of `count` calls that are issued behind a spin, and whether all were before it ended."""
    events = [[torch.cuda.Event(enable_timing=True) for _ in range(2)] for _ in range(count)]
    torch.cuda._sleep(cycles)
    for before, after in events:
        evict()
        before.record()
        call()
        after.record()
    hidden = not events[0][0].query()
    torch.cuda.synchronize()
    return [before.elapsed_time(after) for before, after in events], hidden
