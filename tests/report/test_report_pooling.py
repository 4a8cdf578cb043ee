"""Which processes are one measurement, which of several measurements speaks, and how devices stay apart."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from report_records import prefill, values, write

from attnsweep.errors import Status
from attnsweep.report.build import content_of
from attnsweep.report.derive import derive
from attnsweep.report.load import CONFIGURATION, Loaded, load
from attnsweep.report.machines import machine_table
from attnsweep.report.notes import Footnotes
from attnsweep.report.pooling import choose
from attnsweep.report.sections import Derived
from attnsweep.report.summary import standings_table

POINT = prefill(1, 2048)


def at(minute: int, latency_ms: float | None = 1.0, **columns: Any) -> dict[str, Any]:
    return values(POINT, latency_ms=latency_ms, started_at=f"2026-11-20T10:{minute:02d}:00+00:00", **columns)


def only(derived: Derived) -> Any:
    assert len(derived.sections) == 1
    return derived.sections[0].cases[0].measured["fa2"]


@pytest.mark.parametrize("column", ["gpu_uuid", "driver", "torch", "jax", CONFIGURATION])
def test_what_differs_is_not_pooled_and_the_newest_speaks(column: str) -> None:
    """The older measurement is not in the number, the reader is told, and it is not counted among the processes."""
    rows = [(0, 1.0, "one"), (5, 3.0, "other"), (1, 1.2, "one")]
    derived = derive([at(minute, ms, replicate=n, **{column: said}) for n, (minute, ms, said) in enumerate(rows)])
    one = only(derived)
    assert (one.latency_ms, one.ok, one.marks) == (3.0, 1, ("superseded",))
    assert (len(derived.rows), derived.superseded) == (1, 2)
    assert "superseded" in dict(Footnotes(derived).legend())["a"]


@pytest.mark.parametrize("column", ["timing", "sweep"])
def test_of_the_same_in_several_sweeps_the_better_evidence_speaks(column: str) -> None:
    """Three processes beat a later one, a later three beat three, and what is left out is marked and counted."""
    old = [at(minute, 1.0, replicate=minute, **{column: "old"}) for minute in range(3)]
    late = [at(10 + minute, 3.0, replicate=minute, **{column: "late"}) for minute in range(3)]
    derived = derive([*old, late[0]])
    one = only(derived)
    assert (one.latency_ms, one.ok, one.marks) == (1.0, 3, ("outweighed",))
    assert (derived.outweighed, derived.superseded, len(derived.rows)) == (1, 0, 3)
    assert "outweighed: the same was measured in another sweep" in dict(Footnotes(derived).legend())["a"]
    assert only(derive([*old, *(row | {"driver": None} for row in late)])).latency_ms == 3.0


def test_a_late_failure_does_not_take_a_result_away() -> None:
    """A timeout of a quick sweep on a busy machine leaves three good processes where they are."""
    late = values(POINT, status=Status.TIMEOUT, sweep="late", started_at="2026-11-20T10:09:00+00:00")
    one = only(derive([at(0), at(1, replicate=1), late]))
    assert (one.status, one.ok, one.marks) == (Status.OK, 2, ("outweighed",))


def test_what_was_found_incorrect_later_has_no_time() -> None:
    """Three good processes of an earlier sweep do not stand against a wrong output; a later good one does."""
    wrong = values(POINT, status=Status.INCORRECT, sweep="late", started_at="2026-11-20T10:09:00+00:00")
    assert only(derive([at(0), at(1, replicate=1), wrong])).status == Status.INCORRECT
    assert only(derive([wrong, at(10)])).status == Status.OK


def test_nothing_from_before_an_incorrect_output_speaks() -> None:
    """Also where something else failed since then, in a third sweep."""
    wrong = values(POINT, status=Status.INCORRECT, sweep="late", started_at="2026-11-20T10:08:00+00:00")
    slow = values(POINT, status=Status.TIMEOUT, sweep="later", started_at="2026-11-20T10:09:00+00:00")
    assert only(derive([at(0), at(1, replicate=1), wrong, slow])).latency_ms is None


@pytest.mark.parametrize("flag", ["unchecked", "loose_check"])
def test_what_was_checked_loosely_speaks_alone(flag: str) -> None:
    """A look without a check, under other settings, takes nothing from what was checked; alone it is shown."""
    loose = at(9, 2.0, sweep="late", flags=[flag], **{CONFIGURATION: "loose"})
    one = only(derive([at(0, 1.0, **{CONFIGURATION: "strict"}), loose]))
    assert (one.latency_ms, one.ranked, one.marks) == (1.0, True, ("superseded",))
    assert only(derive([loose])).latency_ms == 2.0


def test_a_crash_without_a_check_takes_nothing_from_what_was_checked() -> None:
    """Had it been fast it would not count either."""
    crash = values(POINT, status=Status.CRASHED, sweep="late", started_at="2026-11-20T10:09:00+00:00")
    crash |= {"flags": ["unchecked"], CONFIGURATION: "unchecked"}
    one = only(derive([at(0, 1.0, **{CONFIGURATION: "strict"}), crash]))
    assert (one.status, one.latency_ms, one.marks) == (Status.OK, 1.0, ("superseded",))


def test_what_is_not_known_to_be_checked_otherwise_is_no_evidence() -> None:
    """Records that say nothing of their configuration: three without a check do not outweigh one that passed."""
    loose = [at(minute, 2.0, replicate=minute, sweep="loose", flags=["unchecked"]) for minute in range(3)]
    one = only(derive([at(9, 1.0), *loose]))
    assert (one.latency_ms, one.ranked, one.marks) == (1.0, True, ("superseded",))


def test_what_is_wrong_by_looser_limits_is_wrong() -> None:
    """Under other settings of the check, and newer: the strict one's time no longer stands."""
    wrong = values(POINT, status=Status.INCORRECT, sweep="late", started_at="2026-11-20T10:09:00+00:00")
    wrong |= {"flags": ["loose_check"], CONFIGURATION: "loose"}
    assert only(derive([at(0, 1.0, **{CONFIGURATION: "strict"}), wrong])).status == Status.INCORRECT


