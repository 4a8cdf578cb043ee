"""A run takes a shard, whole cases that have their part of every axis, or a sample that can be compared."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from attnsweep.devices import Device
from attnsweep.errors import ConfigError, Status
from composing import study
from plans import make, record
from sweeps import CPU, DEFAULT, EAGER, GPU, combination, impl, one_case


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
