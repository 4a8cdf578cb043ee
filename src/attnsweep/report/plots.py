"""Plots as PNG and SVG: which figures a report has, in which files."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from attnsweep.report import unmeasured
from attnsweep.report.bars import winner_bars
from attnsweep.report.lines import LINES, line_plot, panels_of
from attnsweep.report.load import Row
from attnsweep.report.measures import measures_of
from attnsweep.report.sections import CaseRow, Derived, Section
from attnsweep.report.styles import Style, assign, settings
from attnsweep.report.traces import load_plot, traced
from attnsweep.report.words import title

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: Kinds of plots that show a measure against the axis; the others stand beside a table.
AGAINST_AXIS = ("latency", "throughput", "bandwidth", "memory")

#: Panels of one figure; more become further figures, up to FIGURES of one measure.
PANELS = 6
FIGURES = 8

DPI = 160


@dataclass(frozen=True)
class Plot:
    """One figure in two files: `stem` is their name without the ending, `alt` says what is to be seen, `width` is its
    own in inches.
    """

    section: Section
    kind: str
    stem: str
    alt: str
    width: float


def draw_all(derived: Derived, folder: Path, raw: Callable[[Row], Row]) -> list[Plot]:
    """Write every plot into `folder`, made if need be, and say which; plots of an earlier run are removed.

    `raw` gives the raw columns of a row.
    """
    import matplotlib as mpl

    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.iterdir():
        if re.fullmatch(rf"({'|'.join(AGAINST_AXIS)}|load|winners)-.*\.(png|svg)", old.name):
            old.unlink()
    styles = assign([one.label for section in derived.sections for one in section.standings])
    drawn: list[Plot] = []
    taken: set[str] = set()
    with mpl.rc_context(settings()):
        for section in derived.largest:
            for kind, alt, figure in _figures(section, styles, raw):
                stem = _stem(kind, section, taken)
                _save(figure, folder / stem)
                drawn.append(Plot(section, kind, stem, alt, figure.get_figwidth()))
    return drawn


def _figures(section: Section, styles: dict[str, Style], raw: Callable[[Row], Row]) -> list[tuple[str, str, Figure]]:
    made: list[tuple[str, str, Figure]] = []
    labels = [standing.label.text for standing in section.standings[:LINES]]
    cases = [case for case in section.cases if case.axis_value is not None and _drawn(case, labels)]
    if any(case.ranked for case in cases):
        panels = list(panels_of(section, cases).items())
        for measure in measures_of(cases, labels):
            for start in range(0, min(len(panels), PANELS * FIGURES), PANELS):
                part = dict(panels[start : start + PANELS])
                more = len(panels) - PANELS * FIGURES if start == PANELS * (FIGURES - 1) else 0
                alt = f"{measure.axis} against {section.key.axis or 'the axis'}: {title(section)}"
                made.append((measure.kind, alt, line_plot(section, part, measure, styles, more)))
    load = traced(section, raw)
    if load is not None:
        alt = f"Latency and SM clock against time under load: {title(section)}"
        made.append(("load", alt, load_plot(section, load, styles)))
    if section.standings:
        made.append(("winners", f"Who is fastest, by how much: {title(section)}", winner_bars(section, styles)))
    return made


def _drawn(case: CaseRow, labels: list[str]) -> bool:
    return bool(case.ranked) or any(unmeasured.failed(case, text) for text in labels)


def _stem(kind: str, section: Section, taken: set[str]) -> str:
    """A file name from harmless characters alone, different from those in `taken`, to which it is added."""
    key = section.key
    cache = key.cache if key.cache != "cold" else ""
    words = [key.device, key.scenario, key.direction, key.dtype, cache, key.timer]
    slug = re.sub(r"[^a-z0-9]+", "-", " ".join(words).lower()).strip("-")[:80].strip("-")
    base = f"{kind}-{slug or 'unnamed'}"
    stem, number = base, 1
    while stem in taken:
        number += 1
        stem = f"{base}-{number}"
    taken.add(stem)
    return stem


def _save(figure: Figure, path: Path) -> None:
    layout = figure.get_layout_engine()
    if layout is not None:
        # Once for both files.
        layout.execute(figure)
        figure.set_layout_engine("none")
    figure.savefig(path.with_name(path.name + ".png"), dpi=DPI, metadata={"Software": None})
    figure.savefig(path.with_name(path.name + ".svg"), metadata={"Date": None, "Creator": "attnsweep"})
