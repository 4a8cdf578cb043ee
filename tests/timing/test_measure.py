"""The measuring loop on a fake GPU: which timer ranks, what stands beside it, when blocks count, and the load."""

import gc
import weakref
from collections import deque

import pytest
from fake_gpu import FakeGpu, FakeSmClock, FakeTracer, subject

from attnsweep.inputs import Inputs
from attnsweep.timing import load, measure
from attnsweep.timing.cupti import CuptiFailed
from attnsweep.timing.stopping import SteadyRule

OPTIONS = {
    "target": 0.02,
    "min_blocks": 6,
    "min_time_s": 0.0,
    "time_cap_s": 1.0,
    "max_samples": 1000,
    "block_ms": 10.0,
    "rest_ms": 20.0,
    "cache": "cold",
    "sustained": False,
    "soak_s": 1.0,
    "window_s": 0.5,
    "steady": 0.005,
    "load_cap_s": 4.0,
}


def measured(gpu, primary="events", what=None, **options):
    """What comes of a call on a fake GPU."""
    return measure.latency(gpu, what or subject(gpu), gpu.clock, {**OPTIONS, **options}, primary, FakeTracer(gpu))


def test_a_larger_case_is_timed_by_events_with_the_others_beside_it():
    """Every column of the section, and the samples in order with their blocks."""
    columns = measured(FakeGpu(kernel_s=1e-4, launch_s=5e-6)).columns
    assert columns["timer"] == "events"
    for name in ("latency_ms", "latency_ci_low_ms", "events_ms", "graph_ms", "kernel_ms"):
        assert columns[name] == pytest.approx(0.1, rel=1e-3), name
    assert columns["host_ms"] == pytest.approx(0.105)
    assert columns["stop_reason"] == "interval"
    assert columns["sample_block"] == sorted(columns["sample_block"])
    assert set(columns["sample_block"]) == set(range(-1, 6))
    assert columns["sample_start_s"] == sorted(columns["sample_start_s"])
    assert len(columns["samples_ms"]) == len(columns["sample_start_s"]) == len(columns["sample_block"])


def test_a_smaller_case_is_timed_as_a_graph():
    """The events are still there, and the call that was timed is the graph's replay."""
    gpu = FakeGpu(kernel_s=1e-5)
    found = measured(gpu, "graph")
    assert found.columns["timer"] == "graph"
    assert found.columns["latency_ms"] == found.columns["graph_ms"] == pytest.approx(0.01)
    assert found.columns["events_ms"] == pytest.approx(0.01)
    assert not found.flags
    before = gpu.stream_end
    found.timed()
    assert gpu.stream_end - before >= 1.9e-3


def test_a_smaller_case_that_cannot_be_captured_says_so():
    """Its timer is events, it is flagged, and nothing calls itself a graph."""
    found = measured(FakeGpu(kernel_s=1e-5, capturable=False), "graph")
    assert found.columns["timer"] == "events"
    assert found.columns["graph_ms"] is None
    assert found.flags == {"graph_unsupported"}


def test_a_larger_case_that_cannot_be_captured_lacks_only_the_graph():
    """Nobody ranks it by the graph, so nothing is flagged."""
    found = measured(FakeGpu(capturable=False))
    assert found.columns["graph_ms"] is None
    assert not found.flags


def test_a_graph_goes_over_copies_that_exceed_the_cache_five_times():
    """1 kB of inputs and 60 kB of L2: 300 calls on memory of their own, the given one last."""
    gpu = FakeGpu(kernel_s=1e-6, l2_bytes=60_000)
    what = subject(gpu)
    measured(gpu, "graph", what)
    assert len(what.on) == 300
    assert what.on[-1] is what.given
    assert all(inputs is not what.given for inputs in what.on[:-1])


def test_a_hot_graph_stays_with_the_given_inputs():
    """cache=hot evicts nothing."""
    gpu = FakeGpu(l2_bytes=60_000)
    what = subject(gpu)
    found = measured(gpu, "graph", what, cache="hot")
    assert what.on == [what.given]
    assert "cold call" not in gpu.log
    assert found.columns["timer"] == "graph"


