"""Timers and the measuring loop on a fake GPU, to the digit."""

import pytest
from fake_gpu import FakeGpu

from attnsweep.timing import measure
from attnsweep.timing.timers import EventsTimer, HostTimer

OPTIONS = {
    "target": 0.02,
    "min_blocks": 6,
    "min_time_s": 0.0,
    "time_cap_s": 1.0,
    "max_samples": 1000,
    "block_ms": 10.0,
    "rest_ms": 20.0,
    "cache": "cold",
}


def events(gpu, call=None, **options):
    """An events timer on a fake GPU."""
    chosen = {"call_ms": gpu.kernel_s * 1e3, "cache": "cold", "block_ms": 10.0, "rest_ms": 20.0, **options}
    return EventsTimer(gpu, call or gpu.call, gpu.clock, **chosen)


def test_events_give_the_kernels_time_and_nothing_of_the_launch():
    """100 us of kernel behind 50 us of launch reads 100 us."""
    gpu = FakeGpu(kernel_s=1e-4, launch_s=5e-5)
    block = events(gpu).block()
    assert block.hidden
    assert block.samples_ms == pytest.approx([0.1] * len(block.samples_ms))


def test_every_timed_call_is_cold_and_the_first_two_are_not_timed():
    """A flush before each call; two lead calls after the rest."""
    gpu = FakeGpu()
    block = events(gpu).block()
    assert set(gpu.log) == {"spin", "cold call"}
    assert gpu.log.count("cold call") == len(block.samples_ms) + 2


def test_hot_flushes_nothing():
    """cache=hot leaves L2 alone."""
    gpu = FakeGpu()
    events(gpu, cache="hot").block()
    assert "cold call" not in gpu.log


def test_a_blocker_too_short_is_made_longer():
    """A host slower than the first guess is hidden on a later attempt, and that attempt is what counts."""
    gpu = FakeGpu(kernel_s=1e-4, launch_s=1e-4)
    timer = events(gpu)
    block = timer.block()
    assert block.hidden
    assert gpu.log.count("spin") > 1
    assert block.samples_ms == pytest.approx([0.1] * len(block.samples_ms))
    assert not timer.flags


def test_launches_that_cannot_be_hidden_are_flagged():
    """A blocker that does not block: the samples are kept, and the row says unhidden."""
    gpu = FakeGpu(kernel_s=1e-5, launch_s=1e-4, spins=False)
    timer = events(gpu)
    assert not timer.block().hidden
    assert timer.flags == {"unhidden"}


def test_a_call_that_waits_for_the_device_does_not_run_away():
    """It can never hide: five attempts once, then one short block after another, flagged."""
    gpu = FakeGpu(kernel_s=1e-4)

    def waiting():
        gpu.call()
        gpu.synchronize()

    timer = events(gpu, waiting)
    timer.block()
    assert timer.flags == {"unhidden"}
    start = gpu.clock.now
    for _ in range(10):
        timer.block()
    assert gpu.clock.now - start < 0.5


@pytest.mark.parametrize(
    ("call_ms", "calls", "timed", "flags"),
    [(0.1, 26, 24, set()), (2.0, 4, 2, set()), (5.0, 2, 1, {"long_call"}), (50.0, 1, 1, {"long_call"})],
)
def test_a_block_holds_at_most_ten_milliseconds(call_ms, calls, timed, flags):
    """As many calls as fit beside two lead calls; long calls are one and one, very long ones one alone."""
    gpu = FakeGpu(kernel_s=call_ms / 1e3)
    timer = events(gpu)
    block = timer.block()
    assert gpu.log.count("cold call") == calls
    assert len(block.samples_ms) == timed
    assert timer.flags == flags


def test_a_block_begins_after_a_rest():
    """20 ms in which nothing runs."""
    gpu = FakeGpu()
    timer = events(gpu)
    timer.block()
    end = gpu.clock.now
    assert timer.block().starts_s[0] - end >= 0.02


def test_host_sees_launch_and_kernel():
    """What the caller of one call waits."""
    gpu = FakeGpu(kernel_s=1e-4, launch_s=5e-5)
    assert HostTimer(gpu, gpu.call, gpu.clock).block().samples_ms == pytest.approx([0.15])


def test_latency_on_a_gpu_is_by_events_with_the_host_beside_it():
    """Every column of the section, and the samples in order with their blocks."""
    gpu = FakeGpu(kernel_s=1e-4, launch_s=5e-6)
    columns = measure.latency(gpu, gpu.call, gpu.clock, OPTIONS, warm_ms=0.2)
    assert columns["timer"] == "events"
    assert columns["latency_ms"] == pytest.approx(0.1)
    assert columns["latency_ci_low_ms"] == pytest.approx(0.1)
    assert columns["host_ms"] == pytest.approx(0.105)
    assert columns["stop_reason"] == "interval"
    assert columns["flags"] == []
    assert columns["sample_block"] == sorted(columns["sample_block"])
    assert set(columns["sample_block"]) == set(range(6))
    assert columns["sample_start_s"] == sorted(columns["sample_start_s"])
    assert len(columns["samples_ms"]) == len(columns["sample_start_s"]) == len(columns["sample_block"])


def test_latency_on_a_cpu_is_by_the_host():
    """No events, no flush, and the median of all samples."""
    cpu = FakeGpu(kernel_s=1e-3, launch_s=0.0)
    cpu.on_gpu = False
    columns = measure.latency(cpu, cpu.call, cpu.clock, OPTIONS, warm_ms=1.0)
    assert columns["timer"] == "host"
    assert columns["latency_ms"] == columns["host_ms"] == pytest.approx(1.0)


def test_a_measurement_that_runs_into_its_cap_is_unstable():
    """An interval wider than the target after the time cap is said, not hidden."""
    gpu = FakeGpu()

    def drifting():
        gpu.kernel_s *= 1.01
        gpu.call()

    columns = measure.latency(gpu, drifting, gpu.clock, {**OPTIONS, "time_cap_s": 0.3}, warm_ms=0.2)
    assert columns["stop_reason"] == "time"
    assert "unstable" in columns["flags"]
