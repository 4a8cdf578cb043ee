"""The proof of a cell on a GPU, with what CUPTI would have seen: the kernels that ran, and what their names say."""

import sys
from types import SimpleNamespace

import pytest

from attnsweep import worker
from attnsweep.case import Case
from attnsweep.errors import Incorrect
from attnsweep.timing import cupti
from attnsweep.timing.cupti import Activity, CuptiFailed

FLASH, FLASH_BWD, CUDNN = "flash_fwd_kernel", "flash_bwd_kernel", "cudnn_generated_sdpa_flash_fprop"
COPY_KERNEL = "void at::native::elementwise_kernel<at::native::direct_copy_kernel_cuda>"
FLASH_YAML = {"fwd": ["flash_fwd"], "bwd": ["flash_bwd"]}


#: The stream is held up for 1 ms, does the call's work in the next one, and is marked behind it.
US, MS = 1_000, 1_000_000
MARKS = [Activity(0, MS, "spin_kernel", copy=False), Activity(2 * MS, 2 * MS + 2 * US, "spin_kernel", copy=False)]


def ran(name, start=MS + US, end=2 * MS - US, copy=False):
    """What the GPU did for the call."""
    return Activity(start, end, name, copy)


def proven(monkeypatch, seen, kernels=None, direction="fwd", marks=MARKS):
    """The story of a cell after its proof; `seen` are names, activities or what the tracer raises, None is no package.

    Without `marks` the framework tells no stream."""

    def trace(call):
        call()
        if isinstance(seen, Exception):
            raise seen
        return sorted(
            [*marks, *(one if isinstance(one, Activity) else ran(one) for one in seen)], key=lambda one: one.start
        )

    monkeypatch.setattr(worker, "_MARK_MS", 1.0)
    if seen is None:
        monkeypatch.setitem(sys.modules, "cupti.cupti", None)
    else:
        monkeypatch.setattr(cupti, "Tracer", lambda synchronize: SimpleNamespace(trace=trace))
    story = worker._Story({}, lambda event: None)
    issued = []
    case = Case(1, 8, 8, 1, 1, 16, 16, direction=direction)
    framework = SimpleNamespace(on_gpu=True, device_events=bool(marks), synchronize=lambda: None, spin=issued.append)
    try:
        story._prove(framework, case, SimpleNamespace(kernels=kernels or {}), lambda: issued.append("call"))
    finally:
        assert issued == ([] if seen is None else [1.0, "call", 0.0] if marks else ["call"])
    return story


@pytest.mark.parametrize(
    ("seen", "kernels", "direction", "flags"),
    [
        ([FLASH], FLASH_YAML, "fwd", set()),
        ([CUDNN], FLASH_YAML, "fwd", {"fallback"}),
        ([FLASH], FLASH_YAML, "fwd_bwd", {"fallback"}),
        ([FLASH, FLASH_BWD], FLASH_YAML, "fwd_bwd", set()),
        ([FLASH_BWD], FLASH_YAML, "bwd", set()),
        ([FLASH], FLASH_YAML, "bwd", {"fallback"}),
        ([CUDNN], {"never": ["flash|cudnn"]}, "fwd", {"substituted"}),
        (["softmax", "gemm"], {"never": ["flash|cudnn"]}, "fwd", set()),
        ([FLASH, COPY_KERNEL], FLASH_YAML, "fwd", {"impure"}),
        ([FLASH, ran("memcpy", copy=True)], FLASH_YAML, "fwd", {"impure"}),
        ([ran("memset"), FLASH], FLASH_YAML, "fwd", set()),
        ([CUDNN], {}, "fwd", set()),
    ],
)
def test_what_ran_is_held_to_what_the_yaml_declares(monkeypatch, seen, kernels, direction, flags):
    """A declared kernel of each direction must be there, one that never runs must not, and copies are said."""
    assert proven(monkeypatch, seen, kernels, direction).flags == flags


def test_the_names_are_recorded_once_in_order_and_all_are_counted(monkeypatch):
    """A call of three kernels of two names."""
    columns = proven(monkeypatch, ["b", "a", "b"]).columns
    assert (columns["kernel_names"], columns["kernel_count"]) == (["b", "a"], 3)
    assert "unproven_reason" not in columns


