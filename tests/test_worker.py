"""One cell from inputs to outcome, in this process: the stages, the columns, and every exception as a status."""

import json
import subprocess
import sys

import pytest

from attnsweep import records, worker
from attnsweep.frameworks.torch import Torch
from cells import resolved

CASE = {
    "batch_size": 2,
    "q_len": 24,
    "kv_len": 24,
    "num_heads": 4,
    "num_kv_heads": 2,
    "head_dim": 16,
    "head_dim_v": 16,
}


def cell(impl, compile_mode="eager", **fields):
    """A resolved cell on the CPU, timed in a blink."""
    return resolved(impl, {**CASE, "causal": True, "dtype": "fp32", **fields}, compile_mode)


def fake(deed):
    """An implementation that misbehaves in one way."""
    return {"name": deed, "_target_": "fake_impls.Fake", "deed": deed, "layout": "bhsd"}


def sdpa(backend):
    """PyTorch's own with a backend pinned."""
    return {
        "name": "sdpa",
        "_target_": "attnsweep.impls.sdpa.SdpaAttention",
        "backend": backend,
        "layout": "bhsd",
    }


NAIVE = {"name": "naive", "_target_": "attnsweep.impls.naive.NaiveAttention", "layout": "bhsd"}


def run(payload):
    """The outcome, and the phases announced on the way."""
    events = []
    outcome = worker.run(payload, events.append)
    return outcome, [event["phase"] for event in events]


def test_a_good_cell_goes_through_every_stage_and_fills_known_columns():
    """JSON comes back, and every column is one of the record's."""
    outcome, phases = run(cell(NAIVE))
    assert outcome["status"] == "ok", outcome["traceback"]
    assert list(dict.fromkeys(phases)) == [
        "import",
        "inputs",
        "prepare",
        "check",
        "proof",
        "memory",
        "timing",
    ]
    assert set(outcome["stages"]) == set(phases)
    assert set(outcome["columns"]) <= set(records.NAMES)
    assert outcome["columns"]["latency_ms"] > 0
    assert outcome["columns"]["check"] == "passed"
    assert outcome["columns"]["timer"] == "host"
    start, end = outcome["windows"]["burst"]
    assert end - start == pytest.approx(outcome["stages"]["timing"], abs=0.05)
    json.loads(json.dumps(outcome))


@pytest.mark.parametrize(("peak", "told"), [(2**40, True), (1, False), (None, False)])
def test_a_peak_that_has_no_room_for_the_tensors_is_none(peak, told, monkeypatch):
    """The allocator does not see into a CUDA graph's memory: of such a call neither peak nor workspace is known."""
    monkeypatch.setattr(Torch, "peak_memory", lambda self, call: peak)
    outcome, _ = run(cell(fake("flag")))
    assert outcome["status"] == "ok", outcome["traceback"]
    found = {name: outcome["columns"].get(name) for name in ("peak_memory_bytes", "workspace_bytes")}
    assert found["peak_memory_bytes"] == (peak if told else None)
    assert (found["workspace_bytes"] is not None) == told


def test_what_an_implementation_flags_is_in_the_record():
    """Beside the flags that measuring gives."""
    outcome, _ = run(cell(fake("flag")))
    assert outcome["status"] == "ok", outcome["traceback"]
    assert "options_unread" in outcome["columns"]["flags"]


@pytest.mark.parametrize("direction", ["fwd", "bwd", "fwd_bwd"])
@pytest.mark.parametrize("impl", [NAIVE, sdpa("math"), sdpa("flash")], ids=["naive", "math", "flash"])
def test_directions_are_computed_and_checked(impl, direction):
    """Gradients by autograd, grouped heads, on a CPU."""
    outcome, _ = run(cell(impl, direction=direction))
    assert outcome["status"] == "ok", outcome["traceback"]
    elements = {"out": 2 * 4 * 24 * 16, "dq": 2 * 4 * 24 * 16, "dk": 2 * 2 * 24 * 16, "dv": 2 * 2 * 24 * 16}
    expected = {"fwd": ["out"], "bwd": ["dq", "dk", "dv"], "fwd_bwd": list(elements)}[direction]
    assert outcome["columns"]["output_bytes"] == 4 * sum(elements[name] for name in expected)


@pytest.mark.parametrize(
    "fields",
    [
        {"q_len": 1},
        {"q_len": 7},
        {"window": (4, 0)},
        {"bias": "dense"},
        {"head_dim_v": 8},
        {"dtype": "bf16"},
        {"causal": False},
    ],
    ids=str,
)
@pytest.mark.parametrize("impl", [NAIVE, sdpa("math")], ids=["naive", "math"])
def test_masks_are_bottom_right_whatever_the_library_thinks(impl, fields):
    """Decode, chunked prefill, windows, biases, unequal head dims: the check agrees."""
    outcome, _ = run(cell(impl, **fields))
    assert outcome["status"] == "ok", (outcome["reason"], outcome["traceback"])


