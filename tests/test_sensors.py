"""NVML's sensors of a GPU, read through a stand-in for the driver."""

from __future__ import annotations

import os
import sys
import time
import types

import pytest

from attnsweep.devices import Sensors
from attnsweep.errors import AttnsweepError
from attnsweep.records import TELEMETRY


class NVMLError(Exception):
    """As pynvml's."""


def raises(*arguments):
    raise NVMLError("Not Supported")


@pytest.fixture
def nvml(monkeypatch):
    """A pynvml with one GPU; `opened` counts init less shutdown."""
    module = types.ModuleType("pynvml")
    module.opened = 0
    module.NVMLError = NVMLError
    module.NVML_CLOCK_SM, module.NVML_CLOCK_MEM, module.NVML_TEMPERATURE_GPU = 1, 2, 0
    module.NVML_FI_DEV_POWER_INSTANT, module.NVML_SUCCESS = 186, 0

    def count(by):
        module.opened += by

    module.nvmlInit = lambda: count(1)
    module.nvmlShutdown = lambda: count(-1)
    module.nvmlDeviceGetCount = lambda: 1
    module.nvmlDeviceGetHandleByIndex = lambda index: f"handle {index}"
    module.nvmlDeviceGetUUID = lambda handle: b"GPU-" + handle.removeprefix("handle ").encode()
    module.nvmlDeviceGetHandleByUUID = lambda uuid: "handle" if uuid == "GPU-1" else raises()
    module.nvmlDeviceGetClockInfo = lambda handle, clock: {1: 1980, 2: 3201}[clock]
    module.nvmlDeviceGetTemperature = lambda handle, sensor: 41
    module.nvmlDeviceGetCurrentClocksThrottleReasons = lambda handle: 0
    instant = types.SimpleNamespace(nvmlReturn=0, value=types.SimpleNamespace(uiVal=612_500))
    module.nvmlDeviceGetFieldValues = lambda handle, fields: [instant]
    module.nvmlDeviceGetPowerUsage = lambda handle: 500_000
    module.nvmlDeviceGetTotalEnergyConsumption = lambda handle: 123_456_789_012
    module.nvmlDeviceGetComputeRunningProcesses_v3 = lambda handle: []
    module.nvmlDeviceGetUtilizationRates = lambda handle: types.SimpleNamespace(gpu=37, memory=5)
    module.instant = instant
    monkeypatch.setitem(sys.modules, "pynvml", module)
    return module


def test_a_reading_has_the_columns_of_telemetry_in_their_units(nvml):
    """Stamped with the clock that the worker's samples have."""
    sensors = Sensors("GPU-1")
    before = time.monotonic()
    reading = sensors.sample()
    assert set(reading) == {*TELEMETRY, "throttle"}
    assert before <= reading.pop("time_s") <= time.monotonic()
    assert reading == {
        "sm_clock_mhz": 1980,
        "mem_clock_mhz": 3201,
        "power_w": 612.5,
        "temperature_c": 41,
        "energy_mj": 123_456_789_012,
        "throttle": [],
    }
    assert nvml.opened == 1
    sensors.close()
    assert nvml.opened == 0


@pytest.mark.parametrize(
    ("bits", "names"),
    [
        (0x1, ["gpu_idle"]),
        (0x4 | 0x20, ["sw_power_cap", "sw_thermal_slowdown"]),
        (
            0x2 | 0x8 | 0x40 | 0x80,
            [
                "applications_clocks_setting",
                "hw_slowdown",
                "hw_thermal_slowdown",
                "hw_power_brake_slowdown",
            ],
        ),
    ],
)
def test_throttle_reasons_have_names(nvml, bits, names):
    """As NVML's header calls them."""
    nvml.nvmlDeviceGetCurrentClocksThrottleReasons = lambda handle: bits
    assert Sensors("GPU-1").sample()["throttle"] == names


@pytest.mark.parametrize("how", ["the call fails", "the field fails"])
def test_without_instantaneous_power_it_is_nvmls_mean(nvml, how):
    """Older GPUs have no such field."""
    if how == "the call fails":
        nvml.nvmlDeviceGetFieldValues = raises
    else:
        nvml.instant.nvmlReturn = 3
    assert Sensors("GPU-1").sample()["power_w"] == 500.0


def test_what_a_gpu_cannot_tell_is_none(nvml):
    """A MIG slice has no clocks or power of its own."""
    for name in [name for name in vars(nvml) if name.startswith("nvmlDeviceGet") and "Handle" not in name]:
        setattr(nvml, name, raises)
    sensors = Sensors("GPU-1")
    reading = sensors.sample()
    assert [reading[key] for key in TELEMETRY[1:]] == [None] * 5
    assert reading["throttle"] == []
    assert sensors.compute_processes() is sensors.utilization() is sensors.other_gpus_in_use() is None


def test_processes_are_counted_and_not_told_apart(nvml):
    """Their ids may be those of another namespace, so none is compared with any of ours."""
    sensors = Sensors("GPU-1")
    assert sensors.compute_processes() == 0
    found = [types.SimpleNamespace(pid=pid, usedGpuMemory=None) for pid in (0, os.getpid())]
    nvml.nvmlDeviceGetComputeRunningProcesses_v3 = lambda handle: found
    assert sensors.compute_processes() == 2


@pytest.mark.parametrize(
    ("processes", "found"),
    [([], 0), ([2], 1), ([0, 3, 1], 1), ([2, 9], 1), ([2, 9, 0, 4], 2), ([None, 9], None), ([0, 9, None], None)],
)
def test_other_gpus_are_in_use_where_any_process_has_them_open(nvml, processes, found):
    """Its own does not count; where one of them cannot tell, nobody knows how many."""

    def of(handle):
        number = processes[int(handle.removeprefix("handle "))]
        return raises() if number is None else [None] * number

    nvml.nvmlDeviceGetCount = lambda: len(processes)
    nvml.nvmlDeviceGetComputeRunningProcesses_v3 = of
    assert Sensors("GPU-1").other_gpus_in_use() == found


def test_a_gpu_that_has_no_handle_here_is_not_taken_for_idle(nvml):
    """NVML counts GPUs that a container may not open."""
    nvml.nvmlDeviceGetHandleByIndex = raises
    assert Sensors("GPU-1").other_gpus_in_use() is None


def test_utilization_is_the_share_of_time_in_which_kernels_ran(nvml):
    """Per cent; that of the memory is not asked for."""
    assert Sensors("GPU-1").utilization() == 37


def test_an_unknown_gpu_is_refused_and_nvml_closed_again(nvml):
    """The sentence names it."""
    with pytest.raises(AttnsweepError, match="does not know the GPU GPU-2"):
        Sensors("GPU-2")
    assert nvml.opened == 0


def test_a_driver_that_does_not_start_is_said(nvml):
    """Rather than measured without telemetry."""
    nvml.nvmlInit = raises
    with pytest.raises(AttnsweepError, match="NVML does not start"):
        Sensors("GPU-1")
