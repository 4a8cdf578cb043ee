"""Which Python a cell runs in and with which variables, what it preloads and lacks, and the versions it holds."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from attnsweep import environment, impls, uvenv
from attnsweep.errors import ConfigError
from attnsweep.frameworks import PRELOAD, PRELOAD_COMPILE
from attnsweep.uvenv import Recipe

#: How a line of a requirements file begins that reads another file.
_INCLUDING = ("-r", "-c", "--requirement", "--constraint")

#: In the environment of a zygote from its start, and so of everything below it, daemons too.
TOKEN_VARIABLE = "ATTNSWEEP_ZYGOTE"


def set_for_zygote(token: str) -> dict[str, str]:
    """The variables that attnsweep sets in a zygote's environment, over those of anybody else."""
    return {
        # With it importing torch's compiler does not initialise CUDA, which no forked child survives.
        "PYTORCH_NVML_BASED_CUDA_CHECK": "1",
        # Importing torch's compiler beside a CUDA build of triton starts a pool of compile workers with a thread.
        "TORCH_WARM_POOL": "0",
        TOKEN_VARIABLE: token,
    }


def set_for_cell(visible: str, temporary: str) -> dict[str, str]:
    """The variables that it sets in each cell's besides: the one device that is seen, the folder that goes with it."""
    return {"CUDA_VISIBLE_DEVICES": visible, "TMPDIR": temporary}


#: What `env.variables` could name to no effect.
RESERVED = frozenset({**set_for_zygote(""), **set_for_cell("", "")})


@dataclass(frozen=True)
class Interpreter:
    """Which warm process a cell needs; equal ones share a zygote.

    `python` is an absolute path, never resolved through symlinks. `variables` are set before the zygote
    starts. `preload` is imported before the first fork; () is isolation=spawn. `own` is the parent's own
    interpreter, which inherits its environment, PYTHONPATH included. `recipe` is what uv builds it from,
    `missing` why it cannot be had.
    """

    python: str
    variables: tuple[tuple[str, str], ...]
    preload: tuple[str, ...]
    own: bool
    recipe: Recipe | None = None
    missing: str | None = None


@dataclass(frozen=True)
class Host:
    """An interpreter but for what it preloads, which depends on all the cells that share it."""

    python: str
    variables: tuple[tuple[str, str], ...]
    own: bool
    framework: str
    spawn: bool
    recipe: Recipe | None = None
    missing: str | None = None


def host(impl: Mapping[str, Any], isolation: str, kind: str) -> Host:
    """Where an implementation's YAML says that it runs, on a device of this kind (cpu or cuda); the parent's own
    interpreter without `env.python` and `env.requirements`.

    An environment of requirements also gets numpy and the framework, which every cell needs, and for a GPU
    cupti-python, without which no kernel is seen. A relative path is relative to the working folder. Raises
    ConfigError for values that cannot be meant.
    """
    env = impl.get("env") or {}
    variables = env.get("variables") or {}
    for key, value in variables.items():
        if isinstance(value, bool) or not isinstance(value, (str, int, float)):
            raise ConfigError(f"impl {impl['name']}: env.variables.{key} must be text or a number, not {value!r}")
        if not key or "=" in key or "\0" in f"{key}{value}":
            raise ConfigError(f"impl {impl['name']}: env.variables has {key!r}, which no environment can hold")
        if key in RESERVED:
            names = ", ".join(sorted(RESERVED))
            raise ConfigError(f"impl {impl['name']}: env.variables.{key} cannot be set: attnsweep itself sets {names}")
    python = env.get("python")
    if python is not None and not isinstance(python, str):
        raise ConfigError(f"impl {impl['name']}: env.python must be an interpreter's path, not {python!r}")
    framework = impls.framework(dict(impl))
    recipe = _recipe(impl, framework, kind)
    if recipe is not None:
        python = recipe.python
    return Host(
        python=sys.executable if python is None else os.path.abspath(os.path.expanduser(python)),
        variables=tuple(sorted((str(key), str(value)) for key, value in variables.items())),
        own=python is None,
        framework=framework,
        spawn=isolation == "spawn" or impl.get("isolation") == "spawn",
        recipe=recipe,
    )


