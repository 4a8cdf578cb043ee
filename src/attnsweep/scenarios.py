"""From the YAML of conf/scenario to cases: functions of named fields, and the grid that lists span."""

from __future__ import annotations

import inspect
import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from attnsweep import dotted
from attnsweep.case import Case, size
from attnsweep.errors import ConfigError
from attnsweep.schema import MOST_JOBS, known, nearest

#: Keys of a scenario's YAML that are not fields of its function.
OWN_KEYS = ("name", "_target_", "axis", "tiny")


@dataclass(frozen=True)
class Problem:
    """A case and where it comes from: the scenario's scalar `fields`, and the `axis` that plots use."""

    case: Case
    axis: str
    axis_value: float
    fields: dict[str, Any]


def prefill(
    *,
    seq_len: int,
    batch_size: int = 1,
    num_heads: int = 32,
    num_kv_heads: int | None = None,
    head_dim: int = 128,
    head_dim_v: int | None = None,
    dtype: str = "bf16",
    causal: bool = True,
    window: list[int] | None = None,
    bias: str = "none",
    direction: str = "fwd",
) -> Case:
    """`seq_len` tokens attend to themselves; raises ConfigError for a problem that is none."""
    return _case(
        batch_size=batch_size,
        q_len=size("seq_len", seq_len),
        kv_len=seq_len,
        num_heads=num_heads,
        num_kv_heads=num_kv_heads,
        head_dim=head_dim,
        head_dim_v=head_dim_v,
        dtype=dtype,
        causal=causal,
        window=window,
        bias=bias,
        direction=direction,
    )


def decode(
    *,
    kv_len: int,
    q_len: int = 1,
    batch_size: int = 1,
    num_heads: int = 32,
    num_kv_heads: int | None = None,
    head_dim: int = 128,
    head_dim_v: int | None = None,
    dtype: str = "bf16",
    causal: bool = True,
    window: list[int] | None = None,
    bias: str = "none",
    direction: str = "fwd",
) -> Case:
    """`q_len` new tokens attend to a cache of `kv_len`, themselves included; raises ConfigError."""
    return _case(
        batch_size=batch_size,
        q_len=q_len,
        kv_len=kv_len,
        num_heads=num_heads,
        num_kv_heads=num_kv_heads,
        head_dim=head_dim,
        head_dim_v=head_dim_v,
        dtype=dtype,
        causal=causal,
        window=window,
        bias=bias,
        direction=direction,
    )


