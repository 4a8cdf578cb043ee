"""Ranking: ties, timers, tables, and what is never compared."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest
from report_records import prefill, values

from attnsweep.errors import Status
from attnsweep.report.build import content_of
from attnsweep.report.ceilings import of_fastest
from attnsweep.report.derive import derive
from attnsweep.report.load import Loaded
from attnsweep.report.notes import Footnotes
from attnsweep.report.sections import Derived, Section
from attnsweep.report.summary import best_table, latency_table, standings_table
from attnsweep.report.verdict import placed, verdict
from attnsweep.report.words import boards, floor, split

SMALL, LARGE = prefill(1, 2048), prefill(1, 4096)


def row(impl: str, latency_ms: float, point: Any = SMALL, **columns: Any) -> dict[str, Any]:
    return values(point, impl, latency_ms=latency_ms, **{"timer": "events", "width": 0.01, **columns})


def failed(impl: str, status: Status = Status.OOM, point: Any = SMALL, **columns: Any) -> dict[str, Any]:
    return values(point, impl, status=status, **columns)


def only(rows: list[dict[str, Any]], **options: Any) -> Section:
    sections = derive(rows, **options).sections
    assert len(sections) == 1
    return sections[0]


def standing(section: Section, text: str) -> Any:
    return next(one for one in section.standings if one.label.text == text)


@pytest.mark.parametrize(
    "columns",
    [
        {"device_name": "NVIDIA H100"},
        {"power_limit_w": 500.0, "hostname": "node-2"},
        {"sm_count": 114, "hostname": "node-2"},
        {"scenario": "flux"},
        {"direction": "bwd"},
        {"dtype": "fp16"},
        {"cache": "hot"},
        {"axis": "batch_size"},
    ],
)
def test_nothing_is_compared_across_what_a_table_holds_constant(columns: dict[str, Any]) -> None:
    """A different device, scenario, direction, dtype, cache or axis is a table of its own."""
    sections = derive([row("fa2", 1.0), row("naive", 2.0, **columns)]).sections
    assert [sorted(section.labels) for section in sections] in ([["fa2"], ["naive"]], [["naive"], ["fa2"]])


def test_a_failure_stands_in_the_table_of_what_was_measured() -> None:
    """On a CPU the cache is hot, and a cell that failed before timing still says the planned one."""
    section = only([row("fa2", 1.0, cache="hot"), failed("flex", cache="cold"), failed("jax") | {"cache": None}])
    assert sorted(section.labels) == ["fa2", "flex", "jax"]
    both = derive([row("fa2", 1.0, cache="hot"), row("fa2", 1.0, cache="cold"), failed("flex", cache="cold")])
    assert [sorted(one.labels) for one in both.sections] == [["fa2", "flex"], ["fa2"]]


def test_the_lowest_latency_wins_where_no_interval_reaches_it() -> None:
    """3 % apart with intervals of 0.5 % is a win."""
    section = only([row("fa2", 1.0, width=0.005), row("flex", 1.03, width=0.005)])
    assert section.cases[0].fastest == ("fa2",)
    assert standing(section, "fa2").wins == 1


def test_overlapping_intervals_are_a_tie_and_not_a_win() -> None:
    """The verdict does not name a winner that the data do not show."""
    section = only([row("fa2", 1.0), row("flex", 1.005), row("naive", 9.0)])
    assert section.cases[0].fastest == ("fa2", "flex")
    assert (standing(section, "fa2").wins, standing(section, "fa2").ties) == (0, 1)
    assert standing(section, "naive").ties == 0
    assert verdict(section) == (
        "1 of 1 case is a tie between fa2 and flex, 9.00x the speed of naive (geometric mean). Next is naive."
    )


def several(impl: str, latency_ms: float, processes: int, **columns: Any) -> list[dict[str, Any]]:
    return [row(impl, latency_ms, replicate=number, **{"width": 0.001, **columns}) for number in range(processes)]


@pytest.mark.parametrize(
    ("first", "second", "slower", "won"),
    [(1, 1, 1.015, False), (2, 5, 1.015, False), (5, 2, 1.015, False), (3, 3, 1.015, True), (1, 1, 1.03, True)],
)
def test_few_processes_win_only_beyond_the_floor(first: int, second: int, slower: float, won: bool) -> None:
    """1.5 % with narrow intervals is a win from three processes on either side, 3 % always."""
    section = only([*several("fa2", 1.0, first), *several("flex", slower, second)])
    assert section.cases[0].fastest == (("fa2",) if won else ("fa2", "flex"))
    assert (standing(section, "fa2").wins, standing(section, "flex").ties) == ((1, 0) if won else (0, 1))


@pytest.mark.parametrize(("slower", "won"), [(1.019, False), (1.021, True)])
def test_an_unknown_interval_overlaps_everything_within_the_floor(slower: float, won: bool) -> None:
    """Fewer than six blocks gave no interval; three processes do not change that."""
    unknown: dict[str, Any] = {"latency_ci_low_ms": None, "latency_ci_high_ms": None}
    section = only([*several("fa2", 1.0, 3, **unknown), *several("flex", slower, 3, **unknown)])
    assert section.cases[0].fastest == (("fa2",) if won else ("fa2", "flex"))


@pytest.mark.parametrize(
    ("processes", "further_us", "kernels", "won"),
    [
        (1, 0.7, (2, 2), False),
        (5, 0.7, (2, 2), False),
        (7, 0.7, (2, 2), False),
        (5, 1.0, (2, 2), True),
        (1, 1.0, (2, 2), True),
        (5, 1.0, (1, 3), False),
        (5, 1.0, (3, 1), False),
        (5, 1.3, (3, 1), False),
        (5, 1.4, (3, 1), True),
        (5, 0.4, (1, 1), False),
        (5, 0.5, (1, 1), True),
        (1, 0.7, (1, 1), True),
        (5, 0.7, (None, 1), False),
        (5, 1.0, (None, None), True),
    ],
)
def test_within_the_levels_of_a_graph_nothing_wins(
    processes: int, further_us: float, kernels: tuple[int | None, int | None], won: bool
) -> None:
    """0.45 us for each kernel of the call that has more; those that were not seen may be two."""
    times_ms = {"fa2": 14e-3, "flex": (14 + further_us) * 1e-3}
    rows = [
        several(impl, ms, processes, timer="graph", kernel_count=number)
        for (impl, ms), number in zip(times_ms.items(), kernels, strict=True)
    ]
    section = only([*rows[0], *rows[1]])
    assert section.cases[0].fastest == (("fa2",) if won else ("fa2", "flex"))
    assert (standing(section, "fa2").wins, standing(section, "flex").ties) == ((1, 0) if won else (0, 1))


def test_few_processes_by_a_graph_keep_the_floor_too() -> None:
    """1.5 % of 0.1 ms is above what the levels of two kernels allow, and below what one process does."""
    rows = [row(impl, ms, timer="graph", kernel_count=2, width=0.001) for impl, ms in (("fa2", 0.1), ("flex", 0.1015))]
    assert only(rows).cases[0].fastest == ("fa2", "flex")


@pytest.mark.parametrize(
    ("others", "kernels", "further_us", "won"),
    [
        (("events", "events"), 2, 0.7, True),
        (("graph", "kernel"), 2, 4.4, False),
        (("graph", "kernel"), 2, 4.6, True),
        (("graph", "kernel"), 1, 0.7, True),
        (("kernel", "kernel"), 2, 4.8, False),
    ],
)
def test_other_timers_have_no_levels(others: tuple[str, str], kernels: int, further_us: float, won: bool) -> None:
    """Of several kernels by events 5 % is a win; the kernels' own time, where it ranks them, says nothing of 1.75 us
    for each of the faster and 0.75 us for each of the slower.
    """
    times = zip(("fa2", "flex"), (14e-3, (14 + further_us) * 1e-3), others, strict=True)
    rows = [one for impl, ms, timer in times for one in several(impl, ms, 5, timer=timer, kernel_count=kernels)]
    kernels_only = {"events_ms": None, "graph_ms": None}
    section = only([one | (kernels_only if one["timer"] == "kernel" else {}) for one in rows])
    assert section.cases[0].fastest == (("fa2",) if won else ("fa2", "flex"))


HOST: dict[str, Any] = {"timer": "host", "events_ms": None, "kernel_ms": None, "graph_ms": None}


@pytest.mark.parametrize(
    ("processes", "slower", "flags", "won"),
    [
        (1, 1.48, [], False),
        (1, 1.52, [], True),
        (2, 9.0, ["contended"], False),
        (3, 1.03, [], True),
        (3, 1.03, ["contended"], True),
    ],
)
def test_on_a_cpu_few_processes_win_only_beyond_a_wider_floor(
    processes: int, slower: float, flags: list[str], won: bool
) -> None:
    """Single processes of one cell differ by up to a half there, and by any factor where something shares the CPU."""
    fast = several("fa2", 1.0, processes, **HOST)
    section = only([*fast, *several("flex", slower, processes, flags=flags, **HOST)])
    assert section.cases[0].fastest == (("fa2",) if won else ("fa2", "flex"))


def test_a_contended_process_of_a_gpu_wins_as_any() -> None:
    """There the CPU takes no part in what is timed."""
    assert only([row("fa2", 1.0), row("flex", 1.1, flags=["contended"])]).cases[0].fastest == ("fa2",)


def test_of_a_tie_one_with_a_kernel_of_its_own_is_named() -> None:
    """The compiler's substitute is as fast and no implementation; also in the standings, where they look equal."""
    rows = [row("naive", 1.0, compile="default", flags=["substituted"]), row("cudnn", 1.001), row("naive", 9.0)]
    derived = derive(rows)
    (section,) = derived.sections
    assert section.cases[0].fastest == ("naive (default)", "cudnn")
    notes = Footnotes(derived)
    cells = [cell.text for cell in latency_table(section, notes).rows[0]]
    assert cells[1] == "tie: cudnn, naive (default)"
    assert [cell.text for cell in best_table(section, notes).rows[0]][1:4] == ["cudnn", "1 other", "1.001"]
    assert [one.label.text for one in section.standings] == ["cudnn", "naive (default)", "naive"]
    rows[1] = row("cudnn", 1.006)
    assert only(rows).standings[0].label.text == "naive (default)"


