"""Devices are found through NVML, as CUDA would number and hide them, without CUDA."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

import pytest

from attnsweep import devices
from attnsweep.devices import Device
from attnsweep.errors import ConfigError

UUIDS = [
    "GPU-aaaa0000-0000-0000-0000-000000000000",
    "GPU-aabb1111-0000-0000-0000-000000000000",
    "GPU-cccc2222-0000-0000-0000-000000000000",
]


class FakeNvml(ModuleType):
    """NVML as far as discovery reads it: a list of GPUs, open and close counted."""

    class NVMLError(Exception):
        pass

    class NVMLError_NotSupported(NVMLError):
        pass

    def __init__(self, uuids: list[str], *, driver: bool = True, old: bool = False) -> None:
        super().__init__("pynvml")
        self.uuids, self.driver, self.old, self.opened = uuids, driver, old, 0

    def text(self, value: str) -> str | bytes:
        """Old bindings gave bytes."""
        return value.encode() if self.old else value

    def nvmlInit(self) -> None:
        if not self.driver:
            raise self.NVMLError("Driver Not Loaded")
        self.opened += 1

    def nvmlShutdown(self) -> None:
        self.opened -= 1

    def nvmlSystemGetDriverVersion(self) -> str | bytes:
        return self.text("570.10")

    def nvmlDeviceGetCount(self) -> int:
        return len(self.uuids)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> str:
        return self.uuids[index]

    def nvmlDeviceGetCudaComputeCapability(self, handle: str) -> tuple[int, int]:
        return 9, 0

    def nvmlDeviceGetEnforcedPowerLimit(self, handle: str) -> int:
        if self.old:
            raise self.NVMLError_NotSupported
        return 700_000

    def nvmlDeviceGetUUID(self, handle: str) -> str | bytes:
        return self.text(handle)

    def nvmlDeviceGetName(self, handle: str) -> str | bytes:
        return self.text("NVIDIA H200")

    def nvmlDeviceGetMemoryInfo(self, handle: str) -> Any:
        class Memory:
            total = 150 * 10**9

        return Memory


@pytest.fixture
def nvml(monkeypatch: pytest.MonkeyPatch) -> FakeNvml:
    """Three GPUs, all visible."""
    fake = FakeNvml(UUIDS)
    monkeypatch.setitem(sys.modules, "pynvml", fake)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return fake


def found(kind: str = "auto", gpus: Any = None) -> list[int]:
    """Which of the three GPUs `find` gives."""
    return [UUIDS.index(device.uuid) for device in devices.find(kind, gpus)]


def test_all_gpus_are_found_with_what_nvml_says(nvml: FakeNvml) -> None:
    """Name, capability, memory, power limit and driver; NVML is closed again."""
    first = devices.find()[0]
    assert first == Device(
        kind="cuda",
        uuid=UUIDS[0],
        name="NVIDIA H200",
        compute_capability=9.0,
        memory_bytes=150 * 10**9,
        power_limit_w=700.0,
        driver="570.10",
    )
    assert Device(**first.to_dict()) == first
    assert found() == [0, 1, 2]
    assert nvml.opened == 0


def test_older_bindings_that_give_bytes_and_no_power_limit_are_understood(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Text is text, and what a GPU cannot say is None."""
    monkeypatch.setitem(sys.modules, "pynvml", FakeNvml(UUIDS[:1], old=True))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    (only,) = devices.find()
    assert (only.name, only.uuid, only.driver) == ("NVIDIA H200", UUIDS[0], "570.10")
    assert only.power_limit_w is None


@pytest.mark.parametrize(
    ("variable", "left"),
    [
        ("0", [0]),
        ("2,0", [2, 0]),
        (" 1 , 2 ", [1, 2]),
        (UUIDS[1], [1]),
        ("GPU-cc,GPU-aabb", [2, 1]),
        ("GPU-cc,0", [2, 0]),
        ("0,7,1", [0]),  # no such index: CUDA stops there
        ("0,-1,1", [0]),
        ("1,GPU-aa,2", [1]),  # a prefix of two GPUs
        ("1,rubbish,2", [1]),
    ],
)
def test_cuda_visible_devices_is_read_as_cuda_reads_it(
    nvml: FakeNvml, monkeypatch: pytest.MonkeyPatch, variable: str, left: list[int]
) -> None:
    """Indices and UUID prefixes in its order, cut at the first entry that is neither."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", variable)
    assert found("cuda") == left


@pytest.mark.parametrize("variable", ["", "-1", "rubbish", "NoDevFiles"])
def test_hidden_gpus_are_not_there(nvml: FakeNvml, monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    """auto falls to the CPU as it does without a GPU; cuda says that the variable may hide them."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", variable)
    assert [device.kind for device in devices.find("auto")] == ["cpu"]
    with pytest.raises(ConfigError, match="CUDA_VISIBLE_DEVICES"):
        devices.find("cuda")


@pytest.mark.parametrize(
    ("gpus", "picked"),
    [(1, [1]), ("1", [1]), ([2, 0], [2, 0]), (["GPU-cc"], [2]), ([UUIDS[0], 1], [0, 1]), ([1, "GPU-aabb"], [1])],
)
def test_gpus_picks_by_index_or_uuid(nvml: FakeNvml, gpus: Any, picked: list[int]) -> None:
    """In the order asked for, each once."""
    assert found("auto", gpus) == picked


def test_gpus_counts_among_the_visible_ones(nvml: FakeNvml, monkeypatch: pytest.MonkeyPatch) -> None:
    """Index 0 is the first that CUDA would see."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,1")
    assert found("cuda", 0) == [2]
    with pytest.raises(ConfigError, match="2"):
        found("cuda", 2)


@pytest.mark.parametrize("gpus", [3, "GPU-aa", "GPU-zz", "first", [0, 9]])
def test_a_gpu_that_is_not_one_is_refused_with_those_that_are(nvml: FakeNvml, gpus: Any) -> None:
    """Unknown and ambiguous ones alike."""
    with pytest.raises(ConfigError) as caught:
        devices.find("auto", gpus)
    assert all(uuid in str(caught.value) for uuid in UUIDS)


def test_without_a_driver_auto_is_the_cpu_and_cuda_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without a GPU measures on its CPU, unless a GPU was asked for."""
    monkeypatch.setitem(sys.modules, "pynvml", FakeNvml([], driver=False))
    (only,) = devices.find()
    assert (only.kind, only.uuid) == ("cpu", "cpu")
    assert only.name
    assert only.memory_bytes is not None
    assert only.memory_bytes > 0
    for asked in ({"kind": "cuda"}, {"kind": "auto", "gpus": [0]}):
        with pytest.raises(ConfigError, match="no NVIDIA GPU"):
            devices.find(**asked)  # type: ignore[arg-type]


def test_the_cpu_can_be_asked_for_beside_gpus(nvml: FakeNvml) -> None:
    """device=cpu takes the CPU; with gpus= it contradicts itself."""
    assert [device.kind for device in devices.find("cpu")] == ["cpu"]
    with pytest.raises(ConfigError, match="gpus="):
        devices.find("cpu", [0])


def test_a_wrong_kind_is_answered_with_the_choices() -> None:
    """device=gpu is not a word of ours."""
    with pytest.raises(ConfigError, match="auto, cpu, cuda"):
        devices.find("gpu")


def test_another_system_is_refused_in_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only Linux for now."""
    monkeypatch.setattr("platform.system", lambda: "Darwin")
    with pytest.raises(ConfigError, match=r"Linux.*Darwin"):
        devices.find()