def test_copies_without_room_for_them_are_not_made():
    """A cold graph cannot be had then, and that is said."""
    gpu = FakeGpu(l2_bytes=10**9)
    what = subject(gpu, nbytes=10**8)
    assert measured(gpu, "graph", what).flags == {"graph_unsupported"}
    assert not what.on


def test_without_cupti_there_is_no_kernel_time():
    """Null, not a guess."""
    gpu = FakeGpu()
    found = measure.latency(gpu, subject(gpu), gpu.clock, OPTIONS, "events", None)
    assert found.columns["kernel_ms"] is None


def test_long_calls_are_not_captured():
    """Beside 5 ms a launch is nothing."""
    found = measured(FakeGpu(kernel_s=5e-3))
    assert found.columns["graph_ms"] is None
    assert found.flags == {"long_call"}


def test_latency_on_a_cpu_is_by_the_host():
    """No events, no flush, and the median of all samples."""
    cpu = FakeGpu(kernel_s=1e-3, launch_s=0.0)
    cpu.on_gpu = False
    columns = measured(cpu).columns
    assert columns["timer"] == "host"
    assert columns["latency_ms"] == columns["host_ms"] == pytest.approx(1.0)
    assert columns["settle_s"] is None


def test_a_measurement_that_runs_into_its_cap_is_unstable():
    """An interval wider than the target after the time cap is said, not hidden."""
    gpu = FakeGpu()

    def drifting():
        gpu.kernel_s *= 1.01
        gpu.call()

    found = measured(gpu, what=subject(gpu, drifting), time_cap_s=0.3)
    assert found.columns["stop_reason"] == "time"
    assert {"unstable", "unsettled"} <= found.flags


def test_blocks_count_once_a_step_is_over():
    """A GPU that is 10 % slower for its first 100 ms: those blocks are kept, and not in the median."""
    gpu = FakeGpu()
    start = gpu.clock.now
    gpu.kernel_s = lambda now: 1.1e-4 if now - start < 0.1 else 1e-4
    gpu.capturable = False
    found = measured(gpu, target=0.005)
    columns = found.columns
    assert columns["latency_ms"] == pytest.approx(0.1)
    assert columns["latency_ci_high_ms"] == pytest.approx(0.1)
    assert max(columns["samples_ms"]) == pytest.approx(0.11)
    assert columns["settle_s"] > 0.0
    assert not found.flags


def test_a_step_while_samples_count_is_flagged():
    """A GPU that becomes 4 % faster 250 ms on, for good: the median is of one side, and the row says so."""
    gpu = FakeGpu()
    start = gpu.clock.now
    gpu.kernel_s = lambda now: 1e-4 if now - start < 0.25 else 0.96e-4
    gpu.capturable = False
    found = measured(gpu, target=0.005, min_time_s=0.6)
    assert found.flags == {"stepped"}
    assert found.columns["latency_ms"] == pytest.approx(0.096)


@pytest.mark.parametrize(
    ("first", "last", "flags"), [(1, 10_000, {"allocating"}), (1, 20, set()), (90, 90, {"allocating"})]
)
def test_memory_asked_of_the_device_while_samples_count_is_flagged(first, last, flags):
    """In every call, or in one of a block that counts; not in the first blocks, where whatever is cached is made."""
    gpu, calls = FakeGpu(capturable=False), []

    def call():
        calls.append(1)
        gpu.allocations += first <= len(calls) <= last
        gpu.call()

    assert measured(gpu, what=subject(gpu, call)).flags == flags


def loaded(gpu, calls_per_step=1, sm_clock=None, **rule):
    """The sustained columns of a call on a fake GPU, and their window."""
    chosen = {"soak_s": 1.0, "window_s": 0.5, "steady": 0.005, "cap_s": 4.0, **rule}
    return load.run(
        gpu,
        [gpu.call],
        gpu.clock,
        SteadyRule(**chosen),
        sm_clock or FakeSmClock(),
        step_ms=gpu.kernel_s(0) * 1e3 if callable(gpu.kernel_s) else gpu.kernel_s * 1e3,
        calls_per_step=calls_per_step,
    )


