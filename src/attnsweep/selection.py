"""What one run takes of the cells: a shard, which is whole cases, or a sample of those that can run."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping
from typing import Any

from attnsweep.errors import ConfigError
from attnsweep.plan import Cell


def sharded(cells: list[Cell], shard: tuple[int, int] | None) -> list[Cell]:
    """The i-th of n parts: each case is in one of them, whole, and their sizes differ by one case at most."""
    if shard is None:
        return cells
    index, count = shard
    cases = {cell.group: cell.payload["case"] for cell in cells}
    parts = _dealt(cases, count)
    if index not in parts.values():
        raise ConfigError(f"shard={index}/{count} is empty: there are {len(cases)} cases to share out")
    return [cell for cell in cells if parts[cell.group] == index]


def _dealt(cases: Mapping[str, Mapping[str, Any]], count: int) -> dict[str, int]:
    """The part, from 1, of each case: in rounds, each case to the part that has the fewest like it so far.

    Every n-th case of the grid would follow an axis whose length n divides: all forward cases in some parts, all
    backward ones in others. Neither the seed nor the order of the grid matters, only which cases there are.
    """
    dealt: dict[str, int] = {}
    held: dict[int, Counter[str]] = {part: Counter() for part in range(1, count + 1)}
    waiting: list[int] = []
    for name in sorted(cases, key=lambda name: _lot("shard", name)):
        values = [f"{key} {value}" for key, value in cases[name].items()]
        waiting = waiting or list(held)
        part = min(waiting, key=lambda one: sum(held[one][value] for value in values))
        waiting.remove(part)
        held[part].update(values)
        dealt[name] = part
    return dealt


def sampled(cells: list[Cell], sample: int | None, seed: int) -> list[Cell]:
    """`sample` of the cells that can run, as many of each implementation, variant and compile mode as of any other.

    Each of these gives one cell a round, until it has none left; a larger sample holds the smaller one. Cases are
    drawn by the seed and their names alone: implementations meet in the same cases, and so do machines.
    """
    if sample is None:
        return cells
    kinds: dict[tuple[str, ...], list[Cell]] = {}
    for cell in cells:
        if cell.unsupported is None:
            kinds.setdefault(tuple(cell.columns[key] for key in ("impl", "variant", "compile")), []).append(cell)
    turns = []
    for kind, own in kinds.items():
        own.sort(key=lambda cell: (_lot(seed, cell.group, cell.columns["replicate"]), cell.id))
        turns += [((number, _lot(seed, number, kind)), cell.id) for number, cell in enumerate(own)]
    drawn = {one for _, one in sorted(turns)[:sample]}
    return [cell for cell in cells if cell.id in drawn]


def _lot(seed: int | str, *words: Any) -> bytes:
    """A place in a random order that `seed` and `words` alone decide."""
    return hashlib.sha256(f"{seed} {words}".encode()).digest()
