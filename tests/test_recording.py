"""An ending becomes a record that says what happened, and nothing of where this machine keeps its files."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from attnsweep import parquet, planning, recording
from attnsweep.devices import Device
from attnsweep.errors import Status
from attnsweep.plan import Cell
from attnsweep.pool.ending import Ending
from attnsweep.records import MEASURED, Record
from attnsweep.schema import Check
from sweeps import CPU, GPU, combination, ending, failed, impl, measured, one_case, settings

#: A process that died and could say nothing.
DIED = ending(status=Status.CRASHED, reason="it died of SIGSEGV")
HOME = os.path.expanduser("~")


def cell(tmp_path: Path, device: Device = GPU, **fields: Any) -> Cell:
    one = combination(scenario=one_case(**fields))
    return planning.make(settings(tmp_path), [one], [device]).cells[0]


def write(tmp_path: Path, end: Ending, device: Device = GPU, now: float = 103.5, **fields: Any) -> dict[str, Any]:
    """The values of the record that an ending leaves, read back from its file."""
    one = cell(tmp_path, device, **fields)
    written = recording.write(one, device, end, tmp_path, clock=lambda: now)
    assert sorted(os.listdir(tmp_path)) == [f"{one.id}.parquet"]
    (values,) = parquet.read([tmp_path / f"{one.id}.parquet"]).to_pylist()
    assert values == written.values
    return dict(values)


def sample(time_s: float, clock: float = 1800.0, throttle: tuple[str, ...] = (), **changed: Any) -> dict[str, Any]:
    plain = {"sm_clock_mhz": clock, "mem_clock_mhz": 3201.0, "power_w": 500.0, "temperature_c": 50.0}
    return {**plain, "time_s": time_s, "throttle": list(throttle), **changed}


def test_a_measured_cell_is_recorded_with_its_rates_and_stages(tmp_path: Path) -> None:
    """Latency from the worker, rates from the latency, the machine from the device."""
    values = write(tmp_path, ending(measured(0.5, sm_count=132, torch="2.13.0")))
    assert values["status"] == "ok"
    assert values["latency_ms"] == 0.5
    assert values["tflops"] == pytest.approx(values["flops"] / 0.5e-3 / 1e12)
    assert values["gb_per_s"] == pytest.approx(values["bytes"] / 0.5e-3 / 1e9)
    assert values["tokens_per_s"] == pytest.approx(32 / 0.5e-3)
    assert values["bound"] == "memory"
    assert 0 < values["peak_fraction"] < 1
    assert (values["inputs_s"], values["prepare_s"], values["timing_s"]) == (0.2, 0.3, 0.4)
    assert (values["gpu_uuid"], values["torch"], values["sm_count"]) == ("GPU-0", "2.13.0", 132)
    assert values["started_at"] == "2026-01-02T03:04:05.678+00:00"
    assert values["flags"] == []


def test_the_slot_that_ran_a_cell_is_the_one_recorded(tmp_path: Path) -> None:
    """The plan knows the first GPU only; the record names the one that the pool gave."""
    other = Device(**{**GPU.to_dict(), "uuid": "GPU-7", "power_limit_w": 600.0})
    written = recording.write(cell(tmp_path), other, ending(measured()), tmp_path, clock=lambda: 104.0)
    assert (written.values["gpu_uuid"], written.values["power_limit_w"]) == ("GPU-7", 600.0)


def test_wall_time_ends_with_the_record_and_overhead_is_what_no_stage_took(tmp_path: Path) -> None:
    """3.5 s from the request to the record, 1.0 s of stages: 2.5 s of overhead."""
    values = write(tmp_path, ending(measured()), now=103.5)
    assert values["wall_s"] == pytest.approx(3.5)
    assert values["overhead_s"] == pytest.approx(2.5)


def test_wall_time_holds_the_writing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The clock is read after a record was written once, and the record that stays holds that time."""
    now, paths = [103.0], []
    real = parquet.write

    def slow(record: Record, path: Path) -> None:
        real(record, path)
        paths.append(path.name)
        now[0] += 0.25

    monkeypatch.setattr(parquet, "write", slow)
    one = cell(tmp_path)
    written = recording.write(one, GPU, ending(measured()), tmp_path, clock=lambda: now[0])
    assert written.values["wall_s"] == pytest.approx(3.25)
    assert len(paths) == 2
    assert paths[1] == f"{one.id}.parquet"


