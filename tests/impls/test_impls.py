"""From YAML to an implementation: binding, what is supported and why not, and the general adapter."""

import importlib.machinery
import itertools
import re
import sys
import types
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml

from attnsweep import impls
from attnsweep.case import Case
from attnsweep.devices import Device
from attnsweep.errors import ConfigError, Missing
from attnsweep.impls import flex
from distributions import installed

CONF = sorted((Path(__file__).parents[2] / "conf/impl").glob("*.yaml"))
CPU = Device(kind="cpu", uuid="cpu", name="test")
H200 = Device(kind="cuda", uuid="GPU-0", name="NVIDIA H200", compute_capability=9.0)
B200 = Device(kind="cuda", uuid="GPU-0", name="NVIDIA B200", compute_capability=10.0)
V100 = Device(kind="cuda", uuid="GPU-0", name="Tesla V100", compute_capability=7.0)
EAGER, DEFAULT = {"name": "eager", "mode": None}, {"name": "default", "mode": "default"}


def case(**fields):
    """A case of 128 tokens that everything in conf/impl takes on an H200, eager or compiled."""
    sizes = {
        "batch_size": 1,
        "q_len": 128,
        "kv_len": 128,
        "num_heads": 4,
        "num_kv_heads": 4,
        "head_dim": 64,
        "head_dim_v": 64,
    }
    return Case(**{**sizes, "causal": True, "dtype": "bf16", **fields})


def load(name):
    """A YAML of conf/impl."""
    return yaml.safe_load((Path(__file__).parents[2] / f"conf/impl/{name}.yaml").read_text())


@pytest.mark.parametrize("path", CONF, ids=lambda path: path.stem)
def test_every_yaml_binds_and_takes_a_plain_case_on_an_h200_or_a_newer_gpu(path):
    """The folder is the test's parameter list; the file's name is the implementation's."""
    impl = yaml.safe_load(path.read_text())
    impls.bind(impl)
    assert impl["name"] == path.stem
    assert impls.framework(impl) == ("jax" if path.stem.startswith("jax_") else "torch")
    # Decoding alone is what some are for, and others take fp16 and no mask
    plain = [case(), case(q_len=1), case(dtype="fp16"), case(dtype="fp16", causal=False)]
    asked = itertools.product(plain, (H200, B200), (EAGER, DEFAULT))
    assert None in [impls.why_unsupported(impl, *one) for one in asked]


#: What chooses among kernels, or has none of its own, so that none could be missing.
CHOOSING = {"sdpa", "sdpa_math", "naive", "te_unfused", "jax_xla", "ceiling_copy", "ceiling_matmul"}
#: What nobody has seen run yet under the names that its library gives its kernels.
UNSEEN = {"jax_flash_attn2", "jax_flash_attn2_block_ptr", "jax_flash_attn2_ptr_block"}


def test_what_has_a_kernel_of_its_own_says_its_name():
    """Else nothing proves that it ran, and another in its place would have no flag."""
    silent = {path.stem for path in CONF if not (yaml.safe_load(path.read_text()).get("kernels") or {}).get("fwd")}
    assert silent == CHOOSING | UNSEEN


