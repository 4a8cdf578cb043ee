"""Python environments that uv builds from requirements, once, into a cache that is keyed by their content."""

from __future__ import annotations

import fcntl
import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

#: The folder of environments, where it is not to be attnsweep/envs in the user's cache.
VARIABLE = "ATTNSWEEP_ENVS"
INSTALL_UV = "uv, which builds it, is not installed; install it with: pip install uv"

#: What was asked for and what was installed, in an environment's folder.
REQUIREMENTS, FREEZE = "attnsweep-requirements.txt", "attnsweep-freeze.txt"

#: What of this process's environment would lead uv to another Python than the one it is told to use.
_MISLEADING = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "CONDA_PREFIX")
#: Of uv's words so many characters at either end: what failed stands first, why a package did not build last.
_WORDS = 600


@dataclass(frozen=True)
class Recipe:
    """What an environment is made of: lines of a requirements file, sorted, and a version such as 3.11."""

    requirements: tuple[str, ...]
    python_version: str

    @property
    def folder(self) -> Path:
        """Where it is once it is built. Equal recipes share it on machines of one platform."""
        content = "\n".join([*self.requirements, self.python_version, sysconfig.get_platform()])
        return root() / hashlib.sha256(content.encode()).hexdigest()[:20]

    @property
    def python(self) -> str:
        """Its interpreter."""
        return str(self.folder / "bin" / "python")

    @property
    def built(self) -> bool:
        """Whether it is there; a folder gets its name only when it is complete."""
        return os.access(self.python, os.X_OK)

    @property
    def packages(self) -> int:
        """How many packages it asks for; other lines are options such as --index-url."""
        return sum(not line.startswith("-") for line in self.requirements)


def recipe(requirements: Iterable[str], python_version: str | None) -> Recipe:
    """The recipe of these requirements; without a version it is this interpreter's."""
    return Recipe(tuple(sorted({line.strip() for line in requirements})), python_version or _own_version())


def root() -> Path:
    """The folder of all environments."""
    named = os.environ.get(VARIABLE)
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return (Path(named).expanduser() if named else cache / "attnsweep" / "envs").absolute()


def uv() -> str | None:
    """The path of uv, this interpreter's or the first on PATH; None without one."""
    if importlib.util.find_spec("uv") is not None:
        return str(importlib.import_module("uv").find_uv_bin())
    return shutil.which("uv")


def build(wanted: Recipe, name: str, say: Callable[[str], None]) -> str | None:
    """Build the environment of implementation `name` unless it is there; why it cannot be had, or None.

    One process builds, others wait; `say` is told either. It is built under another name and renamed, so that one
    that was cut short is never taken for whole.
    """
    if wanted.built:
        return None
    program = uv()
    if program is None:
        return INSTALL_UV
    folder = wanted.folder
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with open(folder.with_suffix(".lock"), "wb") as lock:
            _lock(lock.fileno(), name, say)
            if wanted.built:
                return None
            say(f"building the environment of {name} ({_count(wanted.packages)}) ...")
            for stale in [*folder.parent.glob(f".{folder.name}-*"), folder]:
                shutil.rmtree(stale, ignore_errors=True)
            with tempfile.TemporaryDirectory(
                prefix=f".{folder.name}-", dir=folder.parent, ignore_cleanup_errors=True
            ) as temporary:
                why = _build(program, wanted, Path(temporary), lock.fileno())
                if why is None:
                    os.rename(Path(temporary, "venv"), folder)
                return why
    except OSError as error:
        why = error.strerror or str(error)
        return f"its environment cannot be built in {folder.parent} ({why}); {VARIABLE} names another folder"


def _lock(fd: int, name: str, say: Callable[[str], None]) -> None:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        say(f"waiting for another process that builds the environment of {name} ...")
        fcntl.flock(fd, fcntl.LOCK_EX)


def _build(program: str, wanted: Recipe, folder: Path, lock: int) -> str | None:
    """Make `folder`/venv; why it failed, or None. Raises OSError."""
    venv = folder / "venv"
    python = sys.executable if wanted.python_version == _own_version() else wanted.python_version
    asked = folder / REQUIREMENTS
    asked.write_text("".join(f"{line}\n" for line in wanted.requirements))
    for arguments in (
        # Relocatable: what it installs must survive the renaming.
        ["venv", "--quiet", "--relocatable", "--no-project", "--python", python, str(venv)],
        ["pip", "install", "--quiet", "--python", str(venv), "--requirements", str(asked)],
        ["pip", "freeze", "--python", str(venv)],
    ):
        done = _run(program, arguments, lock)
        if done.returncode != 0:
            words = _words(done.stderr or done.stdout)
            return f"its environment cannot be built: {words}{_advice(words, wanted.python_version)}"
    (venv / FREEZE).write_text(done.stdout)
    os.rename(asked, venv / REQUIREMENTS)
    return None


def _run(program: str, arguments: Sequence[str], lock: int) -> subprocess.CompletedProcess[str]:
    """Run uv below no project's folder, whose settings it would read; it holds the lock too, should this process be
    killed meanwhile.
    """
    return subprocess.run(
        [program, *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        cwd=os.sep,
        env={key: value for key, value in os.environ.items() if key not in _MISLEADING},
        pass_fds=(lock,),
        check=False,
    )


def _words(text: str) -> str:
    words = " ".join(text.split()) or "uv said nothing"
    return words if len(words) <= 2 * _WORDS else f"{words[:_WORDS]} ... {words[-_WORDS:]}"


def _advice(words: str, version: str) -> str:
    """What to do where uv finds no Python of that version; empty for any other failure."""
    if "No interpreter found" not in words:
        return ""
    taken = " (which uv takes with UV_PYTHON_PREFERENCE=managed)" if "only system" in words else ""
    return f"; uv python install {version} brings one{taken}, or env.python names an environment of your own"


def _own_version() -> str:
    return f"{sys.version_info.major}.{sys.version_info.minor}"


def _count(packages: int) -> str:
    return f"{packages} package" if packages == 1 else f"{packages} packages"
