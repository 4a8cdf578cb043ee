"""PyTorch: arrays, torch.compile, autograd, memory, and its CUDA stream."""

from __future__ import annotations

import importlib.metadata
import sys
import warnings
from contextlib import contextmanager
from typing import Any, Callable, Iterator

import torch

from attnsweep.errors import CompileError, GraphUnsupported, Status, first_line
from attnsweep.frameworks import DEVICE_EVENTS, Given
from attnsweep.frameworks.torch_autotuning import Autotuning
from attnsweep.frameworks.torch_errors import status_of
from attnsweep.frameworks.torch_stream import CapturedGraph, CudaEvent, use_streams

_DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32, "fp64": torch.float64}
_NAMES = {dtype: name for name, dtype in _DTYPES.items()}

#: The flush reads this much, or four times L2 where that is more: 256 MB is 4x the 60 MB of an H200.
_FLUSH_BYTES = 256 * 2**20

#: torch.cuda._sleep counts SM cycles, here at 2 GHz. At a higher clock a spin is shorter than asked for; a block that
#: comes out unhidden is tried again behind a longer one.
_CYCLES_PER_MS = 2_000_000

#: Modes in which torch.compile replays CUDA graphs.
_CUDA_GRAPH_MODES = ("reduce-overhead", "max-autotune")


