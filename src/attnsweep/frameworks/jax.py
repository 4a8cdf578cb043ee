"""JAX: arrays, jax.jit, gradients by jax.vjp. Calls are waited for by their results: JAX offers no stream and no event.

Everything runs with JAX's defaults, 64-bit types off as users have them; only what is inside `exact` knows fp64.
"""

from __future__ import annotations

import ctypes
import importlib.metadata
import os
import re
import time
from contextlib import AbstractContextManager
from typing import Any, Callable

import jax
import jax.monitoring
import jax.numpy as jnp
import numpy as np

from attnsweep.errors import Missing, Status, Unsupported, first_line
from attnsweep.frameworks import DEVICE_EVENTS, Given
from attnsweep.frameworks.jax_errors import ROOM, OutOfMemory, status_of
from attnsweep.frameworks.jax_programs import Jitted, Program, keep_programs

try:
    from jax import enable_x64
except ImportError:  # before 0.8
    from jax.experimental import enable_x64

_DTYPES = {"fp16": jnp.float16, "bf16": jnp.bfloat16, "fp32": jnp.float32, "fp64": jnp.float64}
_NAMES = {jnp.dtype(dtype): name for name, dtype in _DTYPES.items()}

#: The flush reads this much, or four times L2 where that is more.
_FLUSH_BYTES = 256 * 2**20

#: jax.monitoring's event for each program that XLA compiles, those of single operations too.
_COMPILED = "/jax/core/compile/backend_compile_duration"

#: CUdevice_attribute: streaming multiprocessors, and bytes of L2.
_SM_COUNT, _L2_BYTES = 16, 38


class Call:
    """A call without arguments whose results its framework can wait for; `program` is None outside jax.jit."""

    def __init__(self, framework: Jax, run: Callable[[], tuple[Any, ...]], program: Program | None) -> None:
        self._framework, self._run, self.program = framework, run, program

    def __call__(self) -> tuple[Any, ...]:
        # The results of the call before go first, as those of a caller who drops them do.
        self._framework.issued = ()
        with ROOM:
            self._framework.issued = results = self._run()
        return results


class Completion:
    """The end of what was issued last, by the host's clock when it is waited for."""

    def __init__(self, framework: Jax) -> None:
        self._framework = framework
        self._results: Any = ()
        self._at = 0.0

    def record(self) -> None:
        self._results = self._framework.issued

    def reached(self) -> bool:
        return all(result.is_ready() for result in jax.tree_util.tree_leaves(self._results))

    def wait(self) -> None:
        with ROOM:
            jax.block_until_ready(self._results)
        self._results, self._at = (), time.monotonic()

    def ms_until(self, later: Completion) -> float:
        return (later._at - self._at) * 1e3


