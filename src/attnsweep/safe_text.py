"""Text from outside (records, libraries, YAML) made harmless to show: nothing in it acts on a terminal or hides."""

from __future__ import annotations


def visible(value: object, *, keep: str = "") -> str:
    """`value` as text in which nothing is hidden: control and invisible characters become \\x1b, \\u202e, ...

    Characters in `keep` (newlines of a traceback) stay as they are. None is the empty text.
    """
    text = "" if value is None else str(value)
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() or one in keep else _code(one) for one in text)


def line(value: object) -> str:
    """`value` as one line: runs of white space become a blank, nothing is hidden. None is the empty text."""
    return visible(" ".join(("" if value is None else str(value)).split()))


def _code(character: str) -> str:
    number = ord(character)
    if number < 0x100:
        return f"\\x{number:02x}"
    return f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"
