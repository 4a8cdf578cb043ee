"""Tables, footnotes and plots as the reader sees them."""

from __future__ import annotations

import csv
import io
import re
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from report_records import SPEED, decode, flux, prefill, values

from attnsweep.errors import Status
from attnsweep.report import build, html, plots, words
from attnsweep.report.bars import winner_bars
from attnsweep.report.csvfile import to_csv
from attnsweep.report.derive import derive
from attnsweep.report.failures import counts, failure_table, failures
from attnsweep.report.labels import Label
from attnsweep.report.load import Loaded
from attnsweep.report.machines import library_table, machine_table
from attnsweep.report.notes import Footnotes
from attnsweep.report.sections import Derived
from attnsweep.report.styles import assign
from attnsweep.report.summary import best_table, latency_table, standings_table, status_table
from attnsweep.report.tables import Cell, Table, to_markdown
from attnsweep.report.verdict import verdict

POINT = prefill(1, 2048)


def texts(table: Table) -> list[list[str]]:
    return [[cell.text for cell in row] for row in table.rows]


def latency(derived: Derived) -> Table:
    return latency_table(derived.sections[0], Footnotes(derived))


def svg(derived: Derived, folder: Path, kind: str) -> str:
    plot = next(one for one in plots.draw_all(derived, folder, dict) if one.kind == kind)
    return (folder / f"{plot.stem}.svg").read_text()


def drawn_texts(source: str) -> list[str]:
    return re.findall(r"<text[^>]*>([^<]*)</text>", source)


def test_only_the_fields_that_vary_are_columns() -> None:
    """What all rows share is said once; a length that equals the axis is not repeated."""
    derived = derive([values(prefill(b, s), timer="events") for b in (1, 4) for s in (2048, 4096)])
    assert [column.title for column in latency(derived).columns] == [
        "seq_len", "batch_size", "fastest", "of peak", "fa2",
    ]  # fmt: skip
    assert words.constants(derived.sections[0]) == "num_heads 32, head_dim 128, causal"


def test_a_length_that_differs_from_the_axis_is_shown() -> None:
    """Flux's axis is the text, its sequence is image and text."""
    derived = derive([values(flux(text)) for text in (128, 512)])
    assert [column.title for column in latency(derived).columns][:2] == ["text_len", "q_len"]


def test_rows_that_no_field_tells_apart_show_their_case() -> None:
    """Two cases never look like one."""
    derived = derive([values(POINT), values(POINT, case="another", cell_id="2")])
    assert "case" in [column.title for column in latency(derived).columns]


def test_the_fastest_is_bold_a_tie_is_said_and_a_failure_is_its_status() -> None:
    """A cell is a number, a status, or a dash where nothing was run."""
    slow = [values(POINT, "naive", latency_ms=4.0), values(POINT, "flex", status=Status.TIMEOUT)]
    rows = [values(POINT, latency_ms=1.0), values(POINT, "xformers", latency_ms=1.001), *slow]
    other = prefill(1, 4096)
    rows += [values(other, latency_ms=2.0), values(other, "naive", latency_ms=8.0)]
    rows += [values(other, "flex", latency_ms=9.0)]
    table = latency(derive([{**row, "timer": "events", "peak_fraction": None} for row in rows]))
    assert [column.title for column in table.columns[2:]] == ["naive", "fa2", "xformers", "flex"]
    assert texts(table) == [
        ["2048", "tie: fa2, xformers", "4.000", "1.000", "1.001", "timeout"],
        ["4096", "fa2", "8.000", "2.000", "-", "9.000"],
    ]
    assert [cell.best for cell in table.rows[0]] == [False, False, False, True, True, False]
    assert table.rows[0][3].note == "4.00x, ±0.40%"


def test_a_long_tie_is_short_in_the_cell_and_whole_on_the_page(tmp_path: Path) -> None:
    """The first and how many others; all names stand in a note that only the page has."""
    derived = derive([values(POINT, impl, latency_ms=1.0, timer="events") for impl in ("a", "b", "c")])
    cell = latency(derived).rows[0][1]
    assert (cell.text, cell.detail) == ("a, tied with 2 others", "b, c")
    assert "b, c" not in to_markdown(latency(derived))
    content = build.content_of(derived, Loaded(pa.table({}), 1, 0, ()), ())
    assert "b, c" in html.to_html(content, tmp_path)


