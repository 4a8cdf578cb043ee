"""What one run takes of the cells: a shard, which is whole cases, or a sample of those that can run."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from attnsweep.errors import ConfigError
from attnsweep.plan import Cell


def sharded(cells: list[Cell], shard: tuple[int, int] | None) -> list[Cell]:
    """The i-th of n parts: each case is in one of them, whole, and their sizes differ by one case at most.

    Every n-th case of the grid would follow an axis whose length n divides: all forward cases in some parts, all
    backward ones in others. Neither the seed nor the order of the grid matters, only which cases there are.
    """
    if shard is None:
        return cells
    index, count = shard
    order = _spread({cell.group: cell.payload["case"] for cell in cells}, "shard")
    parts = {name: number * count // len(order) + 1 for number, name in enumerate(order)}
    if index not in parts.values():
        raise ConfigError(f"shard={index}/{count} is empty: there are {len(order)} cases to share out")
    return [cell for cell in cells if parts[cell.group] == index]


def sampled(cells: list[Cell], sample: int | None, seed: int) -> list[Cell]:
    """`sample` of the cells that can run, as many of each implementation, variant and compile mode as of any other.

    Each of these gives one cell a round, until it has none left; a larger sample holds the smaller one. All take cases
    in one order, which has each axis in its proportion from the beginning, and a second process of a case after the
    first of every other. Which cases there are and the seed decide it: implementations meet in the same cases, and so
    do machines.
    """
    if sample is None:
        return cells
    order = _spread({cell.group: cell.payload["case"] for cell in cells}, seed)
    place = {name: number for number, name in enumerate(order)}
    kinds: dict[tuple[str, ...], list[Cell]] = {}
    for cell in cells:
        if cell.unsupported is None:
            kinds.setdefault(tuple(cell.columns[key] for key in ("impl", "variant", "compile")), []).append(cell)
    turns = []
    for kind, own in kinds.items():
        own.sort(key=lambda cell: (cell.columns["replicate"], place[cell.group], cell.id))
        turns += [((number, _lot(seed, number, kind)), cell.id) for number, cell in enumerate(own)]
    drawn = {one for _, one in sorted(turns)[:sample]}
    return [cell for cell in cells if cell.id in drawn]


def _spread(cases: Mapping[str, Mapping[str, Any]], seed: int | str) -> list[str]:
    """The cases in an order of which every beginning has each value of each axis, and each combination, in proportion.

    Kernel herding (Chen, Welling and Smola, 2010, arXiv:1203.3472): next comes the case that is least like those before
    it, beside how like it is to all. Two cases are 2**n alike where n axes agree, which is the number of sets of such
    axes: so each draw adds least to the squares of what the counts of values, pairs, triples and so on are off their
    proportion. Axes that vary together, such as q_len and kv_len, are one. A random order by the seed and the names
    decides between equals. Time grows with the square: 0.3 s for 5000 cases.
    """
    import numpy as np

    names = sorted(cases, key=lambda name: _lot(seed, name))
    axes = set()
    for values in zip(*(map(str, cases[name].values()) for name in names), strict=True):
        numbers = {value: number for number, value in enumerate(dict.fromkeys(values))}
        axes.add(tuple(numbers[value] for value in values))
    values_of = np.array(list(axes))
    count = len(names)

    def alike(one: int) -> np.ndarray[Any, np.dtype[np.int64]]:
        agreeing: np.ndarray[Any, np.dtype[np.int64]] = (values_of == values_of[:, [one]]).sum(axis=0, dtype=np.int64)
        return 1 << agreeing

    to_all = np.zeros(count, np.int64)
    for one in range(count):
        to_all += alike(one)
    surplus = np.zeros(count, np.int64)  # `count` times it, a whole number: the same on every machine
    order = []
    for _ in names:
        surplus -= to_all
        one = int(surplus.argmin())
        order.append(names[one])
        surplus += count * alike(one)
        surplus[one] = 2**62  # never again: the rest adds up to less
    return order


def _lot(seed: int | str, *words: Any) -> bytes:
    """A place in a random order that `seed` and `words` alone decide."""
    return hashlib.sha256(f"{seed} {words}".encode()).digest()