@pytest.mark.parametrize(
    "sweep",
    [f"{name}/results" for name in ("everything", "fa4_flashinfer", "mha_grid", "mha_grid_jax")]
    + ["protocol/before", "protocol/replaced"],
)
def test_the_kernels_that_a_yaml_declares_are_those_that_ran(sweep):
    """In records of GPUs: a pattern that fits nothing there would flag what is right."""
    path = Path(__file__).parents[2] / f"docs/results/{sweep}.parquet"
    rows = pq.read_table(path, columns=["impl", "direction", "kernel_names", "flags"]).to_pylist()
    seen = [row for row in rows if row["kernel_names"]]
    assert len({row["impl"] for row in seen}) >= 3
    for row in seen:
        declared = load(row["impl"]).get("kernels") or {}
        for direction in {"fwd", "bwd"} & declared.keys():
            if direction in row["direction"]:
                assert any(re.search(one, name) for one in declared[direction] for name in row["kernel_names"]), row
        never = any(re.search(one, name) for one in declared.get("never", []) for name in row["kernel_names"])
        assert never == ("substituted" in row["flags"]), row


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"backnd": "flash"}, "no such key: backnd; the keys are backend"),
        ({"backend": "flsh"}, "backend must be one of flash, cudnn, efficient, math or null"),
        ({"layout": "sbhd"}, "layout must be one of bshd, bhsd"),
        ({"supports": {"dtype": ["bf16"]}}, "supports has no key dtype; the keys are devices, dtypes"),
        ({"kernels": {"fwd": "flash_fwd"}}, "kernels.fwd must be a list of regular expressions, not 'flash_fwd'"),
        ({"kernels": {"fwd": ["("]}}, "kernels.fwd must be a list of regular expressions"),
        ({"kernels": 5}, "kernels must be a mapping, not 5"),
        ({"supports": {"gqa": "no"}}, "supports.gqa must be true or false, not 'no'"),
        ({"supports": {"dtypes": "bf16"}}, "supports.dtypes must be a list of any of fp32, bf16, fp16, not 'bf16'"),
        ({"supports": {"dtypes": ["bf16", "fp17"]}}, "any of fp32, bf16, fp16, not \\['bf16', 'fp17']"),
        (
            {"supports": {"directions": ["forward"]}},
            "supports.directions must be a list of any of fwd, bwd, fwd_bwd, not",
        ),
        ({"supports": {"devices": ["gpu"]}}, "supports.devices must be a list of any of cpu, cuda, not \\['gpu']"),
        ({"supports": {"compile": "eager"}}, "supports.compile must be a list of names, not 'eager'"),
        ({"supports": {"head_dim_max": "abc"}}, "supports.head_dim_max must be a number"),
        ({"precision": "int8"}, "precision must be null or a mapping, not 'int8'"),
        ({"precision": {}}, "precision.class must be given: a name such as int8"),
        ({"precision": {"cosine": 0.9}}, "precision.class must be given"),
        ({"precision": {"class": "native"}}, "precision.class must be a name such as int8 that is not native"),
        ({"precision": {"class": "int8", "cosine": 1.5}}, "precision.cosine must be a number above 0 and up to 1"),
        ({"precision": {"class": "int8", "rel_l1": True}}, "precision.rel_l1 must be a number above 0, not True"),
        ({"precision": {"class": "int8", "mse": 1}}, "precision has no key mse; the keys are class, cosine, rel_l1"),
        ({"distribution": 5}, "distribution must be a name, not 5"),
        ({"env": 5}, "env must be a mapping"),
        ({"isolation": "none"}, "isolation must be fork or spawn"),
        ({"env": {"python_version": "3.8"}}, "a version in quotes such as \"3.11\", 3.9 at the oldest, not '3.8'"),
        ({"env": {"pyton": "x"}}, "env has no key pyton"),
        ({"kernels": {"forward": []}}, "kernels has no key forward"),
        ({"framework": "tensorflow"}, "framework must be one of torch"),
        ({"_target_": "attnsweep.impls.sdpa.Sdpa"}, "cannot be imported"),
        ({"_target_": "attnsweep.case.Case"}, "not a subclass"),
        ({"_target_": None}, "_target_ must be given, as package.module.Class"),
        ({"_target_": "attnsweep..impls.X"}, "_target_ must be package.module.Class, not 'attnsweep..impls.X'"),
        ({"_target_": "attnsweep.impls.Attention"}, "cannot be built: it has no prepare"),
        ({"distribution": ""}, "distribution must be a name, not ''"),
        ({"min_version": 2}, 'min_version must be a version in quotes such as "2.1", not 2$'),
        ({"min_version": 2.1}, 'min_version must be a version in quotes such as "2.1", not 2.1$'),
        ({"min_version": ">=2"}, "min_version must be a version in quotes such as \"2.1\", not '>=2'"),
        ({"min_version": "2", "distribution": None}, "min_version goes with distribution, which is not given"),
        ({"env": {"python": "a\0b"}}, "env.python must be the path of an interpreter"),
    ],
)
def test_a_mistake_in_a_yaml_is_one_sentence_with_the_choices(change, sentence):
    """The implementation's name and the key are in it."""
    impl = {**load("sdpa_flash"), **change}
    ask = impls.framework if "framework" in change else impls.bind
    with pytest.raises(ConfigError, match=sentence) as caught:
        ask(impl)
    assert "sdpa_flash" in str(caught.value)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"block_size": "abc"}, "block_size must be a positive integer, or [QUERIES, KEYS], not 'abc'"),
        ({"block_size": -1}, "block_size must be a positive integer, or [QUERIES, KEYS], not -1"),
        ({"block_size": True}, "block_size must be a positive integer, or [QUERIES, KEYS], not True"),
        ({"block_size": [64]}, "block_size must be a positive integer, or [QUERIES, KEYS], not [64]"),
        ({"block_size": [64, 0]}, "block_size must be a positive integer, or [QUERIES, KEYS], not [64, 0]"),
        ({"kernel_options": "abc"}, "kernel_options must be null or a mapping such as {BLOCK_M: 64}, not 'abc'"),
        (
            {"kernel_options": {"BLOCK_M": [64]}},
            "kernel_options.BLOCK_M must be a number, true or false, or text, not [64]",
        ),
        ({"kernel_options": {1: 64}}, "the keys of kernel_options must be names, not 1"),
        *(
            (
                {"kernel_options": {key: 64}},
                f"kernel_options has no key {key}; the keys are {', '.join(flex.OPTIONS)}, those of one pass also as "
                "fwd_KEY or bwd_KEY",
            )
            for key in ("BLOCK_MM", "block_m", "bwd_BLOCK_M", "fwd_BLOCK_N1", "fwd_BACKEND", "fwd_", "")
        ),
    ],
)
def test_a_mistake_in_flex_s_sizes_is_one_sentence(change, sentence):
    """Before anything runs: PyTorch says it in its own words in each cell."""
    with pytest.raises(ConfigError) as caught:
        impls.bind({**load("flex"), **change})
    assert str(caught.value) == f"impl flex: {sentence}"
    for fits in (
        {"block_size": 64},
        {"block_size": [128, 64]},
        {"kernel_options": None},
        {"kernel_options": {"BLOCK_M": 64, "PRESCALE_QK": True}},
        {"kernel_options": {"fwd_BLOCK_M": 64, "bwd_BLOCK_M1": 32, "bwd_num_warps": 4, "SPLIT_KV": 8}},
    ):
        impls.bind({**load("flex"), **fits})


