"""The command: one way to measure, one sentence for a mistake, exit codes, and nothing heavy at the start."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import yaml

from attnsweep import cli, scenarios
from attnsweep.case import Case
from attnsweep.compose import Combination
from attnsweep.errors import ConfigError
from attnsweep.schema import Settings
from composing import write

MINE = "name: mine\n_target_: attnsweep.impls.FunctionAttention\n"
NAIVE = "name: mine\n_target_: attnsweep.impls.naive.NaiveAttention\nlayout: bhsd\n"


@dataclass
class Sweeps:
    """What sweep.run was called with, and what it answers."""

    settings: list[Settings] = field(default_factory=list)
    combinations: list[list[Combination]] = field(default_factory=list)
    shared: list[bool] = field(default_factory=list)
    environment: list[str | None] = field(default_factory=list)
    answer: Callable[[list[Combination]], int] = lambda combinations: 0

    def run(self, settings: Settings, combinations: list[Combination], *, shared: bool = False) -> int:
        self.settings.append(settings)
        self.combinations.append(combinations)
        self.shared.append(shared)
        self.environment.append(os.environ.get("HYDRA_FULL_ERROR"))
        return self.answer(combinations)


@pytest.fixture
def sweeps(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Sweeps:
    """An empty working folder, and a sweep that only remembers."""
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    monkeypatch.delenv("ATTNSWEEP_CONFIG_PATH", raising=False)
    monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)
    made = Sweeps()
    monkeypatch.setattr("attnsweep.sweep.run", made.run)
    return made


def command(*argv: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """The real command in a process of its own."""
    program = [sys.executable, "-c", "import sys; from attnsweep.cli import main; sys.exit(main())"]
    kept = {key: value for key, value in os.environ.items() if key != "ATTNSWEEP_CONFIG_PATH"}
    return subprocess.run(
        [*program, *argv],
        cwd=cwd,
        env={**kept, **environment},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


def measured(combinations: list[Combination]) -> set[tuple[str, str, Case]]:
    return {
        (one.impl["name"], one.compile["name"], problem.case)
        for one in combinations
        for problem in scenarios.expand(one.scenario, "full")
    }


@pytest.mark.parametrize(
    "argv",
    [
        ["impl=naive,sdpa", "scenario.seq_len=64"],
        ["impl=naive,sdpa", "scenario.seq_len=64", "-m"],
        ["-m", "impl=naive,sdpa", "scenario.seq_len=64"],
        ["impl=naive,sdpa", "--multirun", "scenario.seq_len=64"],
        ["impl=[naive,sdpa]", "scenario.seq_len=64", "--run"],
    ],
)
def test_every_way_of_calling_measures_the_same(sweeps: Sweeps, argv: list[str]) -> None:
    """A plain call, -m anywhere, and a bracketed list are one sweep of two implementations."""
    assert cli.main(argv) == 0
    (combinations,) = sweeps.combinations
    assert [one.impl["name"] for one in combinations] == ["naive", "sdpa"]
    assert [one.scenario["seq_len"] for one in combinations] == [64, 64]
    assert sweeps.shared == [False]


def test_a_swept_field_and_a_list_are_the_same_cells(sweeps: Sweeps) -> None:
    """seq_len=2048,4096 is two combinations and [2048,4096] one, of equal cases."""
    assert cli.main(["impl=fa2", "scenario.seq_len=2048,4096"]) == 0
    assert cli.main(["impl=fa2", "scenario.seq_len=[2048,4096]"]) == 0
    swept, listed = sweeps.combinations
    assert (len(swept), len(listed)) == (2, 1)
    assert measured(swept) == measured(listed)
    assert len(measured(listed)) == 4


@pytest.mark.parametrize("launcher", ["attnsweep", "basic"])
@pytest.mark.parametrize(
    ("argv", "shapes"),
    [
        (["impl=naive", "scale=tiny"], {(1, 4, 32), (1, 4, 64), (2, 4, 32), (2, 4, 64)}),
        (["impl=naive", "scale=tiny", "scenario.seq_len=512"], {(1, 4, 512), (2, 4, 512)}),
        (
            ["impl=naive", "scale=tiny", "scenario.seq_len=512,[8,9]", "++scenario.batch_size=3"],
            {(3, 4, 512), (3, 4, 8), (3, 4, 9)},
        ),
        (["impl=naive", "scale=tiny", "scenario.seq_len=512", "scenario.tiny.seq_len=7"], {(1, 4, 7), (2, 4, 7)}),
        (["study=mine", "scale=tiny"], {(1, 4, 32), (1, 4, 64), (2, 4, 32), (2, 4, 64)}),
        (["study=mine", "scale=tiny", "scenario.num_heads=6"], {(1, 6, 32), (1, 6, 64), (2, 6, 32), (2, 6, 64)}),
        (["study=small", "scenario.seq_len=512"], {(1, 4, 512), (2, 4, 512)}),
        (["study=small", "scenario.seq_len=512", "scale=full"], {(1, 32, 512), (4, 32, 512)}),
    ],
)
def test_what_is_typed_wins_over_tiny(
    sweeps: Sweeps, argv: list[str], shapes: set[tuple[int, int, int]], launcher: str
) -> None:
    """Field by field, whoever launches; what a study's parameters say is made small."""
    folder = write(
        Path("conf"),
        study__mine="# @package _global_\nhydra: {sweeper: {params: {impl: naive, scenario.seq_len: [1024, 2048]}}}\n",
        study__small="# @package _global_\nhydra: {sweeper: {params: {impl: naive, scale: tiny}}}\n",
    )
    assert cli.main([*argv, f"hydra/launcher={launcher}", f"--config-dir={folder}"]) == 0
    cases = {
        problem.case
        for settings, combinations in zip(sweeps.settings, sweeps.combinations, strict=True)
        for one in combinations
        for problem in scenarios.expand(one.scenario, settings.scale)
    }
    assert {(case.batch_size, case.num_heads, case.q_len) for case in cases} == shapes


