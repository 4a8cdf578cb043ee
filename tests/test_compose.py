"""Composition: what comes out is what Hydra composes, only faster, and every file of conf/ fits."""

from __future__ import annotations

import itertools
import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from attnsweep import compose, interpreters, launching
from attnsweep.conf_path import conf_folder
from attnsweep.errors import ConfigError
from attnsweep.overrides import GROUPS
from composing import by_hydra, loader, write

if TYPE_CHECKING:
    from hydra.core.config_loader import ConfigLoader

CONF = conf_folder()


def names(group: str) -> list[str]:
    return sorted(path.stem for path in (CONF / group).glob("*.yaml"))


@pytest.fixture
def ours() -> Iterator[ConfigLoader]:
    with loader() as found:
        yield found


def single(found: ConfigLoader, *job: str) -> compose.Combination:
    return compose.combinations(found, "config", [["name=n", *job]])[1][0]


def equal_to_hydra(found: ConfigLoader, jobs: list[list[str]], sample: int, seed: int) -> None:
    """All jobs composed together give, for each of a sample, what Hydra composes for it alone."""
    made = compose.combinations(found, "config", jobs)[1]
    assert len(made) == len(jobs)
    for index in random.Random(seed).sample(range(len(jobs)), sample):
        assert made[index] == by_hydra(found, jobs[index]), jobs[index]


def test_equals_hydras_own_composition(ours: ConfigLoader) -> None:
    """30 of 360 combinations of every group, with overridden fields, field by field."""
    fields = (["++scenario.dtype=fp16"], ["++impl.layout=bshd", "++impl.supports.dtypes=[fp32]", "++timing.target=0.3"])
    jobs = [
        ["name=n", *(f"{group}={option}" for group, option in zip(GROUPS, options, strict=True)), *field]
        for *options, field in itertools.product(
            names("impl")[:5], names("scenario"), names("compile")[:4], names("timing"), fields
        )
    ]
    equal_to_hydra(ours, jobs, 30, 0)


def test_equals_hydras_with_yaml_of_users(tmp_path: Path) -> None:
    """Inheritance, references into other sections, options that choose for other groups, and a study in force."""
    folder = write(
        tmp_path,
        impl__heir="defaults: [naive, _self_]\nname: heir\nlayout: bshd\n",
        impl__refers="name: refers\n_target_: a.b\nheads: ${scenario.num_heads}\nown: ${.name}\n",
        timing__chooses="# @package _global_\ndefaults:\n  - _self_\n  - override /compile: default\n"
        "timing: {name: chooses, replicates: 1, target: 0.1, time_cap_s: 1}\n",
        impl__deep__er="name: deeper\n_target_: a.b\nnested: {list: [1, {a: '${seed}'}]}\n",
        scenario__heir="defaults: [prefill]\nseq_len: 7\n",
        scenario__refers="defaults: [prefill]\nkernels: ${impl.name}-${compile.name}\n",
        study__mine="# @package _global_\ndefaults:\n  - override /scenario: decode\nseed: 5\n",
    )
    jobs = [
        ["study=mine", "name=n", f"impl={impl}", *scenario, f"timing={timing}", *mode, f"++scenario.num_heads={heads}"]
        for impl, scenario, timing, mode, heads in itertools.product(
            ("heir", "refers", "deep/er", "naive"),
            ([], ["scenario=heir"], ["scenario=refers"]),
            ("chooses", "quick"),
            ([], ["compile=max_autotune"]),
            (8, 16),
        )
    ]
    with loader(folder) as found:
        equal_to_hydra(found, jobs, 30, 1)
        settings, made = compose.combinations(found, "config", jobs)
    assert settings.seed == 5
    assert settings.study == "mine"
    assert made[0].impl["_target_"] == "attnsweep.impls.naive.NaiveAttention"
    assert {(one.timing["name"], one.compile["name"]) for one in made} == {
        ("chooses", "default"),
        ("chooses", "max_autotune"),
        ("quick", "eager"),
        ("quick", "max_autotune"),
    }
    assert {(one.scenario["num_heads"], one.impl["heads"]) for one in made if one.choices["impl"] == "refers"} == {
        (8, 8),
        (16, 16),
    }