@pytest.mark.parametrize("timing", ["quick", "standard"])
def test_better_evidence_of_other_code_is_none(timing: str) -> None:
    """Code that was changed is measured anew: its one process speaks, by whichever preset."""
    old = [at(minute, 1.0, replicate=minute, **{CONFIGURATION: "old"}) for minute in range(3)]
    new = at(10, 3.0, sweep="late", timing=timing, **{CONFIGURATION: "new"})
    one = only(derive([*old, new]))
    assert (one.latency_ms, one.ok, one.marks) == (3.0, 1, ("superseded",))


@pytest.mark.parametrize("timing", ["quick", "standard"])
def test_the_measurement_tells_what_the_configuration_does_not(timing: str, tmp_path: Path) -> None:
    """A kernel of our own that was edited: equal JSON, another measurement, and the newest speaks."""
    same = {"config": '{"impl": 1}'}
    old = [at(minute, 1.0, replicate=minute, measurement="aa", **same) for minute in range(3)]
    new = at(10, 3.0, sweep="late", timing=timing, measurement="bb", **same)
    assert only(derive(load([write(tmp_path, [*old, new])]).rows())).latency_ms == 3.0
    assert only(derive(load([write(tmp_path / "two", [*old, {**new, "measurement": "aa"}])]).rows())).latency_ms == 1.0


def test_an_edited_function_in_one_sweep_is_another_measurement(tmp_path: Path) -> None:
    """Also among records from before `measurement`; a device, an id and a replicate in the JSON part nothing."""
    told = [
        {"id": str(n), "replicate": n, "device": {"uuid": str(n)}, "timing": {"replicates": n}, "impl": {"function": f}}
        for n, f in enumerate("aab")
    ]
    rows = [at(n, 1.0 + n, replicate=n, config=json.dumps(one)) for n, one in enumerate(told)]
    derived = derive(load([write(tmp_path, rows)]).rows())
    assert (only(derived).latency_ms, derived.superseded) == (3.0, 2)
    pooled = derive(load([write(tmp_path / "two", rows[:2])]).rows())
    assert (only(pooled).latency_ms, pooled.superseded) == (1.5, 0)


@pytest.mark.parametrize("config", [None, "", "no JSON", "[1]", "[" * 100_000])
def test_a_configuration_that_says_nothing_agrees_with_any(config: str | None, tmp_path: Path) -> None:
    """Nothing fails on it, and its process is pooled."""
    rows = [at(0, 1.0, config='{"impl": 1}'), at(1, 2.0, replicate=1, config=config)]
    assert only(derive(load([write(tmp_path, rows)]).rows())).ok == 2


def test_of_two_boards_with_as_many_the_same_is_marked_whichever_was_read_first() -> None:
    """Two implementations, each on a board of its own: no order of records makes another report."""
    rows = [at(0, 1.0, impl=name, gpu_uuid=board) for name, board in (("fa2", "GPU-2"), ("naive", "GPU-1"))]
    for some in (rows, rows[::-1]):
        (case,) = derive(some).sections[0].cases
        assert {text: one.marks for text, one in case.measured.items()} == {"fa2": ("other_gpu",), "naive": ()}


def test_what_another_board_measured_than_the_rest_of_its_case_is_marked() -> None:
    """Boards of one model differ; a failure, or a case of its own on another board, is no reason for a mark."""
    rows = [at(0, 1.0, impl=name, gpu_uuid="GPU-1") for name in ("fa2", "naive")]
    rows += [at(1, 1.0, impl="late", gpu_uuid="GPU-2")]
    rows += [values(POINT, status=Status.OOM, impl="failed", gpu_uuid="GPU-2")]
    derived = derive(rows)
    measured = derived.sections[0].cases[0].measured
    assert {name: one.marks for name, one in measured.items() if one.marks} == {"late": ("other_gpu",)}
    assert "other_gpu" in dict(Footnotes(derived).legend())["a"]
    assert derive([row | {"gpu_uuid": None} for row in rows]).sections[0].cases[0].measured["late"].marks == ()


