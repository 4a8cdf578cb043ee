"""On a CPU: each implementation that runs there is right in what it claims, or says why it cannot; what is asked."""

import json
import random
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from attnsweep import capabilities, devices, worker
from attnsweep.devices import Device
from cells import resolved

CPU = devices.cpu()
BLINK = {"min_blocks": 1, "block_ms": 0.1, "rest_ms": 0.0, "time_cap_s": 0.01}
H200 = capabilities.H200
IMPLS = capabilities.implementations()
#: What answers every question on a CPU.
FORMULAS = ("naive", "sdpa", "sdpa_math")
#: What needs neither a GPU nor a compiler.
EAGER = (*FORMULAS, "sdpa_flash")
#: Pairs of each that `make test` tries; the others are slow.
SAMPLE = 25
#: Keys of the plain case here: fewer than GPUs are asked about, which on a CPU would take long.
TOKENS = 128
COMPILED = ("causal", "GQA 4:1", "window, both sides", "q_len < kv_len, causal", "decode", "head dim 192/128", "ragged")


@pytest.fixture(autouse=True)
def torch_as_it_was():
    """A cell switches PyTorch's backends for its whole process, which here is the tests'; one thread is quicker."""
    switches = {
        name: (getattr(torch.backends.cuda, f"{name}_sdp_enabled"), getattr(torch.backends.cuda, f"enable_{name}_sdp"))
        for name in ("flash", "cudnn", "mem_efficient", "math")
    }
    before, threads = {name: enabled() for name, (enabled, _) in switches.items()}, torch.get_num_threads()
    for _, switch in switches.values():
        switch(True)
    torch.set_num_threads(1)
    yield
    for name, (_, switch) in switches.items():
        switch(before[name])
    torch.set_num_threads(threads)


def tried(name):
    """(questions, case) of each single question and each pair that the implementation does not refuse on a CPU."""
    impl = IMPLS[name]
    asked = [((question,), case) for question, case in capabilities.singles(impl, TOKENS).items()]
    asked += capabilities.pairs(impl, TOKENS).items()
    return [(questions, case) for questions, case in asked if not capabilities.why_unsupported(impl, case, CPU)]


def parameters():
    """Every single question, and a sample of the pairs; the rest of the pairs is marked slow."""
    found = []
    for name in EAGER:
        asked = tried(name)
        pairs = [questions for questions, _ in asked if len(questions) == 2]
        sample = random.Random(name).sample(pairs, SAMPLE)
        for questions, case in asked:
            marks = () if len(questions) == 1 or questions in sample else pytest.mark.slow
            found.append(pytest.param(name, case, id=f"{name}-{' + '.join(questions)}", marks=marks))
    return found


def cell(name, case):
    """A cell on the CPU, timed in a blink."""
    impl = IMPLS[name]
    return resolved(impl, case.to_dict(), capabilities.compile_mode(impl, CPU), **BLINK)


@pytest.mark.parametrize(("name", "case"), parameters())
def test_what_is_claimed_is_correct_or_unsupported_with_a_reason(name, case):
    """Never incorrect, never an error; the formulas are always correct."""
    outcome = worker.run(cell(name, case), lambda event: None)
    allowed = ("ok",) if name in FORMULAS else ("ok", "unsupported")
    assert outcome["status"] in allowed, (outcome["reason"], outcome["traceback"])
    if outcome["status"] == "ok":
        assert outcome["columns"]["check"] == "passed"
    else:
        assert outcome["reason"]


@pytest.mark.parametrize("name", FORMULAS)
def test_a_formula_refuses_no_question(name):
    """So that every question is answered on a CPU."""
    assert len(tried(name)) == len(capabilities.QUESTIONS) + len(capabilities.pairs(IMPLS[name], TOKENS))


