"""The baseline of a table, and how each label did over it."""

from __future__ import annotations

import math

import pytest
from report_records import prefill
from test_report_derive import LARGE, SMALL, failed, int8, only, row, standing

from attnsweep.errors import ConfigError
from attnsweep.report.derive import derive
from attnsweep.report.notes import Footnotes
from attnsweep.report.standings import geometric_mean
from attnsweep.report.summary import standings_table
from attnsweep.report.verdict import verdict


def test_naive_is_the_baseline_where_it_is_ok_in_every_case() -> None:
    """Although something is slower."""
    rows = [row(impl, ms, at) for at in (SMALL, LARGE) for impl, ms in (("fa2", 1.0), ("naive", 4.0), ("math", 9.0))]
    section = only(rows)
    assert (section.baseline, section.baseline_why) == ("naive", "Baseline: naive.")
    assert standing(section, "fa2").speedup == pytest.approx(4.0)


def test_else_the_slowest_that_is_ok_in_every_case() -> None:
    """naive ran out of memory once; math, slower, failed too; of the rest xformers is the slowest."""
    rows = [row("naive", 5.0), failed("naive", point=LARGE), row("math", 9.0), failed("math", point=LARGE)]
    rows += [row(impl, ms, at) for at in (SMALL, LARGE) for impl, ms in (("fa2", 1.0), ("xformers", 2.0))]
    section = only(rows)
    assert section.baseline == "xformers"
    assert section.baseline_why == "Baseline: xformers, the slowest that is ok in every case."


def test_the_slowest_quantised_one_is_no_baseline() -> None:
    """Even where it alone is ok in every case."""
    rows = [row("fa2", 1.0), failed("fa2", point=LARGE), row("flex", 1.0, LARGE)]
    section = only([*rows, int8("sage", 0.5), int8("sage", 0.5, LARGE)])
    assert section.baseline is None
    assert only([*rows, int8("sage", 0.5), int8("sage", 0.5, LARGE)], baseline="sage").baseline == "sage"


def test_without_a_common_baseline_there_are_no_speed_ups() -> None:
    """Nothing is ok in both cases: that is said, and no ratio is made up."""
    section = only([row("fa2", 1.0), row("naive", 2.0, LARGE)])
    assert section.baseline is None
    assert "no implementation is ok in every case" in section.baseline_why
    assert standing(section, "fa2").speedup is None


def test_a_case_that_nothing_can_do_does_not_take_the_baseline_away() -> None:
    """Where everything fails there is nothing to divide by; the other cases keep their speed-ups."""
    section = only([row("fa2", 1.0), row("naive", 2.0), failed("fa2", point=LARGE), failed("naive", point=LARGE)])
    assert section.baseline == "naive"
    assert "1 case has no result at all" in verdict(section)


def test_the_chosen_baseline_may_be_a_label_or_an_implementation() -> None:
    """An implementation means its plain form where there is one."""
    rows = [row("fa2", 1.0), row("fa2", 0.9, compile="default"), row("fa2", 0.8, variant="x=1"), row("naive", 2.0)]
    assert only(rows, baseline="fa2").baseline == "fa2"
    assert only(rows, baseline="fa2 (default)").baseline == "fa2 (default)"
    assert only(rows[1:], baseline="fa2").baseline == "fa2 (default)"
    rows.append(row("flex", 3.0, variant="kernel_options.BLOCK_M=64"))
    for name in ("flex[kernel_options.BLOCK_M=64]", "flex[BLOCK_M=64]", "flex"):
        assert only(rows, baseline=name).baseline == "flex[BLOCK_M=64]"


def test_a_wrong_baseline_is_refused_with_the_choices() -> None:
    """One sentence that names every label."""
    with pytest.raises(ConfigError, match="no label is called 'fa9', choose one of fa2, naive"):
        derive([row("fa2", 1.0), row("naive", 2.0)], baseline="fa9")


def test_a_chosen_baseline_that_failed_in_some_cases_says_so() -> None:
    """Speed-ups exist where it has a time, and the mean says over how many cases it goes."""
    section = only(
        [row("fa2", 1.0), row("fa2", 1.0, LARGE), row("naive", 2.0), failed("naive", point=LARGE)], baseline="naive"
    )
    assert "ranked in 1 of 2 cases" in section.baseline_why
    assert (standing(section, "fa2").speedup, standing(section, "fa2").speedup_cases) == (2.0, 1)


def test_means_are_geometric() -> None:
    """Speed-ups of 2 and 8 are 4 in the mean."""
    rows = [row("fa2", 1.0), row("naive", 2.0), row("fa2", 1.0, LARGE), row("naive", 8.0, LARGE)]
    section = only(rows)
    assert standing(section, "fa2").speedup == pytest.approx(4.0)
    assert standing(section, "naive").slowdown == pytest.approx(4.0)
    assert geometric_mean([]) == math.inf


def test_a_case_without_a_rival_is_in_no_mean_against_the_fastest() -> None:
    """alone's 1.00 there would make it look better than it is where it has a rival; solo has none anywhere."""
    rows = [row("fa2", 1.0), row("alone", 3.0), row("alone", 1.0, LARGE), row("solo", 2.0, prefill(1, 8192))]
    section = only(rows)
    assert standing(section, "alone").slowdown == pytest.approx(3.0)
    assert (standing(section, "alone").cases, standing(section, "alone").slowdown_cases) == (2, 1)
    assert (standing(section, "solo").slowdown, standing(section, "solo").slowdown_cases) == (None, 0)
    table = standings_table(section, Footnotes(derive(rows)))
    assert "Times against the fastest leave out those of a fastest that is unopposed." in table.notes
    assert [line[-1].text for line in table.rows if line[0].text == "solo"] == ["-"]


def test_beside_quantised_results_alone_it_has_no_rival_either() -> None:
    """Its own 1.00 there is no comparison; the quantised one's ratio is."""
    rows = [row("fa2", 2.0), row("naive", 1.0), row("fa2", 1.0, LARGE), int8("sage", 0.5, LARGE)]
    section = only(rows)
    assert (standing(section, "fa2").slowdown, standing(section, "fa2").slowdown_cases) == (pytest.approx(2.0), 1)
    assert standing(section, "sage").slowdown == pytest.approx(0.5)


def test_the_incomplete_are_placed_after_the_complete() -> None:
    """A mean over an easy half does not beat a mean over everything."""
    section = only([row("fa2", 1.0), row("fa2", 1.0, LARGE), row("flex", 0.5), failed("flex", point=LARGE)])
    assert [one.label.text for one in section.standings] == ["fa2", "flex"]
    assert (standing(section, "flex").complete, standing(section, "flex").cases) == (False, 1)


@pytest.mark.parametrize("impl", ["good", "naive"])
def test_one_implementation_is_no_baseline_of_itself(impl: str) -> None:
    """It is not the slowest of anything, and 1.00x itself says nothing; asked for it is."""
    section = only([row(impl, 1.0), row(impl, 1.0, LARGE), failed("other")])
    assert (section.baseline, section.baseline_why) == (None, f"No speed-ups: {impl} alone is ranked.")
    assert only([row(impl, 1.0)], baseline=impl).baseline == impl
