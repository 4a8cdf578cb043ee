"""JAX as a framework, on the CPU: the same inputs, the worker's whole way, gradients, and what it refuses."""

import ast
import importlib.util
import json
import multiprocessing
import os
import subprocess
import sys
import types
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
import yaml

import jax_here
from attnsweep import (
    capabilities,
    conf_path,
    devices,
    frameworks,
    impls,
    inputs,
    interpreters,
    metrics,
    records,
    reference,
)
from attnsweep.case import Case
from attnsweep.errors import ConfigError
from attnsweep.frameworks.torch import Torch
from attnsweep.pool import pyenv
from attnsweep.timing import cupti
from cells import resolved
from numpy_framework import Numpy
from sweeps import EAGER, GPU

CPU = devices.cpu()
JIT = {**EAGER, "name": "jit", "mode": "jit"}
SIZES = {"batch_size": 2, "num_heads": 4, "num_kv_heads": 2, "head_dim": 16, "head_dim_v": 16}
CASE = {**SIZES, "q_len": 24, "kv_len": 24, "causal": True}


@pytest.fixture(scope="module")
def there():
    """Runs a function of jax_here in a process of its own, one for all tests of a module."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        yield lambda function, *arguments: pool.submit(function, *arguments).result()


def yaml_of(name):
    """The YAML of an implementation of conf/impl."""
    return yaml.safe_load((conf_path.conf_folder() / "impl" / f"{name}.yaml").read_text())


def xla(compile_mode="jit", **fields):
    """A cell of jax_xla on the CPU."""
    return resolved(yaml_of("jax_xla"), {**CASE, "dtype": "fp32", **fields}, compile_mode)


def function(name, compile_mode="jit", **fields):
    """A cell of a function of jax_here, by a YAML alone."""
    impl = {
        "name": name,
        "_target_": "attnsweep.impls.FunctionAttention",
        "framework": "jax",
        "function": f"jax_here.{name}",
        "arguments": {"scale": "scale"},
    }
    return resolved(impl, {**CASE, "dtype": "fp32", "causal": False, **fields}, compile_mode)


# arrays


@pytest.mark.parametrize("dtype", ["fp32", "fp16", "bf16"])
def test_numpy_torch_and_jax_agree_in_every_bit(there, dtype):
    """An implementation in JAX is given the same problem."""
    shape = (3, 1001)
    wide = {"fp32": torch.int32, "fp16": torch.int16, "bf16": torch.int16}[dtype]
    theirs = there(jax_here.bits, shape, dtype)
    torchs = inputs.near_normal(Torch(jax_here.CPU), shape, dtype, seed=7, tensor="q").view(wide).numpy()
    np.testing.assert_array_equal(theirs, torchs)
    if dtype != "bf16":
        numpys = inputs.near_normal(Numpy(), shape, dtype, seed=7, tensor="q")
        np.testing.assert_array_equal(theirs, numpys.view(theirs.dtype))


def test_the_array_functions_answer_as_torchs_do(there):
    """NaN comes through, sums are wide, softmax is rounded at its end, integers stay 32 bits and wrap."""
    values = np.random.default_rng(0).normal(size=(2, 3, 4)).astype(np.float32)
    here, x = Torch(jax_here.CPU), torch.from_numpy(values)
    found = there(jax_here.answers, values)
    assert found["max_abs"] == here.max_abs(x)
    assert found["max_abs of NaN"]
    assert found["max_abs_rows"] == pytest.approx(here.max_abs_rows(x))
    assert found["total"] == pytest.approx(10**6 * float(np.float32(0.1)), rel=1e-12)
    assert found["nonfinite"] == 1
    np.testing.assert_array_equal(found["swap"], here.swap(x, 0, 1))
    np.testing.assert_allclose(found["matmul"], here.matmul(x, here.swap(x, 1, 2)), rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(found["softmax"], here.softmax(x), rtol=1e-6)
    rounded_once = torch.softmax(x.half().double(), -1)
    np.testing.assert_allclose(found["softmax fp16"], rounded_once, rtol=1.01 * 2**-11)
    assert found["dtypes"] == ["fp16", "bf16", "fp32"]
    assert found["integers"] == "int32"
    np.testing.assert_array_equal(found["wrapped"], Numpy().arange(2**31 - 3, 8))
    assert found["nbytes"] == 24 * 6
    assert found["equal"] == (True, False)
    assert found["copied"]
    np.testing.assert_array_equal(found["where"], here.where(x > 0, x, float("-inf")))


def test_the_reference_is_fp64_and_nothing_else_is(there):
    """What users run is 32 bits, JAX's default; inside `exact` JAX and torch agree to fp64."""
    fields = {**CASE, "dtype": "fp32", "direction": "fwd_bwd"}
    results, x64, integers = there(jax_here.exact_reference, fields)
    assert (x64, integers) == (False, "int32")
    case, here = Case(**fields), Torch(jax_here.CPU)
    for theirs, ours in zip(
        results, reference.compute(here, case, inputs.make(here, case, 0, "bhsd"), "fp64"), strict=True
    ):
        assert theirs.dtype == np.float64
        np.testing.assert_allclose(theirs, ours, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize(("factor", "verdict"), [(1.0, "passed"), (1.001, "out differs from the reference")])
def test_the_check_judges_in_jax(there, factor, verdict):
    """Right is passed, a thousandth too much in fp32 is not."""
    assert verdict in there(jax_here.verified, {**CASE, "dtype": "fp32"}, factor)


# the worker


def test_a_jitted_cell_goes_the_workers_whole_way(there):
    """Output and gradients checked before and after timing, in fp32, and every column is one of the record's."""
    outcome = there(jax_here.outcome, xla(direction="fwd_bwd"))
    columns = outcome["columns"]
    assert outcome["status"] == "ok", outcome["traceback"]
    assert set(columns) <= set(records.NAMES)
    assert (columns["timer"], columns["check"]) == ("host", "passed")
    assert columns["compile_s"] > 0
    assert columns["output_bytes"] == 4 * 2 * 24 * 16 * (4 + 4 + 2 + 2)
    assert columns["jax"]
    assert columns["jaxlib"]
    assert "torch" not in columns
    assert "op_by_op" not in columns["flags"]
    json.loads(json.dumps(outcome))


@pytest.mark.parametrize(
    ("compile_mode", "direction", "dtype"),
    [
        ("jit", "bwd", "fp32"),
        ("eager", "fwd", "fp32"),
        pytest.param("eager", "bwd", "bf16", marks=pytest.mark.slow),
        pytest.param("eager", "fwd_bwd", "fp32", marks=pytest.mark.slow),
        pytest.param("jit", "fwd_bwd", "bf16", marks=pytest.mark.slow),
    ],
)
def test_modes_and_directions_are_computed_and_checked(there, compile_mode, direction, dtype):
    """A backward pass alone runs over one forward pass; eager runs each operation by itself, which the row says."""
    outcome = there(jax_here.outcome, xla(compile_mode, direction=direction, dtype=dtype))
    assert outcome["status"] == "ok", outcome["traceback"]
    assert ("op_by_op" in outcome["columns"]["flags"]) == (compile_mode == "eager")
    assert ("compile_s" in outcome["columns"]) == (compile_mode == "jit")


def test_what_jax_cannot_do_here_is_unsupported_in_its_words(there):
    """JAX's fp16 products ask for an algorithm that CPUs lack."""
    outcome = there(jax_here.outcome, xla(dtype="fp16"))
    assert outcome["status"] == "unsupported", outcome["reason"]
    assert "is not supported by dot_general on CPU" in outcome["reason"]


@pytest.mark.parametrize(
    ("name", "mode", "fields", "reason"),
    [
        ("sees_all", "jit", {"causal": True}, "out differs from the reference"),
        pytest.param("top_left", "jit", {"q_len": 7, "causal": True}, "out differs", marks=pytest.mark.slow),
        ("remembers", "eager", {}, "after timing, on other inputs: out differs"),
    ],
)
def test_a_wrong_function_from_yaml_alone_is_incorrect(there, name, mode, fields, reason):
    """A wrong mask, and an output kept: its inputs are others after timing, though arrays cannot be written into."""
    outcome = there(jax_here.outcome, function(name, mode, **fields))
    assert outcome["status"] == "incorrect", outcome
    assert reason in outcome["reason"]


def test_a_jitted_call_is_compiled_once_and_weighed_by_its_plan(there):
    """Other inputs of the same shape are the same program, replaced ones are seen, other shapes are an error."""
    counts, (on_cpu, peak, eager), follows, error = there(jax_here.compiled_once)
    assert [later - counts[0] for later in counts[1:]] == [1, 1, 1]
    assert on_cpu is None
    assert peak >= 4 * 2 * 24 * 16 * (4 + 2 + 2 + 4)  # q, k, v and the result in fp32
    assert eager is None
    assert follows
    assert "compiled" in error
    assert "again" not in error


def test_a_completion_is_the_end_of_what_was_issued(there):
    """By the host's clock when it is waited for."""
    reached, ms = there(jax_here.completions)
    assert reached
    assert 0 < ms < 60_000


@pytest.mark.parametrize(
    ("what", "status"),
    [
        ("memory", "oom"),
        ("no room for a copy", "oom"),
        ("refusal", "unsupported"),
        ("shared memory", "unsupported"),
        ("CUDA's version", "unsupported"),
        ("cuDNN", "unsupported"),
        ("cuDNN before", "unsupported"),
        ("a precision", "unsupported"),
        ("XLA", "unsupported"),
        ("other words", None),
        ("other words of cuDNN's", None),
        ("a stranger's", None),
        ("bug", None),
    ],
)
def test_jaxs_errors_are_statuses(there, what, status):
    """Any other is for the worker: words of a refusal are one only from who says it so."""
    found = there(jax_here.status, what)
    assert (found and found[0].value) == status


@pytest.mark.parametrize(
    ("what", "reason"), [("refusal", "not implemented: the head dim must be prime"), ("XLA", "JAX: ")]
)
def test_a_refusal_names_jax_only_where_it_is_jaxs(there, what, reason):
    """A library above JAX, or a user's own function, may say that something is not implemented."""
    assert there(jax_here.status, what)[1].startswith(reason)


def test_jax_refuses_in_the_words_that_are_looked_for(there):
    """Each stands in the source of the JAX that constraints.txt names, so that another wording is noticed."""
    files = {
        "exceeds available shared memory": "experimental/mosaic/gpu/core.py",
        "not supported with cuda versions": "experimental/pallas/ops/gpu/attention_mgpu.py",
        "is not supported by dot_general on": "_src/lax/lax.py",
    }
    assert there(jax_here.unsaid, files) == []


def test_a_call_without_room_raises_what_the_framework_says(there):
    """So that a load which does not fit costs the load alone."""
    assert there(jax_here.no_room)


def test_a_plan_that_xla_does_not_tell_is_no_memory(there):
    """The column stays empty."""
    assert there(jax_here.unplanned) is None


@pytest.mark.parametrize(
    ("users", "found"),
    [
        ({}, ("0.95", None)),
        ({"XLA_PYTHON_CLIENT_MEM_FRACTION": "0.5"}, ("0.5", None)),
        ({"XLA_CLIENT_MEM_FRACTION": "0.5"}, (None, "0.5")),
    ],
)
def test_the_users_fraction_of_the_memory_stands(there, users, found):
    """Under either name, since JAX refuses both at once; and what XLA tunes is kept nowhere."""
    assert there(jax_here.set_up, users) == (found, None)


@pytest.mark.parametrize("fresh", [False, True])
def test_a_jax_without_cuda_is_missing_on_a_gpu(there, fresh):
    """And how to get it is said, also where no backend was up before."""
    if fresh:
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
            found = pool.submit(jax_here.missing_gpu).result()
    else:
        found = there(jax_here.missing_gpu)
    if found == "it found a GPU":
        pytest.skip("this JAX has CUDA")
    assert "pip install 'jax[cuda13]'" in found


@pytest.mark.parametrize(
    ("beside", "found"),
    [
        (None, False),
        ("jax_plugins/xla_cuda13/__init__.py", True),  # a folder without __init__.py around it
        ("jax_plugins", False),
        ("other-1.dist-info/entry_points.txt", True),
        ("jaxlib-0.4.25+cuda12.cudnn89.dist-info/METADATA", True),
    ],
)
def test_a_jax_without_a_plugin_is_missing_on_a_gpu_before_anything_runs(beside, found, tmp_path, monkeypatch):
    """Seen without an import; on a CPU it lacks nothing, nor where a variable names a plugin."""
    texts = {
        ".py": "raise SystemExit('it was imported')",
        ".txt": "[jax_plugins]\nother = other.plugin\n",
        "METADATA": "Metadata-Version: 2.1\nName: jaxlib\nVersion: 0.4.25+cuda12.cudnn89\n",
    }
    if beside is not None:
        text = next((text for end, text in texts.items() if beside.endswith(end)), None)
        path = tmp_path / beside
        (path if text is None else path.parent).mkdir(parents=True)
        if text is not None:
            path.write_text(text)
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    monkeypatch.delitem(sys.modules, "jax_plugins", raising=False)
    monkeypatch.delenv("PJRT_NAMES_AND_LIBRARY_PATHS", raising=False)
    sentence = "this JAX has no plugin for a GPU; its CUDA build comes with: pip install 'jax[cuda13]'"
    for name in ("jax_cudnn", "jax_xla"):
        impl = yaml_of(name)
        where = interpreters.host(impl, "fork", "cuda")
        assert interpreters.why_missing(impl, where, None, "cuda") == (None if found else sentence)
        assert interpreters.why_missing(impl, where, None, "cpu") is None
        with monkeypatch.context() as patch:
            patch.setenv("PJRT_NAMES_AND_LIBRARY_PATHS", "mine:/opt/mine.so")
            assert interpreters.why_missing(impl, where, None, "cuda") is None
        impl["env"] = {"variables": {"PJRT_NAMES_AND_LIBRARY_PATHS": "mine:/opt/mine.so"}}
        assert interpreters.why_missing(impl, interpreters.host(impl, "fork", "cuda"), None, "cuda") is None
    assert interpreters.why_missing(yaml_of("naive"), where, None, "cuda") is None


@pytest.mark.slow
@pytest.mark.parametrize("question", list(capabilities.singles(yaml_of("jax_xla"))))
def test_jax_xla_is_right_in_what_it_claims(there, question):
    """Each question that it claims on a CPU is answered correctly, jitted."""
    impl = yaml_of("jax_xla")
    case = capabilities.singles(impl, 128)[question]
    if impls.why_unsupported(impl, case, CPU, JIT):
        pytest.skip("it does not claim it")
    outcome = there(jax_here.outcome, resolved(impl, case.to_dict(), "jit", min_blocks=1, time_cap_s=0.01))
    assert outcome["status"] == "ok", outcome["reason"]


# the parent


def test_a_zygote_with_jax_has_one_thread_and_no_backend():
    """What it preloads is only imported, the worker too."""
    program = (
        "import json; from attnsweep import frameworks, zygote; "
        "ready, _ = zygote.prepare({'preload': frameworks.PRELOAD['jax'], 'run': 'attnsweep.worker:run'}); "
        "from jax._src import xla_bridge; "
        "print(json.dumps([ready, xla_bridge.backends_are_initialized()]))"
    )
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, timeout=100, check=True
    )
    ready, up = json.loads(done.stdout)
    assert (ready["ready"], ready.get("threads"), up) == (True, 1, False), ready


