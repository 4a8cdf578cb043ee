"""The command end to end: files, exit codes, hostile records, and the terminal."""

from __future__ import annotations

import base64
import csv
import html.parser
import importlib.metadata
import io
import re
import sys
from pathlib import Path
from typing import Any

import pytest
from report_records import decode, flux, prefill, sweep, values, write
from rich.console import Console

from attnsweep.errors import Status
from attnsweep.report.cli import main
from attnsweep.report.tables import Cell, Column, Table, to_rich

POINT = prefill(1, 2048)
FILES = ["report.html", "results.parquet", "summary.csv", "summary.md"]

MARKUP = "<script>alert(1)</script><img src=x onerror=alert(2)>"
HOSTILE = f"=1+1|a `b` [c](http://d) {MARKUP}\n## e\x1b[31m[bold]f[/bold] \u202e$x^2$ @g \u6f22"


class Page(html.parser.HTMLParser):
    """The tags and the visible text of a page."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of a sweep in the H200's shape."""
    folder = write(tmp_path_factory.mktemp("sweep"), sweep())
    assert main([str(folder)]) == 0
    return folder / "report"


def table(folder: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO((folder / "summary.csv").read_text())))


def test_all_files_are_written(written: Path) -> None:
    """The four files, and each plot twice."""
    assert sorted(path.name for path in written.iterdir() if path.is_file()) == FILES
    stems = {path.stem for path in (written / "plots").iterdir()}
    assert len(stems) == 14
    for stem in stems:
        assert (written / "plots" / f"{stem}.png").read_bytes().startswith(b"\x89PNG")
        assert "<text" in (written / "plots" / f"{stem}.svg").read_text()
    assert {stem.split("-")[0] for stem in stems if "decode" in stem} == {"latency", "bandwidth", "load", "winners"}
    assert {stem.split("-")[0] for stem in stems if "prefill" in stem} == {
        "latency", "throughput", "memory", "load", "winners",
    }  # fmt: skip


def test_the_csv_has_a_row_for_each_case_and_label(written: Path) -> None:
    """Failures included, with their status and without a latency."""
    rows = table(written)
    assert len(rows) == 288
    assert {row["status"] for row in rows} == {str(status) for status in Status}
    assert all(bool(row["latency_ms"]) == (row["status"] == "ok") for row in rows)
    one = next(r for r in rows if r["label"] == "naive" and r["case"].startswith("b1-h32x8-q1-kv2048"))
    assert (one["baseline"], one["speedup"], one["timer"]) == ("naive", "1", "graph")


def test_the_markdown_links_to_plots_that_exist(written: Path) -> None:
    """Every image is a relative link to a file."""
    links = re.findall(r"!\[.*\]\((.*)\)", (written / "summary.md").read_text())
    assert len(links) == 14
    assert all((written / link).is_file() for link in links)


def test_the_page_needs_nothing_else(written: Path) -> None:
    """No script, no network: every source is a data URI, every link an anchor that exists."""
    page = Page((written / "report.html").read_text())
    ids = {attributes["id"] for _, attributes in page.tags if "id" in attributes}
    for tag, attributes in page.tags:
        assert tag not in ("script", "link", "iframe", "object")
        assert (attributes.get("src") or "data:").startswith("data:")
        href = attributes.get("href")
        assert href is None or (href.startswith("#") and href[1:] in ids)
    for section in ("Verdict", "Tables", "Plots", "Winners", "Failures", "Environment", "How it was measured"):
        assert section in page.text


def test_no_window_makes_the_words_of_a_plot_small(written: Path) -> None:
    """A legend's words of 8.5 points stay above 9 pixels; where a plot does not fit it scrolls."""
    images = [attrs for tag, attrs in Page((written / "report.html").read_text()).tags if tag == "img"]
    assert len(images) == 14
    for image in images:
        svg = base64.b64decode((image["src"] or "").partition("base64,")[2]).decode()
        own, least = (
            re.search(r'<svg [^>]*width="([\d.]+)pt"', svg),
            re.search(r"min-width: (\S+)in", image["style"] or ""),
        )
        assert own is not None
        assert least is not None
        assert 8.5 * 96 * float(least[1]) / float(own[1]) > 9


def test_the_tables_name_baseline_and_timer(written: Path) -> None:
    """prefill's naive ran out of memory once: there the baseline is the slowest that is ok."""
    summary = (written / "summary.md").read_text()
    assert "Baseline: naive." in summary
    assert "Baseline: sdpa_math, the slowest that is ok in every case." in summary
    assert "Timer: graph (a CUDA graph of many calls)." in summary


