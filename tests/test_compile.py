"""Compiled cells: what compiling and autotuning cost, what broke the graph, and what is refused as not compiled."""

import sys
from types import SimpleNamespace

import pytest
import torch
from triton.runtime.errors import OutOfResources

import fake_impls
from attnsweep import worker
from attnsweep.frameworks import torch as framework
from attnsweep.frameworks import torch_autotuning
from cells import resolved

CASE = {
    "batch_size": 1,
    "q_len": 16,
    "kv_len": 16,
    "num_heads": 2,
    "num_kv_heads": 2,
    "head_dim": 16,
    "head_dim_v": 16,
    "dtype": "fp32",
}
MODE = {"mode": "reduce-overhead", "fullgraph": True, "dynamic": False}


def cell(deed, mode="default", fullgraph=True):
    """A small resolved cell on the CPU of an implementation that does one deed."""
    impl = {"name": deed, "_target_": "fake_impls.Fake", "deed": deed, "layout": "bhsd"}
    payload = resolved(impl, CASE, mode)
    payload["compile"]["fullgraph"] = fullgraph
    return payload


def run(payload, emit=lambda event: None):
    """The outcome of a cell in this process."""
    return worker.run(payload, emit)


@pytest.fixture
def compiler(monkeypatch, tmp_path):
    """A compiler that has compiled nothing, with an empty disk cache; left as it was found."""
    import torch._dynamo.config

    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    # As the compiler leaves it when it first puts it back, where it was never set: the cache's key holds it
    torch.set_float32_matmul_precision(torch.get_float32_matmul_precision())
    with torch._dynamo.config.patch(error_on_recompile=False, fail_on_cache_limit_hit=False):
        forget_compilations()
        yield
    forget_compilations()


def forget_compilations():
    """As in a new process, but for the disk cache."""
    import torch._inductor.cudagraph_trees  # reset() imports it, in the middle of a loop over what its import adds to
    from torch._dynamo.utils import counters
    from torch._inductor.utils import clear_caches

    clear_caches()
    torch._dynamo.reset()
    counters.clear()
    torch._dynamo.config.error_on_recompile = False


@pytest.fixture
def gpu(monkeypatch):
    """The framework as on a GPU, compiled in a CUDA-graph mode; nothing is run."""
    monkeypatch.setattr(framework.Torch, "_make_room", lambda self: None)
    fw = framework.Torch({"kind": "cuda"})
    fw.compile(lambda q: q, MODE, "test")
    return fw


def trees(state):
    """A stand-in for torch._inductor.cudagraph_trees whose manager is in this state (None: there is no manager)."""
    manager = None if state is None else SimpleNamespace(path_state=state)
    return SimpleNamespace(
        get_manager=lambda device, create_if_none_exists: manager,
        ExecutionState=SimpleNamespace(EXECUTION="execution"),
    )


@pytest.mark.slow
def test_a_compiled_cell_says_what_compiling_cost(compiler):
    """First call, compile time, cache; nothing was autotuned, which is zero and not null."""
    outcome = run(cell("ok"))
    columns = outcome["columns"]
    assert outcome["status"] == "ok", outcome["traceback"]
    assert columns["compile_cache"] == "miss"
    assert columns["first_call_s"] >= columns["compile_s"] > 0
    assert columns["autotune_s"] == 0.0
    assert "graph_break" not in columns["flags"]
    forget_compilations()
    assert run(cell("ok"))["columns"]["compile_cache"] == "hit"


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:TypedStorage is deprecated:UserWarning")  # torch's own, from its autotuner
def test_autotuning_is_a_part_of_compiling_and_free_once_cached(compiler):
    """Inductor times its C++ template for the products against ATen, and remembers."""
    columns = run(cell("by_hand", "max-autotune-no-cudagraphs"))["columns"]
    assert 0 < columns["autotune_s"] < columns["compile_s"]
    forget_compilations()
    columns = run(cell("by_hand", "max-autotune-no-cudagraphs"))["columns"]
    assert columns["autotune_s"] == 0.0


@pytest.mark.parametrize(
    ("mode", "fused"), [("eager", []), ("default", ["_scaled_dot_product_flash_attention_for_cpu"])]
)
def test_a_formula_that_the_compiler_replaced_on_a_cpu_is_flagged(compiler, mode, fused):
    """Inductor's own kernel of attention is an operator that the formula never runs, and is named."""
    impl = {"name": "naive", "_target_": "attnsweep.impls.naive.NaiveAttention", "layout": "bhsd"}
    columns = run(resolved({**impl, "kernels": {"never": ["flash|cudnn|fmha"]}}, CASE, mode))["columns"]
    assert ("substituted" in columns["flags"]) == bool(fused)
    assert columns.get("kernel_names", []) == [f"aten::{name}" for name in fused]
    tolerant = run(resolved(impl, CASE, mode))["columns"]
    assert "substituted" not in tolerant["flags"]


