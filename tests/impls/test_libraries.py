"""Adapters of other libraries, through the worker's check, on fakes that have the libraries' published signatures."""

import importlib
import importlib.metadata
import json
import os
import subprocess
import sys
import time
import types
from pathlib import Path

import pytest
import torch
import yaml
from huggingface_hub.errors import HfHubHTTPError

import fake_libraries
from attnsweep import environment, impls, worker
from attnsweep.case import Case
from attnsweep.devices import Device
from attnsweep.errors import ConfigError, Missing
from cells import resolved

CONF = Path(__file__).parents[2] / "conf/impl"
H200 = Device(kind="cuda", uuid="GPU-0", name="NVIDIA H200", compute_capability=9.0)
B200 = Device(kind="cuda", uuid="GPU-0", name="NVIDIA B200", compute_capability=10.0)
EAGER = {"name": "eager", "mode": None}
BLINK = {"min_blocks": 1, "block_ms": 0.1, "rest_ms": 0.0, "time_cap_s": 0.01}

#: What kernels 0.17 says where it could not ask who published a kernel, without the advice that follows.
DISTRUST = "Kernel repository 'kernels-community/flash-attn3' could not verify publisher trust status"

#: Every size differs from every other, so that no layout passes for another.
SIZES = {"batch_size": 2, "q_len": 12, "kv_len": 40, "num_heads": 6, "num_kv_heads": 6, "head_dim": 64}
CASES = {
    "dense": {"num_kv_heads": 2, "dtype": "bf16"},
    "causal": {"causal": True, "q_len": 40},
    "later": {"causal": True, "num_kv_heads": 2},
    "decode": {"causal": True, "num_kv_heads": 2, "q_len": 1, "kv_len": 37, "dtype": "bf16"},
    "window": {"causal": True, "window": (8, -1), "num_kv_heads": 2},
    "local": {"window": (8, 4)},
    "left": {"window": (8, -1)},
    "right": {"window": (-1, 4)},
    "bias": {"bias": "dense", "causal": True},
    "bwd": {"causal": True, "direction": "fwd_bwd"},
    "bwd_gqa": {"direction": "fwd_bwd", "num_kv_heads": 2},
    "bwd_window": {"causal": True, "window": (8, -1), "direction": "fwd_bwd"},
    "v_dim": {"head_dim": 192, "head_dim_v": 128, "causal": True, "q_len": 16},
    "wide": {"head_dim": 256, "q_len": 16, "kv_len": 16},
    "single": {"dtype": "fp32"},
}
BACKWARD = {"bwd", "bwd_gqa", "bwd_window"}
WINDOWS = {"window", "local", "left", "right", "bwd_window"}
FA2 = {"bias", "v_dim", "single"}
SAGE = {*WINDOWS, *BACKWARD, "bias", "v_dim", "wide", "later"}
SEVERAL = {"local", "right"}
#: Of each implementation the cases that it does not take on the GPU that it is for; it must be right in every other.
REFUSED = {
    "fa2": FA2,
    "fa2_decode": FA2 | BACKWARD | {"causal"},
    "fa3": {"bias", "single"},
    "fa3_decode": {"bias", "single", "causal"} | BACKWARD,
    "fa2_triton": {"dense", "later", "decode", "bias", "bwd", "bwd_gqa", "v_dim", "wide", "single"} | WINDOWS,
    "fa4": {"bias", "single"},
    "hf_flash_attn2": FA2,
    "hf_flash_attn3": {"bias", "single"},
    "xformers": {"bias", "bwd_gqa"},
    "xformers_cutlass": {"local", "left", "right", "bwd_window", "bias", "bwd_gqa"},
    "xformers_cutlass_blackwell": FA2 | {"wide", "bwd_gqa"},
    "xformers_flash": FA2 | {"bwd_gqa"},
    "xformers_flash3": {"bias", "single", "bwd_gqa"},
    "xformers_flash3_splitkv": {"bias", "single", "causal", "wide"} | BACKWARD,
    "xformers_triton_splitk": FA2 | WINDOWS | BACKWARD | {"causal", "later"},
    "sage1": SAGE,
    "sage2_fp16_cuda": SAGE | {"single"},
    "sage2_fp16_triton": SAGE | {"single"},
    "sage2_fp8_sm90": SAGE | {"single"},
    "te_fused": {"single"},
    "te_flash": {"bias", "single"},
    "te_unfused": set(),
    "flashinfer_prefill_fa2": SEVERAL | BACKWARD | {"bias", "single"},
    "flashinfer_prefill_fa3": SEVERAL | BACKWARD | {"bias", "single"},
    # Without tensor cores one query a sequence, with them several, masked causally
    "flashinfer_decode": set(CASES) - {"decode"},
    "flashinfer_decode_tc": set(CASES) - {"decode", "later", "window"},
}
SHIFTED = sorted(name for name, refused in REFUSED.items() if "later" not in refused)


