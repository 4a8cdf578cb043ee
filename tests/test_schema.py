"""The configuration we own refuses typos, wrong types and dangerous names by the key's name."""

from __future__ import annotations

from inspect import signature
from typing import Any

import pytest

from attnsweep import scenarios, schema
from attnsweep.errors import ConfigError

TIMING = {"name": "t", "replicates": 1, "target": 0.02, "time_cap_s": 0.6}


def settings(**values: Any) -> schema.Settings:
    return schema.settings(values, None, "default")


def test_the_defaults_are_those_of_config_yaml() -> None:
    """A setting has one default, and the YAML states it."""
    from omegaconf import OmegaConf

    from attnsweep.conf_path import conf_folder

    written = OmegaConf.to_container(OmegaConf.load(conf_folder() / "config.yaml"))
    assert isinstance(written, dict)
    written = {key: value for key, value in written.items() if key not in ("defaults", "hydra")}
    assert set(written) == set(schema.SETTINGS)
    assert schema.settings(written, None, "n") == schema.Settings(name="n")


@pytest.mark.parametrize("name", ["a", "2026-01-02_03-04-05", "A.b_c-d", "_x", "-x", "a" * 100, 2024])
def test_a_name_of_one_folder_is_taken(name: Any) -> None:
    """Letters, digits, dots, underscores and dashes make a folder."""
    assert settings(name=name).name == str(name)


@pytest.mark.parametrize(
    "name", ["", ".", "..", "../x", "a/b", "/abs", ".hidden", "a b", "a\n", "ä", "a" * 101, "report", "Report", "a\0"]
)
def test_a_name_that_could_leave_the_folder_is_refused(name: str) -> None:
    """Nothing but one plain folder, and not the report's own."""
    with pytest.raises(ConfigError, match="name"):
        settings(name=name)


def test_fields_of_every_scenario_are_known_as_such() -> None:
    """What a scenario's function takes is never answered by the list of settings alone."""
    taken = {
        name for one in (scenarios.prefill, scenarios.decode, scenarios.flux) for name in signature(one).parameters
    }
    assert taken <= schema.SCENARIO_FIELDS
    assert not schema.SCENARIO_FIELDS & set(schema.SETTINGS)


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ({1: 2}, "impl has the key 1, which is no text: write it in quotes"),
        ({"a": [{"b": b"x"}]}, "impl.a.b holds b'x', which is neither text, number"),
        ({"a": "\udce9"}, "impl.a holds '\\udce9', which is no UTF-8 text"),
        ({"\udce9": 1}, "a key of impl holds '\\udce9', which is no UTF-8 text"),
    ],
)
def test_what_neither_json_nor_a_record_holds_is_refused(value: Any, said: str) -> None:
    """A YAML knows more types than JSON; where such a value stands is in the sentence."""
    with pytest.raises(ConfigError) as caught:
        schema.plain(value, "impl")
    assert said in str(caught.value)
    schema.plain({"a": [None, True, 1, 1.5, float("nan"), "t\nu", {"b": []}]}, "impl")


