"""Combinations become cells: each with its identity, its process and whether it is still open."""

from __future__ import annotations

import hashlib
import os
import random
import shlex
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attnsweep import conf_path, environment, identity, impls, limits, metrics, records, scenarios
from attnsweep.devices import Device
from attnsweep.errors import ConfigError, RecordError, Status
from attnsweep.frameworks import DEVICE_EVENTS
from attnsweep.interpreters import Host, Interpreter, build, host, interpreter, versions
from attnsweep.schema import MOST_JOBS, Check

if TYPE_CHECKING:
    from attnsweep.compose import Combination
    from attnsweep.scenarios import Problem
    from attnsweep.schema import Settings

#: Seconds: what a cell takes for compiling; and beside that and its samples (process, inputs, check).
_COMPILE_S = {"eager": 0.0, "compile": 5.0, "max_autotune": 40.0}
_BESIDE_S = {"cuda": 1.0, "cpu": 0.7}


@dataclass(frozen=True)
class Cell:
    """One isolated process to be: what the worker gets, what its record already knows, and where it runs.

    `payload` is the worker's JSON; `columns` are record columns known before it runs; `unsupported` is why it
    never needs to run; cells of one `group` (a case) run on the same slot, in order. `timeout_s` is the whole deadline,
    `phases` are those within it.
    """

    id: str
    payload: dict[str, Any]
    columns: dict[str, Any]
    interpreter: Interpreter
    timeout_s: float
    unsupported: str | None
    group: str
    phases: limits.Phases = limits.UNBOUNDED


@dataclass(frozen=True)
class Outcome:
    """What a record says in short."""

    status: Status
    latency_ms: float | None
    reason: str | None
    flags: tuple[str, ...]
    precision_class: str | None = None
    gpu_uuid: str | None = None


def outcome_of(values: Mapping[str, Any]) -> Outcome:
    """The outcome in a record's columns. Raises KeyError or ValueError where they are no record's."""
    return Outcome(
        Status(values["status"]),
        values["latency_ms"],
        values["reason"],
        tuple(values["flags"] or ()),
        values["precision_class"],
        values["gpu_uuid"],
    )


@dataclass(frozen=True)
class Plan:
    """A sweep before it runs.

    `cells` are all of them in running order; `done` are the outcomes of those that have a record and need no
    other, by id; `damaged` says of what stands in the place of a record why it is none; `missing` says by id what
    cells are known to lack.
    """

    name: str
    folder: Path
    devices: tuple[Device, ...]
    cells: tuple[Cell, ...]
    done: dict[str, Outcome]
    damaged: tuple[str, ...] = ()
    missing: Mapping[str, str] = field(default_factory=dict)

    @property
    def open(self) -> tuple[Cell, ...]:
        """The cells without a record, in running order; unsupported and missing ones too, which only get a record."""
        return tuple(cell for cell in self.cells if cell.id not in self.done)

    @property
    def to_run(self) -> tuple[Cell, ...]:
        """The open cells that need a process."""
        return tuple(cell for cell in self.open if cell.unsupported is None and cell.id not in self.missing)

    @property
    def estimate_s(self) -> float:
        """About how long the open cells take: sampling to the cap, load, compiling, and what isolation costs."""
        seconds = sum(
            float(cell.payload["timing"]["time_cap_s"])
            + _load_s(cell.payload["timing"])
            + _COMPILE_S[limits.kind(cell.payload["compile"])]
            + _BESIDE_S[cell.columns["device"]]
            for cell in self.to_run
        )
        return seconds / len(self.devices)

    def record_path(self, cell_id: str) -> Path:
        """Where the record of a cell is."""
        return self.cells_folder / f"{cell_id}.parquet"

    @property
    def cells_folder(self) -> Path:
        """The folder of records and logs."""
        return self.folder / "cells"