def test_a_jax_cell_has_a_zygote_of_its_own():
    """Without torch in it, compiled or not."""
    host = interpreters.host(yaml_of("jax_xla"), "fork", "cpu")
    assert interpreters.interpreter(host, compiles=True).preload == ("numpy", "jax")
    assert host != interpreters.host(yaml_of("naive"), "fork", "cpu")


@pytest.mark.parametrize(
    ("name", "compile", "reason"),
    [
        ("naive", JIT, "jit is JAX's compile mode"),
        ("jax_xla", {**EAGER, "name": "default", "mode": "default"}, "default is a mode of torch.compile"),
        ("jax_flash_attn2", {**EAGER, "name": "max_autotune", "mode": "max-autotune"}, "JAX's is compile=jit"),
        ("naive", EAGER, None),
        ("jax_xla", EAGER, None),
        ("jax_xla", JIT, None),
    ],
)
def test_a_compile_mode_belongs_to_its_framework(name, compile, reason):
    """The other's is unsupported, with that reason; eager is everyone's."""
    impl = yaml_of(name)
    device = GPU if name == "jax_flash_attn2" else CPU
    said = impls.why_unsupported(impl, Case(**{**CASE, "dtype": "bf16"}), device, compile)
    assert said is None if reason is None else reason in said


