"""Hydra's loader over conf/ and folders of a test's own, in this process."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from attnsweep import compose, conf_path, launching, overrides

if TYPE_CHECKING:
    from hydra.core.config_loader import ConfigLoader

    from attnsweep.schema import Settings


@contextmanager
def loader(*folders: Path) -> Iterator[ConfigLoader]:
    """A loader that searches conf/ and then `folders`."""
    from hydra import initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra

    conf_path.register(folders)
    with initialize_config_dir(str(conf_path.conf_folder()), version_base="1.3", job_name="attnsweep"):
        hydra = GlobalHydra.instance().hydra
        assert hydra is not None
        yield hydra.config_loader
    conf_path.register(())


def by_hydra(found: ConfigLoader, job: list[str]) -> compose.Combination:
    """The combination that Hydra itself composes for a job."""
    from hydra.types import RunMode
    from omegaconf import OmegaConf, open_dict

    cfg = found.load_configuration("config", job, RunMode.RUN)
    choices = OmegaConf.to_container(cfg.hydra.runtime.choices)
    with open_dict(cfg):
        del cfg["hydra"]
    return compose.combination(cfg, choices, job)[1]  # type: ignore[arg-type]


def study(name: str) -> tuple[Settings, list[compose.Combination]]:
    """What `attnsweep study=NAME` alone would plan."""
    from hydra.types import RunMode
    from omegaconf import OmegaConf

    with loader() as found:
        master = found.load_configuration("config", [f"study={name}"], RunMode.MULTIRUN)
        params = OmegaConf.to_container(master.hydra.sweeper.params)
        assert isinstance(params, dict)
        chosen = OmegaConf.to_container(master.hydra.runtime.choices)
        assert isinstance(chosen, dict)
        lines = [*overrides.params_lines({str(key): value for key, value in params.items()}), f"study={name}"]
        listed = launching.options(found, master)
        return launching.prepare(found, master, overrides.expand(lines, listed, chosen))  # type: ignore[arg-type]


def write(folder: Path, **files: str) -> Path:
    """Write YAML files below `folder`, `impl__mine` being impl/mine.yaml; returns the folder."""
    for name, text in files.items():
        path = folder / (name.replace("__", "/") + ".yaml")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder
