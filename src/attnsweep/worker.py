"""One cell, from inputs to outcome: the whole story on one screen.

`run` is what a forked child calls; `python -m attnsweep.worker CELL.json` runs one cell by hand. This is the one
place that turns exceptions into statuses. Standard library and the framework only, Python 3.9 on.
"""

from __future__ import annotations

import json
import re
import sys
import time
import traceback
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Callable, Iterator

from attnsweep import check, frameworks, impls, inputs, metrics
from attnsweep.case import Case
from attnsweep.errors import CellError, CompileError, Incorrect, Missing, Status, said
from attnsweep.frameworks import Framework, triton_autotuning
from attnsweep.timing import cupti, measure
from attnsweep.timing.subject import Subject

#: Warm calls at least and at most: CUDA-graph modes warm up, record and only then replay.
_FEWEST_WARM, _MOST_WARM = 3, 20

#: How long the stream is held up before the call whose kernels are looked at: what follows the call in the stream is to
#: wait behind it too. The first launch that CUPTI sees takes 2.4 ms and more on an H200.
_MARK_MS = 20.0


def run(cell: dict[str, Any], emit: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    """Run a resolved cell and return its outcome: status, reason, traceback, stages, windows and record columns.

    `emit` is told each stage as it begins. Whatever an implementation raises comes back as a status.
    """
    story = _Story(cell, emit)
    try:
        story.tell()
    except (Exception, SystemExit) as error:  # noqa: BLE001 - the one place that turns exceptions into statuses
        status, reason = story.status_of(error)
        if isinstance(error, Incorrect):
            story.columns.update(error.columns)
        return story.outcome(status, reason, traceback.format_exc())
    return story.outcome(Status.OK, None, None)


class _Story:
    """What is known of a cell so far, so that a failure keeps the stages that it came through."""

    def __init__(self, cell: dict[str, Any], emit: Callable[[dict[str, Any]], None]) -> None:
        self.cell, self.emit = cell, emit
        self.stages: dict[str, float] = {}
        self.columns: dict[str, Any] = {"python": ".".join(str(part) for part in sys.version_info[:3])}
        self.flags: set[str] = set()
        self.windows: dict[str, list[float]] = {}
        self.compiling = False
        self.framework: Framework | None = None
        self.tracer: cupti.Tracer | None = None

    def announce(self, phase: str) -> None:
        """Tell the parent where the cell is: its deadlines go by that."""
        self.emit({"event": "phase", "phase": phase})

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Announce a stage and keep its duration, also when it fails."""
        self.announce(name)
        start = time.monotonic()
        try:
            yield
        finally:
            self.stages[name] = self.stages.get(name, 0.0) + time.monotonic() - start

    def tell(self) -> None:
        """The stages of MEASUREMENT: inputs, prepare, check, proof, memory, time."""
        cell = self.cell
        case, compile_mode = Case.from_dict(cell["case"]), cell["compile"]
        with self.stage("import"):
            impls.require_class(cell["impl"])
            fw = self.framework = _framework(cell)
        # The CUDA context comes up here, in no stage: it is what isolation costs.
        fw.synchronize()
        self.columns.update(fw.describe())
        implementation = impls.build(cell["impl"])
        with self.stage("inputs"):
            given = inputs.make(fw, case, cell["seed"], implementation.layout)
            fw.synchronize()
        with self.stage("import"):
            start = time.monotonic()
            if implementation.module is not None:
                implementation.require(implementation.module)
            self.columns["import_s"] = time.monotonic() - start
        with self.stage("prepare"):
            subject = self._prepare(fw, case, implementation, given, compile_mode)
            call = subject.call
        with self.stage("check"):
            if implementation.is_attention:
                self._check(fw, case, implementation, given, call)
            else:
                self.columns["check"] = "skipped: a ceiling, not attention"
                self.flags.add("ceiling")
        with self.stage("proof"):
            self._prove(fw, case, implementation, call)
        with self.stage("memory"):
            self._weigh(fw, given, call)
        with self.stage("timing"):
            primary = metrics.primary_timer(case, fw.device_events)
            measured = measure.latency(fw, subject, time, cell["timing"], primary, self.tracer)
            self.columns.update(measured.columns)
            self.flags |= measured.flags
            self.windows = measured.windows
        with self.stage("check"):
            if cell["check"]["enabled"] and implementation.is_attention:
                if measured.timed is call:  # what is captured has its memory in a graph
                    fw.free_memory()  # fresh inputs would be cut out of a block that the call needs whole
                told = (cell["seed"] + 1, cell["check"], implementation.precision)
                check.verify_again(fw, case, given, measured.timed, *told)
                if case.direction == "bwd" and implementation.precision is None:
                    # The timed graph goes before another is made: what fits once must not be out of memory here.
                    another = subject.another
                    del call, subject, measured
                    check.verify_peaky(fw, case, implementation.layout, another, *told)

    def _prepare(
        self,
        fw: Framework,
        case: Case,
        implementation: impls.Attention,
        given: inputs.Inputs,
        mode: dict[str, Any],
    ) -> Subject:
        """The call to measure, after its first run and until nothing compiles any more."""
        start = time.monotonic()
        function = implementation.prepare(case, "cuda" if fw.on_gpu else "cpu")
        fw.synchronize()
        elapsed = time.monotonic() - start
        self.columns["plan_s"] = elapsed if implementation.plan_s is None else implementation.plan_s
        self.flags |= implementation.flags
        compiled = fw.compile(function, mode, tag=json.dumps(self.cell["impl"], sort_keys=True))
        # A ceiling does the work of whatever direction in its one call, and has no gradient
        direction = case.direction if implementation.is_attention else "fwd"

        def call_on(arrays: inputs.Inputs) -> Callable[[], Any]:
            if arrays.bias is not None:
                arrays.bias = implementation.lay_out_bias(arrays.bias)
            return fw.differentiate(compiled, arrays, direction)

        call = call_on(given)
        self.compiling = mode["mode"] is not None
        if not self.compiling and fw.eager_flag is not None:
            self.flags.add(fw.eager_flag)
        if self.compiling:
            # A phase for the deadlines alone: the stage, which is a column, is prepare all along
            self.announce("compile")
        self.columns["first_call_s"] = _timed(fw, call)
        if self.compiling:
            self.columns["autotune_s"] = fw.autotune_s()
        warm: list[float] = []
        before = fw.compilations()
        while len(warm) < _MOST_WARM:
            warm.append(_timed(fw, call))
            after, pending = fw.compilations(), fw.pending()
            if len(warm) >= _FEWEST_WARM and after == before and pending is None:
                break
            before = after
        else:
            raise CompileError(f"after {_MOST_WARM} calls {pending or 'something was still being compiled'}")
        if self.compiling:
            self.columns["compile_s"] = max(0.0, self.columns["first_call_s"] - warm[-1])
            self.columns["compile_cache"] = fw.compile_cache()
            if fw.graph_breaks():
                self.flags.add("graph_break")
        self.compiling = False
        self.columns["autotuned_configs"] = triton_autotuning.chosen()
        fw.forbid_compilation()
        return Subject(call, given, call_on, min(warm) * 1e3)

    def _check(
        self,
        fw: Framework,
        case: Case,
        implementation: impls.Attention,
        given: inputs.Inputs,
        call: Callable[[], Any],
    ) -> None:
        options, precision = self.cell["check"], implementation.precision
        self.columns["precision_class"] = "native" if precision is None else precision["class"]
        if options["enabled"]:
            self.columns.update(check.verify(fw, case, given, call, options, precision))
        else:
            self.columns["check"] = "skipped: check.enabled=false"
        fw.free_memory()

    def _prove(self, fw: Framework, case: Case, implementation: impls.Attention, call: Callable[[], Any]) -> None:
        """Which kernels ran: flags `fallback` where a declared one is not among them, `substituted` where one ran that
        the implementation never runs itself, `impure` where any copied, `unproven` where none can be seen, for
        `unproven_reason`. Raises Incorrect where none ran, or one in another stream than is timed. On a CPU only what
        must never run is looked for, among the framework's operators: the loops that a compiler makes have no names.
        """
        never = implementation.kernels.get("never", [])
        if not fw.on_gpu:
            found = [name for name in (fw.operators(call) if never else []) if _any(never, [name])]
            if found:
                self.columns["kernel_names"] = found
                self.flags.add("substituted")
            return
        try:
            self.tracer = cupti.Tracer(fw.synchronize)
            seen = _traced(fw, self.tracer, call)
        except cupti.CuptiFailed as error:
            self.tracer = None
            self.flags.add("unproven")
            self.columns["unproven_reason"] = str(error)
            return
        if not seen:
            raise Incorrect("the call ran no kernel on the GPU")
        ran = [cupti.readable(one.name) for one in seen]
        self.columns["kernel_names"] = list(dict.fromkeys(ran))
        self.columns["kernel_count"] = len(seen)
        if any(cupti.copies(one) for one in seen):
            self.flags.add("impure")
        for direction in ("fwd", "bwd"):
            patterns = implementation.kernels.get(direction)
            if patterns and direction in case.direction and not _any(patterns, ran):
                self.flags.add("fallback")
        if _any(never, ran):
            self.flags.add("substituted")

    def _weigh(self, fw: Framework, given: inputs.Inputs, call: Callable[[], Any]) -> None:
        output_bytes = fw.nbytes(call())
        self.columns["output_bytes"] = output_bytes
        peak = fw.peak_memory(call)
        held = output_bytes + fw.nbytes(given.all)
        if (
            peak is not None and peak >= held
        ):  # else the call has memory that the allocator does not see: a CUDA graph's
            self.columns["peak_memory_bytes"] = peak
            self.columns["workspace_bytes"] = peak - held

    def status_of(self, error: BaseException) -> tuple[Status, str]:
        """The status that an exception means, and its reason in a line."""
        text = " ".join(said(error).split()) or type(error).__name__
        if isinstance(error, CellError):
            return error.status, text
        if isinstance(error, MemoryError):
            return Status.OOM, f"out of host memory: {text}"
        known = self.framework.status_of(error) if self.framework is not None else None
        if known is not None:
            return known
        if self.compiling:
            return Status.COMPILE_ERROR, f"{type(error).__name__}: {text[:500]}"
        return Status.ERROR, f"{type(error).__name__}: {text[:500]}{self._aftermath(text)}"

    def _aftermath(self, text: str) -> str:
        """What the GPU says besides: a kernel that fails is noticed in a later call, which may give it another name.

        Asked only after what a library of NVIDIA's says: it is a wait for the GPU, and that may hang.
        """
        if self.framework is None or not self.framework.on_gpu or not re.search("cuda|cudnn|cublas", text, re.I):
            return ""
        try:
            self.framework.synchronize()
        except RuntimeError as later:
            told = str(later).partition("\n")[0]
            return "" if told in text else f"; the GPU says: {told}"
        return ""

    def outcome(self, status: Status, reason: str | None, trace: str | None) -> dict[str, Any]:
        """What goes back over the pipe."""
        return {
            "status": status.value,
            "reason": reason,
            "traceback": trace,
            "stages": self.stages,
            "windows": self.windows,
            "columns": {**self.columns, "flags": sorted(self.flags)},
        }


def _framework(cell: dict[str, Any]) -> Framework:
    name = impls.framework(cell["impl"])
    try:
        return frameworks.load(name, cell["device"])
    except ImportError as error:
        raise Missing(f"{name} cannot be imported ({error}); install it with: pip install {name}") from error


def _any(patterns: list[str], names: list[str]) -> bool:
    """Whether any pattern is found in any name."""
    return any(re.search(pattern, name) for pattern in patterns for name in names)


def _traced(fw: Framework, tracer: cupti.Tracer, call: Callable[[], Any]) -> list[cupti.Activity]:
    """What the GPU did in one call. Raises CuptiFailed; and Incorrect where some of it was out of the order of the
    stream that is timed, where the framework has one: neither its events nor who uses the output there wait for it.
    """
    if not fw.device_events:
        return tracer.trace(call)

    def marked() -> None:
        fw.spin(_MARK_MS)
        call()
        fw.spin(0.0)

    seen = tracer.trace(marked)
    stray = cupti.stray(seen, _MARK_MS)
    if stray is not None:
        raise Incorrect(f"a kernel ran out of the order of the stream that is timed: {cupti.readable(stray.name)}")
    return seen[1:-1]


def _timed(fw: Framework, call: Callable[[], Any]) -> float:
    """Seconds of one call with synchronisation."""
    fw.synchronize()
    start = time.monotonic()
    call()
    fw.synchronize()
    return time.monotonic() - start


def main() -> None:
    """`python -m attnsweep.worker CELL.json`: run one cell in this process and print its outcome as JSON."""
    if len(sys.argv) != 2:
        raise SystemExit("usage: python -m attnsweep.worker CELL.json (the `config` column of a record)")
    outcome = run(json.loads(Path(sys.argv[1]).read_text()), lambda event: print(json.dumps(event), file=sys.stderr))
    print(json.dumps(outcome, indent=1))


if __name__ == "__main__":
    main()
