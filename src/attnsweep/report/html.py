"""report.html: one page that needs nothing else: tables, plots, failures, machines, method."""

from __future__ import annotations

import base64
from importlib import resources
from pathlib import Path

from attnsweep.report.content import WIDE, Content
from attnsweep.report.plots import AGAINST_AXIS
from attnsweep.report.text import line
from attnsweep.safe_text import visible

#: How far a plot is shrunk to fit a window, rather than scroll: the words of its legend are 9 px high then.
SHRUNK = 0.8


def to_html(content: Content, plots: Path) -> str:
    """The page, with the SVG files of `plots` inside it as images: an image runs no script."""
    from jinja2 import Environment, StrictUndefined

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["line"] = line
    environment.filters["visible"] = lambda value: visible(value, keep="\n\t")
    environment.filters["svg"] = lambda plot: _data_uri(plots / f"{plot.stem}.svg")
    source = resources.files("attnsweep.report").joinpath("page.html.j2").read_text(encoding="utf-8")
    return environment.from_string(source).render(page=content, against_axis=AGAINST_AXIS, wide=WIDE, shrunk=SHRUNK)


def _data_uri(path: Path) -> str:
    return "data:image/svg+xml;base64," + base64.b64encode(path.read_bytes()).decode("ascii")
