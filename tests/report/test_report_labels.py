"""Labels, versions and device names."""

from __future__ import annotations

from typing import Any

import pytest
from report_records import prefill, values

from attnsweep.errors import Status
from attnsweep.report import labels

POINT = prefill(1, 2048)


def texts(*rows: dict[str, Any], all_versions: bool = False) -> list[str]:
    return [label.text for label in labels.label_all(list(rows), all_versions)]


def test_a_label_is_implementation_variant_and_compile_mode() -> None:
    """Eager is left out; everything else is said."""
    rows = [values(POINT, "fa2"), values(POINT, "fa2", variant="block_q=64"), values(POINT, "fa2", "default")]
    rows.append(values(POINT, "fa2", "max_autotune", variant="block_q=64"))
    assert texts(*rows) == ["fa2", "fa2[block_q=64]", "fa2 (default)", "fa2[block_q=64] (max_autotune)"]


def test_fields_of_a_variant_lose_the_path_that_tells_nothing_apart() -> None:
    """Where two fields of an implementation have one name, all of it stays; what is no field's name is left alone."""
    options = "kernel_options.BLOCK_M=64,kernel_options.BLOCK_N=32"
    rows = [
        values(POINT, "flex", "default", variant=options),
        values(POINT, "flex", variant="kernel_options.BLOCK_M=a.b=1"),
    ]
    assert texts(*rows) == ["flex[BLOCK_M=64,BLOCK_N=32] (default)", "flex[BLOCK_M=a.b=1]"]
    both = "fwd.BLOCK_M=64,bwd.BLOCK_M=32"
    assert texts(values(POINT, "a", variant=both), values(POINT, "flex", variant=options)) == [
        f"a[{both}]",
        "flex[BLOCK_M=64,BLOCK_N=32]",
    ]
    assert len(set(texts(values(POINT, variant="a.x=1"), values(POINT, variant="x=1")))) == 2


def test_versions_become_part_of_the_label_when_all_are_compared() -> None:
    """With --versions all two versions are two implementations."""
    rows = [values(POINT, impl_version="2.8.3"), values(POINT, "fa2", "default", impl_version="2.9")]
    assert texts(*rows, all_versions=True) == ["fa2 @2.8.3", "fa2 @2.9 (default)"]


def test_different_things_never_share_a_label() -> None:
    """An implementation that is named like another's label is told apart."""
    assert len(set(texts(values(POINT, "fa2", "default"), values(POINT, "fa2 (default)")))) == 2


def test_a_row_without_a_name_still_has_a_label() -> None:
    """Null implementation, variant and compile mode are no reason to fail."""
    row = values(POINT) | {"impl": None, "variant": None, "compile": None}
    assert texts(row) == ["unnamed"]


@pytest.mark.parametrize(
    ("older", "newer"),
    [
        ("2.8.3", "2.10.0"),
        ("2.9.0rc1", "2.9.0"),
        ("2.9.0.dev3", "2.9.0rc1"),
        ("2.8.3", "2.8.3.post2"),
        ("2.8.3", "2.8.3+cu130"),
        ("1.9", "2"),
    ],
)
def test_versions_sort_by_age(older: str, newer: str) -> None:
    """As packages order them, not as text."""
    assert labels.version_key(older) < labels.version_key(newer)


def newest(*rows: dict[str, Any]) -> list[bool]:
    return labels.newest_versions(list(rows), labels.device_names(list(rows)))


def test_the_newest_version_of_a_case_counts() -> None:
    """Of two versions the newer stays, and a case that only the older has stays too."""
    old, new = values(POINT, impl_version="2.8.3"), values(POINT, impl_version="2.10")
    alone = values(prefill(4, 2048), impl_version="2.8.3")
    assert newest(old, new, alone) == [False, True, True]


def test_a_missing_library_gives_way_once_it_is_there() -> None:
    """A row without a version is older than any, on the same host; elsewhere it is still missing."""
    missing = values(POINT, status=Status.MISSING, impl_version=None)
    elsewhere = missing | {"hostname": "node-2"}
    assert newest(missing, values(POINT), elsewhere) == [False, True, True]


def test_a_device_is_named_by_what_tells_it_apart() -> None:
    """The power limit is part of the name only where one name has several."""
    same = [values(POINT), values(POINT, power_limit_w=699.98)]
    assert labels.device_names(same) == ["NVIDIA H200", "NVIDIA H200"]
    several = [values(POINT), values(POINT, power_limit_w=500.0, hostname="node-2", gpu_uuid="GPU-2")]
    assert labels.device_names(several) == ["NVIDIA H200, 700 W", "NVIDIA H200, 500 W"]
    cut = [values(POINT), values(POINT, sm_count=78, hostname="node-2")]
    assert labels.device_names(cut) == ["NVIDIA H200, 132 SMs", "NVIDIA H200, 78 SMs"]


def test_a_row_that_does_not_know_its_power_limit_takes_its_hosts() -> None:
    """A failure before the GPU was asked belongs to the same device; where the host has two kinds it is unknown."""
    rows = [values(POINT), values(POINT, power_limit_w=500.0, hostname="node-2", gpu_uuid="GPU-2")]
    lost = values(POINT, status=Status.MISSING) | {"power_limit_w": None, "gpu_uuid": None, "hostname": "node-2"}
    assert labels.device_names([*rows, lost])[2] == "NVIDIA H200, 500 W"
    both = [rows[0], rows[1] | {"hostname": "node-1"}, lost | {"hostname": "node-1"}]
    assert labels.device_names(both)[2] == "NVIDIA H200, unknown W"
