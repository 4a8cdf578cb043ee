"""What Triton's autotuner chose, by its own objects: of kernels that launch nothing."""

import gc
import importlib
import os
import subprocess
import sys
from types import SimpleNamespace

import pytest

from attnsweep import worker
from attnsweep.frameworks import PRELOAD, PRELOAD_COMPILE, triton_autotuning
from cells import resolved
from tuned_kernels import tuned

triton = pytest.importorskip("triton")


@pytest.fixture(autouse=True)
def alone():
    """No autotuner of another test is left."""
    gc.collect()


def test_the_choice_of_each_tuned_kernel_is_told_and_of_no_other():
    """The last one used where several shapes were tuned, also below heuristics; neither what had no choice nor what
    never ran."""
    forward = tuned("_fwd", (16, 64, 128))
    backward = tuned("_bwd", (32, 128), triton.heuristics({"EVEN": lambda given: True}))
    lone, idle = tuned("_lone", (64,)), tuned("_idle", (16, 64))
    for n in (128, 20, 120, 20):
        forward.run(n=n)
    backward.run(n=100)
    lone.run(n=1)
    assert len(idle.configs) == 2
    assert triton_autotuning.chosen() == [
        "_bwd: BLOCK_M=128, num_warps=8, num_ctas=1, num_stages=2",
        "_fwd: BLOCK_M=16, num_warps=8, num_ctas=1, num_stages=2",
    ]


def test_what_inductor_took_is_told_once_it_is_one():
    """By the fields of its own autotuner: nothing before it ran, nor while several are left, nor of a candidate."""
    heuristics = pytest.importorskip("torch._inductor.runtime.triton_heuristics")
    assert {"fn", "launchers", "inductor_meta"} <= set(heuristics.CachingAutotuner.__init__.__code__.co_names)
    unnamed = str(importlib.import_module("torch._inductor.utils").Placeholder.DESCRIPTIVE_NAME)
    configs = [triton.Config({"XBLOCK": size}, num_warps=4) for size in (64, 128)]

    def kernel(name, *left, said=None):
        one = heuristics.CachingAutotuner.__new__(heuristics.CachingAutotuner)
        one.fn, one.inductor_meta = SimpleNamespace(__name__=name), {"kernel_name": said} if said else {}
        one.launchers = [SimpleNamespace(config=config) for config in left]
        return one

    kept = [kernel("new"), kernel("untimed", *configs), kernel("triton_bmm", configs[0], said=unnamed)]
    kept += [kernel("_fwd", configs[1]), kernel("_fwd", configs[1], said="_fwd")]
    assert triton_autotuning.chosen() == ["_fwd: XBLOCK=128, num_warps=4, num_ctas=1, num_stages=3"]
    assert len(kept) == 5


def test_where_nothing_was_tuned_there_is_nothing_to_tell(monkeypatch):
    """With Triton, and without it, where nothing is looked for."""
    assert triton_autotuning.chosen() is None
    monkeypatch.delitem(sys.modules, "triton.runtime.autotuner")
    monkeypatch.delitem(sys.modules, "torch._inductor.runtime.triton_heuristics", raising=False)
    monkeypatch.setattr(gc, "get_objects", None)
    assert triton_autotuning.chosen() is None


@pytest.mark.parametrize(("deed", "status"), [("autotunes", "ok"), ("autotunes_to_a_wrong_one", "incorrect")])
def test_a_cells_record_has_the_choice_at_its_own_shape(deed, status):
    """Also where the output turns out wrong, for which the choice may be why."""
    impl = {"name": deed, "_target_": "fake_impls.Fake", "deed": deed, "layout": "bhsd"}
    sizes = {"batch_size": 1, "num_heads": 2, "num_kv_heads": 2, "head_dim": 16, "head_dim_v": 16}
    outcome = worker.run(resolved(impl, {**sizes, "q_len": 24, "kv_len": 24, "dtype": "fp32"}), lambda event: None)
    assert outcome["status"] == status, outcome["traceback"]
    told = outcome["columns"]["autotuned_configs"]
    assert told == ["_fwd: BLOCK_M=32, num_warps=8, num_ctas=1, num_stages=2"]


@pytest.mark.slow
def test_no_tuned_kernel_is_imported_before_the_fork():
    """A zygote freezes what lives in it, where nobody would find an autotuner; its compiler brings Triton's module."""
    preload = [*PRELOAD["torch"], *PRELOAD_COMPILE["torch"]]
    script = f"""
import gc
from attnsweep import zygote
hello, _ = zygote.prepare({{"preload": {preload}, "run": "attnsweep.worker:run"}})
gc.unfreeze()
from triton.runtime.autotuner import Autotuner
print(hello["ready"], sum(issubclass(type(one), Autotuner) for one in gc.get_objects()))
"""
    environment = {
        **os.environ,
        "OPENBLAS_NUM_THREADS": "1",
        "PYTORCH_NVML_BASED_CUDA_CHECK": "1",
        "TORCH_WARM_POOL": "0",
    }
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split()[-2:] == ["True", "0"], done
