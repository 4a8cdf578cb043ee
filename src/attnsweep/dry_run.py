"""What a sweep would do: every cell, how many there are, and about how long they take."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from rich.console import Console
from rich.text import Text

from attnsweep.limits import SLOW_FLOPS
from attnsweep.safe_text import line
from attnsweep.terminal import bare_table, duration, label, print_table

if TYPE_CHECKING:
    from attnsweep.plan import Cell, Plan
    from attnsweep.uvenv import Recipe


def show(out: Console, plan: Plan, unbuilt: Mapping[str, Recipe]) -> None:
    """Every cell and why it would be skipped, then how many there are and about how long they take.

    `unbuilt` says by cell id which environment would be built first.
    """
    table = bare_table("implementation", "process", "")
    case = None
    for cell in plan.cells:
        if cell.group != case:
            case = cell.group
            table.add_row(Text(line(case), style="bold"))
        table.add_row(
            Text(f"  {label(cell)}"),
            Text(str(cell.columns["replicate"])),
            _prospect(plan, cell, unbuilt.get(cell.id)),
        )
    print_table(out, table)
    build = len(set(unbuilt.values()))
    note = f" once {_count(build, 'environment')} {'is' if build == 1 else 'are'} built" if build else ""
    # A GPU's calls take no time beside the rest; a CPU's may take minutes, and no data sheet says how fast it is
    rate = f" at {SLOW_FLOPS['cpu'] / 1e9:.0f} GFLOP/s" if plan.devices[0].kind == "cpu" and plan.to_run else ""
    out.print(
        Text(
            f"{_count(len(plan.cells), 'cell')}, {len(plan.to_run)} to run{note}, "
            f"about {duration(plan.estimate_s)} on {_places(plan)}{rate}"
        ),
        soft_wrap=True,
    )


def _prospect(plan: Plan, cell: Cell, unbuilt: Recipe | None) -> Text:
    done = plan.done.get(cell.id)
    if done is not None:
        return Text(f"done: {done.status}", style="dim")
    if cell.unsupported is not None:
        return Text(line(f"unsupported: {cell.unsupported}"), style="dim")
    if cell.id in plan.missing:
        return Text(line(f"missing: {plan.missing[cell.id]}"), style="yellow")
    if unbuilt is not None:
        return Text(f"to run, once its environment of {_count(unbuilt.packages, 'package')} is built")
    return Text("to run")


def _places(plan: Plan) -> str:
    name = line(plan.devices[0].name)
    return name if len(plan.devices) == 1 else f"{len(plan.devices)} x {name}"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