@dataclass(frozen=True)
class _Draft:
    """A combination's problem, before replicates: everything but the process it runs in."""

    combination: Combination
    problem: Problem
    unsupported: str | None
    host: Host
    version: str | None = None


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
    `say` so: what they hold is part of a cell's identity.

    Raises ConfigError where GPUs of several kinds are mixed, an environment's interpreter does not answer, or no
    cell is left to run or record.
    """
    device = _one_kind(devices)
    replicates = max((int(one.timing["replicates"]) for one in combinations), default=0)
    if settings.replicate is not None and combinations and settings.replicate >= replicates:
        raise ConfigError(f"replicate must be below timing.replicates ({replicates}), not {settings.replicate}")
    drafts = _versioned(settings, _drafts(settings, combinations, device), say)
    asked = len(drafts) * (1 if settings.replicate is not None else replicates)
    if asked > MOST_JOBS:
        raise ConfigError(f"this makes {asked} cells; a sweep holds {MOST_JOBS} at most")
    cells = _ordered(settings, drafts, device)
    if not cells:
        raise ConfigError("nothing to measure: the combinations make no cell")
    if not hopeless and all(cell.unsupported is not None for cell in cells):
        reasons = sorted({f"{cell.columns['impl']}: {cell.unsupported}" for cell in cells})
        raise ConfigError(f"no implementation here can do any of the cases ({_listed(reasons)})")
    cells = _sampled(_sharded(cells, settings.shard), settings.sample, settings.seed)
    folder = Path(settings.output_dir) / settings.name
    plan = Plan(settings.name, folder, tuple(devices), tuple(cells), {})
    return reopened(plan, force=settings.force, rerun=settings.rerun)


def reopened(plan: Plan, *, force: bool, rerun: Iterable[str]) -> Plan:
    """The plan with `done` as the folder has it now: cells with a record that can be read whole, but for those to
    be measured again.

    `force` opens every cell, `rerun` those whose record has one of these statuses.
    """
    again = {Status(status) for status in rerun}
    done, damaged = {}, []
    for cell in plan.cells:
        path = plan.record_path(cell.id)
        if force or not os.path.lexists(path):
            continue
        try:
            outcome = _read(path)
        except RecordError as error:
            damaged.append(str(error))
            continue
        if outcome.status not in again:
            done[cell.id] = outcome
    return replace(plan, done=done, damaged=tuple(damaged))


def set_aside(plan: Plan) -> None:
    """Move what stands in the place of open cells' records to cells/replaced/, which no report reads.

    From then on a cell has a record exactly where this run, or one that goes on with it, has measured it. Raises
    OSError.
    """
    for cell in plan.open:
        path = plan.record_path(cell.id)
        if os.path.lexists(path):
            replaced = plan.cells_folder / "replaced"
            replaced.mkdir(exist_ok=True)
            os.replace(path, replaced / path.name)


def _read(path: Path) -> Outcome:
    """The outcome in a cell's file; RecordError where that is not, whole, the record of that cell."""
    if not path.is_file():
        raise RecordError(f"{path} is not a file")
    names = ["cell_id", *(field.name for field in fields(Outcome))]
    rows = records.read([path]).select(names).to_pylist()
    if [row["cell_id"] for row in rows] != [path.stem]:
        raise RecordError(f"{path} holds no record of that cell")
    try:
        return outcome_of(rows[0])
    except ValueError as error:
        raise RecordError(f"{path}: {error}") from None


def _one_kind(devices: Sequence[Device]) -> Device:
    names = dict.fromkeys(device.name for device in devices)
    if len(names) > 1:
        choices = ", ".join(f"{index} is {device.name}" for index, device in enumerate(devices))
        raise ConfigError(
            f"the GPUs here are not alike ({choices}); one sweep measures one kind: pick some with gpus=[...]"
        )
    return devices[0]


def _drafts(settings: Settings, combinations: Sequence[Combination], device: Device) -> list[_Draft]:
    hosts = [host(combination.impl, settings.isolation) for combination in combinations]
    problems: dict[str, list[Problem]] = {}
    drafts = []
    for combination, where in zip(combinations, hosts, strict=True):
        key = identity.canonical(combination.scenario)
        if key not in problems:
            problems[key] = scenarios.expand(combination.scenario, settings.scale)
        for problem in problems[key]:
            reason = impls.why_unsupported(combination.impl, problem.case, device, combination.compile)
            drafts.append(_Draft(combination, problem, reason, where))
    return drafts


