"""Realistic records for the report's tests, written as a sweep writes them."""

from __future__ import annotations

import math
import random
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from attnsweep import metrics, parquet
from attnsweep.case import Case
from attnsweep.errors import Status
from attnsweep.records import NAMES, Record

H200 = "NVIDIA H200"
#: Fraction of the H200's arithmetic peak and of its memory bandwidth that each implementation reaches here.
SPEED = {
    "sdpa_cudnn": (0.64, 0.80),
    "fa2": (0.34, 0.62),
    "sdpa_flash": (0.33, 0.60),
    "xformers": (0.325, 0.55),
    "flex": (0.42, 0.40),
    "sdpa_efficient": (0.20, 0.33),
    "sdpa_math": (0.03, 0.08),
    "naive": (0.025, 0.07),
}
#: By what fraction load slows an implementation down here; 0.8 % where it does not say.
RISE = {"sdpa_cudnn": 0.072, "fa2": 0.04, "xformers": 0.04, "flex": 0.02}
DISTRIBUTION = {"fa2": ("flash-attn", "2.8.3"), "xformers": ("xformers", "0.0.33")}
REASONS = {
    Status.INCORRECT: "max error 0.31 is 48 times the error of the plain formula (2 allowed)",
    Status.UNSUPPORTED: "flex: its kernel exists only compiled, use compile=default",
    Status.MISSING: "flash_attn is not installed: pip install flash-attn --no-build-isolation",
    Status.COMPILE_ERROR: "InductorError: LoweringException: no valid triton configs",
    Status.OOM: "CUDA out of memory: tried to allocate 64.00 GiB",
    Status.TIMEOUT: "no result after 120 s (while compiling)",
    Status.CRASHED: "the process died: SIGSEGV",
    Status.ERROR: "RuntimeError: expected a multiple of 8",
}


def prefill(batch_size: int, seq_len: int, **other: Any) -> tuple[str, str, float, Case]:
    """A case of the prefill scenario as (scenario, axis, axis value, case)."""
    fields = {"dtype": "bf16", "direction": "fwd", **other}
    return "prefill", "seq_len", seq_len, Case(batch_size, seq_len, seq_len, 32, 32, 128, 128, True, **fields)


def decode(batch_size: int, kv_len: int) -> tuple[str, str, float, Case]:
    """A case of the decode scenario."""
    return "decode", "kv_len", kv_len, Case(batch_size, 1, kv_len, 32, 8, 128, 128, True)


def flux(text_len: int) -> tuple[str, str, float, Case]:
    """A case of the flux scenario."""
    length = 4096 + text_len
    return "flux", "text_len", text_len, Case(1, length, length, 24, 24, 128, 128)


def values(
    point: tuple[str, str, float, Case],
    impl: str = "fa2",
    compile: str = "eager",
    status: Status = Status.OK,
    replicate: int = 0,
    latency_ms: float | None = None,
    width: float = 0.004,
    **columns: Any,
) -> dict[str, Any]:
    """The columns of one record; an ok one takes about as long as that implementation would on an H200."""
    scenario, axis, axis_value, case = point
    distribution, version = DISTRIBUTION.get(impl, ("torch", "2.13.0"))
    identity = f"{impl}-{compile}-{case.name}-{replicate}"
    row: dict[str, Any] = {
        "sweep": "h200",
        "cell_id": f"{identity}-{zlib.crc32((identity + str(columns.get('variant'))).encode()):08x}",
        "replicate": replicate,
        "impl": impl,
        "variant": "",
        "impl_version": version,
        "distribution": distribution,
        "compile": compile,
        "timing": "quick",
        "cache": "cold",
        "scenario": scenario,
        "axis": axis,
        "axis_value": float(axis_value),
        "command": f"attnsweep impl={impl} compile={compile} scenario={scenario} name=h200",
        "attnsweep": "0.1.0",
        "case": case.name,
        **case.to_dict(),
        "status": str(status),
        "started_at": f"2026-11-20T10:{replicate:02d}:00+00:00",
        "flops": float(metrics.flops(case)),
        "bytes": float(metrics.bytes_moved(case)),
        "device": "cuda",
        "device_name": H200,
        "gpu_name": H200,
        "gpu_uuid": "GPU-1",
        "hostname": "node-1",
        "sm_count": 132,
        "power_limit_w": 700.0,
        "driver": "580.82",
        "cuda": "13.0",
        "cudnn": "91900",
        "torch": "2.13.0",
        "triton": "3.6.0",
        "python": "3.12.11",
    }
    if compile != "eager" and status not in (Status.MISSING, Status.UNSUPPORTED):
        row |= {"compile_s": 1.5, "autotune_s": 0.4, "compile_cache": "miss"}
    if status is Status.OK:
        row |= _measured(row, case, impl, compile, latency_ms, width)
    else:
        row |= {"reason": REASONS[status], "traceback": f"Traceback (most recent call last):\n  {status}"}
    return dict.fromkeys(NAMES) | row | columns


