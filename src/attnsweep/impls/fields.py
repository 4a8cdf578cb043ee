"""What an implementation's YAML may say, what each value must be, and which cases its `supports` refuses."""

from __future__ import annotations

import re
from typing import Any, Callable

from attnsweep.case import DIRECTIONS, DTYPES, Case
from attnsweep.devices import KINDS, Device
from attnsweep.errors import ConfigError

LAYOUTS = ("bshd", "bhsd")


def _texts(value: Any) -> bool:
    return isinstance(value, (list, tuple)) and all(isinstance(one, str) for one in value)


def _integers(value: Any) -> bool:
    return isinstance(value, (list, tuple)) and all(isinstance(one, int) for one in value)


def _number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _requirements(value: Any) -> bool:
    return _texts(value) and all(one.strip() and one.isprintable() for one in value)


def _path(value: Any) -> bool:
    return isinstance(value, str) and value.isprintable() and value.strip() != ""


def _python_version(value: Any) -> bool:
    found = re.fullmatch(r"3\.(\d+)(\.\d+)?t?", value) if isinstance(value, str) else None
    return found is not None and int(found[1]) >= 9


def _version(value: Any) -> bool:
    """Of PEP 440, without epoch and local part; `packaging` is not in every environment that reads a YAML."""
    plain = r"[0-9]+([.][0-9]+)*((a|b|rc)[0-9]+)?([.]post[0-9]+)?([.]dev[0-9]+)?"
    return isinstance(value, str) and re.fullmatch(plain, value) is not None


def _flag(value: Any) -> bool:
    return isinstance(value, bool)


def _patterns(value: Any) -> bool:
    if not _texts(value):
        return False
    try:
        return all(re.compile(pattern) for pattern in value)
    except re.error:
        return False


def _some_of(*choices: str) -> tuple[Callable[[Any], bool], str]:
    def fits(value: Any) -> bool:
        return _texts(value) and set(value) <= set(choices)

    return fits, f"a list of any of {', '.join(choices)}"


_BOOL = (_flag, "true or false")

#: What `supports` may restrict, and what each must be; anything it does not name is tried, and the check decides.
SUPPORTS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "devices": _some_of(*KINDS),
    "dtypes": _some_of(*DTYPES),
    "head_dims": (_integers, "a list of integers"),
    "head_dim_max": (_number, "a number"),
    "head_dim_v": _BOOL,
    "gqa": _BOOL,
    "causal": _BOOL,
    "window": _BOOL,
    "bias": _BOOL,
    "q_len_ne_kv_len": _BOOL,
    "causal_q_len_ne_kv_len": _BOOL,
    "q_len_max": (_number, "a number"),
    "directions": _some_of(*DIRECTIONS),
    "compile": (_texts, "a list of names"),  # a user's own too
    "min_compute_capability": (_number, "a number such as 8.0"),
    "max_compute_capability": (_number, "a number such as 9.0"),
}
#: Those of them that no case changes.
HARDWARE = ("devices", "min_compute_capability", "max_compute_capability")
ENV: dict[str, tuple[Callable[[Any], bool], str]] = {
    "python": (_path, "the path of an interpreter"),
    "requirements": (_requirements, "a list of lines of a requirements file"),
    "python_version": (_python_version, 'a version in quotes such as "3.11", 3.9 at the oldest'),
    "variables": (lambda value: isinstance(value, dict), "a mapping of names to values"),
}
#: Kernels that must run in a forward and in a backward pass (one of each), and those that must never.
KERNELS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "fwd": (_patterns, "a list of regular expressions"),
    "bwd": (_patterns, "a list of regular expressions"),
    "never": (_patterns, "a list of regular expressions"),
}
#: Of an implementation that computes in fewer bits than the case: what that is called, and the least cosine and the
#: largest relative L1 error with which a result is still right.
PRECISION: dict[str, tuple[Callable[[Any], bool], str]] = {
    "class": (
        lambda value: isinstance(value, str) and value.strip() not in ("", "native"),
        "a name such as int8 that is not native",
    ),
    "cosine": (lambda value: _number(value) and 0 < value <= 1, "a number above 0 and up to 1"),
    "rel_l1": (lambda value: _number(value) and value > 0, "a number above 0"),
}
#: Its limits where a YAML names none.
LIMITS = {"cosine": 0.99, "rel_l1": 0.1}

