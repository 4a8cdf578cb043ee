"""What a zygote's interpreter finds when it starts: its environment, and a folder with attnsweep alone."""

from __future__ import annotations

import getpass
import hashlib
import os
import re
import tempfile
from pathlib import Path

from attnsweep.errors import ConfigError
from attnsweep.interpreters import Interpreter, set_for_zygote

#: One OpenBLAS thread makes "exactly one thread after preloading" a sharp guard.
_OPENBLAS = "OPENBLAS_NUM_THREADS"

#: What of the parent's environment would mislead another interpreter.
_FOREIGN = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "PYTHONEXECUTABLE", "__PYVENV_LAUNCHER__")


def environment(interpreter: Interpreter, folder: Path, token: str) -> dict[str, str]:
    """The environment that a zygote of `interpreter` starts with; `folder` is the import folder, `token` its mark.

    The parent's own interpreter inherits everything; another one is kept from the parent's packages.
    """
    variables = dict(os.environ)
    if not interpreter.own:
        for name in _FOREIGN:
            variables.pop(name, None)
        variables["PYTHONNOUSERSITE"] = "1"
    variables.pop("HYDRA_FULL_ERROR", None)
    # A cell's TMPDIR is its own and goes with it; a compiler's cache must outlive the cell.
    variables.setdefault("TORCHINDUCTOR_CACHE_DIR", _cache("torchinductor"))
    variables.setdefault("JAX_COMPILATION_CACHE_DIR", _cache("attnsweep_jax"))
    variables.update(interpreter.variables)
    # Relative entries mean the parent's working folder, which the zygote does not start in.
    users = [os.path.abspath(entry) for entry in variables.get("PYTHONPATH", "").split(":") if entry]
    variables["PYTHONPATH"] = ":".join([str(folder), *users])
    variables[_OPENBLAS] = "1"
    return variables | set_for_zygote(token)


def restored(interpreter: Interpreter) -> dict[str, str | None]:
    """What a child changes of its zygote's environment (None removes): OpenBLAS's threads are the user's."""
    return {_OPENBLAS: dict(interpreter.variables).get(_OPENBLAS, os.environ.get(_OPENBLAS))}


def import_folder() -> Path:
    """A folder with nothing in it but a link to this package: what a zygote starts in and imports from.

    One for each checkout, in the user's cache folder, or below the temporary one where that cannot be
    written. Raises ConfigError when neither can hold it.
    """
    package = Path(__file__).resolve().parents[1]
    key = hashlib.sha256(str(package).encode()).hexdigest()[:16]
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache").absolute()
    try:
        return _linked(cache / "attnsweep" / "import" / key, package)
    except OSError:
        fallback = Path(tempfile.gettempdir()) / f"attnsweep-import-{os.getuid()}"
    try:
        fallback.mkdir(mode=0o700, exist_ok=True)
        if fallback.lstat().st_uid != os.getuid() or fallback.is_symlink():
            raise ConfigError(f"{fallback} belongs to somebody else; set XDG_CACHE_HOME to a folder of your own")
        return _linked(fallback / key, package)
    except OSError as error:
        raise ConfigError(f"neither {cache} nor {fallback} can be written: {error}") from None


def _linked(folder: Path, package: Path) -> Path:
    """`folder`, holding the link; made under another name and renamed, since others may be doing the same."""
    link = folder / "attnsweep"
    if not (link.is_symlink() and os.readlink(link) == str(package)):
        folder.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=".new-", dir=folder.parent))
        (temporary / "attnsweep").symlink_to(package)
        os.replace(temporary / "attnsweep", link)
        temporary.rmdir()
    return folder


def _cache(name: str) -> str:
    """A folder of this user's; of `torchinductor` torch's own default (torch/_inductor/runtime/cache_dir_utils.py)."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = f"uid_{os.getuid()}"
    return os.path.join(tempfile.gettempdir(), f"{name}_" + re.sub(r'[\\/:*?"<>|]', "_", user))
