"""Names of kernels short enough to read."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache

from attnsweep.report.text import line

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
