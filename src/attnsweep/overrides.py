"""From a study's parameters and the command line to jobs: lists of Hydra overrides, one list a combination.

Closes what Hydra's own sweeper leaves open: a YAML list for a group runs every option, an empty glob is an
error, and only what is measured (the groups and fields below them) can be swept.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from attnsweep.errors import ConfigError
from attnsweep.schema import MOST_JOBS, SETTINGS, check_key, is_utf8, nearest, top_key

if TYPE_CHECKING:
    from hydra.core.override_parser.types import Override

#: What may be swept: these groups, and the fields below them.
GROUPS = ("impl", "scenario", "compile", "timing")

#: Settings that hold a list.
LISTS = ("gpus", "rerun")

SWEEPABLE = "only impl, scenario, compile, timing and fields below them can be swept"

#: Settings of Hydra's that have no effect, or a bad one.
_HYDRAS = {
    "hydra.mode": "every call is a sweep, also of one combination",
    "hydra.verbose": "Hydra logs nothing here; --info all shows how a configuration is put together",
}

#: Given a group, the names of its options.
Options = Callable[[str], list[str]]


def parse(lines: Sequence[str]) -> list[Override]:
    """The overrides that `lines` are, each checked by `check`; raises ConfigError for one that is none."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    parser = OverridesParser.create()
    parsed = []
    for line in lines:
        if not is_utf8(line):
            raise ConfigError(f"{line!r} is no UTF-8 text")
        try:
            override = parser.parse_override(line)
        except HydraException as error:
            raise ConfigError(f"{line!r} is not of the form key=value: {ungrammatical(str(error))}") from None
        check(override)
        parsed.append(override)
    return parsed


#: What the grammar's parser says, and what that means to whoever typed it.
_UNGRAMMATICAL = (
    (r"""token recognition error at: '["'].*'""", "a quote is not closed"),
    (r"token recognition error at: '(.*)'", "\\1 must stand in quotes, in a shell as \"KEY='VALUE'\""),
    (r"missing EQUAL at .*", "the = is missing"),
    (r"(mismatched|extraneous) input '<EOF>'.*", "something is missing at its end"),
    (r"(?:mismatched|extraneous) input ('.*?') expecting.*", r"\1 is out of place"),
    (r"no viable alternative at input '(.*)'", r"it cannot be read from \1 on"),
    (r"\w+ while evaluating '(.*)': (.*)", r"\1: \2"),
)


def ungrammatical(said: str) -> str:
    """What the parser of overrides and interpolations said, without the names of its tokens."""
    first = said.splitlines()[0].rstrip(".")
    for pattern, meaning in _UNGRAMMATICAL:
        if re.fullmatch(pattern, first):
            return re.sub(pattern, meaning, first)
    return first


def check(override: Override) -> None:
    """Raise ConfigError for an override that attnsweep does not take, whatever the groups hold."""
    key, line = override.key_or_group, override.input_line
    if override.is_hydra_override():
        if key in _HYDRAS:
            raise ConfigError(f"{line}: {_HYDRAS[key]}")
        return
    if override.is_delete():
        raise ConfigError(f"{line}: nothing can be deleted on the command line; write {key}=null for none")
    top = key.split(".")[0]
    if override.package is not None:
        raise ConfigError(f"{line}: a group's package cannot be chosen; write {top}=OPTION")
    if not key:
        raise ConfigError(f"{line!r} is not of the form key=value: there is no key before the =")
    top_key(top, (*GROUPS, "study", *SETTINGS), (line or key).lstrip("+"))
    if top not in GROUPS and override.is_sweep_override():
        value = line.partition("=")[2] if line else ""
        way = f"a list is written in brackets, {key}=[{value}]" if key in LISTS else f"{key} takes one value"
        raise ConfigError(f"{line}: {SWEEPABLE}; {way}")
    if top not in GROUPS and override.is_add():
        raise ConfigError(f"{line}: {key} is there already; write it without the +")
    if top in SETTINGS:
        check_key(key)
    if top == "study":
        name = override.value()
        if key != top or not isinstance(name, str) or "${" in name:
            raise ConfigError(f"{line}: study takes the name of one study; without study= there is none")


def below_group(override: Override) -> bool:
    """Whether it is a field of what is measured, below one of GROUPS."""
    key = override.key_or_group
    return key not in GROUPS and key.split(".")[0] in GROUPS


def deferred(override: Override) -> str:
    """The override as the master configuration is to see it: what is measured is left to the sweeper.

    Hydra composes the master before anything is swept. A field of an implementation that is yet to be chosen
    would fail there, so it is written as a sweep over the same value twice, which the master ignores and the
    sweeper counts once. (`choice(value)` takes no null and forgets that '3' was quoted.)
    """
    line = override.input_line or ""
    if override.key_or_group.split(".")[0] not in GROUPS or override.is_sweep_override():
        return line
    value = line.partition("=")[2] or "''"
    return f"{override.get_key_element()}={value},{value}"


def params_lines(params: Mapping[str, Any]) -> list[str]:
    """A study's `hydra.sweeper.params` as overrides; text is read as on the command line."""
    lines = []
    for key, value in params.items():
        if key.startswith(("hydra.", "hydra/")):
            raise ConfigError(f"hydra.sweeper.params cannot hold {key}: set it in the study's own hydra section")
        lines.append(f"{key}={value if isinstance(value, str) else literal(value)}")
    return lines