@pytest.mark.parametrize(
    ("deed", "status", "reason"),
    [
        ("wrong", "incorrect", "differs from the reference"),
        ("not_finite", "incorrect", "not finite"),
        ("raises", "error", "ValueError: the kernel said"),
        ("missing", "missing", "pip install nothing"),
        ("unsupported", "unsupported", "only on Sundays"),
        ("compile_error", "compile_error", "nvcc"),
        ("memory_error", "oom", "out of host memory"),
        ("eat_memory", "oom", "allocate memory"),
        ("system_exit", "error", "SystemExit: 3"),
    ],
)
def test_whatever_is_raised_is_a_status_with_its_reason(deed, status, reason):
    """No latency comes with it, and the traceback says where."""
    outcome, _ = run(cell(fake(deed), num_kv_heads=4))
    assert outcome["status"] == status
    assert reason in outcome["reason"]
    assert "Traceback" in outcome["traceback"]
    assert not set(outcome["columns"]) & records.MEASURED
    assert "timing" not in outcome["stages"]


@pytest.mark.parametrize(
    ("env", "way"),
    [
        ({}, "put its folder into PYTHONPATH, or install what brings it"),
        ({"python": "/opt/python"}, "put its folder into env.variables.PYTHONPATH, or install what brings it"),
        ({"requirements": []}, "put its folder into env.variables.PYTHONPATH, or what brings it into env.requirements"),
    ],
)
def test_a_class_that_only_the_parent_has_is_missing(env, way):
    """As a function is; its distribution is the library's."""
    gone = {"name": "a", "_target_": "nowhere.P", "distribution": "torch", "env": env}
    outcome, phases = run(cell(gone))
    assert (outcome["status"], phases) == ("missing", ["import"])
    assert outcome["reason"] == f"nowhere cannot be imported (No module named 'nowhere'); {way}"


@pytest.mark.parametrize(
    ("later", "reason"),
    [
        (None, "RuntimeError: cuDNN said no"),
        ("cuDNN said no", "RuntimeError: cuDNN said no"),
        (
            "CUDA error: an illegal memory access was encountered\nCompile with",
            "RuntimeError: cuDNN said no; the GPU says: CUDA error: an illegal memory access was encountered",
        ),
    ],
)
def test_what_a_gpu_says_after_an_error_is_told_once(monkeypatch, later, reason):
    """A kernel fails while the host is elsewhere: the first call that notices it gives it a name of its own."""
    story = worker._Story(cell(fake("raises")), lambda event: None)
    story.framework = worker.frameworks.load("torch", {"kind": "cpu"})
    story.framework.on_gpu = True

    def synchronize():
        if later is not None:
            raise RuntimeError(later)

    monkeypatch.setattr(story.framework, "synchronize", synchronize)
    assert story.status_of(RuntimeError("cuDNN said no")) == ("error", reason)
    assert story.status_of(RuntimeError("no")) == ("error", "RuntimeError: no")


def test_cached_memory_is_freed_between_timing_and_the_check_after_it(monkeypatch):
    """Inputs for that check, cut out of a cached block, would leave a call that fitted a block too few."""
    seen = []
    torch = type(worker.frameworks.load("torch", {"kind": "cpu"}))
    latency, verify_again = worker.measure.latency, worker.check.verify_again
    monkeypatch.setattr(torch, "free_memory", lambda _: seen.append("free"))
    monkeypatch.setattr(worker.measure, "latency", lambda *args: [seen.append("latency"), latency(*args)][1])
    monkeypatch.setattr(worker.check, "verify_again", lambda *args: [seen.append("again"), verify_again(*args)][1])
    assert run(cell(NAIVE))[0]["status"] == "ok"
    assert seen == ["free", "latency", "free", "again"]


@pytest.mark.parametrize(
    ("deed", "reason"),
    [
        ("memoises", "after timing, on other inputs: out differs"),
        ("right_at_first", "after timing, on other inputs: out differs"),
        ("scales_q_in_place", "changed its input q"),
        ("two_outputs", "out is a tuple of 2, not an array"),
    ],
)
def test_what_is_right_only_when_looked_at_is_incorrect(deed, reason):
    """The call that was timed is checked once more, on values it has not seen, and must not touch them."""
    outcome, _ = run(cell(fake(deed), num_kv_heads=4))
    assert outcome["status"] == "incorrect"
    assert reason in outcome["reason"]


