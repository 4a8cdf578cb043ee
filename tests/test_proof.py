"""The proof of a cell on a GPU, with what CUPTI would have seen: the kernels that ran, and what their names say."""

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


def proven(monkeypatch, seen, kernels=None, direction="fwd"):
    """The story of a cell after its proof; `seen` are names, activities or what the tracer raises, None is no CUPTI."""

    def trace(call):
        call()
        if isinstance(seen, Exception):
            raise seen
        return [one if isinstance(one, Activity) else Activity(0, 1, one, copy=False) for one in seen]

    monkeypatch.setattr(cupti, "tracer", lambda synchronize: None if seen is None else SimpleNamespace(trace=trace))
    story = worker._Story({}, lambda event: None)
    calls = []
    case = Case(1, 8, 8, 1, 1, 16, 16, direction=direction)
    framework = SimpleNamespace(on_gpu=True, synchronize=lambda: None)
    story._prove(framework, case, SimpleNamespace(kernels=kernels or {}), lambda: calls.append(1))
    assert len(calls) == (seen is not None)
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
        ([FLASH, Activity(0, 1, "memcpy", copy=True)], FLASH_YAML, "fwd", {"impure"}),
        ([Activity(0, 1, "memset", copy=False), FLASH], FLASH_YAML, "fwd", set()),
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


@pytest.mark.parametrize("seen", [None, CuptiFailed("activity_enable: not permitted")])
def test_without_cupti_nothing_is_proven_nor_timed_by_it(monkeypatch, seen):
    """The row says so, and no timer gets a tracer that fails."""
    story = proven(monkeypatch, seen, FLASH_YAML)
    assert story.flags == {"unproven"}
    assert story.tracer is None
    assert "kernel_names" not in story.columns


def test_a_call_that_runs_nothing_on_the_gpu_is_incorrect(monkeypatch):
    """An output of before, or the CPU's."""
    with pytest.raises(Incorrect, match="ran no kernel"):
        proven(monkeypatch, [])