@pytest.fixture(autouse=True)
def _libraries(monkeypatch):
    """Every library is importable, and is a fake, whatever version is installed; one thread, which is the fastest for
    sizes as small as these.
    """
    monkeypatch.setattr(environment, "own_version", lambda distribution: None)
    for name, module in fake_libraries.modules().items():
        monkeypatch.setitem(sys.modules, name, module)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def load(name, **changed):
    """A YAML of conf/impl with other values."""
    return {**yaml.safe_load((CONF / f"{name}.yaml").read_text()), **changed}


def case(name):
    """The fields of one of CASES."""
    fields = {**SIZES, "dtype": "fp16", **CASES[name]}
    return {"head_dim_v": fields["head_dim"], **fields}


def why_unsupported(impl, fields):
    """Why an implementation does not take a case on an H200, or on a B200 if it is for none older."""
    newer = (impl["supports"].get("min_compute_capability") or 0) > H200.compute_capability
    return impls.why_unsupported(impl, Case(**fields), B200 if newer else H200, EAGER)


def run(impl, name):
    """The worker's outcome on the CPU: prepared, checked, timed for a blink, checked on other inputs."""
    return worker.run(resolved(impl, case(name), **BLINK), lambda event: None)


@pytest.mark.parametrize("name", REFUSED)
def test_each_is_right_or_refuses(name):
    """Arguments, layouts, grouped heads, masks, outputs and gradients, for every case of the list."""
    impl = load(name)
    refused = {key: why_unsupported(impl, case(key)) for key in CASES}
    assert {key for key, why in refused.items() if why} == set(REFUSED[name])
    for key in set(CASES) - REFUSED[name]:
        outcome = run(impl, key)
        assert (key, outcome["status"], outcome["reason"]) == (key, "ok", None), outcome["traceback"]


@pytest.mark.parametrize("name", SHIFTED)
def test_another_alignment_of_the_mask_is_found(name, monkeypatch):
    """A library that aligned it top-left would be incorrect with fewer queries than keys."""
    monkeypatch.setattr(fake_libraries, "ALIGNED", "top-left")
    impl, key = load(name), "later"
    outcome = run(impl, key)
    assert outcome["status"] == "incorrect", outcome["reason"]
    assert "differs from the reference" in outcome["reason"]


@pytest.mark.parametrize("name", ["fa3", "hf_flash_attn3"])
def test_a_version_that_returns_a_tuple_gives_its_first(name, monkeypatch):
    """The log-sum-exp came second in FlashAttention 3's first versions; nothing is sliced where a tensor comes."""
    monkeypatch.setattr(sys.modules["flash_attn_interface"], "flash_attn_func", fake_libraries.fa3_func_of_old)
    monkeypatch.setattr(sys.modules["kernels"], "get_kernel", lambda *_, **__: sys.modules["flash_attn_interface"])
    assert run(load(name), "bwd")["status"] == "ok"
    assert run({**load(name), "output": None}, "later")["status"] == "incorrect"


