"""What the rest of attnsweep asks of an array framework; the modules here with its name are the only ones that know it.

Inputs, reference and check are written against `Framework`, so another framework is a file beside `torch.py`.
"""

from __future__ import annotations

import importlib
from contextlib import AbstractContextManager
from typing import Any, Callable, Protocol, cast

from attnsweep.errors import ConfigError, Status

#: An array of whichever framework is in use; arithmetic, comparison, indexing and reshape are its own operators.
Array = Any

#: Modules that a warm process imports before it forks, and those that a plan which compiles adds.
PRELOAD: dict[str, tuple[str, ...]] = {"torch": ("numpy", "torch"), "jax": ("numpy", "jax")}
PRELOAD_COMPILE: dict[str, tuple[str, ...]] = {
    "torch": ("torch._dynamo", "torch._inductor.compile_fx", "torch._inductor.codecache"),
    "jax": (),
}
NAMES = tuple(PRELOAD)

#: Whether a framework offers events on its own stream; CUPTI times the calls of one that does not.
DEVICE_EVENTS = {"torch": True, "jax": False}

#: The compile mode that is JAX's; every other is torch.compile's.
_JIT = "jit"


def why_foreign(framework: str, mode: str | None) -> str | None:
    """Why a compile mode is not one of this framework's, or None; eager (None) is everyone's."""
    if framework == "torch" and mode == _JIT:
        return "jit is JAX's compile mode; torch's are default, reduce_overhead, max_autotune"
    if framework == "jax" and mode not in (None, _JIT):
        return f"{mode} is a mode of torch.compile; JAX's is compile=jit"
    return None


class Given(Protocol):
    """The arrays of a call: what the implementation is called with, and the incoming gradient where there is one."""

    @property
    def arguments(self) -> tuple[Array, ...]:
        """q, k, v, and the bias where there is one."""

    @property
    def cotangent(self) -> Array | None:
        """The gradient of the output; None for a forward pass."""


class Event(Protocol):
    """A point in the stream; without `device_events` its time is the host's when `wait` came back."""

    def record(self) -> None:
        """Put the point at the end of what has been issued."""

    def reached(self) -> bool:
        """Whether the device has come to it."""

    def wait(self) -> None:
        """Wait until the device has come to it."""

    def ms_until(self, later: Any) -> float:
        """Milliseconds between this point and a later one; waits for nothing, both must be reached."""


class Graph(Protocol):
    """Captured calls; `result` is what the last of them returned, in memory that each replay writes again."""

    result: Any

    def replay(self) -> None:
        """Issue all of them."""


