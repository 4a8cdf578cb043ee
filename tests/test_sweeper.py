"""The sweeper: a study's parameters and the command line become jobs, and every trap of Hydra's is closed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from attnsweep import compose, overrides
from attnsweep.conf_path import conf_folder
from attnsweep.errors import ConfigError
from composing import loader, study, write

OPTIONS = {
    "impl": ["fa2", "naive", "sdpa_flash", "sdpa_math"],
    "scenario": ["decode", "flux", "prefill"],
    "compile": ["default", "eager"],
    "timing": ["quick", "standard"],
}
CHOSEN: dict[str, str | None] = {"impl": "???", "scenario": "prefill"}


def jobs(*lines: str, params: dict[str, Any] | None = None) -> list[list[str]]:
    return overrides.expand([*overrides.params_lines(params or {}), *lines], lambda group: OPTIONS[group], CHOSEN)


def refused(*lines: str, params: dict[str, Any] | None = None) -> str:
    with pytest.raises(ConfigError) as caught:
        jobs(*lines, params=params)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    "line", ["impl=fa2,naive", "impl=[fa2,naive]", "impl=choice(fa2,naive)", "impl=choice([fa2,naive])"]
)
def test_every_way_to_write_several_options_sweeps_them(line: str) -> None:
    """Hydra merges a list of options into one, or runs its last; here it is the sweep that was meant."""
    assert jobs(line) == [["impl=fa2"], ["impl=naive"]]


@pytest.mark.parametrize("value", ["fa2,naive", ["fa2", "naive"], ["fa2", "naive", "fa2"]])
def test_every_way_in_a_studys_params_sweeps_them(value: Any) -> None:
    """A YAML list in hydra.sweeper.params runs every option, once."""
    assert jobs(params={"impl": value}) == [["impl=fa2"], ["impl=naive"]]


def test_the_product_runs_the_last_key_fastest() -> None:
    """The order of jobs is that of nested loops, in the order typed."""
    assert jobs("impl=fa2,naive", "scenario.seq_len=1,2") == [
        ["impl=fa2", "++scenario.seq_len=1"],
        ["impl=fa2", "++scenario.seq_len=2"],
        ["impl=naive", "++scenario.seq_len=1"],
        ["impl=naive", "++scenario.seq_len=2"],
    ]


def test_the_command_line_wins_over_a_study() -> None:
    """Key by key: what is typed replaces the study's, the rest of the study stays."""
    params = {"impl": ["fa2", "naive"], "scenario.seq_len": "1,2", "seed": 3}
    assert jobs("impl=sdpa_math", "scenario.seq_len=9", params=params) == [
        ["impl=sdpa_math", "++scenario.seq_len=9", "seed=3"]
    ]


def test_a_glob_picks_options_and_an_empty_one_is_a_mistake() -> None:
    """Hydra runs nothing and exits with 0 where a glob matches nothing."""
    assert jobs("impl=glob(sdpa_*)") == [["impl=sdpa_flash"], ["impl=sdpa_math"]]
    assert jobs("impl=glob(*,exclude=sdpa_*)") == [["impl=fa2"], ["impl=naive"]]
    assert refused("impl=glob(jax*)").endswith("matches no impl; the choices are fa2, naive, sdpa_flash, sdpa_math")
    assert "matches no impl" in refused(params={"impl": "glob(jax*)"})
    assert "picks no impl" in refused("impl=[]")


def test_a_list_below_a_group_is_a_value_and_commas_sweep() -> None:
    """scenario.seq_len=[1,2] is an axis of one combination's grid."""
    assert jobs("impl=fa2", "scenario.seq_len=[1,2]") == [["impl=fa2", "++scenario.seq_len=[1,2]"]]
    assert jobs("impl=fa2", params={"scenario.seq_len": [1, 2]}) == [["++scenario.seq_len=[1,2]", "impl=fa2"]]
    assert len(jobs("impl=fa2", "scenario.window=[1,0],[2,0],null")) == 3
    assert jobs("impl=fa2", "scenario.seq_len=range(1,4,2)") == [
        ["impl=fa2", "++scenario.seq_len=1"],
        ["impl=fa2", "++scenario.seq_len=3"],
    ]


