"""Footnotes: what each flag of a measurement means, with a short mark, the same in the whole report."""

from __future__ import annotations

from string import ascii_lowercase

from attnsweep import flags
from attnsweep.report.aggregate import PRECISION, Measurement
from attnsweep.report.sections import Derived, Section, Standing
from attnsweep.report.text import line

MEANINGS = {
    "throttled": "the clock was held down (power or temperature) while samples were taken",
    "unstable": "the samples did not settle within the time allowed",
    "fallback": "the kernels that ran are not those that the implementation declares",
    "unproven": "the kernels that ran could not be seen",
    "substituted": "the framework ran another implementation's kernel in place of the formula: see Kernels",
    "unchecked": "the output was not compared with a reference (check.enabled=false): not ranked",
    "loose_check": "its check allowed larger errors than the one that attnsweep comes with: not ranked",
    "contended": "the CPU was shared while samples were taken",
    "allocating": "the allocator asked the GPU for memory while samples were taken",
    "implausible": "faster than the device's arithmetic or memory allows: not ranked",
    "launch_bound": "launching takes longer than computing: there is no sustained load to time",
    "long_call": "one call is longer than a block: one timed call after one untimed",
    "graph_unsupported": "cannot be captured in a CUDA graph, or is too long for one: timed by events",
    "unhidden": "the launch could not be hidden behind other work: the host's time is in it",
    "graph_break": "torch.compile broke the graph: part of it ran eagerly",
    "op_by_op": "JAX outside jax.jit: each operation is launched by itself, which users of JAX do not do (compile=jit)",
    "options_unread": "an option that was set is read by no kernel here: variants by it are one kernel",
    "impure": "copies ran inside the timed call (into static inputs, to another layout or type): see Kernels",
    "no_room": "memory did not suffice for the load beside it",
    "unsettled": "the blocks had not settled when sampling began",
    "stepped": "the time moved from one level to another while it was sampled, and the median is of one of them",
    "unsteady": "the load had not become steady within the time allowed",
    "foreign_process": "another process used the GPU",
    "gpu_busy": "the GPU was busy before the sweep began",
    "spawned": "importing its library starts threads or CUDA: each process imported it anew",
    "ceiling": "a bound to compare with, not attention: not ranked",
    "kernel_time": "timed by its kernels alone, for want of another timer: compared with the others by kernel_ms",
    "partial": "some processes of this cell failed: the number is of the others",
    "versions": "the processes ran different versions of the library",
    "configs": "autotuning chose different configurations in different processes: see summary.csv",
    "other_gpu": "measured on another GPU of the same model than most of its case: no two are equally fast",
    "superseded": "older measurements, on another machine, with other software or configured otherwise, "
    "or less strictly checked ones, are not in the number",
    "outweighed": "the same was measured in another sweep or by another timing preset too, in fewer processes or "
    "earlier, and that is not in the number",
    "mixed versions": "the mean goes over cases that were measured with different versions of the library",
}

#: Why something is unproven whose record has no reason, as older ones have none.
_UNTOLD = "cupti-python is not where it ran, or failed"

#: Marks by which a speed, or what it is said of, is another than the number beside it promises.
BEARING = (*flags.BEARING, "unproven", "no_room", "partial", "versions", "configs", "other_gpu")

#: Flags that say something about the load alone: no mark of a burst.
LOAD = frozenset({"launch_bound", "unsteady"})


class Footnotes:
    """The marks of one report: a, b, c ... in the order of MEANINGS, then what records say beyond it."""

    def __init__(self, derived: Derived) -> None:
        used = {
            mark
            for section in derived.sections
            for case in section.cases
            for one in case.measured.values()
            if one.latency_ms is not None
            for mark in one.marks
            if mark not in LOAD or one.number("sustained_ms") is not None
        }
        used |= {mark for section in derived.sections for one in section.standings for mark in one.marks}
        ordered = [flag for flag in MEANINGS if flag in used] + sorted(used - set(MEANINGS))
        self._letters = {flag: _letter(index) for index, flag in enumerate(ordered)}
        unproven = [row for row in derived.rows if "unproven" in (row["flags"] or [])]
        self._whys = "; ".join(dict.fromkeys(str(row["unproven_reason"] or _UNTOLD) for row in unproven))

    def of(self, one: Measurement | Standing, load: bool = False) -> tuple[str, ...]:
        """The marks of a measurement that has a number, or of a standing's means; `load` has those of a load too."""
        shown = set(one.marks) if load else set(one.marks) - LOAD
        return tuple(letter for mark, letter in self._letters.items() if mark in shown)

    def label(self, section: Section, text: str) -> tuple[str, ...]:
        """The marks that bear on a label's speed in any case of a table, or on its precision."""
        seen = set(bearing([case.ranked[text] for case in section.cases if text in case.ranked]))
        return tuple(letter for mark, letter in self._letters.items() if mark in seen)

    def legend(self) -> list[tuple[str, str]]:
        """Each mark with its meaning, and the reasons of what is unproven."""
        told = {flag: _meaning(flag) for flag in self._letters}
        if "unproven" in told:
            told["unproven"] += f": {self._whys}"
        return [(letter, line(told[flag])) for flag, letter in self._letters.items()]


def bearing(measured: list[Measurement]) -> list[str]:
    """The marks of some measurements that bear on their speed, each once."""
    found = dict.fromkeys(mark for one in measured for mark in one.marks)
    return [mark for mark in found if mark in BEARING or mark.startswith(PRECISION)]


def _meaning(flag: str) -> str:
    if flag in MEANINGS:
        return f"{flag}: {MEANINGS[flag]}"
    if flag.startswith(PRECISION):
        name = flag.removeprefix(PRECISION)
        return f"computes in a precision of its own ({name}), not in the case's: its speed has a price"
    return flag


def _letter(index: int) -> str:
    letter = ascii_lowercase[index % 26]
    return letter if index < 26 else letter + str(index // 26)
