"""Numbers as people read them, and text from records made harmless for each place where it is shown."""

from __future__ import annotations

import html
import math
import re
import unicodedata

from attnsweep import safe_text

#: First characters that a spreadsheet takes for a formula.
FORMULA = ("=", "+", "-", "@", "\t", "\n")

#: Characters of a line; longer ones lose their middle. summary.csv and results.parquet have the whole text.
LONGEST = 2000


def line(value: object) -> str:
    """`value` as one harmless line of LONGEST characters at most: a record may hold a library's whole log."""
    return cut(safe_text.line(value), LONGEST)


def cut(text: str, limit: int) -> str:
    """`text`, its middle cut out beyond `limit` characters."""
    if len(text) <= limit:
        return text
    head = (limit - 3) // 2
    return text[:head] + "..." + text[len(text) - (limit - 3 - head) :]


def markdown(value: object) -> str:
    """`value` as one line of literal Markdown, also inside a table: no markup, link or mention survives."""
    text = html.escape(line(value), quote=False)
    text = re.sub(r"([\\`*\[\]|~!$])", r"\\\1", text)
    text = re.sub(r"(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])", r"\\_", text)
    text = re.sub(r"@(?=\w)|#(?=\d)", lambda match: match[0] + "<!-- -->", text)
    text = re.sub(r"(?i)(https?|ftp)://", r"\1&#58;//", text)
    text = re.sub(r"(?i)\bwww\.", "www&#46;", text)
    # At the start of a paragraph these would make a heading, a list or a rule.
    text = re.sub(r"^([#+-])(?=\s)|^([=-])(?=[=-]+$)", r"\\\g<0>", text)
    return re.sub(r"^(\d+)([.)])(?=\s)", r"\1\\\2", text)


def markdown_code(value: object) -> str:
    """`value` as code of one line that may stand in a table; empty for None.

    A code span where the text holds nothing that could end it, else HTML's element with escaped text.
    """
    text = line(value)
    if not text:
        return ""
    return f"<code>{markdown(text)}</code>" if re.search(r"[`|<>&\\]", text) else f"`{text}`"


def csv_text(value: object) -> str:
    """`value` as a CSV field that no spreadsheet takes for a formula; its line breaks are newlines.

    A carriage return that a writer leaves unquoted would begin a row, and a formula with it. Programs for East Asian
    text take the wide forms of the characters in FORMULA for them.
    """
    text = safe_text.visible("" if value is None else re.sub(r"\r\n?", "\n", str(value)), keep="\n\t")
    starts = (text[:1], unicodedata.normalize("NFKC", text.lstrip()[:1]))
    return f"'{text}" if any(one.startswith(FORMULA) for one in starts) else text


def digits(value: float | None, significant: int = 4) -> str:
    """A number with so many significant digits and no exponent (0.02680, 1.591, 12345); "-" for None."""
    if value is None or not math.isfinite(value):
        return "-"
    if value == 0:
        return "0"
    # From the rounded number: 0.99999 is 1.000, not 1.0000.
    power = int(f"{value:.{significant - 1}e}".partition("e")[2])
    places = max(0, min(9, significant - 1 - power))
    return f"{value:.{places}f}"


def rate(per_second: float | None) -> str:
    """A rate with three digits and thousands as k, M or G: 950, 72.9k, 31.7M; "-" for None."""
    if per_second is None or not math.isfinite(per_second):
        return "-"
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        # What rounds up to a thousand of a unit is one of the next
        if per_second >= 0.9995 * size:
            return digits(per_second / size, 3) + unit
    return digits(per_second, 3)


def times(ratio: float | None) -> str:
    """A ratio as a factor: 14.2x; "-" for None."""
    return "-" if ratio is None else f"{digits(ratio, 3)}x"


def percent(share: float, significant: int = 2) -> str:
    """A share as a percentage, with nothing between it and its sign that a line could break at: 9.3%."""
    return f"{digits(100 * share, significant)}%"


def more(value: float | None, base: float | None) -> str:
    """By how much a value is above another, as a percentage with its sign: +7.2%; "-" where one is not known."""
    if value is None or not base:
        return "-"
    # Adding zero makes of -0.0 a +0.0.
    return f"{round(100 * (value / base - 1), 1) + 0.0:+.1f}%"


def whole(value: float | None) -> str:
    """A number of an axis without a needless fraction: 4096, 0.5; "-" for None."""
    if value is None or not math.isfinite(value):
        return "-"
    return str(int(value)) if value == int(value) else f"{value:g}"


def span(values: list[float], unit: str) -> str:
    """The range of `values` with its unit: 1500 to 1980 MHz, 700 W; empty for none."""
    if not values:
        return ""
    low, high = (f"{round(value, 1):g}" for value in (min(values), max(values)))
    return f"{low} {unit}" if low == high else f"{low} to {high} {unit}"


def count(number: int, noun: str) -> str:
    """A number with its noun: 1 case, 2 cases."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def listing(parts: list[str]) -> str:
    """Words joined as in a sentence: a, b and c."""
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}" if parts else ""
