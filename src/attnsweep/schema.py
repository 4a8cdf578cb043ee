"""The configuration that attnsweep owns, as dataclasses: a typo or a wrong type is refused by name."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, is_dataclass, replace
from typing import Any, TypeVar, cast, get_args, get_type_hints

from attnsweep.case import Case
from attnsweep.errors import ConfigError, Status

DEVICES = ("auto", "cpu", "cuda")
SCALES = ("full", "tiny")
ISOLATIONS = ("fork", "spawn")
CACHES = ("cold", "hot")
COMPILE_MODES = ("default", "reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs", "jit")

T = TypeVar("T")

#: Upper bounds: a week in seconds, which every clock and poll takes (poll(2) ends at 24 days in ms); seeds of 63
#: bits, which every random generator and Parquet's int64 take; counts and factors beyond any use.
_MOST_S = 7 * 24 * 3600
_MOST_SEED = 2**63 - 1
_MOST_COUNT = 10**9
_MOST_FACTOR = 10**9
_MOST_REPLICATES = 10_000
_MOST_SHARDS = 10_000

#: Combinations, cases and cells of a sweep at most: days of measuring, and what can be planned within a minute.
MOST_JOBS = 100_000

#: The deadlines in `pool`.
_DEADLINES = ("timeout_s", "prepare_s", "compile_s", "check_s", "time_s")

#: A sweep's name is one component of a path; 100 leaves room for what is appended to it.
_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,99}")


@dataclass(frozen=True)
class Check:
    """How outputs are checked: the errors allowed, in errors of the plain formula in the case's own dtype."""

    enabled: bool = True
    forward_factor: float = 2.0
    backward_factor: float = 3.0


@dataclass(frozen=True)
class PoolSettings:
    """A cell's deadlines in seconds, in all and for each phase (None: by compile mode and case); the wait from SIGTERM
    to SIGKILL.
    """

    timeout_s: float | None = None
    prepare_s: float | None = None
    compile_s: float | None = None
    check_s: float | None = None
    time_s: float | None = None
    grace_s: float = 5.0


@dataclass(frozen=True)
class Timing:
    """When to stop sampling: `target` is the relative half-width of the median's 95 % confidence interval.

    `replicates` is the number of processes a cell; `time_cap_s` the time spent sampling in each; work comes
    in blocks of `block_ms` after a rest of `rest_ms`; `cache` is the state of the L2 cache before each call.
    `sustained` adds the load: `soak_s` of it unseen, then windows of `window_s` until two agree within
    `steady`, at most `load_cap_s` in all.
    """

    name: str
    replicates: int
    target: float
    time_cap_s: float
    min_blocks: int = 6
    min_time_s: float = 0.3
    max_samples: int = 10_000
    block_ms: float = 10.0
    rest_ms: float = 20.0
    cache: str = "cold"
    sustained: bool = True
    soak_s: float = 1.0
    window_s: float = 1.0
    steady: float = 0.005
    load_cap_s: float = 5.0


@dataclass(frozen=True)
class CompileMode:
    """Eager (`mode` None), a mode of torch.compile with its `fullgraph` and `dynamic`, or jit, JAX's."""

    name: str
    mode: str | None = None
    fullgraph: bool = True
    dynamic: bool = False


@dataclass(frozen=True, kw_only=True)
class Plain:
    """The settings whose YAML is their value."""

    output_dir: str = "outputs"
    device: str = "auto"
    seed: int = 0
    dry_run: bool = False
    force: bool = False
    sample: int | None = None
    replicate: int | None = None
    scale: str = "full"
    isolation: str = "fork"
    check: Check = field(default_factory=Check)
    pool: PoolSettings = field(default_factory=PoolSettings)