def test_the_floor_is_said_where_it_counts() -> None:
    """With one process a side it does, with three it does not; a CPU's is told where a CPU's clock was used."""
    few = derive([values(POINT, impl, timer="events") for impl in ("fa2", "flex")])
    many = derive(
        [values(POINT, impl, timer="events", replicate=number) for impl in ("fa2", "flex") for number in range(3)]
    )
    assert words.RULE in latency(few).notes
    assert words.RULE not in latency(many).notes
    host = derive([values(POINT, impl, timer="host") for impl in ("fa2", "flex")])
    assert f"{words.RULE} {words.HOST_RULE}" in latency(host).notes


def graphs(kernels: int, timer: str = "graph", processes: int = 3, **columns: Any) -> Derived:
    """Two implementations 5 % and 0.7 us apart, known to 0.1 %."""
    shared: dict[str, Any] = {"width": 0.001, "timer": timer, "kernel_count": kernels, **columns}
    times = {"fa2": 14e-3, "flex": 14.7e-3}
    return derive(
        [
            values(POINT, impl, latency_ms=ms, replicate=number, **shared)
            for impl, ms in times.items()
            for number in range(processes)
        ]
    )


def test_the_rule_of_graphs_is_said_where_it_counts() -> None:
    """Where a call is ranked by a graph, beside the floor with one process a side; on every page."""
    for kernels in (1, 2):
        assert words.LEVEL_RULE in latency(graphs(kernels)).notes
    assert f"{words.RULE} {words.LEVEL_RULE}" in latency(graphs(2, processes=1)).notes
    assert words.GAP_RULE in latency(graphs(2, timer="kernel")).notes
    for without in (graphs(1, timer="kernel"), graphs(2, timer="events")):
        assert not any(rule in note for note in latency(without).notes for rule in (words.LEVEL_RULE, words.GAP_RULE))
    for rule in (words.LEVEL_RULE, words.GAP_RULE):
        assert any(rule in sentence for sentence in build.METHOD)


@pytest.mark.parametrize(("others", "said"), [(None, False), (0, False), (3, True)])
def test_that_other_gpus_were_in_use_is_said_of_a_graph(others: int | None, said: bool) -> None:
    """Beside them its level may change; other timers have none."""
    assert (f"{words.LEVEL_RULE} {words.BESIDE}" in latency(graphs(2, other_gpus_in_use=others)).notes) is said
    for without in (graphs(2, timer="events", other_gpus_in_use=3), graphs(2, timer="kernel", other_gpus_in_use=3)):
        assert not any(words.BESIDE in note for note in latency(without).notes)


def test_tables_and_csv_know_a_tie_by_the_levels_of_a_graph() -> None:
    """One rule for who is bold, tied, won or next."""
    for kernels, tie in ((2, True), (1, False)):
        derived = graphs(kernels)
        found = csv.DictReader(io.StringIO(to_csv(derived)))
        assert [(one["fastest"], one["tie"]) for one in found] == (
            [("true", "true")] * 2 if tie else [("true", "false"), ("false", "false")]
        )
        shown = latency(derived)
        assert texts(shown)[0][1] == ("tie: fa2, flex" if tie else "fa2")
        assert [cell.best for cell in shown.rows[0][-2:]] == ([True, True] if tie else [False, True])
        wins = {one[0]: one[1:3] for one in texts(standings_table(derived.sections[0], Footnotes(derived)))}
        assert wins == ({"fa2": ["0", "1"], "flex": ["0", "1"]} if tie else {"fa2": ["1", "0"], "flex": ["0", "0"]})
        best = best_table(derived.sections[0], Footnotes(derived))
        assert texts(best)[0][-2:] == (["-", "-"] if tie else ["flex", "+5.0%"])


def test_an_interval_wider_than_its_latency_is_told_by_its_ends() -> None:
    """A side of 4690 % reads as a mistake, and as if time could be negative."""
    wide = {"latency_ci_low_ms": 0.98, "latency_ci_high_ms": 47.9}
    derived = derive([values(POINT, "naive", latency_ms=1.0, **wide), values(POINT, "fa2", latency_ms=0.5)])
    assert "1.00x, 0.98 to 48" in [cell.note for cell in latency(derived).rows[0]]


