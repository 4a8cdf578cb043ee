"""Results of the questions that GPUs are asked: what is asked of one of several, and the tables of how it ended."""

import importlib
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from attnsweep import capabilities

TESTS = Path(__file__).parent
SCRIPT = TESTS.parent / "benchmarks" / "capabilities.py"
RESULTS = TESTS.parent / "docs" / "results" / "capabilities"
#: A GPU without a GPU: cells that end as they are told, by implementation and case.
PLUGIN = """
import cell_runs
from attnsweep import capabilities, devices, impls

ENDS = {
    "sdpa_math": lambda case: ("incorrect", "off by 2") if case["causal"] and case["bias"] == "dense" else None,
    "flex": lambda case: ("unsupported", "tiles") if (case["dtype"], case["head_dim"]) == ("fp32", 192) else None,
    "sdpa": lambda case: ("ok", None, "skipped") if case["direction"] == "bwd" and case["head_dim"] == 256 else None,
    "fa2_triton": lambda case: ("compile_error", "dot() has no trans_b"),
    "jax_xla": lambda case: ("missing", "no CUDA"),
}


def run(name, mode, variables, timing, **case):
    if name == "triton_flash" and (case["dtype"], case["head_dim"]) == ("fp32", 192):
        raise EOFError("the cell is gone")
    status, reason, check = (*(ENDS.get(name, lambda case: None)(case) or ("ok", None)), "passed")[:3]
    return {"status": status, "reason": reason, "traceback": reason, "columns": {"check": check}}


cell_runs.run = run
devices.find = lambda kind: [capabilities.H200]
impls.why_missing = lambda impl: "no flash_attn" if impl["name"] == "fa2" else None
"""

#: The script's tables of that, but for how many questions each implementation claims: alone, in pairs, and of both.
TABLES = """\
| implementation | correct, alone | in pairs | refused at the call | failed | not asked |
|:--|--:|--:|--:|--:|--:|
| `fa2` |  |  |  |  | {fa2[2]} |
| `fa2_triton` | 0 of {fa2_triton[0]} | 0 of {fa2_triton[1]} |  | {fa2_triton[2]} |  |
| `flex` | {flex[0]} of {flex[0]} | {flex_right} of {flex[1]} | 1 |  |  |
| `jax_xla` |  |  |  |  | {jax_xla[2]} |
| `naive` | 20 of 20 | 119 of 119 |  |  |  |
| `sdpa` | 20 of 20 | 118 of 119 |  | 1 |  |
| `sdpa_math` | 20 of 20 | 117 of 119 |  | 2 |  |
| `triton_flash` | {triton_flash[0]} of {triton_flash[0]} | {triton_flash_right} of {triton_flash[1]} |  | 1 |  |

## Refused at the call

| implementation | questions | why |
|:--|:--|:--|
| `flex` | fp32 + head dim 192/128 | tiles |

## Failed

| implementation | questions | why |
|:--|:--|:--|
| `fa2_triton` | all {fa2_triton[2]} | compile_error: dot() has no trans_b |
| `sdpa` | head dim 256 + bwd | failed: AssertionError: assert 'skipped' == 'passed' |
| `sdpa_math` | bias + q_len &lt; kv_len, causal; causal + bias | incorrect: off by 2 |
| `triton_flash` | fp32 + head dim 192/128 | failed: EOFError: the cell is gone |

## Not asked

| implementation | questions | why |
|:--|:--|:--|
| `fa2` | all {fa2[2]} | no flash_attn |
| `jax_xla` | all {jax_xla[2]} | no CUDA |
"""
#: What claims nothing on an H200: it is for newer GPUs.
NEWER = {"xformers_cutlass_blackwell"}
NAMES = ("naive", "flex", "sdpa_math", "sdpa", "triton_flash", "fa2_triton", "fa2", "jax_xla")