def _versioned(settings: Settings, drafts: Sequence[_Draft], say: Callable[[str], None]) -> list[_Draft]:
    """The drafts with their versions, and with why an environment cannot be had."""
    wanted = {draft.host: str(draft.combination.impl["name"]) for draft in drafts if draft.unsupported is None}
    refused = {} if settings.dry_run else build(wanted, say)
    hosts = [replace(draft.host, missing=refused.get(draft.host)) for draft in drafts]
    found = versions([draft.combination.impl for draft in drafts], hosts)
    return [replace(one, host=where, version=version) for one, where, version in zip(drafts, hosts, found, strict=True)]


def _ordered(settings: Settings, drafts: Sequence[_Draft], device: Device) -> list[Cell]:
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
            cell = _cell(settings, draft, replicate, python, device, machine)
            rounds.setdefault(replicate, {}).setdefault(cell.id, cell)
    ordered = []
    for case, rounds in groups.items():
        for replicate, cells in sorted(rounds.items()):
            # From a fixed order, so that the command line's does not matter
            shuffled = sorted(cells)
            random.Random(f"{settings.seed} {case} {replicate}").shuffle(shuffled)
            ordered += [cells[one] for one in shuffled]
    return ordered


def _loads_compiler(draft: _Draft, device: Device) -> bool:
    """Whether a cell imports its framework's compiler, which takes seconds: to compile, or at the first call of a
    library's custom operators (flash-attn's, xFormers').
    """
    if draft.combination.compile.get("mode") is not None:
        return True
    return device.kind == "cuda" and impls.build(draft.combination.impl).module is not None