def test_what_is_bold_in_the_standings_is_said() -> None:
    """It is not the first of the means; where all is tied nothing is bold."""
    won = derive([values(POINT, "fa2", latency_ms=1.0), values(POINT, "flex", latency_ms=2.0)])
    tied = derive([values(POINT, impl, latency_ms=1.0) for impl in ("fa2", "flex")])
    said = [standings_table(one.sections[0], Footnotes(one)).notes[0] for one in (won, tied)]
    assert ["Bold: the most wins." in sentence for sentence in said] == [True, False]


def test_the_share_of_the_peak_is_the_fastests() -> None:
    """In percent, a dash where it is not known, and no column where nothing is known."""
    other = prefill(1, 4096)
    rows = [values(POINT, latency_ms=1.0, peak_fraction=0.5), values(POINT, "flex", latency_ms=2.0, peak_fraction=0.25)]
    table = latency(derive([*rows, values(other, peak_fraction=None)]))
    place = [column.title for column in table.columns].index("of peak")
    assert [row[place].text for row in table.rows] == ["50.0%", "-"]
    assert "of peak" not in [column.title for column in latency(derive([values(other, peak_fraction=None)])).columns]


def test_rates_belong_to_the_time_that_ranks() -> None:
    """Ranked on kernel_ms, throughput is recomputed and the fraction of the primary timer's peak is left out."""
    rows = [
        values(POINT, latency_ms=1.0, timer="graph", kernel_ms=0.5, peak_fraction=0.6),
        values(POINT, "jax", latency_ms=2.0, timer="events", kernel_ms=0.8, peak_fraction=0.3),
    ]
    derived = derive(rows)
    first = next(csv.DictReader(io.StringIO(to_csv(derived))))
    assert float(first["tflops"]) == pytest.approx(rows[0]["flops"] / 0.5e-3 / 1e12)
    assert float(first["gb_per_s"]) == pytest.approx(rows[0]["bytes"] / 0.5e-3 / 1e9)
    assert (first["timer"], first["latency_ms"], first["peak_fraction"]) == ("kernel", "0.5", "")
    assert "of peak" not in [column.title for column in latency(derived).columns]


def test_beside_one_that_has_its_kernels_time_alone_every_number_is_told() -> None:
    """Of both kinds the latency with its interval and what belongs to it, and ratios by what both are compared by."""
    rows = [
        values(POINT, latency_ms=1.0, timer="graph", kernel_ms=0.5, peak_fraction=0.6, kernel_count=1),
        values(POINT, "jax", latency_ms=1.25, timer="kernel", kernel_ms=1.25, peak_fraction=0.3, kernel_count=1),
    ]
    told = {row["impl"]: row for row in csv.DictReader(io.StringIO(to_csv(derive(rows, baseline="fa2"))))}
    names = ("timer", "latency_ms", "interval", "peak_fraction", "speedup", "slowdown", "flags")
    assert [told["fa2"][name] for name in names] == ["graph", "1", "process", "0.6", "1", "1", ""]
    assert [told["jax"][name] for name in names] == ["kernel", "1.25", "process", "0.3", "0.4", "2.5", "kernel_time"]
    assert float(told["jax"]["tflops"]) == pytest.approx(rows[1]["flops"] / 1.25e-3 / 1e12)


def test_the_timer_of_a_number_is_its_own() -> None:
    """Beside graphs a call too long for one was timed by events; what failed has the case's timer."""
    rows = [
        values(POINT, latency_ms=1.0, timer="graph"),
        values(POINT, "sdpa_math", latency_ms=9.0, timer="events", flags=["graph_unsupported", "long_call"]),
        values(POINT, "flex", status=Status.OOM, timer="graph"),
    ]
    told = {row["impl"]: row["timer"] for row in csv.DictReader(io.StringIO(to_csv(derive(rows))))}
    assert told == {"fa2": "graph", "sdpa_math": "events", "flex": "graph"}


def peak_texts(rows: list[dict[str, Any]], folder: Path, kind: str) -> list[str]:
    return [text for text in drawn_texts(svg(derive(rows), folder, kind)) if text.startswith("datasheet peak")]


def test_the_datasheets_peak_is_drawn_where_it_is_near(tmp_path: Path) -> None:
    """Within four times of the fastest, for a device that attnsweep.metrics knows; never in a plot of latencies."""
    near, far = values(prefill(4, 8192)), values(prefill(4, 8192), "naive")
    assert peak_texts([near], tmp_path, "throughput") == ["datasheet peak 989"]
    assert peak_texts([near], tmp_path, "latency") == []
    assert peak_texts([far], tmp_path, "throughput") == []
    assert peak_texts([near | {"gpu_name": "Some GPU"}], tmp_path, "throughput") == []
    for dtype in ("fp4", "name", "<x>"):
        assert peak_texts([near | {"dtype": dtype}], tmp_path, "throughput") == []
    assert peak_texts([values(decode(8, 4096))], tmp_path, "bandwidth") == ["datasheet peak 4800"]