def test_the_options_of_flex_are_torch_s():
    """Those that PyTorch documents, in the versions that do; and others that its kernels read besides."""
    from torch.nn.attention import flex_attention

    documented = getattr(flex_attention, "FlexKernelOptions", None)
    if documented is None:
        pytest.skip("this torch documents no options")
    assert set(documented.__annotations__) <= set(flex.OPTIONS)
    if "BACKEND" in documented.__annotations__:
        import torch._inductor.kernel.flex as inductor

        source = "".join(path.read_text() for path in Path(inductor.__file__).parent.glob("*.py"))
        assert all(key in source for key in set(flex.OPTIONS) - set(documented.__annotations__))


@pytest.mark.parametrize(
    ("options", "device", "direction", "unread"),
    [
        ({"BLOCK_M": 64}, "cpu", "fwd", True),
        ({"BLOCK_M": 64}, "cuda", "fwd", False),
        ({"BLOCK_M": 64}, "cuda", "bwd", True),
        ({"BLOCK_M1": 64, "fwd_num_warps": 4}, "cuda", "bwd", True),
        ({"BLOCK_M1": 64, "num_warps": 4}, "cuda", "bwd", False),
        ({"bwd_BLOCK_M1": 64}, "cuda", "fwd", True),
        ({"BLOCK_M": 64, "BLOCK_M1": 64}, "cuda", "fwd_bwd", False),
        ({"FLOAT32_PRECISION": "ieee"}, "cuda", "fwd", False),
        ({"PARTITION_SIZE": 64}, "cpu", "fwd", False),
        ({"PARTITION_SIZE": 64}, "cuda", "fwd", True),
        ({"SPLIT_KV": 2}, "cuda", "fwd", True),  # 128 queries are not decoded
        ({"kpack": 2}, "cuda", "fwd", True),
        (None, "cpu", "fwd", False),
    ],
)
def test_options_that_no_kernel_reads_are_flagged(options, device, direction, unread):
    """On a CPU Inductor has one kernel, whatever a variant is called; each pass has options of its own."""
    implementation = impls.build({**load("flex"), "kernel_options": options})
    implementation.prepare(case(causal=False, direction=direction), device)
    assert implementation.flags == ({"options_unread"} if unread else set())