def test_180_combinations_compose_in_well_under_two_seconds(ours: ConfigLoader) -> None:
    """Each option is composed once: a generous bound on a shared machine, where it takes 0.3 s alone."""
    jobs = [
        [f"impl={impl}", f"scenario={scenario}", f"compile={mode}", f"timing={timing}", "++impl.layout=bhsd"]
        for impl, scenario, mode, timing in itertools.product(
            names("impl")[:5], names("scenario"), names("compile")[:4], names("timing")
        )
    ]
    assert len(jobs) == 180
    begin = time.process_time()
    made = compose.combinations(ours, "config", jobs)[1]
    spent = time.process_time() - begin
    assert len(made) == 180
    assert spent < 1.5


@pytest.mark.parametrize("impl", names("impl"))
def test_every_implementation_of_conf_binds(ours: ConfigLoader, impl: str) -> None:
    """What is shipped is composed and bound here, before a user meets it."""
    settings, made = compose.combinations(ours, "config", [[f"impl={impl}"]])
    launching.bind(settings, made)
    assert made[0].impl["name"] == impl


@pytest.mark.parametrize(
    ("group", "option"),
    [(group, option) for group in ("scenario", "compile", "timing") for option in names(group)],
)
def test_every_other_option_of_conf_binds(ours: ConfigLoader, group: str, option: str) -> None:
    """The option's name is its file's."""
    settings, made = compose.combinations(ours, "config", [["impl=naive", f"{group}={option}"]])
    launching.bind(settings, made)
    assert getattr(made[0], group)["name"] == option


def test_presets_hold_what_is_promised(ours: ConfigLoader) -> None:
    """Processes, precision and time of quick, standard and publish; compiled modes never fall back."""
    timing = {name: single(ours, "impl=naive", f"timing={name}").timing for name in names("timing")}
    found = {name: (t["replicates"], t["target"], t["time_cap_s"], t["min_blocks"]) for name, t in timing.items()}
    assert found == {"quick": (1, 0.02, 0.6, 6), "standard": (3, 0.01, 2.0, 6), "publish": (8, 0.005, 6.0, 6)}
    for name in names("compile"):
        mode = single(ours, "impl=naive", f"compile={name}").compile
        assert mode == {
            "name": name,
            "mode": None if name == "eager" else name.replace("_", "-"),
            "fullgraph": True,
            "dynamic": False,
        }


def test_a_variant_is_the_overridden_fields_of_the_implementation(ours: ConfigLoader) -> None:
    """Sorted by key, whatever the order typed, nested ones dotted, others' fields left out."""
    job = ["impl=fa2", "++impl.constants.x=1", "++scenario.dtype=fp16", "++impl.arguments.causal=causal"]
    found = single(ours, *job)
    assert found.variant == "arguments.causal=causal,constants.x=1"
    assert single(ours, job[0], *reversed(job[1:])).variant == found.variant
    assert found.overrides == ("impl.constants.x=1", "scenario.dtype=fp16", "impl.arguments.causal=causal")
    assert found.impl["constants"] == {"x": 1}
    assert single(ours, "impl=fa2", "++scenario.dtype=fp16").variant == ""


def test_an_environment_is_set_aside_on_the_command_line(ours: ConfigLoader) -> None:
    """fa4 has one of its own; null takes it away, or makes room for an interpreter."""

    def where(*job: str) -> interpreters.Host:
        return interpreters.host(single(ours, "impl=fa4", *job).impl, "fork", "cpu")

    assert where().recipe is not None
    assert (where("++impl.env=null").own, where("++impl.env=null").recipe) == (True, None)
    named = where("++impl.env.requirements=null", "++impl.env.python=/opt/fa4/bin/python")
    assert (named.own, named.recipe, named.python) == (False, None, "/opt/fa4/bin/python")
    with pytest.raises(ConfigError, match="null takes the place of either"):
        where("++impl.env.python=/opt/fa4/bin/python")