def test_a_percentage_is_written_in_one_way(written: Path) -> None:
    """In prose as in tables: no line breaks between a number and its sign."""
    for name in ("summary.md", "report.html"):
        text = (written / name).read_text()
        assert re.search(r"\d%", text)
        assert not re.search(r"\d\s+%", text)


def test_the_same_records_give_the_same_files(written: Path, tmp_path: Path) -> None:
    """Byte for byte, so that a committed report changes only with its data."""
    assert main([str(written / "results.parquet"), "--out", str(tmp_path / "again")]) == 0
    for path in sorted(written.rglob("*")):
        if path.is_file():
            assert (tmp_path / "again" / path.relative_to(written)).read_bytes() == path.read_bytes(), path


def test_a_second_run_replaces_its_own_plots_and_nothing_else(tmp_path: Path) -> None:
    """A plot of a table that is gone goes, a file of the user's stays."""
    plots = write(tmp_path, [values(POINT)]) / "report" / "plots"
    plots.mkdir(parents=True)
    for name in ("latency-old.png", "load-old.svg", "mine.png"):
        (plots / name).write_text("")
    assert main([str(tmp_path)]) == 0
    assert not (plots / "latency-old.png").exists()
    assert not (plots / "load-old.svg").exists()
    assert (plots / "mine.png").exists()