class Torch:
    """`attnsweep.frameworks.Framework` for PyTorch on one device."""

    name = "torch"
    device_events = DEVICE_EVENTS["torch"]
    eager_flag: str | None = None
    out_of_memory: tuple[type[BaseException], ...] = (torch.OutOfMemoryError,)

    def __init__(self, device: dict[str, Any]) -> None:
        self.on_gpu = device["kind"] == "cuda"
        self.device = torch.device("cuda", 0) if self.on_gpu else torch.device("cpu")
        torch.set_grad_enabled(False)
        self._flush_buffer: torch.Tensor | None = None
        self._flush_result: torch.Tensor | None = None
        self._autotuning: Autotuning | None = None
        self._cuda_graphs = False
        self._capturing: torch.cuda.Stream | None = None

    # arrays

    def arange(self, start: int, count: int) -> torch.Tensor:
        wrapped = (start + 2**31) % 2**32 - 2**31
        return torch.arange(count, dtype=torch.int32, device=self.device) + wrapped

    def cast(self, x: torch.Tensor, dtype: str) -> torch.Tensor:
        return x.to(_DTYPES[dtype])

    def concat(self, parts: list[torch.Tensor], axis: int = 0) -> torch.Tensor:
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim=axis)

    def swap(self, x: torch.Tensor, one: int, other: int) -> torch.Tensor:
        return x.transpose(one, other).contiguous()

    def matmul(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return torch.matmul(a, b)

    def where(self, condition: torch.Tensor, x: torch.Tensor, other: float) -> torch.Tensor:
        return torch.where(condition, x, other)

    def softmax(self, x: torch.Tensor) -> torch.Tensor:
        return torch.softmax(x, dim=-1)

    def sum_last(self, x: torch.Tensor) -> torch.Tensor:
        return x.sum(dim=-1, keepdim=True)

    def max_abs(self, x: torch.Tensor) -> float:
        return float(x.abs().max())

    def max_abs_rows(self, x: torch.Tensor) -> list[float]:
        rows: list[float] = x.abs().amax(dim=-1).reshape(-1, x.shape[-2]).amax(dim=0).tolist()
        return rows

    def total(self, x: torch.Tensor) -> float:
        return float(x.sum(dtype=torch.float64))

    def count_nonfinite(self, x: torch.Tensor) -> int:
        return int((~torch.isfinite(x)).sum())

    def shape(self, x: torch.Tensor) -> tuple[int, ...]:
        return tuple(x.shape)

    def dtype_name(self, x: torch.Tensor) -> str:
        return _NAMES.get(x.dtype, str(x.dtype).removeprefix("torch."))

    def nbytes(self, arrays: tuple[torch.Tensor, ...]) -> int:
        return sum(x.numel() * x.element_size() for x in arrays)

    def copy(self, x: torch.Tensor) -> torch.Tensor:
        return x.detach().clone()

    def overwrite(self, x: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
        return x.copy_(values)

    def equal(self, x: torch.Tensor, y: torch.Tensor) -> bool:
        return bool(torch.equal(x, y))

    def poison(self, sizes: list[int]) -> None:
        blocks = [torch.full((max(n // 4, 1),), float("nan"), dtype=torch.float32, device=self.device) for n in sizes]
        del blocks

    @contextmanager
    def exact(self) -> Iterator[None]:
        matmul = torch.backends.cuda.matmul
        before = (
            torch.get_float32_matmul_precision(),
            matmul.allow_bf16_reduced_precision_reduction,
            matmul.allow_fp16_reduced_precision_reduction,
        )
        torch.set_float32_matmul_precision("highest")
        matmul.allow_bf16_reduced_precision_reduction = False
        matmul.allow_fp16_reduced_precision_reduction = False
        try:
            yield
        finally:
            torch.set_float32_matmul_precision(before[0])
            matmul.allow_bf16_reduced_precision_reduction = before[1]
            matmul.allow_fp16_reduced_precision_reduction = before[2]

    # calls

    def compile(self, function: Callable[..., Any], options: dict[str, Any], tag: str) -> Callable[..., Any]:
        mode = options["mode"]
        if mode is None:
            return function
        import torch._dynamo.config
        import torch._functorch.config
        import torch.compiler.config

        # Inductor's disk cache does not know which SDPA backends are switched on: without a tag of its own
        # sdpa_flash is handed the graph that sdpa_math compiled before it (seen on torch 2.11).
        torch.compiler.config.cache_key_tag = tag
        torch._dynamo.config.suppress_errors = False
        # Without fullgraph it would else run what it compiled too often eagerly from then on.
        torch._dynamo.config.fail_on_cache_limit_hit = True  # its name in torch 2.6, and since then another for it
        # A benchmarked backward runs many times over one graph; donated buffers would be gone after the first.
        torch._functorch.config.donated_buffer = False
        self._make_room()
        self._watch_autotuning()
        self._cuda_graphs = self.on_gpu and mode in _CUDA_GRAPH_MODES
        compiled = torch.compile(function, mode=mode, fullgraph=options["fullgraph"], dynamic=options["dynamic"])
        captured = False

        def call(*arrays: torch.Tensor) -> Any:
            nonlocal captured
            result = compiled(*arrays)
            if not captured:
                captured = self.compilations().get("stats.unique_graphs", 0) > 0
                if not captured:
                    raise CompileError("torch.compile captured no graph: this would time eager code")
            return result

        return call

    def _make_room(self) -> None:
        """Raise the allocator's peak once, so that autotuning clones on the GPU and not into pinned host memory.

        Inductor's autotuner takes peak less current memory for all that it may use; in a process that never
        allocated anything that is nothing, and each kernel that writes in place is tuned over copies in host memory
        (34 s for sdpa_math on 4x32x8192x128, and 3 s more to exit; torch/_inductor/runtime/triton_heuristics.py).
        """
        if self.on_gpu:
            free, _ = torch.cuda.mem_get_info()
            room = torch.empty(int(free * 0.8), dtype=torch.uint8, device=self.device)
            del room
            torch.cuda.empty_cache()

    def _watch_autotuning(self) -> None:
        try:
            from torch._inductor.runtime.benchmarking import benchmarker
        except ImportError:  # another torch: autotune_s is not known
            return
        self._autotuning = Autotuning(benchmarker)

    def differentiate(
        self, function: Callable[..., Any], given: Given, direction: str
    ) -> Callable[[], tuple[torch.Tensor, ...]]:
        # Their memory is written into (`overwrite`), so that they are read once.
        arrays, cotangent = given.arguments, given.cotangent
        if direction == "fwd":

            def forward() -> tuple[torch.Tensor, ...]:
                return (function(*arrays),)

            return forward

        leaves = tuple(x.detach().requires_grad_(True) for x in arrays[:3])
        everything = (*leaves, *arrays[3:])

        def forward_backward() -> tuple[torch.Tensor, ...]:
            with torch.enable_grad():
                out = function(*everything)
                return (out.detach(), *torch.autograd.grad(out, leaves, cotangent))

        if direction == "fwd_bwd":
            return forward_backward

        graph: list[torch.Tensor] = []

        def backward() -> tuple[torch.Tensor, ...]:
            with torch.enable_grad():
                if not graph:
                    graph.append(function(*everything))
                return tuple(torch.autograd.grad(graph[0], leaves, cotangent, retain_graph=True))

        return backward

    def compilations(self) -> dict[str, int]:
        # Nothing was compiled in a process that never imported the compiler, and importing it costs a second.
        dynamo = sys.modules.get("torch._dynamo.utils")
        counters = dynamo.counters if dynamo is not None else {}
        return {f"{group}.{name}": int(n) for group, entries in counters.items() for name, n in entries.items()}

    def pending(self) -> str | None:
        if not self._cuda_graphs:
            return None
        trees: Any = sys.modules.get("torch._inductor.cudagraph_trees")
        manager = trees.get_manager(self.device.index, create_if_none_exists=False) if trees is not None else None
        replayed = manager is not None and manager.path_state == trees.ExecutionState.EXECUTION
        if replayed and not self.compilations().get("inductor.cudagraph_skips", 0):
            return None
        return "torch.compile had not replayed a CUDA graph for all of it (TORCH_LOGS=cudagraphs says why)"

    def autotune_s(self) -> float | None:
        if self._autotuning is None:
            return None
        counters = self.compilations()
        # Where the disk cache answered, the counters of whoever filled it are restored.
        ran = self.compile_cache() == "miss" and any(
            name.startswith("inductor.benchmarking.") or name == "inductor.select_algorithm_autotune"
            for name in counters
        )
        return None if ran and not self._autotuning.seconds else self._autotuning.seconds

    def graph_breaks(self) -> int:
        counters = self.compilations()
        breaks = sum(n for name, n in counters.items() if name.startswith("graph_break."))
        # A break in a loop is not counted as one: the whole frame runs eagerly.
        return breaks + counters.get("frames.total", 0) - counters.get("frames.ok", 0)

    def forbid_compilation(self) -> None:
        dynamo: Any = sys.modules.get("torch._dynamo.config")
        if dynamo is not None:
            dynamo.error_on_recompile = True

    def compile_cache(self) -> str | None:
        counters = self.compilations()
        if counters.get("inductor.fxgraph_cache_miss", 0) or counters.get("inductor.fxgraph_cache_bypass", 0):
            return "miss"
        return "hit" if counters.get("inductor.fxgraph_cache_hit", 0) else None

    def operators(self, call: Callable[[], Any]) -> list[str]:
        with torch.autograd.profiler.profile() as seen:
            call()
        # What is no operator (a compiled region, its cache's key) has no namespace
        return list(dict.fromkeys(one.name for one in seen.function_events if "::" in one.name))

    # device

    def synchronize(self) -> None:
        if self.on_gpu:
            torch.cuda.synchronize()

    def event(self) -> CudaEvent:
        return CudaEvent()

    def capture(self, calls: list[Callable[[], Any]]) -> CapturedGraph:
        stream = torch.cuda.current_stream()
        try:
            if self._capturing is None:
                # One for all captures: the backward pass of a call that was captured before stays on it
                use_streams()
                self._capturing = torch.cuda.Stream()
            return CapturedGraph(calls, self._capturing)
        except (RuntimeError, ValueError, AssertionError) as error:  # whatever a library says to a stream that captures
            torch.cuda.set_stream(stream)
            torch.cuda.synchronize()
            if type(error).__name__ == "RecompileError":
                raise
            raise GraphUnsupported(f"{type(error).__name__}: {first_line(str(error))}") from error

    def stream(self) -> int | None:
        return int(torch.cuda.current_stream().cuda_stream)

    def sm_count(self) -> int | None:
        return int(torch.cuda.get_device_properties(self.device).multi_processor_count)

    def l2_bytes(self) -> int:
        return int(torch.cuda.get_device_properties(self.device).L2_cache_size)

    def free_bytes(self) -> int:
        return int(torch.cuda.mem_get_info()[0])

    def flush_cache(self) -> None:
        if self._flush_buffer is None:
            elements = max(_FLUSH_BYTES, 4 * self.l2_bytes()) // 4
            self._flush_buffer = torch.ones(elements, dtype=torch.float32, device=self.device)
            self._flush_result = torch.empty((), dtype=torch.float32, device=self.device)
        torch.amax(self._flush_buffer, dim=0, out=self._flush_result)

    def spin(self, ms: float) -> None:
        torch.cuda._sleep(int(ms * _CYCLES_PER_MS))

    def free_memory(self) -> None:
        if self.on_gpu:
            # The reference's matrix products leave cuBLAS a workspace (32 MiB on Hopper) that is no cell's own.
            torch._C._cuda_clearCublasWorkspaces()
            torch.cuda.empty_cache()

    def device_allocations(self) -> int | None:
        # A retry is among them: it frees what was cached, waits for the device, and asks again
        count = torch.cuda.memory_stats().get("num_device_alloc")
        return None if count is None else int(count)

    def peak_memory(self, call: Callable[[], Any]) -> int | None:
        if not self.on_gpu:
            return None
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        call()
        torch.cuda.synchronize()
        return int(torch.cuda.max_memory_allocated())

    def describe(self) -> dict[str, Any]:
        columns: dict[str, Any] = {"torch": str(torch.__version__), "cuda": torch.version.cuda}
        try:
            columns["triton"] = importlib.metadata.version("triton")
        except importlib.metadata.PackageNotFoundError:
            columns["triton"] = None
        if torch.backends.cudnn.is_available():
            columns["cudnn"] = str(torch.backends.cudnn.version())
        if self.on_gpu:
            columns["sm_count"] = self.sm_count()
        return columns

    def status_of(self, error: BaseException) -> tuple[Status, str] | None:
        return status_of(error)


def load(device: dict[str, Any]) -> Torch:
    """PyTorch on a device; silences one warning that its compiler prints about TF32, which is off on purpose."""
    warnings.filterwarnings("ignore", message=".*TensorFloat32 tensor cores.*")
    return Torch(device)