def _cell(
    settings: Settings,
    draft: _Draft,
    replicate: int,
    python: Interpreter,
    device: Device,
    machine: dict[str, Any],
) -> Cell:
    combination, case = draft.combination, draft.problem.case
    impl, compile, fields_of_case = combination.impl, combination.compile, case.to_dict()
    timing = _on_cpu(combination.timing) if device.kind == "cpu" else combination.timing
    work, events = impls.work(impl, case), DEVICE_EVENTS[draft.host.framework]
    cell_id = identity.cell_id(
        impl=impl,
        variant=combination.variant,
        compile=compile,
        case=fields_of_case,
        case_name=case.name,
        timing=timing,
        replicate=replicate,
        seed=settings.seed,
        version=draft.version,
        device_name=device.name,
        protocol=records.PROTOCOL,
    )
    payload = {
        "id": cell_id,
        "impl": impl,
        "variant": combination.variant,
        "compile": compile,
        "case": fields_of_case,
        "timing": timing,
        "check": asdict(settings.check),
        "seed": settings.seed,
        "replicate": replicate,
        "device": device.to_dict(),
    }
    columns = {
        **machine,
        **fields_of_case,
        "sweep": settings.name,
        "cell_id": cell_id,
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
        "command": _command(settings, draft, replicate),
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


#: What a preset says of a GPU alone.
_GPU_ONLY = ("block_ms", "rest_ms", "soak_s", "window_s", "steady", "load_cap_s")


def _on_cpu(timing: dict[str, Any]) -> dict[str, Any]:
    """A preset for a CPU, where nothing is evicted before a call and no load is measured, whatever it asks for."""
    kept = {key: value for key, value in timing.items() if key not in _GPU_ONLY}
    return {**kept, "cache": "hot", "sustained": False}


def _load_s(timing: dict[str, Any]) -> float:
    """How long a load takes that is steady at once."""
    return float(timing["soak_s"]) + 2 * float(timing["window_s"]) if timing["sustained"] else 0.0


def _command(settings: Settings, draft: _Draft, replicate: int) -> str:
    """The shell line that measures this cell again, and no other, into the same sweep."""
    pins: dict[str, Any] = {"timing.replicates": replicate + 1, "seed": settings.seed, "name": settings.name}
    if replicate:
        pins["replicate"] = replicate
    if settings.output_dir != "outputs":
        pins["output_dir"] = settings.output_dir
    if settings.device != "auto":
        pins["device"] = settings.device
    if settings.gpus is not None:
        pins["gpus"] = settings.gpus
    if settings.isolation != "fork":
        pins["isolation"] = settings.isolation
    deadlines = {key: value for key, value in asdict(settings.pool).items() if key != "grace_s" and value is not None}
    pins.update({f"pool.{key}": value for key, value in deadlines.items()})
    changed = {key: value for key, value in asdict(settings.check).items() if value != getattr(Check(), key)}
    pins.update({f"check.{key}": value for key, value in changed.items()})
    pins["force"] = True
    combination = draft.combination
    choices = {"study": settings.study, **combination.choices}
    line = identity.command(choices, draft.problem.fields, combination.overrides, pins, _config_flags(sys.argv))
    return _user_folders() + line


def _user_folders() -> str:
    """What the shell line begins with where the user's own YAML was found through the environment."""
    parts = [part for part in os.environ.get(conf_path.VARIABLE, "").split(os.pathsep) if part]
    folders = os.pathsep.join(str(Path(part).expanduser().absolute()) for part in parts)
    return f"{conf_path.VARIABLE}={shlex.quote(folders)} " if folders else ""


def _config_flags(argv: Sequence[str]) -> list[str]:
    """Hydra's flags for a folder of the user's own YAML, as they were given to this process."""
    flags = []
    for index, word in enumerate(argv):
        if word in ("--config-dir", "-cd") and index + 1 < len(argv):
            flags += [word, argv[index + 1]]
        elif word.startswith("--config-dir="):
            flags.append(word)
    return flags


def _sharded(cells: list[Cell], shard: tuple[int, int] | None) -> list[Cell]:
    """The i-th of n parts: each case is in one of them, whole, and their sizes differ by one case at most."""
    if shard is None:
        return cells
    index, count = shard
    cases = {cell.group: cell.payload["case"] for cell in cells}
    parts = _dealt(cases, count)
    if index not in parts.values():
        raise ConfigError(f"shard={index}/{count} is empty: there are {len(cases)} cases to share out")
    return [cell for cell in cells if parts[cell.group] == index]


def _dealt(cases: Mapping[str, Mapping[str, Any]], count: int) -> dict[str, int]:
    """The part, from 1, of each case: in rounds, each case to the part that has the fewest like it so far.

    Every n-th case of the grid would follow an axis whose length n divides: all forward cases in some parts, all
    backward ones in others. Neither the seed nor the order of the grid matters, only which cases there are.
    """
    dealt: dict[str, int] = {}
    held: dict[int, Counter[str]] = {part: Counter() for part in range(1, count + 1)}
    waiting: list[int] = []
    for name in sorted(cases, key=lambda name: _lot("shard", name)):
        values = [f"{key} {value}" for key, value in cases[name].items()]
        waiting = waiting or list(held)
        part = min(waiting, key=lambda one: sum(held[one][value] for value in values))
        waiting.remove(part)
        held[part].update(values)
        dealt[name] = part
    return dealt


def _sampled(cells: list[Cell], sample: int | None, seed: int) -> list[Cell]:
    """`sample` of the cells that can run, as many of each implementation, variant and compile mode as of any other.

    Each of these gives one cell a round, until it has none left; a larger sample holds the smaller one. Cases are
    drawn by the seed and their names alone: implementations meet in the same cases, and so do machines.
    """
    if sample is None:
        return cells
    kinds: dict[tuple[str, ...], list[Cell]] = {}
    for cell in cells:
        if cell.unsupported is None:
            kinds.setdefault(tuple(cell.columns[key] for key in ("impl", "variant", "compile")), []).append(cell)
    turns = []
    for kind, own in kinds.items():
        own.sort(key=lambda cell: (_lot(seed, cell.group, cell.columns["replicate"]), cell.id))
        turns += [((number, _lot(seed, number, kind)), cell.id) for number, cell in enumerate(own)]
    drawn = {one for _, one in sorted(turns)[:sample]}
    return [cell for cell in cells if cell.id in drawn]


def _lot(seed: int | str, *words: Any) -> bytes:
    """A place in a random order that `seed` and `words` alone decide."""
    return hashlib.sha256(f"{seed} {words}".encode()).digest()


def _listed(reasons: Iterable[str], most: int = 5) -> str:
    """The first reasons, and how many more there are."""
    several = list(reasons)
    more = f"; and {len(several) - most} more" if len(several) > most else ""
    return "; ".join(several[:most]) + more
