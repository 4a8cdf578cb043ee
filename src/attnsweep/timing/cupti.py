"""The GPU kernels that a call ran, seen through CUPTI's activity records (cupti-python, an extra).

torch's profiler would do, at 3 s for its first use in a process; CUPTI costs 0.2 s and sees any framework's kernels.
"""

from __future__ import annotations

import ctypes
import importlib
from typing import Any, Callable

_BUFFER_BYTES = 8 * 2**20

#: Longer kernel names, template arguments mostly, are cut.
_LONGEST_NAME = 240


def kernel_names(call: Callable[[], Any], synchronize: Callable[[], None]) -> list[str] | None:
    """Names of the kernels that one call ran, in order; None where cupti-python or CUPTI itself is not there."""
    try:
        cupti = importlib.import_module("cupti.cupti")
    except ImportError:
        return None
    seen: list[tuple[int, str]] = []

    def requested() -> tuple[int, int]:
        return _BUFFER_BYTES, 0

    def completed(activities: list[Any]) -> None:
        seen.extend((activity.start, str(activity.name)) for activity in activities)

    synchronize()
    try:
        cupti.activity_register_callbacks(requested, completed)
        cupti.activity_enable(cupti.ActivityKind.CONCURRENT_KERNEL)
    except cupti.cuptiError:
        return None
    try:
        call()
        synchronize()
        cupti.activity_flush_all(1)
    finally:
        cupti.activity_disable(cupti.ActivityKind.CONCURRENT_KERNEL)
    return [readable(name) for _, name in sorted(seen)]


def readable(name: str) -> str:
    """A kernel's name demangled by the C++ runtime where it is one of C++'s, and cut to a readable length."""
    if name.startswith("_Z"):
        try:
            demangle = ctypes.CDLL("libstdc++.so.6").__cxa_demangle
        except OSError:
            return name[:_LONGEST_NAME]
        demangle.restype = ctypes.c_void_p
        status = ctypes.c_int()
        pointer = demangle(name.encode(), None, None, ctypes.byref(status))
        if pointer and status.value == 0:
            name = ctypes.string_at(pointer).decode()
            ctypes.CDLL(None).free(ctypes.c_void_p(pointer))
    return name[:_LONGEST_NAME]