def test_tables_mark_whom_they_name() -> None:
    """The fastest, the next, the baseline behind the speed-up, and in the standings whatever bears on a speed."""
    rows = [row("fa2", 1.0, flags=["stepped"]), row("flex", 2.0, flags=["contended", "long_call"])]
    derived = derive([*rows, row("naive", 3.0, flags=["partial"])])
    (section,) = derived.sections
    notes = Footnotes(derived)
    letters = {told.partition(":")[0]: mark for mark, told in notes.legend()}
    assert {cell.text: cell.marks for cell in best_table(section, notes).rows[0] if cell.marks} == {
        "fa2": (letters["stepped"],),
        "3.00x": (letters["partial"],),
        "flex": (letters["contended"], letters["long_call"]),
    }
    assert latency_table(section, notes).rows[0][1].marks == (letters["stepped"],)
    assert {cells[0].text: cells[0].marks for cells in standings_table(section, notes).rows} == {
        "fa2": (letters["stepped"],),
        "flex": (letters["contended"],),
        "naive": (letters["partial"],),
    }


def test_a_table_of_several_boards_says_so() -> None:
    """Beside its means and its plots; a failure on another board, or one board, says nothing."""
    rows = [row("fa2", 1.0), row("fa2", 1.0, LARGE, gpu_uuid="GPU-2")]
    assert boards(only(rows)).startswith("The cases lie on 2 GPUs")
    derived = derive(rows)
    assert boards(only(rows)) in standings_table(derived.sections[0], Footnotes(derived)).notes
    content = content_of(derived, Loaded(pa.table({}), 1, 0, ()), ())
    assert boards(only(rows)) in content.blocks[0].about_plots
    assert boards(only([rows[0], failed("fa2", point=LARGE, gpu_uuid="GPU-2")])) == ""


