"""How the questions of conf/impl ended on GPUs, as Markdown: python benchmarks/capabilities.py JUNIT_XML...

The files are what tests/gpu/test_capabilities.py writes with --junitxml, one for each part; of a question that is in
several of them the last speaks. Nothing is run here.
"""

from __future__ import annotations

import re
import sys
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

from attnsweep import capabilities
from attnsweep.report.tables import Cell, Column, Table, to_markdown

#: An implementation, and its question or two that make a pair.
Asked = tuple[str, str]

#: What the test says where it asks nothing: no library, or a GPU unlike the one of the claims.
_NOT_ASKED = ("missing", "not claimed")


@dataclass(frozen=True)
class Ending:
    """A cell's status, `not claimed`, or `failed` where the test fell over or did not take the status for right."""

    status: str
    reason: str


def read(path: Path) -> dict[Asked, Ending]:
    """How each question in a junit file ended; exits where a test does not say, or none is there."""
    found = {}
    for test in ElementTree.parse(path).iter("testcase"):
        if test.get("classname", "").rpartition(".")[2] != "test_capabilities":
            continue
        name = re.search(r"\[([^-]+)-(.+)\]$", test.get("name", ""))
        if name is None:
            continue
        said = {one.get("name"): one.get("value", "") for one in test.iter("property")}
        wrong = [one for one in test if one.tag in ("failure", "error")]
        if wrong and said.get("status") in (None, "ok", "unsupported", *_NOT_ASKED):
            ending = Ending("failed", wrong[0].get("message", "").partition("\n")[0])
        elif "status" in said:
            ending = Ending(said["status"], said["reason"])
        else:
            raise SystemExit(f"{path}: {test.get('name')} does not say how it ended")
        found[name[1], name[2]] = ending
    if not found:
        raise SystemExit(f"{path}: no question of tests/gpu/test_capabilities.py is in it")
    return found


def counts(endings: dict[Asked, Ending]) -> Table:
    """A row an implementation: how many of the questions asked were answered correctly, what became of the rest, and
    how many that its YAML claims on an H200 today were not asked.
    """
    rows = []
    known = capabilities.implementations()
    seen = sorted({impl for impl, _ in endings})
    claims = {impl: capabilities.claimed(known[impl], capabilities.H200) for impl in seen if impl in known}
    for impl in seen:
        its = {question: ending for (one, question), ending in endings.items() if one == impl}
        asked = {question: one for question, one in its.items() if one.status not in _NOT_ASKED}
        pairs = {question for question in asked if " + " in question}
        refused = sum(one.status == "unsupported" for one in asked.values())
        failed = sum(one.status not in ("ok", "unsupported") for one in asked.values())
        fields = [_correct(asked, asked.keys() - pairs), _correct(asked, pairs)]
        left = [question for part in claims.get(impl, ()) for question in part if question not in asked]
        fields += [str(count or "") for count in (refused, failed, len(left))]
        rows.append((Cell(impl, code=True), *map(Cell, fields)))
    titles = ("correct, alone", "in pairs", "refused at the call", "failed", "not asked")
    return Table("", (), (Column("implementation"), *(Column(one, number=True) for one in titles)), tuple(rows))


def _correct(asked: dict[str, Ending], questions: set[str]) -> str:
    right = sum(asked[one].status == "ok" for one in questions)
    return f"{right} of {len(questions)}" if questions else ""


def reasons(title: str, endings: dict[Asked, Ending], wanted: Callable[[str], bool]) -> Table:
    """A row for each reason that an implementation gave with a wanted status, with the questions."""
    found: dict[tuple[str, str], list[str]] = defaultdict(list)
    for (impl, question), ending in sorted(endings.items()):
        if wanted(ending.status):
            plain = ending.status in ("unsupported", *_NOT_ASKED)
            found[impl, ending.reason if plain else f"{ending.status}: {ending.reason}"].append(question)
    every = Counter(impl for impl, _ in endings)
    rows = []
    for (impl, why), its in found.items():
        questions = f"all {len(its)}" if len(its) == every[impl] else "; ".join(its)
        rows.append((Cell(impl, code=True), Cell(questions), Cell(why)))
    return Table(title, (), (Column("implementation"), Column("questions"), Column("why")), tuple(rows))


def main() -> None:
    """Print the counts, and below them the reasons of what was not correct."""
    endings: dict[Asked, Ending] = {}
    for path in sys.argv[1:]:
        endings |= read(Path(path))
    tables = [
        counts(endings),
        reasons("Refused at the call", endings, lambda status: status == "unsupported"),
        reasons("Failed", endings, lambda status: status not in ("ok", "unsupported", *_NOT_ASKED)),
        reasons("Not asked", endings, lambda status: status in _NOT_ASKED),
    ]
    print("\n".join(to_markdown(table, level=2) for table in tables if table.rows), end="")


if __name__ == "__main__":
    main()