def test_without_an_axis_a_sentence_stands_for_the_line_plot(tmp_path: Path) -> None:
    """In Markdown and on the page; with an axis there is none."""
    loaded = Loaded(pa.table({}), 1, 0, ())
    without = build.content_of(derive([values(POINT, axis_value=None)]), loaded, ())
    sentence = "There is no line plot: the records give no value for an axis."
    assert sentence in build.to_summary(without)
    assert sentence in html.to_html(without, tmp_path)
    partly = build.content_of(derive([values(POINT, axis_value=None), values(prefill(4, 2048))]), loaded, ())
    assert "The line plots leave out 1 case without a value for the axis." in build.to_summary(partly)
    assert "line plot" not in build.to_summary(build.content_of(derive([values(POINT)]), loaded, ()))


def test_the_short_tables_come_before_the_wide_one(tmp_path: Path) -> None:
    """In Markdown always, on the page where there are more than eight labels."""
    rows = [values(POINT, impl, mode) for impl in SPEED for mode in ("eager", "default")]
    content = build.content_of(derive(rows), Loaded(pa.table({}), 1, 0, ()), ())
    summary = build.to_summary(content)
    assert summary.index("## Winners") < summary.index("time against the fastest") < summary.index("## Tables")
    page = html.to_html(content, tmp_path)
    assert page.index(">next</th>") < page.index(">of peak</th>")
    few = build.content_of(derive(rows[:8]), Loaded(pa.table({}), 1, 0, ()), ())
    assert ">next</th>" not in html.to_html(few, tmp_path)


def test_the_baselines_line_does_not_cross_a_bars_label(tmp_path: Path) -> None:
    """Every label of a bar has a white ground, and is drawn after the line."""
    rows = [values(POINT, "fa2", latency_ms=1.05), values(POINT, "naive", latency_ms=1.0)]
    derived = derive(rows)
    figure = winner_bars(derived.sections[0], assign(list(derived.labels)))
    (ax,) = figure.axes
    labels = [text for text in ax.texts if "x" in text.get_text()]
    assert len(labels) == 2
    for label in labels:
        patch = label.get_bbox_patch()
        assert patch is not None
        assert patch.get_facecolor() == (1.0, 1.0, 1.0, 1.0)
        assert label.get_zorder() > max(line.get_zorder() for line in ax.lines)


def test_new_flags_are_explained() -> None:
    """Each has a sentence, not its bare name."""
    flags = ["substituted", "contended", "unchecked", "options_unread"]
    derived = derive([values(POINT, flags=flags), values(POINT, "flex")])
    told = [meaning for _, meaning in Footnotes(derived).legend()]
    assert "substituted: the framework ran another implementation's kernel in place of the formula: see Kernels" in told
    assert "contended: the CPU was shared while samples were taken" in told
    assert any(one.startswith("options_unread: an option that was set is read by no kernel") for one in told)
    assert any(one.startswith("unchecked: ") and one.endswith("not ranked") for one in told)


def test_flags_are_marks_with_a_legend() -> None:
    """The same mark means the same in the whole report, and only what is used is explained."""
    rows = [values(POINT, flags=["unproven", "own <flag>"]), values(POINT, "flex", flags=["fallback"])]
    derived = derive(rows)
    notes = Footnotes(derived)
    assert [mark for mark, _ in notes.legend()] == ["a", "b", "c"]
    assert [told.split(":")[0] for _, told in notes.legend()] == ["fallback", "unproven", "own <flag>"]
    measured = derived.sections[0].cases[0].measured
    assert (notes.of(measured["flex"]), notes.of(measured["fa2"])) == (("a",), ("b", "c"))