def test_fields_of_what_is_yet_to_be_chosen_can_be_set(sweeps: Sweeps) -> None:
    """Hydra alone refuses a field of an implementation that is swept, or of a scenario that is not the default."""
    argv = ["impl=naive,sdpa_math", "impl.layout=bshd", "scenario=decode,flux", "scenario.window=null"]
    assert cli.main([*argv, "+impl.kernels={fwd: [x]}"]) == 0
    (combinations,) = sweeps.combinations
    assert len(combinations) == 4
    assert {one.variant for one in combinations} == {"kernels={fwd:[x]},layout=bshd"}
    assert cli.main(["impl=naive", "scenario=decode", "scenario.kv_len=64"]) == 0


def test_a_study_is_a_whole_sweep_and_the_command_line_wins(sweeps: Sweeps) -> None:
    """study= needs nothing more; what is typed beside it replaces what it says."""
    assert cli.main(["study=quickstart"]) == 0
    assert cli.main(["study=quickstart", "impl=naive", "timing=publish", "name=other", "seed=4"]) == 0
    whole, changed = sweeps.settings
    assert (whole.name, whole.study, changed.name, changed.study, changed.seed) == (
        *("quickstart", "quickstart", "other", "quickstart"),
        4,
    )
    assert len(sweeps.combinations[0]) > 1
    assert [one.timing["name"] for one in sweeps.combinations[1]] == ["publish"]


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        ([], "which implementation? Say impl= and one or more of ceiling_copy, ceiling_matmul, fa2"),
        ([], "study=quickstart"),
        (["impl=naiv"], "no impl 'naiv' (did you mean naive?); the choices are ceiling_copy, ceiling_matmul, fa2"),
        (["impl=naive,flexx", "scenario=decode"], "there is no impl 'flexx' (did you mean flex?)"),
        (["impl=naive,sdpa", "scenario=typo"], "there is no scenario 'typo'; the choices are decode, flux, prefill"),
        (["study=quickstrt"], "there is no study 'quickstrt' (did you mean quickstart?)"),
        (["impl=naive", "sed=1"], "there is no key sed (did you mean seed?); the keys are"),
        (["impl=naive", "+sed=1"], "there is no key sed (did you mean seed?)"),
        (["impl=naive", "timing.replicats=1"], "there is no key timing.replicats (did you mean replicates?)"),
        (["impl=naive", "compile.mod=x"], "there is no key compile.mod (did you mean mode?)"),
        (["impl=naive", "scenario.seqlen=1"], "there is no key scenario.seqlen (did you mean seq_len?)"),
        (
            ["impl=naive", "scenario=prefill,decode", "scenario.kv_len=128"],
            "scenario.kv_len is no field of prefill, only of decode; a field holds for every scenario of a call: give "
            "each a call of its own, which with the same name=NAME adds to one sweep",
        ),
        (["impl=naive", "scenario=prefill,decode", "scenario.kvlen=1"], "there is no key scenario.kvlen"),
        (["impl=naive", "device=gpu"], "not 'gpu' (did you mean cuda?)"),
        (["impl=naive", "impl.layuot=1"], "layuot"),
        (["impl=naive", "pool.timout_s=1"], "there is no key pool.timout_s (did you mean timeout_s?)"),
        (["impl=naive", "seed=abc"], "seed must be an integer, not 'abc'"),
        (["impl=naive", "timing.replicates=x"], "timing.replicates must be an integer, not 'x'"),
        (["impl=naive", "scenario.seq_len=x"], "seq_len must be a positive integer, not 'x'"),
        (["impl=naive", "scenario.dtype=bf17"], "dtype must be one of"),
        (["impl=naive", "gpus=0,2"], "gpus=[0,2]"),
        (
            ["impl=naive", "direction=bwd"],
            "there is no key direction, it is a field of the scenario: write scenario.direction=bwd",
        ),
        (["impl=naive", "seq_len=128"], "write scenario.seq_len=128"),
        (["impl=naive", "+num_heads=8,16"], "write scenario.num_heads=8,16"),
        (["impl=naive", "timing.name=publish"], "timing.name=publish: timing.name says in every record"),
        (["impl=naive", "+scenario.name=x"], "scenario.name=x: scenario.name says in every record"),
        (["impl=naive", "compile.name=x,y"], "compile.name=x: compile.name says in every record"),
        (["impl=naive", "pool.timeout_s=1e300"], "pool.timeout_s must be 604800 or less, not 1e+300"),
        (["impl=naive", "pool.grace_s=inf"], "pool.grace_s must be 604800 or less, not inf"),
        (["impl=naive", "timing.rest_ms=inf"], "timing.rest_ms must be 604800000 or less, not inf"),
        (["impl=naive", "seed=9223372036854775808"], "seed must be 9223372036854775807 or less"),
        (["impl=naive", "name=../../x"], "name must be one folder"),
        (["impl=naive", "name=report"], "name may not be 'report'"),
        (["impl=glob(nothing*)"], "matches no impl; the choices are"),
        (["impl=naive", "impl.layout=${no.where}"], "impl.layout: ${no.where} leads nowhere"),
        (["impl=naive", "hydra/launcher=slrum"], "there is no hydra/launcher 'slrum'"),
        (["impl=naive", "hydra.nothing=1"], "hydra.nothing"),
        (["impl=naive", "--confg-dir", "x"], "there is no flag --confg-dir"),
        (["impl=naive", "--config-dir", "/no/such/folder"], "--config-dir names /no/such/folder, which is no folder"),
        (["impl=naive,sdpa", "impl.name=x"], "impl=naive and impl=sdpa are both named x"),
        (["impl=naive,sdpa", "--cfg", "job"], "--cfg shows one configuration, and impl=naive,sdpa is a sweep"),
        (["impl=[naive,sdpa]", "--cfg", "job"], "--cfg shows one configuration, and this is a sweep of 2"),
        (["impl=naive", "timing.replicats=3", "--cfg", "job"], "there is no key timing.replicats (did you mean"),
        (["impl=flex", "impl.kernel_options.BLOCK_MM=64", "--cfg", "job"], "kernel_options has no key BLOCK_MM"),
        (["--cfg", "job"], "which impl? Say impl= and one of ceiling_copy, ceiling_matmul"),
        (["impl=naive,"], "'impl=naive,' is not of the form key=value: something is missing at its end"),
        (
            ["impl=naive", "name=caf\xe9"],
            'is not of the form key=value: \xe9 must stand in quotes, in a shell as "KEY=',
        ),
        (["impl=naive", "name='a\x1b[31m'"], "'a\\x1b[31m' is not"),
        (["impl=naive", "scenario.dtype='a\nb'"], "not 'a\\nb'"),
        (["impl=naive", "scenario.dtype='\udce9'"], "is no UTF-8 text"),
        (
            ["impl=naive", "output_dir='a\0b'"],
            "output_dir must be the path of a folder, of printable characters, not 'a",
        ),
        (["impl=naive", "study=null"], "study=null: study takes the name of one study; without study= there is none"),
        (["impl=naive", "rerun=crashd"], "not 'crashd' (did you mean crashed?)"),
        (["impl=naive", "shard=3/2"], "shard must be i/n with i from 1 to n"),
        (["impl=naive", "sample=0"], "sample must be 1 or more, not 0"),
        (["impl=naive", "scenario.batch_size=-1"], "batch_size must be a positive integer, not -1"),
        (["impl=naive", "scenario.seq_len=1000000000000"], "seq_len must be 2147483647 or less, not 1000000000000"),
        (["impl=naive", "scenario.num_kv_heads=5"], "num_heads (32) must be a multiple of num_kv_heads (5)"),
        (
            ["impl=naive", "scenario.seq_len={a:1}"],
            "seq_len={a:1}: scenario.seq_len: Cannot merge a mapping with a list",
        ),
        (["impl=naive", "scenario.seq_len.a=1"], "scenario.seq_len is a list; write scenario.seq_len=..."),
        (["impl=naive", "scenario.seq_len=${scenario.seq_len}"], "scenario.seq_len: it refers to itself in a circle"),
        (["impl=naive", "scenario.dtype=${oc.env:NO_SUCH}"], "dtype: Environment variable 'NO_SUCH' not found"),
        (["impl=naive", "hydra.mode=RUN"], "hydra.mode=RUN: every call is a sweep, also of one combination"),
        (["impl=naive", "hydra.searchpath=[file:///no/such]"], "path=/no/such is not available"),
        (["impl=naive", "hydra.launcher._target_=no.Such"], "Invalid plugin 'no.Such'"),
        (["impl=naive", "--config-dir"], "argument --config-dir/-cd: expected one argument; attnsweep -h says"),
        (["impl=naive", "--config-dir="], "--config-dir names '', which is no folder"),
        (["impl=naive", "--resolve"], "The --resolve flag can only be used"),
    ],
)
def test_a_mistake_is_one_sentence_and_exit_code_2(
    sweeps: Sweeps, capsys: pytest.CaptureFixture[str], argv: list[str], said: str
) -> None:
    """On stderr, with the choices, before anything is written or run."""
    assert cli.main(argv) == 2
    printed = capsys.readouterr()
    assert said in printed.err
    assert printed.err.startswith("attnsweep: ")
    assert printed.err.count("\n") == 1
    assert printed.err[:-1].isprintable()
    assert printed.out == ""
    assert sweeps.settings == []
    assert list(Path().iterdir()) == []
    assert "HYDRA_FULL_ERROR" not in os.environ