def test_replicates_that_agree_are_pooled() -> None:
    """Two processes of one sweep, without a mark."""
    one = only(derive([at(0, 1.0), at(1, 3.0, replicate=1)]))
    assert (one.latency_ms, one.ok, one.marks) == (2.0, 2, ())


def test_a_failure_that_knows_nothing_belongs_to_its_sweep() -> None:
    """It died before it could ask for driver, torch and GPU: it makes the cell partial and opens no group."""
    lost = values(POINT, status=Status.CRASHED, started_at="2026-11-20T10:09:00+00:00")
    lost |= {"driver": None, "torch": None, "gpu_uuid": None}
    assert choose([at(0), lost]).speaks == (0, 1)
    one = only(derive([at(0), lost]))
    assert (one.status, one.marks) == (Status.OK, ("partial",))


@pytest.mark.parametrize("late", ["new", "old"])
def test_a_failure_that_knows_nothing_lets_no_older_software_speak(late: str) -> None:
    """Of a third sweep, the newest: it agrees with both versions of torch, of which the newer one's process speaks."""
    rows = [at(minute, 1.0, replicate=minute, sweep="old", torch="old") for minute in range(3)]
    rows.append(at(10 if late == "new" else 0, 3.0, sweep="new", torch="new"))
    lost = values(POINT, status=Status.CRASHED, sweep="third", started_at="2026-11-20T10:20:00+00:00")
    derived = derive([*rows, lost | {"driver": None, "torch": None, "gpu_uuid": None}])
    assert only(derived).latency_ms == (3.0 if late == "new" else 1.0)
    assert (derived.superseded, derived.outweighed) == ((3, 1) if late == "new" else (1, 1))


def test_what_does_not_know_its_gpu_brings_no_two_together() -> None:
    """It agrees with either of two that do not agree, and is of one of them: no median goes over both."""
    lacking = [at(9, 1.0, gpu_uuid=None), *(at(n, float(n), gpu_uuid=f"GPU-{n}", driver=None) for n in (2, 8))]
    assert choose(lacking).speaks == (0, 2)


def test_newer_software_that_failed_speaks_too() -> None:
    """An old time is no answer once it no longer works."""
    broken = values(POINT, status=Status.CRASHED, torch="2.14", started_at="2026-11-20T10:09:00+00:00")
    assert only(derive([at(0), broken])).status == Status.CRASHED


def test_records_without_a_time_do_not_fail() -> None:
    """The earliest there is."""
    assert choose([at(0) | {"started_at": None}, at(0, sweep="b")]).speaks == (1,)


def test_two_hosts_are_two_devices() -> None:
    """Each has its table under its own name; with one host the name stays clean."""
    derived = derive([at(0), at(1, hostname="node-2")])
    assert [section.key.device for section in derived.sections] == ["NVIDIA H200 on node-1", "NVIDIA H200 on node-2"]
    assert [column.title for column in machine_table(derived).columns[1:]] == [
        "NVIDIA H200 on node-1", "NVIDIA H200 on node-2",
    ]  # fmt: skip
    assert [section.key.device for section in derive([at(0)]).sections] == ["NVIDIA H200"]


def test_what_was_superseded_is_said(tmp_path: Any) -> None:
    """In the lead of the report, how many records for which reason."""
    import pyarrow as pa

    derived = derive([at(0, torch="old"), at(1, torch="old", replicate=1), at(2), at(3, sweep="later")])
    lead = content_of(derived, Loaded(pa.table({}), 1, 0, ()), ()).lead
    assert lead[1:] == (
        "2 records left out: of another machine, other software or configuration than the newest, or less strictly "
        "checked (superseded).",
        "1 record left out: of the same another sweep or timing preset has more processes that are ok, or as many and "
        "newer (outweighed).",
    )


def test_a_mean_over_different_versions_is_marked() -> None:
    """One case has only the old library, another only the new: the geometric mean mixes both."""
    other = prefill(1, 4096)
    rows = [values(POINT, impl_version="2.8"), values(other, impl_version="2.9")]
    rows += [values(point, "naive") for point in (POINT, other)]
    derived = derive(rows)
    notes = Footnotes(derived)
    rows_shown = standings_table(derived.sections[0], notes).rows
    marks = {row[0].text: [cell.marks for cell in row if cell.marks] for row in rows_shown}
    assert marks == {"fa2": [("a",), ("a",)], "naive": []}
    assert notes.legend()[0][1].startswith("mixed versions: ")
