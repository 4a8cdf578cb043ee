"""Scenarios: YAML binds to a function's keywords, and lists in fields span a grid of cases."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from attnsweep import scenarios
from attnsweep.case import Case
from attnsweep.conf_path import conf_folder
from attnsweep.errors import ConfigError

FILES = sorted((conf_folder() / "scenario").glob("*.yaml"))


def load(name: str, **overrides: Any) -> dict[str, Any]:
    from omegaconf import OmegaConf

    values = OmegaConf.to_container(OmegaConf.load(conf_folder() / "scenario" / f"{name}.yaml"))
    assert isinstance(values, dict)
    return {**{str(key): value for key, value in values.items()}, **overrides}


def cases(name: str, scale: str = "full", **overrides: Any) -> list[Case]:
    return [one.case for one in scenarios.expand(load(name, **overrides), scale)]


def test_prefill_is_the_promised_grid() -> None:
    """32 heads of 128, batch 1 and 4, three lengths, bf16, causal."""
    found = cases("prefill")
    assert {(one.batch_size, one.q_len) for one in found} == {(b, s) for b in (1, 4) for s in (2048, 4096, 8192)}
    assert len(found) == 6
    for one in found:
        assert (one.num_heads, one.num_kv_heads, one.head_dim, one.head_dim_v) == (32, 32, 128, 128)
        assert (one.q_len, one.causal, one.dtype, one.direction) == (one.kv_len, True, "bf16", "fwd")


def test_decode_is_one_query_against_a_cache() -> None:
    """A single causal query, aligned bottom-right, sees every key."""
    found = cases("decode")
    assert {(one.batch_size, one.kv_len) for one in found} == {(b, s) for b in (1, 4, 8) for s in (2048, 4096)}
    for one in found:
        assert (one.q_len, one.causal, one.visible_pairs) == (1, True, one.kv_len)


def test_flux_has_image_and_text_tokens() -> None:
    """4096 image tokens at 1024 pixels and six lengths of text, all to all."""
    found = cases("flux")
    assert [one.q_len for one in found] == [4096 + text for text in (128, 256, 320, 384, 448, 512)]
    assert {(one.num_heads, one.causal, one.batch_size) for one in found} == {(24, False, 1)}
    assert cases("flux", resolution=512, text_len=512)[0].q_len == 1024 + 512


def test_flux_needs_whole_tokens() -> None:
    """A resolution that is no multiple of 16 pixels has no number of tokens."""
    with pytest.raises(ConfigError, match=r"scenario flux: resolution must be a multiple of 16"):
        cases("flux", resolution=1000)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_scenario_of_conf_states_every_field(path: Path) -> None:
    """The YAML is where a reader sees what can be swept, so it holds each parameter of its function."""
    import inspect

    values = load(path.stem)
    function = scenarios.bind(values)
    assert set(inspect.signature(function).parameters) == set(values) - set(scenarios.OWN_KEYS)
    assert values["name"] == path.stem
    assert values["direction"] == "fwd"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_tiny_is_tiny(path: Path) -> None:
    """scale=tiny leaves cases that a CPU computes in a blink."""
    found = cases(path.stem, scale="tiny")
    assert 1 <= len(found) <= 8
    for one in found:
        assert one.batch_size * one.num_heads * one.q_len * one.kv_len * one.head_dim < 2e6


@pytest.mark.parametrize(("kv_heads", "expected"), [(None, 4), (32, 4), (16, 2), (8, 1), (1, 1)])
def test_tiny_keeps_heads_grouped(kv_heads: int | None, expected: int) -> None:
    """A quarter of the key/value heads stays a quarter; one stays one."""
    assert {one.num_kv_heads for one in cases("prefill", "tiny", num_kv_heads=kv_heads)} == {expected}


def test_tiny_leaves_no_case_twice() -> None:
    """Key/value heads that fall together in tiny are one case."""
    found = cases("prefill", "tiny", num_kv_heads=[8, 4])
    assert len(found) == len(set(found)) == 4


def test_lists_span_the_product_and_scalars_do_not() -> None:
    """Every combination of the listed values is a case, and knows the fields that made it."""
    found = scenarios.expand(load("prefill", batch_size=2, seq_len=[16, 32], dtype=["fp16", "fp32"]), "full")
    assert [(one.fields["seq_len"], one.fields["dtype"]) for one in found] == [
        (16, "fp16"),
        (16, "fp32"),
        (32, "fp16"),
        (32, "fp32"),
    ]
    assert [one.axis_value for one in found] == [16.0, 16.0, 32.0, 32.0]
    assert {one.axis for one in found} == {"seq_len"}


def test_a_window_is_a_pair_and_a_list_of_pairs_an_axis() -> None:
    """[left, right] is one window; a list of windows or nulls is an axis."""
    assert {one.window for one in cases("prefill", window=[128, 0])} == {(128, 0)}
    assert {one.window for one in cases("prefill", window=[[128, 0], None])} == {(128, 0), None}
    assert {one.window for one in cases("prefill", window=[None])} == {None}


def test_null_heads_and_dims_are_the_plain_ones() -> None:
    """num_kv_heads and head_dim_v default to num_heads and head_dim."""
    one = cases("decode", num_heads=8, num_kv_heads=2, head_dim=64, head_dim_v=32, batch_size=1, kv_len=16)[0]
    assert (one.num_kv_heads, one.head_dim_v) == (2, 32)
    assert cases("decode", num_heads=8, head_dim=64)[0].num_kv_heads == 8


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        ({"seqlen": 5}, "no key scenario.seqlen (did you mean seq_len?); the keys of prefill are seq_len, batch_size"),
        ({"tiny": {"seqlen": 5}}, "no key scenario.tiny.seqlen (did you mean seq_len?)"),
        ({"tiny": 3}, "scenario.tiny must be a mapping"),
        ({"seq_len": []}, "scenario.seq_len is an empty list"),
        ({"seq_len": "long"}, "seq_len must be a positive integer, not 'long'"),
        ({"seq_len": 0}, "seq_len must be a positive integer, not 0"),
        ({"num_kv_heads": 5}, "must be a multiple of num_kv_heads (5)"),
        ({"dtype": "bf17"}, "dtype must be one of"),
        ({"direction": "bkw"}, "direction must be one of fwd, bwd, fwd_bwd"),
        ({"axis": "seq"}, "scenario.axis must be one of seq_len"),
        ({"axis": "dtype"}, "scenario.axis is dtype, which is no number"),
        ({"_target_": "attnsweep.scenarios.prefil"}, "cannot be imported"),
        ({"_target_": "nosuch.module.f"}, "cannot be imported"),
        ({"_target_": "prefill"}, "must be package.module.function"),
        ({"_target_": "attnsweep.scenarios.OWN_KEYS"}, "is not a function"),
        ({"_target_": ".x"}, "must be package.module.function, not '.x'"),
        ({"_target_": None}, "_target_ must be given, as package.module.function"),
        ({"_target_": "builtins.dict"}, "must take keyword-only parameters"),
        ({"axis": ["seq_len"]}, "scenario.axis must be one of seq_len"),
        ({"seq_len": 2**31}, "seq_len must be 2147483647 or less, not 2147483648"),
        ({"seq_len": list(range(1, 400)), "head_dim": list(range(1, 400))}, "318402 cases; a sweep holds 100000"),
        ({"_target_": "attnsweep.scenarios.expand"}, "must take keyword-only parameters"),
    ],
)
def test_a_scenario_that_cannot_be_meant_is_refused(overrides: dict[str, Any], said: str) -> None:
    """One sentence names the field as it was typed, and the choices."""
    with pytest.raises(ConfigError) as caught:
        cases("prefill", **overrides)
    assert said in str(caught.value)


def test_a_missing_field_is_named() -> None:
    """A short YAML may leave out what has a default, and nothing else."""
    short = {"name": "mine", "_target_": "attnsweep.scenarios.decode", "axis": "kv_len"}
    with pytest.raises(ConfigError, match="scenario mine: kv_len must be given"):
        scenarios.bind(short)
    assert scenarios.expand({**short, "kv_len": 64}, "full")[0].case.num_heads == 32


@pytest.mark.parametrize("heads", [0, -4, "x", None])
def test_tiny_heads_that_are_none_are_refused_by_name(heads: Any) -> None:
    """Scaling key/value heads to them leaves the refusal to the case."""
    with pytest.raises(ConfigError, match="num_heads must be a positive integer"):
        cases("prefill", "tiny", num_kv_heads=8, tiny={"seq_len": 8, "num_heads": heads})


def broken(*, seq_len: int) -> Case:
    """A scenario with a bug."""
    return Case(*[seq_len // 0] * 7)


def caseless(*, seq_len: int) -> int:
    """A scenario that makes no case."""
    return seq_len


def test_a_bug_in_a_users_scenario_is_said_with_its_place() -> None:
    """The sentence names the function, the exception and the line."""
    scenario = {"name": "mine", "_target_": f"{__name__}.broken", "axis": "seq_len", "seq_len": 8}
    place = rf"{__name__}\.broken fails: ZeroDivisionError: .* \(.*test_scenarios\.py, line \d+\)"
    with pytest.raises(ConfigError, match=rf"scenario mine: {place}"):
        scenarios.expand(scenario, "full")
    with pytest.raises(ConfigError, match="must return a Case, not 8"):
        scenarios.expand({**scenario, "_target_": f"{__name__}.caseless"}, "full")


def test_binding_calls_nothing() -> None:
    """A scenario is bound by its signature: a value that makes no case passes `bind` and fails `expand`."""
    values = load("flux", resolution=1000)
    assert scenarios.bind(values) is scenarios.flux
