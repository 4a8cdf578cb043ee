"""Combinations become cells: named by what they are, ordered fairly, skipped when done, and each runnable again."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import math
import os
import random
import shlex
import subprocess
import sys
import time
from collections import Counter
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from attnsweep import environment, identity, impls, overrides, plan, records
from attnsweep.compose import Combination
from attnsweep.devices import Device
from attnsweep.errors import ConfigError, Status
from attnsweep.plan import Cell, Plan
from attnsweep.pool import pyenv
from attnsweep.records import Record
from composing import study
from sweeps import CPU, DEFAULT, EAGER, GPU, LOAD, MAX_AUTOTUNE, PREFILL, QUICK, combination, impl, one_case, settings

COMPILER = ("torch._dynamo", "torch._inductor.compile_fx", "torch._inductor.codecache")


def make(tmp_path: Path, *combinations: Combination, device: Device = CPU, **changed: Any) -> Plan:
    return plan.make(settings(tmp_path, **changed), combinations or [combination()], [device])


def only(tmp_path: Path, one: Combination | None = None, device: Device = CPU, **changed: Any) -> Cell:
    """The cell of a combination with a single case."""
    one = combination(scenario=one_case()) if one is None else one
    (cell,) = make(tmp_path, one, device=device, **changed).cells
    return cell


def record(planned: Plan, cell: Cell, status: Status) -> None:
    """Put a record of that status where a sweep would."""
    planned.cells_folder.mkdir(parents=True, exist_ok=True)
    rest = {"latency_ms": 0.5} if status is Status.OK else {"reason": "because"}
    Record({**cell.columns, "status": status.value, **rest}).write(planned.record_path(cell.id))


# Cells


def test_every_combination_case_and_replicate_is_one_cell(tmp_path: Path) -> None:
    """Two implementations, six cases, three processes: 36 cells with ids of their own."""
    timing = {**QUICK, "replicates": 3}
    planned = make(tmp_path, combination("a", timing=timing), combination("b", timing=timing))
    assert len(planned.cells) == len({cell.id for cell in planned.cells}) == 36
    assert {cell.columns["replicate"] for cell in planned.cells} == {0, 1, 2}
    assert planned.open == planned.to_run == planned.cells
    assert planned.folder == tmp_path / "s"


def test_equal_cells_of_two_combinations_are_one(tmp_path: Path) -> None:
    """A swept field and a list in the scenario make the same cells, and together no more."""
    listed = combination()
    swept = [combination(scenario={**PREFILL, "seq_len": length}) for length in (32, 64, 128)]
    alone, apart = make(tmp_path, listed), make(tmp_path, *swept)
    together = make(tmp_path, listed, *swept)
    assert {cell.id for cell in alone.cells} == {cell.id for cell in apart.cells}
    assert sorted(cell.id for cell in together.cells) == sorted(cell.id for cell in alone.cells)


def test_planning_writes_nothing(tmp_path: Path) -> None:
    """A dry run leaves no folder behind."""
    make(tmp_path)
    assert os.listdir(tmp_path) == []


def test_a_cell_carries_what_its_record_and_its_worker_need(tmp_path: Path) -> None:
    """The payload is the worker's contract; the columns are a record but for its outcome."""
    cell = only(tmp_path, device=GPU, seed=7, study="flux")
    assert set(cell.payload) == {
        *("id", "impl", "variant", "compile", "case", "timing", "check", "seed", "replicate", "device")
    }
    assert cell.payload["seed"] == 7
    assert cell.payload["check"]["enabled"] is True
    assert cell.payload["device"] == GPU.to_dict()
    values = Record({**cell.columns, "status": "missing", "reason": "none"}).values
    expected = {
        "sweep": "s",
        "cell_id": cell.id,
        "impl": "naive",
        "layout": "bhsd",
        "distribution": "torch",
        "impl_version": importlib.metadata.version("torch"),
        "compile": "eager",
        "timing": "quick",
        "cache": "cold",
        "scenario": "prefill",
        "axis": "seq_len",
        "axis_value": 32.0,
        "study": "flux",
        "attnsweep": importlib.metadata.version("attnsweep"),
        "case": cell.group,
        "q_len": 32,
        "num_kv_heads": 4,
        "causal": True,
        "flops": 4.0 * 4 * 16 * 32 * 33 / 2,
        "bytes": 4.0 * 4 * 32 * 16 * 4,
        "timer": "graph",
        "device": "cuda",
        "device_name": "NVIDIA H200",
        "gpu_name": "NVIDIA H200",
        "driver": "570.10",
        "power_limit_w": 700.0,
    }
    assert {name: values[name] for name in expected} == expected


def test_a_cell_knows_the_primary_timer_of_its_case(tmp_path: Path) -> None:
    """On a GPU by the case's size, so that a failure's record names it too; on a CPU there is one."""
    small, large = (combination(scenario=one_case(seq_len=length, dtype="bf16")) for length in (32, 65536))
    assert [only(tmp_path, one, GPU).columns["timer"] for one in (small, large)] == ["graph", "events"]
    assert [only(tmp_path, one).columns["timer"] for one in (small, large)] == ["host", "host"]


def test_a_ceiling_is_planned_with_its_own_work(tmp_path: Path) -> None:
    """The FLOPs of its product and the bytes that it moves, not the case's."""
    target = "attnsweep.impls.ceilings.MatmulCeiling"
    one = combination(impl=impl("ceiling_matmul", _target_=target), scenario=one_case())
    columns = only(tmp_path, one, GPU).columns
    assert columns["flops"] == 2.0 * 128**3
    assert columns["bytes"] == 3.0 * 128**2 * 4


