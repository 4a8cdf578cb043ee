"""Text from outside acts on no terminal and hides nothing, in whatever is printed or written."""

from __future__ import annotations

import io
from collections.abc import Callable

import pytest
from rich.console import Console

from attnsweep import messages, safe_text, terminal
from attnsweep.errors import ConfigError
from attnsweep.report import text


def test_control_and_bidirectional_characters_become_visible() -> None:
    """An escape sequence is text, a right-to-left override too; newlines stay only where they may."""
    assert safe_text.visible("\x1b[31mred\u202e\x00") == "\\x1b[31mred\\u202e\\x00"
    assert safe_text.visible("a\nb", keep="\n") == "a\nb"
    assert safe_text.visible("\ud800 \U000e0001 \xad") == "\\ud800 \\U000e0001 \\xad"


def said(value: str) -> str:
    """What terminal.say prints."""
    out = io.StringIO()
    terminal.say(Console(file=out, width=80), value)
    return out.getvalue().removesuffix("\n")


@pytest.mark.parametrize("form", [safe_text.line, text.line, said, lambda value: messages.sentence(ConfigError(value))])
@pytest.mark.parametrize(
    ("value", "line"),
    [
        (" a\n\t b\r\n", "a b"),
        ("\x1b[2J \x9b31m \u202egnirts", "\\x1b[2J \\x9b31m \\u202egnirts"),
        ("é 漢 \ud83d", "é 漢 \\ud83d"),
    ],
)
def test_a_line_is_the_same_wherever_it_is_shown(form: Callable[[str], str], value: str, line: str) -> None:
    """In reports, on the terminal and in the sentence of a mistake."""
    assert form(value) == line


def test_nothing_is_no_text() -> None:
    """Not the word None."""
    assert safe_text.line(None) == safe_text.visible(None) == ""


def test_a_line_for_the_terminal_is_whole_however_long() -> None:
    """It may be a command to paste; a report's loses its middle."""
    command = f"attnsweep impl={'naive,' * 1000}sdpa"
    assert said(command) == command
    assert len(text.line(command)) == text.LONGEST
