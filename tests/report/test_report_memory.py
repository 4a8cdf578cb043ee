"""Peak memory against length, and cells without a number in the plots."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from report_records import prefill, values, write

from attnsweep.errors import Status
from attnsweep.report import bars, lines, plots, unmeasured
from attnsweep.report.cli import main
from attnsweep.report.derive import derive
from attnsweep.report.memory import memory_table

LENGTHS = (1024, 2048, 4096, 8192)
OOM_AT = 8192


def fusion(status: Status = Status.OOM) -> list[dict[str, Any]]:
    """naive and fa2 over four lengths; naive ends with `status` at the last."""
    rows = [values(prefill(1, length), "fa2") for length in LENGTHS]
    rows += [values(prefill(1, length), "naive") for length in LENGTHS if length != OOM_AT]
    return [*rows, values(prefill(1, OOM_AT), "naive", status=status)]


def drawn(rows: list[dict[str, Any]], folder: Path) -> dict[str, str]:
    """The SVG of each plot by its kind."""
    return {plot.kind: (folder / f"{plot.stem}.svg").read_text() for plot in plots.draw_all(derive(rows), folder, dict)}


def texts(source: str) -> list[str]:
    return re.findall(r"<text[^>]*>([^<]*)</text>", source)


def marks(rows: list[dict[str, Any]], labels: list[str]) -> list[tuple[float, str, str]]:
    (section,) = derive(rows).sections
    return [(at, text, words) for at, text, (_, words) in unmeasured.failures_of(list(section.cases), labels)]


def test_memory_is_drawn_against_length_as_png_and_svg(tmp_path: Path) -> None:
    """A line an implementation, ticks in bytes, no timer, on the page and in Markdown beside latency."""
    assert main([str(write(tmp_path, fusion()))]) == 0
    report = tmp_path / "report"
    (svg,) = (report / "plots").glob("memory-*.svg")
    assert svg.with_suffix(".png").read_bytes().startswith(b"\x89PNG")
    shown = texts(svg.read_text())
    assert {"peak memory of a call", "seq_len (tokens)", "fa2", "naive", "1024", "8192"} <= set(shown)
    assert any(re.fullmatch(r"\d+ [MG]iB", text) for text in shown)
    assert not any("timer" in text for text in shown)
    assert f"plots/{svg.stem}.png" in (report / "summary.md").read_text()
    page = (report / "report.html").read_text()
    latency, memory = (page.index(f'alt="{start} against') for start in ("latency (ms)", "peak memory of a call"))
    assert latency < memory


def test_a_table_has_peak_and_workspace_of_each_result(tmp_path: Path) -> None:
    """In MiB, the least peak bold; what failed, does not say, or is less than the call's tensors has none."""
    one, other = prefill(1, 2048), prefill(1, 4096)
    graphs = {"peak_memory_bytes": 60 * 2**20, "workspace_bytes": 0}
    memory = {"peak_memory_bytes": 612 * 2**20, "workspace_bytes": 548 * 2**20}
    less = {"peak_memory_bytes": 64 * 2**20, "workspace_bytes": 2**19}
    none = {"peak_memory_bytes": None, "workspace_bytes": None}
    rows = [values(one, "naive", **memory), values(one, "fa2", **less), values(one, "flex", **none)]
    rows += [
        values(one, "fa2", compile="max_autotune", **graphs),
        values(one, "ceiling_copy", flags=["ceiling"], **graphs),
    ]
    rows += [values(other, "naive", status=Status.OOM), values(other, "fa2", **{**less, "peak_memory_bytes": 2**27})]
    (section,) = derive(rows).sections
    table = memory_table(section)
    head = [column.title for column in table.columns]
    cells = [dict(zip(head, row, strict=True)) for row in table.rows]
    shown = [[(row[impl].text, row[impl].note, row[impl].best) for impl in ("naive", "fa2")] for row in cells]
    assert shown == [[("612.0", "548", False), ("64.00", "0.5", True)], [("-", "", False), ("128.0", "0.5", False)]]
    assert head[-2:] == ["fa2", "naive"]  # the fastest first
    assert not {"flex", "fa2 (max_autotune)", "ceiling_copy"} & {*head}
    assert main([str(write(tmp_path, rows))]) == 0
    assert "64.00** (0.5)" in (tmp_path / "report/summary.md").read_text()
    assert "Memory: " in (tmp_path / "report/report.html").read_text()


def test_what_has_no_known_peak_is_not_in_the_legend_of_memory(tmp_path: Path) -> None:
    """As a call of CUDA graphs, whose memory the allocator does not see; the plot of latency has it."""
    graphs = {"compile": "max_autotune", "peak_memory_bytes": 2**20}
    rows = fusion() + [values(prefill(1, length), "fa2", **graphs) for length in LENGTHS]
    shown = {kind: texts(svg) for kind, svg in drawn(rows, tmp_path).items()}
    assert "fa2 (max_autotune)" in " ".join(shown["latency"])
    assert "max_autotune" not in " ".join(shown["memory"])


def test_without_any_peak_there_is_no_table_of_memory(tmp_path: Path) -> None:
    """As on a CPU."""
    rows = [{**row, "peak_memory_bytes": None, "workspace_bytes": None} for row in fusion()]
    assert not memory_table(derive(rows).sections[0]).rows
    assert main([str(write(tmp_path, rows))]) == 0
    assert "## Memory" not in (tmp_path / "report/summary.md").read_text()