def test_a_plan_without_cells_is_refused(tmp_path: Path) -> None:
    """Nothing to measure is a mistake, not a success."""
    with pytest.raises(ConfigError, match="nothing to measure"):
        plan.make(settings(tmp_path), [], [CPU])


def test_a_plan_in_which_nothing_can_run_is_refused_with_the_reasons(tmp_path: Path) -> None:
    """Every cell unsupported: each implementation's own reason is named."""
    able = {"supports": {"devices": ["cuda"]}}
    none = [combination("a", impl=impl("a", **able)), combination("b", impl=impl("b", supports={"dtypes": ["bf16"]}))]
    with pytest.raises(ConfigError, match=r"a: device cpu .*; b: dtype fp32"):
        make(tmp_path, *none)
    planned = plan.make(settings(tmp_path), none, [CPU], hopeless=True)
    assert planned.to_run == ()
    assert len(planned.open) == 12


def test_an_unsupported_cell_keeps_its_place_and_its_reason(tmp_path: Path) -> None:
    """It is in the plan and gets a record, and no process."""
    planned = make(tmp_path, combination(), combination("a", impl=impl("a", supports={"dtypes": ["bf16"]})))
    unsupported = [cell for cell in planned.cells if cell.unsupported]
    assert {cell.columns["impl"] for cell in unsupported} == {"a"}
    assert all(cell.unsupported == "dtype fp32 is not among bf16" for cell in unsupported)
    assert len(planned.to_run) == 6
    assert len(planned.open) == 12


def test_gpus_of_two_kinds_are_refused_with_how_to_pick(tmp_path: Path) -> None:
    """One sweep measures one kind of GPU."""
    other = replace(GPU, uuid="GPU-1", name="NVIDIA H100 80GB HBM3")
    with pytest.raises(ConfigError, match=r"0 is NVIDIA H200, 1 is NVIDIA H100.*gpus="):
        plan.make(settings(tmp_path), [combination()], [GPU, other])
    twin = replace(GPU, uuid="GPU-1")
    assert len(plan.make(settings(tmp_path), [combination()], [GPU, twin]).devices) == 2


def test_a_hundred_and_eighty_combinations_are_planned_in_a_moment(tmp_path: Path) -> None:
    """180 combinations of six cases: 1080 cells, well under a second of this process's time."""
    many = [combination(f"impl{number}") for number in range(180)]
    start = time.process_time()
    planned = make(tmp_path, *many)
    assert time.process_time() - start < 1.0
    assert len(planned.cells) == 1080


# Order


def test_cells_are_grouped_by_case_and_go_round_by_round(tmp_path: Path) -> None:
    """All of a case before the next; inside it every implementation once before any a second time."""
    timing = {**QUICK, "replicates": 3}
    planned = make(tmp_path, *(combination(name, timing=timing) for name in "abcde"))
    groups = [cell.group for cell in planned.cells]
    assert len(list(dict.fromkeys(groups))) == 6
    assert groups == sorted(groups, key=list(dict.fromkeys(groups)).index)
    for group in dict.fromkeys(groups):
        inside = [cell for cell in planned.cells if cell.group == group]
        assert [cell.columns["replicate"] for cell in inside] == [0] * 5 + [1] * 5 + [2] * 5


def test_the_order_of_implementations_is_random_by_the_seed_alone(tmp_path: Path) -> None:
    """It differs between cases and rounds and seeds, and not with the order of the command line."""
    timing = {**QUICK, "replicates": 3}
    names = [f"impl{number}" for number in range(8)]

    def orders(seed: int, given: list[str]) -> list[tuple[str, ...]]:
        planned = make(tmp_path, *(combination(name, timing=timing) for name in given), seed=seed)
        rounds: dict[tuple[str, int], list[str]] = {}
        for cell in planned.cells:
            rounds.setdefault((cell.group, cell.columns["replicate"]), []).append(cell.columns["impl"])
        return [tuple(one) for one in rounds.values()]

    first = orders(0, names)
    assert len(set(first)) == 18
    assert all(sorted(one) == sorted(names) for one in first)
    shuffled = names[:]
    random.Random(1).shuffle(shuffled)
    assert orders(0, shuffled) == first
    assert orders(1, names) != first


# Identity


def test_what_changes_the_measurement_changes_the_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Implementation, environment, variant, compile mode, case, timing, cache, seed, version and device's name."""
    base = combination(scenario=one_case())
    plain = only(tmp_path, base)
    variables = {"env": {"variables": {"X": "1"}}}
    others = [
        only(tmp_path, replace(base, impl=impl("naive", layout="bshd"))),
        only(tmp_path, replace(base, impl=impl("naive", **variables))),
        only(tmp_path, replace(base, variant="layout=bhsd")),
        only(tmp_path, replace(base, compile=DEFAULT)),
        only(tmp_path, replace(base, compile={**EAGER, "dynamic": True})),
        only(tmp_path, replace(base, scenario=one_case(dtype="bf16"))),
        only(tmp_path, replace(base, timing={**QUICK, "time_cap_s": 0.7})),
        only(tmp_path, base, seed=1),
        only(tmp_path, base, device=replace(CPU, name="another")),
    ]
    monkeypatch.setattr(environment, "own_version", lambda distribution: "99")
    others.append(only(tmp_path, base))
    hashes = [cell.id[-8:] for cell in [plain, *others]]
    assert len(set(hashes)) == len(hashes)