def flux(
    *,
    text_len: int,
    resolution: int = 1024,
    batch_size: int = 1,
    num_heads: int = 24,
    num_kv_heads: int | None = None,
    head_dim: int = 128,
    head_dim_v: int | None = None,
    dtype: str = "bf16",
    causal: bool = False,
    window: list[int] | None = None,
    bias: str = "none",
    direction: str = "fwd",
) -> Case:
    """(`resolution` / 16)^2 image tokens and `text_len` text tokens attend to all; raises ConfigError.

    A latent pixel is 8 pixels wide and a token 2 latent pixels: 16 pixels of a square image's side.
    """
    if size("resolution", resolution) % 16:
        raise ConfigError(f"resolution must be a multiple of 16 pixels, not {resolution}")
    tokens = (resolution // 16) ** 2 + size("text_len", text_len)
    return _case(
        batch_size=batch_size,
        q_len=tokens,
        kv_len=tokens,
        num_heads=num_heads,
        num_kv_heads=num_kv_heads,
        head_dim=head_dim,
        head_dim_v=head_dim_v,
        dtype=dtype,
        causal=causal,
        window=window,
        bias=bias,
        direction=direction,
    )


def bind(scenario: Mapping[str, Any]) -> Callable[..., Case]:
    """The function that `_target_` names, its keywords checked against the YAML's keys; calls nothing.

    Raises ConfigError for a function that cannot be found, a key that it does not take, or one that it lacks.
    """
    name = scenario.get("name")
    function = _target(name, scenario.get("_target_"))
    parameters = inspect.signature(function).parameters
    known(_fields(scenario), parameters, "scenario.", str(name))
    tiny = scenario.get("tiny") or {}
    if not isinstance(tiny, Mapping):
        raise ConfigError(f"scenario.tiny must be a mapping of fields, not {tiny!r}")
    known(tiny, parameters, "scenario.tiny.", str(name))
    for key, parameter in parameters.items():
        if parameter.default is parameter.empty and key not in scenario:
            raise ConfigError(f"scenario {name}: {key} must be given")
    axis = scenario.get("axis")
    if not isinstance(axis, str) or axis not in parameters:
        raise ConfigError(
            f"scenario.axis must be one of {', '.join(parameters)}, not {axis!r}{nearest(axis, parameters)}"
        )
    return function


def agree(several: Sequence[Mapping[str, Any]]) -> None:
    """Raise ConfigError for a field that one of a sweep's scenarios takes and another of them, which is given it, does
    not.
    """
    takes = {
        str(one.get("name")): inspect.signature(_target(one.get("name"), one.get("_target_"))).parameters
        for one in several
    }
    for one in several:
        name = str(one.get("name"))
        for key in _fields(one):
            others = [other for other in takes if key in takes[other]]
            if key not in takes[name] and others:
                raise ConfigError(
                    f"scenario.{key} is no field of {name}, only of {', '.join(others)}; a field holds for every "
                    "scenario of a call: give each a call of its own, which with the same name=NAME adds to one sweep"
                )


def expand(scenario: Mapping[str, Any], scale: str) -> list[Problem]:
    """Every problem of the grid that the lists in the scenario's fields span, each case once.

    `scale` tiny takes the overrides of `tiny`. Raises ConfigError for an empty list or no case.
    """
    function = bind(scenario)
    given = _fields(scenario)
    if scale == "tiny":
        given = _tiny(given, scenario.get("tiny") or {})
    name, axis = f"scenario {scenario.get('name')}", str(scenario["axis"])
    grid = [_values(key, value) for key, value in given.items()]
    count = math.prod(len(values) for values in grid)
    if count > MOST_JOBS:
        raise ConfigError(f"{name}: the lists in its fields span {count} cases; a sweep holds {MOST_JOBS} at most")
    problems: dict[Case, Problem] = {}
    for values in itertools.product(*grid):
        fields = dict(zip(given, values, strict=True))
        with dotted.asking(name, scenario["_target_"]):
            try:
                case = function(**fields)
            except ConfigError as error:
                raise ConfigError(f"{name}: {error}") from None
        if not isinstance(case, Case):
            raise ConfigError(f"{name}: _target_ {scenario['_target_']} must return a Case, not {case!r}")
        problems.setdefault(case, Problem(case, axis, _axis_value(axis, case, fields, function), fields))
    return list(problems.values())


def _case(*, num_heads: int, num_kv_heads: int | None, head_dim: int, head_dim_v: int | None, **rest: Any) -> Case:
    return Case(
        num_heads=num_heads,
        num_kv_heads=num_heads if num_kv_heads is None else num_kv_heads,
        head_dim=head_dim,
        head_dim_v=head_dim if head_dim_v is None else head_dim_v,
        **rest,
    )


def _target(name: Any, path: Any) -> Callable[..., Case]:
    function = dotted.target(f"scenario {name}", "function", path)
    if not callable(function):
        raise ConfigError(f"scenario {name}: _target_ {path} is not a function")
    try:
        kinds = {parameter.kind for parameter in inspect.signature(function).parameters.values()}
    except (TypeError, ValueError):
        kinds = set()  # some of Python's own have no signature
    if kinds != {inspect.Parameter.KEYWORD_ONLY}:
        raise ConfigError(f"scenario {name}: _target_ {path} must take keyword-only parameters")
    return function  # type: ignore[no-any-return]


def _fields(scenario: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in scenario.items() if key not in OWN_KEYS}


def _values(key: str, value: Any) -> list[Any]:
    """The values of one field: a list is an axis, but [left, right] is one window."""
    if not isinstance(value, (list, tuple)):
        return [value]
    if not value:
        raise ConfigError(f"scenario.{key} is an empty list: it must hold at least one value")
    if key == "window" and all(isinstance(side, int) and not isinstance(side, bool) for side in value):
        return [list(value)]
    return [list(one) if isinstance(one, (list, tuple)) else one for one in value]


def _tiny(given: dict[str, Any], tiny: Mapping[str, Any]) -> dict[str, Any]:
    """The fields with `tiny` on top; key/value heads stay as many times fewer than heads as they were."""
    small = {**given, **tiny}
    if not {"num_heads", "num_kv_heads"} <= set(given) or "num_heads" not in tiny or "num_kv_heads" in tiny:
        return small
    heads, tiny_heads = (_values("num_heads", one["num_heads"])[0] for one in (given, tiny))

    def shrink(kv_heads: Any) -> Any:
        counts = (heads, tiny_heads, kv_heads)
        if not all(isinstance(one, int) and one > 0 for one in counts) or heads % kv_heads:
            return kv_heads  # null, or left to the case, which refuses it by name
        group = min(heads // kv_heads, tiny_heads)
        while tiny_heads % group:
            group -= 1
        return tiny_heads // group

    kv = [shrink(one) for one in _values("num_kv_heads", given["num_kv_heads"])]
    return {**small, "num_kv_heads": kv}


def _axis_value(axis: str, case: Case, fields: Mapping[str, Any], function: Callable[..., Case]) -> float:
    value = fields.get(axis, inspect.signature(function).parameters[axis].default)
    if value is None:
        value = getattr(case, axis, None)  # null num_kv_heads and head_dim_v are known to the case
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ConfigError(f"scenario.axis is {axis}, which is no number here: {value!r}")
    return float(value)
