"""One model of a table, written as Markdown, for the terminal, or by the page's template."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from attnsweep.report.text import cut, line, markdown, markdown_code

if TYPE_CHECKING:
    from rich.table import Table as RichTable
    from rich.text import Text


@dataclass(frozen=True)
class Cell:
    """One field: `text`, a smaller `note` after it, and footnote `marks`; `detail` is a note of the page alone.

    `best` stands out in bold and colour, `bold` in bold alone; `code` is what a shell is given.
    """

    text: str
    note: str = ""
    marks: tuple[str, ...] = ()
    best: bool = False
    bold: bool = False
    dim: bool = False
    code: bool = False
    detail: str = ""


@dataclass(frozen=True)
class Column:
    """A heading; `number` aligns to the right and never wraps."""

    title: str
    number: bool = False


@dataclass(frozen=True)
class Table:
    """A heading, sentences about the table, and its fields. All text is raw: each writer escapes it."""

    title: str
    notes: tuple[str, ...]
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]


def to_markdown(table: Table, level: int = 3) -> str:
    """The table with its heading and notes as GitHub's Markdown."""
    lines = [f"{'#' * level} {markdown(table.title)}", ""] if table.title else []
    for note in table.notes:
        lines += [markdown(note), ""]
    if table.rows:
        lines.append("| " + " | ".join(markdown(column.title) for column in table.columns) + " |")
        lines.append("|" + "|".join("--:" if column.number else ":--" for column in table.columns) + "|")
        lines += ["| " + " | ".join(_markdown_cell(cell) for cell in row) + " |" for row in table.rows]
    return "\n".join(lines).rstrip("\n") + "\n"


def _markdown_cell(cell: Cell) -> str:
    text = markdown_code(cell.text) if cell.code else markdown(cell.text)
    if (cell.best or cell.bold) and text:
        text = f"**{text}**"
    if cell.note:
        text += f" ({markdown(cell.note)})"
    if cell.marks:
        text += f" <sup>{markdown(','.join(cell.marks))}</sup>"
    return text


def _style(cell: Cell) -> str:
    return "bold" if cell.best or cell.bold else "dim" if cell.dim else ""


def to_rich(table: Table, width: int) -> RichTable:
    """The table for a terminal of `width` columns; its text is literal: no markup and no control character reaches it.

    Text that has to be broken is so at a blank, or within a name after one of BREAKS. Where that is not enough nothing
    is, and the table is wider than the terminal, which breaks its rows: names in columns of two letters say nothing.
    """
    from rich import box
    from rich.table import Table as RichTable
    from rich.text import Text

    # The heading of a column that does not wrap may not push the others off the screen.
    titles = [cut(line(column.title), 24) if column.number else line(column.title) for column in table.columns]
    rows = [[_rich_cell(cell) for cell in row] for row in table.rows]
    texts = [[title, *(row[place].plain for row in rows)] for place, title in enumerate(titles)]
    room = _widths(texts, [column.number for column in table.columns], width)
    whole = _total(room) if _total(room) > width else None
    drawn = RichTable(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0), show_edge=False, width=whole)
    for column, title in zip(table.columns, titles, strict=True):
        justify: Literal["right", "left"] = "right" if column.number else "left"
        drawn.add_column(Text(title), justify=justify, no_wrap=column.number, overflow="fold")
    for row in rows:
        drawn.add_row(*(_broken(text, most) for text, most in zip(row, room, strict=True)))
    return drawn


def _rich_cell(cell: Cell) -> Text:
    from rich.text import Text

    text = Text(line(cell.text), style=_style(cell))
    if cell.note:
        text.append(f" ({line(cell.note)})")
    if cell.marks:
        text.append(f" ^{line(','.join(cell.marks))}")
    return text


#: After these a name may be broken.
BREAKS = "_-/,=]"


def _words(text: str) -> list[str]:
    return re.findall(r"\S+\s*|^\s+", text)


def _pieces(text: str) -> list[str]:
    """A text in pieces that stay whole."""
    return re.findall(rf"[^\s{re.escape(BREAKS)}]*[{re.escape(BREAKS)}]*\s*", text)


def _widths(texts: list[list[str]], numbers: list[bool], width: int) -> list[int]:
    """The width of each column: what it needs, or less where that is too much for all, but for the words of its text,
    or, where that is still too much, the pieces of them; what it needs again where even these are.

    The widest gives way first; numbers never do. `texts` are the columns'.
    """
    from rich.cells import cell_len

    needed = [max(map(cell_len, its)) for its in texts]
    found = list(needed)
    for parts in (_words, _pieces):
        least = [
            most if number else max((cell_len(one.rstrip()) for text in its for one in parts(text)), default=0)
            for its, most, number in zip(texts, found, numbers, strict=True)
        ]
        while _total(found) > width:
            able = [place for place, most in enumerate(found) if most > least[place]]
            if not able:
                break
            found[max(able, key=lambda place: found[place])] -= 1
    return found if _total(found) <= width else needed


def _total(widths: list[int]) -> int:
    """The width of a table of columns of these widths, with two blanks between each two."""
    return sum(widths) + 2 * (len(widths) - 1)


def _broken(text: Text, most: int) -> Text:
    """`text` in lines of at most so many columns, as far as its pieces allow."""
    from rich.cells import cell_len
    from rich.text import Text

    parts = [
        part for word in _words(text.plain) for part in ([word] if cell_len(word.rstrip()) <= most else _pieces(word))
    ]
    ends, used, at = [], 0, 0
    for part in parts:
        if used and used + cell_len(part.rstrip()) > most:
            ends.append(at)
            used = 0
        used += cell_len(part)
        at += len(part)
    lines = text.divide(ends)
    for one in lines:
        one.rstrip()
    return Text("\n").join(lines)
