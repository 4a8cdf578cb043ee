"""From Hydra's jobs to a run sweep: everything is validated before anything is written, then it runs once."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, cast

from attnsweep import compose, impls, overrides, scenarios
from attnsweep.compose import Combination
from attnsweep.errors import ConfigError
from attnsweep.schema import Settings

if TYPE_CHECKING:
    from hydra._internal.config_loader_impl import ConfigLoaderImpl
    from hydra.core.config_loader import ConfigLoader
    from hydra.core.utils import JobReturn
    from hydra.types import HydraContext, TaskFunction
    from omegaconf import DictConfig

#: Exit codes of the sweeps that this process ran: the way back to `cli.main`, because Hydra returns nothing.
exit_codes: list[int] = []

#: The process of the command, as cli.main says: whose launcher's loop a signal that ends a sweep must end too.
command_pid: int | None = None


def sweep(
    context: HydraContext,
    task_function: TaskFunction,
    config: DictConfig,
    params: Mapping[str, Any],
    lines: list[str],
) -> list[Sequence[JobReturn]]:
    """Expand a study's parameters and the command line, validate every job, and launch them in one call.

    The exit codes of what ran go to `exit_codes`. Raises ConfigError, or Hydra's exceptions, before anything
    is written.
    """
    from hydra.core.hydra_config import HydraConfig
    from hydra.core.plugins import Plugins
    from omegaconf import OmegaConf, open_dict

    HydraConfig.instance().set_config(config)  # what ${hydra:...} in a YAML reads
    loader = context.config_loader
    # As a plain dict: a group without a default reads as "???", which OmegaConf refuses to hand out.
    chosen = cast("dict[str, str | None]", OmegaConf.to_container(config.hydra.runtime.choices))
    params = cast("dict[str, Any]", OmegaConf.to_container(OmegaConf.create(dict(params or {})), resolve=True))
    kept = _kept_by_tiny(config, params, lines)
    jobs = overrides.expand([*overrides.params_lines(params), *kept, *lines], options(loader, config), chosen)
    settings, combinations = prepare(loader, config, jobs)
    # Other launchers compose each job anew: the name is decided here, once, for all of them.
    named = f"name={overrides.literal(settings.name)}"
    jobs = [[*(line for line in job if not line.startswith("name=")), named] for job in jobs]
    with open_dict(config):
        config.name, config.output_dir = settings.name, settings.output_dir
    if settings.dry_run:
        run(settings, combinations)
        return []
    launcher = Plugins.instance().instantiate_launcher(
        hydra_context=context, task_function=task_function, config=config
    )
    if hasattr(launcher, "prepared"):
        launcher.prepared = (settings, combinations)
    returns = launcher.launch(jobs, initial_job_idx=0)
    exit_codes.extend(one.return_value for one in returns)  # of tasks that ran in other processes
    return [returns]


def shown(loader: ConfigLoader, config_name: str, lines: list[str]) -> list[str]:
    """The overrides from which Hydra composes the one job that `lines` make, what a sweep adds to them included.

    A study's parameters are not among them. Raises ConfigError where it is more than one job, or Hydra's exceptions,
    and whatever a sweep would refuse.
    """
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    parsed = overrides.parse(lines)
    for one in parsed:
        if one.is_sweep_override():
            raise ConfigError(f"--cfg shows one configuration, and {one.input_line} is a sweep")
    whole = [line for line, one in zip(lines, parsed, strict=True) if not overrides.below_group(one)]
    config = loader.load_configuration(config_name, whole, RunMode.RUN)
    HydraConfig.instance().set_config(config)
    own = [line for line, one in zip(lines, parsed, strict=True) if not one.is_hydra_override()]
    job, *more = overrides.expand(
        [*_kept_by_tiny(config, {}, own), *own], options(loader, config), config.hydra.runtime.choices
    )
    if more:
        raise ConfigError(f"--cfg shows one configuration, and this is a sweep of {1 + len(more)}")
    prepare(loader, config, [job])
    return [*config.hydra.overrides.hydra, *job]


def _kept_by_tiny(master: DictConfig, params: Mapping[str, Any], lines: Sequence[str]) -> list[str]:
    """Overrides by which scale=tiny leaves alone what `lines` set of the scenario's fields; none at another scale.

    What a study's `params` set is what tiny is there to make small.
    """
    typed = [override.key_or_group for override in overrides.parse(lines)]
    if (master.scale if "scale" in typed else params.get("scale", master.scale)) != "tiny":
        return []
    fields = dict.fromkeys(key.split(".")[1] for key in typed if key.startswith("scenario."))
    return [f"scenario.tiny.{name}=${{scenario.{name}}}" for name in fields if name not in scenarios.OWN_KEYS]


def options(loader: ConfigLoader, config: DictConfig) -> Callable[[str], list[str]]:
    """A function that lists the options of a group, those in folders below it as folder/option."""
    from hydra.core.object_type import ObjectType

    # The loader's own get_group_options reads config.yaml again for every question.
    _, repository = cast("ConfigLoaderImpl", loader)._parse_overrides_and_create_caching_repo(
        config.hydra.job.config_name, list(config.hydra.overrides.hydra)
    )

    @functools.cache
    def listed(group: str) -> list[str]:
        found = list(repository.get_group_options(group, ObjectType.CONFIG))
        for folder in repository.get_group_options(group, ObjectType.GROUP):
            found += [f"{folder}/{one}" for one in listed(f"{group}/{folder}")]
        return found

    return listed


def prepare(
    loader: ConfigLoader, master: DictConfig, jobs: Sequence[Sequence[str]]
) -> tuple[Settings, list[Combination]]:
    """The settings and combinations of `jobs`, composed and bound; raises ConfigError."""
    from omegaconf import OmegaConf

    hydra_overrides = OmegaConf.to_container(master.hydra.overrides.hydra)
    assert isinstance(hydra_overrides, list)
    settings, combinations = compose.combinations(loader, master.hydra.job.config_name, jobs, hydra_overrides)
    bind(settings, combinations)
    return settings, combinations


def bind(settings: Settings, combinations: Sequence[Combination]) -> None:
    """Bind the implementation and the scenario of every combination without building anything.

    Raises ConfigError for an unknown target or key, a case that is none, or one name for two implementations.
    """
    scenarios.agree(list({repr(one.scenario): one.scenario for one in combinations}.values()))
    options: dict[str, str | None] = {}
    bound: set[str] = set()  # what was asked once is not asked again: 180 combinations share a handful
    for one in combinations:
        if repr(one.impl) not in bound:
            impls.bind(one.impl)
            bound.add(repr(one.impl))
        name, option = str(one.impl["name"]), one.choices["impl"]
        if options.setdefault(name, option) != option:
            raise ConfigError(
                f"impl={options[name]} and impl={option} are both named {name}: records could not tell them apart"
            )
        if repr(one.scenario) not in bound:
            scenarios.expand(one.scenario, settings.scale)
            bound.add(repr(one.scenario))


def run(settings: Settings, combinations: list[Combination], *, shared: bool = False) -> int:
    """Run the sweep and return its exit code; `shared` is for one job of several; raises ConfigError."""
    from attnsweep import sweep

    with _without_full_error():
        code = sweep.run(settings, combinations, shared=shared)
    exit_codes.append(code)
    return code


def task(cfg: DictConfig) -> int:
    """Run the one combination that another launcher composed, and return its exit code.

    Raises KeyboardInterrupt with that code where a signal ended it and the launcher's loop runs in this process:
    the combinations after it would run else, with whoever pressed Ctrl-C watching. A process that a launcher
    started returns it, as an answer to wait for.
    """
    from hydra.core.hydra_config import HydraConfig

    hydra = HydraConfig.get()
    settings, combination = compose.combination(cfg, dict(hydra.runtime.choices), list(hydra.overrides.task))
    bind(settings, [combination])
    code = run(settings, [combination], shared=True)
    if code > 128 and command_pid == os.getpid():
        raise KeyboardInterrupt(code)
    return code


@contextmanager
def _without_full_error() -> Iterator[None]:
    """Take HYDRA_FULL_ERROR, which cli.main sets for Hydra in this process, from what children inherit."""
    value = os.environ.pop("HYDRA_FULL_ERROR", None)
    try:
        yield
    finally:
        if value is not None:
            os.environ["HYDRA_FULL_ERROR"] = value