class Buggy(impls.Attention):
    """An adapter whose author made a mistake in each place that the parent asks."""

    def __init__(self, *, fails="", **common):
        super().__init__(**common)
        self.fails = fails
        if fails == "build":
            raise KeyError("built")

    def supports(self, case, device, compile_mode):
        raise RuntimeError("asked\nfor support")

    def work(self, case):
        return 1 // 0

    def prepare(self, case, device):
        raise NotImplementedError


@pytest.mark.parametrize(
    ("fails", "ask", "said"),
    [
        ("build", lambda impl: impls.why_unsupported(impl, case(), H200, EAGER), "KeyError: 'built' "),
        ("supports", lambda impl: impls.why_unsupported(impl, case(), H200, EAGER), "RuntimeError: asked for support "),
        ("work", lambda impl: impls.work(impl, case()), "ZeroDivisionError: integer division or modulo by zero "),
    ],
)
def test_a_bug_in_a_users_adapter_is_said_with_its_place(fails, ask, said):
    """One line with the class, the exception and where, and its traceback behind it for who asks."""
    with pytest.raises(ConfigError) as caught:
        ask({"name": "mine", "_target_": f"{__name__}.Buggy", "fails": fails})
    assert str(caught.value).startswith(f"impl mine: {__name__}.Buggy fails: {said}({__file__}, line ")
    assert caught.value.__cause__ is not None


def test_a_bug_in_an_adapter_of_ours_keeps_its_traceback(monkeypatch):
    """It is not the user's mistake."""
    monkeypatch.setattr(impls.FunctionAttention, "supports", Buggy.supports)
    fa2 = {**load("fa2"), "supports": None}
    with pytest.raises(RuntimeError, match="asked"):
        impls.why_unsupported(fa2, case(), H200, EAGER)


def test_a_precision_of_its_own_has_limits():
    """The YAML's, and the usual ones where it names none; native where it names no class."""
    assert impls.build(load("naive")).precision is None
    quantised = impls.build({**load("naive"), "precision": {"class": "int8", "cosine": 0.995, "rel_l1": None}})
    assert quantised.precision == {"class": "int8", "cosine": 0.995, "rel_l1": 0.1}


def test_a_required_keyword_is_asked_for():
    """A YAML that lacks one is refused before any process starts."""
    with pytest.raises(ConfigError, match="flag must be given"):
        impls.bind({"name": "x", "_target_": "fake_impls.NeedsFlag"})
    impls.bind({"name": "x", "_target_": "fake_impls.NeedsFlag", "flag": 1, "block_q": 32})