def test_a_process_that_told_nothing_has_no_overhead(tmp_path: Path) -> None:
    """Without stages there is nothing to subtract from, so there is no number."""
    crashed = ending(status=Status.CRASHED, reason="died of SIGSEGV", exit_signal="SIGSEGV")
    values = write(tmp_path, crashed)
    assert values["status"] == "crashed"
    assert values["exit_signal"] == "SIGSEGV"
    assert values["wall_s"] == pytest.approx(3.5)
    assert values["overhead_s"] is None


@pytest.mark.parametrize("status", [status for status in Status if status is not Status.OK])
def test_a_failure_keeps_what_was_learned_and_no_number(tmp_path: Path, status: Status) -> None:
    """Also where the worker had measured before it failed: the errors stay, the speed goes."""
    outcome = failed(status, latency_ms=0.4, samples_ms=[0.4], host_ms=0.5, max_abs_err=0.25, torch="2.13.0")
    values = write(tmp_path, ending(outcome))
    assert values["status"] == status.value
    assert values["reason"] == "it broke"
    assert (values["max_abs_err"], values["torch"], values["import_s"]) == (0.25, "2.13.0", 0.1)
    assert all(values[name] is None for name in MEASURED)
    assert values["flops"] is not None


def test_what_the_worker_says_of_a_stage_wins(tmp_path: Path) -> None:
    """import_s is the library's import alone, where the stage holds the framework's too."""
    values = write(tmp_path, ending(measured(import_s=0.01)))
    assert values["import_s"] == 0.01
    assert values["overhead_s"] == pytest.approx(2.5)


def test_an_outcome_that_makes_no_record_becomes_an_error_with_its_reason(tmp_path: Path) -> None:
    """A wrong column, a wrong type, a success without a latency: the sweep goes on, the row says why."""
    for outcome, said in (
        (measured(no_such_column=1), "no_such_column"),
        (measured(max_abs_err="large"), "max_abs_err"),
        ({**measured(), "columns": {}}, "latency_ms"),
        ({**measured(), "stages": {"lunch": 1.0}}, "lunch_s"),
    ):
        values = write(tmp_path, ending(outcome))
        assert values["status"] == "error"
        assert said in values["reason"]
        assert values["impl"] == "naive"
        assert values["wall_s"] == pytest.approx(3.5)
        assert all(values[name] is None for name in MEASURED)


INT8 = {"class": "int8", "cosine": 0.99, "rel_l1": 0.1}


@pytest.mark.parametrize(
    ("check", "precision", "direction", "loose"),
    [
        (Check(), None, "fwd_bwd", False),
        (Check(forward_factor=1.0, backward_factor=1.0), None, "fwd_bwd", False),
        (Check(forward_factor=2.5), None, "fwd", True),
        (Check(forward_factor=2.5), None, "bwd", False),
        (Check(backward_factor=3.5), None, "bwd", True),
        (Check(backward_factor=3.5), None, "fwd_bwd", True),
        (Check(backward_factor=3.5), None, "fwd", False),
        (Check(forward_factor=2.5), INT8, "fwd", False),
        (Check(), {**INT8, "cosine": 0.999, "rel_l1": 0.05}, "fwd", False),
        (Check(), {**INT8, "cosine": 0.9}, "fwd", True),
        (Check(), {**INT8, "rel_l1": 0.2}, "fwd", True),
    ],
)
def test_what_a_looser_check_let_through_says_so(
    tmp_path: Path, check: Check, precision: dict[str, Any] | None, direction: str, loose: bool
) -> None:
    """A factor or a limit of a quantised class that was asked for and allows more than what comes with attnsweep, also
    where the cell did not come as far as that.
    """
    one = combination(impl=impl("a", precision=precision), scenario=one_case(direction=direction))
    (planned,) = planning.make(settings(tmp_path, check=check), [one], [GPU]).cells
    for end in (ending(measured(check="passed")), ending(measured(check="failed")), DIED):
        assert recording.row(planned, GPU, end)["flags"] == (["loose_check"] if loose else [])


