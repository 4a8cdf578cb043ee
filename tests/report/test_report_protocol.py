"""What the measurement protocol gives a reader: load beside bursts, the timers side by side, what compiling cost."""

from __future__ import annotations

import csv
import io
import math
import re
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from report_records import flux, prefill, under_load, values, write

from attnsweep.errors import Status
from attnsweep.report import build, html, plots, sustained, traces
from attnsweep.report import load as records
from attnsweep.report.accuracy import accuracy_table
from attnsweep.report.compiling import compile_table
from attnsweep.report.csvfile import to_csv
from attnsweep.report.derive import derive
from attnsweep.report.load import Loaded
from attnsweep.report.machines import machine_table
from attnsweep.report.notes import Footnotes
from attnsweep.report.sections import Derived, Section
from attnsweep.report.summary import latency_table
from attnsweep.report.sustained import load_table, load_verdict
from attnsweep.report.tables import Table
from attnsweep.report.timers import timer_table
from attnsweep.report.traces import thinned, traced
from attnsweep.report.verdict import verdict

POINT = prefill(1, 2048)
LOAD = [name for name in under_load(1.0, 0.0) if name != "load_throttle"]


def row(impl: str, burst_ms: float, load_ms: float | None, point: Any = POINT, **columns: Any) -> dict[str, Any]:
    """A record with both regimes, or without a load; intervals of 0.1 %."""
    load = under_load(burst_ms, load_ms / burst_ms - 1) if load_ms else dict.fromkeys(LOAD)
    return values(point, impl, latency_ms=burst_ms, width=0.001, timer="events") | load | columns


def only(rows: list[dict[str, Any]]) -> Section:
    (section,) = derive(rows).sections
    return section


def texts(table: Table) -> list[list[str]]:
    return [[cell.text for cell in row] for row in table.rows]


def headings(table: Table) -> list[str]:
    return [column.title for column in table.columns]


def load(rows: list[dict[str, Any]]) -> Table:
    derived = derive(rows)
    return load_table(derived.sections[0], Footnotes(derived))


def test_burst_and_load_stand_side_by_side() -> None:
    """Each result with both latencies, what load adds, clocks, power, energy and throttle reasons; lowest first."""
    table = load([row("flash", 0.780, 0.786), row("cudnn", 0.404, 0.433)])
    assert headings(table) == [
        "seq_len", "implementation", "burst ms", "under load ms", "change", "burst clock MHz", "load clock MHz",
        "load power W", "energy a call mJ", "throttled by",
    ]  # fmt: skip
    assert texts(table) == [
        ["2048", "cudnn", "0.4040", "0.4330", "+7.2%", "1980", "1597", "690", "299", "SwPowerCap"],
        ["2048", "flash", "0.7800", "0.7860", "+0.8%", "1980", "1885", "543", "427", "-"],
    ]
    assert [(row[2].best, row[3].best) for row in table.rows] == [(True, True), (False, False)]
    assert table.rows[0][3].note == "±0.10%"


def test_the_median_over_processes_is_what_is_shown() -> None:
    """Three processes are one row, and its interval reaches over their medians."""
    table = load([row("cudnn", 1.0, ms, replicate=n, cell_id=str(n)) for n, ms in enumerate((1.1, 1.2, 1.3))])
    assert [(cells[1].text, cells[3].text, cells[4].text) for cells in table.rows] == [("cudnn", "1.200", "+20.0%")]
    assert table.rows[0][3].note == "±8.4%"


def test_without_a_load_there_is_no_table(tmp_path: Path) -> None:
    """On a CPU and in quick sweeps nothing is said of loads, timers or compilers that there were not."""
    bare = dict.fromkeys(("events_ms", "graph_ms", "kernel_ms"))
    derived = derive([row("fa2", 1.0, None, **bare, host_ms=1.0) | {"timer": "host"}])
    assert load_table(derived.sections[0], Footnotes(derived)).rows == ()
    content = build.content_of(derived, Loaded(pa.table({}), 1, 0, ()), ())
    for shown in (build.to_summary(content), html.to_html(content, tmp_path)):
        assert not re.search("Under load:|Timers:|Compilation<|## (Under|Timers|Compilation)|#load", shown)


