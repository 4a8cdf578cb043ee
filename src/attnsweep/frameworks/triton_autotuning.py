"""What autotuners chose for Triton's kernels in this process: Triton's own, and Inductor's in their place."""

from __future__ import annotations

import gc
import sys
from typing import Any

#: Where Triton's own autotuner is, and Inductor's, which runs what Inductor wrote and the kernels that it found.
_TRITON = ("triton.runtime.autotuner", "Autotuner")
_INDUCTOR = ("torch._inductor.runtime.triton_heuristics", "CachingAutotuner")

#: What stands in place of the name in what Inductor only ran against others, and keeps: the winner is written anew.
_CANDIDATE = "Placeholder.DESCRIPTIVE_NAME"


def chosen() -> list[str] | None:
    """Each kernel with the last configuration that it ran with, sorted: `_fwd: BLOCK_M=128, num_warps=8`.

    None where there is none. Of Triton's autotuner only what had a choice; of Inductor's all, since a choice that it
    finds on disk is the only one that it knows. Of jax-triton's choices nothing is known here.
    """
    found = {f"{_name(one)}: {_fields(one.best_config)}" for one in _instances(*_TRITON) if one.cache}
    for one in _instances(*_INDUCTOR):
        kept = one.inductor_meta.get("kernel_name") != _CANDIDATE
        if kept and len(one.launchers) == 1:  # none before its first run, several until they have been timed
            found.add(f"{_name(one)}: {_fields(one.launchers[0].config)}")
    return sorted(found) or None


def _instances(module: str, name: str) -> list[Any]:
    """All there are of a class; none where its module was never imported."""
    if module not in sys.modules:
        return []
    kind = getattr(sys.modules[module], name)
    # What was imported before the fork is frozen and not among these: no kernel that is tuned is (a test looks).
    # By its type: isinstance asks an object for its class, which lazy modules answer by importing what they stand for
    return [one for one in gc.get_objects() if issubclass(type(one), kind)]


def _name(kernel: Any) -> str:
    """The name of the function at the bottom of what autotuning and heuristics wrapped."""
    while not hasattr(kernel, "__name__"):
        kernel = kernel.fn
    return str(kernel.__name__)


def _fields(config: Any) -> str:
    return ", ".join(f"{name}={value}" for name, value in config.all_kwargs().items())
