"""What a cell is called: the id that makes a sweep resumable, and the digest of what may be pooled with it."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

#: Longest parts of an id; with separators, replicate and hash below 180 bytes, so that the temporary file
#: name that a record is first written under stays below 200.
_LONGEST = {"impl": 32, "variant": 24, "compile": 28, "case": 72}


def canonical(value: Any) -> str:
    """JSON with sorted keys and no spaces: equal values, equal text. Infinity and NaN stand as Python writes them."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True)


def hashed(
    *,
    impl: Mapping[str, Any],
    variant: str,
    compile: Mapping[str, Any],
    case: Mapping[str, Any],
    timing: Mapping[str, Any],
    check: Mapping[str, Any],
    seed: int,
    version: str | None,
    device_name: str,
    protocol: int,
) -> dict[str, Any]:
    """All that changes a measurement, the replicate aside: what `measurement` and `cell_id` are made of.

    That is the implementation with its environment, variant, compile mode, case, timing, how outputs are checked, seed,
    version of the library, source of our kernels where it uses them, the device's name, and the protocol's version.
    Not in it is where and when a cell runs, and how many replicates there are beside it: asking for more keeps those
    that are done.
    """
    return {
        "impl": {key: value for key, value in impl.items() if key != "isolation"},
        "variant": variant,
        "compile": dict(compile),
        "case": dict(case),
        "timing": {key: value for key, value in timing.items() if key != "replicates"},
        "check": dict(check),
        "seed": seed,
        "version": version,
        "kernels": kernels_digest() if _uses_kernels(str(impl.get("_target_")), canonical(impl)) else None,
        "device": device_name,
        "protocol": protocol,
    }


def applying(
    check: Mapping[str, Any], direction: str, *, quantised: bool = False, attention: bool = True
) -> dict[str, Any]:
    """The settings of `check` that a cell's check reads: a quantised implementation brings limits of its own, and what
    is no attention (a ceiling) is not checked.
    """
    if not attention:
        return {}
    unread = {f"{other}_factor" for other, mark in (("forward", "fwd"), ("backward", "bwd")) if mark not in direction}
    return {
        name: value
        for name, value in check.items()
        if name == "enabled" or (check["enabled"] and not quantised and name not in unread)
    }


def measurement(fields: Mapping[str, Any]) -> str:
    """8 hex of what `hashed` returned, the timing preset aside: the same was measured, however long."""
    return _digest({key: value for key, value in fields.items() if key != "timing"})


def cell_id(fields: Mapping[str, Any], case_name: str, replicate: int) -> str:
    """`<impl>[-<variant>]-<compile>-<case>-<replicate>-<8 hex>`, a file name of letters, digits and . _ = -.

    `fields` are what `hashed` returned; the hex is of them and the replicate.
    """
    parts = {
        "impl": str(fields["impl"]["name"]),
        "variant": fields["variant"],
        "compile": str(fields["compile"]["name"]),
        "case": case_name,
    }
    words = [_file_part(value, _LONGEST[part]) for part, value in parts.items() if value]
    return "-".join([*words, str(replicate), _digest({**fields, "replicate": replicate})])


def _digest(fields: Mapping[str, Any]) -> str:
    return hashlib.sha256(canonical(fields).encode()).hexdigest()[:8]


def _file_part(text: str, longest: int) -> str:
    return re.sub(r"[^A-Za-z0-9._=-]", "_", text)[:longest].lstrip(".-") or "_"


@lru_cache
def kernels_digest() -> str:
    """A digest of the source of `attnsweep.kernels`: an edited kernel is another implementation."""
    folder = Path(__file__).with_name("kernels")
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*.py")):
        digest.update(str(path.relative_to(folder)).encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


@lru_cache
def _uses_kernels(target: str, impl: str) -> bool:
    """Whether an implementation's YAML or the module of its class names our kernels."""
    if "attnsweep.kernels" in impl:
        return True
    module = target.rpartition(".")[0]
    if not module.startswith("attnsweep."):
        return False
    path = Path(__file__).parent.joinpath(*module.split(".")[1:]).with_suffix(".py")
    return path.is_file() and "attnsweep.kernels" in path.read_text()
