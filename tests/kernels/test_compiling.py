"""Every configuration of our kernels compiles for Hopper, which needs no GPU: the interpreter does not type-check."""

import os
from concurrent.futures import ProcessPoolExecutor
from itertools import product
from multiprocessing import get_context

import pytest

#: Shared memory that a block may have on sm_90: 227 KiB.
SHARED_BYTES = 227 * 1024

KINDS = ("narrow", "medium", "wide", "fp32")
TUNED = {
    "flash": [f"_FORWARD.{kind}" for kind in KINDS],
    "flash_backward": [f"{table}.{kind}" for table in ("_DQ", "_DKDV") for kind in KINDS],
    "flash_decode": ["_SPLIT.half", "_SPLIT.fp32"],
    "fused_softmax": ["_SCORES.half", "_SCORES.fp32"],
}
HEAD_DIMS = {"narrow": 64, "medium": 128, "wide": 256}


def use_cache(folder):
    """Have triton keep there what it compiles."""
    os.environ["TRITON_CACHE_DIR"] = folder


def compiled(module, tuned):
    """Bytes of shared memory that each configuration takes for sm_90, in bf16 or fp32, with a window.

    As torch.compile launches it, with scalars in 64 bits, and both ways of reading keys and values.
    """
    import importlib

    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    table, kind = tuned.split(".")
    tuner = getattr(importlib.import_module(f"attnsweep.kernels.{module}"), table)[kind]
    dim, dtype = HEAD_DIMS.get(kind, 128), "*fp32" if kind == "fp32" else "*bf16"
    constants = {"GROUP": 2, "HEAD_DIM": dim, "HEAD_DIM_V": dim, "BLOCK_D": dim, "BLOCK_DV": dim}
    constants |= {"HAS_LEFT": True, "HAS_RIGHT": True, "SPLIT": True, "BLOCK_M": 16}
    pointers = dict.fromkeys(("q", "k", "v", "out", "weights", "grad", "dq", "dk", "dv"), dtype)
    types = {**pointers, **dict.fromkeys(("lse", "delta", "parts"), "*fp32")}
    types |= dict.fromkeys(("scale", "softmax_scale"), "fp64")
    shared = []
    for config, described in product(
        tuner.configs, (False, True) if table == "_FORWARD" and kind != "fp32" else (False,)
    ):
        given = {**constants, "DESCRIBED": described, **config.kwargs}
        names = [parameter.name for parameter in tuner.fn.params]
        source = ASTSource(
            fn=tuner.fn,
            signature={name: "constexpr" if name in given else types.get(name, "i32") for name in names},
            constexprs={(index,): given[name] for index, name in enumerate(names) if name in given},
            # What the launcher sees of aligned tensors and round strides
            attrs={
                (index,): [["tt.divisibility", 16]]
                for index, name in enumerate(names)
                if types.get(name, "").startswith("*") or name.startswith("stride")
            },
        )
        options = {"num_warps": config.num_warps, "num_stages": config.num_stages}
        shared.append(triton.compile(source, target=GPUTarget("cuda", 90, 32), options=options).metadata.shared)
    return shared


JOBS = [(module, tuned) for module in TUNED for tuned in TUNED[module]]


@pytest.fixture(scope="module")
def compiling(tmp_path_factory):
    """What will come of each job, from two processes with a cache of their own, so that they compile."""
    with ProcessPoolExecutor(2, get_context("spawn"), use_cache, (str(tmp_path_factory.mktemp("triton")),)) as pool:
        yield {job: pool.submit(compiled, *job) for job in JOBS}


@pytest.mark.slow
@pytest.mark.timeout(600)  # A job may wait for most of the others, on a machine that does more than this
@pytest.mark.parametrize("job", JOBS, ids="-".join)
def test_every_configuration_compiles_for_hopper(compiling, job):
    """And fits its shared memory, or the tuner would skip it without a word; fp32 and decode at a head dim of 128."""
    assert max(compiling[job].result()) <= SHARED_BYTES