def test_overridden_fields_of_a_preset_are_part_of_its_name_in_a_record(tmp_path: Path) -> None:
    """What a report compares and pools by name is one configuration; what has a column, or no effect, is left out."""
    typed = ("timing.time_cap_s=0.7", "compile.fullgraph=false", "timing.cache=hot", "compile.dynamic=true")
    changed = only(tmp_path, combination(scenario=one_case(), compile=DEFAULT, overrides=typed)).columns
    assert (changed["compile"], changed["timing"]) == ("default[dynamic=true,fullgraph=false]", "quick[time_cap_s=0.7]")
    more = ("scenario.dtype=fp32", "timing.replicates=2", "timing.cache=hot", "compile.dynamic=true")
    plain = only(tmp_path, combination(scenario=one_case(), overrides=more)).columns
    assert (plain["compile"], plain["timing"]) == ("eager", "quick")


def test_the_cache_is_part_of_the_id_on_a_gpu_and_always_hot_on_a_cpu(tmp_path: Path) -> None:
    """Nothing is evicted before a call on a CPU, whatever the preset asks for."""
    base = combination(scenario=one_case())
    hot = replace(base, timing={**QUICK, "cache": "hot"})
    assert only(tmp_path, base).id == only(tmp_path, hot).id
    assert only(tmp_path, base).columns["cache"] == "hot"
    assert only(tmp_path, base, device=GPU).id != only(tmp_path, hot, device=GPU).id
    assert only(tmp_path, base, device=GPU).columns["cache"] == "cold"


def test_what_a_preset_says_of_a_gpu_opens_no_cell_on_a_cpu(tmp_path: Path) -> None:
    """No load there, no blocks: another soak is the same cell, where a GPU has another."""
    base = combination(scenario=one_case(), timing={**QUICK, **LOAD})
    longer = replace(base, timing={**base.timing, "soak_s": 2.0, "rest_ms": 5.0})
    assert only(tmp_path, base).id == only(tmp_path, longer).id == only(tmp_path, combination(scenario=one_case())).id
    assert only(tmp_path, base, device=GPU).id != only(tmp_path, longer, device=GPU).id