def test_an_open_side_is_what_the_library_writes_for_it():
    """FlashAttention 4 takes None; a -1 beside a bound hides the query's own key."""
    assert run(load("fa4"), "left")["status"] == "ok"
    assert run(load("fa4", unbounded=-1), "left")["status"] == "incorrect"


@pytest.mark.parametrize("more", [{"bias": "dense"}, {"direction": "bwd"}, {"direction": "bwd", "bias": "dense"}])
def test_flash_attn_s_triton_version_takes_a_bias_and_has_a_backward(more):
    """Where no mask has to be aligned, with fewer queries than keys."""
    impl, fields = load("fa2_triton"), {**SIZES, "head_dim_v": 64, "dtype": "fp16", **more}
    assert impls.why_unsupported(impl, Case(**fields), H200, EAGER) is None
    outcome = worker.run(resolved(impl, fields, **BLINK), lambda event: None)
    assert outcome["status"] == "ok", outcome["reason"]


def test_sage_1_leaves_the_caller_s_keys_alone():
    """Its own smoothing subtracts their mean in place, which the check finds."""
    assert run(load("sage1"), "dense")["status"] == "ok"
    plain = load("sage1", _target_="attnsweep.impls.FunctionAttention")
    outcome = run(plain, "dense")
    assert (outcome["status"], "changed its input k" in outcome["reason"]) == ("incorrect", True)


@pytest.mark.parametrize("name", [name for name in REFUSED if name.startswith("sage")])
def test_what_quantises_is_right_for_its_class_alone(name):
    """int8 scores are not as near as the dtype allows, and the record says so."""
    outcome = run(load(name), "dense")
    assert outcome["columns"]["precision_class"] == load(name)["precision"]["class"] != "native"
    assert run(load(name, precision=None), "dense")["status"] == "incorrect"


def test_a_pinned_operator_of_xformers_is_passed_and_asked_for(monkeypatch):
    """The pair of its classes, for grouped heads and others; missing where the build has none."""
    passed = []

    def attend(*args, op=None, **keywords):
        passed.append(op)
        return fake_libraries.memory_efficient_attention(*args, op=op, **keywords)

    monkeypatch.setattr(sys.modules["xformers.ops"], "memory_efficient_attention", attend)
    ops = fake_libraries.XFORMERS_OPS
    for name, expected in (
        ("xformers", None),
        ("xformers_cutlass", (ops["cutlass"].FwOp, ops["cutlass"].BwOp)),
        ("xformers_cutlass_blackwell", (ops["cutlass_blackwell"].FwOp, ops["cutlass_blackwell"].BwOp)),
        ("xformers_flash3_splitkv", (ops["flash3"].FwOp_KVSplit, None)),
        ("xformers_triton_splitk", (ops["triton_splitk"].FwOp, None)),
    ):
        for heads in ("dense", "decode"):
            passed.clear()
            assert run(load(name), heads)["status"] == "ok"
            assert set(passed) == {expected}
    hopper = "--no-build-isolation xformers git+https://github.com/Dao-AILab/flash-attention#subdirectory=hopper"
    for name, needed, pip in (
        ("flash3", "flash_attn_3", hopper),
        ("flash3_splitkv", "flash_attn_3", hopper),
        ("cutlass_blackwell", "fbgemm-gpu-genai", "xformers fbgemm-gpu-genai"),
    ):
        monkeypatch.setattr(ops[name.partition("_splitkv")[0]].FwOp, "is_available", classmethod(lambda cls: False))
        outcome = run(load(f"xformers_{name}"), "dense")
        assert outcome["status"] == "missing"
        said = f"this build of xFormers has no {name}, which needs {needed}"
        info = "python -m xformers.info says what it has"
        assert outcome["reason"] == f"{said} ({info}); install it with: pip install {pip}"
        # pip of what it needs is the YAML's to say, not the name of xFormers
        outcome = run(load("xformers", op=name), "dense")
        assert outcome["reason"] == f"{said}; {info}"


