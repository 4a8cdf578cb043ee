"""A draft becomes a cell: what its worker gets, and what its record knows before it runs."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from attnsweep import commands, identity, impls, limits, metrics, records
from attnsweep.devices import Device
from attnsweep.frameworks import DEVICE_EVENTS
from attnsweep.interpreters import Host, Interpreter
from attnsweep.plan import Cell

if TYPE_CHECKING:
    from attnsweep.compose import Combination
    from attnsweep.scenarios import Problem
    from attnsweep.schema import Settings

#: What a preset says of a GPU alone.
_GPU_ONLY = ("block_ms", "rest_ms", "soak_s", "window_s", "steady", "load_cap_s")


@dataclass(frozen=True)
class Draft:
    """A combination's problem, before replicates: everything but the process it runs in."""

    combination: Combination
    problem: Problem
    unsupported: str | None
    host: Host
    version: str | None = None


def to_cell(
    draft: Draft,
    settings: Settings,
    replicate: int,
    python: Interpreter,
    device: Device,
    machine: dict[str, Any],
) -> Cell:
    """The cell of this replicate of the draft, in this interpreter; `machine` is environment.machine of the device."""
    combination, case = draft.combination, draft.problem.case
    impl, compile, fields_of_case = combination.impl, combination.compile, case.to_dict()
    timing = _on_cpu(combination.timing) if device.kind == "cpu" else combination.timing
    work, events = impls.work(impl, case), DEVICE_EVENTS[draft.host.framework]
    check = asdict(settings.check)
    hashed = identity.hashed(
        impl=impl,
        variant=combination.variant,
        compile=compile,
        case=fields_of_case,
        timing=timing,
        check=identity.applying(
            check,
            case.direction,
            quantised=impls.precision(impl) is not None,
            attention=impls.is_attention(impl),
        ),
        seed=settings.seed,
        version=draft.version,
        device_name=device.name,
        protocol=records.PROTOCOL,
    )
    cell_id = identity.cell_id(hashed, case.name, replicate)
    payload = {
        "id": cell_id,
        "impl": impl,
        "variant": combination.variant,
        "compile": compile,
        "case": fields_of_case,
        "timing": timing,
        "check": check,
        "seed": settings.seed,
        "replicate": replicate,
        "device": device.to_dict(),
    }
    columns = {
        **machine,
        **fields_of_case,
        "sweep": settings.name,
        "cell_id": cell_id,
        "measurement": identity.measurement(hashed),
        "replicate": replicate,
        "impl": impl["name"],
        "variant": combination.variant,
        "layout": impl.get("layout", "bshd"),
        "impl_version": draft.version,
        "distribution": impl.get("distribution"),
        "compile": combination.preset("compile"),
        "timing": combination.preset("timing"),
        "protocol": records.PROTOCOL,
        "cache": timing["cache"],
        "scenario": combination.scenario["name"],
        "axis": draft.problem.axis,
        "axis_value": draft.problem.axis_value,
        "study": settings.study,
        "config": identity.canonical(payload),
        "command": commands.of_cell(settings, combination, draft.problem.fields, replicate),
        "case": case.name,
        "flops": float(work.flops),
        "bytes": float(work.bytes),
        "timer": "host" if device.kind == "cpu" else metrics.primary_timer(case, events),
    }
    timeout_s, phases = limits.of(settings.pool, compile, timing, float(work.flops), device.kind)
    return Cell(
        id=cell_id,
        payload=payload,
        columns=columns,
        interpreter=python,
        timeout_s=timeout_s,
        unsupported=draft.unsupported,
        group=case.name,
        phases=phases,
    )


def without_effect(combination: Combination, device: Device) -> list[str]:
    """The overrides of the timing preset, as they were typed, that change nothing on this device."""
    if device.kind != "cpu":
        return []
    kept, asked = _on_cpu(combination.timing), combination.timing
    typed = (line for line in combination.overrides if line.startswith("timing."))
    fields = {line: line.removeprefix("timing.").partition("=")[0] for line in typed}
    return [line for line, field in fields.items() if kept.get(field) != asked.get(field)]


def _on_cpu(timing: dict[str, Any]) -> dict[str, Any]:
    """A preset for a CPU, where nothing is evicted before a call and no load is measured, whatever it asks for."""
    kept = {key: value for key, value in timing.items() if key not in _GPU_ONLY}
    return {**kept, "cache": "hot", "sustained": False}