@dataclass(frozen=True, kw_only=True)
class Settings(Plain):
    """How a sweep runs, validated; what it measures is in the combinations.

    `gpus` holds indices and UUIDs, None for all; `shard` is (i, n), the i-th of n parts, i from 1; `sample`
    is a number of cells; `rerun` holds statuses.
    """

    name: str
    gpus: list[int | str] | None = None
    rerun: tuple[str, ...] = ()
    shard: tuple[int, int] | None = None
    study: str | None = None


#: What may stand at the top of a configuration beside the groups; `study` is a group.
SETTINGS: tuple[str, ...] = ("name", *(one.name for one in fields(Plain)), "gpus", "rerun", "shard")


#: Fields of our scenarios: at the top of a configuration each is a slip for scenario.FIELD.
SCENARIO_FIELDS = frozenset({one.name for one in fields(Case)} | {"seq_len", "resolution", "text_len"})


def top_key(key: str, choices: Iterable[str], line: str) -> None:
    """Raise ConfigError, with the choices, unless `key`, typed as `line`, may stand at the top."""
    names = list(choices)
    if key not in names and key in SCENARIO_FIELDS:
        raise ConfigError(f"there is no key {key}, it is a field of the scenario: write scenario.{line}")
    known([key], names, "")


def settings(values: Mapping[str, Any], study: str | None, default_name: str) -> Settings:
    """The settings that the top level of a configuration describes; `default_name` stands in for a null name.

    Raises ConfigError naming the key, and the choices where there are any.
    """
    for key in values:
        top_key(key, SETTINGS, key)
    own = {one.name for one in fields(Plain)}
    plain = bind(Plain, {key: value for key, value in values.items() if key in own}, "")
    one_of("device", plain.device, DEVICES)
    one_of("scale", plain.scale, SCALES)
    one_of("isolation", plain.isolation, ISOLATIONS)
    _at_least("", plain, 0, "seed", "replicate")
    _at_least("", plain, 1, "sample")
    _at_least("pool.", plain.pool, 0, "grace_s")
    _positive("pool.", plain.pool, *_DEADLINES)
    _positive("check.", plain.check, "forward_factor", "backward_factor")
    _at_most("", plain, _MOST_SEED, "seed", "replicate", "sample")
    _at_most("pool.", plain.pool, _MOST_S, "grace_s", *_DEADLINES)
    _at_most("check.", plain.check, _MOST_FACTOR, "forward_factor", "backward_factor")
    if not plain.output_dir or not plain.output_dir.isprintable():
        raise ConfigError(f"output_dir must be the path of a folder, of printable characters, not {plain.output_dir!r}")
    return Settings(
        **{key: getattr(plain, key) for key in own},
        name=sweep_name(default_name if values.get("name") is None else values["name"]),
        gpus=_gpus(values.get("gpus")),
        rerun=_rerun(values.get("rerun")),
        shard=_shard(values.get("shard")),
        study=study,
    )


def timing(values: Mapping[str, Any]) -> Timing:
    """The timing preset that a YAML of conf/timing describes, after the overrides; raises ConfigError."""
    preset = bind(Timing, values, "timing.")
    _at_least("timing.", preset, 1, "replicates", "min_blocks", "max_samples")
    _at_least("timing.", preset, 0, "min_time_s", "rest_ms", "soak_s")
    _positive("timing.", preset, "target", "time_cap_s", "block_ms", "window_s", "steady", "load_cap_s")
    _at_most("timing.", preset, _MOST_S, "time_cap_s", "min_time_s", "soak_s", "window_s", "load_cap_s")
    _at_most("timing.", preset, 1000 * _MOST_S, "block_ms", "rest_ms")
    _at_most("timing.", preset, _MOST_REPLICATES, "replicates")
    _at_most("timing.", preset, _MOST_COUNT, "min_blocks", "max_samples")
    if preset.target >= 1:
        raise ConfigError(f"timing.target must be a relative half-width such as 0.01, not {preset.target}")
    if preset.steady >= 1:
        raise ConfigError(f"timing.steady must be a relative difference such as 0.005, not {preset.steady}")
    if preset.time_cap_s < preset.min_time_s:
        raise ConfigError(
            f"timing.time_cap_s ({preset.time_cap_s}) must be timing.min_time_s ({preset.min_time_s}) or more"
        )
    if preset.load_cap_s < preset.soak_s + 2 * preset.window_s:
        raise ConfigError(
            f"timing.load_cap_s ({preset.load_cap_s}) must hold timing.soak_s and two of timing.window_s "
            f"({preset.soak_s + 2 * preset.window_s})"
        )
    one_of("timing.cache", preset.cache, CACHES)
    return preset


