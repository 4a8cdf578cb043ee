"""A CPU that is shared while samples are taken: seen in the kernel's own count of waiting, and flagged."""

import subprocess
import sys

import pytest
from fake_gpu import FakeGpu, subject
from test_measure import OPTIONS

from attnsweep.timing import contention, measure


def test_waiting_is_summed_over_threads(tmp_path):
    """The second number of each thread's schedstat, nanoseconds."""
    for thread, text in {"1": "900 2000000000 3", "2": "5 500000000 1"}.items():
        (tmp_path / thread).mkdir()
        (tmp_path / thread / "schedstat").write_text(text)
    assert contention.waited_s(tmp_path) == 2.5


@pytest.mark.parametrize("text", [None, "", "1 x 2"])
def test_a_kernel_that_does_not_say_is_not_guessed(tmp_path, text):
    """No file, or one of another form: None, and nothing is flagged."""
    if text is not None:
        (tmp_path / "1").mkdir()
        (tmp_path / "1/schedstat").write_text(text)
    assert contention.waited_s(tmp_path) is None


@pytest.mark.parametrize(("share", "flags"), [(0.02, set()), (0.5, {"contended"}), (None, set())])
def test_a_shared_cpu_is_flagged(monkeypatch, share, flags):
    """By the share of the time that was spent waiting, on a CPU's rows alone."""
    cpu = FakeGpu(kernel_s=1e-3, launch_s=0.0)
    cpu.on_gpu = False
    begin = cpu.clock.now
    monkeypatch.setattr(contention, "waited_s", lambda: None if share is None else share * (cpu.clock.now - begin))
    assert measure.latency(cpu, subject(cpu), cpu.clock, OPTIONS, "events", None).flags == flags


def test_a_busy_neighbour_on_the_same_cpu_is_seen():
    """A process that shares its only CPU with another waits for a good part of the time."""
    script = """
import os, subprocess, sys, time
from attnsweep.timing import contention
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
neighbour = subprocess.Popen([sys.executable, "-c", "while True: pass"])
try:
    begin, before = time.monotonic(), contention.waited_s()
    while time.monotonic() - begin < 1.0:
        pass
    print((contention.waited_s() - before) / (time.monotonic() - begin) > contention.SHARED)
finally:
    neighbour.kill()
    neighbour.wait()
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "True"
