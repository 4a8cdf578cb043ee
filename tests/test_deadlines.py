"""When a cell is late, on a clock of the test's own; and what is read of the CPU time of real processes."""

from __future__ import annotations

import math
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping

import pytest

from attnsweep.limits import BUSY_TIMES, Phases
from attnsweep.pool import cputime
from attnsweep.pool.deadlines import Late, Readings, Watch
from processes import wait_for

PHASES = Phases(prepare_s=120.0, compile_s=180.0, check_s=60.0, time_s=70.0)


def idle(now: float) -> float:
    """CPU seconds of a cell that never used any."""
    return 0.0


def cores(number: float, until: float = math.inf) -> Callable[[float], float]:
    """CPU seconds of a cell that uses so many cores until then."""
    return lambda now: number * min(now, until)


def ended(
    cpu_s: Callable[[float], float],
    announced: Mapping[float, str] | None = None,
    phases: Phases = PHASES,
    timeout_s: float = 10_000.0,
) -> tuple[float, Late]:
    """When a cell that uses the CPU like that and announces these phases is late, and why; it began at 0."""
    now = 0.0
    watch = Watch(timeout_s, phases, now, lambda: cpu_s(now))
    events = sorted((announced or {}).items())
    while True:
        watch.look(now)
        late = watch.late(now)
        if late is not None:
            return now, late
        wake = watch.wake(now)
        assert wake > now, "it would be asked for ever"
        now = min([wake, *(when for when, _ in events[:1])])
        while events and events[0][0] <= now:
            watch.enter(events.pop(0)[1], now)


def test_a_cell_that_sleeps_while_it_prepares_ends_at_the_limit() -> None:
    """Nothing was used, so it hangs."""
    assert ended(idle) == (120.0, Late("prepare_s", 120.0, 1, 0.0, 30.0, False))


@pytest.mark.parametrize("used", [0.15, 1.0, 64.0])
def test_a_cell_that_works_gets_more_time_and_not_for_ever(used: float) -> None:
    """A slow compile is no hang, on a busy machine neither; a loop without end is ended all the same."""
    when, late = ended(cores(used), {5.0: "compile"})
    assert when == 5.0 + BUSY_TIMES * 180.0
    assert (late.setting, late.limit_s, late.times, late.busy) == ("compile_s", 180.0, BUSY_TIMES, True)
    assert late.cpu_s == pytest.approx(60.0 * used)
    assert late.window_s == pytest.approx(60.0)


def test_a_cell_that_stops_working_is_ended_soon_after() -> None:
    """Beyond its limit, as soon as the window holds less CPU time than a compiler uses."""
    when, late = ended(cores(1.0, until=200.0), {0.0: "compile"})
    assert 200.0 < when <= 231.0
    assert (late.times, late.busy) == (1, False)


def test_threads_that_only_poll_are_no_work() -> None:
    """A twentieth of a core."""
    when, late = ended(cores(0.05))
    assert when == 120.0
    assert late.cpu_s == pytest.approx(1.5)


def test_a_slow_compile_that_ends_goes_on_to_its_check() -> None:
    """And has the whole of the check's limit then, however late it is."""
    when, late = ended(cores(4.0), {1.0: "import", 2.0: "inputs", 3.0: "prepare", 4.0: "compile", 500.0: "check"})
    assert (when, late) == (560.0, Late("check_s", 60.0))


def test_proof_memory_and_timing_share_one_limit_and_the_second_check_has_its_own() -> None:
    """A phase that was there before begins anew."""
    story = {1.0: "prepare", 2.0: "check", 50.0: "proof", 60.0: "memory", 70.0: "timing"}
    assert ended(idle, story) == (120.0, Late("time_s", 70.0))
    assert ended(idle, {**story, 119.0: "check"}) == (179.0, Late("check_s", 60.0))


def test_an_unknown_phase_changes_no_limit() -> None:
    """Another version of the worker may announce it."""
    assert ended(idle, {10.0: "lunch"})[0] == 120.0
    assert ended(idle, {10.0: "check", 20.0: "lunch"})[0] == 70.0


