"""Pasted into a shell, a line measures the same cell again, or goes on with the same sweep."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from attnsweep import commands, overrides
from plans import only
from sweeps import combination, impl, one_case, settings

#: Runs in a process of its own, because Hydra's state belongs to the process: what the command line would plan.
_PLANNED = """
import json, sys
from attnsweep import cli, devices, planning, sweep

def run(settings, combinations, *, shared=False):
    planned = planning.make(settings, combinations, devices.find(settings.device, settings.gpus))
    cells = [[cell.id, cell.columns["command"], len(planned.open)] for cell in planned.cells]
    print(json.dumps(cells))
    return 0

sweep.run = run
sys.exit(cli.main())
"""


def planned_by(command: list[str], folder: Path) -> list[list[Any]]:
    """For each cell that this command line would plan in `folder`: id, command, how many are open."""
    done = subprocess.run(
        [sys.executable, "-c", _PLANNED, *command[1:]], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    cells: list[list[Any]] = json.loads(done.stdout)
    return cells


@pytest.mark.parametrize(
    "line",
    [
        "attnsweep impl=naive,sdpa_math scenario=decode compile=eager,default timing=quick device=cpu name=x",
        "attnsweep impl=naive 'scenario.window=[[3,0],[-1,-1],null]' timing=quick scale=tiny device=cpu name=x",
        "attnsweep impl=sdpa_math impl.layout=bshd timing.time_cap_s=2.5 seed=5 check.enabled=false device=cpu",
        "attnsweep study=quickstart device=cpu scenario.seq_len=32,64",
        "attnsweep study=quickstart device=cpu scale=tiny scenario.seq_len=48,80",
        "attnsweep impl=mine scenario=flux timing=quick device=cpu output_dir=there --config-dir my/conf",
    ],
)
def test_the_command_of_a_cell_plans_exactly_that_cell(tmp_path: Path, line: str) -> None:
    """Pasted into a shell, composed by Hydra again, it gives one cell: the same id, and open."""
    (tmp_path / "my" / "conf" / "impl").mkdir(parents=True)
    mine = json.dumps({**impl("mine"), "layout": "bshd"})
    (tmp_path / "my" / "conf" / "impl" / "mine.yaml").write_text(mine)
    whole = planned_by(shlex.split(line), tmp_path)
    first = [cell for cell in whole if cell[0].split("-")[-2] == "0"]
    cell_id, command, _ = first[-1]
    assert "tiny" not in command
    assert len(whole) > len(first) or len(first) > 1
    ((again, _, opened),) = planned_by(shlex.split(command), tmp_path)
    assert again == cell_id
    assert opened == 1


@pytest.mark.parametrize(
    "value",
    [
        *("a", "a b", "it's", "x\\", "x\\'y", "", "null", "True", "1e5", "12", "a,b", "[1]", "2024-01-01", "a=b", "é"),
        *(None, True, 0, -3, 1.5, 1e-9, [1, None], [[-1, 0], None], ["a b", "1"], {"a": 1, "b": "x y"}),
    ],
)
def test_a_value_in_a_command_is_read_back_by_hydra_as_it_was(value: Any) -> None:
    """Text that looks like a number, a list or a quote stays text."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from omegaconf import OmegaConf

    line = f"key={overrides.literal(value)}"
    read = OverridesParser.create().parse_override(line).value()
    got = OmegaConf.to_container(OmegaConf.create({"key": read}))
    assert got == {"key": value}
    assert type(got["key"]) is type(value)


def test_the_command_of_a_later_replicate_measures_it_alone(tmp_path: Path) -> None:
    """`replicate` picks one process of those that `timing.replicates` asks for."""
    line = "attnsweep impl=naive scenario.seq_len=32 scenario.batch_size=1 device=cpu name=x"
    whole = {cell[0].split("-")[-2]: cell for cell in planned_by(shlex.split(line), tmp_path)}
    again = planned_by(shlex.split(whole["1"][1]), tmp_path)
    assert [cell[0] for cell in again] == [whole["1"][0]]


def test_a_command_quotes_an_option_that_reads_as_a_number() -> None:
    """impl/3.yaml is impl='3' on the way back as well."""
    line = commands.shell_line({"impl": "3", "scenario": "prefill", "study": None}, {}, (), {})
    assert shlex.split(line) == ["attnsweep", "impl='3'", "scenario=prefill"]


def test_the_command_keeps_the_deadline_and_where_yaml_was_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Deadlines where they were set; the variable's folders, absolute and quoted, before the command."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ATTNSWEEP_CONFIG_PATH", raising=False)
    one = combination(scenario=one_case())
    plain = only(tmp_path, one).columns["command"]
    assert plain.startswith("attnsweep impl=")
    assert "timeout_s" not in plain
    monkeypatch.setenv("ATTNSWEEP_CONFIG_PATH", f"my conf::{tmp_path}/b")
    pool = replace(settings(tmp_path).pool, timeout_s=7.5, compile_s=900.0)
    timed = only(tmp_path, one, pool=pool).columns["command"]
    variable, *words = shlex.split(timed)
    assert variable == f"ATTNSWEEP_CONFIG_PATH={tmp_path}/my conf:{tmp_path}/b"
    assert words[0] == "attnsweep"
    assert "pool.timeout_s=7.5" in words
    assert "pool.compile_s=900.0" in words
    assert not any("prepare_s" in word or "grace_s" in word for word in words)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("impl=a name=s", "impl=a name=s"),
        ("impl=a -m", "impl=a name=s -m"),
        ("-m impl=a", "-m impl=a name=s"),
        ("impl=a,b study=x --config-dir my=conf", "impl=a,b study=x name=s --config-dir my=conf"),
        ("--config-dir=x impl=a", "--config-dir=x impl=a name=s"),
        ("'impl.x=a b'", "'impl.x=a b' name=s"),
        ("-m", "name=s -m"),
    ],
)
def test_the_command_that_goes_on_is_the_one_given_with_the_name(given: str, said: str) -> None:
    """The name stands with the other overrides, and only where it was not given."""
    assert commands.go_on(["attnsweep", *shlex.split(given)], "s") == f"attnsweep {said}"


def test_what_a_study_sets_is_switched_off_where_a_sweep_goes_on() -> None:
    """And a launcher's job, which sets aside its own records only, keeps what was typed."""
    argv = ["attnsweep", "study=x", "force=true", "-m"]
    assert commands.go_on(argv, "s", {"force": True, "rerun": True}) == "attnsweep study=x name=s 'rerun=[]' -m"
    assert commands.go_on(["attnsweep", "study=x"], "s", {"force": True, "rerun": False}) == (
        "attnsweep study=x name=s force=false"
    )
    assert commands.go_on(argv, "s") == "attnsweep study=x force=true name=s -m"
