"""An ending becomes a record that says what happened, and nothing of where this machine keeps its files."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from attnsweep import plan, recording, records
from attnsweep.devices import Device
from attnsweep.errors import Status
from attnsweep.plan import Cell
from attnsweep.pool.ending import Ending
from attnsweep.records import MEASURED, Record
from sweeps import CPU, GPU, combination, ending, failed, measured, one_case, settings

HOME = os.path.expanduser("~")


def cell(tmp_path: Path, device: Device = GPU, **fields: Any) -> Cell:
    one = combination(scenario=one_case(**fields))
    return plan.make(settings(tmp_path), [one], [device]).cells[0]


def write(tmp_path: Path, end: Ending, device: Device = GPU, now: float = 103.5, **fields: Any) -> dict[str, Any]:
    """The values of the record that an ending leaves, read back from its file."""
    one = cell(tmp_path, device, **fields)
    written = recording.write(one, device, end, tmp_path, clock=lambda: now)
    assert sorted(os.listdir(tmp_path)) == [f"{one.id}.parquet"]
    (values,) = records.read([tmp_path / f"{one.id}.parquet"]).to_pylist()
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
    real = Record.write

    def slow(record: Record, path: Path) -> None:
        real(record, path)
        paths.append(path.name)
        now[0] += 0.25

    monkeypatch.setattr(Record, "write", slow)
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


def test_the_highest_clock_decides_what_can_be(tmp_path: Path) -> None:
    """The median clock is the sustained regime's where most of the window was; the latency may be the burst's."""
    one = {"num_heads": 32, "head_dim": 128, "seq_len": 4096, "dtype": "bf16", "causal": False}
    flops = 4 * 32 * 4096 * 4096 * 128
    at_1900 = flops / (4096 * 132 * 1.9e9) * 1e3
    readings = [sample(101.1, 1980.0), sample(101.5, 1400.0), sample(101.9, 1400.0)]
    values = write(tmp_path, ending(measured(at_1900, sm_count=132), telemetry=readings), **one)
    assert values["flags"] == []
    assert values["peak_fraction_at_clock"] > 1


def test_an_unsupported_cell_is_recorded_without_a_process(tmp_path: Path) -> None:
    """Status, reason and when; no times of a process that never was."""
    one = Cell(**{**vars(cell(tmp_path)), "unsupported": "head_dim 512 is above 256"})
    recording.write_unsupported(one, tmp_path)
    (values,) = records.read([tmp_path / f"{one.id}.parquet"]).to_pylist()
    assert (values["status"], values["reason"]) == ("unsupported", "head_dim 512 is above 256")
    assert values["started_at"].endswith("+00:00")
    assert values["wall_s"] is None
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
    """In reason and traceback, quoted or bare, with blanks in them."""
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
