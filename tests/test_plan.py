"""Combinations become cells: ordered fairly, each with its interpreter and its deadlines."""

from __future__ import annotations

import importlib.metadata
import os
import random
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from attnsweep import environment, impls, planning
from attnsweep.devices import Device
from attnsweep.errors import ConfigError, Status
from attnsweep.interpreters import RESERVED, Interpreter, why_missing, why_unusable
from attnsweep.plan import Outcome
from attnsweep.records import Record
from distributions import installed
from plans import make, only
from sweeps import CPU, DEFAULT, EAGER, GPU, LOAD, MAX_AUTOTUNE, PREFILL, QUICK, combination, impl, one_case, settings

COMPILER = ("torch._dynamo", "torch._inductor.compile_fx", "torch._inductor.codecache")


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
        planning.make(settings(tmp_path), [], [CPU])


def test_a_plan_in_which_nothing_can_run_is_refused_with_the_reasons(tmp_path: Path) -> None:
    """Every cell unsupported: each implementation's own reason is named."""
    able = {"supports": {"devices": ["cuda"]}}
    none = [combination("a", impl=impl("a", **able)), combination("b", impl=impl("b", supports={"dtypes": ["bf16"]}))]
    with pytest.raises(ConfigError, match=r"a: runs on cuda, not on cpu; b: dtype fp32.*attnsweep-doctor"):
        make(tmp_path, *none)
    planned = planning.make(settings(tmp_path), none, [CPU], hopeless=True)
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
        planning.make(settings(tmp_path), [combination()], [GPU, other])
    twin = replace(GPU, uuid="GPU-1")
    assert len(planning.make(settings(tmp_path), [combination()], [GPU, twin]).devices) == 2


def test_a_hundred_and_eighty_combinations_are_planned_in_a_moment(tmp_path: Path) -> None:
    """180 combinations of six cases: 1080 cells, well under a second of this process's time."""
    many = [combination(f"impl{number}") for number in range(180)]
    start = time.process_time()
    planned = make(tmp_path, *many)
    assert time.process_time() - start < 1.0
    assert len(planned.cells) == 1080


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


def test_tiny_goes_to_the_scenario(tmp_path: Path) -> None:
    """scale=tiny takes the scenario's tiny sizes."""
    small = combination(scenario={**PREFILL, "tiny": {"seq_len": [8], "batch_size": 1}})
    assert [cell.columns["q_len"] for cell in make(tmp_path, small, scale="tiny").cells] == [8]


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


# Interpreters and deadlines


def test_a_cell_runs_in_the_parents_interpreter_with_its_framework_preloaded(tmp_path: Path) -> None:
    """Torch and numpy; the compiler only where a cell of that interpreter compiles."""
    eager = make(tmp_path, combination())
    assert {cell.interpreter for cell in eager.cells} == {Interpreter(sys.executable, (), ("numpy", "torch"), own=True)}
    both = make(tmp_path, combination(), combination("c", compile=DEFAULT))
    assert {cell.interpreter.preload for cell in both.cells} == {("numpy", "torch", *COMPILER)}


def test_an_unsupported_compiled_cell_does_not_load_the_compiler(tmp_path: Path) -> None:
    """Only what will run decides what is imported."""
    never = combination("c", impl=impl("c", supports={"compile": ["eager"]}), compile=DEFAULT)
    planned = make(tmp_path, combination(), never)
    assert {cell.interpreter.preload for cell in planned.cells} == {("numpy", "torch")}