@pytest.fixture
def packages(tmp_path, monkeypatch):
    """Packages that are installed, which nothing may import; no other is."""
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    monkeypatch.setattr(sys, "path_importer_cache", {})
    for name in [one for one in sys.modules if one.split(".")[0] in ("xformers", "mslk", "fbgemm_gpu", "flash_attn_3")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delitem(sys.modules, "flash_attn_interface", raising=False)

    def make(*files):
        for file in files:
            path = tmp_path / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("raise SystemExit('it was imported')")

    return make


@pytest.mark.parametrize(
    ("name", "beside"),
    [
        ("xformers_flash3", "flash_attn_3/_C.py"),  # a folder without __init__.py, as pip installs it
        ("xformers_flash3_splitkv", "flash_attn_interface.py"),
        ("xformers_flash3", "xformers/flash_attn_3/_C.py"),
        ("xformers_flash3_splitkv", "xformers/_C_flashattention3.py"),
        ("xformers_flash3", "mslk/__init__.py"),
        ("xformers_cutlass_blackwell", "fbgemm_gpu/__init__.py"),
    ],
)
def test_what_a_kernel_of_xformers_needs_is_looked_for_without_an_import(name, beside, packages):
    """Beside it and, as some versions have it, in it; 0.0.35 has an empty package of that name. What needs nothing else
    is not missing.
    """
    assert impls.why_missing(load(name)).startswith("No module named 'xformers'; install it with: pip install ")
    packages("xformers/__init__.py", "xformers/ops/__init__.py", "xformers/flash_attn_3/__init__.py")
    why = impls.why_missing(load(name))
    assert why.startswith(f"this build of xFormers has no {name.removeprefix('xformers_')}, which needs ")
    assert impls.why_missing(load("xformers")) is None
    assert impls.why_missing(load("xformers_flash")) is None
    packages(beside)
    importlib.invalidate_caches()
    assert impls.why_missing(load(name)) is None


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"num_kv_heads": 2},
        {"dtype": "bf16", "kv_len": 37},
        {"dtype": "fp32", "kv_len": 38},
        {"num_kv_heads": 2, "kv_len": 37, "causal": True, "q_len": 1},
        {"window": (40, 40)},
        {"direction": "bwd"},
        {"direction": "fwd_bwd", "kv_len": 37},
        {"causal": True, "q_len": 37, "kv_len": 37},
        {"causal": True, "q_len": 40, "num_kv_heads": 2},
        {"num_kv_heads": 2, "q_len": 1, "kv_len": 300},
    ],
    ids=str,
)
def test_a_bias_goes_to_the_kernels_of_xformers_that_take_one(fields):
    """Forward and backward, with grouped heads, and under a causal mask for as many queries as keys, forward.

    Rows of a ragged length stand 16 bytes apart, which CUTLASS asks for.
    """
    fields = {**SIZES, "head_dim_v": 64, "dtype": "fp16", "bias": "dense", **fields}
    splitk = fields.keys().isdisjoint({"direction", "window"}) and fields["dtype"] != "fp32" and fields["q_len"] < 37
    for name in ("xformers", "xformers_cutlass", *(["xformers_triton_splitk"] if splitk else [])):
        impl = load(name)
        assert why_unsupported(impl, fields) is None
        outcome = worker.run(resolved(impl, fields, **BLINK), lambda event: None)
        assert (outcome["status"], outcome["reason"]) == ("ok", None), outcome["traceback"]