def test_no_other_gpu_timer_is_promised_than_the_one_that_sees_jax():
    """The column of a cell that never runs, too."""
    case = Case(**CASE)
    assert metrics.primary_timer(case, frameworks.DEVICE_EVENTS["jax"]) == "kernel"
    assert metrics.primary_timer(case, frameworks.DEVICE_EVENTS["torch"]) == "graph"


@pytest.mark.parametrize(
    ("name", "copy"),
    [("wrapped_transpose", True), ("wrapped_copy", True), ("loop_add_fusion", False), ("input_reduce_fusion", False)],
)
def test_xlas_kernels_that_only_move_data_are_told_by_name(name, copy):
    """One operation alone in a fusion is called wrapped."""
    assert cupti.copies(cupti.Activity(0, 1, name, copy=False)) == copy


# implementations


def attention(name, **changed):
    """An implementation of conf/impl, some fields changed."""
    return impls.build({**yaml_of(name), **changed})


@pytest.mark.parametrize(
    ("fields", "xla", "cudnn"),
    [
        ({"causal": False}, {}, {}),
        ({}, {"is_causal": True}, {"is_causal": True}),
        ({"q_len": 7}, {}, {}),
        ({"q_len": 1}, {}, {}),
        (
            {"window": (4, -1)},
            {"is_causal": True, "local_window_size": (4, 0)},
            {"is_causal": True, "local_window_size": (4, 0)},
        ),
        ({"causal": False, "window": (-1, 2)}, {"is_causal": False, "local_window_size": (24, 2)}, {}),
        ({"causal": False, "window": (4, 2)}, {"is_causal": False, "local_window_size": (4, 2)}, {}),
        ({"causal": False, "window": (4, -1)}, {"is_causal": False, "local_window_size": (4, 24)}, {}),
    ],
    ids=str,
)
def test_a_mask_is_said_in_keywords_only_where_top_left_is_bottom_right(fields, xla, cudnn):
    """Elsewhere, and for cuDNN's missing right side, it is passed as an array."""
    case = Case(**{**CASE, **fields})
    assert attention("jax_xla")._mask(case) == xla
    assert attention("jax_cudnn")._mask(case) == cudnn