@pytest.mark.parametrize("where", ["impl", "variant", "reason", "device_name", "traceback", "case", "hostname", "all"])
def test_text_from_records_does_no_harm(where: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Whatever a record says stays text: in HTML, Markdown, CSV, on the terminal, and in file names."""
    columns = ("impl", "variant", "reason", "device_name", "traceback", "case", "hostname", "scenario", "axis",
               "command", "impl_version", "distribution", "dtype", "direction", "torch", "flags",
               "kernel_names", "autotuned_configs", "load_throttle", "throttle")  # fmt: skip
    hostile: dict[str, Any] = dict.fromkeys(columns if where == "all" else [where], HOSTILE)
    lists = ("flags", "kernel_names", "autotuned_configs", "load_throttle", "throttle")
    hostile |= {name: [HOSTILE] for name in lists if name in hostile}
    rows = [values(POINT, "fa2") | {name: value for name, value in hostile.items() if name != "reason"}]
    rows += [values(POINT, "naive", status=status) | hostile for status in Status if status is not Status.OK]
    write(tmp_path, [row | {"cell_id": str(number)} for number, row in enumerate(rows)])
    assert main([str(tmp_path)]) == 0
    report = tmp_path / "report"
    page = (report / "report.html").read_text()
    allowed = {"html", "head", "meta", "title", "style", "body", "header", "h1", "h2", "h3", "p", "nav", "a", "main",
               "div", "table", "thead", "tbody", "tr", "th", "td", "strong", "sup", "span", "code", "figure",
               "img", "details", "summary", "pre", "dl", "dt", "dd"}  # fmt: skip
    parsed = Page(page)
    assert {tag for tag, _ in parsed.tags} <= allowed
    assert all("onerror" not in attributes for _, attributes in parsed.tags)
    assert "alert(1)" in parsed.text
    summary = (report / "summary.md").read_text()
    assert "<script" not in summary
    assert "<img" not in summary
    assert "](http://" not in summary
    assert "\n## e" not in summary
    widths = {line.count("|") - line.count(r"\|") for line in summary.splitlines() if line.startswith("| fa2")}
    assert len(widths) <= 2
    for row in csv.reader(io.StringIO((report / "summary.csv").read_text())):
        assert not any(field.startswith(("=", "+", "-", "@")) for field in row)
    out = capsys.readouterr().out
    for shown in (out, page, summary):
        assert "\x1b" not in shown
        assert "\u202e" not in shown
    assert all(re.fullmatch(r"[a-z0-9-]+\.(png|svg)", path.name) for path in (report / "plots").iterdir())


SCENES: dict[str, list[dict[str, Any]]] = {
    "a single row": [values(POINT)],
    "only failures": [values(POINT, impl, status=Status.OOM) for impl in ("fa2", "naive")],
    "one implementation": [values(prefill(1, length)) for length in (2048, 4096)],
    "no axis": [values(POINT, impl, axis=None, axis_value=None) for impl in ("fa2", "naive")],
    "a null axis value": [values(POINT, axis_value=None), values(prefill(1, 4096), "naive")],
    "mixed devices": [
        values(POINT),
        values(POINT, device="cpu", device_name="Some CPU", gpu_name=None, timer="host", bound=None),
    ],
    "an empty name": [values(POINT, ""), values(POINT, "_hidden")],
    "not a number": [values(POINT, latency_ci_low_ms=float("nan"), tflops=float("inf"), power_w=float("nan"))],
    "a negative axis": [values(POINT, axis_value=-1.0), values(decode(1, 2048)), values(flux(128))],
}


@pytest.mark.parametrize("scene", SCENES)
def test_every_set_of_records_makes_a_report(scene: str, tmp_path: Path) -> None:
    """Exit code 0 and all files, whatever the rows say."""
    rows = [row | {"cell_id": str(number)} for number, row in enumerate(SCENES[scene])]
    assert main([str(write(tmp_path, rows))]) == 0
    assert sorted(path.name for path in (tmp_path / "report").iterdir() if path.is_file()) == FILES
    assert len(table(tmp_path / "report")) == len(rows)


def test_rows_of_null_make_a_report(tmp_path: Path) -> None:
    """Only what a record must have is there."""
    rows = [dict.fromkeys(values(POINT)) | {"status": "ok", "latency_ms": 1.0}]
    rows.append(dict.fromkeys(values(POINT)) | {"status": "error", "reason": "x"})
    assert main([str(write(tmp_path, rows))]) == 0


def test_a_file_is_reported_beside_itself_and_out_goes_elsewhere(tmp_path: Path) -> None:
    """report/ in the first DIR, in the parent of a file, or where --out says."""
    folder = write(tmp_path / "a", [values(POINT)])
    assert main([str(folder), "--out", str(tmp_path / "else" / "where")]) == 0
    assert not (folder / "report").exists()
    assert main([str(tmp_path / "else" / "where" / "results.parquet")]) == 0
    assert (tmp_path / "else" / "where" / "report" / "report.html").is_file()


def test_the_baseline_of_the_command_line_is_used(tmp_path: Path) -> None:
    """--baseline is named in the table."""
    folder = write(tmp_path, [values(POINT, impl) for impl in ("fa2", "flex", "naive")])
    assert main([str(folder), "--baseline", "flex"]) == 0
    assert "Baseline: flex (chosen)." in (folder / "report" / "summary.md").read_text()
    assert {row["baseline"] for row in table(folder / "report")} == {"flex"}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "DIR"),
        (["{nothing}"], "no records below"),
        (["{nothing}/missing"], "does not exist"),
        (["{folder}", "--baseline", "fa9"], "choose one of fa2"),
        (["{folder}", "--versions", "some"], "invalid choice: 'some'"),
        (["{folder}", "--frobnicate"], "--frobnicate"),
        ([""], "argument DIR: a path is empty"),
        (["{folder}", "--out", ""], "argument --out: a path is empty"),
        (["{folder}", "--out", "{folder}/cells/cell-00000.parquet"], "cannot be written"),
    ],
)
def test_a_mistake_is_one_sentence_and_exit_code_2(
    arguments: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """On standard error, with nothing on standard output and no report begun."""
    folder = write(tmp_path / "sweep", [values(POINT)])
    (tmp_path / "nothing").mkdir()
    places = {"folder": folder, "nothing": tmp_path / "nothing"}
    assert main([one.format(**places) for one in arguments]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("attnsweep-report: ")
    assert err.count("\n") == 1
    assert said in err
    assert not (folder / "report").exists()


def test_a_path_that_is_left_out_can_be_copied(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is in one line however narrow the terminal is."""
    monkeypatch.setenv("COLUMNS", "40")
    damaged = write(tmp_path, [values(POINT)]) / "cells" / f"{'long-' * 20}name.parquet"
    damaged.write_bytes(b"noise")
    assert main([str(tmp_path)]) == 0
    assert any(str(damaged) in line for line in capsys.readouterr().out.splitlines())


def test_the_terminal_gets_the_verdict_in_80_columns(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Plain text without colour codes where it is no terminal, no line over the width, no broken number."""
    monkeypatch.setenv("COLUMNS", "80")
    modes = {"eager": 1.1, "max_autotune_no_cudagraphs": 1.0}
    speeds = {"sdpa_efficient": 0.02, "naive": 1.0}
    rows = [
        values(prefill(4, length), impl, mode, latency_ms=length * slow * ms)
        for length in (2048, 8192)
        for impl, ms in speeds.items()
        for mode, slow in modes.items()
    ]
    assert main([str(write(tmp_path, rows))]) == 0
    lines = capsys.readouterr().out.splitlines()
    winner = "sdpa_efficient (max_autotune_no_cudagraphs)"
    assert f"{winner} is fastest in 2 of 2 cases, 55.0x the speed of naive" in " ".join(" ".join(lines).split())
    assert all(len(line) <= 80 for line in lines[:-1])
    assert lines[-1] == f"Report: {tmp_path / 'report' / 'report.html'}"
    for row in table(tmp_path / "report"):
        if row["rank"] == "1":
            assert any(row["axis_value"] in line and row["latency_ms"][:4] in line for line in lines)


def test_neither_hydra_nor_torch_is_imported() -> None:
    """The report runs on a laptop that has neither."""
    import subprocess

    code = (
        "import sys, attnsweep.report.cli, attnsweep.report.build, attnsweep.report.derive\n"
        "sys.exit(any(name in sys.modules for name in ('torch', 'hydra', 'jax', 'matplotlib.pyplot')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_terminal_explains_only_the_marks_that_it_shows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A ceiling's and a slower implementation's are in the files alone."""
    rows = [values(POINT, "fa2", latency_ms=1.0, flags=["unproven"])]
    rows.append(values(POINT, "naive", latency_ms=8.0))
    rows.append(values(POINT, "flex", latency_ms=9.0, flags=["long_call"]))
    rows.append(values(POINT, "ceiling_copy", latency_ms=0.1, flags=["ceiling"]))
    folder = write(tmp_path, rows)
    assert main([str(folder)]) == 0
    said = capsys.readouterr().out
    assert re.findall(r"^\^\w+  (\w+):", said, re.MULTILINE) == ["unproven"]
    summary = (folder / "report" / "summary.md").read_text()
    assert all(f"{flag}:" in summary for flag in ("unproven", "long_call", "ceiling"))


def test_a_terminal_breaks_names_between_their_parts() -> None:
    """First at blanks, the widest column first, then after an underscore, never in the middle of a word."""
    names = ("sdpa_cudnn (default)", "sage2_fp16_triton (max_autotune_no_cudagraphs)")
    table = Table("", (), (Column("a"), Column("b"), Column("ms", True)), (tuple(map(Cell, (*names, "0.3270"))),))

    def shown(width: int) -> list[list[str]]:
        console = Console(file=io.StringIO(), width=width)
        console.print(to_rich(table, width))
        lines = console.file.getvalue().splitlines()[2:]
        assert all(len(line) <= width for line in lines)
        return [line.split() for line in lines]

    assert shown(80) == [["sdpa_cudnn", "(default)", *names[1].split(), "0.3270"]]
    assert shown(62) == [
        ["sdpa_cudnn", "(default)", "sage2_fp16_triton", "0.3270"], ["(max_autotune_no_cudagraphs)"],
    ]  # fmt: skip
    assert shown(57) == [
        ["sdpa_cudnn", "sage2_fp16_triton", "0.3270"], ["(default)", "(max_autotune_no_cudagraphs)"],
    ]  # fmt: skip
    assert shown(40) == [
        ["sdpa_cudnn", "sage2_fp16_triton", "0.3270"], ["(default)", "(max_autotune_no_"], ["cudagraphs)"],
    ]  # fmt: skip


def test_a_table_that_no_break_makes_fit_is_wider_than_the_terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A row a line, in place of names in columns of two letters."""
    variants = [f"kernel_options.BLOCK_M={m},kernel_options.BLOCK_N={n}" for m in (64, 128) for n in (64, 128)]
    cases = [prefill(batch, length) for length in (1024, 2048) for batch in (1, 4)]
    rows = [values(case, "flex", variant=variant) for case in cases for variant in variants]
    monkeypatch.setenv("COLUMNS", "50")
    assert main([str(write(tmp_path, rows))]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    heading = next(line for line in lines if line[:2] == ["seq_len", "batch_size"])
    at = lines.index(heading)
    assert heading[2] == "fastest"
    shown = lines[at + 2 : at + 2 + len(cases)]
    assert [line[:2] for line in shown] == [["1024", "1"], ["1024", "4"], ["2048", "1"], ["2048", "4"]]
    assert all(line[2].startswith("flex[BLOCK_M=") and line[2].endswith("]") for line in shown)


def test_the_version_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    """The package's, as `attnsweep --version` says it."""
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out == f"attnsweep {importlib.metadata.version('attnsweep')}\n"


def test_the_page_links_to_each_of_its_parts(written: Path) -> None:
    """Accuracy and Compilation too, and a table of many columns says that it scrolls."""
    page = (written / "report.html").read_text()
    parts = re.findall(r'<h2 id="(\w+)"', page)
    assert {"accuracy", "compilation"} <= set(parts)
    assert sorted(re.findall(r'<a href="#(\w+)"', page.partition("</nav>")[0])) == sorted(parts)
    assert page.count("the table scrolls sideways") == len(re.findall(r"(?:<th .*\n){9,}</tr></thead>", page)) > 0
