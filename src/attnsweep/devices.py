"""Which devices are here, found without touching CUDA: NVML for GPUs, /proc for the CPU.

Discovery runs in the parent; the dataclass crosses to the worker as a plain dict.
"""

from __future__ import annotations

import os
import platform
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from attnsweep.errors import AttnsweepError, ConfigError

KINDS = ("cpu", "cuda")


@dataclass(frozen=True)
class Device:
    """One GPU or the CPU. `uuid` is NVML's GPU UUID, or "cpu"; `compute_capability` is e.g. 9.0."""

    kind: str
    uuid: str
    name: str
    compute_capability: float | None = None
    memory_bytes: int | None = None
    power_limit_w: float | None = None
    driver: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """The fields as JSON carries them."""
        return asdict(self)


def find(kind: str = "auto", gpus: str | list[int | str] | None = None) -> list[Device]:
    """The devices that a sweep may use; `auto` takes the GPUs where there are any, else the CPU.

    `gpus` picks by index among those that CUDA_VISIBLE_DEVICES leaves, or by UUID (a prefix is enough).
    Raises ConfigError when what was asked for is not here, naming what is.
    """
    if kind not in ("auto", *KINDS):
        raise ConfigError(f"device must be one of auto, cpu, cuda, not {kind!r}")
    if platform.system() != "Linux":
        raise ConfigError(f"attnsweep runs on Linux with NVIDIA GPUs or a CPU, not on {platform.system()}")
    if kind == "cpu":
        if gpus is not None:
            raise ConfigError("gpus= picks GPUs, and device=cpu was asked for")
        return [cpu()]
    found = visible_gpus()
    if not found:
        if kind == "cuda" or gpus is not None:
            raise ConfigError("no NVIDIA GPU is visible here (NVML finds none, or CUDA_VISIBLE_DEVICES hides them)")
        return [cpu()]
    if gpus is None:
        return found
    wanted = [gpus] if isinstance(gpus, (str, int)) else list(gpus)
    return list(dict.fromkeys(_pick(found, str(one)) for one in wanted))


def _pick(found: list[Device], wanted: str) -> Device:
    if wanted.isdecimal() and int(wanted) < len(found):
        return found[int(wanted)]
    matches = [device for device in found if wanted.startswith("GPU-") and device.uuid.startswith(wanted)]
    if len(matches) == 1:
        return matches[0]
    choices = ", ".join(f"{index} ({device.uuid})" for index, device in enumerate(found))
    raise ConfigError(f"gpus: {wanted!r} is not one of {choices}")


def cpu() -> Device:
    """The CPU as a device, named by its model."""
    name = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text(errors="replace").splitlines():
            if line.startswith("model name"):
                name = line.split(":", 1)[1].strip()
                break
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return Device(kind="cpu", uuid="cpu", name=name, memory_bytes=memory)


def visible_gpus() -> list[Device]:
    """The GPUs that NVML finds and CUDA_VISIBLE_DEVICES leaves, in its order; none without a driver."""
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return []
    try:
        driver = _text(pynvml.nvmlSystemGetDriverVersion())
        found = [_gpu(pynvml.nvmlDeviceGetHandleByIndex(i), driver) for i in range(pynvml.nvmlDeviceGetCount())]
    finally:
        pynvml.nvmlShutdown()
    variable = os.environ.get("CUDA_VISIBLE_DEVICES")
    return found if variable is None else _visible(found, variable)


def _visible(found: list[Device], variable: str) -> list[Device]:
    """What CUDA makes of CUDA_VISIBLE_DEVICES: indices or UUID prefixes, cut at the first that is neither."""
    chosen: list[Device] = []
    for entry in (part.strip() for part in variable.split(",")):
        if entry.isdecimal() and int(entry) < len(found):
            chosen.append(found[int(entry)])
            continue
        matches = [device for device in found if entry.startswith("GPU-") and device.uuid.startswith(entry)]
        if len(matches) != 1:
            break
        chosen.append(matches[0])
    return chosen


def _gpu(handle: Any, driver: str) -> Device:
    import pynvml

    major, minor = pynvml.nvmlDeviceGetCudaComputeCapability(handle)
    try:
        power_limit_w = pynvml.nvmlDeviceGetEnforcedPowerLimit(handle) / 1000
    except pynvml.NVMLError_NotSupported:
        power_limit_w = None
    return Device(
        kind="cuda",
        uuid=_text(pynvml.nvmlDeviceGetUUID(handle)),
        name=_text(pynvml.nvmlDeviceGetName(handle)),
        compute_capability=major + minor / 10,
        memory_bytes=int(pynvml.nvmlDeviceGetMemoryInfo(handle).total),
        power_limit_w=power_limit_w,
        driver=driver,
    )


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value