def read(impl):
    """What the parent does with a YAML: bind it, and ask for its framework."""
    impls.bind(impl)
    return impls.framework(impl)


def test_cudnn_is_pinned_and_gets_what_it_cannot_say_as_a_mask(there):
    """A causal mask over a cache, bottom-right; without need of one there is none."""
    fields = {**CASE, "q_len": 7}
    mask, keywords, _ = there(jax_here.asked, yaml_of("jax_cudnn"), fields)
    case = Case(**fields)
    np.testing.assert_array_equal(mask[0, 0], [[case.visible(q, k) for k in range(24)] for q in range(7)])
    assert keywords == {"scale": case.scale, "implementation": "cudnn"}
    mask, keywords, precision = there(jax_here.asked, yaml_of("jax_cudnn"), CASE)
    assert (mask, keywords["is_causal"], precision) == (None, True, None)


def test_a_precision_asked_for_is_set_in_the_call(there):
    """And JAX's default is nobody's business but JAX's."""
    _, _, precision = there(jax_here.asked, {**yaml_of("jax_xla"), "matmul_precision": "highest"}, CASE)
    assert precision == "highest"


def test_jax_flash_attn2_is_called_as_both_its_versions_are_published(monkeypatch):
    """0.0.3: a function of q, k, v; 0.0.1: one that is made with block sizes and takes a bias after them."""
    calls = []

    def triton_flash_attention(
        q, k, v, attention_mask=None, bias=None, softmax_scale=None, dropout_prob=0.0, causal=False, dropout_seed=None
    ):
        calls.append((attention_mask, bias, softmax_scale, dropout_prob, causal))

    def get_cached_flash_attention(backend, platform, blocksize_q, blocksize_k, softmax_scale):
        calls.append((backend, platform, blocksize_q, blocksize_k, softmax_scale))
        return lambda query, key, value, bias=None: (query, key, value, bias)

    library = types.ModuleType("jax_flash_attn2")
    library.triton_flash_attention = triton_flash_attention
    library.get_cached_flash_attention = get_cached_flash_attention
    monkeypatch.setitem(sys.modules, "jax_flash_attn2", library)
    case = Case(**{**CASE, "bias": "dense", "causal": False})
    attention("jax_flash_attn2").prepare(case, "cuda")("q", "k", "v", "bias")
    blocks = attention("jax_flash_attn2_block_ptr", blocksize_q=32, blocksize_k=64).prepare(case, "cuda")
    assert blocks("q", "k", "v", "bias") == ("q", "k", "v", "bias")
    assert calls == [(None, "bias", case.scale, 0.0, False), ("gpu", "triton", 32, 64, case.scale)]


