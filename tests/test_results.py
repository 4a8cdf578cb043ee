"""The table of results: medians, the best that may be, and what failed, in the width there is."""

from __future__ import annotations

import io
import re
from collections import Counter
from pathlib import Path

import pytest
from rich.console import Console

from attnsweep import planning, results
from attnsweep.errors import Status
from attnsweep.plan import Outcome
from sweeps import CPU, GPU, QUICK, combination, one_case, settings


def table(tmp_path: Path, outcomes: dict[str, list[Outcome]], width: int = 200) -> str:
    """The table of results of a case, given each implementation's outcomes by replicate."""
    timing = {**QUICK, "replicates": max(map(len, outcomes.values()))}
    several = [combination(name, timing=timing, scenario=one_case()) for name in outcomes]
    planned = planning.make(settings(tmp_path), several, [CPU])
    found = {
        cell.id: outcomes[cell.columns["impl"]][cell.columns["replicate"]]
        for cell in planned.cells
        if cell.columns["replicate"] < len(outcomes[cell.columns["impl"]])
    }
    out = io.StringIO()
    results.show(Console(file=out, width=width), planned.cells, found)
    return out.getvalue()


def test_the_table_shows_the_median_of_replicates_and_marks_what_failed(tmp_path: Path) -> None:
    """Three processes: the middle one; one that crashed is counted beside it."""
    good = [Outcome(Status.OK, ms, None, ()) for ms in (0.3, 0.1, 0.2)]
    partly = [Outcome(Status.OK, 0.5, None, ()), Outcome(Status.CRASHED, None, "x", ())]
    shown = table(tmp_path, {"a": good, "b": partly})
    assert "0.2*" in shown
    assert "0.5 (1 of 2 crashed)" in shown


@pytest.mark.parametrize("flag", ["implausible", "unchecked", "loose_check", "ceiling"])
def test_the_best_is_not_one_that_cannot_be(tmp_path: Path, flag: str) -> None:
    """An implausible speed, and one that is no attention's, is shown as such and never marked."""
    shown = table(
        tmp_path,
        {"a": [Outcome(Status.OK, 0.001, None, (flag,))], "b": [Outcome(Status.OK, 0.5, None, ())]},
    )
    assert f"0.001 {flag}" in shown
    assert "0.5*" in shown


def test_a_quantised_result_is_marked_and_not_the_best_beside_a_native_one(tmp_path: Path) -> None:
    """Its speed has a price; alone it is the best there is."""
    quantised = [Outcome(Status.OK, 0.1, None, (), "int8")]
    shown = table(tmp_path, {"a": quantised, "b": [Outcome(Status.OK, 0.5, None, (), "native")]})
    assert "0.1 int8" in shown
    assert "0.5*" in shown
    assert "0.1* int8" in table(tmp_path, {"a": quantised})


@pytest.mark.parametrize(
    ("other", "said"), [({"cache": "hot"}, ("cold", "hot")), ({"name": "standard"}, ("quick", "standard"))]
)
def test_what_was_measured_in_two_ways_is_two_rows(
    tmp_path: Path, other: dict[str, str], said: tuple[str, str]
) -> None:
    """Of a case with a cold and a hot cache, or by two presets, no median goes over both."""
    both = [combination(timing=timing, scenario=one_case()) for timing in (QUICK, {**QUICK, **other})]
    cells = planning.make(settings(tmp_path), both, [GPU]).cells
    found = {cell.id: Outcome(Status.OK, float(number + 1), None, ()) for number, cell in enumerate(cells)}
    out = io.StringIO()
    results.show(Console(file=out, width=200), cells, found)
    rows = {line.split()[1]: line.split()[2] for line in out.getvalue().splitlines()[1:3]}
    ways = [cell.columns["cache" if "cache" in other else "timing"] for cell in cells]
    assert rows == dict(zip(ways, ("1*", "2*"), strict=True))
    assert set(ways) == set(said)


def test_sixteen_implementations_fit_eighty_columns(tmp_path: Path) -> None:
    """Too many for columns: a row a case, the best first, failures last, no line wider than the terminal."""
    outcomes = {f"impl{number:02}": [Outcome(Status.OK, 16.0 - number, None, ())] for number in range(15)}
    shown = table(tmp_path, {**outcomes, "broken": [Outcome(Status.ERROR, None, "x", ())]}, width=80)
    assert max(map(len, shown.splitlines())) <= 80
    words = re.findall(r"(impl\d\d|broken) eager (\S+?),?(?:\s|$)", " ".join(shown.split()))
    assert words[0] == ("impl14", "2*")
    assert words[-1] == ("broken", "error")
    assert len(words) == 16


def test_a_paragraph_of_what_is_not_there_is_a_count(tmp_path: Path) -> None:
    """Three that are missing or unsupported are named, more are counted at the end; failures are always named."""
    outcomes = {f"impl{number:02}": [Outcome(Status.OK, 16.0 - number, None, ())] for number in range(9)}
    ends = {"gone": (Status.MISSING, 4), "cannot": (Status.UNSUPPORTED, 3), "broken": (Status.COMPILE_ERROR, 5)}
    for name, (status, number) in ends.items():
        outcomes |= {f"{name}{one}": [Outcome(status, None, "x", ())] for one in range(number)}
    said = " ".join(table(tmp_path, outcomes, width=80).split())
    named = Counter(re.findall(r"(gone|cannot|broken)\d eager (\w+)", said))
    assert named == {("cannot", "unsupported"): 3, ("broken", "compile_error"): 5}
    assert re.search(r"eager \w+, 4 missing (?!.* eager )", said)


def test_the_star_is_explained_where_there_is_one(tmp_path: Path) -> None:
    """The lowest median is no win: the report has the rule for that."""
    shown = table(tmp_path, {"a": [Outcome(Status.OK, 33.23, None, ())], "b": [Outcome(Status.OK, 33.4, None, ())]})
    assert shown.splitlines()[-1].startswith("* lowest median of its case; attnsweep-report says")
    assert "* lowest" not in table(tmp_path / "none", {"a": [Outcome(Status.OK, 1.0, None, ("unchecked",))]})