@pytest.mark.parametrize(
    ("deed", "dtype", "reason"),
    [
        ("overflows", "fp16", "not finite"),
        ("forgets_to_rescale", "fp16", "differs from the reference"),
        ("forgets_to_rescale", "bf16", "differs from the reference"),
        ("forgets_to_rescale", "fp32", "differs from the reference"),
    ],
)
@pytest.mark.parametrize("direction", ["fwd", "bwd", "fwd_bwd"])
def test_what_is_right_only_on_a_flat_softmax_is_incorrect(deed, dtype, reason, direction):
    """It passes the first check and is timed; the peaky inputs after timing find it, in every direction."""
    outcome, phases = run(cell(fake(deed), num_kv_heads=4, dtype=dtype, direction=direction))
    assert outcome["status"] == "incorrect"
    assert "timing" in phases
    where = "on peaky inputs" if direction == "bwd" else "on other inputs"
    assert outcome["reason"].startswith(f"after timing, {where}: ")
    assert reason in outcome["reason"]


@pytest.mark.parametrize("direction", ["fwd", "bwd", "fwd_bwd"])
def test_the_gradients_of_a_single_row_are_not_judged_on_peaky_inputs(direction):
    """Seed 5 has a row there whose gradient vanishes: the plain formula is exact, a correct flash kernel cannot be."""
    one = {"batch_size": 1, "q_len": 1, "kv_len": 256, "num_heads": 1, "num_kv_heads": 1, "causal": False}
    payload = cell(sdpa("flash"), dtype="bf16", direction=direction, head_dim=64, head_dim_v=64, **one)
    outcome, _ = run({**payload, "seed": 4})
    assert outcome["status"] == "ok", outcome["reason"]


INT8 = {**fake("rounds_k_to_int8"), "precision": {"class": "int8"}}


@pytest.mark.parametrize("direction", ["fwd", "bwd", "fwd_bwd"])
def test_a_quantised_implementation_is_held_to_its_class(direction):
    """Declared, it is right and says its class; as a native one it is incorrect, with the same error numbers."""
    outcome, _ = run(cell(INT8, direction=direction))
    assert outcome["status"] == "ok", outcome["reason"]
    assert outcome["columns"]["precision_class"] == "int8"
    assert 0.99 < outcome["columns"]["cosine"] < 0.999999
    assert 1e-3 < outcome["columns"]["rel_l1"] < 0.1
    native, _ = run(cell(fake("rounds_k_to_int8"), direction=direction))
    assert (native["status"], native["columns"]["precision_class"]) == ("incorrect", "native")
    assert native["columns"]["rel_l1"] == outcome["columns"]["rel_l1"]


@pytest.mark.parametrize(
    ("deed", "limits", "reason"),
    [
        ("rounds_k_to_int8", {"cosine": 0.999999}, "precision int8 must have at least 0.999999 and at most 0.1"),
        ("rounds_k_to_int8", {"rel_l1": 0.001}, "precision int8 must have at least 0.99 and at most 0.001"),
        ("wrong", {}, "relative L1 0.5"),
        ("not_finite", {}, "not finite"),
    ],
)
def test_a_class_is_no_excuse(deed, limits, reason):
    """Beyond its limits a quantised implementation is incorrect."""
    outcome, _ = run(cell({**fake(deed), "precision": {"class": "int8", **limits}}))
    assert outcome["status"] == "incorrect"
    assert reason in outcome["reason"]


def test_a_wrong_answer_carries_its_error_numbers():
    """How wrong is part of the answer."""
    outcome, _ = run(cell(fake("wrong")))
    assert outcome["columns"]["max_abs_err"] > 0.1
    assert outcome["columns"]["check"] == "failed"


def test_a_skipped_check_says_so():
    """check.enabled=false is visible in every row."""
    payload = cell(NAIVE)
    payload["check"]["enabled"] = False
    outcome, _ = run(payload)
    assert outcome["columns"]["check"] == "skipped: check.enabled=false"
    assert "max_abs_err" not in outcome["columns"]


def test_an_unusable_backend_is_unsupported_not_another_backend():
    """PyTorch's memory-efficient kernel does not run on a CPU: nothing else is timed under its name."""
    outcome, _ = run(cell(sdpa("efficient")))
    assert outcome["status"] == "unsupported", outcome["reason"]


def test_by_hand_from_a_file(tmp_path):
    """`python -m attnsweep.worker CELL.json` prints the outcome."""
    path = tmp_path / "cell.json"
    path.write_text(json.dumps(cell(NAIVE)))
    done = subprocess.run(
        [sys.executable, "-m", "attnsweep.worker", str(path)],
        capture_output=True,
        text=True,
        timeout=100,
        check=True,
    )
    assert json.loads(done.stdout)["status"] == "ok"