@pytest.mark.parametrize(
    ("name", "fields", "device", "compile_mode", "reason"),
    [
        ("fa2", {"dtype": "fp32"}, H200, EAGER, "dtype fp32 is not among fp16, bf16"),
        ("fa2", {"head_dim": 512, "head_dim_v": 512}, H200, EAGER, "head_dim 512 is above 256"),
        ("fa2", {"head_dim_v": 128}, H200, EAGER, "head_dim_v unlike head_dim is not supported"),
        ("fa2", {}, CPU, EAGER, "runs on cuda, not on cpu"),
        ("fa2", {}, V100, EAGER, "compute capability 7.0 is below 8.0"),
        ("fa2", {"bias": "dense"}, H200, EAGER, "passes no bias"),
        ("flex", {}, H200, EAGER, "kernel exists only compiled"),
        ("flex", {"direction": "bwd"}, CPU, DEFAULT, "on a CPU has no backward"),
        ("sdpa_efficient", {"num_kv_heads": 2}, H200, EAGER, "grouped-query attention is not supported"),
        ("sdpa_flash", {"q_len": 64}, H200, EAGER, "aligned top-left"),
        ("sdpa_flash", {"window": (8, 0)}, H200, EAGER, "takes no mask"),
        ("sdpa_flash", {"head_dim_v": 32}, CPU, EAGER, "one head dim"),
        ("sdpa_flash", {"dtype": "fp32"}, H200, EAGER, "takes fp16 and bf16"),
        ("xformers_triton_splitk", {"causal": False, "window": (8, 0)}, H200, EAGER, "a window is not supported"),
        ("triton_fused_softmax", {"direction": "bwd"}, H200, EAGER, "direction bwd is not among fwd"),
        ("ceiling_copy", {}, H200, DEFAULT, "compile mode default is not among eager"),
        ("ceiling_matmul", {"q_len": 2**17, "kv_len": 2**17, "num_heads": 32}, H200, EAGER, "7.04e+13 FLOPs, and one"),
    ],
)
def test_what_is_unsupported_says_why(name, fields, device, compile_mode, reason):
    """In words, without importing the library."""
    assert reason in impls.why_unsupported(load(name), case(**fields), device, compile_mode)


@pytest.mark.parametrize("mode", ["reduce-overhead", "max-autotune"])
def test_a_backward_pass_alone_is_unsupported_with_cuda_graphs(mode):
    """PyTorch replays it only behind its forward pass; that is planned, and so is every other direction."""
    compiled = {"name": "graphs", "mode": mode}
    reasons = {
        d: impls.why_unsupported(load("sdpa_flash"), case(direction=d), H200, compiled) for d in ("bwd", "fwd_bwd")
    }
    assert "direction=fwd_bwd" in reasons["bwd"]
    assert reasons["fwd_bwd"] is None
    assert impls.why_unsupported(load("sdpa"), case(direction="bwd"), CPU, compiled) is None


def test_one_query_at_the_end_of_a_cache_is_not_masked():
    """Decode is causal by name only: what refuses masks still takes it."""
    decode = case(q_len=1, kv_len=4096)
    assert impls.why_unsupported(load("sdpa_flash"), decode, H200, EAGER) is None


def test_nothing_of_a_library_is_imported_in_the_parent(monkeypatch):
    """Binding and asking what is supported touch neither torch nor the library."""
    monkeypatch.setitem(sys.modules, "flash_attn", None)
    assert impls.why_unsupported(load("fa2"), case(), H200, EAGER) is None


def test_a_folder_that_happens_to_have_its_name_is_no_library(tmp_path, monkeypatch):
    """Python takes any folder on its path for a package; a library of that name is missing all the same."""
    (tmp_path / "only_a_folder").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    impl = {**load("fa2"), "function": "only_a_folder.attention"}
    why = impls.why_missing(impl)
    assert why.startswith(f"only_a_folder is only a folder ({tmp_path}/only_a_folder); install it with")
    with pytest.raises(Missing, match="is only a folder"):
        impls.build(impl).prepare(case(), "cuda")