def test_mosaic_is_called_with_a_scaled_query_and_its_blocks(monkeypatch):
    """It scales nothing itself."""
    library = types.ModuleType("attention_mgpu")
    library.TuningConfig = lambda **fields: fields
    library.attention = lambda q, k, v, config: (q, config)
    monkeypatch.setitem(sys.modules, "jax.experimental.pallas.ops.gpu.attention_mgpu", library)
    case = Case(**CASE)
    q, config = attention("jax_mosaic_gpu", block_kv=64).prepare(case, "cuda")(8.0, "k", "v")
    assert q == 8.0 * case.scale
    assert config == {"block_q": 64, "block_kv": 64, "max_concurrent_steps": 2, "causal": True}
    case = Case(**{**CASE, "causal": False, "direction": "bwd"})
    _, config = attention("jax_mosaic_gpu", block_q_dkv=128).prepare(case, "cuda")(8.0, "k", "v")
    forward = {"block_q": 64, "block_kv": 128, "max_concurrent_steps": 2, "causal": False}
    backward = {"block_q_dq": 64, "block_kv_dq": 64, "block_q_dkv": 128, "block_kv_dkv": 64, "compute_wgs_bwd": 2}
    assert config == {**forward, **backward}


@pytest.mark.parametrize(
    ("fields", "changed"),
    [
        ({"head_dim": 64}, {}),
        ({}, {}),
        ({"q_len": 640, "kv_len": 384}, {"block_kv_dkv": 192, "block_kv": 64}),
        ({}, {"block_q_dq": 128, "block_kv_dkv": 128}),
        ({}, {"block_q_dq": 128, "block_kv_dq": 128}),
        ({}, {"block_q_dkv": 128, "block_kv_dkv": 128}),
        ({"q_len": 128, "kv_len": 128, "head_dim": 256}, {"block_kv": 64}),
        ({"head_dim": 256}, {"block_kv": 64}),
        ({"head_dim": 256}, {"block_kv": 64, "compute_wgs_bwd": 1}),
        ({"head_dim": 256}, {"block_kv": 64, "compute_wgs_bwd": 1, "block_q_dkv": 128}),
        ({"kv_len": 640}, {"block_kv_dkv": 128}),
        ({"q_len": 640}, {"block_q_dq": 128}),
        ({"q_len": 640}, {"block_q_dkv": 256}),
        ({"kv_len": 640}, {"block_kv_dq": 256}),
    ],
    ids=str,
)
def test_mosaics_backward_pass_is_claimed_where_jax_lowers_it(there, fields, changed):
    """The library's own kernels, traced and lowered for a GPU: blocks, lengths and shared memory as it has them."""
    shape = {**H200_CASE, "q_len": 512, "kv_len": 512, "head_dim": 128, "direction": "bwd", **fields}
    shape["head_dim_v"] = shape["head_dim"]
    refusal = there(jax_here.lowered, {**yaml_of("jax_mosaic_gpu"), **changed}, shape)
    said = attention("jax_mosaic_gpu", **changed).why_unsupported(Case(**shape), GPU, JIT)
    assert (said is None) == (refusal is None), (said, refusal)
    assert refusal is None or "shared memory" in refusal or "must be a multiple of" in refusal


