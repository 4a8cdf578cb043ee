"""Resolved cells as the worker gets them, for tests that need neither a plan nor a pool."""

from attnsweep.case import Case


def resolved(impl, case, compile_mode="eager", device="cpu", **timing):
    """A cell of this implementation and these fields of a case; `timing` changes a preset that takes a blink."""
    return {
        "id": "test",
        "impl": impl,
        "variant": "",
        "compile": {
            "name": compile_mode,
            "mode": None if compile_mode == "eager" else compile_mode,
            "fullgraph": True,
            "dynamic": False,
        },
        "case": Case(**case).to_dict(),
        "timing": {
            "name": "test",
            "target": 0.5,
            "min_blocks": 6,
            "min_time_s": 0.0,
            "time_cap_s": 0.2,
            "max_samples": 100,
            "block_ms": 10.0,
            "rest_ms": 20.0,
            "cache": "cold",
            "sustained": False,
            "soak_s": 0.3,
            "window_s": 0.3,
            "steady": 0.02,
            "load_cap_s": 2.0,
            **timing,
        },
        "check": {"enabled": True, "forward_factor": 2.0, "backward_factor": 3.0},
        "seed": 0,
        "replicate": 0,
        "device": {"kind": device, "uuid": "test", "name": "test"},
    }
