"""What the parent knows of this machine and of the Python environments that cells will run in."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import pkgutil
import platform
import subprocess
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any

from attnsweep.devices import Device
from attnsweep.errors import last_line

#: A foreign interpreter that has not named its versions by then is taken to be broken.
_ASK_S = 60.0

#: Runs in a foreign interpreter, Python 3.9 on: the versions of its arguments as JSON, null for one not
#: installed.
_ASK = """
import sys
sys.path = [folder for folder in sys.path if folder]
import importlib.metadata, json
found = {}
for name in sys.argv[1:]:
    try:
        found[name] = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        found[name] = None
print(json.dumps(found))
"""


@lru_cache
def attnsweep_version() -> str | None:
    """The version of this attnsweep; None where it runs from a folder that is not installed."""
    return own_version("attnsweep")


def machine(device: Device) -> dict[str, Any]:
    """The record columns that are the same for every cell on `device`."""
    on_gpu = device.kind == "cuda"
    return {
        "attnsweep": attnsweep_version(),
        "hostname": platform.node(),
        "device": device.kind,
        "device_name": device.name,
        "gpu_name": device.name if on_gpu else None,
        "gpu_uuid": device.uuid if on_gpu else None,
        "driver": device.driver,
        "power_limit_w": device.power_limit_w,
    }


def own_version(distribution: str) -> str | None:
    """The version of an installed distribution in this interpreter, None where it is not installed."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def why_no_gpu(framework: str) -> str | None:
    """Why this interpreter's framework runs on no GPU, or None, also where only an import could tell: none is made.

    JAX needs a plugin, of whatever name: a module of the package jax_plugins, an entry point of that group
    (jax/_src/xla_bridge.py of 0.10.2), or a library that a variable names. Older wheels need none, such as that of
    jaxlib 0.4.25+cuda12.cudnn89.
    """
    if framework != "jax" or "PJRT_NAMES_AND_LIBRARY_PATHS" in os.environ or "cuda" in (own_version("jaxlib") or ""):
        return None
    package = importlib.util.find_spec("jax_plugins")
    folders = (package and package.submodule_search_locations) or []
    if any(pkgutil.iter_modules(folders)) or importlib.metadata.entry_points(group="jax_plugins"):
        return None
    return "this JAX has no plugin for a GPU; its CUDA build comes with: pip install 'jax[cuda13]'"


def foreign_versions(
    python: str, variables: Mapping[str, str], distributions: Iterable[str]
) -> dict[str, str | None] | str:
    """The versions of `distributions` in another interpreter, asked in one call, None for those not installed; or why
    it does not answer as a Python.

    It is asked as a cell would run in it: without this process's PYTHONPATH, with `variables` set. Where `python`
    is no executable file nothing is installed (`interpreters` says why).
    """
    names = sorted(set(distributions))
    if not (os.path.isfile(python) and os.access(python, os.X_OK)):
        return dict.fromkeys(names)
    dropped = {"PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV"}
    environment = {key: value for key, value in os.environ.items() if key not in dropped}
    try:
        answer = subprocess.run(
            [python, "-c", _ASK, *names],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_ASK_S,
            stdin=subprocess.DEVNULL,
            env={**environment, "PYTHONNOUSERSITE": "1", **variables},
        )
    except subprocess.TimeoutExpired:
        return f"{python} did not answer within {_ASK_S:g} s"
    except OSError as error:
        return f"{python} cannot be started: {error.strerror}"
    try:
        found = json.loads(answer.stdout.strip().rpartition("\n")[2])  # a wrapper may have said something before
    except json.JSONDecodeError:
        found = None
    if isinstance(found, dict) and set(found) == set(names):
        return found
    said = last_line(answer.stderr) or last_line(answer.stdout) or "it said nothing"
    # Another program took the lines for a file's name, or choked on one of them; no Python fails at the second.
    asked = _ASK.split("\n")[1:-1]
    if asked[1] in answer.stderr or any(line in said for line in asked):
        said = "it does not run what follows -c"
    return f"{python} is no Python 3.9 or newer that runs: {said}"
