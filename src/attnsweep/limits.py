"""How long a cell may take, in all and in each phase: the settings, and what stands in for those that are null."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from attnsweep.schema import PoolSettings

#: A cell that uses the CPU may take this many times its limit to prepare and to compile: that is work, not a hang.
BUSY_TIMES = 3

#: Seconds, beside what the case and the preset ask for. FlashInfer compiles for up to 55 s when it prepares, and Triton
#: tunes in the first call; max-autotune takes minutes for a backward pass.
_PREPARE_S, _CHECK_S, _TIME_S = 120.0, 60.0, 60.0
_COMPILE_S = {"eager": 0.0, "compile": 180.0, "max_autotune": 600.0}

#: FLOP/s that even a slow call has (a thousandth of an H100's; a core of a CPU), how many calls a phase may make, and
#: the most that is allowed for them: a plain formula on a CPU shall not hold a sweep up for hours.
SLOW_FLOPS = {"cuda": 1e12, "cpu": 1e10}
_CALLS = 10
_MOST_WORK_S = 600.0


@dataclass(frozen=True)
class Phases:
    """Seconds that a cell may take in each phase before it is late."""

    prepare_s: float = math.inf
    compile_s: float = math.inf
    check_s: float = math.inf
    time_s: float = math.inf


#: Nothing but the whole deadline.
UNBOUNDED = Phases()


def kind(compile: dict[str, Any]) -> str:
    """What a compile mode is to those who wait for it: eager, compile or max_autotune."""
    mode = compile.get("mode")
    if mode is None:
        return "eager"
    return "max_autotune" if str(mode).startswith("max-autotune") else "compile"


def of(
    settings: PoolSettings, compile: dict[str, Any], timing: dict[str, Any], flops: float, device: str
) -> tuple[float, Phases]:
    """The whole deadline of a cell in seconds, and those of its phases; `flops` are those of one call.

    Without `pool.timeout_s` the whole is what the phases may take together: checking is done twice.
    """
    work_s = min(_CALLS * flops / SLOW_FLOPS[device], _MOST_WORK_S)
    load_s = float(timing["load_cap_s"]) if timing["sustained"] else 0.0
    phases = Phases(
        prepare_s=_given(settings.prepare_s, _PREPARE_S + work_s),
        compile_s=_given(settings.compile_s, _COMPILE_S[kind(compile)] + work_s),
        check_s=_given(settings.check_s, _CHECK_S + work_s),
        time_s=_given(settings.time_s, _TIME_S + work_s + float(timing["time_cap_s"]) + load_s),
    )
    busy_s = phases.prepare_s + (0.0 if kind(compile) == "eager" else phases.compile_s)
    return _given(settings.timeout_s, BUSY_TIMES * busy_s + 2 * phases.check_s + phases.time_s), phases


def _given(setting: float | None, default: float) -> float:
    return default if setting is None else setting