@pytest.mark.parametrize("end", [ending(measured(check="skipped: check.enabled=false")), DIED])
def test_what_was_to_run_unchecked_says_so_however_it_ended(tmp_path: Path, end: Ending) -> None:
    """Or a crash of it, as it knows nothing, would speak over an older result that was checked."""
    (one,) = planning.make(
        settings(tmp_path, check=Check(enabled=False)), [combination(scenario=one_case())], [GPU]
    ).cells
    assert recording.row(one, GPU, end)["flags"] == ["unchecked"]
    known = recording.write_known(one, Status.MISSING, "no such library", tmp_path)
    assert known.values["flags"] == ["unchecked"]


def test_a_ceiling_is_not_checked_and_not_called_unchecked(tmp_path: Path) -> None:
    """It has no output that could be: its own flag, the worker's, says what it is."""
    ceiling = combination(impl=impl("a", _target_="attnsweep.impls.ceilings.CopyCeiling"), scenario=one_case())
    for check in (Check(enabled=False), Check(forward_factor=9.0)):
        (one,) = planning.make(settings(tmp_path, check=check), [ceiling], [GPU]).cells
        assert recording.row(one, GPU, DIED)["flags"] == []


@pytest.mark.parametrize("status", [Status.UNSUPPORTED, Status.MISSING])
def test_what_had_no_process_says_which_measurement_it_would_have_been(tmp_path: Path, status: Status) -> None:
    """The digest is in every record: one that had a process has the same."""
    one = cell(tmp_path)
    known = recording.write_known(one, status, "because", tmp_path).values["measurement"]
    ran = write(tmp_path, ending(failed(Status.ERROR)))["measurement"]
    broken = write(tmp_path, ending(measured(no_such_column=1)))["measurement"]
    assert known == ran == broken == one.columns["measurement"]
    assert len(known) == 8


def test_telemetry_inside_the_window_is_summarised(tmp_path: Path) -> None:
    """Median clocks, mean power, highest temperature, all reasons; readings before and after do not count."""
    readings = [
        sample(100.5, 300.0, ("gpu_idle",), power_w=90.0, temperature_c=90.0),
        sample(101.0, 1980.0, (), power_w=600.0, temperature_c=50.0),
        sample(101.5, 1500.0, ("sw_power_cap",), power_w=700.0, temperature_c=61.0),
        sample(102.0, 1600.0, ("applications_clocks_setting",), power_w=650.0, temperature_c=60.0),
        sample(102.5, 200.0, ("hw_slowdown",), power_w=10.0, temperature_c=99.0),
    ]
    values = write(tmp_path, ending(measured(), telemetry=readings))
    assert values["sm_clock_mhz"] == 1600.0
    assert values["mem_clock_mhz"] == 3201.0
    assert values["power_w"] == pytest.approx(650.0)
    assert values["temperature_c"] == 61.0
    assert values["throttle"] == ["applications_clocks_setting", "sw_power_cap"]
    assert values["flags"] == ["throttled"]
    assert [reading["time_s"] for reading in values["telemetry"]] == [0.5, 1.0, 1.5, 2.0, 2.5]
    assert values["telemetry"][0]["sm_clock_mhz"] == 300.0