def test_an_eager_cell_has_no_compile_columns():
    """Null, not zero: there was nothing to compile."""
    columns = run(cell("ok", "eager"))["columns"]
    assert not {"compile_s", "autotune_s", "compile_cache"} & set(columns)


def test_benchmarks_that_call_each_other_are_counted_once(monkeypatch):
    """The outermost call's time, however deep it goes; a call that raises counts too."""
    now = [0.0]

    class Benchmarker:
        def benchmark(self, raises=False):
            now[0] += 1
            self.benchmark_gpu()
            if raises:
                raise RuntimeError

        def benchmark_gpu(self):
            now[0] += 2

    monkeypatch.setattr(torch_autotuning, "time", SimpleNamespace(monotonic=lambda: now[0]))
    benchmarker = Benchmarker()
    autotuning = torch_autotuning.Autotuning(benchmarker)
    benchmarker.benchmark()
    now[0] += 10
    with pytest.raises(RuntimeError):
        benchmarker.benchmark(raises=True)
    benchmarker.benchmark_gpu()
    assert autotuning.seconds == 3 + 3 + 2


def test_candidates_that_were_timed_out_of_sight_are_null(gpu, monkeypatch):
    """Inductor counts a benchmark that its benchmarker in this process never ran: the time is not known."""
    counters = {"inductor.select_algorithm_autotune": 1}
    monkeypatch.setattr(gpu, "compilations", lambda: counters)
    counters["inductor.fxgraph_cache_hit"] = 1
    assert gpu.autotune_s() == 0.0
    counters["inductor.fxgraph_cache_miss"] = 1
    assert gpu.autotune_s() is None


@pytest.mark.parametrize(
    ("deed", "reason"),
    [("prints", "`print`"), ("prints_in_a_loop", "`print`"), ("branches_on_data", "data-dependent branching")],
)
def test_a_graph_break_is_a_compile_error_that_says_why(compiler, deed, reason):
    """fullgraph: what Dynamo cannot trace is refused, never run eagerly."""
    outcome = run(cell(deed))
    assert outcome["status"] == "compile_error"
    assert outcome["reason"].startswith("graph break: ")
    assert reason in outcome["reason"]
    assert "\n" not in outcome["reason"]


@pytest.mark.slow
@pytest.mark.parametrize("deed", ["prints", "prints_in_a_loop", "branches_on_data"])
def test_a_graph_break_that_was_allowed_is_a_flag(compiler, deed):
    """compile.fullgraph=false: the row is ok, and says that a part of it ran eagerly."""
    outcome = run(cell(deed, fullgraph=False))
    assert outcome["status"] == "ok", outcome["traceback"]
    assert "graph_break" in outcome["columns"]["flags"]


@pytest.mark.parametrize("fullgraph", [True, False])
def test_what_is_compiled_at_every_call_is_a_compile_error(compiler, monkeypatch, fullgraph):
    """At its limit torch.compile would run it eagerly, under the name of the compiled one."""
    monkeypatch.setattr(fake_impls, "COUNTED", 0)
    outcome = run(cell("counts_its_calls", fullgraph=fullgraph))
    assert outcome["status"] == "compile_error", outcome["traceback"]
    assert outcome["reason"].startswith("it was compiled again and again, up to torch.compile's limit")


@pytest.mark.slow
def test_a_recompilation_while_timing_is_a_compile_error_that_names_the_guard(compiler, monkeypatch):
    """What was timed before it and after it are two programs, so there is no latency."""

    def emit(event):
        if event["phase"] == "timing":
            monkeypatch.setattr(fake_impls, "SWITCHED", True)

    outcome = run(cell("follows_a_switch"), emit)
    assert outcome["status"] == "compile_error"
    assert outcome["reason"].startswith("a call after the warm ones was compiled again, because a guard failed: 0/0: ")
    assert outcome["reason"].endswith("SWITCHED'] == False")
    assert "latency_ms" not in outcome["columns"]


@pytest.mark.parametrize(
    ("state", "skips", "ready"),
    [(None, 1, False), ("warmup", 0, False), ("recording", 0, False), ("execution", 0, True), ("execution", 1, False)],
)
def test_a_cuda_graph_mode_is_ready_when_all_was_replayed(gpu, monkeypatch, state, skips, ready):
    """Warming up and recording are not what a later call does, nor is running a pass without a graph."""
    monkeypatch.setitem(sys.modules, "torch._inductor.cudagraph_trees", trees(state))
    monkeypatch.setattr(gpu, "compilations", lambda: {"inductor.cudagraph_skips": skips})
    assert (gpu.pending() is None) is ready