@pytest.mark.parametrize(
    ("op", "fields", "reason"),
    [
        (
            None,
            {"bias": "dense", "causal": True},
            "flash and cutlass take no bias under a window, or under a causal mask",
        ),
        (
            None,
            {"bias": "dense", "causal": True, "q_len": 40, "direction": "bwd"},
            "no bias under a causal mask backward",
        ),
        (None, {"window": (8, 0), "dtype": "fp32"}, None),
        (None, {"window": (8, 0), "dtype": "fp32", "direction": "bwd"}, "cutlass takes no causal window backward"),
        (None, {"window": (8, 4), "dtype": "fp32"}, "cutlass takes no window that is not causal"),
        (None, {"window": (8, 4), "head_dim_v": 32}, "cutlass takes no window that is not causal"),
        ("cutlass", {"window": (8, 0), "direction": "bwd"}, "takes no causal window backward"),
        ("cutlass", {"bias": "dense", "num_kv_heads": 2, "direction": "bwd"}, "has no backward for grouped heads"),
        ("triton_splitk", {"bias": "dense", "causal": True, "q_len": 40}, "a causal mask is not supported"),
        ("flash", {"bias": "dense"}, "a bias is not supported"),
        ("flash3_splitkv", {"q_len": 40}, "splits no keys where q_len is kv_len"),
        ("cutlass_blackwell", {"q_len": 80}, "takes no more queries than keys"),
        ("cutlass_blackwell", {"q_len": 4, "direction": "bwd"}, "takes no fewer than 8 queries backward"),
    ],
)
def test_what_a_kernel_of_xformers_does_not_take_is_refused(op, fields, reason):
    """As its classes say, forward and backward; before the library is asked."""
    impl = load("xformers" if op is None else f"xformers_{op}")
    why = why_unsupported(impl, {**SIZES, "head_dim_v": 64, "dtype": "fp16", **fields})
    assert why is reason is None or reason in why


def test_an_operator_of_xformers_given_on_the_command_line_is_asked_too():
    """`impl=xformers impl.op=flash`: the rules are the kernel's, not the YAML's."""
    fields = {**SIZES, "head_dim_v": 64, "dtype": "fp16", "bias": "dense"}
    assert why_unsupported(load("xformers", op="flash"), fields) == "xFormers' flash takes no bias"
    b200 = impls.why_unsupported(load("xformers"), Case(**fields), B200, EAGER)
    assert b200 == "xFormers' flash takes no bias"
    fp32 = impls.why_unsupported(load("xformers"), Case(**{**fields, "dtype": "fp32"}), B200, EAGER)
    assert fp32 == "xFormers has no kernel of its own for this dtype and these head dims on this GPU"
    unmasked = Case(**{**fields, "dtype": "fp32", "bias": "none"})
    assert impls.why_unsupported(load("xformers"), unmasked, B200, EAGER) == fp32


def test_a_bias_is_laid_out_once_for_each_place_that_it_has():
    """Its rows stay where they are when it is laid out again: what is written there later is what the calls read."""
    xformers = impls.build(load("xformers"))
    for dtype, kv_len, row in ((torch.float16, 37, 40), (torch.float32, 37, 40), (torch.bfloat16, 40, 40)):
        bias = torch.randn(1, 6, 12, kv_len).to(dtype)
        laid_out = xformers.lay_out_bias(bias)
        assert torch.equal(laid_out, bias)
        assert laid_out.stride() == (6 * 12 * row, 12 * row, row, 1)
        assert xformers.lay_out_bias(laid_out) is laid_out


@pytest.mark.parametrize("name", ["te_fused", "te_flash", "te_unfused"])
def test_transformer_engine_has_one_backend_left(name):
    """Its environment is read before it is imported, so the YAML sets it."""
    variables = load(name)["env"]["variables"]
    assert set(variables) == {"NVTE_FUSED_ATTN", "NVTE_FLASH_ATTN", "NVTE_UNFUSED_ATTN"}
    assert [key for key, value in variables.items() if value == "1"] == [f"NVTE_{name[3:].upper()}_ATTN"]