def test_a_broken_yaml_is_named_with_its_line(
    sweeps: Sweeps, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A user's file that is no YAML is a mistake like any other."""
    write(tmp_path / "mine", impl__broken="name: x\nlist: [1\n")
    assert cli.main(["impl=broken", "--config-dir", str(tmp_path / "mine")]) == 2
    assert "broken.yaml, line 3: while parsing a flow sequence expected" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"name: mine\n", "impl mine: _target_ must be given, as package.module.Class"),
        (f"{MINE}".encode(), "impl mine: function must be given"),
        (f"{MINE}function: flash\n".encode(), "impl mine: function must be package.module.function, not 'flash'"),
        (f"{MINE}function: a..b\n".encode(), "impl mine: function must be package.module.function, not 'a..b'"),
        (b"name: mine\n_target_: .x\n", "impl mine: _target_ must be package.module.Class, not '.x'"),
        (b"name: mine\n_target_: attnsweep.impls.Attention\n", "cannot be built: it has no prepare"),
        (f"{MINE}function: ${{.layout}}\nlayout: ${{.function}}\n".encode(), "it refers to itself in a circle"),
        (f"{MINE}function: ${{nowhere}}\n".encode(), "impl.function: ${nowhere} leads nowhere"),
        (f"{MINE}function: '${{'\n".encode(), "mine.yaml cannot be read: function: "),
        (f"{MINE}function: a.b\nsupports:\n\tgqa: true\n".encode(), "mine.yaml, line 5: while scanning"),
        (f"{MINE}name: other\n".encode(), "mine.yaml, line 3: while constructing a mapping found duplicate key name"),
        (b"- a\n- b\n", "mine.yaml must be a mapping, lines of key: value, not a list"),
        (b"just text\n", "mine.yaml must be a mapping, lines of key: value, not text"),
        (b"42\n", "mine.yaml cannot be read: it must be a mapping, lines of key: value"),
        (b"name: caf\xe9\n", "mine.yaml is not UTF-8 text: invalid continuation byte at byte 9"),
        (b"a: &a [*a]\n", "mine.yaml is nested too deeply"),
        (b"a: !!int x\n", "mine.yaml cannot be read: invalid literal for int()"),
        (b"defaults: naive\n", "mine.yaml: defaults must be a list of names and mappings (group: option), not 'naive'"),
        (b"defaults: [[]]\n", "mine.yaml: defaults must be a list of names and mappings (group: option), not [[]]"),
        (b"defaults: [mine]\n", "a YAML includes itself by its defaults"),
        (b"# @package a b\nname: mine\n", "mine.yaml cannot be read: Too many components in '@package a b'"),
        (f"{MINE}3: x\n".encode(), "impl has the key 3, which is no text: write it in quotes"),
        (f"{MINE}function: a.b\nconstants: {{x: !!binary aGk=}}\n".encode(), "impl.constants.x holds b'hi', which is"),
        (b'name: "a\\nb"\n_target_: x.Y\n', "impl.name must be text of printable characters, not 'a\\nb'"),
        (f"{MINE}function: a.b\ndistribution: ''\n".encode(), "impl mine: distribution must be a name, not ''"),
        (
            f"{MINE}function: a.b\ndistribution: c\nmin_version: 2\n".encode(),
            'impl mine: min_version must be a version in quotes such as "2.1", not 2',
        ),
    ],
)
def test_a_users_yaml_that_cannot_be_meant_is_one_sentence(
    sweeps: Sweeps, tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes, said: str
) -> None:
    """Whatever the file holds: where, what, and nothing run."""
    (tmp_path / "mine" / "impl").mkdir(parents=True)
    (tmp_path / "mine" / "impl" / "mine.yaml").write_bytes(content)
    assert cli.main(["impl=mine", "--config-dir", str(tmp_path / "mine")]) == 2
    printed = capsys.readouterr()
    assert said in printed.err
    assert (printed.err.startswith("attnsweep: "), printed.err.count("\n"), printed.out) == (True, 1, "")
    assert sweeps.settings == []
    assert list(Path().iterdir()) == []


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("hydra: 3\n", "mine.yaml: hydra must be a mapping, not 3"),
        ("hydra: {sweeper: {params: [impl]}}\n", "mine.yaml: hydra.sweeper.params must be a mapping, not ['impl']"),
        ("hydra: {sweeper: {params: {3: 4}}}\n", "mine.yaml: hydra.sweeper.params.3: Key 3 (int) is incompatible"),
        ("hydra: {sweeper: {params: {impl: []}}}\n", "impl=[] picks no impl; the choices are"),
        ("hydra: {sweeper: {params: {impl: 'glob(no*)'}}}\n", "impl=glob(no*) matches no impl; the choices are"),
        ("hydra: {sweeper: {params: {impl: '${no.where}'}}}\n", "${no.where} leads nowhere"),
        ("pool: [1]\n", "study/mine.yaml: Cannot merge a mapping with a list"),
        ("hydra: {launcher: {x: 3}}\n", "mine.yaml: hydra.launcher.x: Key 'x' not in"),
    ],
)
def test_a_study_that_cannot_be_meant_is_one_sentence(
    sweeps: Sweeps, tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str, said: str
) -> None:
    """What Hydra reads of it is checked, and named, before Hydra does."""
    folder = write(tmp_path / "mine", study__mine=f"# @package _global_\n{content}")
    assert cli.main(["study=mine", "--config-dir", str(folder)]) == 2
    printed = capsys.readouterr().err
    assert said in printed
    assert (printed.count("\n"), sweeps.settings) == (1, [])


