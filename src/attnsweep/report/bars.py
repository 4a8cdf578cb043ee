"""Horizontal bars of who is fastest and by how much."""

from __future__ import annotations

from typing import TYPE_CHECKING

from attnsweep.report.captions import heading, names, set_heading
from attnsweep.report.sections import Section, Standing
from attnsweep.report.styles import Style, drawable
from attnsweep.report.text import times
from attnsweep.report.verdict import placed

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: The most bars of a figure, the best standings'.
BARS = 40


def winner_bars(section: Section, styles: dict[str, Style]) -> Figure:
    """Horizontal bars, best on top: the speed-up over the baseline, or wins where there is none."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    based = section.baseline is not None
    shown = [
        (one, name, float(one.speedup or 0.0) if based else float(one.wins + one.unopposed), _note(section, one))
        for one, name in zip(section.standings, names(section), strict=True)
        if one.speedup is not None or not based
    ]
    told = f"{len(shown) - BARS} more not drawn" if len(shown) > BARS else ""
    standings, labels, lengths, notes = zip(*shown[:BARS], strict=True)
    left = 0.35 + 0.078 * max(len(text) for text in labels)
    longest = max([*lengths, 1.0]) * 1.02
    ends = [4.2 * length / longest + 0.072 * len(note) for length, note in zip(lengths, notes, strict=True)]
    right = 0.2 + max(0.0, *(end - 4.2 for end in ends))
    width = left + 4.2 + right
    drawn = [one.label.text for one in standings]
    above = 0.22 + 0.175 * len(heading(section, width, drawn, told))
    height = above + 0.29 * len(labels) + 0.65
    figure = Figure(figsize=(width, height))
    top = 1 - above / height
    ax = figure.add_axes((left / width, 0.52 / height, 4.2 / width, top - 0.52 / height))
    for place, (one, length) in enumerate(zip(standings, lengths, strict=True)):
        style = styles[one.label.text]
        ax.barh(
            place,
            length,
            height=0.68,
            color=style.colour if style.filled else "white",
            edgecolor=style.colour,
            linewidth=1.2,
            hatch=None if style.filled else "////",
            alpha=1.0 if one.complete else 0.55,
        )
        ax.annotate(
            notes[place],
            (length, place),
            xytext=(4, 0),
            textcoords="offset points",
            va="center",
            fontsize=8.5,
            # The line of the baseline may pass behind a label, never through it.
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.8},
        )
    ax.set_yticks(range(len(labels)), labels)
    ax.set_ylim(len(labels) - 0.4, -0.6)
    ax.set_xlim(0, longest)
    ax.grid(visible=False, axis="y")
    ax.tick_params(axis="y", length=0)
    if section.baseline is None:
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        ax.set_xlabel("cases won")
    else:
        ax.axvline(1.0, color="#444444", linewidth=0.9, linestyle=(0, (2, 2)))
        ax.set_xlabel(drawable(f"speed-up over {section.baseline} (geometric mean)", 70))
    set_heading(figure, section, width, drawn, told)
    return figure


def _note(section: Section, one: Standing) -> str:
    """What stands at the end of a bar."""
    total = len(section.cases)
    if section.baseline is None:
        return placed(one, total)
    won = f", {placed(one, total)}" if one.wins + one.unopposed + one.ties else ""
    over = f" over {one.speedup_cases} of {total}" if one.speedup_cases < total else ""
    return f"{times(one.speedup)}{over}{won}"
