"""A GPU whose framework has no events: its kernels' own times, or the host's clock, and what is said of either."""

import weakref

import pytest
from fake_gpu import EventlessGpu, FakeTracer, subject
from test_measure import OPTIONS, measured

from attnsweep.timing import measure


def test_a_framework_without_events_is_timed_by_its_kernels():
    """Each call is cold, launches that do not hide are not in it, and no other timer is made up."""
    gpu = EventlessGpu(kernel_s=1e-4, launch_s=3e-4)
    gpu.kernels = 3
    found = measured(gpu, "kernel")
    assert found.columns["timer"] == "kernel"
    assert found.columns["latency_ms"] == found.columns["kernel_ms"] == pytest.approx(0.1, rel=1e-3)
    assert (found.columns["events_ms"], found.columns["graph_ms"]) == (None, None)
    assert found.columns["host_ms"] == pytest.approx(0.4)
    assert set(found.columns["sample_block"]) == set(range(-1, 6))
    assert found.columns["sample_block"].count(0) == 24  # what compiles the read does not count as one
    assert "cold call" in gpu.log
    assert not found.flags
    assert "cache" not in found.columns


def test_without_events_and_hot_nothing_is_read_before_a_call():
    """cache=hot evicts nothing."""
    gpu = EventlessGpu()
    assert measured(gpu, "kernel", cache="hot").columns["latency_ms"] == pytest.approx(0.1, rel=1e-3)
    assert "cold call" not in gpu.log


@pytest.mark.parametrize("kernels", [1, None], ids=["no CUPTI", "kernels that vary"])
def test_what_cupti_cannot_time_has_the_hosts_clock_and_a_hot_cache(kernels, capsys):
    """The row says host, and hot, because nothing was evicted: it is ranked with no other timer's."""
    gpu = EventlessGpu(kernel_s=1e-4, launch_s=2e-5)
    what = subject(gpu)
    if kernels is None:
        numbers = iter(range(1, 10**6))
        what.call = lambda: (setattr(gpu, "kernels", next(numbers)), gpu.call())
    tracer = FakeTracer(gpu) if kernels is None else None
    found = measure.latency(gpu, what, gpu.clock, OPTIONS, "kernel", tracer)
    assert (found.columns["timer"], found.columns["cache"]) == ("host", "hot")
    assert found.columns["latency_ms"] == found.columns["host_ms"] == pytest.approx(0.12)
    assert found.columns.get("kernel_ms") is None
    assert ("unproven_reason says why" in capsys.readouterr().err) == (tracer is None)


def test_a_load_without_events_is_timed_where_its_stretches_end():
    """One sample a stretch of 20 ms, over which the end of a wait is nothing."""
    gpu = EventlessGpu(kernel_s=1e-4)
    found = measured(gpu, "kernel", sustained=True)
    assert found.columns["sustained_ms"] == pytest.approx(0.1, rel=1e-3)
    assert found.columns["sustained_stop_reason"] == "steady"
    spans = found.columns["sustained_start_s"]
    assert spans[1] - spans[0] == pytest.approx(0.02, rel=0.05)
    assert not found.flags


def test_a_load_without_events_that_launching_cannot_keep_up_with_is_none():
    """30 us of launch for 10 us of kernel."""
    found = measured(EventlessGpu(kernel_s=1e-5, launch_s=3e-5), "kernel", sustained=True)
    assert found.flags == {"launch_bound"}
    assert "sustained_ms" not in found.columns


def test_no_result_is_kept_to_see_whether_launching_keeps_up():
    """Hundreds of outputs of a large batch would fill the memory."""
    gpu, alive, most = EventlessGpu(kernel_s=1e-4), weakref.WeakSet(), []

    class Result:
        pass

    def call():
        gpu.call()
        result = Result()
        alive.add(result)
        most.append(len(alive))
        return result

    assert "sustained_ms" in measured(gpu, "kernel", what=subject(gpu, call), sustained=True).columns
    assert max(most) <= 2


def test_a_long_call_without_events_says_so():
    """5 ms: one untimed call and one timed."""
    gpu = EventlessGpu(kernel_s=5e-3)
    found = measured(gpu, "kernel", what=subject(gpu, warm_ms=5.0))
    assert found.flags == {"long_call"}
