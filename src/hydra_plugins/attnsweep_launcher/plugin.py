"""Thin: Hydra's jobs in, one sweep out. Hydra imports this at every start: the rest waits until it is used."""

# No `from __future__ import annotations`: Hydra executes this file before it is in sys.modules, where
# dataclasses would look up annotations that are text.
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from hydra.core.config_store import ConfigStore
from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

if TYPE_CHECKING:
    from attnsweep.compose import Combination
    from attnsweep.schema import Settings


@dataclass
class AttnsweepLauncherConf:
    _target_: str = "hydra_plugins.attnsweep_launcher.plugin.AttnsweepLauncher"


@dataclass
class AttnsweepSweeperConf:
    _target_: str = "hydra_plugins.attnsweep_launcher.plugin.AttnsweepSweeper"
    params: dict[str, Any] = field(default_factory=dict)


for _group, _node in (("launcher", AttnsweepLauncherConf), ("sweeper", AttnsweepSweeperConf)):
    ConfigStore.instance().store(group=f"hydra/{_group}", name="attnsweep", node=_node, provider="attnsweep")


class AttnsweepLauncher(Launcher):
    """Runs all jobs as one sweep in this process."""

    def __init__(self) -> None:
        self.prepared: tuple[Settings, list[Combination]] | None = None

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.context, self.master = hydra_context, config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        from attnsweep import launching

        settings, combinations = self.prepared or launching.prepare(
            self.context.config_loader, self.master, job_overrides
        )
        code = launching.run(settings, combinations)
        returns = []
        for overrides in job_overrides:
            one = JobReturn(overrides=overrides, status=JobStatus.COMPLETED)
            one.return_value = code
            returns.append(one)
        return returns


class AttnsweepSweeper(Sweeper):
    """Expands a study's parameters and the command line, validates every job, launches all at once."""

    def __init__(self, params: dict[str, Any]) -> None:
        self.params = params

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.context, self.task, self.master = hydra_context, task_function, config

    def sweep(self, arguments: list[str]) -> Any:
        from attnsweep import launching

        return launching.sweep(self.context, self.task, self.master, self.params, arguments)