@pytest.mark.parametrize("lost", ["two lengths", "no memory", "no memory but at two", "no positive memory"])
def test_without_three_points_there_is_no_plot_of_memory(lost: str, tmp_path: Path) -> None:
    """Two values do not say how it grows; zero is no amount."""
    rows = [values(prefill(1, length)) for length in LENGTHS]
    if lost == "two lengths":
        rows = rows[:2]
    for row in rows[2 if lost.endswith("two") else 0 :]:
        if lost != "two lengths":
            row["peak_memory_bytes"] = 0 if "positive" in lost else None
    assert "memory" not in drawn(rows, tmp_path)
    assert "memory" in drawn([values(prefill(1, length)) for length in LENGTHS[:3]], tmp_path)


def test_out_of_memory_is_a_mark_and_a_word_in_every_plot_against_the_axis(tmp_path: Path) -> None:
    """In latency, rate and memory; where nothing failed there is neither."""
    found = drawn(fusion(), tmp_path)
    for kind in ("latency", "throughput", "memory"):
        assert "out of memory" in texts(found[kind])
        assert "failed otherwise" not in texts(found[kind])
    clean = drawn([values(prefill(1, length)) for length in LENGTHS], tmp_path)
    assert not any("out of memory" in texts(source) for source in clean.values())


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (Status.OOM, "out of memory"),
        *((status, "failed otherwise") for status in (Status.CRASHED, Status.TIMEOUT, Status.ERROR)),
        *((status, "failed otherwise") for status in (Status.INCORRECT, Status.COMPILE_ERROR)),
        (Status.UNSUPPORTED, None),
        (Status.MISSING, None),
        (Status.OK, None),
    ],
)
def test_a_failure_has_its_mark_and_what_was_never_offered_is_a_gap(status: Status, words: str | None) -> None:
    """One for memory, another for all else that went wrong."""
    assert marks(fusion(status), ["fa2", "naive"]) == ([(OOM_AT, "naive", words)] if words else [])


def test_a_case_in_which_all_failed_is_on_the_axis(tmp_path: Path) -> None:
    """The length that nobody could do is what such a plot is for."""
    rows = fusion() + [values(prefill(1, 16384), impl, status=Status.OOM) for impl in ("fa2", "naive")]
    assert "16384" in texts(drawn(rows, tmp_path)["memory"])
    assert marks(rows, ["fa2", "naive"]) == [
        (16384, "fa2", "out of memory"), (8192, "naive", "out of memory"), (16384, "naive", "out of memory"),
    ]  # fmt: skip


@pytest.mark.parametrize("kind", ["latency", "memory", "throughput"])
def test_marks_stand_above_the_scale(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No tick and no value lies in their strip, none covers another, and their colours are the lines'."""
    figures: dict[str, Any] = {}
    monkeypatch.setattr(plots, "_save", lambda figure, path: figures.setdefault(path.name.split("-")[0], figure))
    rows = fusion() + [values(prefill(1, 16384), impl, status=Status.OOM) for impl in ("fa2", "naive")]
    plots.draw_all(derive(rows), tmp_path, dict)
    ax = figures[kind].axes[0]
    lines = {line.get_marker(): line for line in ax.lines if len(line.get_xdata()) > 1}
    crosses = [line for line in ax.lines if line.get_marker() == "x"]
    assert [(float(line.get_xdata()[0]), line.get_color()) for line in crosses] == [
        (16384, lines["o"].get_color()), (8192, lines["s"].get_color()), (16384, lines["s"].get_color()),
    ]  # fmt: skip
    assert len({(line.get_xdata()[0], line.get_ydata()[0]) for line in crosses}) == 3
    (strip,) = ax.patches
    low, high = ax.get_ylim()
    fraction = strip.get_y()
    edge = low + (high - low) * fraction if kind == "throughput" else low * (high / low) ** fraction
    assert all(fraction < line.get_ydata()[0] < 1 for line in crosses)
    assert all(tick <= edge * 1.001 for tick in ax.get_yticks())
    reached = [value for line in lines.values() for value in line.get_ydata() if value == value]
    assert max(reached) < edge


def test_without_work_there_is_no_rate_to_draw(tmp_path: Path) -> None:
    """A scale from zero to zero is none."""
    rows = [values(prefill(1, length), flops=0.0, bytes=0.0) for length in LENGTHS]
    assert "fa2" in texts(drawn(rows, tmp_path)["throughput"])


def test_a_figure_has_at_most_so_many_lines(tmp_path: Path) -> None:
    """The best are drawn, and how many are not is said; ten thousand would be no picture."""
    rows = [values(prefill(1, length), f"i{n:03d}") for n in range(50) for length in LENGTHS[:2]]
    found = drawn(rows, tmp_path)
    assert sum(bool(re.fullmatch(r"i\d{3}", text)) for text in texts(found["latency"])) == lines.LINES
    assert any("18 more not drawn" in text for text in texts(found["latency"]))
    assert sum(bool(re.fullmatch(r"i\d{3}", text)) for text in texts(found["winners"])) == bars.BARS
    assert any("10 more not drawn" in text for text in texts(found["winners"]))


def test_the_largest_tables_are_drawn(tmp_path: Path) -> None:
    """A report of a thousand tables is no matter of hours; those without plots say so."""
    rows = [
        values(prefill(1, 1024), impl, scenario=f"s{n:02d}") for n in range(32) for impl in ("a", "b")[: 1 + n % 31]
    ]
    derived = derive(rows)
    assert len(derived.sections) == 32
    assert {section.key.scenario for section in derived.sections} - {one.key.scenario for one in derived.largest} == {
        "s00", "s31",
    }  # fmt: skip
