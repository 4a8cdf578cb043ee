"""Combinations become a plan: every cell, where it runs, in what order, and whether it is still open."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from attnsweep import environment, identity, impls, resume, scenarios, selection
from attnsweep.devices import Device
from attnsweep.drafts import Draft, to_cell, without_effect
from attnsweep.errors import ConfigError
from attnsweep.interpreters import build, host, interpreter, versions
from attnsweep.plan import Cell, Plan
from attnsweep.schema import MOST_JOBS

if TYPE_CHECKING:
    from attnsweep.compose import Combination
    from attnsweep.scenarios import Problem
    from attnsweep.schema import Settings


def make(
    settings: Settings,
    combinations: Sequence[Combination],
    devices: Sequence[Device],
    *,
    hopeless: bool = False,
    say: Callable[[str], None] = lambda sentence: None,
) -> Plan:
    """The plan of a sweep. `hopeless` allows one in which no implementation can do anything.

    It writes nothing, but unless `dry_run` is set it builds the environments in which a cell is to run, and tells
    `say` so: what they hold is part of a cell's identity. `say` also hears what was asked for to no effect.

    Raises ConfigError where GPUs of several kinds are mixed, or no cell is left to run or record.
    """
    device = _one_kind(devices)
    replicates = max((int(one.timing["replicates"]) for one in combinations), default=0)
    if settings.replicate is not None and combinations and settings.replicate >= replicates:
        raise ConfigError(f"replicate must be below timing.replicates ({replicates}), not {settings.replicate}")
    idle = dict.fromkeys(line for one in combinations for line in without_effect(one, device))
    if idle:
        say(f"Without effect on a CPU, where the cache is always hot and there is no load: {', '.join(idle)}")
    drafts = _versioned(settings, _drafts(settings, combinations, device), say)
    asked = len(drafts) * (1 if settings.replicate is not None else replicates)
    if asked > MOST_JOBS:
        raise ConfigError(f"this makes {asked} cells; a sweep holds {MOST_JOBS} at most")
    cells = _ordered(settings, drafts, device)
    if not cells:
        raise ConfigError("nothing to measure: the combinations make no cell")
    if not hopeless and all(cell.unsupported is not None for cell in cells):
        reasons = sorted({f"{cell.columns['impl']}: {cell.unsupported}" for cell in cells})
        raise ConfigError(
            f"no implementation here can do any of the cases ({_listed(reasons)}); attnsweep-doctor says which run here"
        )
    cells = selection.sampled(selection.sharded(cells, settings.shard), settings.sample, settings.seed)
    folder = Path(settings.output_dir) / settings.name
    plan = Plan(settings.name, folder, tuple(devices), tuple(cells), {})
    return resume.reopened(plan, force=settings.force, rerun=settings.rerun)


def _one_kind(devices: Sequence[Device]) -> Device:
    names = dict.fromkeys(device.name for device in devices)
    if len(names) > 1:
        choices = ", ".join(f"{index} is {device.name}" for index, device in enumerate(devices))
        raise ConfigError(
            f"the GPUs here are not alike ({choices}); one sweep measures one kind: pick some with gpus=[...]"
        )
    return devices[0]


def _drafts(settings: Settings, combinations: Sequence[Combination], device: Device) -> list[Draft]:
    hosts = [host(combination.impl, settings.isolation, device.kind) for combination in combinations]
    problems: dict[str, list[Problem]] = {}
    drafts = []
    for combination, where in zip(combinations, hosts, strict=True):
        key = identity.canonical(combination.scenario)
        if key not in problems:
            problems[key] = scenarios.expand(combination.scenario, settings.scale)
        for problem in problems[key]:
            reason = impls.why_unsupported(combination.impl, problem.case, device, combination.compile)
            drafts.append(Draft(combination, problem, reason, where))
    return drafts


def _versioned(settings: Settings, drafts: Sequence[Draft], say: Callable[[str], None]) -> list[Draft]:
    """The drafts with their versions, and with why an environment cannot be had."""
    wanted = {draft.host: str(draft.combination.impl["name"]) for draft in drafts if draft.unsupported is None}
    unbuilt = {} if settings.dry_run else build(wanted, say)
    found, silent = versions([draft.combination.impl for draft in drafts], [draft.host for draft in drafts])
    whys = {**silent, **unbuilt}
    return [
        replace(draft, host=replace(draft.host, missing=whys.get(draft.host)), version=version)
        for draft, version in zip(drafts, found, strict=True)
    ]


def _ordered(settings: Settings, drafts: Sequence[Draft], device: Device) -> list[Cell]:
    """Cells by case, inside a case in rounds of replicates, each in a random order that the seed decides."""
    compiling = {draft.host for draft in drafts if draft.unsupported is None and _loads_compiler(draft, device)}
    machine = environment.machine(device)
    groups: dict[str, dict[int, dict[str, Cell]]] = {}
    for draft in drafts:
        python = interpreter(draft.host, draft.host in compiling)
        rounds = groups.setdefault(draft.problem.case.name, {})
        for replicate in range(int(draft.combination.timing["replicates"])):
            if settings.replicate not in (None, replicate):
                continue
            cell = to_cell(draft, settings, replicate, python, device, machine)
            rounds.setdefault(replicate, {}).setdefault(cell.id, cell)
    ordered = []
    for case, rounds in groups.items():
        for replicate, cells in sorted(rounds.items()):
            # From a fixed order, so that the command line's does not matter
            shuffled = sorted(cells)
            random.Random(f"{settings.seed} {case} {replicate}").shuffle(shuffled)
            ordered += [cells[one] for one in shuffled]
    return ordered


def _loads_compiler(draft: Draft, device: Device) -> bool:
    """Whether a cell imports its framework's compiler, which takes seconds: to compile, or at the first call of a
    library's custom operators (flash-attn's, xFormers'), where that library is here.
    """
    impl = draft.combination.impl
    if draft.combination.compile.get("mode") is not None:
        return True
    if device.kind != "cuda" or impls.build(impl).module is None:
        return False
    return draft.version is not None or not impl.get("distribution")


def _listed(reasons: Iterable[str], most: int = 5) -> str:
    """The first reasons, and how many more there are."""
    several = list(reasons)
    more = f"; and {len(several) - most} more" if len(several) > most else ""
    return "; ".join(several[:most]) + more