def test_what_was_not_timed_under_load_is_said() -> None:
    """With its reason where that is known."""
    small = row("naive", 0.01, None, flags=["launch_bound"])
    table = load([row("fa2", 1.0, 1.1), small, row("flex", 2.0, None)])
    said = "Not timed under load: naive (launch_bound) in 1 case, flex in 1 case. Launch_bound: launching takes longer"
    assert any(note.startswith(said) for note in table.notes)


def test_what_is_said_of_a_load_is_no_mark_of_a_burst() -> None:
    """An unsteady load is marked under load, beside no burst and not in the verdict; a burst's own mark is in both."""
    derived = derive([row("fa2", 1.0, 1.1, flags=["long_call", "unsteady"]), row("flex", 2.0, 2.2)])
    (section,) = derived.sections
    notes = Footnotes(derived)
    assert [told.split(":")[0] for _, told in notes.legend()] == ["long_call", "unsteady"]
    bursts = next(one for one in latency_table(section, notes).rows[0] if one.text == "1.000")
    loads = next(one for one in load_table(section, notes).rows[0] if one.text == "1.100")
    assert (bursts.marks, loads.marks) == (("a",), ("a", "b"))
    assert verdict(section).endswith("Marks on fa2: long_call.")
    assert Footnotes(derive([row("fa2", 0.01, None, flags=["launch_bound"])])).legend() == []


SHIFTED = [row("cudnn", 1.0, 1.2), row("fa2", 1.05, 1.06)]


def test_the_verdict_says_who_overtakes_whom() -> None:
    """Beside the ranking of bursts, in the report's every place."""
    other = prefill(1, 4096)
    rows = [*SHIFTED, row("cudnn", 4.0, 4.1, other), row("fa2", 5.0, 5.1, other)]
    assert load_verdict(only(rows)) == "Under load fa2 is fastest in 1 of 2 cases instead of cudnn."
    content = build.content_of(derive(rows), Loaded(pa.table({}), 1, 0, ()), ())
    assert content.blocks[0].verdict.startswith("cudnn is fastest in 2 of 2 cases")
    assert content.blocks[0].verdict.endswith("Under load fa2 is fastest in 1 of 2 cases instead of cudnn.")


def test_of_several_changes_the_most_frequent_is_named() -> None:
    """The others are counted."""
    points = [prefill(1, length) for length in (1024, 2048, 4096)]
    rows = [one | row(one["impl"], one["latency_ms"], one["sustained_ms"], p) for p in points[:2] for one in SHIFTED]
    rows += [row("cudnn", 1.0, 1.2, points[2]), row("flex", 1.05, 1.06, points[2])]
    assert load_verdict(only(rows)) == (
        "Under load fa2 is fastest in 2 of 3 cases instead of cudnn; the fastest is another in 1 more."
    )


@pytest.mark.parametrize(
    ("burst", "loads", "said"),
    [
        ((1.0, 1.5), (1.4, 1.6), ""),
        ((1.0, 1.5), (1.601, 1.6), "Under load 1 of 1 case won in bursts is a tie."),
        ((1.0, 1.001), (1.5, 1.2), "Under load 1 of 1 case tied in bursts has a winner."),
        ((1.0, 1.5), (1.61, 1.6), "Under load 1 of 1 case won in bursts is a tie."),
        ((1.0, 1.5), (1.7, 1.6), "Under load b is fastest in 1 of 1 case instead of a."),
    ],
)
def test_under_load_the_rule_of_a_win_is_the_same(
    burst: tuple[float, float], loads: tuple[float, float], said: str
) -> None:
    """Disjoint intervals, and two per cent where one process is behind a side."""
    rows = [row(impl, *latencies) for impl, *latencies in zip("ab", burst, loads, strict=True)]
    assert load_verdict(only(rows)) == said


def test_nobody_overtakes_what_was_not_timed_under_load() -> None:
    """Where the fastest has no load, the others' order says nothing about it."""
    assert load_verdict(only([row("cudnn", 1.0, None), row("fa2", 1.05, 1.06), row("flex", 2.0, 2.1)])) == ""


