"""Whatever is typed, and whatever stands in a user's YAML: a plan, or one sentence that can be read."""

from __future__ import annotations

import contextlib
import copy
import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from attnsweep import cli, compose, launching, messages, overrides, planning, sweep
from attnsweep.errors import ConfigError
from sweeps import CPU

#: Words of Hydra's and OmegaConf's that nobody who measures attention need know.
JARGON = ("Traceback", "DictConfig", "ListConfig", "full_key", "object_type", "structured", "BRACKET_OPEN", "<EOF>")

MINE: dict[str, Any] = {
    "name": "mine",
    "_target_": "attnsweep.impls.FunctionAttention",
    "function": "torch.nn.functional.scaled_dot_product_attention",
    "layout": "bhsd",
    "arguments": {"is_causal": "causal", "attn_mask": "bias"},
    "constants": {"dropout_p": 0.0},
    "output": None,
    "distribution": "torch",
    "supports": {"dtypes": ["fp32", "bf16"], "head_dim_max": 64, "gqa": False, "min_compute_capability": 8.0},
    "kernels": {"fwd": ["flash"], "never": []},
    "precision": None,
    "env": None,
    "isolation": "fork",
}
SCENARIO: dict[str, Any] = {
    "name": "mine",
    "_target_": "attnsweep.scenarios.prefill",
    "axis": "seq_len",
    "seq_len": [16, 32],
    "num_heads": 4,
    "num_kv_heads": 2,
    "head_dim": 16,
    "window": None,
    "tiny": {"seq_len": 8, "num_heads": 2},
}
TIMING: dict[str, Any] = {"name": "mine", "replicates": 1, "target": 0.1, "time_cap_s": 1.0, "sustained": False}
COMPILE: dict[str, Any] = {"name": "mine", "mode": None, "fullgraph": True}
STUDY: dict[str, Any] = {
    "seed": 1,
    "pool": {"timeout_s": 9.0},
    "hydra": {"sweeper": {"params": {"impl": ["naive", "sdpa"], "scenario.seq_len": "16,32", "timing": "quick"}}},
}
GROUPS = {"impl": MINE, "scenario": SCENARIO, "timing": TIMING, "compile": COMPILE, "study": STUDY}
KEYS = (
    *("impl", "scenario", "compile", "timing", "study", "name", "output_dir", "device", "gpus", "seed", "force"),
    *("sample", "shard", "replicate", "rerun", "scale", "isolation", "pool", "pool.timeout_s", "check.enabled"),
    *("scenario.seq_len", "scenario.window", "scenario.num_heads", "scenario.num_kv_heads", "scenario.dtype"),
    *("scenario.axis", "scenario.tiny", "scenario.tiny.num_heads", "scenario.seq_len.0", "impl.supports.dtypes"),
    *("impl.name", "impl.kernels", "impl.env", "impl.layout", "impl.constants.x", "timing.target", "timing.cache"),
    *("compile.mode", "hydra.sweeper.params", "hydra.launcher", "hydra/launcher", "hydra.searchpath", "hydra.job.name"),
)
WORDS = (
    *("naive", "sdpa", "decode", "quick", "default", "bf16", "fp32", "fwd", "none", "dense", "hot", "cpu", "1/2"),
    *("true", "null", "???", "a.b", "a..b", "nan", "2024-01-01", "0x1F", "1_000", "seq_len", "crashed", "torch", ""),
    *("${seed}", "${nope}", "${scenario.seq_len}", "${.name}", "${..name}", "${impl}", "${oc.env:NOPE}", "${", "$x"),
    *(
        "builtins.dict",
        "os.path.join",
        "attnsweep.impls.Attention",
        "attnsweep.impls.naive.NaiveAttention",
        "no.such.X",
    ),
)
#: As they are typed: sweeps, globs, ranges and what is nearly one.
TYPED = (
    *("1,2", "16,32,x", "[1,2]", "[[1,0],null]", "[", "a,", ",", "{a:1}", "{a:{b:[1]}}", "''", "'a,b'", '"x"', "'"),
    *(
        "range(1,3)",
        "range(3,1)",
        "range(1,4,0)",
        "range(1,inf)",
        "range(1,1e9)",
        "choice(1,2)",
        "choice()",
        "sort(2,1)",
    ),
    *(
        "glob(sdpa*)",
        "glob(zzz*)",
        "glob(*,exclude=*)",
        "interval(0,1)",
        "tag(a,1)",
        "int(x)",
        "str(3)",
        "shuffle(1,2)",
    ),
    *(
        "${seed}",
        "${nope}",
        "${scenario.head_dim}",
        "null",
        "nan",
        "-1",
        "0",
        "1e3",
        "99999999999999999999",
        "a b",
        "é",
    ),
)
#: Of examples that take a quarter of a second each.
FEW_OR_MANY = [15, pytest.param(50, marks=[pytest.mark.slow, pytest.mark.timeout(400)])]
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-2, 64),
    st.sampled_from([2**31, 2**63, 10**40]),
    st.floats(),
    st.sampled_from(WORDS),
    st.text("ab0.,:=-'\"\\ \n\té‮\x1b[]{}$*~", max_size=5),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["a", "dtypes", "fwd", "python", "variables", "x", "name"]), inner, max_size=2
        )
    ),
    max_leaves=4,
)


@st.composite
def mutated(draw: st.DrawFn, original: dict[str, Any]) -> dict[str, Any]:
    """The mapping with up to three of its fields, at any depth, changed, lost or new."""
    made = copy.deepcopy(original)
    for _ in range(draw(st.integers(0, 3))):
        place = made
        while (below := [one for one in place.values() if isinstance(one, dict) and one]) and draw(st.booleans()):
            place = draw(st.sampled_from(below))
        key = draw(st.sampled_from([*place, "nmae", 3, "defaults", "env"]))
        if draw(st.integers(0, 3)) == 0:
            place.pop(key, None)
        else:
            place[key] = draw(VALUES)
    return made


