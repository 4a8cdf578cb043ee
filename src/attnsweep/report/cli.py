"""The `attnsweep-report` command."""

from __future__ import annotations

import argparse
import importlib.metadata
import io
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from attnsweep.errors import ConfigError

if TYPE_CHECKING:
    from attnsweep.report.content import Content
    from attnsweep.report.load import Loaded
    from attnsweep.report.sections import Derived


class Parser(argparse.ArgumentParser):
    """argparse, with its mistakes as ConfigError: one sentence instead of the usage."""

    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"{message} (see {self.prog} --help)")


def _path(text: str) -> Path:
    """A path that was given; an empty one, such as a variable that is not set, would be the working folder."""
    if not text:
        raise argparse.ArgumentTypeError("a path is empty; the working folder is .")
    return Path(text)


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="attnsweep-report",
        description="Merge the records below some folders and write a report: results.parquet, summary.md, "
        "summary.csv, report.html and plots.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"attnsweep {importlib.metadata.version('attnsweep')}")
    parser.add_argument(
        "folders", metavar="DIR", nargs="+", type=_path, help="a folder of sweeps, or a results.parquet"
    )
    parser.add_argument("--out", type=_path, help="where to write (default: report/ in the first DIR)")
    parser.add_argument(
        "--baseline",
        help="label or implementation that speed-ups refer to (default: naive where it is ok in every case, "
        "else the slowest that is)",
    )
    parser.add_argument(
        "--versions",
        choices=("newest", "all"),
        default="newest",
        help="newest: of several versions of a library the newest only; all: each as an implementation",
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; its exit code is 0 if a report was written, 2 for a mistake in the arguments.

    What reads standard output may go before its end: the report is written by then.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        # Names in a terminal's encoding that lacks them become \\u6f22.
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        return _run(_parser().parse_args(argv))
    except ConfigError as error:
        from attnsweep.report.text import line

        print(f"attnsweep-report: {line(error)}", file=sys.stderr)
        return 2


def _run(arguments: argparse.Namespace) -> int:
    from attnsweep.report import build
    from attnsweep.report.derive import derive
    from attnsweep.report.load import load

    first: Path = arguments.folders[0]
    loaded = load(arguments.folders)
    derived = derive(loaded.rows(), arguments.versions, arguments.baseline)
    folder: Path = arguments.out or (first.parent if first.is_file() else first) / "report"
    try:
        content = build.write_report(derived, loaded, folder)
    except OSError as error:
        raise ConfigError(f"the report cannot be written to {folder}: {error.strerror or error}") from None
    with suppress(SystemExit):  # what rich makes of a reader that has gone
        _show(derived, loaded, content, folder)
    return 0


def _show(derived: Derived, loaded: Loaded, content: Content, folder: Path) -> None:
    """Print the verdict: who is fastest in each table, the standings, the failures, and where the rest is."""
    from rich.console import Console
    from rich.text import Text

    from attnsweep.report.failures import counts, failure_table
    from attnsweep.report.notes import Footnotes
    from attnsweep.report.summary import best_table, standings_table
    from attnsweep.report.tables import to_rich
    from attnsweep.report.text import count, line
    from attnsweep.terminal import print_table

    console = Console(highlight=False, markup=False, emoji=False)
    notes = Footnotes(derived)
    used: set[str] = set()
    for section, block in zip(derived.sections, content.blocks, strict=True):
        if section not in derived.largest:
            continue
        console.print(Text(line(block.title), style="bold"))
        console.print(Text(line(block.verdict)))
        if section.standings:
            console.print(Text(line(section.baseline_why)))
            for table in (best_table(section, notes, short=True), standings_table(section, notes, short=True)):
                used |= {mark for row in table.rows for cell in row for mark in cell.marks}
                console.print()
                print_table(console, to_rich(table, console.width))
        console.print()
    if len(derived.largest) < len(derived.sections):
        left = len(derived.sections) - len(derived.largest)
        console.print(Text(f"{count(left, 'table')} with fewer results: see the report."))
    for mark, meaning in content.legend:
        if mark in used:
            console.print(Text(f"^{mark}  {line(meaning)}"))
    console.print(Text(counts(derived), style="bold"))
    if content.failures:
        console.print()
        print_table(console, to_rich(failure_table(list(content.failures), short=True), console.width))
        console.print()
    for sentence in content.lead[1:]:
        # A path is to be copied whole, wherever the width would break it
        aside = sentence.startswith("Left out")
        console.print(Text(line(sentence), style="yellow" if aside else ""), soft_wrap=aside)
    console.print(Text(f"Report: {line(folder / 'report.html')}"), soft_wrap=True)