def test_an_idle_gpu_at_set_clocks_is_not_throttled(tmp_path: Path) -> None:
    """Nothing to do between blocks, and clocks that somebody set, hold nothing back; other flags stay."""
    readings = [sample(101.5, 1980.0, ("gpu_idle", "applications_clocks_setting"))]
    values = write(tmp_path, ending(measured(flags=["unproven"]), telemetry=readings))
    assert values["throttle"] == ["applications_clocks_setting", "gpu_idle"]
    assert values["flags"] == ["unproven"]


def test_a_sensor_that_does_not_answer_leaves_a_null(tmp_path: Path) -> None:
    """A reading may lack any of its values; no reading in the window is no value, and not an empty list of reasons."""
    values = write(tmp_path, ending(measured(), telemetry=[sample(101.5, power_w=None)]))
    assert values["power_w"] is None
    assert values["sm_clock_mhz"] == 1800.0
    assert values["throttle"] == []
    values = write(tmp_path, ending(measured(), telemetry=[sample(99.0)]))
    assert values["sm_clock_mhz"] is values["throttle"] is None


def test_a_cpu_has_no_telemetry_and_no_gpu(tmp_path: Path) -> None:
    """Null, never zero."""
    values = write(tmp_path, ending(measured(timer="host", cache="hot")), device=CPU)
    for name in ("telemetry", "throttle", "sm_clock_mhz", "gpu_name", "gpu_uuid", "peak_fraction", "bound"):
        assert values[name] is None
    assert (values["device"], values["device_name"], values["cache"]) == ("cpu", "AMD EPYC", "hot")


def test_a_speed_that_cannot_be_is_flagged(tmp_path: Path) -> None:
    """Faster than cold memory can deliver: recorded, and marked so that nobody ranks it."""
    one = {"num_heads": 32, "head_dim": 128, "seq_len": 4096, "dtype": "bf16"}
    believable = write(tmp_path, ending(measured(0.3, sm_count=132), telemetry=[sample(101.5, 1980.0)]), **one)
    assert believable["flags"] == []
    assert believable["bound"] == "compute"
    assert 0 < believable["peak_fraction_at_clock"] < 1
    too_fast = write(tmp_path, ending(measured(0.05, sm_count=132), telemetry=[sample(101.5, 1980.0)]), **one)
    assert too_fast["flags"] == ["implausible"]


@pytest.mark.parametrize("column", ["kernel_ms", "events_ms", "sustained_ms"])
def test_whatever_may_rank_must_be_possible(tmp_path: Path, column: str) -> None:
    """A case may be ranked by another timer than its own, and by its load."""
    one = {"num_heads": 32, "head_dim": 128, "seq_len": 4096, "dtype": "bf16"}
    columns = {"sm_count": 132, column: 0.05}
    row = write(tmp_path, ending(measured(0.3, **columns), telemetry=[sample(101.5, 1980.0)]), **one)
    assert row["flags"] == ["implausible"]


def test_the_highest_clock_decides_what_can_be(tmp_path: Path) -> None:
    """The median clock is the sustained regime's where most of the window was; the latency may be the burst's."""
    one = {"num_heads": 32, "head_dim": 128, "seq_len": 4096, "dtype": "bf16", "causal": False}
    flops = 4 * 32 * 4096 * 4096 * 128
    at_1900 = flops / (4096 * 132 * 1.9e9) * 1e3
    readings = [sample(101.1, 1980.0), sample(101.5, 1400.0), sample(101.9, 1400.0)]
    values = write(tmp_path, ending(measured(at_1900, sm_count=132), telemetry=readings), **one)
    assert values["flags"] == []
    assert values["peak_fraction_at_clock"] > 1