def test_an_option_that_reads_as_a_number_is_taken_in_quotes(
    sweeps: Sweeps, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """impl/3.yaml is impl='3', whoever composes it; without quotes the sentence says so."""
    folder = str(write(tmp_path / "mine", impl__3=NAIVE.replace("mine", "three")))
    assert cli.main(["impl=3", "--config-dir", folder]) == 2
    assert "there is no impl 3 (did you mean impl='3', in quotes?)" in capsys.readouterr().err
    assert cli.main(["impl='3',naive", "--config-dir", folder]) == 0
    assert [one.impl["name"] for one in sweeps.combinations[0]] == ["three", "naive"]


@pytest.mark.parametrize("code", [0, 1, 130, 143])
def test_the_exit_code_is_the_sweeps(sweeps: Sweeps, code: int) -> None:
    """Hydra returns nothing; the code comes back all the same."""
    sweeps.answer = lambda combinations: code
    assert cli.main(["impl=naive"]) == code
    sweeps.answer = lambda combinations: 0
    assert cli.main(["impl=naive"]) == 0


def test_a_sweep_that_finds_a_mistake_is_exit_code_2(sweeps: Sweeps, capsys: pytest.CaptureFixture[str]) -> None:
    """What only the plan can know, such as an absent GPU, is said the same way."""

    def refuse(combinations: list[Combination]) -> int:
        raise ConfigError("no NVIDIA GPU is visible here")

    sweeps.answer = refuse
    assert cli.main(["impl=naive"]) == 2
    assert capsys.readouterr().err == "attnsweep: no NVIDIA GPU is visible here\n"


def test_ctrl_c_outside_the_pool_is_130(sweeps: Sweeps) -> None:
    """No traceback, and the code that a shell expects."""

    def interrupt(combinations: list[Combination]) -> int:
        raise KeyboardInterrupt

    sweeps.answer = interrupt
    assert cli.main(["impl=naive"]) == 130


def test_ctrl_c_while_importing_is_130_without_a_traceback(tmp_path: Path) -> None:
    """Importing Hydra takes a while, and people press Ctrl-C in it."""
    code = """
import sys
class Interrupt:
    def find_spec(self, name, path=None, target=None):
        if name == "hydra.errors":
            raise KeyboardInterrupt
sys.meta_path.insert(0, Interrupt())
from attnsweep.cli import main
sys.exit(main(["impl=naive"]))
"""
    found = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (found.returncode, found.stdout, found.stderr) == (130, "", "")


def test_a_signal_in_an_import_waits_with_importlib_there_too(tmp_path: Path) -> None:
    """The frozen modules have other names then. A class that is being made would turn the interrupt into a RuntimeError
    (in Python 3.11).
    """
    code = """
import importlib, os, signal, sys
class Field:
    def __set_name__(self, owner, name):
        os.kill(os.getpid(), signal.SIGTERM)
class Interrupt:
    def find_spec(self, name, path=None, target=None):
        if name == "hydra.errors":
            class Owner:
                field = Field()
            print("imported on")
sys.meta_path.insert(0, Interrupt())
from attnsweep.cli import main
sys.exit(main(["impl=naive"]))
"""
    found = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (found.returncode, found.stdout, found.stderr) == (143, "imported on\n", "")


@pytest.mark.parametrize("sweeper", ["attnsweep", "basic"])
@pytest.mark.parametrize("code", [130, 143])
def test_a_signal_ends_another_launchers_loop_too(sweeps: Sweeps, code: int, sweeper: str) -> None:
    """The sweep of one combination that a signal ended is the last, and its code is the command's."""
    sweeps.answer = lambda combinations: code
    argv = ["impl=naive,sdpa,fa2", "name=n", "hydra/launcher=basic", f"hydra/sweeper={sweeper}"]
    assert cli.main(argv) == code
    assert len(sweeps.combinations) == 1


def test_a_launchers_own_process_returns_the_code(sweeps: Sweeps, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever waits for it in another process gets an answer, not a KeyboardInterrupt."""
    sweeps.answer = lambda combinations: 130
    monkeypatch.setattr(os, "getpid", itertools.count(10**9).__next__)
    assert cli.main(["impl=naive,sdpa", "name=n", "hydra/launcher=basic"]) == 130
    assert len(sweeps.combinations) == 2


@pytest.mark.parametrize("error", [ZeroDivisionError, ValueError, TypeError, RuntimeError, OSError])
def test_a_bug_is_not_taken_for_a_mistake(sweeps: Sweeps, error: type[Exception]) -> None:
    """Anything but a mistake of the user's keeps its traceback, also what Hydra raises for a mistake."""

    def fail(combinations: list[Combination]) -> int:
        raise error

    sweeps.answer = fail
    with pytest.raises(error):
        cli.main(["impl=naive"])
    assert "HYDRA_FULL_ERROR" not in os.environ


def test_children_do_not_inherit_hydras_variable(
    sweeps: Sweeps, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """HYDRA_FULL_ERROR is ours while Hydra composes and nobody's while cells run; a user's own shows tracebacks."""
    assert cli.main(["impl=naive"]) == 0
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    assert cli.main(["impl=naive"]) == 0
    assert sweeps.environment == [None, None]
    assert os.environ["HYDRA_FULL_ERROR"] == "1"
    assert cli.main(["impl=naiv"]) == 2
    assert "Traceback" in capsys.readouterr().err


def test_users_add_yaml_without_touching_the_package(
    sweeps: Sweeps, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """--config-dir and ATTNSWEEP_CONFIG_PATH, several folders, listed among the choices."""
    one = write(tmp_path / "one", impl__mine=NAIVE)
    two = write(
        tmp_path / "two", impl__yours=NAIVE.replace("mine", "yours"), timing__own="defaults: [quick]\nname: own\n"
    )
    assert cli.main(["impl=mine", "--config-dir", str(one)]) == 0
    monkeypatch.setenv("ATTNSWEEP_CONFIG_PATH", f"{one}:{two}")
    assert cli.main(["impl=mine,yours,naive", "timing=own"]) == 0
    assert [[one.impl["name"] for one in run] for run in sweeps.combinations] == [["mine"], ["mine", "yours", "naive"]]
    assert sweeps.combinations[1][0].timing["replicates"] == 1
    assert capsys.readouterr().err == ""
    assert cli.main(["impl=yuors"]) == 2
    said = capsys.readouterr().err
    assert "(did you mean yours?); the choices are " in said
    assert ", mine, naive" in said
    monkeypatch.setenv("ATTNSWEEP_CONFIG_PATH", f"{one}:{tmp_path}/gone")
    assert cli.main(["impl=mine"]) == 2
    assert f"ATTNSWEEP_CONFIG_PATH names {tmp_path}/gone, which is no folder" in capsys.readouterr().err


def test_a_file_that_is_never_read_is_said(
    sweeps: Sweeps, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Ours come first, then --config-dir, then the variable's folders in order."""
    ours = write(tmp_path / "a", impl__naive=NAIVE, impl__mine=NAIVE)
    monkeypatch.setenv("ATTNSWEEP_CONFIG_PATH", str(write(tmp_path / "b", impl__mine=NAIVE.replace("bhsd", "bshd"))))
    assert cli.main(["impl=mine", "--config-dir", str(ours)]) == 0
    assert sweeps.combinations[0][0].impl["layout"] == "bhsd"
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2
    assert f"{tmp_path}/a/impl/naive.yaml is not read: " in lines[0]
    assert f"{tmp_path}/b/impl/mine.yaml is not read: {tmp_path}/a/impl/mine.yaml has the same name" in lines[1]


def test_a_conf_folder_that_happens_to_be_here_is_not_read(sweeps: Sweeps, capsys: pytest.CaptureFixture[str]) -> None:
    """Any other Hydra project has one."""
    write(Path("conf"), impl__mine=NAIVE, config="seed: 9\n")
    assert cli.main(["impl=mine"]) == 2
    assert "there is no impl 'mine'" in capsys.readouterr().err
    assert cli.main(["impl=naive"]) == 0
    assert sweeps.settings[0].seed == 0


def test_another_launcher_runs_the_same_combinations_one_by_one(sweeps: Sweeps) -> None:
    """Each in a task of its own, in one folder, and the worst exit code is the command's."""
    argv = ["impl=naive,sdpa", "impl.layout=bshd", "scenario=flux", "scenario.resolution=64,128"]
    assert cli.main(argv) == 0
    sweeps.answer = lambda combinations: int(combinations[0].impl["name"] == "sdpa")
    assert cli.main([*argv, "hydra/launcher=basic"]) == 1
    (together, *apart) = sweeps.combinations
    assert [one for (one,) in apart] == together
    assert sweeps.shared == [False, True, True, True, True]
    names = {settings.name for settings in sweeps.settings[1:]}
    assert len(names) == 1
    assert [str(path) for path in Path().rglob("*")] == ["outputs", f"outputs/{names.pop()}"]


@pytest.mark.parametrize("name", ["1_000", "1e3", "true", "null", "plain"])
def test_another_launcher_is_given_the_name_as_it_was_typed(sweeps: Sweeps, name: str) -> None:
    """A name that reads as a number, a boolean or null is one folder for every launcher."""
    argv = ["impl=naive", f"name='{name}'"]
    assert [cli.main(argv), cli.main([*argv, "hydra/launcher=basic"])] == [0, 0]
    assert [settings.name for settings in sweeps.settings] == [name, name]


def test_a_mistake_in_one_task_costs_no_other(sweeps: Sweeps, capsys: pytest.CaptureFixture[str]) -> None:
    """With another launcher it is said, becomes exit code 2, and the other combinations run."""

    def refuse_first(combinations: list[Combination]) -> int:
        if combinations[0].impl["name"] == "naive":
            raise ConfigError("not this one")
        return 0

    sweeps.answer = refuse_first
    assert cli.main(["impl=naive,sdpa", "hydra/launcher=basic"]) == 2
    assert len(sweeps.combinations) == 2
    assert capsys.readouterr().err == "attnsweep: not this one\n"


def test_a_dry_run_writes_nothing_whatever_the_launcher(sweeps: Sweeps) -> None:
    """Other launchers make folders before they run anything, so a dry run does not reach them."""
    assert cli.main(["impl=naive,sdpa", "dry_run=true", "hydra/launcher=basic"]) == 0
    assert [len(combinations) for combinations in sweeps.combinations] == [2]
    assert list(Path().iterdir()) == []


def test_hydras_own_sweeper_stays_usable(sweeps: Sweeps) -> None:
    """It has the traps that ours closes, and runs the same combinations."""
    assert cli.main(["impl=naive,sdpa", "hydra/sweeper=basic", "name=n"]) == 0
    assert [one.impl["name"] for one in sweeps.combinations[0]] == ["naive", "sdpa"]


def test_a_configuration_can_be_looked_at(sweeps: Sweeps, capsys: pytest.CaptureFixture[str]) -> None:
    """--cfg job prints what one combination is made of and runs nothing."""
    assert cli.main(["impl=naive", "scenario.seq_len=77", "--cfg", "job"]) == 0
    assert "seq_len: 77" in capsys.readouterr().out
    assert sweeps.settings == []
    with pytest.raises(SystemExit, match="0"):
        cli.main(["impl=naive", "--cfg", "job", "--help"])
    assert "attnsweep impl=" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("argv", "field", "value"),
    [
        (["impl=flex", "impl.kernel_options.BLOCK_M=64"], "kernel_options", {"BLOCK_M": 64}),
        (["impl=naive", "impl.env.python=/x"], "env", {"python": "/x"}),
        (["impl=fa2", "impl.constants.deterministic=true"], "constants", {"deterministic": True}),
    ],
)
def test_what_a_sweep_runs_can_be_looked_at(
    argv: list[str], field: str, value: object, sweeps: Sweeps, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also fields that the YAML has not, and what they say is what a sweep of them holds."""
    assert cli.main([*argv, "--cfg", "job"]) == 0
    seen = yaml.safe_load(capsys.readouterr().out)
    assert seen["impl"][field] == value
    assert sweeps.settings == []
    assert cli.main(argv) == 0
    assert sweeps.combinations[0][0].impl == seen["impl"]


def test_what_is_looked_at_keeps_from_tiny_what_was_typed(capsys: pytest.CaptureFixture[str]) -> None:
    """As in a sweep."""
    assert cli.main(["impl=naive", "scale=tiny", "scenario.seq_len=77", "--cfg", "job", "--resolve"]) == 0
    assert yaml.safe_load(capsys.readouterr().out)["scenario"]["tiny"]["seq_len"] == 77


def test_the_version_is_ours(tmp_path: Path) -> None:
    """Hydra's --version would print Hydra's."""
    import importlib.metadata

    found = command("--version", cwd=tmp_path)
    assert (found.returncode, found.stdout) == (0, f"attnsweep {importlib.metadata.version('attnsweep')}\n")


def test_the_help_says_how_to_start(tmp_path: Path) -> None:
    """Both commands, the groups with a user's own options, the settings, and where flags go."""
    folder = write(tmp_path / "mine", impl__mine=NAIVE)
    found = command("-h", "--config-dir", str(folder), cwd=tmp_path)
    assert (found.returncode, found.stderr) == (0, "")
    for text in ("attnsweep impl=fa2,xformers", "attnsweep-report outputs/", "study: flux, fusion", "dry_run=true"):
        assert text in found.stdout
    assert "Flags go after the overrides" in found.stdout
    (options,) = [line for line in found.stdout.splitlines() if line.startswith("impl: ")]
    assert "mine" in options
    assert max(len(line) for line in found.stdout.splitlines() if line != options) < 120


def test_nothing_heavy_is_imported_to_start_or_to_refuse(tmp_path: Path) -> None:
    """The command's module imports not even Hydra; a mistake is answered without torch, pandas or pyarrow."""
    heavy = "heavy = {'torch', 'pandas', 'pyarrow', 'matplotlib', 'numpy', 'pynvml', 'triton'}"
    code = (
        f"import sys; {heavy}\nimport attnsweep.cli\n"
        "print(sorted((heavy | {'hydra', 'omegaconf'}) & set(sys.modules)))\n"
        "code = attnsweep.cli.main(['impl=naive', 'timing.replicats=3'])\n"
        "print(code, sorted(heavy & set(sys.modules)))"
    )
    found = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert found.stdout.splitlines() == ["[]", "2 []"]


def test_a_real_dry_run_lists_cells_and_writes_nothing(tmp_path: Path) -> None:
    """The whole way from the shell to the plan."""
    found = command("impl=naive,flex", "scale=tiny", "timing=quick", "device=cpu", "dry_run=true", cwd=tmp_path)
    assert found.returncode == 0, found.stderr
    assert "8 cells, 4 to run" in found.stdout
    assert list(tmp_path.iterdir()) == []


def test_a_real_mistake_has_no_traceback(tmp_path: Path) -> None:
    """The whole way from the shell to the sentence."""
    found = command("impl=fa9", cwd=tmp_path)
    assert (found.returncode, found.stdout, found.stderr.count("\n")) == (2, "", 1)


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["attnsweep", "basic", "submitit_local"])
def test_every_launcher_measures_for_real(launcher: str, tmp_path: Path) -> None:
    """Two implementations, two cases each, one folder, whoever schedules."""
    import pyarrow.parquet as pq

    argv = ["impl=naive,sdpa_math", "scenario.batch_size=1", "scale=tiny", "timing=quick", "device=cpu", "name=n"]
    found = command(*argv, f"hydra/launcher={launcher}", "timing.time_cap_s=0.2", cwd=tmp_path)
    assert found.returncode == 0, found.stdout + found.stderr
    rows = [pq.read_table(path).to_pylist()[0] for path in (tmp_path / "outputs" / "n" / "cells").glob("*.parquet")]
    counted = sorted((row["impl"], row["status"]) for row in rows)
    assert counted == [("naive", "ok")] * 2 + [("sdpa_math", "ok")] * 2


SLOW_IMPORT = """
import os, signal, time
os.kill(os.getpid(), signal.{name})
time.sleep(0.2)
with open("imported", "w") as file:
    file.write("whole")
"""


def test_what_a_signal_raised_and_somebody_swallowed_is_raised_again(tmp_path: Path) -> None:
    """As a destructor in C would: half a second later all ends nevertheless."""
    code = (
        "import contextlib, os, signal, time\n"
        "from attnsweep import cli\n"
        "def planning(argv):\n"
        "    with contextlib.suppress(KeyboardInterrupt):\n"
        "        os.kill(os.getpid(), signal.SIGTERM)\n"
        "        time.sleep(30)\n"
        "    open('swallowed', 'w').close()\n"
        "    time.sleep(30)\n"
        "cli._main = planning\n"
        "raise SystemExit(cli.main([]))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=20)
    assert (done.returncode, done.stderr) == (143, "")
    assert (tmp_path / "swallowed").exists()


@pytest.mark.parametrize("failure", ["NameError", "AttributeError", "OSError", "ConfigError", "SystemExit"])
def test_what_fails_in_tidying_up_after_a_signal_does_not_hide_it(tmp_path: Path, failure: str) -> None:
    """As Hydra's `finally: f.close()` does where the file was not open yet: neither a traceback nor a mistake."""
    code = f"""
import os, signal, time
from attnsweep import cli
from attnsweep.errors import ConfigError
def composing(argv):
    try:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(30)
    finally:
        raise {failure}("f")
cli._hydra = composing
raise SystemExit(cli.main([]))
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=20)
    assert (done.returncode, done.stdout, done.stderr) == (143, "", "")


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_a_signal_in_an_import_waits_until_that_is_over(tmp_path: Path, name: str) -> None:
    """Callbacks of the import system swallow what a handler raises: a sweep would run on as if nobody had asked."""
    (tmp_path / "slow_import.py").write_text(SLOW_IMPORT.format(name=name))
    code = (
        "import time\n"
        "from attnsweep import cli\n"
        "def planning(argv):\n"
        "    import slow_import\n"
        "    time.sleep(30)\n"
        "cli._main = planning\n"
        "raise SystemExit(cli.main([]))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=20)
    assert (done.returncode, done.stderr) == (128 + signal.Signals[name], "")
    assert (tmp_path / "imported").read_text() == "whole"


@pytest.mark.parametrize(("code", "after"), [(129, signal.SIG_IGN), (1, signal.SIG_DFL), (0, signal.SIG_DFL)])
def test_a_second_signal_does_not_change_how_a_sweep_ended_by_one_ends(code: int, after: signal.Handlers) -> None:
    """The sweep heard the first one itself; the process is on its way out with its exit code."""
    with cli._interrupting() as over:
        over(code)
    assert signal.getsignal(signal.SIGHUP) is after