def test_pages_are_views_of_the_cache():
    """Their size divides kv_len: 1 of 37 keys, 8 of 40; what is planned once is not planned in the call."""
    planned = []
    wrapper = fake_libraries.BatchDecodeWithPagedKVCacheWrapper

    class Watched(wrapper):
        def plan(self, *args, **keywords):
            planned.append(args[6])
            super().plan(*args, **keywords)

    sys.modules["flashinfer"].BatchDecodeWithPagedKVCacheWrapper = Watched
    assert run(load("flashinfer_decode"), "decode")["status"] == "ok"
    assert run(load("flashinfer_decode_tc"), "later")["status"] == "ok"
    assert planned == [1, 1, 8, 8]  # the second time alone is `plan_s`


@pytest.mark.parametrize(
    ("name", "wrapper", "question"),
    [
        ("flashinfer_prefill_fa2", "BatchPrefillWithRaggedKVCacheWrapper", "dense"),
        ("flashinfer_decode", "BatchDecodeWithPagedKVCacheWrapper", "decode"),
    ],
)
def test_planning_is_recorded_without_the_compiling_that_its_first_time_does(name, wrapper, question):
    """FlashInfer compiles in plan(), for up to a minute; a caller plans for every batch and compiles once."""
    compiled = []

    class Compiling(getattr(sys.modules["flashinfer"], wrapper)):
        def plan(self, *args, **keywords):
            if not compiled:
                time.sleep(0.5)
            compiled.append(name)
            super().plan(*args, **keywords)

    setattr(sys.modules["flashinfer"], wrapper, Compiling)
    outcome = run(load(name), question)
    assert outcome["stages"]["prepare"] > 0.5
    assert 0 < outcome["columns"]["plan_s"] < 0.4


@pytest.mark.parametrize(
    ("name", "changed", "sentence"),
    [
        ("xformers", {"op": "ck"}, "op must be one of cutlass, cutlass_blackwell, flash, .*, triton_splitk or null"),
        ("flashinfer_prefill_fa2", {"backend": "cudnn"}, "backend must be fa2 or fa3, not 'cudnn'"),
        ("flashinfer_decode", {"backend": "auto"}, "backend must be fa2 or fa3, not 'auto'"),
        ("flashinfer_decode", {"use_tensor_cores": "no"}, "use_tensor_cores must be true or false, not 'no'"),
        ("hf_flash_attn2", {"revision": None}, "either repository and revision or folder must be given"),
        ("hf_flash_attn2", {"folder": "/kernel"}, "either repository and revision or folder must be given"),
        ("hf_flash_attn2", {"repository": 5}, "repository must be text or null, not 5"),
        ("hf_flash_attn2", {"function": 5}, "function must be the name of a function, not 5"),
        ("fa3", {"output": "last"}, "output must be an index, first or null, not 'last'"),
        ("fa4", {"unbounded": "none"}, "unbounded must be an integer or null, not 'none'"),
        ("fa3", {"pip": 5}, "pip must be what pip installs, not 5"),
        ("fa3", {"supports": {"q_len_max": "few"}}, r"supports\.q_len_max must be a number, not 'few'"),
    ],
)
def test_a_mistake_in_a_library_s_yaml_is_one_sentence(name, changed, sentence):
    """The implementation's name and the key are in it."""
    with pytest.raises(ConfigError, match=f"impl {name}: {sentence}"):
        impls.bind(load(name, **changed))


@pytest.mark.parametrize(
    ("name", "device", "reason"),
    [
        ("fa3", {"compute_capability": 10.0}, "compute capability 10.0 is above 9.0"),
        ("sage2_fp8_sm90", {"compute_capability": 8.0}, "compute capability 8.0 is below 9.0"),
        ("flashinfer_prefill_fa3", {"compute_capability": 12.0}, "compute capability 12.0 is above 9.0"),
        ("xformers_cutlass_blackwell", {"compute_capability": 9.0}, "compute capability 9.0 is below 10.0"),
    ],
)
def test_a_kernel_of_one_architecture_says_so(name, device, reason):
    """Where its instructions do not exist."""
    other = Device(kind="cuda", uuid="GPU-0", name="another", **device)
    assert impls.why_unsupported(load(name), Case(**case("decode")), other, EAGER) == reason


