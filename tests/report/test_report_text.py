"""Numbers as people read them, and text that can do no harm."""

from __future__ import annotations

import pytest

from attnsweep.report import text


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0.0268, "0.02680"), (1.5914, "1.591"), (0.99999, "1.000"), (12345.6, "12346"), (0, "0"), (None, "-")],
)
def test_numbers_have_four_digits_and_no_exponent(value: float | None, shown: str) -> None:
    """Also the smallest and the largest."""
    assert text.digits(value) == shown


def test_not_a_number_is_a_dash() -> None:
    """NaN and infinity never reach a table."""
    assert text.digits(float("nan")) == text.digits(float("inf")) == "-"
    assert text.whole(float("nan")) == "-"


def test_a_length_is_a_whole_number() -> None:
    """4096, not 4096.0 and not 4e3."""
    assert [text.whole(one) for one in (4096.0, 131072.0, 0.5)] == ["4096", "131072", "0.5"]


@pytest.mark.parametrize(
    ("per_second", "shown"),
    [(None, "-"), (950.4, "950"), (72_852.0, "72.9k"), (999_700.0, "1.00M"), (31_663_239.0, "31.7M"), (2e9, "2.00G")],
)
def test_rates_have_three_digits_and_a_unit(per_second: float | None, shown: str) -> None:
    assert text.rate(per_second) == shown


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\n", " =", " \n=", "\uff1d", "\uff20"])
def test_no_field_of_a_spreadsheet_is_a_formula(start: str) -> None:
    """A leading apostrophe makes it text, also before the wide forms."""
    assert text.csv_text(start + "cmd|' /C calc'!A0").startswith("'" + start)
    assert text.csv_text("fa2=1") == "fa2=1"


def test_no_carriage_return_reaches_a_spreadsheet() -> None:
    """It would end a row that the writer did not quote, and what follows would begin one."""
    assert text.csv_text("a\r=1+1\r\nb") == "a\n=1+1\nb"


def test_a_long_text_loses_its_middle() -> None:
    """Beginning and end stay, the line has its limit."""
    shown = text.line("a" * 9000 + "z" * 9000)
    assert (len(shown), shown[:3], shown[-3:]) == (text.LONGEST, "aaa", "zzz")


@pytest.mark.parametrize(
    ("raw", "escaped"),
    [
        ("a|b", r"a\|b"),
        ("`rm`", r"\`rm\`"),
        ("<img src=x>", "&lt;img src=x&gt;"),
        ("[x](http://y)", r"\[x\](http&#58;//y)"),
        ("www.example.org", "www&#46;example.org"),
        ("block_q=64", "block_q=64"),
        ("_a_ *b* ~c~", r"\_a\_ \*b\* \~c\~"),
        ("one\ntwo", "one two"),
        ("@someone fixes #12", "@<!-- -->someone fixes #<!-- -->12"),
        ("# heading", r"\# heading"),
        ("1. item", r"1\. item"),
        ("---", r"\---"),
        ("0.0268", "0.0268"),
        ("a\\|b", r"a\\\|b"),
        ("&lt;", "&amp;lt;"),
    ],
)
def test_markdown_shows_text_literally(raw: str, escaped: str) -> None:
    """No markup, no HTML, no link, no mention, no break of a table's row."""
    assert text.markdown(raw) == escaped


def test_code_in_markdown_cannot_end_its_span_or_its_row() -> None:
    """What could is written as HTML's element, with its text escaped like any other."""
    assert text.markdown_code("attnsweep impl=fa2 -m") == "`attnsweep impl=fa2 -m`"
    assert text.markdown_code("a ``b`` | <c>") == r"<code>a \`\`b\`\` \| &lt;c&gt;</code>"
    assert text.markdown_code("a\nb") == "`a b`"
    assert text.markdown_code(None) == ""