@pytest.mark.parametrize("columns", [{"precision_class": "int8"}, {"flags": ["implausible"]}, {"flags": ["ceiling"]}])
def test_what_does_not_compete_overtakes_nobody(columns: dict[str, Any]) -> None:
    """Another precision, an impossible time, a ceiling: shown under load, and not its winner."""
    rows = [row("cudnn", 1.0, 1.2), row("odd", 1.05, 1.06, **columns), row("fa2", 1.3, 1.4)]
    assert load_verdict(only(rows)) == ""
    found = sorted((cells[1].text, cells[3].best) for cells in load(rows).rows)
    assert found == [("cudnn", True), ("fa2", False), ("odd", False)]


def test_bursts_by_different_timers_have_no_fastest_under_load() -> None:
    """By the kernels' time, which ranks the case, fa2 wins; its burst is the longer one and not bold."""
    rows = [row("fa2", 0.41, 0.5, kernel_ms=0.38), row("te", 0.409, 0.6, kernel_ms=0.40, timer="graph")]
    table = load([one | {"events_ms": None} for one in rows])
    assert [(cells[1].text, cells[2].best, cells[3].best) for cells in table.rows] == [
        ("fa2", False, True), ("te", False, False),
    ]  # fmt: skip
    assert any("none is bold in 1 case, ranked by a timer that all have" in note for note in table.notes)
    assert not any("none is bold" in note for note in load(SHIFTED).notes)


def test_ceilings_come_last_under_load_and_dim() -> None:
    """A bound is not the first line of a case because it is low."""
    rows = load([row("ceiling_copy", 0.1, 0.1, flags=["ceiling"]), row("fa2", 1.0, 1.1)]).rows
    assert [(cells[1].text, cells[3].dim) for cells in rows] == [("fa2", False), ("ceiling_copy", True)]


def test_the_timers_stand_side_by_side() -> None:
    """Launch is host less kernel, agreement the primary timer over the kernels; the primary one is bold."""
    told = {"host_ms": 0.060, "events_ms": 0.0356, "graph_ms": 0.0268, "kernel_ms": 0.0262}
    table = timer_table(only([values(POINT, latency_ms=0.0268, timer="graph") | told]))
    assert headings(table)[1:] == [
        "implementation", "host ms", "events ms", "graph ms", "kernel ms", "launch us", "primary vs kernel",
    ]  # fmt: skip
    assert texts(table) == [["2048", "fa2", "0.06000", "0.03560", "0.02680", "0.02620", "33.8", "+2.3%"]]
    assert [cell.bold for cell in table.rows[0]] == [False, False, False, False, True, False, False, False]


def test_an_older_record_has_its_primary_timer_too(tmp_path: Path) -> None:
    """Before events_ms was a column, latency_ms was all there was of it; what is not known is a dash."""
    older = values(POINT, latency_ms=1.0, timer="events", events_ms=None, kernel_ms=None)
    table = timer_table(only(records.load([write(tmp_path, [older])]).rows()))
    assert texts(table)[0][3] == "1.000"
    assert texts(table)[0][5:] == ["-", "-", "-"]


def test_failures_have_no_timers() -> None:
    """A row of the table is a result."""
    assert len(timer_table(only([values(POINT), values(POINT, "flex", status=Status.OOM)])).rows) == 1


def test_compile_costs_are_a_row_a_label() -> None:
    """Median and longest of the compiler and of its autotuner, cache hits; nothing for eager."""
    told = [(1.0, 0.25, "hit"), (3.0, 0.5, "miss"), (8.0, None, None)]
    rows = [
        values(prefill(1, 1024 * n), compile="default", compile_s=s, autotune_s=tuned, compile_cache=cache)
        for n, (s, tuned, cache) in enumerate(told, start=1)
    ]
    assert texts(compile_table(derive([*rows, values(POINT)]))) == [
        ["fa2 (default)", "3", "3", "3.00", "8.00", "0.375", "0.500", "1 of 2"]
    ]
    assert compile_table(derive([values(POINT)])).rows == ()
    assert "## Compilation" in build.to_summary(build.content_of(derive(rows), Loaded(pa.table({}), 1, 0, ()), ()))


