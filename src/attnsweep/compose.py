"""Hydra's overrides become combinations, fast: each option is composed once, then values are applied.

Hydra's own way composes all of conf/ twice for every job, some 60 ms each. What comes out is equal; a test
compares.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, cast

from attnsweep import schema
from attnsweep.errors import ConfigError
from attnsweep.overrides import GROUPS

if TYPE_CHECKING:
    from hydra._internal.config_loader_impl import ConfigLoaderImpl
    from hydra._internal.config_repository import CachingConfigRepository
    from hydra.core.config_loader import ConfigLoader
    from hydra.core.override_parser.types import Override
    from omegaconf import DictConfig


@dataclass(frozen=True)
class Combination:
    """One job of a sweep, resolved: implementation x scenario x compile mode x timing, with its overrides.

    `variant` holds the overridden fields of the implementation, such as "block_k=32,block_q=64", sorted by key so
    that the order typed makes no other variant. `choices` maps each group to the option chosen; `overrides` are
    those of fields below the groups.
    """

    impl: dict[str, Any]
    variant: str
    scenario: dict[str, Any]
    compile: dict[str, Any]
    timing: dict[str, Any]
    choices: dict[str, str | None]
    overrides: tuple[str, ...]

    def preset(self, group: str) -> str:
        """What a record calls the compile mode or the timing preset: its name and the fields that were overridden,
        such as "default[dynamic=true]", since results of one name are taken for one measurement.
        """
        silent = _IN_COLUMNS if schema.of_torch(self.compile["mode"]) else (*_IN_COLUMNS, *_OF_TORCH)
        typed = (line for line in self.overrides if line.startswith(f"{group}.") and not line.startswith(silent))
        fields = ",".join(sorted(line.removeprefix(f"{group}.") for line in typed))
        name = str(getattr(self, group)["name"])
        return f"{name}[{fields}]" if fields else name


#: Overrides that a column of their own says, or the number of rows.
_IN_COLUMNS = ("timing.cache=", "timing.replicates=")
#: Overrides without effect where torch.compile does not compile.
_OF_TORCH = ("compile.fullgraph=", "compile.dynamic=")


@dataclass(frozen=True)
class _Tree:
    """A composed configuration before its fields are overridden, without Hydra's own part.

    `sections` holds the group's parts, `rest` everything else as plain data; neither is resolved.
    """

    entries: tuple[tuple[str, str], ...]  # (path of a YAML, its package), in the order of merging
    choices: dict[str, str | None]
    sections: dict[str, Any]
    rest: dict[str, Any]


def combinations(
    loader: ConfigLoader, config_name: str, jobs: Sequence[Sequence[str]], hydra_overrides: Sequence[str] = ()
) -> tuple[schema.Settings, list[Combination]]:
    """The settings and the combination of each job, a job being the overrides that Hydra composes it from.

    `hydra_overrides` are the overrides of Hydra's own configuration. Raises ConfigError for what the schema
    refuses and for jobs that differ in their settings, and Hydra's or OmegaConf's for what they refuse.
    """
    composer = _Composer(cast("ConfigLoaderImpl", loader), config_name, hydra_overrides)
    default_name = _now()
    made: list[Combination] = []
    validated: dict[str, dict[str, Any]] = {}
    first: schema.Settings | None = None
    for job in jobs:
        values, choices = composer.job(job)
        if first is None:
            first = _settings(values, choices, default_name)
            constants = composer.constants(job)
        elif composer.constants(job) != constants:
            raise ConfigError("the jobs of one sweep must have the same settings")
        made.append(_combination(values, choices, job, validated))
    if first is None:
        raise ConfigError("the sweep has no combinations")
    return first, made


def combination(
    cfg: DictConfig, choices: Mapping[str, str | None], overrides: Sequence[str]
) -> tuple[schema.Settings, Combination]:
    """The same from one configuration that Hydra composed, as other launchers hand to a task."""
    values = _resolved(cfg)
    return _settings(values, choices, _now()), _combination(values, choices, overrides, {})


class _Composer:
    """Composes jobs from the YAML of one search path, which it reads once."""

    def __init__(self, loader: ConfigLoaderImpl, config_name: str, hydra_overrides: Sequence[str]) -> None:
        self.loader = loader
        self.config_name = config_name
        self.repository: CachingConfigRepository
        self.hydra_overrides, self.repository = loader._parse_overrides_and_create_caching_repo(
            config_name, list(hydra_overrides)
        )
        self.parsed: dict[str, Override] = {}
        self.trees: dict[tuple[str, ...], _Tree] = {}
        self.reference: tuple[str, ...] | None = None
        self.overridden: dict[tuple[int, tuple[str, ...]], Any] = {}

    def parse(self, lines: Sequence[str]) -> list[Override]:
        """The overrides that `lines` are; each distinct line is parsed once."""
        from hydra.core.override_parser.overrides_parser import OverridesParser

        fresh = [line for line in dict.fromkeys(lines) if line not in self.parsed]
        if fresh:
            self.parsed.update(zip(fresh, OverridesParser.create().parse_overrides(fresh), strict=True))
        return [self.parsed[line] for line in lines]

    def constants(self, job: Sequence[str]) -> list[str]:
        """The overrides of a job that are neither a choice of a group nor below one."""
        return [line for line in job if _top(self.parsed[line]) not in GROUPS]

    def job(self, job: Sequence[str]) -> tuple[dict[str, Any], dict[str, str | None]]:
        """The resolved configuration of a job, and the options chosen."""
        below: dict[str, list[str]] = {group: [] for group in GROUPS}
        choosing = []
        for line, override in zip(job, self.parse(job), strict=True):
            if override.key_or_group in GROUPS or _top(override) not in GROUPS:
                choosing.append(line)
            else:
                below[_top(override)].append(line)
        tree = self.tree(tuple(choosing))
        values = dict(tree.rest)
        for group, section in tree.sections.items():
            values[group] = self.section(group, section, tuple(below.get(group, ())))
        text = repr(values)
        if "${" in text or "'???'" in text:
            from omegaconf import OmegaConf

            return _resolved(OmegaConf.create(values)), tree.choices
        return copy.deepcopy(values), tree.choices

    def section(self, group: str, section: Any, lines: tuple[str, ...]) -> Any:
        """A group's part with `lines` applied, as plain data; the same question is answered once."""
        from omegaconf import OmegaConf

        key = (id(section), lines)  # sections live as long as the composer: in its trees
        if key not in self.overridden:
            for line in self.parse(lines):
                _refuse_within(line, {group: section})
            root = OmegaConf.create({group: section})
            OmegaConf.set_struct(root, True)
            self.loader._apply_overrides_to_config(self.parse(lines), root)
            self.overridden[key] = _plain(root)[group]
        return self.overridden[key]

    def tree(self, lines: tuple[str, ...]) -> _Tree:
        """The configuration before fields are overridden, of options composed apart where that is exact."""
        if lines in self.trees:
            return self.trees[lines]
        if self.reference is None:
            self.reference = lines
        tree = self.crossed(lines) or self.composed(lines)
        self.trees[lines] = tree
        return tree

    def crossed(self, lines: tuple[str, ...]) -> _Tree | None:
        """The reference's configuration with the sections of other options, or None where that is not exact.

        It is exact where each option, put into the reference alone, changes only its own section and choice.
        """
        assert self.reference is not None
        if len(lines) != len(self.reference):
            return None
        differing = [index for index, line in enumerate(lines) if line != self.reference[index]]
        groups = [self.parsed[lines[index]].key_or_group for index in differing]
        others = [self.parsed[self.reference[index]].key_or_group for index in differing]
        if len(differing) < 2 or groups != others or not set(groups) <= set(GROUPS):
            return None
        base = self.tree(self.reference)
        sections, choices = dict(base.sections), dict(base.choices)
        for index, group in zip(differing, groups, strict=True):
            alone = self.tree((*self.reference[:index], lines[index], *self.reference[index + 1 :]))
            if _outside(alone, group) != _outside(base, group):
                return None
            sections[group], choices[group] = alone.sections[group], alone.choices[group]
        return _Tree((), choices, sections, base.rest)

    def composed(self, lines: tuple[str, ...]) -> _Tree:
        """The configuration as Hydra composes it, less Hydra's own part."""
        from hydra._internal.defaults_list import create_defaults_list
        from omegaconf import OmegaConf

        found = create_defaults_list(
            repo=self.repository,
            config_name=self.config_name,
            overrides_list=[*self.hydra_overrides, *self.parse(lines)],
            prepend_hydra=True,
            skip_missing=False,
        )
        defaults = [one for one in found.defaults if not (one.config_path or "").startswith("hydra/")]
        cfg = self.loader._compose_config_from_defaults_list(defaults, self.repository)
        cfg.pop("hydra", None)
        OmegaConf.set_struct(cfg, True)
        constants = [one for one in found.config_overrides if not one.is_hydra_override()]
        self.loader._apply_overrides_to_config(constants, cfg)
        entries = tuple((one.config_path or "", one.package or "") for one in defaults)
        self.refuse_fields_elsewhere(entries)
        values = _plain(cfg)
        return _Tree(
            entries,
            dict(found.overrides.known_choices),
            {key: value for key, value in values.items() if key in GROUPS},
            {key: value for key, value in values.items() if key not in GROUPS},
        )

    def refuse_fields_elsewhere(self, entries: Sequence[tuple[str, str]]) -> None:
        """Fields of a group set in another file's body would be a variant that no record names."""
        for path, package in entries:
            loaded = self.repository.load_config(path)
            if package or loaded is None:
                continue
            for group in GROUPS:
                if group in loaded.config and not path.startswith(f"{group}/"):
                    raise ConfigError(
                        f"{path}.yaml sets fields of {group}: write them under a study's "
                        f"hydra.sweeper.params, as {group}.FIELD: VALUE, so that the records say so"
                    )