def test_what_hides_the_distribution_is_not_taken_for_it(tmp_path, monkeypatch):
    """An older module of the same name before it on the path would run under the distribution's version."""
    for folder in ("before", "site"):
        (tmp_path / folder / "hidden").mkdir(parents=True)
        (tmp_path / folder / "hidden/__init__.py").write_text("def attention(q, k, v):\n    return v\n")
        (tmp_path / folder / "hidden/inner.py").write_text("def attention(q, k, v):\n    return v\n")
    record = installed(tmp_path / "site", "hidden", "4.0") / "RECORD"
    record.write_text("hidden/__init__.py,,\nhidden/inner.py,,\n")
    for function, file in (("hidden.attention", "__init__"), ("hidden.inner.attention", "inner")):
        impl = {**load("fa2"), "function": function, "distribution": "hidden"}
        module = function.rpartition(".")[0]
        with monkeypatch.context() as patch:
            patch.syspath_prepend(tmp_path / "site")
            assert impls.why_missing(impl) is None
            impls.build(impl).prepare(case(), "cuda")
            patch.syspath_prepend(tmp_path / "before")
            for name in ("hidden", "hidden.inner"):
                sys.modules.pop(name, None)
            why = impls.why_missing(impl)
            assert why.startswith(f"{module} is {tmp_path}/before/hidden/{file}.py, which hides that of hidden 4.0; ")
            with pytest.raises(Missing, match="which hides that of hidden"):
                impls.build(impl).prepare(case(), "cuda")
            record.rename(record.with_suffix(".gone"))  # an editable installation: it has no list of its modules
            assert impls.why_missing(impl) is None
            record.with_suffix(".gone").rename(record)
            for name in ("hidden", "hidden.inner"):
                sys.modules.pop(name, None)


@pytest.mark.parametrize(
    ("files", "record"),
    [
        (["beside.so", "beside.py"], b"beside.py,,\n"),  # Python takes the compiled one
        (["beside/__init__.py", "beside.py"], b"beside.py,,\nbeside/__init__.py,,\n"),  # and the package
        (["beside/__init__.pyc"], b"beside/__init__.py,,\n"),
        (["beside.py"], b"beside.py,,\n\xff,,\n"),
    ],
)
def test_what_is_beside_what_the_distribution_recorded_hides_nothing(files, record, tmp_path, monkeypatch):
    """A compiled module, a package, a file without its source, and a record that cannot be read."""
    suffix = importlib.machinery.EXTENSION_SUFFIXES[0]
    for file in files:
        path = tmp_path / file.replace(".so", suffix)
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"")
    (installed(tmp_path, "beside", "4.0") / "RECORD").write_bytes(record)
    monkeypatch.syspath_prepend(tmp_path)
    assert impls.why_missing({**load("fa2"), "function": "beside.attention", "distribution": "beside"}) is None


@pytest.fixture
def older(tmp_path, monkeypatch):
    """An implementation of a library that this interpreter has, at a version that is asked for, and must not import."""
    (tmp_path / "older").mkdir()
    (tmp_path / "older/__init__.py").write_text("raise SystemExit('it was imported')")
    monkeypatch.syspath_prepend(tmp_path)

    def make(version, **changed):
        (tmp_path / "older-1.dist-info").mkdir(exist_ok=True)
        (tmp_path / "older-1.dist-info/METADATA").write_text(f"Name: older\nVersion: {version}\n")
        return {**load("fa2"), "function": "older.attention", "distribution": "older", **changed}

    return make