def test_load_is_the_latency_once_it_is_steady():
    """0.40 ms rising to 0.43 within a second: the samples show it, and sustained_ms is what it ends at."""
    gpu = FakeGpu()
    gpu.kernel_s = lambda now: 4e-4 + 3e-5 * min(1.0, max(0.0, now - 100.0))
    columns, window = loaded(gpu)
    assert columns["sustained_ms"] == pytest.approx(0.43, rel=1e-3)
    assert columns["sustained_samples_ms"][0] == pytest.approx(0.4, rel=1e-2)
    assert columns["sustained_stop_reason"] == "steady"
    assert columns["flags"] == []
    begin, end = window
    assert begin >= 101.0
    assert end - begin == pytest.approx(1.0, abs=0.05)
    assert columns["sustained_start_s"] == sorted(columns["sustained_start_s"])
    assert len(columns["sustained_start_s"]) == len(columns["sustained_samples_ms"])
    assert len(columns["sustained_clock_mhz"]) == len(columns["sustained_clock_start_s"])


def test_load_that_never_gets_steady_says_so():
    """Drift of 2 % a second until the cap."""
    gpu = FakeGpu()
    gpu.kernel_s = lambda now: 4e-4 * (1 + 0.02 * (now - 100.0))
    columns, _ = loaded(gpu)
    assert columns["sustained_stop_reason"] == "time"
    assert columns["flags"] == ["unsteady"]


def test_a_call_whose_launch_is_longer_than_its_kernel_has_no_load():
    """20 us of kernel behind 50 us of launch: the GPU waits, and that is no sustained latency."""
    columns, window = loaded(FakeGpu(kernel_s=2e-5, launch_s=5e-5))
    assert columns == {"flags": ["launch_bound"]}
    assert window is None


def test_load_by_replays_counts_the_calls_in_them():
    """A step of 100 calls of 20 us."""
    columns, _ = loaded(FakeGpu(kernel_s=2e-3), calls_per_step=100)
    assert columns["sustained_ms"] == pytest.approx(0.02, rel=1e-3)


def test_sustained_is_measured_where_the_preset_asks():
    """After the burst, by the same timer, with its window."""
    gpu = FakeGpu(kernel_s=1e-5)
    found = measured(gpu, "graph", sustained=True)
    assert found.columns["sustained_ms"] == pytest.approx(0.01, rel=5e-3)
    assert found.windows["load"][0] > found.windows["burst"][1]
    assert "load" not in measured(FakeGpu(), sustained=False).windows


class Queued(FakeGpu):
    """Issuing waits while 1024 launches are pending, as on CUDA."""

    def __init__(self, **common):
        super().__init__(**common)
        self.pending = deque()

    def issue(self, seconds):
        if len(self.pending) >= 1024:
            self.clock.now = max(self.clock.now, self.pending[0])
        while self.pending and self.pending[0] <= self.clock.now:
            self.pending.popleft()
        end = super().issue(seconds)
        self.pending.append(end)
        return end


def test_a_full_launch_queue_is_no_launch_bound():
    """15 us of kernel behind 5 us of launch: the GPU never waits, the host does."""
    columns, _ = loaded(Queued(kernel_s=15e-6))
    assert columns["flags"] == []


def test_out_of_memory_under_load_keeps_the_burst():
    """A second graph of a backward pass may be too much; what was timed by then stays, and it is said."""
    gpu = FakeGpu(kernel_s=5e-3, l2_bytes=60 * 2**20)
    gpu.free_bytes = lambda: 10**11
    what = subject(gpu, nbytes=10**8, warm_ms=5.0)

    def starved():
        raise MemoryError("out of memory")

    what.another = lambda inputs: starved
    found = measured(gpu, what=what, sustained=True)
    assert found.columns["latency_ms"] == pytest.approx(5.0)
    assert "sustained_ms" not in found.columns
    assert found.flags == {"long_call", "no_room"}


def test_out_of_memory_in_a_capture_is_a_graph_that_cannot_be_had():
    """The case goes on by events, and nothing goes round copies after that."""
    gpu = FakeGpu(kernel_s=1e-5, l2_bytes=10_000)

    def full(calls):
        raise MemoryError("out of memory")

    gpu.capture = full
    found = measured(gpu, "graph")
    assert found.columns["timer"] == "events"
    assert found.flags == {"graph_unsupported"}