def test_accuracy_is_the_worst_of_a_label_in_each_dtype() -> None:
    """Over its cases that are ok; a column that nobody has is not there, a value that one lacks is a dash."""
    rows = [
        values(prefill(1, 1024), err_ratio=0.5, grad_err_ratio=None, rel_l1=0.002, rel_l2=None),
        values(prefill(1, 2048), err_ratio=0.9, grad_err_ratio=None, rel_l1=0.001, rel_l2=None),
        values(POINT, "sage", err_ratio=None, grad_err_ratio=None, rel_l1=0.05, rel_l2=None, precision_class="int8"),
        values(POINT, "flex", status=Status.INCORRECT, err_ratio=99.0, rel_l1=9.0),
    ]
    derived = derive(rows)
    table = accuracy_table(derived)
    assert [column.title for column in table.columns[4:]] == ["output / formula", "relative L1"]
    assert '"/ formula" is the largest error' in table.notes[0]
    assert texts(table) == [
        ["fa2", "bf16", "native", "2", "0.900", "0.00200"],
        ["sage", "bf16", "int8", "1", "-", "0.0500"],
    ]
    assert "## Accuracy" in build.to_summary(build.content_of(derived, Loaded(pa.table({}), 1, 0, ()), ()))
    unchecked = dict.fromkeys(("err_ratio", "grad_err_ratio", "rel_l1", "rel_l2"))
    assert accuracy_table(derive([values(POINT, **unchecked)])).rows == ()


def test_the_csv_has_what_the_tables_show() -> None:
    """Every timer, the load with its interval, clocks, energy, gradients' error, autotuning."""
    told = {"events_ms": 1.0, "graph_ms": 0.99, "kernel_ms": 0.97, "grad_err_ratio": 0.75, "autotune_s": 2.5}
    rows = [row("cudnn", 1.0, 1.072, **told), row("fa2", 2.0, None)]
    first, second = csv.DictReader(io.StringIO(to_csv(derive(rows))))
    assert (first["sustained_ms"], first["sustained_low_ms"], first["sustained_high_ms"]) == (
        "1.072", "1.070928", "1.073072",
    )  # fmt: skip
    assert (first["sustained_interval"], first["load_throttle"]) == ("process", "SwPowerCap")
    assert (first["events_ms"], first["graph_ms"], first["kernel_ms"]) == ("1", "0.99", "0.97")
    assert (first["burst_clock_mhz"], first["load_clock_mhz"], first["load_power_w"]) == ("1980", "1596", "690")
    assert (first["grad_err_ratio"], first["autotune_s"]) == ("0.75", "2.5")
    assert (second["sustained_ms"], second["sustained_low_ms"], second["energy_mj"]) == ("", "", "")


def test_the_machines_say_what_load_did_to_them() -> None:
    """Clocks by counters in both regimes, power and throttle reasons."""
    said = {cells[0]: cells[1] for cells in texts(machine_table(derive([*SHIFTED])))}
    assert said["SM clock in bursts, by counters"] == "1980 MHz"
    assert said["SM clock under load, by counters"] == "1020 to 1877.1 MHz"
    assert said["power under load"] == "548.6 to 690 W"
    assert said["throttle reasons under load"] == "SwPowerCap"


def drawn_texts(derived: Derived, folder: Path) -> list[str]:
    (plot,) = (one for one in plots.draw_all(derived, folder, dict) if one.kind == "load")
    return re.findall(r"<text[^>]*>([^<]*)</text>", (folder / f"{plot.stem}.svg").read_text())


def test_the_load_plot_shows_the_largest_case(tmp_path: Path) -> None:
    """Both panels with their units, the case in the title, and what load adds in the legend."""
    rows = [row("cudnn", 0.4, 0.43, flux(text)) for text in (128, 512)]
    shown = drawn_texts(derive(rows), tmp_path)
    assert {"latency (ms)", "SM clock (MHz)", "seconds under load", "burst"} <= set(shown)
    assert "text_len 512, q_len 4608; bursts by events; one process each" in shown
    assert "cudnn: 0.4000 to 0.4300 ms (+7.5%)" in shown


def test_the_load_plot_names_the_timers_of_its_bursts(tmp_path: Path) -> None:
    """Each has its own primary one there, also where the case is ranked on the kernels' time."""
    shown = drawn_texts(derive([row("cudnn", 0.4, 0.43), row("jax", 0.5, 0.52, timer="kernel")]), tmp_path)
    assert any("bursts by events and kernel" in text for text in shown)
    assert not any("timer kernel" in text for text in shown)