@pytest.mark.slow
@pytest.mark.parametrize("question", COMPILED)
def test_flex_is_correct_compiled(question, tmp_path):
    """A few of its questions, as each is compiled, in a process of its own."""
    path = tmp_path / "cell.json"
    path.write_text(json.dumps(cell("flex", capabilities.singles(IMPLS["flex"], TOKENS)[question])))
    command = [sys.executable, "-m", "attnsweep.worker", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=110, check=True)
    outcome = json.loads(done.stdout)
    assert outcome["status"] == "ok", (outcome["reason"], outcome["traceback"])


def test_the_questions_cover_what_they_say():
    """Each question changes the plain case into what its name says, and no two cases of an implementation are alike."""
    singles = capabilities.singles(IMPLS["naive"], TOKENS)
    plain = singles["bf16"]
    assert plain == singles["fwd"] == singles["head dim 64"]
    others = [case for case in singles.values() if case != plain]
    pairs = list(capabilities.pairs(IMPLS["naive"], TOKENS).values())
    assert len({*others, *pairs}) == len(others) + len(pairs)
    assert singles["GQA 4:1"].group_size == 4
    assert singles["window, left"].bounds == (32, 0)
    assert singles["window, both sides"].bounds == (32, 32)
    later = singles["q_len < kv_len, causal"]
    assert (later.q_len, later.kv_len, later.causal) == (64, 128, True)
    assert (singles["q_len > kv_len"].q_len, singles["decode"].q_len) == (256, 1)
    assert singles["ragged"].q_len == singles["ragged"].kv_len == 101
    both = capabilities.pairs(IMPLS["naive"], TOKENS)["causal", "window, both sides"]
    assert both.bounds == (32, 0)


def test_what_decodes_is_asked_with_one_query():
    """Else every answer of it would be its limit on queries."""
    singles = capabilities.singles(IMPLS["fa2_decode"], TOKENS)
    assert {case.q_len for question, case in singles.items() if "q_len" not in question} == {1}
    assert singles["ragged"].kv_len == 101


def test_each_is_asked_as_its_framework_is_used():
    """JAX's in jax.jit, torch's eager, but for what exists only compiled."""
    modes = {name: capabilities.compile_mode(impl, H200) for name, impl in IMPLS.items()}
    assert {name for name, mode in modes.items() if mode == "default"} == {"flex"}
    jax = {name for name in modes if name.startswith("jax_")}
    assert {name for name, mode in modes.items() if mode == "jit"} == jax
    assert set(modes.values()) == {"eager", "default", "jit"}


def test_every_implementation_claims_its_plain_case_on_its_gpu():
    """A YAML that refuses that measures nothing there. One is for a newer GPU than an H200, where it claims nothing."""
    newer = "xformers_cutlass_blackwell"
    for name, impl in IMPLS.items():
        gpu = Device(kind="cuda", uuid="GPU-0", name="B200", compute_capability=10.0) if name == newer else H200
        assert capabilities.why_unsupported(impl, capabilities.singles(impl)["fwd"], gpu) is None, name
    claimed = [
        case
        for case in capabilities.singles(IMPLS[newer]).values()
        if not capabilities.why_unsupported(IMPLS[newer], case, H200)
    ]
    assert not claimed


def test_the_document_asks_at_the_size_at_which_gpus_are_asked():
    """At 128 tokens Mosaic-GPU's blocks of head dim 256 fit, at any real length they do not; half of 128 queries is no
    two blocks of it.
    """
    singles = capabilities.singles(IMPLS["jax_mosaic_gpu"])
    assert "bytes of shared memory" in capabilities.why_unsupported(
        IMPLS["jax_mosaic_gpu"], singles["head dim 256"], H200
    )
    assert capabilities.why_unsupported(IMPLS["jax_mosaic_gpu"], singles["q_len < kv_len"], H200) is None


def test_the_document_of_implementations_is_made_from_their_yaml():
    """docs/implementations.md is what capabilities.markdown() says; `make docs` writes it."""
    text = (Path(__file__).parents[1] / "docs" / "implementations.md").read_text()
    assert text == capabilities.markdown()
    assert all(f"| `{name}` |" in text for name in IMPLS)
