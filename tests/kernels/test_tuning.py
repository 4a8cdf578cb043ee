"""What a kernel's tiles are chosen by, on a fake GPU with a queue: nothing is launched."""

from types import SimpleNamespace

import pytest

pytest.importorskip("triton")

from attnsweep.kernels import tuning


class Gpu:
    """In ms: `call_ms` a call, `slow` times as long straight after a rest; the host takes `host_ms` to issue it."""

    def __init__(self, monkeypatch, call_ms, host_ms=0.05, slow=1.5):
        self.host, self.end, self.rested = 0.0, 0.0, True
        self.call_ms, self.host_ms, self.slow = call_ms, host_ms, slow
        self.rests, self.spins, self.calls = [], [], 0
        cuda = SimpleNamespace(Event=lambda enable_timing: Event(self), _sleep=self.spin, synchronize=self.wait)
        made = dict.fromkeys(("ones", "empty"), lambda *_, **__: None)
        read = {"amax": lambda *_, **__: self.run(0.08)}
        monkeypatch.setattr(tuning, "torch", SimpleNamespace(cuda=cuda, **made, **read))
        monkeypatch.setattr(tuning, "time", SimpleNamespace(sleep=self.sleep))

    def run(self, ms):
        self.end = max(self.end, self.host) + ms

    def spin(self, cycles):
        self.spins.append(cycles)
        self.run(cycles / 2e6)

    def wait(self):
        self.host = max(self.host, self.end)

    def sleep(self, seconds):
        self.wait()
        self.host += seconds * 1e3
        self.rests.append(self.calls)
        self.rested = True

    def call(self):
        self.host += self.host_ms
        self.calls += 1
        self.run(self.call_ms * (self.slow if self.rested else 1))
        self.rested = False


class Event:
    def __init__(self, gpu):
        self.gpu = gpu

    def record(self):
        self.at = max(self.gpu.end, self.gpu.host)

    def query(self):
        return self.at <= self.gpu.host

    def elapsed_time(self, later):
        return later.at - self.at


@pytest.mark.parametrize("call_ms", [0.02, 0.5, 2.0])
def test_a_call_is_timed_in_bursts_without_its_slow_first(monkeypatch, call_ms):
    """Five, each after a rest; what the host takes to issue it is not in it, nor what the first after a rest does."""
    gpu = Gpu(monkeypatch, call_ms)
    assert tuning.in_bursts(gpu.call, (0.5, 0.2, 0.8)) == pytest.approx([call_ms] * 3)
    assert len(gpu.rests) == 5
    assert gpu.calls <= 2 + 5 * 10


def test_a_long_call_is_timed_twice_alone(monkeypatch):
    """And is not called more often."""
    gpu = Gpu(monkeypatch, 120.0, slow=1.0)
    assert tuning.in_bursts(gpu.call, (0.5,)) == pytest.approx([120.0])
    assert gpu.calls == 4


def test_a_launch_that_shows_is_tried_again_behind_a_longer_spin(monkeypatch):
    """A host that takes 0.6 ms a launch is behind after 2 ms, and not after 8."""
    gpu = Gpu(monkeypatch, 0.1, host_ms=0.6)
    assert tuning.in_bursts(gpu.call, (0.5,)) == pytest.approx([0.1])
    assert max(gpu.spins) == 4 * min(one for one in gpu.spins if one)


def test_where_launches_wait_for_the_gpu_spins_stay_short(monkeypatch):
    """As under CUDA_LAUNCH_BLOCKING: nothing hides behind any spin, which is said; it takes seconds all the same."""
    gpu = Gpu(monkeypatch, 0.1)
    launch = gpu.run

    def blocking(ms):
        launch(ms)
        gpu.wait()

    gpu.run = blocking
    with pytest.warns(RuntimeWarning, match="launches were not hidden"):
        found = tuning.in_bursts(gpu.call, (0.5,))
    assert found == pytest.approx([0.15])
    assert gpu.host < 3000


def test_quantiles_are_of_all_that_was_timed(monkeypatch):
    """The lower half of the bursts takes 1 ms, the rest 3."""
    gpu = Gpu(monkeypatch, 1.0, slow=1.0)

    def call():
        gpu.call_ms = 1.0 if len(gpu.rests) < 4 else 3.0
        gpu.call()

    assert tuning.in_bursts(call, (0.5, 0.2, 0.8)) == pytest.approx([1.0, 1.0, 3.0])


def test_what_a_kernel_raises_is_its_tuners_to_see(monkeypatch):
    """Triton takes tiles that do not fit for no choice."""
    Gpu(monkeypatch, 1.0)

    def call():
        raise MemoryError("out of shared memory")

    with pytest.raises(MemoryError):
        tuning.in_bursts(call, (0.5,))


def test_every_kernel_of_ours_is_tuned_by_it():
    """None by Triton's own way."""
    from attnsweep.kernels import flash, flash_backward, flash_decode, fused_softmax

    tables = [flash._FORWARD, flash_backward._DQ, flash_backward._DKDV, flash_decode._SPLIT, fused_softmax._SCORES]
    assert all(tuner.do_bench is tuning.in_bursts for table in tables for tuner in table.values())
