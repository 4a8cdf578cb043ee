"""A whole sweep: plan, lock, run, record, and say what came out."""

from __future__ import annotations

import os
import shlex
import signal
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from attnsweep import (
    commands,
    devices,
    dry_run,
    folder_lock,
    identity,
    interpreters,
    planning,
    progress,
    recording,
    results,
    resume,
    safe_text,
    terminal,
)
from attnsweep.errors import FAILURES, AttnsweepError, ConfigError, Status

if TYPE_CHECKING:
    from attnsweep.compose import Combination
    from attnsweep.devices import Device
    from attnsweep.plan import Cell, Outcome, Plan
    from attnsweep.pool.ending import Ending
    from attnsweep.pool.interrupt import Stop
    from attnsweep.schema import Settings
    from attnsweep.uvenv import Recipe


def run(settings: Settings, combinations: list[Combination], *, shared: bool = False) -> int:
    """Run a sweep, or list it where `dry_run` is set, and return the exit code.

    0: every cell has a record, at least one is ok and none is wrong, crashed, timed out or failed to compile;
    1 otherwise; 128 and a signal's number where that ended it. `shared` is for one job of several that a
    launcher runs in the same folder at once: they do not refuse each other, and none is refused for what it
    cannot do. Raises ConfigError before any work for what cannot be meant, and where another sweep holds the
    folder.
    """
    found = devices.find(settings.device, settings.gpus)
    out = terminal.console()
    planned = planning.make(settings, combinations, found, hopeless=shared, say=lambda text: terminal.say(out, text))
    planned = replace(planned, missing=_missing(planned))
    if settings.dry_run:
        dry_run.show(out, planned, _unbuilt(planned))
        return 0
    from attnsweep.pool import interrupt

    try:
        planned.cells_folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"the folder {planned.cells_folder} cannot be made: {error.strerror}") from None
    with folder_lock.held(planned.folder, shared=shared, shard=settings.shard):
        # Again, now that nobody else adds records
        planned = resume.reopened(planned, force=settings.force, rerun=settings.rerun)
        with interrupt.listening() as stop:
            _make_room(planned, shared=shared, alone=not shared and settings.shard is None)
            return _run(settings, planned, shared, stop)


def _make_room(planned: Plan, *, shared: bool, alone: bool) -> None:
    """Clear the way for the records of the open cells, and away what a sweep left that was killed.

    `alone`: nobody else runs in this folder. Raises ConfigError where it cannot be done.
    """
    from attnsweep.pool import warm

    try:
        if alone:
            warm.discard_logs(planned.cells_folder)
        if not shared:
            recording.discard_unfinished({cell.id for cell in planned.open}, planned.cells_folder)
        resume.set_aside(planned)
    except OSError as error:
        raise ConfigError(
            f"the records to be replaced cannot be moved to {planned.cells_folder}/replaced: {error}"
        ) from None
    if planned.damaged:
        _warn(
            f"{len(planned.damaged)} of the records cannot be read whole; these cells are measured again, the files "
            f"are kept in {planned.cells_folder}/replaced ({planned.damaged[0]})"
        )


class _Unrecorded(AttnsweepError):
    """A record could not be written: whatever else is measured would be lost as well."""

    def __init__(self, cell: Cell, error: OSError) -> None:
        why = os.strerror(error.errno) if error.errno else error
        super().__init__(f"the record of {cell.id} could not be written: {why}")


def _warn(sentence: str) -> None:
    print(f"attnsweep: {safe_text.line(sentence)}", file=terminal.Lasting(sys.stderr), flush=True)