def test_what_is_unproven_says_why_once() -> None:
    """Each reason of the records once; one that says none, as an older one, has what it may have been."""
    elftools = "cupti-python cannot be imported: No module named 'elftools'"
    points = [prefill(batch_size, 2048) for batch_size in (1, 2, 4)]
    rows = [values(point, flags=["unproven"], unproven_reason=elftools) for point in points]
    seen = "unproven: the kernels that ran could not be seen"
    ((_, told),) = Footnotes(derive(rows)).legend()
    assert told == f"{seen}: {elftools}"
    rows.append(values(points[0], "flex", flags=["unproven"]))
    ((_, told),) = Footnotes(derive(rows)).legend()
    assert told == f"{seen}: {elftools}; cupti-python is not where it ran, or failed"


def test_another_precision_is_marked_wherever_it_is_ranked(tmp_path: Path) -> None:
    """In the latencies, in the standings, in the verdict and in the plots."""
    rows = [values(POINT, "sage", latency_ms=1.0, precision_class="int8"), values(POINT, latency_ms=2.0)]
    derived = derive(rows)
    section = derived.sections[0]
    standings = standings_table(section, Footnotes(derived))
    assert [(row[0].text, row[0].marks, row[0].best) for row in standings.rows] == [
        ("fa2", (), True), ("sage", ("a",), False),
    ]  # fmt: skip
    assert any("Quantised results win and tie among those of their own class" in note for note in standings.notes)
    assert next(cell for cell in latency(derived).rows[0] if cell.text == "1.000").marks == ("a",)
    first = latency(derived).rows[0]
    assert ("fa2", "int8: sage") in [(cell.text, cell.note) for cell in first]
    assert [cell.text for cell in first if cell.best] == ["2.000"]
    assert "Quantised, sage (int8) has 2.00x the speed" in verdict(section)
    assert "sage *" in drawn_texts(svg(derived, tmp_path, "winners"))


def test_equal_failures_are_one_row() -> None:
    """Label, status and reason make the group; the worst comes first, with a command and a traceback."""
    rows = [values(prefill(b, 2048), "flex", status=Status.UNSUPPORTED) for b in (1, 4)]
    rows += [values(decode(1, 2048), "flex", status=Status.UNSUPPORTED)]
    rows += [values(POINT, "x", status=Status.CRASHED), values(POINT)]
    derived = derive(rows)
    found = failures(derived)
    assert [(one.status, one.label, len(one.cases), one.records) for one in found] == [
        ("crashed", "x", 1, 1),
        ("unsupported", "flex", 3, 3),
    ]
    assert found[0].command == "attnsweep impl=x compile=eager scenario=prefill name=h200"
    assert [column.title for column in failure_table(found).columns][-1] == "run the first again"
    assert counts(derived) == "5 records: 3 unsupported, 1 crashed, 1 ok."
    assert texts(status_table(derived))[-1] == ["all", "1", "3", "1"]


def test_reasons_that_differ_in_numbers_are_one_kind_of_failure() -> None:
    """The first stands for them, and how many others there are; a number within a name is no such number."""
    told = [
        "max error 0.31 is 48 times 2",
        "max error 0.5 is 9 times 2",
        "max error 0.5 is 9 times 2",
        "no sm90",
        "no sm80",
    ]
    rows = [
        values(prefill(n + 1, 2048), "flex", status=Status.INCORRECT, reason=reason) for n, reason in enumerate(told)
    ]
    found = failures(derive(rows))
    assert [(one.reason, len(one.cases), one.reasons) for one in found] == [
        ("max error 0.31 is 48 times 2", 3, 2), ("no sm80", 1, 1), ("no sm90", 1, 1),
    ]  # fmt: skip
    notes = [row[3].note for row in failure_table(found, short=True).rows]
    assert notes == ["and 1 alike with other numbers", "", ""]


def test_the_environment_says_what_the_records_say() -> None:
    """One column a machine, ranges for what changed, and the libraries' versions."""
    rows = [values(POINT, sm_clock_mhz=1500.0), values(decode(1, 2048), "xformers", sm_clock_mhz=1980.0)]
    rows += [values(POINT, hostname="node-2", driver="590.1")]
    derived = derive(rows)
    table = machine_table(derived)
    said = {row[0]: row[1:] for row in texts(table)}
    assert [column.title for column in table.columns] == ["", "NVIDIA H200 on node-1", "NVIDIA H200 on node-2"]
    assert said["driver"] == ["580.82", "590.1"]
    assert said["SM clock while timing, by NVML, rests included"][0] == "1500 to 1980 MHz"
    assert said["power limit"][0] == "700 W"
    assert ["flash-attn", "2.8.3", "fa2"] in texts(library_table(derived))


