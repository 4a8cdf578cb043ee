"""What a GPU ran and when, through CUPTI's activity records (cupti-python, an extra): kernels, copies and fills.

torch's profiler would do, at 3 s for its first use in a process; CUPTI costs 0.2 s and sees any framework's kernels.
"""

from __future__ import annotations

import ctypes
import importlib
import re
from typing import Any, Callable, Iterable, NamedTuple

from attnsweep.errors import first_line

_BUFFER_BYTES = 8 * 2**20

#: Longer kernel names, template arguments mostly, are cut.
_LONGEST_NAME = 240


class Activity(NamedTuple):
    """Something that the GPU did: its times in ns, its name, and whether it was a copy."""

    start: int
    end: int
    name: str
    copy: bool


class CuptiFailed(Exception):
    """What the GPU did cannot be seen, and why in a sentence: cupti-python is not there or does not load, or CUPTI
    refused something.
    """


def load() -> Any:
    """The module cupti.cupti, whose import touches no GPU. Raises CuptiFailed."""
    try:
        return importlib.import_module("cupti.cupti")
    # The last three are Cython's, where it was built for another version of what it is imported with
    except (ImportError, OSError, RuntimeError, TypeError, ValueError) as error:
        # Of the module's own shared libraries an ImportError bears its name too
        if isinstance(error, ModuleNotFoundError) and error.name in ("cupti", "cupti.cupti"):
            why = "is not there (install it with: pip install cupti-python)"
        else:
            why = f"cannot be imported: {first_line(str(error))}"
        raise CuptiFailed(f"cupti-python {why}") from error


class Tracer:
    """Traces what runs on the GPU. Raises CuptiFailed, also where cupti-python is not there."""

    def __init__(self, synchronize: Callable[[], None]) -> None:
        self._synchronize = synchronize
        self._cupti: Any = load()
        kinds = self._cupti.ActivityKind
        self._kinds = (kinds.CONCURRENT_KERNEL, kinds.MEMCPY, kinds.MEMSET)
        self._seen: list[Activity] = []
        self._watch()
        self._rest()

    def trace(self, run: Callable[[], Any]) -> list[Activity]:
        """What the GPU did during `run`, by start. Raises CuptiFailed, and what `run` raises."""
        self._synchronize()
        self._watch()
        self._seen.clear()
        try:
            run()
            self._synchronize()
            self._say("activity_flush_all", 1)
        finally:
            self._rest()
        return sorted(self._seen)

    def _watch(self) -> None:
        self._say("activity_register_callbacks", lambda: (_BUFFER_BYTES, 0), self._completed)
        for kind in self._kinds:
            self._say("activity_enable", kind)

    def _rest(self) -> None:
        for kind in self._kinds:
            self._say("activity_disable", kind)

    def _say(self, name: str, *arguments: Any) -> None:
        try:
            getattr(self._cupti, name)(*arguments)
        except (self._cupti.cuptiError, RuntimeError) as error:  # the latter where it finds no libcupti
            raise CuptiFailed(f"CUPTI failed in {name}: {first_line(str(error))}") from error

    def _completed(self, activities: list[Any]) -> None:
        kernel, copy, _ = (int(kind) for kind in self._kinds)
        for one in activities:
            kind = int(one.kind)
            if kind == kernel or hasattr(one, "name"):
                self._seen.append(Activity(one.start, one.end, str(one.name), copy=False))
            else:
                name = "memcpy" if kind == copy else "memset"
                self._seen.append(Activity(one.start, one.end, name, copy=kind == copy))


def busy_ms(activities: Iterable[Activity]) -> float:
    """Milliseconds in which at least one of the activities, sorted by start, ran."""
    total, until = 0, 0
    for one in activities:
        total += max(0, one.end - max(one.start, until))
        until = max(until, one.end)
    return total / 1e6


#: By how much a kernel may begin before the mark ends that it waits for (programmatic dependent launch), and end after
#: the mark begins that waits for it, which comes 0.9 us later and more on an H200; in ns.
_EARLY_NS, _LATE_NS = 5_000, 500


def stray(seen: list[Activity], mark_ms: float) -> Activity | None:
    """An activity that is not between two marks of the stream, of one name, the first and the last to begin; or None.

    Such a one waited for nothing in the stream, or nothing in the stream waited for it: it ran in another. Raises
    CuptiFailed where the first is not a mark of `mark_ms`, or there is no other, or one has no times (CUPTI's are 0).
    """
    first, *others = seen or [Activity(0, 0, "", copy=False)]
    marked = first.end - first.start >= mark_ms * 1e6 / 2 and any(one.name == first.name for one in others)
    if not marked or not all(one.end for one in seen):
        raise CuptiFailed("CUPTI did not see what marks the stream")
    last = seen[-1]
    if last.name != first.name:
        return last
    earliest, latest = first.end - _EARLY_NS, last.start + _LATE_NS
    return next((one for one in seen[1:-1] if one.start < earliest or one.end > latest), None)


#: Kernels that only copy: PyTorch's to another layout or type, a concatenation, a list of tensors into another; XLA's
#: fusions of one operation alone, which it calls wrapped.
_COPYING = re.compile(
    r"direct_copy_kernel|CatArrayBatchedCopy|CopyFunctor|copy_kernel_cuda|::Copy<"
    r"|^wrapped_(copy|transpose|concatenate|slice|convert)"
)


def copies(activity: Activity) -> bool:
    """Whether it only moved data: a memcpy, or a kernel whose name says so."""
    return activity.copy or bool(_COPYING.search(_demangled(activity.name)))


def readable(name: str) -> str:
    """A kernel's name demangled where it is one of C++'s, and cut to a readable length."""
    return _demangled(name)[:_LONGEST_NAME]


def _demangled(name: str) -> str:
    """A name of C++'s as the C++ runtime writes it; any other, or where there is none, as it is."""
    if name.startswith("_Z"):
        try:
            demangle = ctypes.CDLL("libstdc++.so.6").__cxa_demangle
        except OSError:
            return name
        demangle.restype = ctypes.c_void_p
        status = ctypes.c_int()
        pointer = demangle(name.encode(), None, None, ctypes.byref(status))
        if pointer and status.value == 0:
            name = ctypes.string_at(pointer).decode()
            ctypes.CDLL(None).free(ctypes.c_void_p(pointer))
    return name
