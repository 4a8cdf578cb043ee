"""report.html: one page that needs nothing else: tables, plots, failures, machines, method."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from attnsweep.report.failures import Failure
from attnsweep.report.plots import AGAINST_AXIS, Plot
from attnsweep.report.tables import Table
from attnsweep.report.text import line
from attnsweep.safe_text import visible

#: Labels of a table of latencies beyond which it is too wide to be read first; columns beyond which any may not fit.
WIDE = 8


@dataclass(frozen=True)
class Block:
    """One table's part of the page."""

    anchor: str
    title: str
    verdict: str
    latency: Table
    timers: Table
    load: Table
    best: Table
    standings: Table
    plots: tuple[Plot, ...]
    about_plots: str

    @property
    def wide(self) -> bool:
        """Whether the latencies have so many columns that the short tables come first."""
        return len(self.standings.rows) > WIDE


@dataclass(frozen=True)
class Content:
    """Everything that is on the page and in the Markdown summary."""

    heading: str
    lead: tuple[str, ...]
    blocks: tuple[Block, ...]
    legend: tuple[tuple[str, str], ...]
    kernels: Table
    compilation: Table
    accuracy: Table
    statuses: Table
    failures: tuple[Failure, ...]
    failure_table: Table
    machines: Table
    libraries: Table
    method: tuple[str, ...]


def to_html(content: Content, plots: Path) -> str:
    """The page, with the SVG files of `plots` inside it as images: an image runs no script."""
    from jinja2 import Environment, StrictUndefined

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["line"] = line
    environment.filters["visible"] = lambda value: visible(value, keep="\n\t")
    environment.filters["svg"] = lambda plot: _data_uri(plots / f"{plot.stem}.svg")
    source = resources.files("attnsweep.report").joinpath("page.html.j2").read_text(encoding="utf-8")
    return environment.from_string(source).render(page=content, against_axis=AGAINST_AXIS, wide=WIDE)


def _data_uri(path: Path) -> str:
    return "data:image/svg+xml;base64," + base64.b64encode(path.read_bytes()).decode("ascii")