def test_a_table_of_one_timer_says_what_it_leaves_out() -> None:
    """Its winner is one among the results of that timer only."""
    parted = derive(
        [row("fa2", 1.0, timer="graph", kernel_ms=None, events_ms=None), row("flex", 1.1, kernel_ms=None)]
    ).sections
    assert ["timed by events alone" in split(parted[0]), "timed by graph alone" in split(parted[1])] == [True, True]
    assert split(only([row("fa2", 1.0), row("flex", 1.1)])) == ""


@pytest.mark.parametrize("flag", ["unchecked", "loose_check"])
def test_the_unchecked_neither_wins_nor_counts(flag: str) -> None:
    """A time of an output that nobody compared, or not as strictly as others, is shown, marked and not ranked."""
    section = only([row("fa2", 0.5, flags=[flag]), row("flex", 1.0), row("naive", 2.0)])
    assert section.cases[0].fastest == ("flex",)
    assert section.cases[0].measured["fa2"].latency_ms == 0.5
    assert "fa2" not in [one.label.text for one in section.standings]


def int8(impl: str, latency_ms: float, point: Any = SMALL, **columns: Any) -> dict[str, Any]:
    return row(impl, latency_ms, point, **{"precision_class": "int8", **columns})


def test_a_native_result_never_loses_its_place_to_a_quantised_one() -> None:
    """Each wins in its own precision; baseline, order and verdict are about the native ones."""
    section = only([row("fa2", 1.0), row("naive", 4.0), int8("sage", 0.5), int8("slow", 9.0)])
    case = section.cases[0]
    assert (case.fastest, case.best_quantised) == (("fa2",), {"int8": ("sage",)})
    assert list(case.ranked) == ["sage", "fa2", "naive", "slow"]
    assert [one.label.text for one in section.standings] == ["fa2", "naive", "sage", "slow"]
    assert [(one.wins, one.unopposed) for one in section.standings] == [(1, 0), (0, 0), (1, 0), (0, 0)]
    assert section.baseline == "naive"
    assert standing(section, "sage").speedup == pytest.approx(8.0)
    assert standing(section, "sage").slowdown == pytest.approx(0.5)
    assert verdict(section) == (
        "fa2 is fastest in 1 of 1 case, 4.00x the speed of naive (geometric mean). "
        "Next is naive. "
        "Of the quantised sage (int8) has 2.00x the speed of the fastest that is not (geometric mean)."
    )
    assert placed(standing(section, "sage"), 1) == "1 win of 1 in int8"