def test_a_graph_keeps_the_copies_that_it_reads():
    """It is replayed once more by the check after timing."""
    gpu, made = FakeGpu(kernel_s=1e-5, l2_bytes=60_000), []

    class Array:
        pass

    def copy(array):
        made.append(weakref.ref(new := Array()))
        return new

    gpu.copy, gpu.nbytes = copy, lambda arrays: 1000 * len(arrays)
    what = subject(gpu)
    what.given = Inputs(Array(), Array(), Array(), None, None, "bshd")
    what.another = lambda inputs: lambda: (inputs.q, gpu.call())[1]
    found = measured(gpu, "graph", what)
    gc.collect()
    assert found.columns["timer"] == "graph"
    assert made
    assert all(one() is not None for one in made)


def test_copies_that_would_stay_in_the_cache_are_not_called_cold():
    """1024 copies of 20 kB are 20 MB of 63 MB of L2."""
    found = measured(FakeGpu(kernel_s=5e-6, l2_bytes=60 * 2**20), "graph", subject(FakeGpu(), nbytes=20_000))
    assert found.flags == {"graph_unsupported"}


def test_a_replay_lasts_long_enough_though_the_host_is_slow():
    """0.3 ms of launching hides 20 us of kernel from the estimate; the graph is captured again."""
    gpu, made = FakeGpu(kernel_s=2e-5, launch_s=3e-4), []
    capture = gpu.capture
    gpu.capture = lambda calls: made.append(len(calls)) or capture(calls)
    measured(gpu, "graph")
    assert made[-1] * 2e-5 >= 0.7e-3


@pytest.mark.parametrize(("held", "flags"), [(0, set()), (1, set()), (2, set()), (3, {"long_call"})])
def test_a_host_that_is_held_up_makes_no_long_call(held, flags):
    """0.1 s between two launches of the estimate; at the third time it is believed."""
    gpu, holds = FakeGpu(kernel_s=1e-4), deque([0.1] * held)
    spin, gpu.behind_spin = gpu.spin, False

    def spun(ms):
        spin(ms)
        gpu.behind_spin = True

    def call():
        if gpu.behind_spin and holds:
            gpu.clock.now += holds.popleft()
        gpu.behind_spin = False
        gpu.call()

    gpu.spin = spun
    found = measured(gpu, what=subject(gpu, call=call))
    assert found.flags == flags
    assert found.columns["latency_ms"] == pytest.approx(0.1)


def test_a_slow_call_in_a_case_of_graphs_stays_a_burst():
    """1 ms in a case of 1 MB: 300 copies would make a replay of 0.3 s where a block is to be 10 ms."""
    gpu = FakeGpu(kernel_s=1e-3, l2_bytes=60 * 2**20)
    gpu.free_bytes = lambda: 10**11
    found = measured(gpu, "graph", subject(gpu, nbytes=10**6, warm_ms=1.0))
    assert found.columns["timer"] == "events"
    assert found.flags == {"graph_unsupported"}


def test_a_call_of_seconds_is_measured_alone():
    """Nothing stands beside it, and the gate looks at two blocks."""
    gpu = FakeGpu(kernel_s=4.0)
    found = measured(gpu, what=subject(gpu, warm_ms=4000.0), sustained=True)
    assert found.columns["latency_ms"] == pytest.approx(4000)
    assert "kernel_ms" not in found.columns
    assert "load" not in found.windows
    assert found.columns["sample_block"] == [-1, -1, 0]
    assert found.columns["stop_reason"] == "time"


def test_a_tracer_that_fails_leaves_no_kernel_time():
    """CUPTI's trouble costs its own number."""
    gpu = FakeGpu()
    what = subject(gpu)

    class Failing:
        def trace(self, run):
            raise CuptiFailed("no")

    found = measure.latency(gpu, what, gpu.clock, OPTIONS, "events", Failing())
    assert found.columns["kernel_ms"] is None
