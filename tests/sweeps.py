"""Sweeps to test with: settings, combinations and devices as conf/ makes them, without Hydra."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from attnsweep.compose import Combination
from attnsweep.devices import Device
from attnsweep.errors import Status
from attnsweep.plan import Cell
from attnsweep.pool.ending import Ending
from attnsweep.schema import Settings

GPU = Device(
    kind="cuda",
    uuid="GPU-0",
    name="NVIDIA H200",
    compute_capability=9.0,
    memory_bytes=150 * 10**9,
    power_limit_w=700.0,
    driver="570.10",
)
CPU = Device(kind="cpu", uuid="cpu", name="AMD EPYC", memory_bytes=10**10)

NAIVE: dict[str, Any] = {
    "name": "naive",
    "_target_": "attnsweep.impls.naive.NaiveAttention",
    "layout": "bhsd",
    "distribution": "torch",
}
PREFILL: dict[str, Any] = {
    "name": "prefill",
    "_target_": "attnsweep.scenarios.prefill",
    "axis": "seq_len",
    "batch_size": [1, 4],
    "seq_len": [32, 64, 128],
    "num_heads": 4,
    "head_dim": 16,
    "dtype": "fp32",
}
QUICK: dict[str, Any] = {"name": "quick", "replicates": 1, "time_cap_s": 0.6, "cache": "cold", "sustained": False}
#: The fields of a preset that describe the load.
LOAD: dict[str, Any] = {"sustained": True, "soak_s": 1.0, "window_s": 1.0, "load_cap_s": 5.0}
EAGER: dict[str, Any] = {"name": "eager", "mode": None, "fullgraph": True, "dynamic": False}
DEFAULT: dict[str, Any] = {**EAGER, "name": "default", "mode": "default"}
MAX_AUTOTUNE: dict[str, Any] = {**EAGER, "name": "max_autotune", "mode": "max-autotune"}


def settings(tmp_path: Path, **changed: Any) -> Settings:
    """Settings of a sweep named s below `tmp_path`."""
    return replace(Settings(name="s", output_dir=str(tmp_path)), **changed)


def impl(name: str, **changed: Any) -> dict[str, Any]:
    """An implementation of that name, which is the naive one."""
    return {**NAIVE, "name": name, **changed}


def combination(name: str = "naive", **changed: Any) -> Combination:
    """A combination of that implementation with prefill, eager and quick."""
    plain = Combination(
        impl=impl(name),
        variant="",
        scenario=PREFILL,
        compile=EAGER,
        timing=QUICK,
        choices={"impl": name, "scenario": "prefill", "compile": "eager", "timing": "quick"},
        overrides=(),
    )
    return replace(plain, **changed)


def one_case(**fields: Any) -> dict[str, Any]:
    """The prefill scenario with a single case."""
    return {**PREFILL, "batch_size": 1, "seq_len": 32, **fields}


def measured(latency_ms: float = 0.5, **columns: Any) -> dict[str, Any]:
    """A worker's outcome of a cell that was measured."""
    return {
        "status": "ok",
        "reason": None,
        "traceback": None,
        "stages": {"import": 0.1, "inputs": 0.2, "prepare": 0.3, "timing": 0.4},
        "windows": {"burst": [101.0, 102.0]},
        "columns": {"timer": "events", "latency_ms": latency_ms, "flags": [], **columns},
    }


def failed(status: Status, reason: str = "it broke", **columns: Any) -> dict[str, Any]:
    """A worker's outcome of a cell that was not."""
    return {
        "status": status.value,
        "reason": reason,
        "traceback": "Traceback (most recent call last):\nValueError: it broke\n",
        "stages": {"import": 0.1},
        "windows": {},
        "columns": columns,
    }


def ending(outcome: dict[str, Any] | None = None, **changed: Any) -> Ending:
    """The ending of a cell that was requested at 100 s of the clock and was over at 103."""
    plain = Ending(
        status=None if outcome is None else Status(outcome["status"]),
        reason=None if outcome is None else outcome["reason"],
        traceback=None if outcome is None else outcome["traceback"],
        exit_signal=None,
        outcome=outcome,
        started_at="2026-01-02T03:04:05.678+00:00",
        requested_s=100.0,
        ended_s=103.0,
        phase="timing",
        max_rss_bytes=None,
        telemetry=[],
    )
    return replace(plain, **changed)


class FakePool:
    """Stands in for pool.Pool: answers each cell by `answer`, without a process.

    A string from `answer` is the signal that ends the run before that cell is over.
    """

    answer: Callable[[Cell], Ending | str]
    ran: list[str]

    def __init__(self, devices: Sequence[Device], **options: Any) -> None:
        self.devices, self.options = devices, options

    def run(
        self,
        cells: Sequence[Cell],
        started: Callable[[Cell, Device], None],
        finished: Callable[[Cell, Device, Ending], None],
        begun: Mapping[str, str] | None = None,
    ) -> str | None:
        for cell in cells:
            started(cell, self.devices[0])
            answer = type(self).answer(cell)
            if isinstance(answer, str):
                finished(cell, self.devices[0], ending())
                self.options["stop"].request(answer)
                return answer
            self.ran.append(cell.id)
            finished(cell, self.devices[0], answer)
        return None


def fake_pool(answer: Callable[[Cell], Ending | str]) -> type[FakePool]:
    """A class to put in the place of pool.Pool; `ran` lists the cells that it answered."""
    return type("Pool", (FakePool,), {"answer": staticmethod(answer), "ran": []})
