"""From what a slot saw to a status: every row of the table, without a process."""

from __future__ import annotations

from pathlib import Path

import pytest

from attnsweep.errors import Status
from attnsweep.pool.attempt import Inbox, oom_kills
from attnsweep.pool.deadlines import Late
from attnsweep.pool.ending import Seen, decide, interrupted, without_process

OK = {"status": "ok", "reason": None, "traceback": None}
LATE = Late("timeout_s", 3.0)


@pytest.mark.parametrize(
    ("seen", "status", "reason"),
    [
        (Seen(outcome=OK, exit=0), Status.OK, None),
        (Seen(outcome=OK, exit=-11), Status.OK, None),
        (Seen(outcome=OK, exit=-15, late=LATE), Status.OK, None),
        (Seen(outcome=OK, stopped=True), Status.OK, None),
        (Seen(outcome={"status": "oom", "reason": "CUDA"}, exit=0), Status.OOM, "CUDA"),
        (Seen(outcome={}, exit=0), Status.ERROR, "the outcome has no valid status: None"),
        (Seen(outcome={"status": []}, exit=0), Status.ERROR, "the outcome has no valid status: []"),
        (Seen(capped=True, exit=-9), Status.ERROR, "outcome too large: more than 99 bytes"),
        (Seen(stopped=True), None, None),
        (Seen(stopped=True, died=True), None, None),
        (Seen(failed="no memory"), Status.ERROR, "no process could be started for it: no memory"),
        (Seen(late=LATE, exit=-15), Status.TIMEOUT, "still running after its deadline of 3 s"),
        (Seen(late=LATE, exit=0), Status.TIMEOUT, "still running after its deadline of 3 s"),
        (
            Seen(late=LATE, exit=-9, phase="check"),
            Status.TIMEOUT,
            "deadline of 3 s (in phase check); pool.timeout_s raises it",
        ),
        (
            Seen(late=Late("prepare_s", 120.0, 1, 0.04, 30.0), exit=-15, phase="inputs"),
            Status.TIMEOUT,
            "after its deadline of 120 s (in phase inputs): no CPU time for 30 s; pool.prepare_s raises it",
        ),
        (
            Seen(late=Late("compile_s", 600.0, 3, 58.0, 60.0, busy=True), exit=-15, phase="compile"),
            Status.TIMEOUT,
            "still running after 3 times its deadline of 600 s (in phase compile): still busy, 58.0 s of CPU in the "
            "last 60 s; pool.compile_s raises it",
        ),
        (
            Seen(late=Late("prepare_s", 120.0, 1, 1.5, 30.0), exit=-15),
            Status.TIMEOUT,
            "still running after its deadline of 120 s: 1.5 s of CPU in the last 30 s; pool.prepare_s raises it",
        ),
        (Seen(late=LATE, stuck=True), Status.TIMEOUT, "stuck"),
        (Seen(late=LATE, died=True), Status.TIMEOUT, "still running"),
        (Seen(exit=0), Status.CRASHED, "exit 0 without outcome"),
        (Seen(exit=7, phase="check"), Status.CRASHED, "exit 7 without outcome (in phase check)"),
        (Seen(exit=72), Status.CRASHED, "closed the pipe"),
        (Seen(exit=-9, oom=True), Status.OOM, "probably out of host memory"),
        (Seen(exit=-11, oom=True), Status.CRASHED, "died of SIGSEGV"),
        (Seen(exit=-9), Status.CRASHED, "died of SIGKILL"),
        (Seen(exit=-15), Status.CRASHED, "SIGTERM, not sent by the sweep, ended it twice"),
        (Seen(died=True), Status.CRASHED, "its zygote died twice"),
    ],
)
def test_each_thing_seen_has_its_status(seen, status, reason):
    """The second attempt's, where there were two."""
    end = decide(seen, cap_bytes=99)
    assert end.status is status
    assert end.reason == reason or reason in end.reason


@pytest.mark.parametrize(
    ("seen", "again"),
    [
        (Seen(died=True), True),
        (Seen(exit=-15), True),
        (Seen(exit=-2), True),
        (Seen(exit=-1), True),
        (Seen(exit=-9), False),
        (Seen(exit=0), False),
        (Seen(exit=15), False),
        (Seen(died=True, outcome=OK), False),
        (Seen(died=True, stopped=True), False),
        (Seen(died=True, late=LATE), False),
        (Seen(exit=-15, late=LATE), False),
        (Seen(failed="no memory"), False),
    ],
)
def test_only_what_comes_from_outside_gets_a_second_attempt(seen, again):
    """A crash, a deadline or the sweep's end is final."""
    assert interrupted(seen) is again


def test_a_timeout_shows_the_traceback_and_not_what_was_printed_before():
    """faulthandler's part of the log."""
    log = 'progress 1\nThread 0x00007f (most recent call first):\n  File "a.py"\nCurrent thread 0x1:\n  File "b.py"'
    seen = Seen(late=LATE, exit=-15, log_end=log)
    assert decide(seen, cap_bytes=1).traceback == log.partition("\n")[2]
    seen.log_end = "progress 1"
    assert decide(seen, cap_bytes=1).traceback == "progress 1"


def test_what_was_seen_beside_the_cell_goes_on_with_its_end():
    """Flags for the record, and the time that seeing them took."""
    end = decide(Seen(outcome=OK, flags=frozenset({"gpu_busy"}), looked_s=0.1, other_gpus_in_use=2), cap_bytes=1)
    assert (end.flags, end.looked_s, end.other_gpus_in_use) == ({"gpu_busy"}, 0.1, 2)


def test_a_cell_without_a_process_took_no_time():
    """Its record still says when."""
    end = without_process(Status.MISSING, "no torch", None)
    assert end.requested_s == end.ended_s
    assert end.started_at.endswith("+00:00")
    assert (end.status, end.reason) == (Status.MISSING, "no torch")


def test_an_inbox_reads_lines_however_they_are_cut():
    """One byte at a time gives the same as all at once; the first outcome stays."""
    lines = (
        b'\n{"token": "t", "event": "phase", "phase": "check"}\n'
        b'\n{"token": "t", "event": "other"}\n'
        b'\n{"token": "x", "event": "phase", "phase": "forged"}\n'
        b'not json\n[1]\n{"token": "t", "outcome": 7}\n'
        b'\n{"token": "t", "outcome": {"status": "ok"}}\n'
        b'\n{"token": "t", "outcome": {"status": "error"}}\n'
    )
    whole, parts = Inbox("t", 10_000), Inbox("t", 10_000)
    whole.feed(lines)
    for byte in lines:
        parts.feed(bytes([byte]))
    for inbox in (whole, parts):
        assert (inbox.phase, inbox.outcome, inbox.capped) == ("check", {"status": "ok"}, False)


def test_an_inbox_is_capped_beyond_its_size_and_keeps_nothing():
    """A gigabyte of outcome does not become a gigabyte of the parent."""
    inbox = Inbox("t", 100)
    inbox.feed(b"x" * 100)
    assert not inbox.capped
    inbox.feed(b'\n{"token": "t", "outcome": {}}\n')
    assert inbox.capped
    assert inbox.outcome is None


def test_the_kernel_counts_its_oom_kills():
    """Linux 4.13 and newer say it in /proc/vmstat."""
    assert oom_kills() >= 0
    assert "\noom_kill " in Path("/proc/vmstat").read_text()
