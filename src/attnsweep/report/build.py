"""Put a report together: the content once, then every file of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from attnsweep.report import html, plots
from attnsweep.report.accuracy import accuracy_table
from attnsweep.report.aggregate import ENOUGH
from attnsweep.report.compiling import compile_table
from attnsweep.report.content import Block, Content
from attnsweep.report.csvfile import to_csv
from attnsweep.report.failures import counts, failure_table, failures
from attnsweep.report.kernels import kernel_table
from attnsweep.report.load import RESULTS, Loaded, write
from attnsweep.report.machines import library_table, machine_table
from attnsweep.report.memory import memory_table
from attnsweep.report.notes import Footnotes
from attnsweep.report.sections import LARGEST, Derived
from attnsweep.report.summary import best_table, latency_table, standings_table, status_table
from attnsweep.report.sustained import load_table, load_verdict
from attnsweep.report.tables import to_markdown
from attnsweep.report.text import count, markdown
from attnsweep.report.timers import timer_table
from attnsweep.report.verdict import verdict
from attnsweep.report.words import GAP_RULE, HOST_RULE, LEVEL_RULE, RULE, boards, no_plot, split, title

METHOD = (
    "Each measurement ran alone in a process of its own. Outputs are compared with a reference of higher "
    "precision before anything is timed; an incorrect result carries no time.",
    "The latency is the median of short bursts after a rest (on a CPU of all samples). Under load means calls back to "
    "back until the latency is steady: clocks fall there, and another may be the fastest.",
    "The primary timer belongs to the case: a CUDA graph of many calls where 0.2 ms would do for its FLOPs at 1000 "
    "TFLOP/s and its bytes at 4 TB/s, else CUDA events around each call; the kernels' busy time for JAX, which has no "
    "events, and the wall clock on a CPU. A case is ranked on its primary timer where all its results have the same, "
    "else on the kernels' busy time or on events where all have that, else in a table for each timer. A result that "
    "has its kernels' busy time alone, as JAX's do, leaves that to the others, and is compared with each of them by "
    "that time of both.",
    "The L2 cache is cold before each call unless the table says otherwise: events and kernels are timed after a read "
    "of more than it holds, graphs and loads rotate over copies of the inputs that together exceed it.",
    "Ceilings are bounds to compare with, not attention, and never ranked: the case's FLOPs as one matmul "
    "(ceiling_matmul), its bytes as one copy (ceiling_copy). Plots draw the slower of those that a case has.",
    "Several processes of one cell: the latency is the median of theirs. With fewer than "
    f"{ENOUGH} processes the interval is the widest one within a process, stretched to the range of the "
    f"processes' medians; from {ENOUGH} on it is the 95% interval of the median over processes.",
    f"The fastest is bold. {RULE} {HOST_RULE} {LEVEL_RULE} {GAP_RULE} Otherwise it is a tie, and all of them are bold: "
    "the data do not say which is faster. Results flagged implausible, unchecked or loose_check are shown and not "
    "ranked.",
    "Processes are pooled only where host, GPU, driver, torch, JAX, the library's version, the configuration, timing "
    "preset and sweep agree. Of groups that differ in more than timing preset or sweep the newest counts; of the "
    "others the one with most processes that are ok, of equals the newest, but none from before an incorrect output; "
    "loosely checked or unchecked ones where there are no others.",
    "Two hosts are two devices, and so are two GPUs of one model that measured the same. GPUs among which a sweep "
    "shared out its cases are one: each case is of one of them, and what another measured of it is marked; means and "
    "ranges over cases go over them all.",
    "FLOPs count the visible (query, key) pairs exactly; bytes count every tensor once. Speed-ups are ratios "
    "of latencies in the same case; means of ratios are geometric.",
)


_NOT_DRAWN = f"There are no plots: only the {LARGEST} tables with most results are drawn."


def content_of(derived: Derived, loaded: Loaded, drawn: Sequence[plots.Plot]) -> Content:
    """Everything that the report says."""
    notes = Footnotes(derived)
    found = failures(derived)
    blocks = tuple(
        Block(
            anchor=f"table-{number}",
            title=title(section),
            verdict=" ".join(said for said in (verdict(section), split(section), load_verdict(section)) if said),
            latency=latency_table(section, notes),
            timers=timer_table(section),
            memory=memory_table(section),
            load=load_table(section, notes),
            best=best_table(section, notes),
            standings=standings_table(section, notes),
            plots=tuple(plot for plot in drawn if plot.section is section),
            about_plots=" ".join(filter(None, [no_plot(section), boards(section)]))
            if section in derived.largest
            else _NOT_DRAWN,
        )
        for number, section in enumerate(derived.sections, start=1)
    )
    return Content(
        heading="attnsweep report",
        lead=(counts(derived), *_aside(derived, loaded)),
        blocks=blocks,
        legend=tuple(notes.legend()),
        kernels=kernel_table(derived),
        compilation=compile_table(derived),
        accuracy=accuracy_table(derived),
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
        why = "of another machine, other software or configuration than the newest, or less strictly checked"
        said.append(f"{count(derived.superseded, 'record')} left out: {why} (superseded).")
    if derived.outweighed:
        why = "of the same another sweep or timing preset has more processes that are ok, or as many and newer"
        said.append(f"{count(derived.outweighed, 'record')} left out: {why} (outweighed).")
    if loaded.replaced:
        said.append(f"{count(loaded.replaced, 'record')} left out: of one cell the newest counts.")
    return said + [f"Left out, {sentence}." for sentence in loaded.left_out]


def write_report(derived: Derived, loaded: Loaded, folder: Path) -> Content:
    """Write all files of the report into `folder`, which is made, and return what they say."""
    folder.mkdir(parents=True, exist_ok=True)
    write(loaded.table, folder / RESULTS)
    drawn = plots.draw_all(derived, folder / "plots", loaded.raw)
    content = content_of(derived, loaded, drawn)
    (folder / "summary.csv").write_text(to_csv(derived), encoding="utf-8")
    (folder / "summary.md").write_text(to_summary(content), encoding="utf-8")
    (folder / "report.html").write_text(html.to_html(content, folder / "plots"), encoding="utf-8")
    return content


def _images(block: Block, *kinds: str) -> list[str]:
    return [f"![{markdown(plot.alt)}](plots/{plot.stem}.png)\n" for plot in block.plots if plot.kind in kinds]


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
            parts += _images(block, "winners")
    parts.append("## Tables\n")
    parts += [to_markdown(block.latency) for block in content.blocks]
    if content.legend:
        parts.append(
            "Marks: " + "; ".join(f"<sup>{mark}</sup> {markdown(told)}" for mark, told in content.legend) + ".\n"
        )
    if any(block.load.rows for block in content.blocks):
        parts.append("## Under load\n")
        for block in content.blocks:
            if block.load.rows:
                parts += [to_markdown(block.load), *_images(block, "load")]
    if any(block.timers.rows for block in content.blocks):
        parts.append("## Timers\n")
        parts += [to_markdown(block.timers) for block in content.blocks if block.timers.rows]
    if any(block.memory.rows for block in content.blocks):
        parts.append("## Memory\n")
        parts += [to_markdown(block.memory) for block in content.blocks if block.memory.rows]
    parts.append("## Plots\n")
    for block in content.blocks:
        parts += [f"{markdown(block.title)}: {markdown(block.about_plots)}\n"] if block.about_plots else []
        parts += _images(block, *plots.AGAINST_AXIS)
    parts.append("## Kernels\n")
    parts.append(to_markdown(content.kernels))
    if content.accuracy.rows:
        parts += ["## Accuracy\n", to_markdown(replace(content.accuracy, title=""))]
    if content.compilation.rows:
        parts += ["## Compilation\n", to_markdown(replace(content.compilation, title=""))]
    parts.append("## Failures\n")
    parts.append(to_markdown(content.statuses))
    parts.append(to_markdown(content.failure_table))
    parts.append("## Environment\n")
    parts += [to_markdown(content.machines), to_markdown(content.libraries)]
    parts.append("## How it was measured\n")
    parts += [markdown(sentence) + "\n" for sentence in content.method]
    return "\n".join(parts)
