"""Text from records through every writer of text: whatever it is, it stays text."""

from __future__ import annotations

import contextlib
import csv
import io
import re
import unicodedata
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from report_records import prefill, values

from attnsweep import records
from attnsweep.errors import Status
from attnsweep.report import build, cli, html
from attnsweep.report.csvfile import COLUMNS, to_csv
from attnsweep.report.derive import derive
from attnsweep.report.labels import label_all
from attnsweep.report.load import Loaded, Row

POINT = prefill(1, 2048)

TEXTS = tuple(column.name for column in records.COLUMNS if column.type == "str" and column.name != "status")
LISTS = tuple(column.name for column in records.COLUMNS if column.type == "strs")

PIECES = (
    "<script>alert(1)</script>", "</td></table>", "<!--", "-->", "&lt;", '" onload="x', "' onerror='x", "]]>",
    "|", "\\|", "`", "``", "*", "_", "**b**", "[a](http://b)", "![a](b)", "www.c.d", "@me", "#1", "~~~", "---", "===",
    "\n", "\r", "\r\n", "\t", "\n\n## h", "\n| a |", "\x00", "\x07", "\x1b[2J", "\x1b]0;t\x07", "\x9b31m", "\x7f",
    "\u2028", "\u2029", "\u202e", "\u2066", "\u200f", "\u200b", "\ufeff", "\ufffe", "\u00a0", "\U000e0041",
    "=1+1", "+1", "-1", "@SUM(1)", "\uff1d1", " =1", "\r=1+1", ",", '"', '"",=1', ";", "'", "{{7*7}}", "{% raw %}",
    "[bold]x[/bold]", "$x^2$", "%s", "\\", "../../etc/passwd", "CON", " ", "a", "\u6f22", "\u05d0", "\U0001f600",
    "x" * 5000,
)  # fmt: skip
hostile = st.one_of(
    st.none(), st.lists(st.one_of(st.sampled_from(PIECES), st.text(max_size=4)), max_size=4).map("".join)
)

TAGS = {"html", "head", "meta", "title", "style", "body", "header", "h1", "h2", "h3", "p", "nav", "a", "main", "div",
        "table", "thead", "tbody", "tr", "th", "td", "strong", "sup", "span", "code", "details", "summary", "pre",
        "dl", "dt", "dd"}  # fmt: skip
ATTRIBUTES = {"lang", "charset", "http-equiv", "content", "name", "id", "class", "href", "scope", "tabindex", "role",
              "aria-label"}  # fmt: skip


class Page(HTMLParser):
    """The tags and attributes of a page."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.links: set[str] = set()
        self.feed(source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}
        self.links |= {value or "" for name, value in attrs if name in ("href", "src")}


def written(rows: list[Row]) -> tuple[str, str, str, str]:
    """Page, Markdown, CSV and terminal of a report without plots."""
    derived = derive(rows)
    loaded = Loaded(pa.table({}), 1, 0, tuple(f"a file: {row['sweep']}" for row in rows))
    content = build.content_of(derived, loaded, ())
    with contextlib.redirect_stdout(io.StringIO()) as shown:
        cli._show(derived, loaded, content, Path("report"))
    return html.to_html(content, Path()), build.to_summary(content), to_csv(derived), shown.getvalue()


def hidden(text: str) -> set[str]:
    """Characters that move, hide or turn what stands around them; a line break is none."""
    return {one for one in text if not one.isprintable() and one != "\n"}


def pipes(row: str) -> int:
    """Borders of a row of a Markdown table: pipes behind an even number of backslashes."""
    return len(re.findall(r"(?<!\\)(?:\\\\)*\|", row))


@settings(derandomize=True, max_examples=60, deadline=None)
@given(st.lists(st.fixed_dictionaries({}, optional=dict.fromkeys(TEXTS, hostile)), min_size=3, max_size=3), hostile)
def test_hostile_text_stays_text(texts: list[dict[str, Any]], flag: str | None) -> None:
    """No tag, no attribute, no link, no formula, no control character of a record's reaches a reader."""
    plain = [values(POINT), values(POINT, "naive"), values(POINT, "flex", status=Status.ERROR)]
    rows = [row | own for row, own in zip(plain, texts, strict=True)]
    rows = [row | {"protocol": 2} | {name: [flag or "", "x"] for name in LISTS} for row in rows]
    page, summary, table, shown = written(rows)
    parsed = Page(page)
    assert parsed.tags <= TAGS
    assert parsed.attributes <= ATTRIBUTES
    assert all(link.startswith("#") for link in parsed.links)
    # The page keeps the tabs of a traceback.
    assert hidden(page) <= {"\t"}
    assert not hidden(summary) | hidden(shown)
    assert not re.search(r"<(?!/?(?:sup|code)>|!-- -->)", summary)
    assert not re.search(r"(?<!\\)\]\(", summary)
    for block in summary.split("\n\n"):
        lines = [line for line in block.splitlines() if line.startswith("|")]
        assert len({pipes(line) for line in lines}) <= 1, lines
    fields = list(csv.reader(io.StringIO(table, newline="")))
    assert {len(row) for row in fields} == {len(COLUMNS)}
    assert len(fields) <= 1 + len(rows)
    assert not any(unicodedata.normalize("NFKC", f.strip()[:1]) in ("=", "+", "-", "@") for row in fields for f in row)
    assert hidden(table) <= {"\t"}