def test_flashinfer_decodes_several_queries_with_fa2_alone():
    """Its plan() refuses them otherwise."""
    for name, why in (("decode", None), ("later", "FlashInfer's fa3 decodes one query a sequence")):
        impl = load("flashinfer_decode_tc", backend="fa3")
        assert impls.why_unsupported(impl, Case(**case(name)), H200, EAGER) == why


def test_what_is_not_on_the_package_index_says_where_it_is():
    """`pip` is what pip is given; a version without the function is missing too."""
    implementation = impls.build(load("fa3"))
    assert implementation.install("x").endswith("git+https://github.com/Dao-AILab/flash-attention#subdirectory=hopper")
    sys.modules["sageattention"] = types.SimpleNamespace(__name__="sageattention", sageattn=fake_libraries.sageattn)
    with pytest.raises(Missing, match=r"no sageattn_qk_int8_pv_fp16_cuda in this version; install it with: pip .*git"):
        impls.build(load("sage2_fp16_cuda")).prepare(Case(**case("decode")), "cpu")


#: httpx, under the name by which huggingface_hub has it.
HTTP = importlib.import_module(HfHubHTTPError.__mro__[1].__module__.partition(".")[0])
OFFLINE = "[Errno -2] Name or service not known"


def distrust(cause):
    """kernels 0.17 where it could not ask who published a kernel: it takes that for distrust, and advises trust."""
    error = ValueError(f"{DISTRUST}. Set trust_remote_code=True or add the repository ID to the allowlist")
    error.__context__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "said", "reached"),
    [
        (distrust(HTTP.ConnectError(OFFLINE)), f"{DISTRUST} ({OFFLINE})", False),
        (HTTP.ConnectError(OFFLINE), OFFLINE, False),
        (ConnectionError("offline\nmode"), "offline mode", False),
        (distrust(OSError("500 Server Error")), f"{DISTRUST} (500 Server Error)", True),
        # A publisher whom the hub itself does not list is the user's to trust
        (
            ValueError("not from a trusted publisher. Set trust_remote_code=True"),
            "not from a trusted publisher. Set t",
            True,
        ),
        (FileNotFoundError("Cannot find a build variant"), "Cannot find a build variant", True),
    ],
)
def test_a_hub_that_cannot_be_reached_is_missing_with_what_works_without(error, said, reached, monkeypatch):
    """In the library's words, without the advice to trust whoever it is."""

    def fail(*args, **keywords):
        raise error

    monkeypatch.setitem(sys.modules, "kernels", types.SimpleNamespace(get_kernel=fail))
    with pytest.raises(Missing) as caught:
        impls.build(load("hf_flash_attn3")).prepare(Case(**case("later")), "cuda")
    assert str(caught.value).startswith(f"kernels cannot load kernels-community/flash-attn3 at v1: {said}")
    way = ": the hub could not be reached. Without a network impl.folder takes a local kernel repository (with impl."
    assert (way in str(caught.value)) is not reached
    assert ("Set trust_remote_code" in str(caught.value)) is said.startswith("not from a trusted publisher")


def test_the_hub_is_asked_for_the_revision_and_a_folder_for_itself(tmp_path, monkeypatch):
    """Trust is given where the YAML says so; a failure to load is missing, with its words."""
    asked = []

    def get(*args, **keywords):
        asked.append((args, keywords))
        return types.SimpleNamespace(__name__="kernel", flash_attn_func=fake_libraries.fa2_func)

    def fail(*args, **keywords):
        raise FileNotFoundError("Cannot find a build variant\nfor this system")

    fake = types.SimpleNamespace(get_kernel=get, get_local_kernel=get)
    monkeypatch.setitem(sys.modules, "kernels", fake)
    local = {"repository": None, "revision": None, "folder": str(tmp_path), "trust_remote_code": True}
    for changed in ({}, local):
        assert run(load("hf_flash_attn2", **changed), "later")["status"] == "ok"
    assert asked == [
        (("kernels-community/flash-attn2",), {"revision": "v2"}),
        ((tmp_path,), {"trust_remote_code": True}),
    ]
    fake.get_kernel = fail
    outcome = run(load("hf_flash_attn2"), "later")
    assert outcome["status"] == "missing"
    assert outcome["reason"].endswith("flash-attn2 at v2: Cannot find a build variant for this system")