@pytest.mark.parametrize(
    ("seen", "why"),
    [
        (None, "cupti-python is not there (install it with: pip install cupti-python)"),
        (CuptiFailed("CUPTI failed in activity_enable: not permitted"),) * 2,
    ],
    ids=["no package", "refused"],
)
def test_without_cupti_nothing_is_proven_nor_timed_by_it(monkeypatch, seen, why):
    """The row says so and why, and no timer gets a tracer that fails."""
    story = proven(monkeypatch, seen, FLASH_YAML)
    assert story.flags == {"unproven"}
    assert story.tracer is None
    assert story.columns["unproven_reason"] == str(why)
    assert "kernel_names" not in story.columns


def test_a_call_that_runs_nothing_on_the_gpu_is_incorrect(monkeypatch):
    """An output of before, or the CPU's."""
    with pytest.raises(Incorrect, match="ran no kernel"):
        proven(monkeypatch, [])


@pytest.mark.parametrize(
    ("start", "end"),
    [
        (MS + US, 2 * MS + 10 * US),
        (MS + 2 * US, 2 * MS + 2 * US),
        (2 * MS + 5 * US, 3 * MS),
        (MS - 10 * US, 2 * MS - US),
        (500 * US, 600 * US),
    ],
    ids=["not waited for", "short", "begun later", "does not wait", "long before"],
)
def test_work_beside_the_stream_that_is_timed_is_incorrect(monkeypatch, start, end):
    """By CUPTI's times: it runs on behind the end of the call, or began before what precedes it in the stream ended."""
    with pytest.raises(Incorrect, match=f"out of the order of the stream that is timed: {FLASH}"):
        proven(monkeypatch, ["first", ran(FLASH, start, end)])


def test_kernels_of_one_stream_may_overlap_by_a_little_and_a_call_may_spin_itself(monkeypatch):
    """As programmatic dependent launch has it; what marks the stream is not counted, what the call did is."""
    seen = [ran("first", MS - 3 * US, MS), ran("spin_kernel"), ran("last", MS, 2 * MS + US // 4)]
    columns = proven(monkeypatch, seen).columns
    assert (columns["kernel_names"], columns["kernel_count"]) == (["first", "last", "spin_kernel"], 3)


def test_a_stream_that_is_not_known_is_not_marked(monkeypatch):
    """JAX's: its kernels are timed by CUPTI, in whatever stream they run."""
    assert proven(monkeypatch, [FLASH], marks=[]).columns["kernel_count"] == 1


@pytest.mark.parametrize(
    ("seen", "marks"),
    [
        ([], MARKS[:1]),
        ([], MARKS[1:]),
        ([FLASH], MARKS[:1]),
        ([FLASH], MARKS[1:]),
        ([ran(FLASH, 0, 0)], MARKS),
    ],
    ids=["no last one", "no first one", "no last one, a kernel", "no first one, a kernel", "no times"],
)
def test_where_cupti_does_not_see_the_marks_nothing_is_proven(monkeypatch, seen, marks):
    """That it saw no kernel, or one beside a mark, says nothing of the call then."""
    story = proven(monkeypatch, seen, marks=marks)
    assert (story.flags, story.tracer) == ({"unproven"}, None)
    assert story.columns["unproven_reason"] == "CUPTI did not see what marks the stream"


def test_where_cupti_sees_neither_mark_nothing_is_proven(monkeypatch):
    """Nor do kernels of the call's own."""
    twice = [ran(FLASH, MS + US, MS + 9 * US), ran(FLASH, MS + 9 * US, MS + 17 * US)]
    monkeypatch.setattr(cupti, "Tracer", lambda synchronize: SimpleNamespace(trace=lambda call: twice))
    story = worker._Story({}, lambda event: None)
    case, framework = Case(1, 8, 8, 1, 1, 16, 16), SimpleNamespace(on_gpu=True, device_events=True, synchronize=None)
    story._prove(framework, case, SimpleNamespace(kernels={}), lambda: None)
    assert (story.flags, story.tracer) == ({"unproven"}, None)