H200_CASE = {"batch_size": 1, "q_len": 1024, "kv_len": 1024, "num_heads": 8, "num_kv_heads": 2, "dtype": "fp16"}


@pytest.mark.parametrize(
    ("name", "fields", "changed", "reason"),
    [
        ("jax_xla", {"dtype": "fp32"}, {}, "JAX computes fp32 products in TF32 on a GPU"),
        ("jax_xla", {"dtype": "fp32"}, {"matmul_precision": "highest"}, None),
        ("jax_xla", {"head_dim_v": 64}, {}, "head_dim_v unlike head_dim is not supported"),
        ("jax_cudnn", {"dtype": "fp32"}, {}, "dtype fp32 is not among fp16, bf16"),
        ("jax_cudnn", {"causal": True, "q_len": 512}, {}, None),
        ("jax_mosaic_gpu", {}, {}, None),
        ("jax_mosaic_gpu", {"causal": True}, {}, None),
        ("jax_mosaic_gpu", {"dtype": "bf16"}, {}, "dtype bf16 is not among fp16"),
        ("jax_mosaic_gpu", {"causal": True, "q_len": 512}, {}, "a causal mask with q_len unlike kv_len"),
        ("jax_mosaic_gpu", {"q_len": 64}, {}, "q_len 64 is no multiple of two blocks of 64 queries"),
        ("jax_mosaic_gpu", {"kv_len": 1000}, {}, "kv_len 1000 is no multiple of a block of 128 keys"),
        ("jax_mosaic_gpu", {"head_dim": 96, "head_dim_v": 96}, {}, "head_dim 96 is no multiple of 64"),
        ("jax_mosaic_gpu", {"head_dim": 256, "head_dim_v": 256}, {}, "its blocks take 327680 bytes of shared memory"),
        ("jax_mosaic_gpu", {"head_dim": 256, "head_dim_v": 256}, {"block_kv": 64}, None),
        ("jax_mosaic_gpu", {"direction": "bwd"}, {}, None),
        ("jax_mosaic_gpu", {"direction": "fwd_bwd", "q_len": 1152}, {}, None),
        ("jax_mosaic_gpu", {"direction": "bwd", "causal": True}, {}, "its backward pass takes no causal mask"),
        ("jax_mosaic_gpu", {"direction": "bwd", "q_len": 1152}, {"block_q_dq": 128}, "of two blocks of 128 queries"),
        ("jax_mosaic_gpu", {"direction": "bwd", "q_len": 1152}, {"block_q_dkv": 256}, "of a block of 256 queries"),
        ("jax_mosaic_gpu", {"direction": "bwd", "kv_len": 1152}, {"block_kv_dq": 256}, "of a block of 256 keys"),
        ("jax_mosaic_gpu", {"direction": "bwd", "kv_len": 1152}, {"block_kv_dkv": 128}, "of two blocks of 128 keys"),
        ("jax_mosaic_gpu", {"kv_len": 1152}, {"block_kv_dkv": 128}, None),
        ("jax_flash_attn2_block_ptr", {"bias": "dense", "direction": "bwd"}, {}, None),
        ("jax_flash_attn2_ptr_block", {"causal": True}, {}, "a causal mask is not supported"),
        ("jax_flash_attn2", {"causal": True, "bias": "dense"}, {}, None),
        ("jax_flash_attn2", {"window": (4, 0)}, {}, "jax_flash_attn2's YAML passes no window"),
    ],
)
def test_what_a_gpu_implementation_cannot_do_is_known_before_it_runs(name, fields, changed, reason):
    """In words; nothing is imported for it."""
    case = Case(**{**H200_CASE, "head_dim": 128, "head_dim_v": 128, **fields})
    said = attention(name, **changed).why_unsupported(case, GPU, JIT)
    assert said is None if reason is None else reason in said