def test_quantised_classes_do_not_compete_with_each_other() -> None:
    """int8 and fp8 have a winner each, and a tie is one within a class."""
    rows = [row("fa2", 1.0), int8("a", 0.5), int8("b", 0.501), row("c", 0.2, precision_class="fp8")]
    section = only(rows)
    assert section.cases[0].best_quantised == {"fp8": ("c",), "int8": ("a", "b")}
    assert [(standing(section, text).ties, standing(section, text).unopposed) for text in "abc"] == [
        (1, 0), (1, 0), (0, 1),
    ]  # fmt: skip
    assert verdict(section) == (
        "fa2 alone has a result in the case's own precision (1 of 1 case). "
        "Of the quantised c (fp8) has 5.00x the speed of the fastest that is not (geometric mean)."
    )


def test_where_only_a_quantised_one_has_a_result_it_is_the_fastest_and_that_is_said() -> None:
    """Out of memory natively: the case is not without a result, and no native one is compared with it."""
    rows = [row("fa2", 1.0), row("flex", 2.0), failed("fa2", point=LARGE), failed("flex", point=LARGE)]
    section = only([*rows, int8("sage", 0.5), int8("sage", 0.7, LARGE)])
    assert [case.fastest for case in section.cases] == [("fa2",), ("sage",)]
    assert verdict(section) == (
        "fa2 is fastest in 1 of 2 cases. "
        "Quantised, sage (int8) has 2.00x the speed of the fastest that is not (geometric mean over 1 of 2). "
        "1 case has a quantised result only."
    )


def test_a_table_of_quantised_results_alone_has_a_verdict_of_its_own() -> None:
    """They are ranked among themselves, and nobody takes it for more."""
    section = only([int8("sage", 1.0), int8("other", 3.0)])
    assert section.cases[0].fastest == ("sage",)
    assert section.baseline == "other"
    assert verdict(section) == (
        "sage is fastest in 1 of 1 case, 3.00x the speed of other (geometric mean). "
        "Next is other. Marks on sage: precision int8. "
        "All of it is quantised (int8): nothing is ranked in the case's own precision."
    )


def test_intervals_that_touch_are_a_tie() -> None:
    """The border belongs to both."""
    rows = [row("fa2", 1.0, latency_ci_high_ms=1.5), row("flex", 2.0, latency_ci_low_ms=1.5)]
    assert only(rows).cases[0].fastest == ("fa2", "flex")


def test_the_implausible_neither_wins_nor_counts() -> None:
    """A time that cannot be is no best time and no baseline."""
    section = only([row("fa2", 0.001, flags=["implausible"]), row("flex", 1.0), row("naive", 2.0)])
    assert section.cases[0].fastest == ("flex",)
    assert "fa2" not in [one.label.text for one in section.standings]


