"""A run takes a shard, whole cases that have their part of every axis, or a sample that can be compared."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from attnsweep import selection
from attnsweep.devices import Device
from attnsweep.errors import ConfigError, Status
from attnsweep.plan import Cell
from composing import study
from plans import make, record
from sweeps import CPU, DEFAULT, EAGER, GPU, QUICK, combination, impl, one_case

#: Of mha_grid: what takes every case, and what takes no bias.
FEW = ("naive", "fa2")


@pytest.fixture(scope="module", params=[FEW, pytest.param(None, marks=pytest.mark.slow)], ids=["few", "all"])
def grid(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> list[Cell]:
    """The cells of mha_grid on an H200, of a few implementations or of all."""
    several = [one for one in study("mha_grid")[1] if request.param is None or one.impl["name"] in request.param]
    return list(make(tmp_path_factory.mktemp("grid"), *several, device=GPU, dry_run=True).cells)


def by_kind(cells: Iterable[Cell]) -> dict[tuple[str, ...], list[dict[str, Any]]]:
    """The cases that each implementation and compile mode can run, a case once for each of its cells."""
    found: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for cell in cells:
        if cell.unsupported is None:
            found.setdefault((cell.columns["impl"], cell.columns["compile"]), []).append(cell.payload["case"])
    return found


def off(drawn: list[dict[str, Any]], cases: list[dict[str, Any]]) -> Iterator[float]:
    """By how many of the drawn cases each value and each pair of values is off its proportion among the cases."""
    axes = ("batch_size", "q_len", "num_heads", "head_dim", "bias", "direction")
    for some in [*combinations(axes, 1), *combinations(axes, 2)]:
        here = Counter(tuple(case[axis] for axis in some) for case in drawn)
        for value, count in Counter(tuple(case[axis] for axis in some) for case in cases).items():
            yield abs(here[value] - len(drawn) * count / len(cases))


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
    """Of mha_grid each part holds as many cases of any value, or pair of values, as another has, but for a few."""
    one = study("mha_grid")[1][0]
    shards = [make(tmp_path, one, device=GPU, shard=(index, count)) for index in range(1, count + 1)]
    held = [{cell.group: cell.payload["case"] for cell in one.cells} for one in shards]
    whole = [case for cases in held for case in cases.values()]
    assert max(max(off(list(cases.values()), whole)) for cases in held) <= 4
    assert {len(cases) for cases in held} <= {540 // count, -(-540 // count)}


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


@pytest.mark.parametrize("rounds", [4, 8, 26, 80])
def test_a_sample_has_each_axis_in_proportion(grid: list[Cell], rounds: int) -> None:
    """Of mha_grid each implementation has every value, and pair of values, of what it can run in proportion, to three
    cases, by whichever seed; and from four cases each on, those that take a bias have backward cases with one.
    """
    runnable = by_kind(grid)
    for seed in range(20):
        drawn = by_kind(selection.sampled(grid, rounds * len(runnable), seed))
        for kind, cases in runnable.items():
            assert len(drawn[kind]) == rounds
            assert max(off(drawn[kind], cases)) <= 3, (seed, kind)
            quadrants = {(case["direction"], case["bias"]) for case in cases}
            assert {(case["direction"], case["bias"]) for case in drawn[kind]} == quadrants, (seed, kind)


@settings(
    max_examples=15,
    deadline=None,
    database=None,
    phases=[Phase.generate],  # shrinking takes minutes
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(data=st.data())
def test_a_sample_of_any_grid_has_its_axes_in_proportion(tmp_path: Path, data: st.DataObject) -> None:
    """Whatever the lengths of the axes, which of the cases are there and in what order: proportions, to three cases."""
    sizes = {
        key: list(range(8, 8 + 8 * data.draw(st.integers(1, most), key), 8))
        for key, most in {"batch_size": 4, "seq_len": 6, "num_heads": 3, "head_dim": 3}.items()
    }
    planned = make(tmp_path, combination(scenario=one_case(**sizes, direction=["fwd", "bwd"])), dry_run=True).cells
    rare = data.draw(st.integers(1, 9), "one backward case in")
    cells = [
        cell
        for number, cell in enumerate(data.draw(st.permutations(planned), "cells"))
        if number % rare == 0 or cell.payload["case"]["direction"] == "fwd"
    ]
    seed, sample = data.draw(st.integers(0, 99), "seed"), data.draw(st.integers(1, len(cells)), "sample")
    drawn = selection.sampled(cells, sample, seed)
    again = selection.sampled(cells[::-1], sample, seed)
    assert {cell.id for cell in drawn} == {cell.id for cell in again}
    assert {cell.id for cell in drawn} <= {cell.id for cell in selection.sampled(cells, sample + 1, seed)}
    assert max(off(*([cell.payload["case"] for cell in some] for some in (drawn, cells)))) <= 3


def test_a_sample_is_the_same_in_every_process(tmp_path: Path) -> None:
    """What a seed draws is written down here: it follows neither from hash() nor from what numpy's version does."""
    drawn = [[cell.group for cell in make(tmp_path, sample=2, seed=seed).cells] for seed in range(3)]
    name = "b{}-h4-s{}-d16-causal-fp32-fwd".format
    assert drawn == [[name(1, 128), name(4, 64)], [name(1, 32), name(4, 64)], [name(1, 64), name(4, 32)]]


def test_a_sample_has_another_process_of_a_case_after_one_of_each(tmp_path: Path) -> None:
    """Six cases in three processes each: the first six cells drawn are the six cases."""
    thrice = combination(timing={**QUICK, "replicates": 3})
    for seed in range(5):
        six, ten = (make(tmp_path, thrice, sample=count, seed=seed).cells for count in (6, 10))
        assert len({cell.group for cell in six}) == 6
        assert sorted(Counter(cell.group for cell in ten).values()) == [1, 1, 2, 2, 2, 2]
