"""Where configuration is found: our conf/, and the folders of YAML that users add."""

from __future__ import annotations

import functools
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from attnsweep.errors import ConfigError

if TYPE_CHECKING:
    from hydra.plugins.search_path_plugin import SearchPathPlugin

VARIABLE = "ATTNSWEEP_CONFIG_PATH"


def conf_folder() -> Path:
    """The absolute path of our conf/: in the package when installed, at the root of a checkout."""
    package = Path(__file__).resolve().parent
    checkout = package.parents[1]
    for folder in (package / "conf", checkout / "conf"):
        if (folder / "config.yaml").is_file():
            return folder
    raise ConfigError(f"attnsweep's own conf/ is neither in {package} nor in {checkout}: install attnsweep again")


def user_folders(config_dir: str | None) -> list[Path]:
    """The folders of the user's own YAML, first match first: --config-dir, then ATTNSWEEP_CONFIG_PATH.

    Raises ConfigError for a folder that does not exist.
    """
    named = [("--config-dir", config_dir)] if config_dir is not None else []
    named += [(VARIABLE, part) for part in os.environ.get(VARIABLE, "").split(os.pathsep) if part]
    folders = []
    for source, part in named:
        folder = Path(part).expanduser().absolute()
        if not folder.is_dir():
            raise ConfigError(f"{source} names {folder}, which is no folder")
        if folder not in folders:
            folders.append(folder)
    return folders


def shadowed(folders: Sequence[Path]) -> list[str]:
    """One line for each YAML of `folders` that an earlier folder, or ours, hides by the same name."""
    lines = []
    seen = {path.relative_to(conf_folder()): path for path in sorted(conf_folder().rglob("*.yaml"))}
    for folder in folders:
        for path in sorted(folder.rglob("*.yaml")):
            first = seen.setdefault(path.relative_to(folder), path)
            if first != path:
                lines.append(f"attnsweep: {path} is not read: {first} has the same name and comes first")
    return lines


def register(folders: Sequence[Path]) -> None:
    """Make Hydra search `folders`, after our own conf/, in every search path that it makes from now on."""
    from hydra.core.plugins import Plugins

    plugin = _plugin()
    plugin.folders = tuple(folders)  # type: ignore[attr-defined]
    Plugins.instance().register(plugin)


@functools.cache
def _plugin() -> type[SearchPathPlugin]:
    # Defined on demand, so that importing this module does not import Hydra; registered by hand, because in
    # hydra_plugins it would touch every other Hydra program of the environment.
    from hydra.core.config_search_path import ConfigSearchPath
    from hydra.plugins.search_path_plugin import SearchPathPlugin

    class UserFolders(SearchPathPlugin):
        folders: tuple[Path, ...] = ()

        def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
            for folder in self.folders:
                search_path.append("user", f"file://{folder}")

    return UserFolders
