"""Implementations: from the YAML of conf/impl to something that can be called.

The parent binds a YAML to its class's keywords and asks whether a case is supported; only the worker builds.
"""

from __future__ import annotations

import importlib
import inspect
from contextlib import AbstractContextManager
from typing import Any

from attnsweep import dotted, frameworks
from attnsweep.case import Case
from attnsweep.devices import Device
from attnsweep.errors import ConfigError, Missing
from attnsweep.impls.base import Attention, how_to_bring
from attnsweep.impls.fields import HARDWARE, broken_rule
from attnsweep.impls.function import FunctionAttention
from attnsweep.metrics import Work

__all__ = [
    "Attention",
    "FunctionAttention",
    "bind",
    "build",
    "framework",
    "is_attention",
    "precision",
    "require_class",
    "why_missing",
    "why_not_on",
    "why_too_old",
    "why_unsupported",
    "work",
]


def bind(impl: dict[str, Any]) -> type[Attention]:
    """The class that `_target_` names, after checking that the YAML's keys fit its keywords.

    Raises ConfigError for a class that cannot be found, a key that it does not take, or one that it lacks.
    """
    name = impl.get("name")
    if not isinstance(name, str) or not name:
        raise ConfigError(f"impl.name must be text, not {name!r}")
    cls = _target(name, impl.get("_target_"))
    known = keywords(cls)
    given = set(impl) - {"_target_"}
    unknown = sorted(given - set(known))
    if unknown:
        raise ConfigError(f"impl {name}: no such key: {', '.join(unknown)}; the keys are {', '.join(sorted(known))}")
    lacking = sorted(key for key, required in known.items() if required and key not in given)
    if lacking:
        raise ConfigError(f"impl {name}: {', '.join(lacking)} must be given")
    with _asking(impl):
        cls.validate(impl)
    return cls


def require_class(impl: dict[str, Any]) -> None:
    """Import the module of the class in a cell, whose interpreter need not have all that the parent's has; raises
    Missing.
    """
    module = str(impl["_target_"]).rpartition(".")[0]
    with _asking(impl):
        try:
            importlib.import_module(module)
        except ImportError as error:
            raise Missing(f"{module} cannot be imported ({error}); {how_to_bring(impl.get('env') or {})}") from error


def build(impl: dict[str, Any]) -> Attention:
    """The implementation that a YAML describes; imports nothing of its library yet."""
    return bind(impl)(**{key: value for key, value in impl.items() if key != "_target_"})


def framework(impl: dict[str, Any]) -> str:
    """The framework that the implementation computes in."""
    name = impl.get("framework") or bind(impl).framework
    if name not in frameworks.NAMES:
        raise ConfigError(f"impl {impl['name']}: framework must be one of {', '.join(frameworks.NAMES)}, not {name!r}")
    return str(name)


def why_unsupported(impl: dict[str, Any], case: Case, device: Device, compile: dict[str, Any]) -> str | None:
    """Why the implementation cannot do this case on this device in this compile mode, or None. Imports no library."""
    with _asking(impl):
        return build(impl).why_unsupported(case, device, compile)


def why_not_on(impl: dict[str, Any], device: Device) -> str | None:
    """Why the implementation cannot do anything on this device, as its YAML says, or None."""
    rules = {key: value for key, value in build(impl).rules.items() if key in HARDWARE}
    any_case = Case(batch_size=1, q_len=1, kv_len=1, num_heads=1, num_kv_heads=1, head_dim=1, head_dim_v=1)
    return broken_rule(rules, any_case, device, "eager")


def why_missing(impl: dict[str, Any]) -> str | None:
    """Why the implementation's library is not in this interpreter, or not new enough, or None; looks for it without
    importing it.
    """
    return build(impl).why_missing()


def why_too_old(impl: dict[str, Any], version: str | None) -> str | None:
    """Why this version of its distribution is too old for the implementation, or None."""
    return build(impl).why_too_old(version)


def work(impl: dict[str, Any], case: Case) -> Work:
    """What one call of the implementation does in this case. Imports no library."""
    with _asking(impl):
        return build(impl).work(case)


def is_attention(impl: dict[str, Any]) -> bool:
    """False for a ceiling, whose output is not attention's and not checked."""
    return build(impl).is_attention


def precision(impl: dict[str, Any]) -> dict[str, Any] | None:
    """The class in which the implementation computes and the limits of its check, None for the case's own precision."""
    with _asking(impl):
        return build(impl).precision


def keywords(cls: type) -> dict[str, bool]:
    """The keywords that a class's constructor takes, through **common to its bases; True for required ones."""
    known: dict[str, bool] = {}
    for base in cls.__mro__:
        if "__init__" not in vars(base) or base is object:
            continue
        parameters = list(inspect.signature(vars(base)["__init__"]).parameters.values())[1:]
        for parameter in parameters:
            if parameter.kind in (parameter.KEYWORD_ONLY, parameter.POSITIONAL_OR_KEYWORD):
                known.setdefault(parameter.name, parameter.default is parameter.empty)
        if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
            break
    return known


def _target(name: str, path: Any) -> type[Attention]:
    cls = dotted.target(f"impl {name}", "Class", path)
    if not (isinstance(cls, type) and issubclass(cls, Attention)):
        raise ConfigError(f"impl {name}: _target_ {path} is not a subclass of attnsweep.impls.Attention")
    if inspect.isabstract(cls):
        lacking = ", ".join(sorted(cls.__abstractmethods__))
        raise ConfigError(f"impl {name}: _target_ {path} cannot be built: it has no {lacking}")
    return cls


def _asking(impl: dict[str, Any]) -> AbstractContextManager[None]:
    return dotted.asking(f"impl {impl['name']}", impl["_target_"])