def _recipe(impl: Mapping[str, Any], framework: str, kind: str) -> Recipe | None:
    env = impl.get("env") or {}
    requirements, python_version = env.get("requirements"), env.get("python_version")
    if requirements is None:
        if python_version is not None:
            raise ConfigError(f"impl {impl['name']}: env.python_version goes with env.requirements, which is not given")
        return None
    if env.get("python") is not None:
        raise ConfigError(
            f"impl {impl['name']}: env.python and env.requirements exclude each other; null takes the place of either"
        )
    including = next((line for line in requirements if line.lstrip().startswith(_INCLUDING)), None)
    if including is not None:
        raise ConfigError(
            f"impl {impl['name']}: env.requirements has {including!r}, but an environment is known by its own lines "
            "and would not follow a file: write out what that says"
        )
    ours = [*PRELOAD[framework], *(["cupti-python"] if kind == "cuda" else [])]
    return uvenv.recipe([*requirements, *ours], python_version)


def interpreter(where: Host, compiles: bool) -> Interpreter:
    """The interpreter with its preload list: the framework, and its compiler where a cell there compiles."""
    preload: tuple[str, ...] = ()
    if not where.spawn:
        preload = PRELOAD[where.framework]
        if compiles:
            preload += PRELOAD_COMPILE[where.framework]
    return Interpreter(where.python, where.variables, preload, where.own, where.recipe, where.missing)


def why_missing(impl: dict[str, Any], where: Host | Interpreter, version: str | None, kind: str) -> str | None:
    """Why an implementation cannot run where it is meant to, on a device of this kind (cpu or cuda), or None; of
    another interpreter only whether it exists, or can be built, and whether `version`, which `versions` found there, is
    new enough; nothing where variables of its own may show what is not seen from here.
    """
    if where.missing is not None:
        return where.missing
    if where.own:
        hidden = any(
            name in ("HOME", "PJRT_NAMES_AND_LIBRARY_PATHS") or name.startswith("PYTHON") for name, _ in where.variables
        )
        if hidden:
            return None
        no_gpu = environment.why_no_gpu(impls.framework(impl)) if kind == "cuda" else None
        return impls.why_missing(impl) or no_gpu
    if where.recipe is not None and not where.recipe.built:
        return uvenv.INSTALL_UV if uvenv.uv() is None else None
    return why_unusable(where.python) or impls.why_too_old(impl, version)


def why_unusable(python: str) -> str | None:
    """Why no cell can start in this interpreter, or None."""
    if not os.path.isfile(python):
        return f"there is no Python interpreter at {python}; make the environment or change env.python"
    if not os.access(python, os.X_OK):
        return f"{python} is not executable; env.python must be a Python interpreter"
    return None


def build(wanted: Mapping[Host, str], say: Callable[[str], None]) -> dict[Host, str]:
    """Build the environments of hosts that uv makes, each for the implementation named; why those that failed cannot
    be had. `say` is told what is being built.
    """
    recipes = {where.recipe: name for where, name in wanted.items() if where.recipe is not None}
    answers = {recipe: uvenv.build(recipe, name, say) for recipe, name in recipes.items()}
    whys = {where: None if where.recipe is None else answers[where.recipe] for where in wanted}
    return {where: why for where, why in whys.items() if why is not None}


def versions(
    implementations: Sequence[Mapping[str, Any]], hosts: Sequence[Host]
) -> tuple[list[str | None], dict[Host, str]]:
    """The version of each implementation's distribution where it runs, and why those hosts that do not answer cannot
    be had; each environment is asked once.

    None where an implementation names no distribution, or where that is not installed.
    """
    pairs = [(impl.get("distribution"), where) for impl, where in zip(implementations, hosts, strict=True)]
    wanted: dict[tuple[str, tuple[tuple[str, str], ...]], set[str]] = {}
    for distribution, where in pairs:
        if not where.own:
            wanted.setdefault((where.python, where.variables), set()).update(filter(None, [distribution]))
    answers = {key: environment.foreign_versions(key[0], dict(key[1]), names) for key, names in wanted.items()}
    names_here = {name for name, where in pairs if name is not None and where.own}
    own = {name: environment.own_version(name) for name in names_here}
    found: list[str | None] = []
    whys: dict[Host, str] = {}
    for name, where in pairs:
        answer = own if where.own else answers[where.python, where.variables]
        if isinstance(answer, str):
            whys[where] = answer
        found.append(None if name is None or isinstance(answer, str) else answer[name])
    return found, whys