def test_the_whole_deadline_bounds_every_phase() -> None:
    """Also that of a cell that is busy, and that of one that announces two phases in turns."""
    assert ended(cores(1.0), timeout_s=100.0) == (100.0, Late("timeout_s", 100.0, 1, 60.0, 60.0, True))
    turns = {float(second): ("check", "timing")[second % 2] for second in range(1, 400)}
    assert ended(idle, turns, timeout_s=300.0) == (300.0, Late("timeout_s", 300.0))
    assert ended(idle, phases=Phases(), timeout_s=7.0)[0] == 7.0


def test_nobody_looks_while_a_cell_is_checked_or_timed() -> None:
    """Reading /proc is for prepare and compile alone."""

    def cpu_s(now: float) -> float:
        assert now < 10.0
        return now

    assert ended(cpu_s, {10.0: "check", 20.0: "timing"})[0] == 90.0


def test_it_looks_once_a_second_and_at_short_limits_more_often() -> None:
    """Not more, whoever asks in between."""
    looks: list[float] = []
    ended(lambda now: looks.append(now) or 0.0)  # type: ignore[func-returns-value]
    assert looks == [float(second) for second in range(1, 121)]
    looks.clear()
    ended(lambda now: looks.append(now) or 0.0, phases=Phases(prepare_s=1.0))  # type: ignore[func-returns-value]
    assert len(looks) == 8


def test_cpu_time_that_falls_is_no_work_and_hides_none() -> None:
    """A process is gone whose parent does not count it: what the others use from then on is seen."""
    readings = Readings(0.0)
    for now, cpu_s in ((1.0, 50.0), (2.0, 1.0), (3.0, 1.0), (4.0, 2.0)):
        readings.add(now, cpu_s)
    assert readings.over(2.0) == (1.0, 2.0)
    assert readings.over(100.0) == (51.0, 4.0)


def test_readings_of_hours_are_not_kept() -> None:
    """Only the last minute counts."""
    readings = Readings(0.0)
    for second in range(1, 10_000):
        readings.add(float(second), 2.0 * second)
    assert readings.over(1e9) == (120.0, 60.0)


def test_a_standing_has_the_cores_of_the_last_seconds_while_somebody_looks() -> None:
    """The phase, since when, and nothing of the CPU once it is timed."""
    now = 0.0
    watch = Watch(math.inf, PHASES, now, lambda: 4.0 * now)
    assert watch.standing().cores is None
    for second in range(1, 20):
        now = float(second)
        watch.look(now)
    watch.enter("compile", now)
    standing = watch.standing()
    assert (standing.phase, standing.begun_s, standing.since_s) == ("compile", 0.0, 19.0)
    assert standing.cores == pytest.approx(4.0)
    watch.enter("timing", now)
    assert (watch.standing().phase, watch.standing().cores) == ("time", None)


BURN = "import time\nend = time.process_time() + {}\nwhile time.process_time() < end: pass\n"


def test_cpu_time_holds_all_that_descends_and_what_is_over_already() -> None:
    """A grandchild in a session of its own, while it runs and after it was waited for; its parent only waits."""
    code = (
        "import subprocess, sys, time\n"
        f"subprocess.run([sys.executable, '-c', {BURN.format(0.5)!r}], start_new_session=True)\n"
        "print('over', flush=True)\n"
        "time.sleep(60)\n"
    )
    before = cputime.below(os.getpid())
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as process:
        try:
            wait_for(lambda: cputime.below(os.getpid()) - before > 0.3)
            assert process.stdout is not None
            assert process.stdout.readline() == "over\n"
            used = cputime.below(os.getpid()) - before
            assert used >= 0.5
            time.sleep(0.3)
            assert cputime.below(os.getpid()) - before == pytest.approx(used, abs=0.1)
        finally:
            process.kill()


def test_cpu_time_of_the_process_itself_is_left_out() -> None:
    """A zygote's own is not its cell's."""
    before, end = cputime.below(os.getpid()), time.process_time() + 0.3
    while time.process_time() < end:
        pass
    assert cputime.below(os.getpid()) - before < 0.1


def test_cpu_time_below_a_process_that_is_gone_is_none() -> None:
    """Nor is anybody else's taken for it."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    assert cputime.below(process.pid) == 0.0