def test_a_null_name_is_the_default() -> None:
    """The caller decides what stands in for no name."""
    assert settings(name=None).name == "default"


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"sed": 1}, "no key sed (did you mean seed?)"),
        ({"check": {"enabld": True}}, "no key check.enabld (did you mean enabled?)"),
        ({"pool": {"timeout": 3}}, "no key pool.timeout (did you mean timeout_s?)"),
        ({"pool": 3}, "pool must be a mapping"),
        ({"seed": "abc"}, "seed must be an integer, not 'abc'"),
        ({"seed": 1.5}, "seed must be an integer, not 1.5"),
        ({"seed": -1}, "seed must be 0 or more"),
        ({"dry_run": "perhaps"}, "dry_run must be true or false"),
        ({"device": "gpu"}, "device must be one of auto, cpu, cuda, not 'gpu'"),
        ({"scale": "small"}, "scale must be one of full, tiny"),
        ({"isolation": "frok"}, "(did you mean fork?)"),
        ({"sample": 0}, "sample must be 1 or more"),
        ({"rerun": ["crashd"]}, "(did you mean crashed?)"),
        ({"shard": "4/3"}, "shard must be i/n"),
        ({"shard": "0/3"}, "shard must be i/n"),
        ({"shard": "1/100000000"}, "(at most 10000)"),
        ({"output_dir": ""}, "output_dir must be the path of a folder"),
        ({"output_dir": "a\nb"}, "of printable characters, not 'a\\nb'"),
        ({"shard": 0.5}, "shard must be i/n"),
        ({"gpus": []}, "gpus must be"),
        ({"gpus": [True]}, "gpus must be"),
        ({"gpus": {"a": 1}}, "gpus must be"),
        ({"pool": {"timeout_s": 0}}, "pool.timeout_s must be above 0"),
        ({"pool": {"timeout_s": "nan"}}, "pool.timeout_s must be above 0"),
        ({"pool": {"prepare_s": 0}}, "pool.prepare_s must be above 0, not 0"),
        ({"pool": {"compile_s": 1e300}}, "pool.compile_s must be 604800 or less, not 1e+300"),
        ({"pool": {"check_s": "long"}}, "pool.check_s must be a number or null, not 'long'"),
        ({"pool": {"time_s": float("nan")}}, "pool.time_s must be above 0, not nan"),
        ({"pool": {"grace_s": -1}}, "pool.grace_s must be 0 or more"),
        ({"check": {"forward_factor": "x"}}, "check.forward_factor must be a number, not 'x'"),
        ({"check": {"enabled": None}}, "check.enabled must be true or false, not None"),
        ({"seed": 2**63}, "seed must be 9223372036854775807 or less"),
        ({"replicate": 2**63}, "replicate must be"),
        ({"sample": 2**63}, "sample must be"),
        ({"pool": {"timeout_s": 1e300}}, "pool.timeout_s must be 604800 or less, not 1e+300"),
        ({"pool": {"timeout_s": float("inf")}}, "pool.timeout_s must be above 0, not inf"),
        ({"pool": {"grace_s": float("inf")}}, "pool.grace_s must be 604800 or less, not inf"),
        ({"pool": {"grace_s": float("nan")}}, "pool.grace_s must be 0 or more, not nan"),
        ({"check": {"forward_factor": 1e300}}, "check.forward_factor must be 1000000000 or less"),
        ({"seq_len": 128}, "there is no key seq_len, it is a field of the scenario: write scenario.seq_len"),
    ],
)
def test_a_wrong_setting_is_refused_by_its_key(values: dict[str, Any], said: str) -> None:
    """One sentence names the key, and the choices where there are any."""
    with pytest.raises(ConfigError) as caught:
        settings(**values)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_settings_come_in_the_types_that_the_plan_takes() -> None:
    """Text and lists of YAML become tuples, dataclasses and numbers."""
    found = settings(
        gpus=0, rerun="crashed", shard="2/3", sample=5, check={"backward_factor": 4}, pool={"timeout_s": 9}
    )
    assert found.gpus == [0]
    assert found.rerun == ("crashed",)
    assert found.shard == (2, 3)
    assert found.check == schema.Check(backward_factor=4.0)
    assert found.pool == schema.PoolSettings(timeout_s=9.0)
    assert settings(gpus=["GPU-1", 2]).gpus == ["GPU-1", 2]


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"replicats": 3}, "no key timing.replicats (did you mean replicates?)"),
        ({"replicates": 0}, "timing.replicates must be 1 or more"),
        ({"replicates": None}, "timing.replicates must be an integer, not None"),
        ({"target": 1.5}, "timing.target must be a relative half-width"),
        ({"target": 0}, "timing.target must be above 0"),
        ({"cache": "warm"}, "timing.cache must be one of cold, hot"),
        ({"min_time_s": 9}, "timing.time_cap_s (0.6) must be timing.min_time_s (9.0) or more"),
        ({"rest_ms": -1}, "timing.rest_ms must be 0 or more"),
        ({"block_ms": [1]}, "timing.block_ms must be a number"),
        ({"rest_ms": float("inf")}, "timing.rest_ms must be 604800000 or less, not inf"),
        ({"block_ms": 1e300}, "timing.block_ms must be 604800000 or less"),
        ({"time_cap_s": 1e300}, "timing.time_cap_s must be 604800 or less"),
        ({"replicates": 10**12}, "timing.replicates must be 10000 or less"),
        ({"max_samples": 2**63}, "timing.max_samples must be 1000000000 or less"),
    ],
)
def test_a_wrong_timing_is_refused_by_its_key(values: dict[str, Any], said: str) -> None:
    """A preset that cannot be meant never reaches a cell."""
    with pytest.raises(ConfigError) as caught:
        schema.timing({**TIMING, **values})
    assert said in str(caught.value)


def test_a_timing_needs_its_promises() -> None:
    """How many processes and how narrow have no default in code: a preset states them."""
    with pytest.raises(ConfigError, match=r"timing\.replicates must be given"):
        schema.timing({"name": "t", "target": 0.01, "time_cap_s": 1})


def test_a_compile_mode_is_one_of_torch_compiles() -> None:
    """A mode that torch.compile does not have is refused with those that it has."""
    assert schema.compile_mode({"name": "eager"}).mode is None
    with pytest.raises(ConfigError, match=r"compile\.mode must be one of default, .*did you mean max-autotune"):
        schema.compile_mode({"name": "x", "mode": "max_autotune"})


@pytest.mark.parametrize("mode", [None, "jit"])
def test_what_torch_compile_alone_is_told_makes_no_other_mode_elsewhere(mode: str | None) -> None:
    """A sweep of both may say it: the other cells are those that they are without."""
    told = {"fullgraph": False, "dynamic": True}
    assert schema.compile_mode({"name": "x", "mode": mode, **told}) == schema.CompileMode("x", mode)
    assert schema.compile_mode({"name": "x", "mode": "default", **told}).dynamic


@pytest.mark.parametrize("key", ["seed.x", "pool.timout_s", "check.enabled.x"])
def test_a_key_below_the_settings_is_checked_part_by_part(key: str) -> None:
    """A dotted key is refused where it leaves the schema."""
    with pytest.raises(ConfigError, match="there is no key"):
        schema.check_key(key)
    schema.check_key("pool.timeout_s")