@pytest.mark.parametrize("sign", ["", "+", "++"])
def test_a_field_is_set_whether_the_yaml_has_it_or_not(sign: str) -> None:
    """Whether a field may exist is for its schema to say, with the choices; Hydra is told to take it."""
    assert jobs("impl=fa2", f"{sign}impl.constants.x=1") == [["impl=fa2", "++impl.constants.x=1"]]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (
            "gpus=0,2",
            "gpus=0,2: only impl, scenario, compile, timing and fields below them can be swept; a list is "
            "written in brackets, gpus=[0,2]",
        ),
        ("name=a,b", "name takes one value"),
        ("seed=range(0,3)", "only impl, scenario"),
        ("study=a,b", "only impl, scenario"),
        ("study=[a,b]", "study takes the name of one study"),
        ("rerun=crashed,error", "rerun=[crashed,error]"),
    ],
)
def test_only_what_is_measured_can_be_swept(line: str, said: str) -> None:
    """gpus=0,2 would be two sweeps of one GPU each to Hydra; the bracketed form is in the sentence."""
    assert said in refused("impl=fa2", line)
    key, _, value = line.partition("=")
    assert said.split(": ")[-1] in refused("impl=fa2", params={key: value})


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("impl=fa3", "there is no impl 'fa3' (did you mean fa2?); the choices are fa2, naive"),
        ("impl=[fa2,nave]", "there is no impl 'nave' (did you mean naive?)"),
        ("impl=", "there is no impl ''"),
        ("impl=null", "there is no impl None"),
        ("impl={a:1}", "impl takes an option's name"),
        ("compile=defualt", "(did you mean default?)"),
        ("scenario=prefil", "(did you mean prefill?)"),
        ("sed=1", "there is no key sed (did you mean seed?)"),
        ("timming=quick", "there is no key timming (did you mean timing?)"),
        ("pool.timout_s=1", "there is no key pool.timout_s (did you mean timeout_s?)"),
        ("~impl", "nothing can be deleted"),
        ("~impl.layout", "nothing can be deleted on the command line; write impl.layout=null"),
        ("impl@x=fa2", "package"),
        ("scenario.seq_len=interval(1,2)", "only values that can be counted"),
        ("scenario.seq_len=glob(*)", "only values that can be counted"),
        ("scenario.seq_len=range(3,1)", "this range is empty"),
        ("scenario.seq_len=range(1,3,0)", "this range never ends"),
        ("scenario.seq_len=range(1,inf)", "this range never ends"),
        ("scenario.seq_len=range(1,1000000)", "this range has more than 100000 values"),
        ("scenario.seq_len=range(0,1e400)", "this range never ends"),
        ("scenario.seq_len=range(1,400) scenario.q", "is not of the form key=value"),
        ("=3", "there is no key before the ="),
        ("+seed=3", "seed is there already; write it without the +"),
        ("study.x=1", "study takes the name of one study"),
        ("study=${seed}", "study takes the name of one study"),
        ("impl.x='a", "a quote is not closed"),
        ("impl.x=[1,,2]", "it cannot be read from [1,, on"),
        ("impl.x=1,,2", "',' is out of place"),
        ("impl.x=choice()", "choice(): empty choice is not legal"),
        ("hydra.verbose=true", "--info all shows"),
        ("a b=c", "is not of the form key=value"),
        ("impl", "is not of the form key=value"),
        ("impl=[fa2", "is not of the form key=value"),
    ],
)
def test_a_mistake_is_one_sentence(line: str, said: str) -> None:
    """The nearest and all choices, in one line."""
    assert said in refused("impl=fa2", line)


def test_more_combinations_than_a_sweep_holds_are_refused() -> None:
    """Two ranges that are fine alone make more jobs than anyone waits for."""
    said = refused("impl=fa2", "scenario.seq_len=range(0,400)", "scenario.head_dim=range(0,400)")
    assert said == "this makes 160000 combinations; a sweep holds 100000 at most"