def _measured(
    row: dict[str, Any], case: Case, impl: str, compile: str, latency_ms: float | None, width: float
) -> dict[str, Any]:
    arithmetic, memory = SPEED.get(impl, (0.3, 0.3))
    seed = random.Random(row["cell_id"])
    compute, read = row["flops"] / (arithmetic * 989.4e12), row["bytes"] / (memory * 4.8e12)
    if latency_ms is None:
        latency_ms = 1e3 * (compute + read + 4e-6) * seed.uniform(0.99, 1.01) * (0.93 if compile == "default" else 1)
    bound = "compute" if row["flops"] / 989.4e12 > row["bytes"] / 4.8e12 else "memory"
    tflops = row["flops"] / latency_ms * 1e-9
    # A formula that is not fused holds scores and probabilities in memory.
    unfused = impl in ("naive", "sdpa_math")
    scores = 4 * row["batch_size"] * row["num_heads"] * row["q_len"] * row["kv_len"] if unfused else 0
    timer = metrics.primary_timer(case)
    small = timer == "graph"
    return {
        "timer": timer,
        "latency_ms": latency_ms,
        "latency_ci_low_ms": latency_ms * (1 - width),
        "latency_ci_high_ms": latency_ms * (1 + width),
        "samples_ms": [latency_ms * seed.gauss(1, 0.003) for _ in range(40)],
        "sample_start_s": [0.03 * index for index in range(40)],
        "events_ms": latency_ms if not small else latency_ms + 0.006,
        "graph_ms": latency_ms if small else latency_ms * 0.99,
        "kernel_ms": latency_ms * 0.97,
        "host_ms": latency_ms + 0.02,
        "tflops": tflops,
        "gb_per_s": row["bytes"] / latency_ms * 1e-6,
        "peak_fraction": min(tflops / 989.4, 1.0) if bound == "compute" else None,
        "bound": bound,
        "precision_class": "native",
        "check": "passed",
        "err_ratio": 0.9,
        "peak_memory_bytes": int(row["bytes"]) + scores,
        "workspace_bytes": scores,
        "sm_clock_mhz": seed.uniform(1500, 1980),
        "power_w": seed.uniform(400, 700),
        "throttle": ["SwPowerCap"] if math.sin(latency_ms) > 0.5 else [],
        "flags": [],
    } | under_load(latency_ms, RISE.get(impl, 0.008))


def under_load(burst_ms: float, rise: float, seconds: float = 3.0, samples: int = 120) -> dict[str, Any]:
    """The columns of a load: within a second latency rises by the fraction `rise`, and the SM clock falls from 1980."""
    times = [seconds * number / samples for number in range(samples)]
    settled = [1 - math.exp(-time / 0.25) for time in times]
    wobble = [1 + 0.002 * math.sin(7.1 * number) for number in range(samples)]
    fall = 60 + 4500 * rise
    return {
        "sustained_ms": burst_ms * (1 + rise),
        "sustained_ci_low_ms": burst_ms * (1 + rise) * 0.999,
        "sustained_ci_high_ms": burst_ms * (1 + rise) * 1.001,
        "sustained_stop_reason": "steady",
        "sustained_samples_ms": [burst_ms * (1 + rise * s) * w for s, w in zip(settled, wobble, strict=True)],
        "sustained_start_s": times,
        "sustained_clock_mhz": [1980 - fall * s * w for s, w in zip(settled, wobble, strict=True)][::2],
        "sustained_clock_start_s": times[::2],
        "burst_clock_mhz": 1980.0,
        "load_clock_mhz": 1980 - fall,
        "load_power_w": min(690.0, 520 + 3000 * rise),
        "load_throttle": ["SwPowerCap"] if rise > 0.05 else [],
        "energy_mj": burst_ms * (1 + rise) * min(690.0, 520 + 3000 * rise),
    }


def write(folder: Path, rows: Iterable[dict[str, Any]]) -> Path:
    """Write each row as a record of its own below `folder`/cells; returns `folder`."""
    cells = folder / "cells"
    cells.mkdir(parents=True, exist_ok=True)
    taken = len(list(cells.iterdir()))
    for number, row in enumerate(rows, start=taken):
        parquet.write(Record(row), cells / f"cell-{number:05d}.parquet")
    return folder


def sweep() -> list[dict[str, Any]]:
    """288 cells in the shape of the H200's: eight implementations, eager and default, every status somewhere."""
    points = [prefill(b, s) for b in (1, 4) for s in (2048, 4096, 8192)]
    points += [decode(b, s) for b in (1, 4, 8) for s in (2048, 4096)]
    points += [flux(text) for text in (128, 256, 320, 384, 448, 512)]
    return [
        values(p, impl, mode, _outcome(p, impl, mode)) | _flags(p, impl, mode)
        for p in points
        for impl in SPEED
        for mode in ("eager", "default")
    ]


def _outcome(point: tuple[str, str, float, Case], impl: str, mode: str) -> Status:
    scenario, _, at, case = point
    if impl == "flex" and mode == "eager":
        return Status.UNSUPPORTED
    if impl == "naive" and case.batch_size == 4 and at == 8192:
        return Status.OOM
    special = {
        ("xformers", "default", "decode"): Status.COMPILE_ERROR,
        ("fa2", "default", "flux"): Status.MISSING,
    }
    if (impl, mode, scenario) in special:
        return special[(impl, mode, scenario)]
    single = {
        ("sdpa_math", "default", 8192, 1): Status.TIMEOUT,
        ("sdpa_efficient", "default", 4096, 8): Status.CRASHED,
        ("flex", "default", 2048, 4): Status.INCORRECT,
        ("xformers", "eager", 448, 1): Status.ERROR,
    }
    return single.get((impl, mode, int(at), case.batch_size), Status.OK)


def _flags(point: tuple[str, str, float, Case], impl: str, mode: str) -> dict[str, Any]:
    if _outcome(point, impl, mode) is not Status.OK:
        return {}
    flags = []
    if impl == "naive":
        flags.append("long_call")
    if impl == "sdpa_efficient" and mode == "eager":
        flags.append("fallback")
    if point[0] == "decode" and impl == "flex":
        flags.append("unhidden")
    return {"flags": flags}