#: Text that the grammar would read as something else.
_WORDS = frozenset({"null", "true", "false", "nan", "inf"})


def literal(value: Any) -> str:
    """The value in the grammar of Hydra's overrides, so that parsing it gives the value back."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (int, float)):
        return repr(value)
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{literal(key)}:{literal(one)}" for key, one in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ",".join(literal(one) for one in value) + "]"
    text = str(value)
    # Bare where the grammar keeps it a string; else quoted, with \' for a quote and the \ before it doubled.
    if re.fullmatch(r"[A-Za-z_/][A-Za-z0-9_./-]*", text) and text.lower() not in _WORDS:
        return text
    return "'" + re.sub(r"(\\*)('|$)", lambda match: match[1] * 2 + match[2].replace("'", "\\'"), text) + "'"


def expand(lines: Sequence[str], options: Options, chosen: Mapping[str, str | None]) -> list[list[str]]:
    """The jobs that `lines` make: the product of everything swept, last key fastest.

    Of equal keys the last one wins. `chosen` is what the master configuration chose for each group. Fields
    below groups come back as `++key=value`, which Hydra takes whether the YAML has the field or not; whether
    it may is for the schema to say. Raises ConfigError for an option that does not exist, a glob that matches
    none, or no implementation.
    """
    choices: dict[str, list[str]] = {}
    for override in parse(lines):
        key = override.key_or_group
        if key in GROUPS:
            choices[key] = [f"{key}={literal(one)}" for one in _options(override, options(key))]
        elif below_group(override):
            choices[key] = [f"++{key}={one}" for one in _field_values(override)]
        else:
            choices[key] = [f"{override.get_key_element()}={_value(override)}"]
    if "impl" not in choices and chosen.get("impl") in (None, "???"):
        raise ConfigError(
            f"which implementation? Say impl= and one or more of {', '.join(options('impl'))}; "
            "or try attnsweep study=quickstart"
        )
    size = math.prod(len(values) for values in choices.values())
    if size > MOST_JOBS:
        raise ConfigError(f"this makes {size} combinations; a sweep holds {MOST_JOBS} at most")
    return [list(job) for job in itertools.product(*choices.values())]


def _options(override: Override, available: list[str]) -> list[str]:
    """The options that an override of a group picks, each once, in order."""
    from hydra.core.override_parser.types import Glob

    key, line, value = override.key_or_group, _typed(override), override._value
    if isinstance(value, Glob):
        wanted: list[Any] = value.filter(available)
        if not wanted:
            raise ConfigError(f"{line} matches no {key}; the choices are {', '.join(available)}")
    elif override.is_discrete_sweep():
        wanted = list(override.sweep_iterator())
    else:
        wanted = [override.value()]
    flat = [one for entry in wanted for one in (entry if isinstance(entry, list) else [entry])]
    if not flat:
        raise ConfigError(f"{line} picks no {key}; the choices are {', '.join(available)}")
    names = [getattr(one, "text", one) for one in flat]
    for name in names:
        if isinstance(name, dict):
            raise ConfigError(f"{line}: {key} takes an option's name; a field is {key}.FIELD=VALUE")
        if name not in available:
            near = f" (did you mean {key}='{name}', in quotes?)" if str(name) in available else nearest(name, available)
            raise ConfigError(f"there is no {key} {name!r}{near}; the choices are {', '.join(available)}")
    return list(dict.fromkeys(names))


def _typed(override: Override) -> str:
    """The override as it was typed, before `deferred`."""
    key, _, value = (override.input_line or "").partition("=")
    half = len(value) // 2
    return f"{key}={value[:half]}" if value == f"{value[:half]},{value[:half]}" else override.input_line or ""


def _field_values(override: Override) -> list[str]:
    """The values of a field below a group, as Hydra writes them."""
    from hydra.core.override_parser.types import Glob, RangeSweep

    key, line, value = override.key_or_group, override.input_line, override._value
    if not override.is_sweep_override():
        return [override.get_value_element_as_str()]
    if isinstance(value, Glob) or not override.is_discrete_sweep():
        raise ConfigError(
            f"{line}: only values that can be counted are swept; write {key}=1,2,3, choice(...) or range(...)"
        )
    if isinstance(value, RangeSweep):
        if not _finite(value):
            raise ConfigError(f"{line}: this range never ends")
        assert value.start is not None
        assert value.stop is not None
        if (value.stop - value.start) // value.step > MOST_JOBS:
            raise ConfigError(f"{line}: this range has more than {MOST_JOBS} values")
    values = list(dict.fromkeys(override.sweep_string_iterator()))
    if not values:
        raise ConfigError(f"{line}: this range is empty")
    return values


def _finite(value: Any) -> bool:
    given = (value.start, value.stop, value.step)
    return value.step != 0 and all(isinstance(one, int) or math.isfinite(one) for one in given)


def _value(override: Override) -> str:
    """The value of a setting; a name such as 1_000 or 1e3 stays the text that was typed."""
    if override.key_or_group == "name" and isinstance(override.value(), (int, float)):
        return literal(f"{override.get_value_string()}")
    return override.get_value_element_as_str()