@pytest.mark.parametrize(("direction", "refused"), [("fwd", False), ("bwd", True), ("fwd_bwd", True)])
def test_mosaics_backward_pass_is_for_jit_alone(direction, refused):
    """JAX jits its forward pass and not its backward pass, which would be compiled in each call."""
    case = Case(**{**H200_CASE, "head_dim": 128, "head_dim_v": 128, "direction": direction})
    said = attention("jax_mosaic_gpu").why_unsupported(case, GPU, EAGER)
    assert (said is not None and "compiled anew in each call" in said) is refused


@pytest.mark.parametrize(
    ("name", "changed", "reason"),
    [
        ("jax_xla", {"implementation": "flash"}, "implementation must be one of xla, cudnn, not 'flash'"),
        ("jax_xla", {"matmul_precision": "best"}, "matmul_precision must be one of highest, high, default or null"),
        ("jax_mosaic_gpu", {"block_q": 32}, "block_q must be a multiple of 64, not 32"),
        ("jax_mosaic_gpu", {"block_kv_dkv": 96}, "block_kv_dkv must be a multiple of 64, not 96"),
        ("jax_mosaic_gpu", {"compute_wgs_bwd": 3}, "compute_wgs_bwd must be 1 or 2, not 3"),
        ("jax_mosaic_gpu", {"max_concurrent_steps": 1}, "max_concurrent_steps must be 2 or more, not 1"),
        ("jax_flash_attn2_block_ptr", {"blocksize_k": 24}, "blocksize_k must be a multiple of 16, not 24"),
        ("jax_xla", {"framework": "torch"}, "framework must be jax, as its class says, not 'torch'"),
        ("jax_flash_attn2", {"framework": "tinygrad"}, "framework must be one of torch, jax, not 'tinygrad'"),
    ],
)
def test_a_yaml_that_cannot_be_meant_is_refused_by_its_key(name, changed, reason):
    """One sentence with the choices."""
    with pytest.raises(ConfigError) as error:
        read({**yaml_of(name), **changed})
    assert str(error.value).startswith(f"impl {name}: {reason}")