def test_a_case_is_ranked_on_its_primary_timer_where_all_have_it() -> None:
    """Different cases may have different timers; each names its own."""
    section = only(
        [
            row("fa2", 1.0),
            row("naive", 2.0),
            row("fa2", 1.0, LARGE, timer="graph"),
            row("naive", 2.0, LARGE, timer="graph"),
        ]
    )
    assert [case.timer for case in section.cases] == ["events", "graph"]


def test_else_on_the_kernels_time_where_all_have_that() -> None:
    """One was not capturable: both are compared by what their kernels took."""
    section = only([row("fa2", 1.0, timer="graph", kernel_ms=0.9), row("jax", 2.0, kernel_ms=0.6)])
    assert section.cases[0].timer == "kernel"
    assert section.cases[0].fastest == ("jax",)
    assert section.cases[0].measured["fa2"].latency_ms == 0.9


@pytest.mark.parametrize(
    ("flags", "ms", "timer"),
    [
        (["graph_unsupported", "long_call"], 9.0, "graph"),
        (["graph_unsupported"], 1.1, "graph"),
        (["graph_unsupported"], 0.9, "kernel"),
        (["long_call"], 9.0, "kernel"),
    ],
)
def test_a_call_too_long_for_a_graph_stands_beside_graphs(flags: list[str], ms: float, timer: str) -> None:
    """An event pair is nothing in it, so that it takes nobody's interval away."""
    rows = [row("fa2", 0.5, timer="graph", kernel_ms=0.4), row("sdpa_math", ms, kernel_ms=ms - 0.05, flags=flags)]
    section = only(rows)
    assert section.cases[0].timer == timer
    assert section.cases[0].primary == (timer == "graph")
    late = [rows[0], rows[1] | {"flags": [*flags, "unhidden"]}]
    assert only(late).cases[0].timer == "kernel"


def jax(latency_ms: float, point: Any = SMALL, **columns: Any) -> dict[str, Any]:
    """A record as JAX's are: by its kernels alone."""
    none = {"events_ms": None, "graph_ms": None}
    return row(
        "jax", latency_ms, point, **{"timer": "kernel", "kernel_ms": latency_ms, "kernel_count": 4, **none, **columns}
    )


#: naive's gaps make it 1.41 times as slow as cudnn by a graph and 1.25 times by its kernels.
GRAPHS = [
    row("naive", 30.6e-3, timer="graph", kernel_ms=26.0e-3, kernel_count=5),
    row("cudnn", 21.7e-3, timer="graph", kernel_ms=20.8e-3, kernel_count=2),
]


def test_one_that_has_its_kernels_time_alone_does_not_rank_the_others() -> None:
    """They keep their timer, times, intervals and ratios; it is compared with each of them by kernel_ms."""
    without, section = only(GRAPHS), only([*GRAPHS, jax(22.9e-3)])
    (before,), (case,) = without.cases, section.cases
    assert (case.timer, case.primary, case.by_kernel) == ("graph", True, ("jax",))
    assert [case.measured[text] for text in before.measured] == list(before.measured.values())
    assert case.fastest == ("cudnn", "jax")
    assert [(one.label.text, round(one.speedup, 2), round(one.slowdown, 2)) for one in section.standings] == [
        ("cudnn", 1.41, 1.0), ("jax", 1.14, 1.1), ("naive", 1.0, 1.41),
    ]  # fmt: skip
    assert standing(section, "naive").slowdown == standing(without, "naive").slowdown


def test_one_that_has_its_kernels_time_alone_is_said_to_be_one() -> None:
    """In a sentence and by a mark; not where all of a case have no other timer."""
    derived = derive([*GRAPHS, jax(22.9e-3)])
    table = latency_table(derived.sections[0], Footnotes(derived))
    told = "jax is timed by kernel (busy time of the cell's own kernels), and compared with the others by kernel_ms."
    assert any(note.startswith("Timer: graph") and note.endswith(told) for note in table.notes)
    (letter,) = (letter for letter, meaning in Footnotes(derived).legend() if meaning.startswith("kernel_time"))
    assert {
        column.title: cell.marks for column, cell in zip(table.columns, table.rows[0], strict=True) if cell.marks
    } == {"jax": (letter,)}
    assert any("CPU's wall clock" not in note and "by the timer kernel a win" in note for note in table.notes)
    alone = only([jax(22.9e-3), jax(25.0e-3, variant="x=1")])
    assert (alone.cases[0].timer, alone.cases[0].by_kernel) == ("kernel", ())
    assert not any(one.marks for one in alone.cases[0].measured.values())