@st.composite
def override(draw: st.DrawFn) -> str:
    """A line as it is typed, mostly with a key that exists."""
    key = draw(st.sampled_from(KEYS))
    if draw(st.integers(0, 9)) == 0:
        key = draw(st.sampled_from([key[:-1], key + ".x", key + "@y", key.upper(), key.replace(".", "..")]))
    value = draw(st.one_of(st.sampled_from(TYPED), st.sampled_from(WORDS), VALUES.map(overrides.literal)))
    return (
        draw(st.sampled_from(["", "", "", "", "+", "++", "~"]))
        + key
        + draw(st.sampled_from(["=", "=", "=", ""]))
        + value
    )


@st.composite
def file_of_mine(draw: st.DrawFn) -> tuple[str, bytes]:
    """A group, and the bytes of a YAML in it that began as a sound one."""
    group = draw(st.sampled_from(sorted(GROUPS)))
    text = yaml.dump(draw(mutated(GROUPS[group])), sort_keys=False)
    if group == "study":
        text = "# @package _global_\n" + text
    lines = text.splitlines()
    index = draw(st.integers(0, len(lines) - 1))
    damage = draw(
        st.sampled_from(["", "", "", "\t", "- x", "? [", '"\\ud800": 1', "x: !!int y", "a: &a [*a]", "name: x", "---"])
    )
    text = "\n".join([*lines[:index], *([damage] if damage else []), *lines[index:]])
    return group, text.encode(draw(st.sampled_from(["utf-8", "utf-8", "utf-8", "utf-16"])))


def explore(check: Callable[[Any], None], drawn: st.SearchStrategy[Any], examples: int) -> None:
    """Run `check` on that many examples, the same in every run."""
    fixed = settings(
        derandomize=True,
        max_examples=examples,
        deadline=None,
        database=None,
        phases=[Phase.generate],  # shrinking takes longer than anyone waits, and these examples are small
        suppress_health_check=list(HealthCheck),
    )
    fixed(given(drawn)(check))()


def readable(sentence: str) -> None:
    """Fails unless `sentence` is one line that says something, in words of ours."""
    assert sentence.isprintable()
    assert len(sentence) > 15
    assert not [word for word in JARGON if word in sentence]


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder, and a command that stops at the plan."""
    folder = tmp_path / "work"
    folder.mkdir()
    monkeypatch.chdir(folder)
    for variable in ("ATTNSWEEP_CONFIG_PATH", "HYDRA_FULL_ERROR"):
        monkeypatch.delenv(variable, raising=False)
    run = sweep.run
    monkeypatch.setattr(
        "attnsweep.sweep.run", lambda given, made, **shared: run(replace(given, dry_run=True), made, **shared)
    )
    return folder


def answers(argv: list[str]) -> None:
    """Fails unless the command plans, or says one sentence with exit code 2; nothing is written either way."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = cli.main(argv)
    if code == 0:
        assert err.getvalue() == ""
    else:
        assert (code, out.getvalue()) == (2, "")
        assert err.getvalue().startswith("attnsweep: ")
        readable(err.getvalue().removesuffix("\n"))
    assert list(Path().iterdir()) == []


@pytest.mark.parametrize("examples", FEW_OR_MANY)
def test_whatever_is_typed_is_planned_or_refused_in_a_sentence(work: Path, examples: int) -> None:
    """Up to three overrides of any key with any value, sweep, glob, range or reference."""
    few = ["impl=naive", "timing=quick", "scale=tiny", "device=cpu"]
    explore(lambda lines: answers([*few, *lines]), st.lists(override(), max_size=3), examples)


@pytest.mark.parametrize("examples", FEW_OR_MANY)
def test_whatever_a_users_file_holds_is_planned_or_refused_in_a_sentence(
    work: Path, tmp_path: Path, examples: int
) -> None:
    """An implementation, scenario, preset, compile mode or study with wrong keys, types, references or bytes."""

    def check(drawn: tuple[str, bytes]) -> None:
        group, content = drawn
        path = tmp_path / "mine" / group / "mine.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        impl = [] if group in ("impl", "study") else ["impl=naive"]
        answers([f"{group}=mine", *impl, "device=cpu", "--config-dir", str(tmp_path / "mine")])

    explore(check, file_of_mine(), examples)


@pytest.mark.parametrize("examples", [200, pytest.param(1000, marks=pytest.mark.slow)])
def test_whatever_is_composed_is_planned_or_refused_in_a_sentence(examples: int) -> None:
    """Sections and settings of any type, as launchers of others hand them over; too quick for Hydra to come along."""
    own = {
        "seed": 1,
        "sample": None,
        "shard": None,
        "rerun": [],
        "pool": {"timeout_s": 9.0},
        "check": {"enabled": True},
    }
    groups = {key: value for key, value in GROUPS.items() if key != "study"}
    chosen = dict.fromkeys([*groups, "study"], "mine")

    def check(values: dict[str, Any]) -> None:
        try:
            cfg = OmegaConf.create(values)
            settings, combination = compose.combination(cfg, chosen, [])
            launching.bind(settings, [combination])
            made = planning.make(replace(settings, dry_run=True), [combination], [CPU])
        except (ConfigError, OmegaConfBaseException) as error:
            readable(messages.sentence(error))
        else:
            assert made.cells

    explore(
        check,
        st.fixed_dictionaries({key: mutated(value) for key, value in groups.items()}).flatmap(
            lambda sections: mutated(own).map(lambda settings: {**settings, **sections})
        ),
        examples,
    )