class Jax:
    """`attnsweep.frameworks.Framework` for JAX on one device."""

    name = "jax"
    device_events = DEVICE_EVENTS["jax"]
    eager_flag = "op_by_op"
    out_of_memory: tuple[type[BaseException], ...] = (OutOfMemory,)

    def __init__(self, device: dict[str, Any]) -> None:
        self.on_gpu = device["kind"] == "cuda"
        #: What was issued last; a GPU runs in order, so that all is done when this is.
        self.issued: Any = ()
        self._device: Any = None
        self._programs_compiled = 0
        self._flush: tuple[Program, jax.Array] | None = None
        jax.monitoring.register_event_duration_secs_listener(self._heard)

    def _heard(self, event: str, seconds: float, **_: Any) -> None:
        self._programs_compiled += event == _COMPILED

    # arrays

    def arange(self, start: int, count: int) -> jax.Array:
        wrapped = (start + 2**31) % 2**32 - 2**31
        return jnp.arange(count, dtype=jnp.int32) + np.int32(wrapped)

    def cast(self, x: jax.Array, dtype: str) -> jax.Array:
        return x.astype(_DTYPES[dtype])

    def concat(self, parts: list[jax.Array], axis: int = 0) -> jax.Array:
        return parts[0] if len(parts) == 1 else jnp.concatenate(parts, axis=axis)

    def swap(self, x: jax.Array, one: int, other: int) -> jax.Array:
        return jnp.swapaxes(x, one, other)

    def matmul(self, a: jax.Array, b: jax.Array) -> jax.Array:
        return jnp.matmul(a, b, precision=jax.lax.Precision.HIGHEST)

    def where(self, condition: jax.Array, x: jax.Array, other: float) -> jax.Array:
        return jnp.where(condition, x, jnp.asarray(other, dtype=x.dtype))

    def softmax(self, x: jax.Array) -> jax.Array:
        # Rounded at its end alone, as PyTorch's is: the error of the plain formula is a yardstick for both.
        wide = x if x.dtype == jnp.float64 else x.astype(jnp.float32)
        return jax.nn.softmax(wide, axis=-1).astype(x.dtype)

    def sum_last(self, x: jax.Array) -> jax.Array:
        return x.sum(axis=-1, keepdims=True)

    def max_abs(self, x: jax.Array) -> float:
        return float(jnp.abs(x).max())

    def max_abs_rows(self, x: jax.Array) -> list[float]:
        rows: list[float] = jnp.abs(x).max(axis=-1).reshape(-1, x.shape[-2]).max(axis=0).tolist()
        return rows

    def total(self, x: jax.Array) -> float:
        with enable_x64(True):
            return float(x.sum(dtype=jnp.float64))

    def count_nonfinite(self, x: jax.Array) -> int:
        return int((~jnp.isfinite(x)).sum())

    def shape(self, x: jax.Array) -> tuple[int, ...]:
        return tuple(x.shape)

    def dtype_name(self, x: jax.Array) -> str:
        return _NAMES.get(x.dtype, str(x.dtype))

    def nbytes(self, arrays: tuple[jax.Array, ...]) -> int:
        return sum(x.nbytes for x in arrays)

    def copy(self, x: jax.Array) -> jax.Array:
        with ROOM:
            return jax.block_until_ready(jnp.array(x, copy=True))

    def overwrite(self, x: jax.Array, values: jax.Array) -> jax.Array:
        return values

    def equal(self, x: jax.Array, y: jax.Array) -> bool:
        return bool(jnp.array_equal(x, y))

    def poison(self, sizes: list[int]) -> None:
        blocks = [jnp.full((max(size // 4, 1),), jnp.nan, dtype=jnp.float32) for size in sizes]
        jax.block_until_ready(blocks)

    def exact(self) -> AbstractContextManager[None]:
        context: AbstractContextManager[None] = enable_x64(True)
        return context

    # calls

    def compile(self, function: Callable[..., Any], options: dict[str, Any], tag: str) -> Any:
        mode = options["mode"]
        if mode not in (None, "jit"):
            raise Unsupported(f"{mode} is a mode of torch.compile; JAX's is compile=jit")
        return function if mode is None else Jitted(function)

    def differentiate(self, function: Any, given: Given, direction: str) -> Call:
        jitted = function if isinstance(function, Jitted) else None
        plain = function.function if isinstance(function, Jitted) else function

        def made(name: str, steps: Callable[..., Any]) -> Any:
            return steps if jitted is None else jitted.program(name, steps)

        def forward(*arrays: jax.Array) -> Any:
            return (plain(*arrays),)

        def pullback(q: jax.Array, k: jax.Array, v: jax.Array, *rest: jax.Array) -> Any:
            return jax.vjp(lambda *leaves: plain(*leaves, *rest), q, k, v)

        def forward_backward(cotangent: jax.Array, *arrays: jax.Array) -> Any:
            out, pull = pullback(*arrays)
            return (out, *pull(cotangent))

        def backward(pull: Any, cotangent: jax.Array) -> Any:
            return tuple(pull(cotangent))

        # `given` is read in each call: arrays cannot be written into, so `overwrite` puts others in their place.
        held: list[Any] = []

        def run_forward() -> Any:
            return steps(*given.arguments)

        def run_forward_backward() -> Any:
            return steps(given.cotangent, *given.arguments)

        def run_backward() -> Any:
            if not held:
                held.append(made("pullback", pullback)(*given.arguments)[1])
            return steps(held[0], given.cotangent)

        steps, run = {
            "fwd": (made("forward", forward), run_forward),
            "fwd_bwd": (made("forward_backward", forward_backward), run_forward_backward),
            "bwd": (made("backward", backward), run_backward),
        }[direction]
        return Call(self, run, steps if jitted is not None else None)

    def compilations(self) -> dict[str, int]:
        return {"xla": self._programs_compiled}

    def pending(self) -> str | None:
        return None

    def autotune_s(self) -> float | None:
        return None

    def graph_breaks(self) -> int:
        return 0

    def forbid_compilation(self) -> None:
        """Nothing to forbid: a compiled program takes no other arguments, and raises TypeError."""

    def compile_cache(self) -> str | None:
        return None

    def operators(self, call: Callable[[], Any]) -> list[str]:
        return []

    # device

    def synchronize(self) -> None:
        if self._device is None:
            self._device = _first_device("cuda" if self.on_gpu else "cpu")
        jax.block_until_ready(self.issued)
        self.issued = ()

    def event(self) -> Completion:
        return Completion(self)

    def stream(self) -> int | None:
        return None

    def sm_count(self) -> int | None:
        return _attribute(_SM_COUNT)

    def l2_bytes(self) -> int:
        return _attribute(_L2_BYTES)

    def free_bytes(self) -> int:
        stats = self._device.memory_stats()
        return int(stats["bytes_limit"] - stats["bytes_in_use"])

    def flush_cache(self) -> None:
        if self._flush is None:
            elements = max(_FLUSH_BYTES, 4 * self.l2_bytes()) // 4
            self._flush = Program(jnp.max), jnp.ones(elements, dtype=jnp.float32)
        read, buffer = self._flush
        self.issued = read(buffer)

    def free_memory(self) -> None:
        """XLA's allocator keeps what it has, and finds it again for the next array."""

    def device_allocations(self) -> int | None:
        return None  # XLA's allocator counts what it hands out, not what it asks for

    def peak_memory(self, call: Callable[[], Any]) -> int | None:
        # The allocator's own peak cannot be reset: the check has been there before.
        program = call.program if isinstance(call, Call) else None
        return program.peak_bytes() if self.on_gpu and program is not None else None

    def describe(self) -> dict[str, Any]:
        columns: dict[str, Any] = {"jax": jax.__version__, "jaxlib": importlib.metadata.version("jaxlib")}
        if self.on_gpu:
            version = re.search(r"cuda (\d+)", self._device.client.platform_version)
            number = int(version[1]) if version else 0
            columns["cuda"] = f"{number // 1000}.{number % 1000 // 10}" if number else None
            columns["cudnn"] = _cudnn_version()
            columns["sm_count"] = self.sm_count()
        return columns

    def status_of(self, error: BaseException) -> tuple[Status, str] | None:
        return status_of(error)


def _first_device(platform: str) -> Any:
    """The first device of a platform, whose backend comes up here; raises Missing where this JAX has none."""
    try:
        return jax.devices(platform)[0]
    except (RuntimeError, AssertionError) as error:  # the latter where JAX sees no /dev/nvidia*
        if platform == "cpu":
            raise
        why = first_line(str(error))
        raise Missing(f"this JAX finds no GPU ({why}); its CUDA build comes with: pip install 'jax[cuda13]'") from error


def _attribute(number: int) -> int:
    """A CUdevice_attribute of the GPU that CUDA counts first; raises OSError without a driver."""
    value = ctypes.c_int()
    code = ctypes.CDLL("libcuda.so.1").cuDeviceGetAttribute(ctypes.byref(value), ctypes.c_int(number), ctypes.c_int(0))
    if code:
        raise OSError(f"cuDeviceGetAttribute failed with error {code} of the CUDA driver")
    return value.value


def _cudnn_version() -> str | None:
    """The version of the cuDNN wheel that JAX's CUDA build comes with."""
    for name in ("nvidia-cudnn-cu13", "nvidia-cudnn-cu12"):
        try:
            return importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return None


def load(device: dict[str, Any]) -> Jax:
    """JAX on a device; its backend comes up with the first `synchronize`. Variables that the user has set stand."""
    # Of a GPU XLA takes what it needs, so that the driver, cuDNN and CUPTI find room, and up to nearly all: its default
    # of 0.75 would be out of memory where others are not.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    if "XLA_CLIENT_MEM_FRACTION" not in os.environ:  # its newer name: JAX refuses both at once
        os.environ.setdefault("XLA_PYTHON_CLIENT_MEM_FRACTION", "0.95")
    jax.config.update("jax_platforms", "cuda" if device["kind"] == "cuda" else "cpu")
    # Where there is a cache it is for our own operations, some hundred small programs a case.
    keep_programs(True)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    # What XLA tuned for an implementation's program would be found there, and be missing in its compile_s
    jax.config.update("jax_persistent_cache_enable_xla_caches", None)
    return Jax(device)