def _run(settings: Settings, planned: Plan, shared: bool, stop: Stop) -> int:
    from attnsweep import pool

    out = terminal.console()
    outcomes = dict(planned.done)
    unseen: set[tuple[object, ...]] = set()
    unrecorded = False
    if not planned.open:
        cells = len(planned.cells)
        all_of_them = "the one cell" if cells == 1 else f"all {cells} cells"
        out.print(f"Nothing to do: {all_of_them} of {planned.folder} {'has' if cells == 1 else 'have'} a record.")
    with progress.Report(out, len(planned.to_run)) as report:

        def finished(cell: Cell, device: Device, ending: Ending) -> None:
            if ending.status is None:
                return
            try:
                record = recording.write(cell, device, ending, planned.cells_folder)
            except OSError as error:
                raise _Unrecorded(cell, error) from error
            outcomes[cell.id] = resume.outcome_of(record.values)
            report.cell(cell, outcomes[cell.id])
            # At the first cell of an environment: the report would say it when all of them have run
            why, where = record.values.get("unproven_reason"), cell.interpreter
            if why is not None and (key := (where.python, where.variables, why)) not in unseen:
                unseen.add(key)
                said = f"unproven: which kernels ran cannot be seen ({why}); said once for its environment"
                report.say(f"{terminal.label(cell)}: {said}")

        try:
            _record_known(planned, outcomes, report, stop)
            if planned.to_run:
                import pyarrow.parquet  # noqa: F401  # now, or the first cell's overhead would hold the import

                slots = pool.Pool(
                    list(planned.devices),
                    log_folder=planned.cells_folder,
                    grace_s=settings.pool.grace_s,
                    waiting=report.say,
                    watching=report.running,
                    stop=stop,
                )
                slots.run(planned.to_run, lambda cell, device: None, finished, resume.begun(planned))
        except ConfigError:
            raise
        except _Unrecorded as error:
            unrecorded = True
            _warn(str(error))
        except AttnsweepError as error:
            # Devices that nothing can end a process on: the cells left over stay open, and the exit code says it
            report.say(str(error))
    results.show(out, planned.cells, outcomes)
    out.print(results.counts(outcome.status for outcome in outcomes.values()))
    out.print(f"Records: {planned.cells_folder}", soft_wrap=True)
    if stop.cause is not None or unrecorded:
        why = "Ended early." if stop.cause is None else f"Ended by {stop.cause}."
        out.print(f"{why} What is done is kept; this goes on:", soft_wrap=True)
        # A launcher's jobs that did not start have not set their records aside: they need what was typed
        settled = {} if shared else {"force": settings.force, "rerun": bool(settings.rerun)}
        out.print(f"    {commands.go_on(sys.argv, planned.name, settled)}", soft_wrap=True)
        return 1 if stop.cause is None else 128 + signal.Signals[stop.cause].value
    out.print(f"Report:  {shlex.join(['attnsweep-report', str(planned.folder)])}", soft_wrap=True)
    return exit_code(planned.cells, outcomes)


def _record_known(planned: Plan, outcomes: dict[str, Outcome], report: progress.Report, stop: Stop) -> None:
    """Record the open cells that need no process, until the sweep's own end; raises _Unrecorded."""
    for cell in planned.open:
        if stop.requested:
            break
        status, reason = Status.UNSUPPORTED, cell.unsupported
        if reason is None:
            status, reason = Status.MISSING, planned.missing.get(cell.id)
        if reason is None:
            continue
        try:
            record = recording.write_known(cell, status, reason, planned.cells_folder)
        except OSError as error:
            raise _Unrecorded(cell, error) from error
        outcomes[cell.id] = resume.outcome_of(record.values)
        report.known(cell, outcomes[cell.id])


def exit_code(cells: Sequence[Cell], outcomes: Mapping[str, Outcome]) -> int:
    """0 where every cell has a record, at least one is ok and none is a failure of its own doing; else 1."""
    statuses = [outcomes[cell.id].status for cell in cells if cell.id in outcomes]
    complete = len(statuses) == len(cells)
    return 0 if complete and Status.OK in statuses and not FAILURES & set(statuses) else 1


def _missing(planned: Plan) -> dict[str, str]:
    """By cell id, what cells are known to lack."""
    known: dict[str, str | None] = {}
    found = {}
    for cell in planned.cells:
        key = identity.canonical(cell.payload["impl"])
        if key not in known:
            version, kind = cell.columns["impl_version"], cell.columns["device"]
            known[key] = interpreters.why_missing(cell.payload["impl"], cell.interpreter, version, kind)
        why = known[key]
        if why is not None:
            found[cell.id] = why
    return found


def _unbuilt(planned: Plan) -> dict[str, Recipe]:
    """By cell id, the environments that a sweep would build first."""
    recipes = {cell.id: cell.interpreter.recipe for cell in planned.to_run}
    return {one: recipe for one, recipe in recipes.items() if recipe is not None and not recipe.built}
