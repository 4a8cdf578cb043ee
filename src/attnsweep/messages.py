"""One sentence for each mistake that Hydra, OmegaConf or PyYAML finds before we do."""

from __future__ import annotations

import re
from collections.abc import Iterator
from types import TracebackType

from attnsweep.errors import ConfigError
from attnsweep.overrides import ungrammatical
from attnsweep.safe_text import line
from attnsweep.schema import nearest

#: What Hydra and OmegaConf raise of themselves, beside exceptions of their own, for what they were given.
PLAIN = (ValueError, TypeError, LookupError, AttributeError, AssertionError, RuntimeError, OSError, UserWarning)

#: OmegaConf's words for what is wrong with a value, and ours.
_OMEGACONF = (
    (r"Interpolation key '(.*)' not found", r"${\1} leads nowhere"),
    (r"Recursive interpolation detected", "it refers to itself in a circle"),
    (r"Unsupported interpolation type (.*)", r"${\1:...} is no kind of reference"),
    (r"\bDictConfig\b", "a mapping"),
    (r"\bListConfig\b", "a list"),
)
_IN_FILE = re.compile(r"In '(.+?)': \w+ raised while composing config:\s*(.*?)\s*full_key: ?(\S*)", re.DOTALL)


def sentence(error: BaseException) -> str:
    """What is wrong, and the choices where there are any, on one line."""
    return (
        line(_said(error))
        or f"this configuration cannot be read ({type(error).__name__}); HYDRA_FULL_ERROR=1 shows where"
    )


def of_hydra(error: BaseException) -> bool:
    """Whether Hydra or OmegaConf raised it, or what they called, not attnsweep or what that called."""
    packages = [name.partition(".")[0] for name in _modules(error.__traceback__)]
    return [one for one in packages if one in ("attnsweep", "hydra", "omegaconf")][-1:] != ["attnsweep"]


def _modules(trace: TracebackType | None) -> Iterator[str]:
    while trace is not None:
        yield str(trace.tb_frame.f_globals.get("__name__", ""))
        trace = trace.tb_next


def _said(error: BaseException) -> str:
    from hydra.errors import MissingConfigException
    from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException
    from yaml import MarkedYAMLError

    if isinstance(error, ConfigError):
        return str(error)
    if isinstance(error, RecursionError):
        return "a YAML includes itself by its defaults, or is nested too deeply"
    if isinstance(error, MissingConfigException) and error.options is not None:
        group, _, option = (error.missing_cfg_file or "").rpartition("/")
        choices = sorted(error.options)
        return f"there is no {group} {option!r}{nearest(option, choices)}; the choices are {', '.join(choices)}"
    if isinstance(error, MissingMandatoryValue):
        return f"{error.full_key} must be given"
    if isinstance(error, OmegaConfBaseException):
        return f"{error.full_key}: {_value(error)}" if error.full_key else _value(error)
    if isinstance(error, MarkedYAMLError) and error.problem_mark is not None:
        mark = error.problem_mark
        return f"{mark.name}, line {mark.line + 1}: {' '.join(filter(None, (error.context, error.problem)))}"
    return _composing(error)


def _value(error: Exception) -> str:
    """What OmegaConf says of one value, in the words of YAML."""
    first = (getattr(error, "msg", None) or str(error)).splitlines()[0]
    first = re.sub(r"^\w+ raised while resolving interpolation: ", "", first).strip('"')
    return ungrammatical(_in_yaml(first))


def _in_yaml(text: str) -> str:
    for theirs, ours in _OMEGACONF:
        text = re.sub(theirs, ours, text)
    return text


def _composing(error: BaseException) -> str:
    """What Hydra says of a file or an override, with what OmegaConf said to it."""
    text = str(error).split("Search path:")[0].split("Config search path:")[0].strip()
    cause = error.__cause__
    if match := re.match(r"Error merging override \+*(.*)", text):
        text = match[1]
    elif match := re.match(r"You must specify '(.+?)', e.g.*Available options:(.*)", text, re.DOTALL):
        return f"which {match[1]}? Say {match[1]}= and one of {', '.join(match[2].split())}"
    elif match := re.match(r"Could not override '(hydra\b.*?)'\.", text):
        return f"there is no key {match[1]}"
    elif match := _IN_FILE.match(text):
        return ": ".join(filter(None, (f"{match[1]}.yaml", match[3], _in_yaml(match[2]))))
    if isinstance(cause, Exception) and type(cause).__module__.startswith("omegaconf"):
        return f"{text}: {sentence(cause)}" if text else sentence(cause)
    return text
