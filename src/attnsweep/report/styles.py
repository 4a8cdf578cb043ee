"""How a label looks in all plots of a report: colour and marker by implementation, line by compile mode.

Implementations beyond the colours there are have colours again, with the next kind of line.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from attnsweep.report.labels import Label
from attnsweep.report.text import cut, line

#: Okabe and Ito's palette for colour-blind readers without its yellow (too faint on white), then what of other palettes
#: stays furthest from these and from each other in normal, protan, deutan and tritan sight.
COLOURS = (
    *("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000"),
    *("#882255", "#B9AC70", "#332288"),
)
#: Eleven, so that colour and marker together repeat only after 110 implementations.
MARKERS = ("o", "s", "^", "D", "v", "p", "<", "h", ">", "d", "P")
LINES = ("-", (0, (4, 1.6)), (0, (1, 1.2)), (0, (5, 1.2, 1, 1.2)), (0, (7, 2, 1, 1, 1, 2)), (0, (2, 3)))

FONT = "DejaVu Sans"


@dataclass(frozen=True)
class Style:
    """A label's look; `filled` markers are eager, hollow ones compiled: both show where they coincide."""

    colour: str
    marker: str
    line: Any
    filled: bool

    def line_options(self) -> dict[str, Any]:
        """Keyword arguments of matplotlib's plot."""
        return {
            "color": self.colour,
            "linestyle": self.line,
            "linewidth": 1.5,
            "marker": self.marker,
            "markersize": 6.0 if self.filled else 4.4,
            "markerfacecolor": self.colour if self.filled else "white",
            "markeredgecolor": self.colour,
            "markeredgewidth": 1.1,
            "zorder": 3 if self.filled else 4,
        }


def assign(labels: list[Label]) -> dict[str, Style]:
    """The style of each label by its text. Depends on the set of labels alone, not on their order."""
    unique = sorted(set(labels), key=lambda label: (label.impl, label.variant, label.version, label.compile))
    kinds = list(dict.fromkeys((label.impl, label.variant, label.version) for label in unique))
    modes = ["eager", *sorted({label.compile for label in unique} - {"eager"})]
    styles = {}
    for label in unique:
        kind, mode = kinds.index((label.impl, label.variant, label.version)), modes.index(label.compile)
        again, colour = divmod(kind, len(COLOURS))
        line = LINES[(mode + again) % len(LINES)]
        styles[label.text] = Style(COLOURS[colour], MARKERS[kind % len(MARKERS)], line, mode == 0)
    return styles


def settings() -> dict[str, Any]:
    """matplotlib's rcParams for these plots: text stays text in SVG, and the same data give the same file."""
    return {
        "svg.fonttype": "none",
        "svg.hashsalt": "attnsweep",
        "text.parse_math": False,
        "text.usetex": False,
        "font.family": FONT,
        "font.size": 9,
        "axes.titlesize": 10,
        "axes.labelsize": 9,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "axes.axisbelow": True,
        "grid.color": "#dddddd",
        "grid.linewidth": 0.6,
        "legend.frameon": False,
        "legend.fontsize": 8.5,
        "figure.facecolor": "white",
        "savefig.facecolor": "white",
    }


def drawable(value: object, limit: int = 72) -> str:
    """`value` as one line that the plots' font can draw, its middle cut out beyond `limit` characters.

    A leading underscore, which matplotlib takes for "not in the legend", is set behind a space of no width.
    """
    from matplotlib import font_manager

    font = font_manager.get_font(font_manager.findfont(FONT))
    text = "".join(one if font.get_char_index(ord(one)) else "?" for one in line(value))
    text = cut(text, limit)
    return f" {text}" if text.startswith("_") else text


def draw_legend(figure: Any, handles: list[Any], words: list[str], title: str, corner: tuple[float, float]) -> None:
    """The legend beside a figure's panels, its upper left `corner` in fractions of the figure."""
    figure.legend(
        handles,
        words,
        title=title,
        title_fontsize=8.5,
        alignment="left",
        loc="upper left",
        bbox_to_anchor=corner,
        handlelength=3.2,
    )