def test_alone_those_with_their_kernels_time_are_ranked_as_ever() -> None:
    """By their latency, with the interval within the process."""
    case = only([jax(20e-3, kernel_count=1), jax(25e-3, variant="x=1", kernel_count=1)]).cases[0]
    assert (case.fastest, case.primary) == (("jax",), True)
    interval = case.measured["jax"].interval
    assert interval is not None
    assert interval.kind == "process"


@pytest.mark.parametrize(("jax_ms", "fastest"), [(24e-3, ("cudnn", "jax")), (90e-3, ("cudnn",))])
def test_without_a_kernels_time_there_is_no_ratio_of_the_two(jax_ms: float, fastest: tuple[str, ...]) -> None:
    """No CUPTI: no ratio, no mean, the others are ranked as without it; a win only by the whole call."""
    rows = [one | {"kernel_ms": None} for one in GRAPHS]
    section = only([*rows, jax(jax_ms)])
    case = section.cases[0]
    assert case.fastest == fastest
    assert (case.ratio("jax", "naive"), case.ratio("cudnn", "jax")) == (None, None)
    assert (standing(section, "jax").speedup, standing(section, "jax").slowdown) == (None, None)
    assert standing(section, "naive").slowdown == pytest.approx(30.6 / 21.7)
    derived = derive([*rows, jax(jax_ms)])
    last = standings_table(section, Footnotes(derived)).rows[-1]
    assert (last[0].text, [cell.text for cell in last[-2:]]) == ("jax", ["-", "-"])
    assert "naive" in verdict(section)


def test_a_mean_says_over_how_many_cases_two_were_compared() -> None:
    """Of two cases CUPTI saw the kernels of one."""
    both = [one | {"case": "other", "kernel_ms": None} for one in GRAPHS]
    section = only([*GRAPHS, *both, jax(90e-3), jax(90e-3) | {"case": "other"}])
    one = standing(section, "jax")
    assert (one.cases, one.slowdown_cases, one.speedup_cases) == (2, 1, 1)
    assert one.slowdown == pytest.approx(90 / 20.8)
    derived = derive([*GRAPHS, *both, jax(90e-3), jax(90e-3) | {"case": "other"}])
    shown = {cells[0].text: cells[-1].text for cells in standings_table(section, Footnotes(derived)).rows}
    assert shown == {"cudnn": "1.00x", "naive": "1.41x", "jax": "4.33x over 1"}


def test_what_stands_in_for_the_others_stays_where_one_has_its_kernels_time_alone() -> None:
    """kernel_ms where all have it, else events; the one has its own latency in either, and where none is common each
    timer has a table.
    """
    graph, events = (row(impl, 1.0, timer=impl, kernel_ms=0.9, events_ms=1.1) for impl in ("graph", "events"))
    case = only([graph, events, jax(2.0)]).cases[0]
    assert (case.timer, case.primary, case.by_kernel) == ("kernel", False, ())
    assert not any(one.marks for one in case.measured.values())
    assert [case.measured[text].primary for text in ("graph", "jax")] == [False, True]
    unseen = only([graph, events | {"kernel_ms": None}, jax(2.0)]).cases[0]
    assert (unseen.timer, unseen.by_kernel) == ("events", ("jax",))
    assert (unseen.measured["graph"].latency_ms, unseen.measured["jax"].latency_ms) == (1.1, 2.0)
    assert (unseen.ratio("graph", "jax"), unseen.ratio("events", "jax")) == (pytest.approx(2.0 / 0.9), None)
    parts = derive([graph | {"events_ms": None}, events | {"kernel_ms": None}, jax(2.0)]).sections
    assert [(section.key.timer, list(section.labels)) for section in parts] == [
        ("events", ["events"]), ("graph", ["graph"]), ("kernel", ["jax"]),
    ]  # fmt: skip


def test_the_rule_of_few_processes_is_told_where_the_kernels_times_have_no_interval() -> None:
    """Three processes are enough by a timer that has one, and not for a pair by kernel_ms."""
    told = "A win needs disjoint intervals"
    by_graph = [one | {"replicate": number} for one in GRAPHS for number in range(3)]
    by_kernel = [jax(22.9e-3, replicate=number) for number in range(3)]
    assert told not in floor(only(by_graph))
    assert told not in floor(only([*by_kernel, *(one | {"variant": "x=1"} for one in by_kernel)]))
    assert told in floor(only([*by_graph, *by_kernel]))