_TYPES: tuple[tuple[str, type[Any], str], ...] = (
    ("distribution", str, "a name"),
    ("pip", str, "what pip installs"),
    ("supports", dict, "a mapping"),
    ("env", dict, "a mapping"),
    ("kernels", dict, "a mapping"),
    ("precision", dict, "null or a mapping"),
)


def check(impl: dict[str, Any]) -> None:
    """Raise ConfigError where values that every implementation's YAML may have cannot be what they must."""
    name = impl["name"]
    for key, kinds, what in _TYPES:
        value = impl.get(key)
        if value is not None and (not isinstance(value, kinds) or value == ""):
            raise ConfigError(f"impl {name}: {key} must be {what}, not {value!r}")
    oldest = impl.get("min_version")
    if oldest is not None and not _version(oldest):
        raise ConfigError(f'impl {name}: min_version must be a version in quotes such as "2.1", not {oldest!r}')
    if oldest is not None and impl.get("distribution") is None:
        raise ConfigError(f"impl {name}: min_version goes with distribution, which is not given")
    if impl.get("layout", "bshd") not in LAYOUTS:
        raise ConfigError(f"impl {name}: layout must be one of {', '.join(LAYOUTS)}, not {impl['layout']!r}")
    if impl.get("isolation", "fork") not in ("fork", "spawn"):
        raise ConfigError(f"impl {name}: isolation must be fork or spawn, not {impl['isolation']!r}")
    for key, known in (("supports", SUPPORTS), ("env", ENV), ("kernels", KERNELS), ("precision", PRECISION)):
        for entry, value in (impl.get(key) or {}).items():
            if entry not in known:
                raise ConfigError(f"impl {name}: {key} has no key {entry}; the keys are {', '.join(known)}")
            fits, what = known[entry]
            if value is not None and not fits(value):
                raise ConfigError(f"impl {name}: {key}.{entry} must be {what}, not {value!r}")
    if impl.get("precision") is not None and impl["precision"].get("class") is None:
        raise ConfigError(f"impl {name}: precision.class must be given: {PRECISION['class'][1]}")


def broken_rule(rules: dict[str, Any], case: Case, device: Device, compile_mode: str) -> str | None:
    """The first rule of a YAML's `supports` that a case breaks, as a sentence, or None."""

    def among(key: str, value: Any, what: str) -> str | None:
        allowed = rules.get(key)
        if allowed is None or value in allowed:
            return None
        return f"{what} {value} is not among {', '.join(str(one) for one in allowed)}"

    def denied(key: str, asked: bool, what: str) -> str | None:
        return f"{what} is not supported" if asked and rules.get(key) is False else None

    largest, most_queries = rules.get("head_dim_max"), rules.get("q_len_max")
    oldest, newest = rules.get("min_compute_capability"), rules.get("max_compute_capability")
    capability, devices = device.compute_capability or 0, rules.get("devices")
    found = [
        f"runs on {', '.join(devices)}, not on {device.kind}"
        if devices is not None and device.kind not in devices
        else None,
        among("dtypes", case.dtype, "dtype"),
        among("head_dims", case.head_dim, "head_dim"),
        among("directions", case.direction, "direction"),
        among("compile", compile_mode, "compile mode"),
        f"head_dim {max(case.head_dim, case.head_dim_v)} is above {largest}"
        if largest is not None and max(case.head_dim, case.head_dim_v) > largest
        else None,
        denied("head_dim_v", case.head_dim_v != case.head_dim, "head_dim_v unlike head_dim"),
        denied("gqa", case.group_size > 1, "grouped-query attention"),
        denied("causal", case.effective_causal, "a causal mask"),
        denied("window", case.window is not None, "a window"),
        denied("bias", case.bias != "none", "a bias"),
        denied("q_len_ne_kv_len", case.q_len != case.kv_len, "q_len unlike kv_len"),
        denied(
            "causal_q_len_ne_kv_len",
            case.effective_causal and case.q_len != case.kv_len,
            "a causal mask with q_len unlike kv_len",
        ),
        f"q_len {case.q_len} is above {most_queries}"
        if most_queries is not None and case.q_len > most_queries
        else None,
        f"compute capability {device.compute_capability} is below {oldest}"
        if oldest is not None and device.kind == "cuda" and capability < oldest
        else None,
        f"compute capability {device.compute_capability} is above {newest}"
        if newest is not None and device.kind == "cuda" and capability > newest
        else None,
    ]
    return next((reason for reason in found if reason), None)