@pytest.mark.parametrize(("block_clock", "flags"), [([1980.0, 1400.0], []), ([1400.0, 1401.0], ["implausible"])])
def test_the_gpus_own_counters_have_a_say_in_what_can_be(
    tmp_path: Path, block_clock: list[float], flags: list[str]
) -> None:
    """NVML reads every 20 ms and may miss the clock of a block."""
    one = {"num_heads": 32, "head_dim": 128, "seq_len": 4096, "dtype": "bf16", "causal": False}
    flops = 4 * 32 * 4096 * 4096 * 128
    at_1900 = flops / (4096 * 132 * 1.9e9) * 1e3
    outcome = measured(at_1900, sm_count=132, block_clock_mhz=block_clock, burst_clock_mhz=1950.0)
    values = write(tmp_path, ending(outcome, telemetry=[sample(101.5, 1400.0)]), **one)
    assert values["flags"] == flags
    assert values["peak_fraction_at_clock"] == pytest.approx(1900 / 1950)
    assert values["sm_clock_mhz"] == 1400.0


def loaded(sustained_ms: float | None = 0.5, **columns: Any) -> dict[str, Any]:
    """An outcome whose steady load lasted from 101.5 to 102.5 s of the clock, after the burst."""
    outcome = measured(0.4, sustained_ms=sustained_ms, **columns)
    return {**outcome, "windows": {"burst": [100.5, 101.0], "load": [101.5, 102.5]}}


def counted(watts: float, step_s: float = 0.1, begin_s: float = 100.0, end_s: float = 103.0) -> list[dict[str, Any]]:
    """Readings every 20 ms of a GPU at `watts` whose energy counter moves every `step_s`; power_w says 500."""
    times = [begin_s + 0.02 * number for number in range(round((end_s - begin_s) / 0.02) + 1)]
    steps = [int((time_s - begin_s) / step_s + 1e-6) for time_s in times]
    return [
        sample(time_s, energy_mj=7e12 + step * step_s * watts * 1e3) for time_s, step in zip(times, steps, strict=True)
    ]


@pytest.mark.parametrize("step_s", [0.02, 0.1, 0.3])
def test_energy_per_call_is_the_slope_of_the_counter_times_the_sustained_latency(tmp_path: Path, step_s: float) -> None:
    """Between the first and the last reading at which it had moved: 600 W for 0.5 ms, however coarse its steps."""
    values = write(tmp_path, ending(loaded(0.5), telemetry=counted(600.0, step_s)))
    assert values["energy_mj"] == pytest.approx(300.0)
    assert values["load_power_w"] == pytest.approx(500.0)
    assert values["telemetry"][0]["energy_mj"] == 7e12


def test_only_the_steady_load_counts_for_energy(tmp_path: Path) -> None:
    """What the GPU drew before the window and after it is another matter."""
    before, during = counted(100.0, end_s=101.5), counted(600.0, begin_s=101.5, end_s=102.5)
    values = write(tmp_path, ending(loaded(0.5), telemetry=[*before, *during, *counted(90.0, begin_s=102.6)]))
    assert values["energy_mj"] == pytest.approx(300.0)


@pytest.mark.parametrize("step_s", [0.7, 5.0, None])
def test_without_a_counter_that_moves_twice_energy_comes_from_the_mean_power(
    tmp_path: Path, step_s: float | None
) -> None:
    """One step, none, or a GPU that has no counter."""
    readings = counted(600.0, step_s) if step_s else [sample(101.6), sample(102.0, power_w=700.0)]
    values = write(tmp_path, ending(loaded(0.5), telemetry=readings))
    assert values["load_power_w"] == pytest.approx(500.0 if step_s else 600.0)
    assert values["energy_mj"] == pytest.approx(0.5 * values["load_power_w"])


def test_the_load_has_throttle_reasons_of_its_own_and_no_flag(tmp_path: Path) -> None:
    """It is expected to be capped; only the burst is judged."""
    readings = [sample(100.7, 1980.0), sample(102.0, 1500.0, ("sw_power_cap",), power_w=690.0)]
    values = write(tmp_path, ending(loaded(), telemetry=readings))
    assert (values["throttle"], values["load_throttle"]) == ([], ["sw_power_cap"])
    assert (values["power_w"], values["load_power_w"]) == (500.0, 690.0)
    assert values["sm_clock_mhz"] == 1980.0
    assert values["flags"] == []