def _outside(tree: _Tree, group: str) -> tuple[list[tuple[str, str]], dict[str, str | None]]:
    """What a configuration is made of beyond one group's section, and what was chosen beyond that group."""
    entries = [(path, package) for path, package in tree.entries if f"{package}.".split(".")[0] != group]
    return entries, {key: value for key, value in tree.choices.items() if key != group}


def _plain(cfg: DictConfig) -> dict[str, Any]:
    from omegaconf import OmegaConf

    return cast("dict[str, Any]", OmegaConf.to_container(cfg, resolve=False))


def _resolved(cfg: DictConfig) -> dict[str, Any]:
    from omegaconf import OmegaConf

    return cast("dict[str, Any]", OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True))


def _settings(values: Mapping[str, Any], choices: Mapping[str, str | None], default_name: str) -> schema.Settings:
    study = choices.get("study")
    own = {key: value for key, value in values.items() if key not in GROUPS}
    return schema.settings(own, study, study.replace("/", "-") if study else default_name)


def _combination(
    values: Mapping[str, Any],
    choices: Mapping[str, str | None],
    job: Sequence[str],
    validated: dict[str, dict[str, Any]],
) -> Combination:
    """The validated combination; a section without a name is named by its option.

    `validated` remembers what the schema made of a section: 180 combinations share a handful.
    """
    sections: dict[str, dict[str, Any]] = {}
    for group in GROUPS:
        section = values.get(group)
        if not isinstance(section, dict):
            raise ConfigError(f"{group}={choices.get(group)} must be a YAML of fields, not {section!r}")
        sections[group] = {"name": choices.get(group), **section}
        schema.plain(sections[group], group)
        name = sections[group]["name"]
        if not isinstance(name, str) or not name or not name.isprintable():
            raise ConfigError(f"{group}.name must be text of printable characters, not {name!r}")

    def checked(group: str, bind: Callable[[Mapping[str, Any]], Any]) -> dict[str, Any]:
        key = f"{group} {sections[group]!r}"
        if key not in validated:
            validated[key] = asdict(bind(sections[group]))
        return dict(validated[key])

    typed = tuple(line.lstrip("+") for line in job)
    overrides = tuple(line for line in typed if line.startswith(tuple(f"{group}." for group in GROUPS)))
    for line in overrides:
        group, _, key = line.partition("=")[0].partition(".")
        if key == "name" and group != "impl":
            raise ConfigError(f"{line}: {group}.name says in every record which preset it was, and stays the preset's")
    variant = sorted(
        (line.removeprefix("impl.") for line in overrides if line.startswith("impl.")),
        key=lambda line: line.partition("=")[0],
    )
    return Combination(
        impl=sections["impl"],
        variant=",".join(variant),
        scenario=sections["scenario"],
        compile=checked("compile", schema.compile_mode),
        timing=checked("timing", schema.timing),
        choices={group: choices.get(group) for group in (*GROUPS, "study")},
        overrides=overrides,
    )


def _refuse_within(override: Override, values: Any) -> None:
    """Raise ConfigError for an override of a part of a list or of one value: such a field is given whole."""
    *above, _ = override.key_or_group.split(".")
    for depth, part in enumerate(above, 1):
        values = values.get(part, {})
        if values is not None and not isinstance(values, Mapping):
            path = ".".join(above[:depth])
            kind = "a list" if isinstance(values, (list, tuple)) else "one value"
            raise ConfigError(f"there is no key {override.key_or_group}: {path} is {kind}; write {path}=...")
        values = values or {}


def _top(override: Override) -> str:
    return override.key_or_group.split(".")[0]


def _now() -> str:
    return datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
