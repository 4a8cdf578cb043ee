"""The SM clock over a stretch of a stream, by the GPU's own counters: clock64 (cycles of one SM) and globaltimer (ns).

A tiny kernel, launched before and after the stretch on every SM, writes both into host memory. NVML averages over
longer than a block takes; these two do not. The driver compiles the kernel from PTX in some ms: no toolkit, no
framework but the stream's handle.
"""

from __future__ import annotations

import ctypes
from typing import Protocol

from attnsweep.timing.statistics import median

#: Marks kept at a time, and the most SMs that a GPU may have.
_MARKS, _SMS = 64, 512
#: Bytes of one SM's stamp: two 64-bit counters.
_STAMP = 16

_PTX = b"""
.version 7.0
.target sm_70
.address_size 64
.visible .entry stamp(.param .u64 stamps)
{
    .reg .u32 %r<2>;
    .reg .u64 %rd<7>;
    ld.param.u64 %rd1, [stamps];
    cvta.to.global.u64 %rd2, %rd1;
    mov.u32 %r1, %smid;
    mul.wide.u32 %rd3, %r1, 16;
    add.u64 %rd4, %rd2, %rd3;
    mov.u64 %rd5, %clock64;
    mov.u64 %rd6, %globaltimer;
    st.global.v2.u64 [%rd4], {%rd5, %rd6};
    ret;
}
"""


class SmClock(Protocol):
    """Marks in a stream, and the clock between two of them once both were reached."""

    def mark(self) -> int:
        """Put a mark at the end of what has been issued; its number. Only the last 64 are kept."""

    def mhz(self, first: int, second: int) -> float | None:
        """Median over SMs of the clock between two marks, in MHz; None where it is not known."""


class NoSmClock:
    """Where the counters cannot be read."""

    def mark(self) -> int:
        """Nothing is marked."""
        return 0

    def mhz(self, first: int, second: int) -> float | None:
        """Not known."""
        return None


class CounterClock:
    """The counters of the GPU whose context is current, on one stream of it. Raises OSError without a CUDA driver."""

    def __init__(self, stream: int, sm_count: int) -> None:
        self._driver = ctypes.CDLL("libcuda.so.1")
        self._stream, self._blocks = ctypes.c_void_p(stream), 2 * min(sm_count, _SMS)
        module, self._kernel = ctypes.c_void_p(), ctypes.c_void_p()
        self._call("cuModuleLoadData", ctypes.byref(module), ctypes.c_char_p(_PTX))
        self._call("cuModuleGetFunction", ctypes.byref(self._kernel), module, ctypes.c_char_p(b"stamp"))
        memory = ctypes.c_void_p()
        # Host memory that the device writes (CU_MEMHOSTALLOC_DEVICEMAP); one address serves both.
        self._call("cuMemHostAlloc", ctypes.byref(memory), ctypes.c_size_t(_MARKS * _SMS * _STAMP), ctypes.c_uint(2))
        assert memory.value is not None
        self._memory = memory.value
        self._next = 0

    def mark(self) -> int:
        number, self._next = self._next, self._next + 1
        address = self._memory + number % _MARKS * _SMS * _STAMP
        ctypes.memset(address, 0, _SMS * _STAMP)
        argument = ctypes.c_uint64(address)
        arguments = (ctypes.c_void_p * 1)(ctypes.cast(ctypes.byref(argument), ctypes.c_void_p))
        self._call(
            "cuLaunchKernel",
            self._kernel,
            *(ctypes.c_uint(size) for size in (self._blocks, 1, 1, 1, 1, 1, 0)),
            self._stream,
            arguments,
            None,
        )
        return number

    def mhz(self, first: int, second: int) -> float | None:
        if self._next - first > _MARKS:
            return None
        clocks = []
        for (cycles, ns), (later_cycles, later_ns) in zip(self._stamps(first), self._stamps(second)):
            if ns and later_ns > ns and later_cycles > cycles:
                clocks.append((later_cycles - cycles) / (later_ns - ns) * 1e3)
        return median(clocks) if clocks else None

    def _stamps(self, number: int) -> list[tuple[int, int]]:
        address = self._memory + number % _MARKS * _SMS * _STAMP
        numbers = (ctypes.c_uint64 * (2 * _SMS)).from_address(address)
        return list(zip(numbers[0::2], numbers[1::2]))

    def _call(self, name: str, *arguments: object) -> None:
        code = getattr(self._driver, name)(*arguments)
        if code:
            raise OSError(f"{name} failed with error {code} of the CUDA driver")


def of(stream: int | None, sm_count: int | None) -> SmClock:
    """The counters of a stream (a CUDA stream's handle); one that knows nothing where there is none or they fail."""
    if stream is None or sm_count is None:
        return NoSmClock()
    try:
        return CounterClock(stream, sm_count)
    except OSError:
        return NoSmClock()