def test_a_ceiling_is_compared_like_anything_else() -> None:
    """With a fastest that has its kernels' time alone by kernel_ms."""
    bound = row("ceiling_copy", 0.9, timer="graph", kernel_ms=0.8, flags=["ceiling"])
    case = only([bound, row("fa2", 9.0, timer="graph", kernel_ms=8.0, kernel_count=1), jax(1.0)]).cases[0]
    assert case.fastest == ("jax",)
    assert of_fastest(case, "ceiling_copy") == pytest.approx(0.8)


def test_the_fastest_has_its_tokens_per_second() -> None:
    """Query tokens over its latency: 2048 in 1.6 ms."""
    derived = derive([row("fa2", 1.6), row("naive", 9.0)])
    table = best_table(derived.sections[0], Footnotes(derived))
    shown = dict(zip([column.title for column in table.columns], table.rows[0], strict=True))
    assert (shown["ms"].text, shown["tokens/s"].text) == ("1.600", "1.28M")
    short = best_table(derived.sections[0], Footnotes(derived), short=True)
    assert [column.title for column in short.columns] == [title for title in shown if title != "tokens/s"]


def test_the_next_is_the_one_that_takes_least_longer_than_the_fastest() -> None:
    """By what each is compared by, not by the latencies side by side; the slowest, a baseline, likewise."""
    rows = [row("fa2", 1.0, kernel_ms=0.5, timer="graph"), row("flex", 1.5, kernel_ms=1.4, timer="graph")]
    derived = derive([*rows, jax(1.4, kernel_count=1)])
    section = derived.sections[0]
    assert [cell.text for cell in best_table(section, Footnotes(derived)).rows[0][-2:]] == ["flex", "+50%"]
    assert section.baseline == "jax"


def test_else_on_events_where_all_were_timed_by_them_as_well() -> None:
    """A graph and a row that cannot be captured have been timed by events both, even without CUPTI."""
    graph = row("fa2", 1.0, timer="graph", kernel_ms=None, events_ms=1.3)
    other = row("te", 1.2, kernel_ms=None, events_ms=1.2)
    (section,) = derive([graph, other]).sections
    assert section.cases[0].timer == "events"
    assert section.cases[0].fastest == ("te",)


def test_else_in_a_table_for_each_timer() -> None:
    """No common measure, no comparison; failures stand in both tables."""
    rows = [row("fa2", 1.0, timer="graph", kernel_ms=None), row("jax", 2.0, kernel_ms=0.6), failed("naive")]
    rows[0]["events_ms"] = None
    sections = derive(rows).sections
    assert [section.key.timer for section in sections] == ["events", "graph"]
    assert [sorted(section.labels) for section in sections] == [["jax", "naive"], ["fa2", "naive"]]


def versions(rows: list[dict[str, Any]], which: str) -> Derived:
    return derive(rows, versions=which)


def test_old_versions_are_left_out_unless_all_are_asked_for() -> None:
    """The newest by default, each as a label of its own with --versions all."""
    rows = [row("fa2", 1.0, impl_version="2.9"), row("fa2", 2.0, impl_version="2.8.3")]
    newest = versions(rows, "newest")
    assert newest.sections[0].cases[0].measured["fa2"].latency_ms == 1.0
    assert newest.older == 1
    assert sorted(versions(rows, "all").sections[0].labels) == ["fa2 @2.8.3", "fa2 @2.9"]


def test_rows_stand_in_the_order_of_the_axis_and_then_of_the_batch() -> None:
    """As numbers: 4096 comes before 16384."""
    points = [prefill(4, 16384), prefill(1, 16384), prefill(1, 4096), prefill(4, 4096)]
    section = only([row("fa2", 1.0, point) for point in points])
    assert [(case.axis_value, case.fields["batch_size"]) for case in section.cases] == [
        (4096, 1), (4096, 4), (16384, 1), (16384, 4),
    ]  # fmt: skip


def test_nothing_fails_on_missing_values() -> None:
    """Every column that may be null is null, and the rows are still ranked."""
    kept = {"status", "latency_ms"}
    rows = [{name: value if name in kept else None for name, value in row("fa2", 1.0).items()}, row("naive", 2.0)]
    derived = derive(rows)
    assert sum(len(section.cases) for section in derived.sections) == 2
    assert all(verdict(section) for section in derived.sections)
