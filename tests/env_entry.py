"""The entry point of cells in environments of the tests' own: it says what is importable where it runs."""

import importlib.util
import os
import sys


def run(payload, emit):
    """An outcome whose `check` is the version of the package that the environments disagree on."""
    import conflicting

    seen = {
        "prefix": sys.prefix,
        "parents": [name for name in ("pytest", "pyarrow", "hydra") if importlib.util.find_spec(name)],
        "attnsweep": os.listdir(sys.path[0]),
        "preloaded": "torch" in sys.modules,
    }
    emit({"event": "phase", "phase": "timing"})
    return {
        "status": "ok",
        "reason": None,
        "traceback": None,
        "stages": {},
        "windows": {},
        "columns": {
            "timer": "host",
            "latency_ms": 0.5,
            "flags": [],
            "check": conflicting.__version__,
            "kernel_names": [repr(seen)],
        },
    }
