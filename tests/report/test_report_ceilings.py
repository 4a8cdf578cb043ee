"""Ceilings stand in the tables beside attention, and nothing is said of them that a rank would say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from report_records import decode, prefill, values

from attnsweep.errors import ConfigError, Status
from attnsweep.report import plots
from attnsweep.report.ceilings import bound_ms
from attnsweep.report.derive import derive
from attnsweep.report.notes import Footnotes
from attnsweep.report.sections import Derived
from attnsweep.report.summary import best_table, latency_table, standings_table
from attnsweep.report.tables import Table, to_markdown
from attnsweep.report.verdict import verdict

POINTS = (prefill(1, 2048), prefill(1, 4096))


def ceiling(name: str, point: Any, latency_ms: float, **columns: Any) -> dict[str, Any]:
    """A record of a ceiling that is faster than any attention."""
    return values(point, name, latency_ms=latency_ms, flags=["ceiling"], check="skipped: a ceiling", **columns)


def rows() -> list[dict[str, Any]]:
    """Two implementations and both ceilings, the faster of which takes a tenth of what the best attention does."""
    found = []
    for point in POINTS:
        found += [values(point, "naive", latency_ms=10.0), values(point, "fa2", latency_ms=1.0)]
        found += [ceiling("ceiling_matmul", point, 0.5), ceiling("ceiling_copy", point, 0.1)]
    return found


def latency(derived: Derived) -> Table:
    return latency_table(derived.sections[0], Footnotes(derived))


def test_a_ceiling_is_in_the_table_and_a_sentence_says_what_it_is() -> None:
    """After everything that is ranked, not bold, with its mark; it is not among what failed to be ranked."""
    table = latency(derive(rows()))
    assert [column.title for column in table.columns][-4:] == ["naive", "fa2", "ceiling_copy", "ceiling_matmul"]
    for row in table.rows:
        copy, matmul = row[-2:]
        assert (float(copy.text), float(matmul.text)) == (0.1, 0.5)
        assert not any(cell.best or cell.bold for cell in (copy, matmul))
        assert (copy.note, matmul.note) == ("10.0%", "50.0%")
        assert copy.marks
    said = " ".join(table.notes)
    assert "ceiling_matmul (the case's FLOPs as one matrix product)" in said
    assert "Ranked in no case" not in said
    assert "bounds nothing" not in said


def test_a_ceiling_that_is_beaten_is_said_to_bound_nothing() -> None:
    """On a small case a matrix product can take longer than the best attention."""
    table = latency(derive([values(POINTS[0], "fa2", latency_ms=1.0), ceiling("ceiling_matmul", POINTS[0], 1.5)]))
    assert table.rows[0][-1].note == "150%"
    assert "One above 100% is slower than the fastest and bounds nothing in that case." in " ".join(table.notes)


def test_the_slowest_ceiling_is_the_one_that_binds() -> None:
    """It alone is drawn; without ceilings there is none."""
    (section,) = derive(rows()).sections
    assert [bound_ms(case) for case in section.cases] == [0.5, 0.5]
    (bare,) = derive([row for row in rows() if "ceiling" not in row["flags"]]).sections
    assert [bound_ms(case) for case in bare.cases] == [None, None]


@pytest.mark.parametrize(("ceiling_ms", "drawn"), [(0.5, True), (0.2, False)])
def test_the_measured_ceiling_is_a_line_where_it_is_near(tmp_path: Path, ceiling_ms: float, drawn: bool) -> None:
    """In the plots of latency and of throughput, named in the legend; a far one would only flatten the others."""
    point = POINTS[0]
    found = [values(point, "fa2", latency_ms=1.0, sustained_ms=None), ceiling("ceiling_matmul", point, ceiling_ms)]
    lines = [one for one in plots.draw_all(derive(found), tmp_path, lambda row: {}) if one.kind != "winners"]
    assert [one.kind for one in lines] == ["latency", "throughput"]
    assert ["measured ceiling" in (tmp_path / f"{one.stem}.svg").read_text() for one in lines] == [drawn, drawn]


def test_a_table_without_ceilings_says_nothing_of_them() -> None:
    """Nor has it columns for them."""
    table = latency(derive([row for row in rows() if "ceiling" not in row["flags"]]))
    assert "eiling" not in to_markdown(table)


def test_a_ceiling_is_never_the_fastest_nor_the_baseline_nor_in_the_verdict() -> None:
    """However fast it is, and although it is ok in every case."""
    derived = derive(rows())
    (section,) = derived.sections
    assert [case.fastest for case in section.cases] == [("fa2",), ("fa2",)]
    assert [one.label.text for one in section.standings] == ["fa2", "naive"]
    assert section.baseline == "naive"
    for text in (
        verdict(section),
        to_markdown(best_table(section, Footnotes(derived))),
        to_markdown(standings_table(section, Footnotes(derived))),
    ):
        assert "fa2" in text
        assert "ceiling" not in text


def test_without_naive_the_baseline_is_the_slowest_that_is_attention() -> None:
    """A ceiling that is slower than all of it is not that."""
    found = [values(point, impl, latency_ms=ms) for point in POINTS for impl, ms in (("fa2", 1.0), ("flex", 2.0))]
    (section,) = derive(found + [ceiling("ceiling_copy", point, 50.0) for point in POINTS]).sections
    assert section.baseline == "flex"


def test_a_ceiling_that_is_asked_for_as_the_baseline_gives_no_speed_ups() -> None:
    """It is a label, so it is no mistake; a name that nothing has is."""
    (section,) = derive(rows(), baseline="ceiling_copy").sections
    assert section.baseline is None
    assert "ranked in no case" in section.baseline_why
    with pytest.raises(ConfigError):
        derive(rows(), baseline="ceiling_none")


def test_ceilings_alone_are_a_table_in_which_nothing_is_ranked() -> None:
    """Shown all the same."""
    derived = derive([ceiling("ceiling_copy", decode(1, 4096), 0.02)])
    assert verdict(derived.sections[0]).startswith("Nothing is ranked in 1 case")
    assert latency(derived).columns[-1].title == "ceiling_copy"


def test_a_failure_that_names_its_cases_timer_does_not_part_the_table() -> None:
    """It never ran, and says graph; the others could not be captured, and were timed by events."""
    found = [values(POINTS[0], impl, timer="events") for impl in ("fa2", "flex")]
    found.append(values(POINTS[0], "xformers", status=Status.OOM, timer="graph"))
    (section,) = derive(found).sections
    assert section.cases[0].timer == "events"
    assert set(section.cases[0].measured) == {"fa2", "flex", "xformers"}