def compile_mode(values: Mapping[str, Any]) -> CompileMode:
    """The compile mode that a YAML of conf/compile describes, after the overrides; raises ConfigError."""
    mode = bind(CompileMode, values, "compile.")
    if mode.mode is not None:
        one_of("compile.mode", mode.mode, COMPILE_MODES)
    # What torch.compile alone is told has no effect here: the same cell, so that one sweep may hold both
    return mode if of_torch(mode.mode) else replace(mode, fullgraph=True, dynamic=False)


def of_torch(mode: str | None) -> bool:
    """Whether a compile mode is torch.compile's, with `fullgraph` and `dynamic`."""
    return mode not in (None, "jit")


def sweep_name(name: Any) -> str:
    """The name, if it can be one folder below output_dir; raises ConfigError else."""
    text = str(name)
    if not _NAME.fullmatch(text):
        raise ConfigError(
            f"name must be one folder of up to 100 letters, digits, '.', '_' and '-', not starting with '.'; "
            f"{text!r} is not"
        )
    if text.lower() == "report":
        raise ConfigError("name may not be 'report': attnsweep-report writes into a folder of that name")
    return text


def bind(schema: type[T], values: Any, prefix: str) -> T:
    """`values` as an instance of the dataclass `schema`; ConfigError names `prefix` and the key at fault."""
    from omegaconf import OmegaConf
    from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

    if not isinstance(values, Mapping):
        raise ConfigError(f"{prefix.rstrip('.')} must be a mapping of keys, not {values!r}")
    types = get_type_hints(schema)
    known(values, types, prefix)
    inner = {
        key: bind(types[key], value, f"{prefix}{key}.") for key, value in values.items() if is_dataclass(types[key])
    }
    flat = {key: value for key, value in values.items() if key not in inner}
    try:
        bound = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(schema), flat))
    except MissingMandatoryValue as error:
        raise ConfigError(f"{prefix}{error.full_key} must be given") from None
    except OmegaConfBaseException as error:
        key = (error.full_key or "").split(".")[0].split("[")[0]
        raise ConfigError(f"{prefix}{key} must be {_kind(types[key])}, not {flat[key]!r}") from None
    return replace(cast(Any, bound), **inner)  # type: ignore[no-any-return]


def plain(value: Any, path: str) -> None:
    """Raise ConfigError unless `value`, read from a YAML at `path`, is what JSON and a record in UTF-8 can hold."""
    if isinstance(value, Mapping):
        for key, one in value.items():
            if not isinstance(key, str):
                raise ConfigError(f"{path} has the key {key!r}, which is no text: write it in quotes")
            plain(key, f"a key of {path}")
            plain(one, f"{path}.{key}")
    elif isinstance(value, (list, tuple)):
        for one in value:
            plain(one, path)
    elif isinstance(value, str):
        if not is_utf8(value):
            raise ConfigError(f"{path} holds {value!r}, which is no UTF-8 text")
    elif value is not None and not isinstance(value, (bool, int, float)):
        raise ConfigError(f"{path} holds {value!r}, which is neither text, number, true, false, null, list nor mapping")


def is_utf8(text: str) -> bool:
    """Whether `text` can be written in UTF-8: bytes of another encoding come as lone surrogates."""
    return not any("\ud800" <= one <= "\udfff" for one in text)