class Framework(Protocol):
    """The array functions, the compiler, gradients, memory and clocks of one framework on one device."""

    name: str
    on_gpu: bool
    #: Whether events are the device's own, and `spin` and `capture` exist.
    device_events: bool
    #: What a row of compile=eager is flagged with, where users call no implementation so; else None.
    eager_flag: str | None
    #: What is raised where the device's memory does not suffice.
    out_of_memory: tuple[type[BaseException], ...]

    # arrays
    def arange(self, start: int, count: int) -> Array:
        """start .. start + count - 1 as 32-bit integers that wrap around."""

    def cast(self, x: Array, dtype: str) -> Array:
        """x in `dtype` (fp16, bf16, fp32, fp64), rounded to nearest."""

    def concat(self, parts: list[Array], axis: int = 0) -> Array:
        """Parts joined along an axis."""

    def swap(self, x: Array, one: int, other: int) -> Array:
        """x with two axes swapped, contiguous in memory."""

    def matmul(self, a: Array, b: Array) -> Array:
        """Batched matrix product with broadcasting, in the arrays' dtype; TF32 is off."""

    def where(self, condition: Array, x: Array, other: float) -> Array:
        """x where the condition holds, else `other`."""

    def softmax(self, x: Array) -> Array:
        """Softmax over the last axis, in x's dtype."""

    def sum_last(self, x: Array) -> Array:
        """Sum over the last axis, kept as an axis of size one."""

    def max_abs(self, x: Array) -> float:
        """Largest absolute value; NaN if any element is."""

    def max_abs_rows(self, x: Array) -> list[float]:
        """Largest absolute value of each row, the second axis from the end."""

    def total(self, x: Array) -> float:
        """Sum of all elements, accumulated in the widest precision that the framework has."""

    def count_nonfinite(self, x: Array) -> int:
        """How many elements are NaN or infinite."""

    def shape(self, x: Array) -> tuple[int, ...]:
        """The array's shape."""

    def dtype_name(self, x: Array) -> str:
        """The array's dtype by attnsweep's name."""

    def nbytes(self, arrays: tuple[Array, ...]) -> int:
        """Bytes that the arrays' elements take."""

    def copy(self, x: Array) -> Array:
        """A copy in memory of its own."""

    def overwrite(self, x: Array, values: Array) -> Array:
        """What stands for x from now on: x itself with these values in its memory, or `values` where none can be
        written into.
        """

    def equal(self, x: Array, y: Array) -> bool:
        """Whether two arrays hold the same bits."""

    def poison(self, sizes: list[int]) -> None:
        """Fill blocks of the device's memory, of these many bytes, with NaN and free them for the next to find."""

    def exact(self) -> AbstractContextManager[None]:
        """Matrix products without TF32 and reduced-precision accumulation, whatever an implementation switched on; and
        fp64. What is computed here stays here.
        """

    # calls
    def compile(self, function: Callable[..., Any], options: dict[str, Any], tag: str) -> Callable[..., Any]:
        """The function under a compile mode of conf/compile; the function itself for eager.

        Compiled code is cached on disk apart for each `tag`. Raises CompileError where nothing was captured. A break
        in the graph raises where `fullgraph` is set, and is counted where it is not.
        """

    def differentiate(
        self, function: Callable[..., Any], given: Given, direction: str
    ) -> Callable[[], tuple[Array, ...]]:
        """A call without arguments that runs `direction`: (out,), (dq, dk, dv) or (out, dq, dk, dv).

        It computes with what `given` holds when it is called; `bwd` alone runs over the forward pass of its first call.
        Raises Unsupported where the compile mode cannot run the direction as it runs others.
        """

    def compilations(self) -> dict[str, int]:
        """Counters that move whenever something is traced, compiled or autotuned."""

    def pending(self) -> str | None:
        """What a later call would still do otherwise than the last one did, beside `compilations`; None if nothing."""

    def autotune_s(self) -> float | None:
        """Seconds spent so far in timing candidates: 0.0 if none was, None if nothing is compiled or it is not told."""

    def graph_breaks(self) -> int:
        """How often the compiler left a piece of the function to run eagerly."""

    def forbid_compilation(self) -> None:
        """From here on a recompilation raises."""

    def compile_cache(self) -> str | None:
        """Whether the compiler's disk cache answered: hit, miss, or None where nothing was compiled."""

    def operators(self, call: Callable[[], Any]) -> list[str]:
        """The operators that one call ran, also from compiled code, each once; none where they are not told."""

    # device
    def synchronize(self) -> None:
        """Wait for the device."""

    def event(self) -> Event:
        """A new event; only on a GPU."""

    def capture(self, calls: list[Callable[[], Any]]) -> Graph:
        """The calls, one after the other, as one CUDA graph; only with `device_events`. Raises GraphUnsupported."""

    def stream(self) -> int | None:
        """The handle of the stream that calls are issued to; None where it is not known."""

    def sm_count(self) -> int | None:
        """Streaming multiprocessors of the GPU; None where it is not known."""

    def l2_bytes(self) -> int:
        """Size of the GPU's L2 cache."""

    def free_bytes(self) -> int:
        """Memory of the device that is free."""

    def flush_cache(self) -> None:
        """Read (never write) enough memory to evict the inputs from L2; only on a GPU."""

    def spin(self, ms: float) -> None:
        """Keep the device's stream busy for about this long without touching memory; only with `device_events`."""

    def free_memory(self) -> None:
        """Give cached blocks back to the device."""

    def device_allocations(self) -> int | None:
        """How often the allocator has asked the device for memory so far; None where that is not told."""

    def peak_memory(self, call: Callable[[], Any]) -> int | None:
        """Peak bytes allocated on the device during one call, inputs included; None where it is not known."""

    def describe(self) -> dict[str, Any]:
        """Record columns: versions and what the device says of itself."""

    def status_of(self, error: BaseException) -> tuple[Status, str] | None:
        """The status that a framework's own exception means, with a reason; None for any other."""


def load(name: str, device: dict[str, Any]) -> Framework:
    """The framework by name, set up on a device (Device.to_dict()); imports it. Raises ImportError without it."""
    if name not in NAMES:
        raise ConfigError(f"framework must be one of {', '.join(NAMES)}, not {name!r}")
    module = importlib.import_module(f"attnsweep.frameworks.{name}")
    return cast("Framework", module.load(device))
