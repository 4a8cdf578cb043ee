"""Cells for tests on a GPU: each in a forked process of its own, as in a sweep."""

import multiprocessing
import os
import sys
import tempfile
from pathlib import Path

from omegaconf import OmegaConf

from attnsweep import worker
from cells import resolved

CONF = Path(__file__).parents[2] / "conf/impl"
CASE = {"batch_size": 1, "q_len": 2048, "kv_len": 2048, "num_heads": 16, "num_kv_heads": 16, "head_dim": 128}
#: JAX compiles some hundred small programs for a case's inputs and check: once for all cells of its shape.
JAX_CACHE = Path(tempfile.gettempdir()) / f"attnsweep_jax_tests_{os.getuid()}"
SAMPLING = {"target": 0.005, "min_time_s": 0.2, "time_cap_s": 2.0, "max_samples": 10000}


def run(impl, compile_mode="eager", environment=None, timing=None, **fields):
    """The outcome of one cell; `impl` is a name of conf/impl, or what a YAML says."""
    if isinstance(impl, str):
        impl = OmegaConf.to_container(OmegaConf.load(CONF / f"{impl}.yaml"))
    case = {**CASE, "head_dim_v": 128, "dtype": "bf16", **fields}
    cell = resolved(impl, case, compile_mode, "cuda", **{**SAMPLING, **(timing or {})})
    return forked(worker.run, cell, environment=environment)


def forked(function, cell, environment=None):
    """What function(cell, emit) returns in a forked process."""
    import torch  # noqa: F401  # once, before the fork: it touches no GPU

    context = multiprocessing.get_context("fork")
    receive, send = context.Pipe(duplex=False)

    def child():
        os.environ.update({"JAX_COMPILATION_CACHE_DIR": str(JAX_CACHE), **(environment or {})})
        if "jax" in sys.modules:  # another test module imported it, and then it has read its variables
            sys.modules["jax"].config.update("jax_compilation_cache_dir", os.environ["JAX_COMPILATION_CACHE_DIR"])
        send.send(function(cell, lambda event: None))

    process = context.Process(target=child)
    process.start()
    send.close()
    try:
        return receive.recv()
    finally:
        process.join(60)
        process.kill()