def check_key(key: str) -> None:
    """Raise ConfigError, with the choices, unless the dotted `key` is a setting or one below it."""
    top, *rest = key.split(".")
    type_: Any = get_type_hints(Settings)[top]
    prefix = f"{top}."
    for part in rest:
        if not is_dataclass(type_):
            raise ConfigError(f"there is no key {key}: {prefix.rstrip('.')} is one value")
        known([part], (one.name for one in fields(type_)), prefix)
        type_ = get_type_hints(type_)[part]
        prefix += f"{part}."


def known(given: Iterable[str], choices: Iterable[str], prefix: str, whose: str = "") -> None:
    """Raise ConfigError, with the choices, for the first of `given` that is not among them; they are the keys of
    `whose`, where that may be asked.
    """
    names = list(choices)
    for key in given:
        if key not in names:
            keys = f"the keys of {whose}" if whose else "the keys"
            raise ConfigError(f"there is no key {prefix}{key}{nearest(key, names)}; {keys} are {', '.join(names)}")


def one_of(key: str, value: Any, choices: Iterable[str]) -> None:
    """Raise ConfigError, with the nearest and all choices, unless `value` is one of them."""
    names = list(choices)
    if value not in names:
        raise ConfigError(f"{key} must be one of {', '.join(names)}, not {value!r}{nearest(value, names)}")


#: What is said for something that is called otherwise here.
_MEANT = {"gpu": "cuda", "GPU": "cuda"}


def nearest(given: Any, choices: Iterable[str]) -> str:
    """A hint at the nearest of `choices`, such as " (did you mean fa2?)", or an empty string."""
    names, meant = list(choices), _MEANT.get(str(given))
    close = [meant] if meant in names else difflib.get_close_matches(str(given), names, n=1)
    return f" (did you mean {close[0]}?)" if close else ""


def _kind(type_: Any) -> str:
    words = {int: "an integer", float: "a number", bool: "true or false", str: "text"}
    arguments = get_args(type_) or (type_,)
    return " or ".join("null" if one is type(None) else words.get(one, str(one)) for one in arguments)


def _at_least(prefix: str, holder: Any, least: float, *keys: str) -> None:
    for key in keys:
        value = getattr(holder, key)
        if value is not None and not value >= least:
            raise ConfigError(f"{prefix}{key} must be {least} or more, not {value}")


def _positive(prefix: str, holder: Any, *keys: str) -> None:
    for key in keys:
        value = getattr(holder, key)
        if value is not None and not 0 < value < math.inf:
            raise ConfigError(f"{prefix}{key} must be above 0, not {value}")


def _at_most(prefix: str, holder: Any, most: int, *keys: str) -> None:
    for key in keys:
        value = getattr(holder, key)
        if value is not None and not value <= most:
            raise ConfigError(f"{prefix}{key} must be {most} or less, not {value}")


def _gpus(value: Any) -> list[int | str] | None:
    if value is None:
        return None
    wanted = list(value) if isinstance(value, (list, tuple)) else [value]
    if not wanted or any(isinstance(one, bool) or not isinstance(one, (int, str)) for one in wanted):
        raise ConfigError(f"gpus must be null for all, or a list of indices or UUIDs such as [0,1], not {value!r}")
    return wanted


def _rerun(value: Any) -> tuple[str, ...]:
    wanted = value if isinstance(value, (list, tuple)) else [] if value is None else [value]
    for one in wanted:
        one_of("rerun", one, [str(status) for status in Status])
    return tuple(wanted)


def _shard(value: Any) -> tuple[int, int] | None:
    if value is None:
        return None
    match = re.fullmatch(r"(\d+)/(\d+)", value) if isinstance(value, str) else None
    if match is None or not 1 <= int(match[1]) <= int(match[2]) <= _MOST_SHARDS:
        raise ConfigError(f"shard must be i/n with i from 1 to n (at most {_MOST_SHARDS}), such as 1/4, not {value!r}")
    return int(match[1]), int(match[2])