#: NVML's clock event reasons by bit (nvml.h, nvmlClocksEventReason*). The first two surprise nobody: an idle
#: GPU, and clocks that somebody set.
_THROTTLE = {
    0x1: "gpu_idle",
    0x2: "applications_clocks_setting",
    0x4: "sw_power_cap",
    0x8: "hw_slowdown",
    0x10: "sync_boost",
    0x20: "sw_thermal_slowdown",
    0x40: "hw_thermal_slowdown",
    0x80: "hw_power_brake_slowdown",
    0x100: "display_clock_setting",
}


class Sensors:
    """NVML's sensors of one GPU, open until `close`.

    Raises AttnsweepError when NVML does not know a GPU of that UUID.
    """

    def __init__(self, uuid: str) -> None:
        import pynvml

        self._nvml, self._uuid = pynvml, uuid
        try:
            pynvml.nvmlInit()
        except pynvml.NVMLError as error:
            raise AttnsweepError(f"NVML does not start, so nothing can be read of {uuid}: {error}") from None
        try:
            self._handle = pynvml.nvmlDeviceGetHandleByUUID(uuid)
        except pynvml.NVMLError as error:
            pynvml.nvmlShutdown()
            raise AttnsweepError(f"NVML does not know the GPU {uuid}: {error}") from None

    def sample(self) -> dict[str, Any]:
        """One reading: records.TELEMETRY's keys and `throttle`, the reasons by name.

        `time_s` is CLOCK_MONOTONIC; clocks in MHz, power in W, temperature in C, energy in mJ since the driver was
        loaded; None where it has none.
        """
        nvml, handle = self._nvml, self._handle
        reasons = self._read(nvml.nvmlDeviceGetCurrentClocksThrottleReasons, handle) or 0
        return {
            "time_s": time.monotonic(),
            "sm_clock_mhz": self._read(nvml.nvmlDeviceGetClockInfo, handle, nvml.NVML_CLOCK_SM),
            "mem_clock_mhz": self._read(nvml.nvmlDeviceGetClockInfo, handle, nvml.NVML_CLOCK_MEM),
            "power_w": self._power_w(),
            "temperature_c": self._read(nvml.nvmlDeviceGetTemperature, handle, nvml.NVML_TEMPERATURE_GPU),
            "energy_mj": self._read(nvml.nvmlDeviceGetTotalEnergyConsumption, handle),
            "throttle": [name for bit, name in _THROTTLE.items() if reasons & bit],
        }

    def compute_processes(self) -> int | None:
        """How many processes hold a compute context on the GPU, ours too; None where NVML cannot tell.

        Not whose: in a container the process ids may be those of the host.
        """
        # Not the unversioned name: with a driver that lacks it, that one raises what is no NVMLError
        found = self._read(self._nvml.nvmlDeviceGetComputeRunningProcesses_v3, self._handle)
        return None if found is None else len(found)

    def other_gpus_in_use(self) -> int | None:
        """How many other GPUs hold a compute context, of those that NVML shows; None where it cannot tell of one."""
        nvml, found = self._nvml, 0
        count = self._read(nvml.nvmlDeviceGetCount)
        if count is None:
            return None
        for index in range(count):
            handle = self._read(nvml.nvmlDeviceGetHandleByIndex, index)
            uuid = None if handle is None else self._read(nvml.nvmlDeviceGetUUID, handle)
            if uuid is None:
                return None
            if _text(uuid) != self._uuid:
                processes = self._read(nvml.nvmlDeviceGetComputeRunningProcesses_v3, handle)
                if processes is None:
                    return None
                found += bool(processes)
        return found

    def utilization(self) -> int | None:
        """Per cent of NVML's last sample period (1/6 to 1 s) in which a kernel ran; None where it cannot tell."""
        rates = self._read(self._nvml.nvmlDeviceGetUtilizationRates, self._handle)
        return None if rates is None else int(rates.gpu)

    def _power_w(self) -> float | None:
        """The power of this moment; where a GPU cannot tell that, NVML's mean (a second's since Ampere)."""
        nvml = self._nvml
        fields = self._read(nvml.nvmlDeviceGetFieldValues, self._handle, [nvml.NVML_FI_DEV_POWER_INSTANT])
        if fields and fields[0].nvmlReturn == nvml.NVML_SUCCESS:
            return float(fields[0].value.uiVal) / 1000
        mean = self._read(nvml.nvmlDeviceGetPowerUsage, self._handle)
        return None if mean is None else float(mean) / 1000

    def _read(self, function: Any, *arguments: Any) -> Any:
        try:
            return function(*arguments)
        except self._nvml.NVMLError:
            return None

    def close(self) -> None:
        """Give NVML back."""
        self._nvml.nvmlShutdown()
