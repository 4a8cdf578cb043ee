"""One model of a table, written as Markdown, for the terminal, or by the page's template."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from attnsweep.report.text import cut, line, markdown, markdown_code

if TYPE_CHECKING:
    from rich.table import Table as RichTable


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


def to_rich(table: Table) -> RichTable:
    """The table for rich; its text is literal: no markup and no control character reaches the terminal."""
    from rich import box
    from rich.table import Table as RichTable
    from rich.text import Text

    drawn = RichTable(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0), show_edge=False)
    for column in table.columns:
        # The heading of a column that does not wrap may not push the others off the screen.
        drawn.add_column(
            Text(cut(line(column.title), 24) if column.number else line(column.title)),
            justify="right" if column.number else "left",
            no_wrap=column.number,
            overflow="fold",
        )
    for row in table.rows:
        fields = []
        for cell in row:
            text = Text(line(cell.text), style=_style(cell))
            if cell.note:
                text.append(f" ({line(cell.note)})")
            if cell.marks:
                text.append(f" ^{line(','.join(cell.marks))}")
            fields.append(text)
        drawn.add_row(*fields)
    return drawn