def test_a_load_that_gave_no_latency_gives_no_energy(tmp_path: Path) -> None:
    """Nor power nor reasons; the same where nothing was read meanwhile, and for a cell that failed."""
    under_load = ("energy_mj", "load_power_w", "load_throttle")
    for end in (
        ending(loaded(None), telemetry=counted(600.0)),
        ending(loaded(0.5), telemetry=counted(600.0, end_s=101.4)),
        ending({**loaded(0.5), "status": "incorrect", "reason": "it is wrong"}, telemetry=counted(600.0)),
        ending(measured(sustained_ms=0.5), telemetry=counted(600.0)),
    ):
        values = write(tmp_path, end)
        assert [values[name] for name in under_load] == [None] * 3


def test_what_the_slot_saw_of_others_is_flagged(tmp_path: Path) -> None:
    """Beside what the worker saw, and for a failure as well."""
    seen = frozenset({"foreign_process", "gpu_busy"})
    values = write(tmp_path, ending(measured(flags=["unproven"]), flags=seen))
    assert values["flags"] == ["foreign_process", "gpu_busy", "unproven"]
    assert write(tmp_path, ending(failed(Status.CRASHED), flags=seen))["flags"] == sorted(seen)


@pytest.mark.parametrize("number", [None, 0, 3])
def test_how_many_other_gpus_were_in_use_is_recorded(tmp_path: Path, number: int | None) -> None:
    """Of a failure as well."""
    for outcome in (measured(), failed(Status.CRASHED)):
        assert write(tmp_path, ending(outcome, other_gpus_in_use=number))["other_gpus_in_use"] == number


def test_looking_for_others_is_no_time_of_the_cell(tmp_path: Path) -> None:
    """3.5 s from the request to the record, 0.2 s of them spent waiting for the driver's list."""
    values = write(tmp_path, ending(measured(), looked_s=0.2), now=103.5)
    assert values["wall_s"] == pytest.approx(3.3)
    assert values["overhead_s"] == pytest.approx(2.3)


@pytest.mark.parametrize(
    ("name", "bound", "rate", "peak"),
    [("MatmulCeiling", "compute", "tflops", 989.4), ("CopyCeiling", "memory", "gb_per_s", 4800.0)],
)
def test_a_ceiling_is_rated_by_its_own_work(tmp_path: Path, name: str, bound: str, rate: str, peak: float) -> None:
    """Against the peak that it is the ceiling of, whatever bounds the case."""
    ceiling = impl("ceiling", _target_=f"attnsweep.impls.ceilings.{name}")
    one = combination(impl=ceiling, scenario=one_case(dtype="bf16"))
    (planned,) = planning.make(settings(tmp_path), [one], [GPU]).cells
    end = ending(measured(0.5, sm_count=132, flags=["ceiling"]))
    values = recording.write(planned, GPU, end, tmp_path, clock=lambda: 104.0).values
    work = values["flops"] / 1e12 if bound == "compute" else values["bytes"] / 1e9
    assert values[rate] == pytest.approx(work / 0.5e-3)
    assert values["bound"] == bound
    assert values["peak_fraction"] == pytest.approx(values[rate] / peak)
    assert values["flags"] == ["ceiling"]


def test_a_quantised_row_is_not_held_to_the_arithmetic_of_its_case(tmp_path: Path) -> None:
    """1.2 times the 16-bit peak is impossible for a native row, and possible in eight bits."""
    fields = {"dtype": "bf16", "seq_len": 16384}
    one = combination(scenario=one_case(**fields))
    flops = planning.make(settings(tmp_path), [one], [GPU]).cells[0].columns["flops"]
    latency_ms = flops / (1.3 * 989.4e12) * 1e3
    for precision, flags in (("native", ["implausible"]), ("int8", [])):
        assert write(tmp_path, ending(measured(latency_ms, precision_class=precision)), **fields)["flags"] == flags