def test_without_clocks_the_load_plot_has_one_panel(tmp_path: Path) -> None:
    """The GPU's counters may be unreadable."""
    shown = drawn_texts(derive([row("a", 1.0, 1.1, sustained_clock_mhz=None, sustained_clock_start_s=None)]), tmp_path)
    assert "latency (ms)" in shown
    assert "SM clock (MHz)" not in shown


def test_the_load_plot_is_on_the_page_and_in_the_summary(tmp_path: Path) -> None:
    """Beside the table of loads, not among the plots against the axis."""
    derived = derive([row("cudnn", 1.0, 1.1)])
    drawn = plots.draw_all(derived, tmp_path, dict)
    content = build.content_of(derived, Loaded(pa.table({}), 1, 0, ()), drawn)
    summary = build.to_summary(content)
    assert summary.count("](plots/load-") == 1
    assert summary.index("## Under load") < summary.index("](plots/load-") < summary.index("## Plots")
    page = html.to_html(content, tmp_path)
    assert page.count('alt="Latency and SM clock against time under load') == 1
    assert page.index('<h2 id="load">') < page.index('alt="Latency and SM clock') < page.index('<h2 id="kernels">')
    assert '<a href="#load">' in page
    assert page.index("<summary>Timers: ") < page.index(">primary vs kernel</th>") < page.index('<h2 id="plots">')


def traced_labels(rows: list[dict[str, Any]]) -> tuple[list[str], int]:
    found = traced(only(rows), dict)
    assert found is not None
    return [one.text for one in found.traces], found.left_out


def test_the_load_plot_has_six_lines_at_most() -> None:
    """The best standings, one line an implementation, none that would flatten the others."""
    many = [row(f"i{n}", 1.0 + 0.1 * n, 1.1 + 0.1 * n) for n in range(8)]
    assert traced_labels(many) == ([f"i{n}" for n in range(6)], 2)
    twins = [row("a", 1.0, 1.1), row("a", 0.9, 1.0, compile="default"), row("b", 2.0, 2.1), row("slow", 9.0, 9.1)]
    assert traced_labels(twins) == (["a (default)", "b"], 1)


def test_only_what_is_drawn_is_read() -> None:
    """Of three processes the one in the middle, of two cases the larger: one record's samples for one line."""
    asked: list[tuple[float, float]] = []

    def raw(one: dict[str, Any]) -> dict[str, Any]:
        asked.append((one["axis_value"], one["sustained_ms"]))
        return one

    rows = [
        row("a", 1.0, ms, prefill(1, at), replicate=n, cell_id=f"{at}-{n}")
        for at in (1024, 4096)
        for n, ms in enumerate((1.1, 1.4, 1.2))
    ]
    found = traced(only(rows), raw)
    assert asked == [(4096, pytest.approx(1.2))]
    assert found is not None
    assert (found.traces[0].burst_ms, found.traces[0].load_ms) == (1.0, pytest.approx(1.2))


def test_a_case_without_samples_gives_way_to_a_smaller_one() -> None:
    """Nothing at all is drawn where no record has samples."""
    bare = {"sustained_samples_ms": None, "sustained_start_s": None}
    rows = [row("a", 1.0, 1.1), row("a", 2.0, 2.2, prefill(1, 4096), **bare)]
    found = traced(only(rows), dict)
    assert found is not None
    assert found.case.axis_value == 2048
    assert traced(only(rows[1:]), dict) is None
    assert traced(only([row("a", 1.0, None)]), dict) is None


def test_a_trace_is_medians_over_bins() -> None:
    """One outlier among fifty samples of a bin moves nothing; a long load has wider bins and not more points."""
    times = [number / 1000 for number in range(3000)]
    samples = [9.0 if number % 50 == 7 else 1.0 for number in range(3000)]
    line = thinned(times, samples)
    assert len(line) == 60
    assert {value for _, value in line} == {1.0}
    assert line[0][0] == pytest.approx(traces.BIN_S / 2)
    assert len(thinned([60 * time for time in times], samples)) <= traces.POINTS + 1
    assert thinned(None, None) == thinned([], []) == thinned([0.0], [math.nan]) == []


def test_a_loaded_case_is_one_measurement_a_label() -> None:
    """Lowest first, and a label without a load is not there."""
    case = only([row("b", 1.0, 1.3), row("a", 1.2, 1.25), row("c", 0.5, None)]).cases[0]
    assert list(sustained.under_load(case)) == ["a", "b"]
