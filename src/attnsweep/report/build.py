"""Put a report together: the content once, then every file of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from attnsweep.report import html, plots
from attnsweep.report.aggregate import ENOUGH
from attnsweep.report.csvfile import to_csv
from attnsweep.report.derive import Derived
from attnsweep.report.failures import counts, failure_table, failures
from attnsweep.report.html import Block, Content
from attnsweep.report.kernels import kernel_table
from attnsweep.report.load import RESULTS, Loaded, write
from attnsweep.report.machines import library_table, machine_table
from attnsweep.report.notes import Footnotes
from attnsweep.report.summary import best_table, latency_table, standings_table, status_table
from attnsweep.report.tables import to_markdown
from attnsweep.report.text import count, markdown
from attnsweep.report.words import RULE, no_plot, title, verdict

METHOD = (
    "Each measurement ran alone in a process of its own. Outputs are compared with a reference of higher "
    "precision before anything is timed; an incorrect result carries no time.",
    "The latency is the median of short bursts after a rest (on a CPU of all samples), with a cold L2 cache "
    "unless the table says otherwise. A case is ranked on its primary timer where all its results have the "
    "same, else on the kernels' busy time where all have that, else in a table for each timer.",
    "Several processes of one cell: the latency is the median of theirs. With fewer than "
    f"{ENOUGH} processes the interval is the widest one within a process, stretched to the range of the "
    f"processes' medians; from {ENOUGH} on it is the 95 % interval of the median over processes.",
    f"The fastest is bold. {RULE} Otherwise it is a tie, and all of them are bold: the data do not say which is "
    "faster. Results flagged implausible or unchecked are shown and not ranked.",
    "Processes are pooled only where host, GPU, driver, torch, the library's version, timing preset and sweep agree; "
    "of several such groups the newest counts. Two hosts are two devices.",
    "FLOPs count the visible (query, key) pairs exactly; bytes count every tensor once. Speed-ups are ratios "
    "of latencies in the same case; means of ratios are geometric.",
)


def content_of(derived: Derived, loaded: Loaded, drawn: Sequence[plots.Plot]) -> Content:
    """Everything that the page and the Markdown summary say."""
    notes = Footnotes(derived)
    found = failures(derived)
    blocks = tuple(
        Block(
            anchor=f"table-{number}",
            title=title(section),
            verdict=verdict(section),
            latency=latency_table(section, notes),
            best=best_table(section, notes),
            standings=standings_table(section, notes),
            plots=tuple(plot for plot in drawn if plot.section is section),
            no_plot=no_plot(section),
        )
        for number, section in enumerate(derived.sections, start=1)
    )
    return Content(
        heading="attnsweep report",
        lead=(counts(derived), *_aside(derived, loaded)),
        blocks=blocks,
        legend=tuple(notes.legend()),
        kernels=kernel_table(derived),
        statuses=status_table(derived),
        failures=tuple(found),
        failure_table=failure_table(found),
        machines=machine_table(derived),
        libraries=library_table(derived),
        method=METHOD,
    )


def _aside(derived: Derived, loaded: Loaded) -> list[str]:
    """What was found and not used, each in a sentence."""
    said = []
    if derived.older:
        said.append(f"{count(derived.older, 'record')} of older versions left out (--versions all shows them).")
    if derived.superseded:
        said.append(f"{count(derived.superseded, 'record')} superseded by newer measurements of the same left out.")
    if loaded.replaced:
        said.append(f"{count(loaded.replaced, 'record')} replaced by a newer one of the same cell.")
    return said + [f"Not read: {sentence}." for sentence in loaded.unreadable]


def write_report(derived: Derived, loaded: Loaded, folder: Path) -> Content:
    """Write all files of the report into `folder`, which is made, and return what they say."""
    folder.mkdir(parents=True, exist_ok=True)
    write(loaded.table, folder / RESULTS)
    drawn = plots.draw_all(derived, folder / "plots")
    content = content_of(derived, loaded, drawn)
    (folder / "summary.csv").write_text(to_csv(derived), encoding="utf-8")
    (folder / "summary.md").write_text(to_summary(content), encoding="utf-8")
    (folder / "report.html").write_text(html.to_html(content, folder / "plots"), encoding="utf-8")
    return content


def _images(block: Block, *, winners: bool) -> list[str]:
    return [
        f"![{markdown(plot.alt)}](plots/{plot.stem}.png)\n"
        for plot in block.plots
        if (plot.kind == "winners") is winners
    ]


def to_summary(content: Content) -> str:
    """summary.md: the short tables first, the wide ones after them, with relative links to the plots."""
    parts = [f"# {markdown(content.heading)}\n"]
    parts += [markdown(sentence) + "\n" for sentence in content.lead]
    parts.append("## Verdict\n")
    parts.append("\n".join(f"- **{markdown(one.title)}**: {markdown(one.verdict)}" for one in content.blocks) + "\n")
    parts.append("## Winners\n")
    for block in content.blocks:
        if block.standings.rows:
            parts.append(to_markdown(block.best))
            parts.append(to_markdown(replace(block.standings, title="")))
            parts += _images(block, winners=True)
    parts.append("## Tables\n")
    parts += [to_markdown(block.latency) for block in content.blocks]
    if content.legend:
        parts.append(
            "Marks: " + "; ".join(f"<sup>{mark}</sup> {markdown(told)}" for mark, told in content.legend) + ".\n"
        )
    parts.append("## Plots\n")
    for block in content.blocks:
        parts += [f"{markdown(block.title)}: {markdown(block.no_plot)}\n"] if block.no_plot else []
        parts += _images(block, winners=False)
    parts.append("## Kernels\n")
    parts.append(to_markdown(content.kernels))
    parts.append("## Failures\n")
    parts.append(to_markdown(content.statuses))
    parts.append(to_markdown(content.failure_table))
    parts.append("## Environment\n")
    parts += [to_markdown(content.machines), to_markdown(content.libraries)]
    parts.append("## How it was measured\n")
    parts += [markdown(sentence) + "\n" for sentence in content.method]
    return "\n".join(parts)