@pytest.mark.parametrize("local", [False, True])
def test_a_kernel_without_the_function_is_named(local, tmp_path, monkeypatch):
    """By its folder, or by where it is on the hub; the package that loads it is here."""
    changed = {"repository": None, "revision": None, "folder": str(tmp_path)} if local else {}
    kernel = types.SimpleNamespace(__name__="kernel_1a2b")
    fake = types.SimpleNamespace(get_kernel=lambda *_, **__: kernel, get_local_kernel=lambda *_, **__: kernel)
    monkeypatch.setitem(sys.modules, "kernels", fake)
    outcome = run(load("hf_flash_attn2", function="nofn", **changed), "later")
    source = str(tmp_path) if local else "kernels-community/flash-attn2 at v2"
    assert outcome["status"] == "missing"
    assert outcome["reason"] == f"{source} has no nofn; function must name what it has"


def test_a_folder_of_a_kernel_that_is_none_is_seen_before_anything_runs(tmp_path, monkeypatch):
    """Nor is a file one; the user's home is meant by ~."""
    (tmp_path / "file").write_text("")
    (tmp_path / "kernel").mkdir()
    (tmp_path / "kernels.py").write_text("raise SystemExit('it was imported')")
    monkeypatch.delitem(sys.modules, "kernels", raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    local = {"repository": None, "revision": None, "distribution": None}
    whys = {
        one: impls.why_missing(load("hf_flash_attn2", **local, folder=one))
        for one in ("~/no", "~/file", "~nobody.such/x", "~/kernel")
    }
    said = "is no folder; impl.folder must be that of a local kernel repository"
    assert whys == {one: f"{one} {said}" for one in ("~/no", "~/file", "~nobody.such/x")} | {"~/kernel": None}


MADE_HERE = """
from torch.nn.functional import scaled_dot_product_attention

def attend(q, k, v, scale, causal):
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    return scaled_dot_product_attention(q, k, v, scale=scale, is_causal=causal, enable_gqa=True).transpose(1, 2)
"""


def test_a_kernel_repository_made_here_is_loaded_by_the_real_package(tmp_path):
    """From a folder and offline, in an interpreter of its own; one without a build for this machine is missing."""
    try:
        importlib.metadata.distribution("kernels")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("needs the extra hub")
    variant = tmp_path / "kernel/build/torch-cpu"
    variant.mkdir(parents=True)
    (variant / "__init__.py").write_text(MADE_HERE)
    # What Metadata of kernels 0.17.2 requires
    about = {"name": "made-here", "id": "made_here_1", "version": 1, "license": "Apache-2.0", "python-depends": []}
    (variant / "metadata.json").write_text(json.dumps({**about, "backend": {"type": "cpu"}}))
    impl = load("hf_flash_attn2", function="attend", arguments={"scale": "scale", "causal": "causal"})
    for folder, status in (("kernel", "ok"), ("nothing", "missing")):
        local = {**impl, "repository": None, "revision": None, "folder": str(tmp_path / folder)}
        (tmp_path / "cell.json").write_text(json.dumps(resolved(local, case("causal"), **BLINK)))
        ran = subprocess.run(
            [sys.executable, "-m", "attnsweep.worker", "cell.json"],
            cwd=tmp_path,
            env={**os.environ, "HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": ""},
            capture_output=True,
            text=True,
            check=True,
        )
        outcome = json.loads(ran.stdout)
        assert (outcome["status"], status == "ok" or "build variant" in outcome["reason"]) == (status, True), outcome