def test_another_protocol_makes_other_cells(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was measured by another procedure is not taken for done."""
    before = only(tmp_path, combination(scenario=one_case()))
    monkeypatch.setattr(records, "PROTOCOL", records.PROTOCOL + 1)
    after = only(tmp_path, combination(scenario=one_case()))
    assert after.id != before.id
    assert after.columns["protocol"] == before.columns["protocol"] + 1


def test_what_does_not_change_the_measurement_keeps_the_id(tmp_path: Path) -> None:
    """Where, when, how many beside it, and whether forked or spawned."""
    base = combination(scenario=one_case())
    plain = only(tmp_path, base, device=GPU)
    same = [
        only(tmp_path / "elsewhere", base, device=GPU, name="other"),
        only(tmp_path, base, device=replace(GPU, uuid="GPU-9", driver="580.1", power_limit_w=500.0)),
        only(tmp_path, base, device=GPU, study="flux", force=True, shard=(1, 1), isolation="spawn"),
        only(tmp_path, replace(base, impl=impl("naive", isolation="spawn")), device=GPU),
        only(tmp_path, base, device=GPU, pool=replace(settings(tmp_path).pool, timeout_s=3.0)),
    ]
    assert {cell.id for cell in same} == {plain.id}


def test_more_replicates_keep_those_that_are_done(tmp_path: Path) -> None:
    """Three processes hold the cells of one, so that a quick look is a start."""
    few = make(tmp_path, combination())
    many = make(tmp_path, combination(timing={**QUICK, "replicates": 3}))
    assert {cell.id for cell in few.cells} < {cell.id for cell in many.cells}


def test_an_id_names_its_parts_and_fits_a_file_name(tmp_path: Path) -> None:
    """impl-variant-compile-case-replicate-hash; whatever the names are, letters and under 200 bytes with suffixes."""
    cell = only(tmp_path, combination("fa2", variant="block_q=64", scenario=one_case()))
    assert cell.id.startswith("fa2-block_q=64-eager-b1-h4-s32-d16-causal-fp32-fwd-0-")
    long = one_case(seq_len=7 * 10**8, head_dim_v=10**8, window=[10**9, 10**9], bias="dense", direction="fwd_bwd")
    wild = combination("../é \n" + "x" * 300, variant="a/b=" + "y" * 300, scenario=long)
    wild = replace(wild, compile={**EAGER, "name": ".hidden/" + "z" * 300})
    odd = only(tmp_path, wild)
    assert set(odd.id) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._=-")
    assert not odd.id.startswith((".", "-"))
    assert len(f".{odd.id}.parquet.4194304.tmp".encode()) < 200
    assert len(f"..{odd.id}.rehearsal.4194304.tmp".encode()) < 200


def test_the_hash_is_that_of_canonical_json(tmp_path: Path) -> None:
    """The order of keys in a YAML is not part of what a cell is."""
    base = combination(scenario=one_case())
    turned = replace(base, impl=dict(reversed(base.impl.items())), timing=dict(reversed(base.timing.items())))
    assert only(tmp_path, base).id == only(tmp_path, turned).id


def test_an_edited_kernel_makes_new_cells_of_ours_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The source of attnsweep.kernels is hashed where the implementation names it."""
    ours = {
        "_target_": "attnsweep.impls.FunctionAttention",
        "function": "attnsweep.kernels.flash.attention",
        "arguments": {"is_causal": "causal"},
    }
    kernel, other = combination(impl=impl("ours", **ours), scenario=one_case()), combination(scenario=one_case())
    before = only(tmp_path, kernel).id, only(tmp_path, other).id
    monkeypatch.setattr("attnsweep.identity.kernels_digest", lambda: "edited")
    after = only(tmp_path, kernel).id, only(tmp_path, other).id
    assert before[0] != after[0]
    assert before[1] == after[1]


# Interpreters and deadlines


def test_a_cell_runs_in_the_parents_interpreter_with_its_framework_preloaded(tmp_path: Path) -> None:
    """Torch and numpy; the compiler only where a cell of that interpreter compiles."""
    eager = make(tmp_path, combination())
    assert {cell.interpreter for cell in eager.cells} == {
        plan.Interpreter(sys.executable, (), ("numpy", "torch"), own=True)
    }
    both = make(tmp_path, combination(), combination("c", compile=DEFAULT))
    assert {cell.interpreter.preload for cell in both.cells} == {("numpy", "torch", *COMPILER)}


def test_an_unsupported_compiled_cell_does_not_load_the_compiler(tmp_path: Path) -> None:
    """Only what will run decides what is imported."""
    never = combination("c", impl=impl("c", supports={"compile": ["eager"]}), compile=DEFAULT)
    planned = make(tmp_path, combination(), never)
    assert {cell.interpreter.preload for cell in planned.cells} == {("numpy", "torch")}


def test_a_library_on_a_gpu_finds_the_compiler_imported(tmp_path: Path) -> None:
    """Custom operators import it at their first call, in every cell: three seconds each."""
    library = impl("a", _target_="attnsweep.impls.FunctionAttention", function="json.loads", arguments={"c": "causal"})
    for device, more in ((GPU, COMPILER), (CPU, ())):
        planned = make(tmp_path, combination(impl=library), device=device)
        assert {cell.interpreter.preload for cell in planned.cells} == {("numpy", "torch", *more)}
    assert {cell.interpreter.preload for cell in make(tmp_path, device=GPU).cells} == {("numpy", "torch")}


def test_spawn_preloads_nothing(tmp_path: Path) -> None:
    """isolation=spawn, for the sweep or for one implementation."""
    assert {cell.interpreter.preload for cell in make(tmp_path, isolation="spawn").cells} == {()}
    mixed = make(tmp_path, combination("a"), combination("b", impl=impl("b", isolation="spawn")))
    found = {cell.columns["impl"]: cell.interpreter.preload for cell in mixed.cells}
    assert found == {"a": ("numpy", "torch"), "b": ()}


def test_variables_make_another_interpreter(tmp_path: Path) -> None:
    """Numbers become text; equal variables share a process whatever their order."""
    one = combination("a", impl=impl("a", env={"variables": {"B": 2, "A": "x"}}), scenario=one_case())
    two = combination("b", impl=impl("b", env={"variables": {"A": "x", "B": "2"}}), scenario=one_case())
    found = {only(tmp_path, each).interpreter for each in (one, two)}
    assert found == {plan.Interpreter(sys.executable, (("A", "x"), ("B", "2")), ("numpy", "torch"), own=True)}
    with pytest.raises(ConfigError, match=r"env\.variables\.A"):
        only(tmp_path, replace(one, impl=impl("a", env={"variables": {"A": [1]}})))


@pytest.fixture
def foreign(tmp_path: Path) -> Path:
    """An interpreter of another environment: this one, behind a script that counts its calls."""
    python = tmp_path / "env" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/calls\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    return python


def test_another_interpreter_tells_its_own_versions_in_one_call(tmp_path: Path, foreign: Path) -> None:
    """A relative path is relative to the working folder and stays as it is; each environment is asked once."""
    env = {"python": os.path.relpath(foreign)}
    several = [
        combination(name, impl=impl(name, env=env, distribution=distribution), scenario=one_case())
        for name, distribution in (("a", "torch"), ("b", "numpy"), ("c", "not-a-library"), ("d", None))
    ]
    planned = make(tmp_path, *several)
    versions = {cell.columns["impl"]: cell.columns["impl_version"] for cell in planned.cells}
    expected = {name: importlib.metadata.version(of) for name, of in (("a", "torch"), ("b", "numpy"))}
    assert versions == {**expected, "c": None, "d": None}
    assert {cell.interpreter for cell in planned.cells} == {
        plan.Interpreter(str(foreign), (), ("numpy", "torch"), own=False)
    }
    assert len((tmp_path / "calls").read_text().split("print(json.dumps(found))")) == 2


def test_another_interpreter_does_not_see_this_ones_pythonpath(
    tmp_path: Path, foreign: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A distribution that only PYTHONPATH shows here is not installed there; env.variables can show it again."""
    info = tmp_path / "extra" / "onlyhere-1.5.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: onlyhere\nVersion: 1.5\n")
    monkeypatch.setenv("PYTHONPATH", str(info.parent))
    monkeypatch.chdir(info.parent)
    assert environment.foreign_versions(str(foreign), {}, ["onlyhere"]) == {"onlyhere": None}
    variables = {"PYTHONPATH": str(info.parent)}
    assert environment.foreign_versions(str(foreign), variables, ["onlyhere"]) == {"onlyhere": "1.5"}


def test_an_absent_interpreter_costs_its_own_cells_only(tmp_path: Path) -> None:
    """Absent or not executable: planned like any other, to end as missing where the pool looks at it."""
    plain = tmp_path / "python"
    plain.write_text("no program")
    for python in (tmp_path / "absent", plain):
        env = {"python": str(python)}
        gone = combination(impl=impl("gone", env=env, distribution="x"), scenario=one_case())
        cells = make(tmp_path, gone, combination("here", scenario=one_case())).to_run
        assert {cell.columns["impl"] for cell in cells} == {"gone", "here"}
        (one,) = (cell for cell in cells if cell.columns["impl"] == "gone")
        assert one.columns["impl_version"] is None
        why = pyenv.why_missing(one.interpreter.python)
        assert why is not None
        assert str(python) in why


def test_a_command_quotes_an_option_that_reads_as_a_number() -> None:
    """impl/3.yaml is impl='3' on the way back as well."""
    line = identity.command({"impl": "3", "scenario": "prefill", "study": None}, {}, (), {})
    assert shlex.split(line) == ["attnsweep", "impl='3'", "scenario=prefill"]


def test_more_cells_than_a_sweep_holds_are_a_mistake(tmp_path: Path) -> None:
    """Refused before any is made, by their number; one process of each is fewer."""
    many = combination(timing={**QUICK, "replicates": 10_000}, scenario={**PREFILL, "batch_size": list(range(1, 9))})
    with pytest.raises(ConfigError, match=r"this makes 240000 cells; a sweep holds 100000 at most"):
        make(tmp_path, many)
    assert len(make(tmp_path, many, replicate=9_999).cells) == 24


def test_a_replicate_that_no_timing_has_is_a_mistake(tmp_path: Path) -> None:
    """The sentence says how many there are; one that some timing has is taken."""
    three = combination(timing={**QUICK, "replicates": 3}, scenario=one_case())
    with pytest.raises(ConfigError, match=r"replicate must be below timing\.replicates \(3\), not 7"):
        make(tmp_path, three, combination(scenario=one_case()), replicate=7)
    cells = make(tmp_path, three, combination(scenario=one_case()), replicate=2).cells
    assert [cell.columns["replicate"] for cell in cells] == [2]


def test_the_command_keeps_the_deadline_and_where_yaml_was_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Deadlines where they were set; the variable's folders, absolute and quoted, before the command."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ATTNSWEEP_CONFIG_PATH", raising=False)
    one = combination(scenario=one_case())
    plain = only(tmp_path, one).columns["command"]
    assert plain.startswith("attnsweep impl=")
    assert "timeout_s" not in plain
    monkeypatch.setenv("ATTNSWEEP_CONFIG_PATH", f"my conf::{tmp_path}/b")
    pool = replace(settings(tmp_path).pool, timeout_s=7.5, compile_s=900.0)
    timed = only(tmp_path, one, pool=pool).columns["command"]
    variable, *words = shlex.split(timed)
    assert variable == f"ATTNSWEEP_CONFIG_PATH={tmp_path}/my conf:{tmp_path}/b"
    assert words[0] == "attnsweep"
    assert "pool.timeout_s=7.5" in words
    assert "pool.compile_s=900.0" in words
    assert not any("prepare_s" in word or "grace_s" in word for word in words)


def test_records_to_be_measured_again_are_set_aside(tmp_path: Path) -> None:
    """Moved to a folder that no report reads, those to be kept untouched; then nothing is done but what is kept."""
    planned = make(tmp_path, combination())
    planned.cells_folder.mkdir(parents=True)
    for cell in planned.cells:
        planned.record_path(cell.id).write_bytes(cell.id.encode())
    kept = planned.cells[0].id
    outcome = plan.Outcome(Status.OK, 1.0, None, ())
    plan.set_aside(replace(planned, done={kept: outcome}))
    assert [path.stem for path in planned.cells_folder.glob("*.parquet")] == [kept]
    aside = {path.stem: path.read_text() for path in (planned.cells_folder / "replaced").iterdir()}
    assert aside == {cell.id: cell.id for cell in planned.cells[1:]}


def test_an_interpreter_that_is_none_is_a_mistake_said_in_a_sentence(tmp_path: Path) -> None:
    """A program that is no Python."""
    for python, said in (
        (Path("/bin/false"), "not a working Python"),
        (Path("/bin/echo"), "not a working Python"),
    ):
        with pytest.raises(ConfigError, match=said) as caught:
            only(tmp_path, combination(impl=impl("a", env={"python": str(python)}), scenario=one_case()))
        assert str(python) in str(caught.value)


@pytest.mark.parametrize(("compile", "seconds"), [(EAGER, 0.0), (DEFAULT, 180.0), (MAX_AUTOTUNE, 600.0)])
def test_deadlines_go_by_the_compile_mode_and_the_preset(
    tmp_path: Path, compile: dict[str, Any], seconds: float
) -> None:
    """Compiling takes longer, autotuning longest; sampling and load come on top of the timing phase."""
    one = combination(compile=compile, scenario=one_case())
    phases = only(tmp_path, one).phases
    assert asdict(phases) == pytest.approx(
        {"prepare_s": 120.0, "compile_s": seconds, "check_s": 60.0, "time_s": 60.6}, abs=0.01
    )
    loaded = replace(one, timing={**QUICK, **LOAD})
    assert only(tmp_path, loaded, device=GPU).phases.time_s == pytest.approx(60.0 + 0.6 + 5.0, abs=0.01)
    assert only(tmp_path, loaded).phases.time_s == phases.time_s  # no load is measured on a CPU


@pytest.mark.parametrize("compile", [EAGER, DEFAULT, MAX_AUTOTUNE])
def test_a_cell_may_take_what_its_phases_may_take_unless_its_whole_deadline_is_given(
    tmp_path: Path, compile: dict[str, Any]
) -> None:
    """Three times the limit where it is busy, the check twice; a phase that is given counts."""
    one, pool = combination(compile=compile, scenario=one_case()), settings(tmp_path).pool
    cell = only(tmp_path, one)
    compile_s = 0.0 if compile is EAGER else cell.phases.compile_s
    busy = 3 * (cell.phases.prepare_s + compile_s)
    assert cell.timeout_s == pytest.approx(busy + 2 * cell.phases.check_s + cell.phases.time_s)
    given = {"prepare_s": 1.0, "compile_s": 2.0, "check_s": 3.0, "time_s": 4.0}
    cell = only(tmp_path, one, pool=replace(pool, **given))
    assert asdict(cell.phases) == given
    assert cell.timeout_s == 3 * (1.0 + (0.0 if compile is EAGER else 2.0)) + 2 * 3.0 + 4.0
    assert only(tmp_path, one, pool=replace(pool, timeout_s=7.5)).timeout_s == 7.5
    assert only(tmp_path, one, pool=replace(pool, timeout_s=7.5)).phases == only(tmp_path, one).phases


def test_large_cases_get_more_time_and_hopeless_ones_do_not_get_hours(tmp_path: Path) -> None:
    """On a CPU as on a GPU, which is faster; ten minutes more at most for a phase."""
    large = combination(scenario=one_case(seq_len=4096, head_dim=64))
    on_cpu, on_gpu = only(tmp_path, large).phases, only(tmp_path, large, device=GPU).phases
    assert (
        on_cpu.prepare_s - 120.0 == pytest.approx(on_cpu.check_s - 60.0) == pytest.approx(100 * (on_gpu.check_s - 60.0))
    )
    assert 5.0 < on_cpu.check_s - 60.0 < 60.0
    huge = combination(scenario=one_case(seq_len=2**20, head_dim=64))
    assert only(tmp_path, huge).phases.check_s == 660.0


def test_the_estimate_grows_with_cells_and_compiling_and_shrinks_with_gpus(tmp_path: Path) -> None:
    """Sampling to the cap, compiling, isolation; over all slots; nothing for what is skipped."""
    one, two = make(tmp_path, combination()), make(tmp_path, combination(), combination("b"))
    assert 0.6 * 6 < one.estimate_s < 3 * 6
    assert two.estimate_s == pytest.approx(2 * one.estimate_s)
    assert make(tmp_path, combination(compile=DEFAULT)).estimate_s > one.estimate_s + 6
    gpu, loaded = (
        plan.make(settings(tmp_path), [combination(timing=timing)], [GPU]).estimate_s
        for timing in (QUICK, {**QUICK, **LOAD})
    )
    assert loaded == pytest.approx(gpu + 6 * 3.0)
    twins = [GPU, replace(GPU, uuid="GPU-1")]
    alone, pair = (plan.make(settings(tmp_path), [combination()], gpus).estimate_s for gpus in (twins[:1], twins))
    assert pair == pytest.approx(alone / 2)
    assert replace(one, done={cell.id: plan.Outcome(Status.OK, 1.0, None, ()) for cell in one.cells}).estimate_s == 0


# Shards and samples


@pytest.mark.parametrize("count", [1, 2, 4, 6])
def test_shards_hold_each_cell_once_and_whole_cases(tmp_path: Path, count: int) -> None:
    """Together they are the plan, in its order; none holds a part of a case."""
    several = [combination(name) for name in "abc"]
    whole = make(tmp_path, *several)
    shards = [make(tmp_path, *several, shard=(index, count)) for index in range(1, count + 1)]
    assert sorted(cell.id for one in shards for cell in one.cells) == sorted(cell.id for cell in whole.cells)
    groups = [{cell.group for cell in one.cells} for one in shards]
    assert sum(map(len, groups)) == 6
    position = {cell.id: index for index, cell in enumerate(whole.cells)}
    for one in shards:
        places = [position[cell.id] for cell in one.cells]
        assert places == sorted(places)


@pytest.mark.parametrize("count", [2, 3, 4, 7, 8])
def test_a_shard_has_its_part_of_every_axis(tmp_path: Path, count: int) -> None:
    """Of mha_grid each part holds as many cases of any value of an axis as another has, but for a few."""
    one = study("mha_grid")[1][0]
    shards = [make(tmp_path, one, device=GPU, shard=(index, count)) for index in range(1, count + 1)]
    held = [{cell.group: cell.payload["case"] for cell in one.cells} for one in shards]
    assert {len(cases) for cases in held} <= {540 // count, -(-540 // count)}
    for axis, values in {"batch_size": 3, "q_len": 5, "num_heads": 3, "head_dim": 3, "bias": 2, "direction": 2}.items():
        counts = [Counter(case[axis] for case in cases.values()) for cases in held]
        assert all(len(own) == values for own in counts)
        fair = 540 / values / count
        assert all(abs(number - fair) <= 4 for own in counts for number in own.values()), (axis, counts)


def test_shards_do_not_depend_on_the_seed_or_on_the_order_typed(tmp_path: Path) -> None:
    """Parts measured with different seeds, or by lines with the axes in another order, still hold the study."""
    turned = one_case(batch_size=[4, 1], seq_len=[128, 32, 64])
    seeded = make(tmp_path, combination(scenario=turned), seed=1, shard=(1, 2))
    plain = make(tmp_path, shard=(1, 2))
    assert {cell.group for cell in seeded.cells} == {cell.group for cell in plain.cells}
    assert len(plain.cells) == 3


def test_a_shard_does_not_move_when_cells_get_done(tmp_path: Path) -> None:
    """Which shard a cell is in depends on the plan alone, not on what is recorded."""
    before = make(tmp_path, shard=(2, 2))
    record(before, make(tmp_path).cells[0], Status.OK)
    record(before, before.cells[0], Status.OK)
    after = make(tmp_path, shard=(2, 2))
    assert [cell.id for cell in after.cells] == [cell.id for cell in before.cells]
    assert len(after.open) == len(before.open) - 1


def test_a_shard_without_a_case_is_refused(tmp_path: Path) -> None:
    """Seven shards of six cases leave one empty."""
    with pytest.raises(ConfigError, match=r"shard=7/7.*6 cases"):
        make(tmp_path, shard=(7, 7))


def test_a_sample_is_a_seeded_subset_of_what_can_run(tmp_path: Path) -> None:
    """N cells, the same for the same seed, each larger sample around the smaller; unsupported ones are not drawn."""
    several = [combination("a"), combination("b"), combination("c", impl=impl("c", supports={"dtypes": ["bf16"]}))]

    def drawn(count: int, seed: int = 0) -> list[str]:
        return [cell.id for cell in make(tmp_path, *several, sample=count, seed=seed).cells]

    assert len(drawn(5)) == 5
    assert drawn(5) == drawn(5)
    assert set(drawn(4)) < set(drawn(5)) < set(drawn(99))
    assert len(drawn(99)) == 12
    names = {one.rsplit("-", 1)[0] for one in drawn(5)}
    assert names != {one.rsplit("-", 1)[0] for one in drawn(5, seed=1)}


def test_a_sample_has_as_many_of_each_implementation_and_compile_mode(tmp_path: Path) -> None:
    """Counts differ by one at most until an implementation has no more; variants count apart, failures not at all."""
    several = [
        *(combination(name, compile=mode) for name in "ab" for mode in (EAGER, DEFAULT)),
        combination("a", variant="layout=bshd", impl=impl("a", layout="bshd")),
        combination("c", scenario=one_case()),
        combination("d", impl=impl("d", supports={"dtypes": ["bf16"]})),
    ]

    def counts(sample: int) -> list[int]:
        drawn = make(tmp_path, *several, sample=sample).cells
        kinds = Counter(tuple(cell.columns[key] for key in ("impl", "variant", "compile")) for cell in drawn)
        assert len(drawn) == kinds.total()
        return sorted(kinds.values())

    assert counts(4) == [1, 1, 1, 1]
    assert counts(6) == [1, 1, 1, 1, 1, 1]
    assert counts(9) == [1, 1, 1, 2, 2, 2]
    assert counts(21) == [1, 4, 4, 4, 4, 4]
    assert counts(99) == [1, 6, 6, 6, 6, 6]


def test_a_sample_draws_the_same_cases_for_each_implementation_and_machine(tmp_path: Path) -> None:
    """What is drawn can be compared: whole rounds are whole cases, on another device and version too."""
    several = [combination(name) for name in "abcd"]

    def drawn(device: Device = CPU) -> list[tuple[str, str]]:
        planned = make(tmp_path, *several, device=device, sample=9)
        return sorted((cell.group, cell.columns["impl"]) for cell in planned.cells)

    assert sorted(Counter(group for group, _ in drawn()).values()) == [1, 4, 4]
    assert drawn() == drawn(replace(CPU, name="another")) == drawn(GPU)


def test_tiny_goes_to_the_scenario(tmp_path: Path) -> None:
    """scale=tiny takes the scenario's tiny sizes."""
    small = combination(scenario={**PREFILL, "tiny": {"seq_len": [8], "batch_size": 1}})
    assert [cell.columns["q_len"] for cell in make(tmp_path, small, scale="tiny").cells] == [8]


# Resume


def test_what_has_a_record_is_done_and_the_rest_is_open(tmp_path: Path) -> None:
    """Whatever its status was."""
    planned = make(tmp_path, combination("a"), combination("b"))
    done = planned.cells[1:4]
    for cell, status in zip(done, (Status.OK, Status.CRASHED, Status.UNSUPPORTED), strict=True):
        record(planned, cell, status)
    again = make(tmp_path, combination("a"), combination("b"))
    assert {one: outcome.status for one, outcome in again.done.items()} == {
        done[0].id: Status.OK,
        done[1].id: Status.CRASHED,
        done[2].id: Status.UNSUPPORTED,
    }
    assert again.done[done[0].id].latency_ms == 0.5
    assert [cell.id for cell in again.open] == [cell.id for cell in planned.cells if cell not in done]


def test_rerun_opens_cells_of_these_statuses_and_force_all(tmp_path: Path) -> None:
    """Under the same ids, so that their records are replaced."""
    planned = make(tmp_path)
    statuses = (Status.OK, Status.CRASHED, Status.TIMEOUT, Status.ERROR, Status.OOM, Status.OK)
    for cell, status in zip(planned.cells, statuses, strict=True):
        record(planned, cell, status)
    rerun = make(tmp_path, rerun=("crashed", "timeout"))
    assert [cell.id for cell in rerun.open] == [cell.id for cell in planned.cells[1:3]]
    assert make(tmp_path).open == ()
    assert len(make(tmp_path, force=True).open) == 6


def test_a_damaged_record_is_none(tmp_path: Path) -> None:
    """Cut short, empty, or without its columns: measured again."""
    planned = make(tmp_path)
    for cell in planned.cells:
        record(planned, cell, Status.OK)
    cut, empty, other = (planned.record_path(cell.id) for cell in planned.cells[:3])
    cut.write_bytes(cut.read_bytes()[:-10])
    empty.write_bytes(b"")
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"x": [1]}), other)
    assert [cell.id for cell in make(tmp_path).open] == [cell.id for cell in planned.cells[:3]]