@pytest.mark.parametrize(
    ("version", "least", "below"),
    [
        ("1.0.6", "2", True),
        ("2.0rc1", "2", True),
        ("2", "2.0", False),
        ("2.0+cu130", "2", False),
        ("1.10", "1.9", False),
        ("from-a-branch", "2", False),  # nobody knows
    ],
)
def test_a_version_below_the_least_that_a_yaml_asks_for_is_missing(older, version, least, below):
    """As PEP 440 orders them; in one sentence, without an import."""
    impl = older(version, min_version=least)
    sentence = f"older {version} is below {least}; install it with: pip install 'older>={least}'"
    assert impls.why_missing(impl) == impls.why_too_old(impl, version) == (sentence if below else None)
    assert impls.why_missing({**impl, "min_version": None}) is None
    if below:
        with pytest.raises(Missing, match=f"^{re.escape(sentence)}$"):
            impls.build(impl).prepare(case(), "cuda")


def test_an_implementation_without_a_module_needs_its_version_too(older):
    """Of the framework, as for a backend that only a newer one has."""
    impl = {**load("sdpa_cudnn"), "distribution": "older", "min_version": "2"}
    older("1")
    assert impls.why_missing(impl) == "older 1 is below 2; install it with: pip install 'older>=2'"


def test_how_to_get_a_newer_version_goes_by_the_environment(older):
    """What a YAML gives pip, and a list of requirements."""
    built = older("1", min_version="2", env={"requirements": ["older"]})
    assert (
        impls.why_too_old(built, "1")
        == "older 1 is below 2; its env.requirements must name what brings it ('older>=2')"
    )
    impl = older("1", min_version="2", pip="git+https://host/older")
    assert impls.why_missing(impl) == "older 1 is below 2; install it with: pip install git+https://host/older"


def test_an_environment_without_packaging_still_prepares(older, monkeypatch):
    """The parent has judged of its version."""
    monkeypatch.setitem(sys.modules, "packaging.version", None)
    monkeypatch.setitem(sys.modules, "older", types.SimpleNamespace(attention=print))
    assert impls.build(older("1", min_version="2")).prepare(case(), "cuda")


def test_sageattention_2_is_not_here_where_version_1_is():
    """They share a name; the package index has version 1."""
    for name in ("sage2_fp16_cuda", "sage2_fp16_triton", "sage2_fp8_sm90"):
        assert impls.why_too_old(load(name), "1.0.6").startswith(
            "sageattention 1.0.6 is below 2; install it with: pip "
        )
        assert impls.why_too_old(load(name), "2.0.0") is None
    assert impls.why_too_old(load("sage1"), "1.0.6") is None


def test_what_only_an_import_can_tell_is_not_called_missing(tmp_path, monkeypatch):
    """A module in a folder without __init__.py, one that an editable installation finds its own way, and __main__."""
    (tmp_path / "outer/inner").mkdir(parents=True)
    (tmp_path / "outer/inner/found.py").write_text("def attention(q, k, v):\n    return v\n")
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "edited").mkdir()
    (tmp_path / "edited/__init__.py").write_text("")

    class Editable:
        @staticmethod
        def find_spec(name, path=None, target=None):
            if name == "edited.elsewhere":
                return importlib.machinery.ModuleSpec(name, importlib.machinery.BuiltinImporter, origin="elsewhere")

    monkeypatch.setattr(sys, "meta_path", [*sys.meta_path, Editable])
    for function in ("outer.inner.found.attention", "edited.elsewhere.attention", "__main__.attention"):
        assert impls.why_missing({**load("fa2"), "function": function}) is None
    assert impls.why_missing({**load("fa2"), "function": "edited.nowhere.attention"}).startswith("No module named")
    assert impls.build({**load("fa2"), "function": "outer.inner.found.attention"}).prepare(case(), "cuda")


