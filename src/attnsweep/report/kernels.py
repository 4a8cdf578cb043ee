"""The kernels that ran, by names short enough to read."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable
from functools import lru_cache
from typing import TYPE_CHECKING

from attnsweep.report.tables import Cell, Column, Table
from attnsweep.report.text import line

if TYPE_CHECKING:
    from attnsweep.report.derive import Derived

#: Characters of a short name; longer ones lose their end.
LIMIT = 60


@lru_cache(maxsize=4096)
def short_name(name: str) -> str:
    """A kernel's own name: no return type, namespace, template arguments or argument list, at most LIMIT long.

    `void flash::flash_fwd_kernel<...>(flash::Params)` is flash_fwd_kernel. A name that says nothing alone keeps
    its namespace: gemvx::kernel. Names that the profiler cut, with brackets that never close, are accepted.
    """
    text = line(name).replace("(anonymous namespace)::", "").replace(";", ",")
    head = _without_templates(text).split("(", 1)[0].split()
    if not head:
        return _cut(text)
    *parents, own = [part for part in head[-1].split("::") if part] or [text]
    if parents and re.fullmatch(r"(?i)kernel\d*", own):
        own = f"{parents[-1]}::{own}"
    return _cut(own)


def _without_templates(text: str) -> str:
    kept, depth = [], 0
    for one in text:
        if one == "<":
            depth += 1
        elif one == ">" and depth:
            depth -= 1
        elif not depth:
            kept.append(one)
    return "".join(kept)


def _cut(text: str) -> str:
    return text if len(text) <= LIMIT else text[: LIMIT - 3] + "..."


def short_names(names: Iterable[str]) -> list[str]:
    """The different short names of `names`, in order of appearance."""
    return list(dict.fromkeys(short_name(name) for name in names if line(name)))


def kernel_table(derived: Derived) -> Table:
    """Each label with the kernels that were seen running for it, and in how many cases."""
    seen: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    cases: Counter[tuple[str, str]] = Counter()
    for section in derived.sections:
        for case in section.cases:
            for text, one in case.measured.items():
                if one.kernels:
                    seen[(text, section.key.device)].update(one.kernels)
                    cases[(text, section.key.device)] += 1
    several = len({device for _, device in seen}) > 1
    columns = [Column("implementation")] + ([Column("device")] if several else [])
    columns += [Column("kernels (in how many cases)"), Column("cases", True)]
    rows = []
    for (text, device), names in sorted(seen.items()):
        told = ", ".join(
            name if number == cases[(text, device)] else f"{name} ({number})" for name, number in names.most_common()
        )
        place = [Cell(device)] if several else []
        rows.append((Cell(text), *place, Cell(told), Cell(str(cases[(text, device)]))))
    note = (
        "What the profiler saw on the GPU, without namespaces and template arguments; a number in brackets counts "
        "the cases of a kernel that did not run in all of them."
    )
    return Table(
        "Kernels that ran", (note if rows else "No record names the kernels that ran.",), tuple(columns), tuple(rows)
    )