def test_a_library_on_a_gpu_finds_the_compiler_imported(tmp_path: Path) -> None:
    """Custom operators import it at their first call, in every cell: three seconds each. Not for what is not here."""
    library = impl("a", _target_="attnsweep.impls.FunctionAttention", function="json.loads", arguments={"c": "causal"})
    for device, more in ((GPU, COMPILER), (CPU, ())):
        planned = make(tmp_path, combination(impl=library), device=device)
        assert {cell.interpreter.preload for cell in planned.cells} == {("numpy", "torch", *more)}
    absent = combination(impl={**library, "distribution": "not-a-library"})
    for planned in (make(tmp_path, device=GPU), make(tmp_path, absent, device=GPU)):
        assert {cell.interpreter.preload for cell in planned.cells} == {("numpy", "torch")}


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
    assert found == {Interpreter(sys.executable, (("A", "x"), ("B", "2")), ("numpy", "torch"), own=True)}
    with pytest.raises(ConfigError, match=r"env\.variables\.A"):
        only(tmp_path, replace(one, impl=impl("a", env={"variables": {"A": [1]}})))


@pytest.mark.parametrize("name", sorted(RESERVED))
def test_a_variable_that_attnsweep_sets_itself_is_refused(tmp_path: Path, name: str) -> None:
    """The record would say that the cell had it."""
    one = combination("a", impl=impl("a", env={"variables": {"B": 2, name: "1"}}), scenario=one_case())
    with pytest.raises(ConfigError, match=rf"impl a: env\.variables\.{name} cannot be set: attnsweep itself sets A"):
        only(tmp_path, one)


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
        Interpreter(str(foreign), (), ("numpy", "torch"), own=False)
    }
    assert len((tmp_path / "calls").read_text().split("print(json.dumps(found))")) == 2