@pytest.mark.parametrize(
    ("env", "ways"),
    [
        ({}, "put its folder into PYTHONPATH, or install what brings it"),
        ({"python": "/opt/bin/python"}, "put its folder into env.variables.PYTHONPATH, or install what brings it"),
        (
            {"requirements": ["einops"]},
            "put its folder into env.variables.PYTHONPATH, or what brings it into env.requirements",
        ),
    ],
)
def test_a_file_of_ones_own_is_not_looked_for_in_the_package_index(env, ways):
    """Without a distribution nobody knows whose package of that name pip would fetch: PYTHONPATH is named."""
    impl = {**load("fa2"), "distribution": None, "pip": None, "function": "kk.attend", "env": env}
    assert impls.why_missing(impl) == f"No module named 'kk'; {ways} (its YAML names no distribution)"


def test_a_missing_library_says_how_to_get_it():
    """In the plan, by looking; in the worker, by importing."""
    impl = {**load("fa2"), "function": "no_such_package.attend"}
    assert impls.why_missing(impl).endswith("install it with: pip install flash-attn")
    with pytest.raises(Missing, match="pip install flash-attn"):
        impls.build(impl).prepare(case(), "cpu")
    assert impls.why_missing(load("naive")) is None


def test_the_general_adapter_calls_as_the_yaml_says(monkeypatch):
    """q, k, v positional; fields and properties of the case by the library's keywords; null left out; output picked."""
    calls = []

    def attend(*args, **keywords):
        calls.append((args, keywords))
        return "out", "lse"

    monkeypatch.setitem(sys.modules, "fake_library", types.SimpleNamespace(attend=attend))
    impl = {
        "name": "fake",
        "_target_": "attnsweep.impls.FunctionAttention",
        "function": "fake_library.attend",
        "arguments": {"is_causal": "causal", "sm_scale": "scale", "window_size": "window", "mask": "bias"},
        "constants": {"deterministic": True},
        "output": 0,
    }
    assert impls.build(impl).prepare(case(), "cpu")("q", "k", "v") == "out"
    assert calls == [(("q", "k", "v"), {"is_causal": True, "sm_scale": 0.125, "deterministic": True})]
    windowed = impls.build(impl).prepare(case(window=(8, 0), bias="dense"), "cpu")
    windowed("q", "k", "v", "bias")
    assert calls[1][1]["window_size"] == (8, 0)
    assert calls[1][1]["mask"] == "bias"


def test_a_function_that_a_library_of_ones_own_lacks_is_a_matter_of_its_yaml(monkeypatch):
    """Without a distribution it is no older version of anything, and PYTHONPATH found the module."""
    monkeypatch.setitem(sys.modules, "fake_library", types.SimpleNamespace(__name__="fake_library"))
    impl = {"name": "fake", "_target_": "attnsweep.impls.FunctionAttention", "function": "fake_library.atend"}
    with pytest.raises(Missing) as caught:
        impls.build(impl).prepare(case(), "cpu")
    assert str(caught.value) == "fake_library has no atend; function in its YAML must name what that module has"


def test_a_field_that_no_case_has_is_refused():
    """The fields are listed."""
    impl = {**load("fa2"), "arguments": {"causal": "is_causal"}}
    with pytest.raises(ConfigError, match=r"arguments\.causal is 'is_causal'.*the fields are batch_size"):
        impls.bind(impl)


@pytest.mark.parametrize("member", ["to_dict", "from_dict", "visible", "_most_elements"])
def test_what_a_case_does_is_no_field_of_it(member):
    """A library would get a bound method for its scale."""
    impl = {**load("fa2"), "arguments": {"softmax_scale": member}}
    with pytest.raises(ConfigError) as caught:
        impls.bind(impl)
    said, fields = str(caught.value).split("; the fields are ")
    assert said == f"impl fa2: arguments.softmax_scale is {member!r}, which is no field of a case"
    assert member not in fields.split(", ")
    assert {"scale", "bounds", "causal", "bias", "batch_size"} <= set(fields.split(", "))


def test_a_mask_that_the_yaml_does_not_pass_is_unsupported():
    """Silence would time another problem."""
    impl = {**load("fa2"), "arguments": {}}
    assert "passes no causal mask" in impls.why_unsupported(impl, case(), H200, EAGER)
