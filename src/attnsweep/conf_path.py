"""Where configuration is found: our conf/, and the folders of YAML that users add."""

from __future__ import annotations

import functools
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attnsweep.errors import ConfigError

if TYPE_CHECKING:
    from hydra.plugins.config_source import ConfigSource
    from hydra.plugins.search_path_plugin import SearchPathPlugin
    from omegaconf import Container

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
        if not part or not folder.is_dir():
            raise ConfigError(f"{source} names {folder if part else repr(part)}, which is no folder")
        if not str(folder).isprintable():
            raise ConfigError(f"{source} names {str(folder)!r}: records can name only folders of printable characters")
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

    search_path, source = _plugins()
    search_path.folders = tuple(folders)  # type: ignore[attr-defined]
    for plugin in (search_path, source):
        Plugins.instance().register(plugin)


@functools.cache
def _plugins() -> tuple[type[SearchPathPlugin], type[ConfigSource]]:
    # Defined on demand, so that importing this module does not import Hydra; registered by hand, because in
    # hydra_plugins they would touch every other Hydra program of the environment.
    from hydra._internal.core_plugins.file_config_source import FileConfigSource
    from hydra.core.config_search_path import ConfigSearchPath
    from hydra.plugins.config_source import ConfigResult
    from hydra.plugins.search_path_plugin import SearchPathPlugin
    from omegaconf.errors import OmegaConfBaseException

    from attnsweep.messages import sentence

    class UserFiles(FileConfigSource):
        """Hydra's files, but what is no YAML of fields is a mistake that names the file."""

        @staticmethod
        def scheme() -> str:
            return "user"

        def load_config(self, config_path: str) -> ConfigResult:
            path = Path(self.path, self._normalize_file_name(config_path))
            try:
                loaded = super().load_config(config_path)
            except UnicodeDecodeError as error:
                raise ConfigError(f"{path} is not UTF-8 text: {error.reason} at byte {error.start}") from None
            except RecursionError:
                raise ConfigError(f"{path} is nested too deeply") from None
            except OSError as error:
                # OmegaConf's for a file that is one value
                why = error.strerror or "it must be a mapping, lines of key: value"
                raise ConfigError(f"{path} cannot be read: {why}") from None
            except (ValueError, LookupError, TypeError, AttributeError, OmegaConfBaseException) as error:
                # OmegaConf's for what it cannot hold, and PyYAML's for a tag such as !!int on what is none
                raise ConfigError(f"{path} cannot be read: {sentence(error)}") from None
            _check_shape(path, loaded.config)
            return loaded

    class UserFolders(SearchPathPlugin):
        """Adds `folders` to what Hydra searches."""

        folders: tuple[Path, ...] = ()

        def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
            for folder in self.folders:
                search_path.append("user", f"{UserFiles.scheme()}://{folder}")

    return UserFolders, UserFiles


def _check_shape(path: Path, config: Container) -> None:
    """Raise ConfigError unless the parts of a user's YAML that Hydra reads are what it takes them for."""
    from omegaconf import OmegaConf

    content: Any = OmegaConf.to_container(config, resolve=False)
    if not isinstance(content, dict):
        raise ConfigError(f"{path} must be a mapping, lines of key: value, not a list")
    if list(content.values()) == [None] and ":" not in path.read_text(encoding="utf-8"):
        raise ConfigError(f"{path} must be a mapping, lines of key: value, not text")
    defaults = content.get("defaults", [])
    if not isinstance(defaults, list) or not all(one and isinstance(one, (str, dict)) for one in defaults):
        raise ConfigError(f"{path}: defaults must be a list of names and mappings (group: option), not {defaults!r}")
    key, part = "", content
    for name in ("hydra", "sweeper", "params"):
        key, part = f"{key}.{name}".lstrip("."), part.get(name, {})
        if not isinstance(part, dict):
            raise ConfigError(f"{path}: {key} must be a mapping, not {part!r}")