@pytest.mark.parametrize(("mode", "phases"), [("eager", []), ("default", ["compile"])])
def test_compiling_is_a_phase_of_its_own_and_no_stage(monkeypatch, mode, phases):
    """Deadlines go by the phases that are announced; prepare_s and overhead_s by the stages, whose sum is unchanged."""
    monkeypatch.setattr(framework.Torch, "compile", lambda self, function, options, tag: function)
    announced = []
    outcome = run(cell("ok", mode), lambda event: announced.append(event["phase"]))
    assert outcome["status"] == "ok", outcome["traceback"]
    begin = ["import", "inputs", "import", "prepare"]
    assert announced == [*begin, *phases, "check", "proof", "memory", "timing", "check"]
    assert set(outcome["stages"]) == {"import", "inputs", "prepare", "check", "proof", "memory", "timing"}
    assert outcome["stages"]["prepare"] >= outcome["columns"]["first_call_s"]


def test_warm_calls_go_on_until_nothing_is_pending(monkeypatch):
    """The floor of three is not enough where the compiler takes longer to get to its last phase."""
    answers = ["no graph"] * 6 + [None]
    monkeypatch.setattr(framework.Torch, "pending", lambda self: answers.pop(0))
    outcome = run(cell("ok", "eager"))
    assert outcome["status"] == "ok", outcome["traceback"]
    assert answers == []


def test_a_mode_that_never_gets_there_is_a_compile_error(monkeypatch):
    """Asked for CUDA graphs and given none, a row would carry the wrong name."""
    monkeypatch.setattr(framework.Torch, "pending", lambda self: "torch.compile had replayed no CUDA graph")
    outcome = run(cell("ok", "eager"))
    assert outcome["status"] == "compile_error"
    assert outcome["reason"] == "after 20 calls torch.compile had replayed no CUDA graph"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("No available kernel. Aborting execution.", "PyTorch: No available kernel. Aborting execution."),
        ("No operator found for `memory_efficient_attention_backward` with inputs:\n  q", "xFormers: No operator"),
        (
            "(head_dim, head_dim_v)=(136, 132) is not supported on SM90. head_dim and head_dim_v must be ...",
            "FlashAttention 4: (head_dim, head_dim_v)=(136, 132) is not supported on SM90",
        ),
        ("No dot product attention backend is available for the provided inputs.", "Transformer Engine: No dot"),
    ],
)
def test_what_a_library_refuses_at_the_call_is_unsupported(text, reason):
    """In its own words, first line, with its name."""
    status, said = framework.Torch({"kind": "cpu"}).status_of(ValueError(text))
    assert status == "unsupported"
    assert said.startswith(reason)


BY_LAUNCHER = (
    "out of resource: triton_tem_fused_flex_attention_2 Required: 278784 Hardware limit:232448 "
    "Reducing block sizes or `num_stages` may help."
)
SHARED = OutOfResources(278784, 232448, "shared memory")


def raised(error, compiled):
    """What a call ends with where this was raised in it, by torch.compile or by the kernel itself."""
    from torch._inductor.exc import InductorError

    return InductorError(error, None) if compiled else error


@pytest.mark.parametrize(
    ("error", "compiled", "reason"),
    [
        (SHARED, False, "278784 bytes of shared memory, and there are 232448"),
        (RuntimeError(f"No valid triton configs. OutOfResources: {SHARED}"), True, "278784 bytes of shared memory"),
        (RuntimeError(f"No valid triton configs. OutOfMemoryError: {BY_LAUNCHER}"), True, "and there are 232448"),
        (torch.OutOfMemoryError(BY_LAUNCHER), True, "278784 bytes of shared memory, and there are 232448"),
        (OutOfResources(640, 512, "tensor memory"), False, "640 columns of tensor memory, and there are 512"),
    ],
)
def test_tiles_that_do_not_fit_a_multiprocessor_are_unsupported(error, compiled, reason):
    """How much they take and how much there is, by Triton's own exception and by what Inductor makes of it."""
    status, said = framework.Torch({"kind": "cpu"}).status_of(raised(error, compiled))
    assert status == "unsupported"
    assert said.startswith("Triton: a kernel's tiles take ")
    assert reason in said


@pytest.mark.parametrize(
    ("error", "compiled", "status"),
    [
        (OutOfResources(4096, 1024, "threads"), False, "compile_error"),
        (RuntimeError("No valid triton configs. PTXASError: PTXAS error: too many registers"), True, "compile_error"),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 109.77 GiB."), True, "oom"),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 109.77 GiB."), False, "oom"),
    ],
)
def test_nothing_else_that_is_lacking_is_taken_for_tiles_that_do_not_fit(error, compiled, status):
    """Threads and registers are the compiler's, and a GPU that is full is out of memory."""
    assert framework.Torch({"kind": "cpu"}).status_of(raised(error, compiled))[0] == status