def test_mosaics_yaml_fields_are_those_of_its_tuning_config():
    """Read from the source of the JAX that is installed; the scale is not among its parameters."""
    package = Path(importlib.util.find_spec("jax").origin).parent
    tree = ast.parse((package / "experimental" / "pallas" / "ops" / "gpu" / "attention_mgpu.py").read_text())
    named = {node.name: node for node in tree.body if isinstance(node, (ast.ClassDef, ast.FunctionDef))}
    fields = {node.target.id for node in named["TuningConfig"].body if isinstance(node, ast.AnnAssign)}
    assert {"block_q", "block_kv", "max_concurrent_steps", "causal", *attention("jax_mosaic_gpu").backward} <= fields
    parameters = [one.arg for one in named["attention"].args.args]
    assert parameters[:4] == ["q", "k", "v", "config"]
    assert "scale" not in parameters


# the disk cache


@pytest.mark.slow
def test_the_disk_cache_holds_our_programs_and_not_the_implementations(tmp_path):
    """Inputs and check are quicker the next time, compile_s is what compiling takes."""
    path, cache = tmp_path / "cell.json", tmp_path / "cache"
    path.write_text(json.dumps(xla()))
    subprocess.run(
        [sys.executable, "-m", "attnsweep.worker", str(path)],
        env={**os.environ, "JAX_COMPILATION_CACHE_DIR": str(cache)},
        capture_output=True,
        timeout=110,
        check=True,
    )
    kept = [file.name for file in cache.iterdir()]
    assert len(kept) > 50
    assert not any("forward" in name for name in kept)


@pytest.mark.parametrize("users", [None, "/users/own"])
def test_a_zygote_has_a_place_for_the_disk_cache(monkeypatch, users):
    """Outside the temporary folder of a cell, which goes with it; the user's own stands."""
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
    if users:
        monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", users)
    where = interpreters.interpreter(interpreters.host(yaml_of("jax_xla"), "fork", "cpu"), compiles=False)
    found = pyenv.environment(where, Path("/imports"), "a token")["JAX_COMPILATION_CACHE_DIR"]
    assert found == users if users else "attnsweep_jax_" in found


# the command


@pytest.mark.slow
def test_one_sweep_measures_both_frameworks(tmp_path):
    """Each in a zygote of its own; jit is JAX's, eager is both's, and nothing fails."""
    program = "import sys; from attnsweep.cli import main; sys.exit(main())"
    words = ["impl=jax_xla,sdpa", "compile=eager,jit", "scenario=prefill", "timing=quick", "device=cpu", "name=both"]
    case = ["scenario.seq_len=32", "scenario.batch_size=1", "scenario.num_heads=2", "scenario.head_dim=16"]
    more = [*case, "scenario.num_kv_heads=null", "scenario.dtype=bf16", f"output_dir={tmp_path}"]
    done = subprocess.run(
        [sys.executable, "-c", program, *words, *more], cwd=tmp_path, capture_output=True, text=True, timeout=110
    )
    assert done.returncode == 0, done.stdout + done.stderr
    rows = [pq.read_table(path).to_pylist()[0] for path in (tmp_path / "both" / "cells").glob("*.parquet")]
    found = {(row["impl"], row["compile"]): row for row in rows}
    statuses = {key: row["status"] for key, row in found.items()}
    assert statuses == {
        ("jax_xla", "eager"): "ok",
        ("jax_xla", "jit"): "ok",
        ("sdpa", "eager"): "ok",
        ("sdpa", "jit"): "unsupported",
    }
    assert "jit is JAX's compile mode" in found["sdpa", "jit"]["reason"]
    assert "op_by_op" in found["jax_xla", "eager"]["flags"]
    assert found["jax_xla", "jit"]["jaxlib"]
    assert found["sdpa", "eager"]["jaxlib"] is None