@pytest.fixture
def on_gpus(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """tests/gpu/test_capabilities.py."""
    monkeypatch.syspath_prepend(TESTS / "gpu")
    return importlib.import_module("test_capabilities")


def test_gpus_share_all_questions(on_gpus: ModuleType) -> None:
    """The parts are disjoint and alike in length, each has every implementation that claims anything on an H200, and
    together they are all claims.
    """
    parts = [[one.id for one in on_gpus.parameters(f"all,{part}/3")] for part in (1, 2, 3)]
    claims = []
    for name, impl in on_gpus.IMPLS.items():
        asked = {**capabilities.singles(impl), **capabilities.pairs(impl)}
        for questions, case in asked.items():
            if not capabilities.why_unsupported(impl, case, capabilities.H200):
                claims.append(f"{name}-{questions if isinstance(questions, str) else ' + '.join(questions)}")
    assert sorted(one for part in parts for one in part) == sorted(claims)
    assert max(map(len, parts)) - min(map(len, parts)) <= 1
    assert all({one.partition("-")[0] for one in part} == set(on_gpus.IMPLS) - NEWER for part in parts)


def test_a_sample_is_as_many_of_each(on_gpus: ModuleType) -> None:
    """So many single questions and pairs of each implementation, the same each time; parts of it too."""
    sample = [one.id for one in on_gpus.parameters("2,1")]
    assert sum(" + " not in one for one in sample) == 2 * len(set(on_gpus.IMPLS) - NEWER)
    assert sum(" + " in one for one in sample) == len(set(on_gpus.IMPLS) - NEWER)
    assert [one.id for one in on_gpus.parameters("2,1,2/2")] == sample[1::2]


def test_what_was_answered_is_not_asked_again(on_gpus: ModuleType, tmp_path: Path) -> None:
    """But what failed is, and what was not asked."""
    told = '<properties><property name="status" value="{}" /><property name="reason" value="" /></properties>'
    every = {one.id for one in on_gpus.parameters("all")}
    for status, again in (("ok", 0), ("unsupported", 0), ("error", 1), ("missing", 1)):
        file = junit(tmp_path / f"{status}.xml", told.format(status))
        left = [one.id for part in (1, 2) for one in on_gpus.parameters(f"all,{part}/2", file)]
        assert len(left) == len(set(left)) == len(every) - 1 + again
        assert ("naive-fp16" in left) == bool(again)
    file = junit(tmp_path / "wrong.xml", told.format("ok") + '<failure message="not checked" />')
    assert "naive-fp16" in {one.id for one in on_gpus.parameters("all", file)}


@pytest.mark.parametrize("asked", ["", "3", "3,3,3", "all,0/4", "all,5/4", "all,1/0", "1/4", "every"])
def test_what_is_asked_is_well_said(on_gpus: ModuleType, asked: str) -> None:
    """Anything else would ask less than was meant."""
    with pytest.raises(ValueError, match="must be such as"):
        on_gpus.parameters(asked)


def junit(path: Path, inside: str) -> str:
    """A junit file of one question, as pytest writes it."""
    name = "test_what_is_claimed_is_correct_or_unsupported_with_a_reason[naive-fp16]"
    case = f'<testcase classname="tests.gpu.test_capabilities" name="{name}" time="1.0">{inside}</testcase>'
    path.write_text(f'<?xml version="1.0"?><testsuites><testsuite name="pytest">{case}</testsuite></testsuites>')
    return str(path)


def tables(*files: str) -> "subprocess.CompletedProcess[str]":
    """What the script makes of these files."""
    return subprocess.run([sys.executable, str(SCRIPT), *files], capture_output=True, text=True)


def test_the_tables_say_how_each_question_ended(tmp_path: Path, on_gpus: ModuleType) -> None:
    """The test for GPUs over cells that end as they are told, in two parts, and an older file that they overrule."""
    (tmp_path / "cells_as_told.py").write_text(PLUGIN)
    path = os.pathsep.join((str(tmp_path), str(TESTS / "gpu"), str(TESTS)))
    wanted = " or ".join(f"reason[{name}-" for name in NAMES)
    files = [junit(tmp_path / "older.xml", '<failure message="gone" />')]
    for part in (1, 2):
        files.append(str(tmp_path / f"{part}.xml"))
        command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "-p", "cells_as_told", f"--junitxml={files[-1]}"]
        environment = {**os.environ, "PYTHONPATH": path, "ATTNSWEEP_CAPABILITIES": f"all,{part}/2"}
        selected = [*command, "-k", wanted, str(TESTS / "gpu" / "test_capabilities.py")]
        ended = subprocess.run(selected, env=environment, cwd=TESTS.parent, capture_output=True, text=True)
        assert ended.returncode in (0, 1), ended.stdout + ended.stderr  # a part may hold no question that failed
    asked = [one.id.partition("-")[::2] for one in on_gpus.parameters("all")]
    claims: dict[str, object] = {}
    for name in NAMES:
        pairs = [" + " in question for impl, question in asked if impl == name]
        claims |= {name: (pairs.count(False), pairs.count(True), len(pairs)), f"{name}_right": pairs.count(True) - 1}
    assert tables(*files).stdout == TABLES.format(**claims)


def test_what_nobody_asked_is_counted(tmp_path: Path) -> None:
    """One question of naive's was, of all that its YAML claims."""
    told = '<properties><property name="status" value="ok" /><property name="reason" value="" /></properties>'
    claims = sum(map(len, capabilities.claimed(capabilities.implementations()["naive"], capabilities.H200)))
    made = tables(junit(tmp_path / "one.xml", told)).stdout
    assert f"| `naive` | 1 of 1 |  |  |  | {claims - 1} |" in made


def test_a_file_that_does_not_say_how_a_test_ended_is_refused(tmp_path: Path) -> None:
    """What only passed may have been correct or unsupported."""
    made = tables(junit(tmp_path / "older.xml", ""))
    assert (made.returncode, made.stdout) == (1, "")
    assert "does not say how it ended" in made.stderr


def test_a_file_of_other_tests_is_refused(tmp_path: Path) -> None:
    """So that no empty table passes for a result."""
    (tmp_path / "other.xml").write_text(
        '<testsuites><testcase classname="tests.gpu.test_cells" name="a[b-c]" /></testsuites>'
    )
    made = tables(str(tmp_path / "other.xml"))
    assert (made.returncode, made.stdout) == (1, "")
    assert "no question of tests/gpu/test_capabilities.py" in made.stderr


def test_what_h200s_were_asked_is_told_as_it_was_recorded() -> None:
    """docs/results/capabilities quotes what the script makes of the file beside it."""
    told = RESULTS / "README.md"
    made = tables(str(RESULTS / "h200.xml"))
    assert made.returncode == 0, made.stderr
    assert made.stdout in told.read_text()