def test_a_library_upgrade_opens_its_cells_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Old records stay beside the new cells."""
    several = [combination("a"), combination("b", impl=impl("b", distribution="other"))]
    planned = make(tmp_path, *several)
    for cell in planned.cells:
        record(planned, cell, Status.OK)
    monkeypatch.setattr(environment, "own_version", lambda name: "9" if name == "other" else planned_version)
    planned_version = planned.cells[0].columns["impl_version"] or importlib.metadata.version("torch")
    after = make(tmp_path, *several)
    assert {cell.columns["impl"] for cell in after.open} == {"b"}
    assert len(after.open) == 6
    assert all(planned.record_path(cell.id).is_file() for cell in planned.cells)


def test_the_whole_reason_of_each_cell_comes_from_the_implementations(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """why_unsupported is asked with the combination's own YAML, the case, the device and the compile mode."""
    asked = []

    def why(given: dict[str, Any], case: Any, device: Device, compile: dict[str, Any]) -> str | None:
        asked.append((given["name"], case.name, device, compile["name"]))
        return None

    monkeypatch.setattr(impls, "why_unsupported", why)
    planned = make(tmp_path, combination("a", timing={**QUICK, "replicates": 4}), combination("b", compile=DEFAULT))
    cases = {cell.group for cell in planned.cells}
    assert sorted(asked) == sorted(
        [("a", case, CPU, "eager") for case in cases] + [("b", case, CPU, "default") for case in cases],
        key=lambda one: (one[0], one[1]),
    )


