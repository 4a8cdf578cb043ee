"""What a report says, once for all that show it: the page, the Markdown summary and the terminal."""

from __future__ import annotations

from dataclasses import dataclass

from attnsweep.report.failures import Failure
from attnsweep.report.plots import Plot
from attnsweep.report.tables import Table

#: Labels of a table of latencies beyond which it is too wide to be read first; columns beyond which any may not fit.
WIDE = 8


@dataclass(frozen=True)
class Block:
    """What is said of one table: its verdict, its views and its plots."""

    anchor: str
    title: str
    verdict: str
    latency: Table
    timers: Table
    memory: Table
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
    """Everything that a report says."""

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
