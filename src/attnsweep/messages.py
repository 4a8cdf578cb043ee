"""One sentence for each mistake that Hydra, OmegaConf or PyYAML finds before we do."""

from __future__ import annotations

from attnsweep.errors import ConfigError
from attnsweep.schema import nearest


def sentence(error: Exception) -> str:
    """What is wrong, and the choices where there are any, on one line."""
    from hydra.errors import MissingConfigException
    from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException
    from yaml import MarkedYAMLError

    if isinstance(error, ConfigError):
        return str(error)
    if isinstance(error, MissingConfigException) and error.options is not None:
        group, _, option = (error.missing_cfg_file or "").rpartition("/")
        choices = sorted(error.options)
        return f"there is no {group} {option!r}{nearest(option, choices)}; the choices are {', '.join(choices)}"
    if isinstance(error, MissingMandatoryValue):
        return f"{error.full_key} must be given"
    if isinstance(error, OmegaConfBaseException):
        first = (error.msg or str(error)).splitlines()[0]
        return f"{error.full_key}: {first}" if error.full_key else first
    if isinstance(error, MarkedYAMLError) and error.problem_mark is not None:
        mark = error.problem_mark
        return f"{mark.name}, line {mark.line + 1}: {error.problem}"
    text = " ".join(str(error).split("Search path:")[0].split("Config search path:")[0].split())
    cause = error.__cause__
    if isinstance(cause, OmegaConfBaseException):
        return f"{text}: {sentence(cause)}" if text else sentence(cause)
    return text