def test_another_interpreter_does_not_see_this_ones_pythonpath(
    tmp_path: Path, foreign: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A distribution that only PYTHONPATH shows here is not installed there; env.variables can show it again."""
    info = installed(tmp_path / "extra", "onlyhere", "1.5")
    monkeypatch.setenv("PYTHONPATH", str(info.parent))
    monkeypatch.chdir(info.parent)
    assert environment.foreign_versions(str(foreign), {}, ["onlyhere"]) == {"onlyhere": None}
    variables = {"PYTHONPATH": str(info.parent)}
    assert environment.foreign_versions(str(foreign), variables, ["onlyhere"]) == {"onlyhere": "1.5"}


def test_what_a_wrapper_says_before_its_python_is_no_answer(tmp_path: Path, foreign: Path) -> None:
    """A module system greets whoever loads it."""
    wrapper = tmp_path / "wrapper"
    wrapper.write_text(f'#!/bin/sh\necho Welcome\nexec {foreign} "$@"\n')
    wrapper.chmod(0o755)
    wanted = {"numpy": importlib.metadata.version("numpy")}
    assert environment.foreign_versions(str(wrapper), {}, ["numpy"]) == wanted


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
        why = why_unusable(one.interpreter.python)
        assert why is not None
        assert str(python) in why


#: Programs that are no Python that runs, and what is said of them.
NO_PYTHON = {
    "an error": ("echo an error >&2; exit 1", "is no Python 3.9 or newer that runs: an error"),
    "text": ("echo a banner", "is no Python 3.9 or newer that runs: a banner"),
    "another answer": ("echo '{}'", "is no Python 3.9 or newer that runs: {}"),
    "silence": ("exit 0", "is no Python 3.9 or newer that runs: it said nothing"),
    "another program": ('exec ls "$@"', "is no Python 3.9 or newer that runs: it does not run what follows -c"),
    "a shell": ('exec bash "$@"', "is no Python 3.9 or newer that runs: it does not run what follows -c"),
    "a hang": ("exec sleep 600", "did not answer within 0.2 s"),
    "no standard library": (
        f"PYTHONHOME=/nowhere exec {sys.executable} -c 0",
        "is no Python 3.9 or newer that runs: ModuleNotFoundError: No module named 'encodings'",
    ),
}


@pytest.mark.parametrize("kind", NO_PYTHON)
def test_an_interpreter_that_does_not_answer_costs_its_own_cells_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """They are known to be missing, in one sentence."""
    script, said = NO_PYTHON[kind]
    if kind == "a hang":
        monkeypatch.setattr(environment, "_ASK_S", 0.2)
    python = tmp_path / "python"
    python.write_text(f"#!/bin/sh\n{script}\n")
    python.chmod(0o755)
    several = [
        combination("gone", impl=impl("gone", env={"python": str(python)}, distribution="x"), scenario=one_case()),
        combination("here", scenario=one_case()),
    ]
    cells = {cell.columns["impl"]: cell for cell in make(tmp_path, *several).cells}
    whys = {name: why_missing(cell.payload["impl"], cell.interpreter, None, "cpu") for name, cell in cells.items()}
    assert whys == {"gone": f"{python} {said}", "here": None}
    assert cells["gone"].columns["impl_version"] is None


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


def test_the_estimate_knows_that_a_cpu_is_slow(tmp_path: Path) -> None:
    """By the FLOPs of a case, until its deadline; what a GPU takes for them is nothing beside the rest."""
    small, large, huge = (one_case(seq_len=n, num_heads=8, head_dim=128) for n in (128, 4096, 2**20))
    cells = {n: make(tmp_path, combination(scenario=one)) for n, one in enumerate((small, large, huge))}
    flops = cells[1].cells[0].columns["flops"] - cells[0].cells[0].columns["flops"]
    assert cells[1].estimate_s - cells[0].estimate_s == pytest.approx(4 * flops / 1e10)
    assert cells[2].estimate_s == cells[2].cells[0].timeout_s
    on_gpu = {planning.make(settings(tmp_path), [combination(scenario=one)], [GPU]).estimate_s for one in (small, huge)}
    assert len(on_gpu) == 1


def test_the_estimate_grows_with_cells_and_compiling_and_shrinks_with_gpus(tmp_path: Path) -> None:
    """Sampling to the cap, compiling, isolation; over all slots; nothing for what is skipped."""
    one, two = make(tmp_path, combination()), make(tmp_path, combination(), combination("b"))
    assert 0.6 * 6 < one.estimate_s < 3 * 6
    assert two.estimate_s == pytest.approx(2 * one.estimate_s)
    assert make(tmp_path, combination(compile=DEFAULT)).estimate_s > one.estimate_s + 6
    gpu, loaded = (
        planning.make(settings(tmp_path), [combination(timing=timing)], [GPU]).estimate_s
        for timing in (QUICK, {**QUICK, **LOAD})
    )
    assert loaded == pytest.approx(gpu + 6 * 3.0)
    twins = [GPU, replace(GPU, uuid="GPU-1")]
    alone, pair = (planning.make(settings(tmp_path), [combination()], gpus).estimate_s for gpus in (twins[:1], twins))
    assert pair == pytest.approx(alone / 2)
    assert replace(one, done={cell.id: Outcome(Status.OK, 1.0, None, ()) for cell in one.cells}).estimate_s == 0


@pytest.mark.parametrize("device", [CPU, GPU])
def test_what_a_cpu_ignores_of_the_timing_is_said(tmp_path: Path, device: Device) -> None:
    """What was typed and makes no difference there, each once; nothing of what the preset says itself."""
    typed = ("timing.cache=cold", "timing.sustained=true", "timing.soak_s=2.0", "timing.time_cap_s=0.7", "impl.x=1")
    asked = {**QUICK, **LOAD, "soak_s": 2.0, "time_cap_s": 0.7}
    cold = combination(scenario=one_case(), timing=asked, overrides=typed)
    hot = replace(
        cold,
        timing={**asked, "cache": "hot", "sustained": False},
        overrides=("timing.cache=hot", "timing.sustained=false"),
    )
    silent: list[str] = []
    planning.make(settings(tmp_path), [hot, combination(timing={**QUICK, **LOAD})], [device], say=silent.append)
    assert silent == []
    said: list[str] = []
    planning.make(settings(tmp_path), [hot, cold, cold], [device], say=said.append)
    fields = "timing.cache=cold, timing.sustained=true, timing.soak_s=2.0"
    sentence = f"Without effect on a CPU, where the cache is always hot and there is no load: {fields}"
    assert said == ([sentence] if device is CPU else [])