def test_a_long_reason_is_whole_in_the_csv_alone() -> None:
    """Ten thousand characters fill no screen and no page."""
    reason = "".join(f"{number:05d}" for number in range(2000))
    rows = [values(POINT), values(POINT, "naive", status=Status.OOM, reason=reason)]
    page, summary, table, shown = written(rows)
    assert reason in table
    for text, most in ((page, 3 * 2000), (summary, 2000), (shown, 2 * 300)):
        assert "00000000010000200003" in "".join(text.split())
        assert len(re.findall(r"\d{5}", text)) * 5 < most + 2000


def test_many_kinds_of_failure_do_not_fill_the_screen() -> None:
    """The terminal shows the first and counts the rest; the page has all, the tracebacks of the first."""
    rows = [
        values(
            POINT, "naive", status=Status.ERROR, cell_id=str(number), reason=f"kind{number:03d}", traceback="t" * 99999
        )
        for number in range(250)
    ]
    page, summary, _, shown = written([values(POINT), *rows])
    assert len(re.findall(r"kind\d{3}", shown)) == 20
    assert "and 230 more kinds" in " ".join(shown.split())
    assert len(set(re.findall(r"kind\d{3}", summary))) == 250
    assert page.count("<pre>") == 200
    assert len(page) < 6_000_000


@pytest.mark.parametrize("column", [name for name in TEXTS if name != "timer"])
@pytest.mark.parametrize("nothing", [None, ""])
def test_a_text_may_be_missing(column: str, nothing: str | None) -> None:
    """Nothing is there to be shown, and the rest is."""
    for row in (values(POINT, "naive"), values(POINT, "naive", status=Status.OOM)):
        page, summary, _, shown = written([values(POINT), row | {column: nothing}])
        assert all("fa2" in text for text in (page, summary, shown))


def test_lists_may_be_missing_or_empty() -> None:
    """The same for flags, kernels, reasons of throttling and windows."""
    for nothing in (None, []):
        _, summary, _, _ = written([values(POINT), values(POINT, "naive") | dict.fromkeys((*LISTS, "window"), nothing)])
        assert "naive" in summary


@given(st.lists(st.tuples(hostile, hostile, hostile), max_size=12))
@settings(derandomize=True, max_examples=60, deadline=None)
def test_labels_that_differ_have_texts_that_differ(named: list[tuple[str | None, str | None, str | None]]) -> None:
    """Also where a name looks like another one with its variant, mode or number."""
    named += [("a", "", "default"), ("a (default)", "", "eager"), ("a (default) #1", "", "eager")]
    labels = label_all([{"impl": i, "variant": v, "compile": c, "impl_version": ""} for i, v, c in named], False)
    assert len({label.text for label in labels}) == len(set(labels))


def test_a_version_of_many_digits_is_a_version() -> None:
    """Python refuses to read such a number at once."""
    rows = [values(POINT, impl_version="9" * 5000), values(POINT, impl_version="1.0", replicate=1)]
    assert derive(rows).older == 1
