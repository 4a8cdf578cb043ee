"""Timers on a fake GPU, to the digit."""

import pytest
from fake_gpu import FakeGpu, FakeSmClock, FakeTracer

from attnsweep.errors import GraphUnsupported
from attnsweep.timing.timers import EventsTimer, GraphTimer, HostTimer, KernelTimer, Shape, Uncountable, shape_of


def events(gpu, call=None, **options):
    """An events timer on a fake GPU, in blocks of 10 ms after 20 ms of rest."""
    shape = shape_of(gpu.kernel_s * 1e3, gpu.flush_s * 1e3, block_ms=10.0, rest_ms=20.0)
    return EventsTimer(gpu, call or gpu.call, gpu.clock, **{"shape": shape, "cache": "cold", **options})


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
    """A host slower than the first guess is hidden on the next attempt, which counts and has as many calls."""
    gpu = FakeGpu(kernel_s=1e-4, launch_s=1e-4)
    timer = events(gpu)
    block = timer.block()
    assert block.hidden
    assert gpu.log.count("spin") == 2
    assert block.samples_ms == pytest.approx([0.1] * 24)
    assert not timer.flags


def test_a_full_launch_queue_means_fewer_calls():
    """No blocker hides the launch that waits for room in the queue: that block has fewer calls, and later ones too."""
    gpu = FakeGpu(kernel_s=1e-4)
    issued = []

    def queued():
        issued.append(gpu.log.count("spin"))
        if issued.count(issued[-1]) > 16:
            gpu.synchronize()
        gpu.call()

    timer = events(gpu, queued)
    blocks = [timer.block() for _ in range(3)]
    assert all(block.hidden for block in blocks)
    assert [len(block.samples_ms) for block in blocks] == [12, 12, 12]
    assert not timer.flags


def test_launches_that_cannot_be_hidden_are_flagged():
    """A blocker that does not block: the samples are kept, and the row says unhidden."""
    gpu = FakeGpu(kernel_s=1e-5, launch_s=1e-4, spins=False)
    timer = events(gpu)
    assert not timer.block().hidden
    assert timer.flags == {"unhidden"}


def test_a_call_that_waits_for_the_device_does_not_run_away():
    """It can never hide: six attempts once, then one short block after another, flagged."""
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
    ("call_ms", "calls", "timed"),
    [(0.1, 26, 24), (2.0, 4, 2), (5.0, 2, 1), (50.0, 1, 1)],
)
def test_a_block_holds_at_most_ten_milliseconds(call_ms, calls, timed):
    """As many calls as fit beside two lead calls; long calls are one and one, very long ones one alone."""
    gpu = FakeGpu(kernel_s=call_ms / 1e3)
    timer = events(gpu)
    block = timer.block()
    assert gpu.log.count("cold call") == calls
    assert len(block.samples_ms) == timed
    assert not timer.flags


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


def test_a_block_carries_the_sm_clock_between_its_first_and_last_timed_call():
    """One pair of marks a block, and what they say goes with it."""
    gpu = FakeGpu()
    timer = events(gpu, sm_clock=FakeSmClock())
    assert [timer.block().clock_mhz for _ in range(3)] == [2000.0, 1998.0, 1996.0]


def graph(gpu, calls=1, **options):
    """A graph timer on a fake GPU."""
    chosen = {"call_ms": gpu.kernel_s * 1e3, "block_ms": 10.0, "rest_ms": 20.0, **options}
    return GraphTimer(gpu, [gpu.call] * calls, gpu.clock, **chosen)


def test_a_graph_reads_the_kernel_however_slow_the_launch_is():
    """10 us of kernel behind 50 us of launch reads 10 us, where events need a blocker for each block."""
    gpu = FakeGpu(kernel_s=1e-5, launch_s=5e-5)
    block = graph(gpu).block()
    assert block.hidden
    assert block.samples_ms == pytest.approx([0.01] * len(block.samples_ms))


@pytest.mark.parametrize(
    ("kernel_s", "copies", "captured"),
    [(1e-5, 1, 200), (1e-5, 9, 207), (4e-4, 4, 8), (1e-7, 1, 2048), (1e-6, 1024, 2048)],
)
def test_a_graph_goes_round_all_copies_for_about_two_milliseconds(kernel_s, copies, captured):
    """A whole number of rounds, and no more than 2048 calls."""
    assert graph(FakeGpu(kernel_s=kernel_s), copies).calls == captured


@pytest.mark.parametrize(
    ("kernel_s", "copies", "replays"), [(1e-5, 1, 3), (1.6e-3, 1, 2), (6.4e-4, 5, 2), (9e-3, 1, 1)]
)
def test_a_block_of_replays_is_one_untimed_and_as_many_as_fit(kernel_s, copies, replays):
    """Replays of 2 ms come three a block, those of more than 3 ms, a long call's length, still two."""
    assert len(graph(FakeGpu(kernel_s=kernel_s), copies).block().samples_ms) == replays


def test_a_graph_flushes_nothing():
    """The copies evict each other."""
    gpu = FakeGpu(kernel_s=2e-3)
    timer = graph(gpu, 2)
    timer.block()
    assert "cold call" not in gpu.log
    assert not timer.flags


def test_what_cannot_be_captured_raises():
    """The reason is the framework's."""
    with pytest.raises(GraphUnsupported, match="waits"):
        graph(FakeGpu(capturable=False))


def kernel(gpu, call=None, cache="cold"):
    """A kernel timer on a fake GPU."""
    return KernelTimer(gpu, call or gpu.call, gpu.clock, FakeTracer(gpu), shape=Shape(2, 5, 0.02), cache=cache)


@pytest.mark.parametrize("cache", ["cold", "hot"])
@pytest.mark.parametrize("kernels", [1, 3])
def test_kernel_is_the_time_of_the_calls_own_kernels(cache, kernels):
    """Neither the flush nor the launch is in it, whatever a call is made of."""
    gpu = FakeGpu(kernel_s=1e-4, launch_s=5e-5)
    gpu.kernels = kernels
    samples = kernel(gpu, cache=cache).block().samples_ms
    assert samples == pytest.approx([0.1] * 5, abs=1e-5)


def test_a_call_that_runs_now_more_now_fewer_kernels_cannot_be_counted():
    """What belongs to which call is not guessed."""
    gpu = FakeGpu()
    calls = iter(range(100))

    def call():
        gpu.kernels = 1 + next(calls) % 2
        gpu.call()

    with pytest.raises(Uncountable):
        kernel(gpu, call).block()


def test_a_call_without_kernels_cannot_be_counted():
    """Nothing ran, so nothing was busy."""
    gpu = FakeGpu()
    with pytest.raises(Uncountable):
        kernel(gpu, lambda: None).block()