def test_no_implementation_lists_them_and_suggests_the_quickstart() -> None:
    """`attnsweep` alone helps on."""
    said = refused()
    assert "fa2, naive, sdpa_flash, sdpa_math" in said
    assert "study=quickstart" in said
    chosen: dict[str, str | None] = {"impl": "naive"}
    assert overrides.expand([], lambda group: OPTIONS[group], chosen) == [[]]


def test_a_studys_params_hold_nothing_of_hydra() -> None:
    """Too late for them: Hydra is configured by then."""
    assert "study's own hydra section" in refused("impl=fa2", params={"hydra.verbose": True})


@pytest.mark.parametrize(
    "value",
    [
        *(None, True, False, 0, -3, 1.5, 1e-07, [], {}, [1, "a,b", None], {"a": [1, {"b": "c d"}]}),
        *("a", "true", "null", "NaN", "", "it's", 'say "x"', "a,b", "a\\", "\\'", "[x]", "${a}", "a b", "1_000"),
        *("x=y", "é"),
    ],
)
def test_a_yaml_value_survives_being_written_as_an_override(value: Any) -> None:
    """A study's lists and maps mean on the way to Hydra what they mean in the YAML."""
    parsed = OverridesParser.create().parse_override(f"impl.x={overrides.literal(value)}")
    assert not parsed.is_sweep_override()
    assert parsed.value() == value


@pytest.mark.parametrize(
    "line",
    [
        *("impl=fa2", "impl=[fa2,naive]", "impl.x=3", "impl.x='3'", "impl.x=", "impl.x='a,b'", "impl.x=str(3)"),
        *("+impl.x=[1,{a:b}]", "impl.x=['3',null]", "impl.x=${scenario.dtype}", "scenario.window=null"),
    ],
)
def test_what_is_measured_is_left_to_the_sweeper(line: str) -> None:
    """The master configuration ignores sweeps; as one over equal values the override means what it meant."""
    before = OverridesParser.create().parse_override(line)
    after = OverridesParser.create().parse_override(overrides.deferred(before))
    assert after.is_sweep_override()
    chosen: dict[str, str | None] = {"impl": "naive"}

    def values(typed: str) -> list[Any]:
        made = overrides.expand([typed], lambda group: OPTIONS[group], chosen)
        return [(one.key_or_group, one.value()) for job in made for one in overrides.parse(job)]

    assert values(after.input_line or "") == values(line)
    assert after.get_key_element() == before.get_key_element()


@pytest.mark.parametrize("line", ["seed=3", "study=quickstart", "impl=a,b", "hydra/launcher=basic", "impl=glob(*)"])
def test_everything_else_is_left_as_it_is(line: str) -> None:
    """Settings, studies, sweeps and Hydra's own go to Hydra unchanged."""
    assert overrides.deferred(OverridesParser.create().parse_override(line)) == line


def test_a_number_for_a_name_stays_the_text_that_was_typed() -> None:
    """1_000 and 1e3 are numbers to Hydra, and folders to whoever typed them."""
    with loader() as found:
        for typed in ("1_000", "1e3", "2024"):
            job = jobs("impl=fa2", f"name={typed}")[0]
            assert compose.combinations(found, "config", [job])[0].name == typed


@pytest.mark.parametrize("name", sorted(path.stem for path in (conf_folder() / "study").glob("*.yaml")))
def test_every_study_of_conf_expands_composes_and_binds(name: str) -> None:
    """A study is a whole sweep: nothing has to be added on the command line."""
    settings, made = study(name)
    assert settings.study == settings.name == name
    assert made


def test_options_in_folders_are_listed_with_their_folder(tmp_path: Path) -> None:
    """impl/vendor/x.yaml is impl=vendor/x."""
    from hydra.types import RunMode

    from attnsweep import launching

    with loader(write(tmp_path, impl__vendor__x="name: x\n", impl__mine="name: mine\n")) as found:
        master = found.load_configuration("config", [], RunMode.MULTIRUN)
        listed = launching.options(found, master)("impl")
    assert {"vendor/x", "mine", "naive"} <= set(listed)