def test_an_unsupported_cell_is_recorded_without_a_process(tmp_path: Path) -> None:
    """Status, reason and when; no times of a process that never was."""
    one = Cell(**{**vars(cell(tmp_path)), "unsupported": "head_dim 512 is above 256"})
    recording.write_known(one, Status.UNSUPPORTED, str(one.unsupported), tmp_path)
    (values,) = parquet.read([tmp_path / f"{one.id}.parquet"]).to_pylist()
    assert (values["status"], values["reason"]) == ("unsupported", "head_dim 512 is above 256")
    assert values["started_at"].endswith("+00:00")
    assert values["wall_s"] is None
    assert values["gpu_uuid"] is None
    assert values["command"].startswith("attnsweep ")


@pytest.mark.parametrize(
    ("text", "cut"),
    [
        ('File "/opt/venv/lib/python3.11/site-packages/flash_attn/x.py", line 3', 'File "flash_attn/x.py", line 3'),
        ("/usr/lib/python3/dist-packages/a/b.so: undefined symbol", "a/b.so: undefined symbol"),
        ('File "/home/some one/src/attnsweep/worker.py", line 1, in run', 'File "attnsweep/worker.py", line 1, in run'),
        ("(/x/attnsweep/src/attnsweep/impls/base.py:3)", "(attnsweep/impls/base.py:3)"),
        ('File "/usr/lib/python3.11/json/decoder.py"', 'File "python3.11/json/decoder.py"'),
        (f'File "{HOME}/my own/kernel.py", line 1', 'File "~/my own/kernel.py", line 1'),
        (f"in {HOME}", "in ~"),
        (f"PATH={HOME}/bin:{HOME}/x", "PATH=~/bin:~/x"),
        ("1/2 of q/k/v, s/m, a//b and </tag> stay", "1/2 of q/k/v, s/m, a//b and </tag> stay"),
        ("see https://example.org/a/b and /etc/hosts", "see https://example.org/a/b and /etc/hosts"),
        ("No such file: '/data/it is/here.bin'", "No such file: '/data/it is/here.bin'"),
    ],
)
def test_paths_are_cut_to_the_package(text: str, cut: str) -> None:
    """What is installed is named from its package on; other text that has slashes stays as it is."""
    assert recording.cut_paths(text) == cut


def test_home_and_working_folder_never_stand_in_a_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In reason, traceback and unproven_reason, quoted or bare, with blanks in them."""
    home, cwd = tmp_path / "home of me", tmp_path / "home of me" / "work here"
    cwd.mkdir(parents=True)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.chdir(cwd)
    text = f"File \"{cwd}/impl.py\", line 3\nOSError: '{home}/.cache/x' in {cwd} and {home}/y, {cwd}/z.so: bad"
    outcome = {**failed(Status.ERROR, f"cannot open {cwd}/z.so"), "traceback": text}
    values = write(cwd, ending(outcome))
    assert values["reason"] == "cannot open z.so"
    assert str(home) not in values["traceback"]
    assert 'File "impl.py", line 3' in values["traceback"]
    assert "'~/.cache/x' in . and ~/y, z.so: bad" in values["traceback"]
    unproven = f"cupti-python cannot be imported: {cwd}/z.so: undefined symbol"
    values = write(cwd, ending(measured(unproven_reason=unproven)))
    assert values["unproven_reason"] == "cupti-python cannot be imported: z.so: undefined symbol"


def test_what_a_killed_sweep_was_writing_is_discarded(tmp_path: Path) -> None:
    """Of these cells alone: whole records, logs and what another sweep is writing stay."""
    cell, other = "fa2-eager-b1-0-01234567", "fa2-eager-b1-1-89abcdef"
    stays = [f"{cell}.parquet", f"{cell}.log", f".{other}.parquet.12.tmp", f".{other}.rehearsal", ".hidden"]
    goes = [f".{cell}.parquet.4194304.tmp", f".{cell}.rehearsal", f"..{cell}.rehearsal.7.tmp"]
    for name in stays + goes:
        (tmp_path / name).write_text("")
    recording.discard_unfinished({cell}, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == set(stays)