def test_a_yaml_of_the_users_own_inherits_from_ours_and_changes_where_it_runs(tmp_path: Path) -> None:
    """Beside ours in one sweep, under another name, and without a variant."""
    text = "defaults: [fa4]\nname: mine\nenv: {requirements: null, python: p, variables: {PYTHONPATH: /opt/fa4}}\n"
    with loader(write(tmp_path, impl__mine=text)) as found:
        mine, ours, other = compose.combinations(
            found, "config", [["name=n", f"impl={one}"] for one in ("mine", "fa4", "fa2")]
        )[1]
    assert {**mine.impl, "name": "fa4", "env": None} == {**ours.impl, "env": None}
    assert (mine.variant, mine.impl["env"]["variables"]) == ("", {"PYTHONPATH": "/opt/fa4"})
    hosts = [interpreters.host(one.impl, "fork", "cpu") for one in (mine, ours, other)]
    assert [(host.own, host.recipe is not None) for host in hosts] == [(False, False), (False, True), (True, False)]


def test_combinations_share_nothing(ours: ConfigLoader) -> None:
    """Changing one combination's data changes no other's."""
    jobs = [["impl=fa2", f"++scenario.num_heads={heads}"] for heads in (4, 8)]
    first, second = compose.combinations(ours, "config", jobs)[1]
    first.impl["supports"]["dtypes"].append("fp8")
    first.timing["replicates"] = 99
    assert "fp8" not in second.impl["supports"]["dtypes"]
    assert second.timing["replicates"] == 3


def test_a_missing_value_is_named(tmp_path: Path) -> None:
    """`???` in a YAML is a value that must be given, and says which."""
    from omegaconf.errors import MissingMandatoryValue

    folder = write(tmp_path, impl__mine="name: mine\n_target_: attnsweep.impls.FunctionAttention\nfunction: ???\n")
    with loader(folder) as found:
        with pytest.raises(MissingMandatoryValue, match=r"impl\.function"):
            single(found, "impl=mine")
        assert single(found, "impl=mine", "++impl.function=a.b").impl["function"] == "a.b"


def test_fields_set_elsewhere_are_refused(tmp_path: Path) -> None:
    """A study's body may not change a group's fields: they would be a variant that no record names."""
    folder = write(
        tmp_path,
        study__body="# @package _global_\nimpl:\n  layout: bshd\n",
        impl__global="# @package _global_\nimpl: {name: x}\ntiming: {replicates: 9}\n",
    )
    with loader(folder) as found:
        with pytest.raises(ConfigError, match=r"study/body\.yaml sets fields of impl: .*hydra\.sweeper\.params"):
            single(found, "impl=naive", "study=body")
        with pytest.raises(ConfigError, match=r"impl/global\.yaml sets fields of timing"):
            single(found, "impl=global")


def test_jobs_of_one_sweep_have_the_same_settings(ours: ConfigLoader) -> None:
    """A foreign sweeper that varies a setting is refused, not half obeyed."""
    with pytest.raises(ConfigError, match="same settings"):
        compose.combinations(ours, "config", [["impl=naive", "seed=1"], ["impl=naive", "seed=2"]])


def test_the_name_is_the_studys_else_date_and_time(ours: ConfigLoader) -> None:
    """A study goes on where it stopped by its own name; anything else is a sweep of its own."""
    import re

    settings = compose.combinations(ours, "config", [["impl=naive", "study=quickstart"]])[0]
    assert settings.name == "quickstart"
    assert compose.combinations(ours, "config", [["impl=naive", "name=x", "study=quickstart"]])[0].name == "x"
    plain = compose.combinations(ours, "config", [["impl=naive"]])[0].name
    assert re.fullmatch(r"\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d", plain)
