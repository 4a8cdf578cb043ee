"""Dotted names in YAML: what they name, and one sentence where that cannot be had. Standard library only."""

from __future__ import annotations

import importlib
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from attnsweep.errors import AttnsweepError, ConfigError


def is_dotted(value: Any) -> bool:
    """Whether `value` is text such as package.module.name."""
    return isinstance(value, str) and "." in value and all(part.isidentifier() for part in value.split("."))


def target(whose: str, kind: str, path: Any) -> Any:
    """What `path`, the `_target_` of `whose` YAML, names; `kind` is what it must be, in a word.

    Raises ConfigError where it is no such name, or where importing it fails in whatever way.
    """
    if path is None:
        raise ConfigError(f"{whose}: _target_ must be given, as package.module.{kind}")
    if not is_dotted(path):
        raise ConfigError(f"{whose}: _target_ must be package.module.{kind}, not {path!r}")
    module, _, attribute = path.rpartition(".")
    with asking(whose, f"_target_ {path}"):
        try:
            return getattr(importlib.import_module(module), attribute)
        except (ImportError, AttributeError) as error:
            raise ConfigError(f"{whose}: _target_ {path} cannot be imported: {error}") from error


@contextmanager
def asking(whose: str, path: str) -> Iterator[None]:
    """Meanwhile `path` of a user's is asked: whatever it raises is a ConfigError with the place; ours keep theirs."""
    try:
        yield
    except AttnsweepError:
        raise
    except Exception as error:
        if path.startswith("attnsweep."):
            raise
        raise ConfigError(f"{whose}: {path} fails: {_said(error)}") from error


def _said(error: Exception) -> str:
    """An exception of somebody else's code in one line: its type, its text, and where it was raised."""
    place = traceback.extract_tb(error.__traceback__)[-1]
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text} ({place.filename}, line {place.lineno})"
