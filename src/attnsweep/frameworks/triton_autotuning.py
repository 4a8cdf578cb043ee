"""What Triton's autotuner chose in this process."""

from __future__ import annotations

import gc
import sys
from typing import Any


def chosen() -> list[str] | None:
    """Each kernel that was autotuned here with its last configuration, sorted: `_fwd: BLOCK_M=128, num_warps=8`.

    None where none was. A kernel with but one configuration was not tuned. Of jax-triton's choices and Inductor's,
    which do not go through Triton's autotuner, nothing is known here.
    """
    module: Any = sys.modules.get("triton.runtime.autotuner")
    if module is None:
        return None
    # What was imported before the fork is frozen and not among these: no kernel that is tuned is (a test looks).
    # By its type: isinstance asks an object for its class, which lazy modules answer by importing what they stand for
    tuners: list[Any] = [one for one in gc.get_objects() if issubclass(type(one), module.Autotuner)]
    return sorted(f"{_name(one)}: {_fields(one.best_config)}" for one in tuners if one.cache) or None


def _name(kernel: Any) -> str:
    """The name of the function at the bottom of what autotuning and heuristics wrapped."""
    while not hasattr(kernel, "__name__"):
        kernel = kernel.fn
    return str(kernel.__name__)


def _fields(config: Any) -> str:
    return ", ".join(f"{name}={value}" for name, value in config.all_kwargs().items())