def test_ids_do_not_depend_on_the_process(tmp_path: Path) -> None:
    """The hash is sha256 of text, not Python's own, which every process salts: resume works from another one."""
    cell = only(tmp_path, combination(impl=impl("naive", distribution=None), scenario=one_case()))
    text = (
        '{"case":{"batch_size":1,"bias":"none","causal":true,"direction":"fwd","dtype":"fp32","head_dim":16,'
        '"head_dim_v":16,"kv_len":32,"num_heads":4,"num_kv_heads":4,"q_len":32,"window":null},'
        '"compile":{"dynamic":false,"fullgraph":true,"mode":null,"name":"eager"},"device":"AMD EPYC",'
        '"impl":{"_target_":"attnsweep.impls.naive.NaiveAttention","distribution":null,"layout":"bhsd",'
        '"name":"naive"},"kernels":null,"protocol":2,"replicate":0,"seed":0,'
        '"timing":{"cache":"hot","name":"quick","sustained":false,"time_cap_s":0.6},"variant":"","version":null}'
    )
    assert cell.id[-8:] == hashlib.sha256(text.encode()).hexdigest()[:8]


# The command of a cell

#: Runs in a process of its own, because Hydra's state belongs to the process: what the command line would plan.
_PLANNED = """
import json, sys
from attnsweep import cli, devices, plan, sweep

def run(settings, combinations, *, shared=False):
    planned = plan.make(settings, combinations, devices.find(settings.device, settings.gpus))
    cells = [[cell.id, cell.columns["command"], len(planned.open)] for cell in planned.cells]
    print(json.dumps(cells))
    return 0

sweep.run = run
sys.exit(cli.main())
"""