def test_markdown_rows_have_as_many_fields_as_the_heading() -> None:
    """Also with a pipe in the text."""
    columns = latency(derive([values(POINT)])).columns[:2]
    source = to_markdown(Table("a|b", (), columns, ((Cell("x|y", best=True), Cell("1", "2|", ("a",))),)))
    rows = [line for line in source.splitlines() if line.startswith("|")]
    assert {len(re.findall(r"(?<!\\)\|", row)) for row in rows} == {3}
    assert r"| **x\|y** | 1 (2\|) <sup>a</sup> |" in rows


def test_a_label_looks_the_same_in_every_plot() -> None:
    """Style depends on the labels, not on their order; one implementation's modes share colour and marker."""
    labels = [Label(f"impl{n}", "", mode, "", f"{n}{mode}") for n in range(8) for mode in ("eager", "default")]
    styles = assign(labels)
    assert assign(labels[::-1]) == styles
    looks = {(style.colour, style.marker, str(style.line)) for style in styles.values()}
    assert len(looks) == 16
    eager, compiled = styles["0eager"], styles["0default"]
    assert (eager.colour, eager.marker) == (compiled.colour, compiled.marker)
    assert (eager.filled, compiled.filled) == (True, False)


def test_ticks_are_the_real_lengths_and_the_axes_have_units(tmp_path: Path) -> None:
    """2048, 4096, 8192, with the unit; no powers of ten; text stays text."""
    derived = derive([values(prefill(1, s), impl) for s in (2048, 4096, 8192) for impl in SPEED])
    shown = drawn_texts(svg(derived, tmp_path, "latency"))
    assert {"2048", "4096", "8192", "seq_len (tokens)", "latency (ms)", *SPEED} <= set(shown)
    assert not any("\u00d7" in text or "10^" in text for text in shown)


@pytest.mark.parametrize(
    ("points", "kind", "axis"),
    [
        ([decode(8, 4096)], "bandwidth", "GB/s (compulsory bytes / latency)"),
        ([prefill(4, 8192)], "throughput", "TFLOP/s"),
    ],
)
def test_what_bounds_the_cases_decides_the_rate(points: list[Any], kind: str, axis: str, tmp_path: Path) -> None:
    """Bandwidth for decode, arithmetic for prefill, also where the device's peaks are unknown."""
    for bound in ("as measured", None):
        rows = [values(point) for point in points]
        rows = [row | {"bound": bound} if bound is None else row for row in rows]
        assert axis in drawn_texts(svg(derive(rows), tmp_path, kind))


def test_other_fields_become_small_multiples(tmp_path: Path) -> None:
    """One panel a batch size, up to six a figure, then another figure."""
    rows = [values(prefill(b, s)) for b in (1, 2, 4, 8, 16, 32, 64) for s in (512, 1024)]
    drawn = plots.draw_all(derive(rows), tmp_path, dict)
    stems = [plot.stem for plot in drawn if plot.kind == "latency"]
    titles = [drawn_texts((tmp_path / f"{stem}.svg").read_text()) for stem in stems]
    assert len(stems) == len(set(stems)) == 2
    assert [sum(text.startswith("batch_size") for text in one) for one in titles] == [6, 1]


def test_a_line_has_a_gap_where_its_case_failed(tmp_path: Path) -> None:
    """Nothing is drawn across a failure: two points without a neighbour make no stroke."""
    whole = derive([values(prefill(1, s)) for s in (1024, 2048, 4096)])
    rows = [values(prefill(1, s)) for s in (1024, 4096)] + [values(POINT, status=Status.OOM)]
    rows += [values(POINT, "naive")]
    line = r'<path d="([^"]*)" clip-path="[^"]*" style="fill: none; stroke: #0072b2'
    strokes = [
        sum(path.count("L ") for path in re.findall(line, svg(derived, tmp_path / name, "latency")))
        for name, derived in (("whole", whole), ("broken", derive(rows)))
    ]
    assert strokes == [2, 0]


def test_long_labels_stay_different_in_a_plot(tmp_path: Path) -> None:
    """What is cut to fit is told apart by a number."""
    variants = [f"{'x' * 80}{end}{'y' * 80}" for end in "ab"]
    derived = derive([values(POINT, variant=variant) for variant in variants])
    names = [text for text in drawn_texts(svg(derived, tmp_path, "winners")) if text.startswith("fa2[xxx")]
    assert len(names) == len(set(names)) == 2
