"""What stands around a plot: its title, what it holds constant, and the names of its lines and bars."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable
from typing import TYPE_CHECKING

from attnsweep.report.aggregate import PRECISION
from attnsweep.report.sections import Section
from attnsweep.report.styles import drawable
from attnsweep.report.text import listing
from attnsweep.report.words import boards_of, constants, title

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def names(section: Section) -> list[str]:
    """The labels of the standings as a plot shows them, all different; a star marks another precision."""
    found: dict[str, None] = {}
    for standing in section.standings:
        name, number = drawable(standing.label.text), 1
        star = " *" if starred(section, standing.label.text) else ""
        while name + star in found:
            number += 1
            name = f"{drawable(standing.label.text)} #{number}"
        found[name + star] = None
    return list(found)


def starred(section: Section, text: str) -> bool:
    """Whether a label computes in a precision of its own."""
    native = all(
        not mark.startswith(PRECISION)
        for case in section.cases
        if text in case.measured
        for mark in case.measured[text].marks
    )
    return not native


def heading(section: Section, width: float, drawn: Iterable[str], shown: str = "", timed: bool = True) -> list[str]:
    """Title above, what is constant, who of the labels `drawn` has another timer, what the star means where one has it,
    and what is `shown` below, wrapped to the figure's width.

    What is not `timed` has no timer.
    """
    room = int((width - 0.3) / 0.085)
    lines = [drawable(title(section), room)]
    timer = listing(list(dict.fromkeys(case.timer for case in section.rankable)))
    below = "; ".join(part for part in (constants(section), f"timer {timer}" if timer and timed else "") if part)
    drawn = list(drawn)
    apart = [text for text in drawn if any(text in case.by_kernel for case in section.cases)]
    below += f", kernel for {listing(apart)}" if apart and timer and timed else ""
    boards = len(boards_of(section))
    below += f"; cases on {boards} GPUs" if boards > 1 and timed else ""
    if any(starred(section, text) for text in drawn):
        below += ("; " if below else "") + "*: not in the case's own precision"
    for told in (below, shown):
        lines += textwrap.wrap(drawable(told, 2 * room), room)
    return lines


def set_heading(
    figure: Figure, section: Section, width: float, drawn: Iterable[str], shown: str = "", timed: bool = True
) -> None:
    figure.suptitle("\n".join(heading(section, width, drawn, shown, timed)), x=0.1 / width, ha="left", fontsize=10)