def planned_by(command: list[str], folder: Path) -> list[list[Any]]:
    """For each cell that this command line would plan in `folder`: id, command, how many are open."""
    done = subprocess.run(
        [sys.executable, "-c", _PLANNED, *command[1:]], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    cells: list[list[Any]] = json.loads(done.stdout)
    return cells


@pytest.mark.parametrize(
    "line",
    [
        "attnsweep impl=naive,sdpa_math scenario=decode compile=eager,default timing=quick device=cpu name=x",
        "attnsweep impl=naive 'scenario.window=[[3,0],[-1,-1],null]' timing=quick scale=tiny device=cpu name=x",
        "attnsweep impl=sdpa_math impl.layout=bshd timing.time_cap_s=2.5 seed=5 check.enabled=false device=cpu",
        "attnsweep study=quickstart device=cpu scenario.seq_len=32,64",
        "attnsweep impl=mine scenario=flux timing=quick device=cpu output_dir=there --config-dir my/conf",
    ],
)
def test_the_command_of_a_cell_plans_exactly_that_cell(tmp_path: Path, line: str) -> None:
    """Pasted into a shell, composed by Hydra again, it gives one cell: the same id, and open."""
    (tmp_path / "my" / "conf" / "impl").mkdir(parents=True)
    mine = json.dumps({**impl("mine"), "layout": "bshd"})
    (tmp_path / "my" / "conf" / "impl" / "mine.yaml").write_text(mine)
    whole = planned_by(shlex.split(line), tmp_path)
    first = [cell for cell in whole if cell[0].split("-")[-2] == "0"]
    cell_id, command, _ = first[-1]
    assert len(whole) > len(first) or len(first) > 1
    ((again, _, opened),) = planned_by(shlex.split(command), tmp_path)
    assert again == cell_id
    assert opened == 1


@pytest.mark.parametrize(
    "value",
    [
        *("a", "a b", "it's", "x\\", "x\\'y", "", "null", "True", "1e5", "12", "a,b", "[1]", "2024-01-01", "a=b", "é"),
        *(None, True, 0, -3, 1.5, 1e-9, [1, None], [[-1, 0], None], ["a b", "1"], {"a": 1, "b": "x y"}),
    ],
)
def test_a_value_in_a_command_is_read_back_by_hydra_as_it_was(value: Any) -> None:
    """Text that looks like a number, a list or a quote stays text."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from omegaconf import OmegaConf

    line = f"key={overrides.literal(value)}"
    read = OverridesParser.create().parse_override(line).value()
    got = OmegaConf.to_container(OmegaConf.create({"key": read}))
    assert got == {"key": value}
    assert type(got["key"]) is type(value)


def test_an_infinite_constant_is_no_obstacle(tmp_path: Path) -> None:
    """A YAML may hold .inf; the cell has an id and its configuration is JSON that Python reads."""
    library = {"_target_": "attnsweep.impls.FunctionAttention", "function": "a.b", "arguments": {"causal": "causal"}}
    one = only(tmp_path, combination(impl=impl("a", **library, constants={"cap": math.inf}), scenario=one_case()))
    assert json.loads(one.columns["config"])["impl"]["constants"] == {"cap": math.inf}


def test_the_command_of_a_later_replicate_measures_it_alone(tmp_path: Path) -> None:
    """`replicate` picks one process of those that `timing.replicates` asks for."""
    line = "attnsweep impl=naive scenario.seq_len=32 scenario.batch_size=1 device=cpu name=x"
    whole = {cell[0].split("-")[-2]: cell for cell in planned_by(shlex.split(line), tmp_path)}
    again = planned_by(shlex.split(whole["1"][1]), tmp_path)
    assert [cell[0] for cell in again] == [whole["1"][0]]
