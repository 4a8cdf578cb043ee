"""A GPU with a clock of its own: launches cost host time, kernels device time, and a stream runs in order."""

from types import SimpleNamespace

from attnsweep.errors import GraphUnsupported
from attnsweep.inputs import Inputs
from attnsweep.timing.cupti import Activity


class FakeClock:
    """Host time that moves only when something takes time."""

    def __init__(self):
        self.now = 100.0

    def monotonic(self):
        return self.now

    def sleep(self, seconds):
        self.now += seconds


class FakeEvent:
    def __init__(self, gpu):
        self.gpu = gpu

    def record(self):
        self.gpu.clock.now += self.gpu.launch_s
        self.time = self.gpu.issue(0.0)

    def reached(self):
        return self.gpu.clock.now >= self.time

    def wait(self):
        self.gpu.clock.now = max(self.gpu.clock.now, self.time)

    def ms_until(self, later):
        return (later.time - self.time) * 1e3


class FakeGraph:
    """Replays captured work with one launch."""

    def __init__(self, gpu, work):
        self.gpu, self.work, self.result = gpu, work, None

    def replay(self):
        self.gpu.clock.now += self.gpu.launch_s
        for kernel_s in self.work:
            self.gpu.run(kernel_s)


class FakeGpu:
    """A framework with one stream. `kernel_s` is what a call takes on the device, or a function of the time there.

    `resolution_s` rounds what events read; `capturable` says whether a graph can be made; `kernels` is how many
    kernels a call is made of.
    """

    on_gpu = device_events = True
    out_of_memory = (MemoryError,)

    def __init__(self, kernel_s=1e-4, launch_s=5e-6, flush_s=6e-5, spins=True, capturable=True, l2_bytes=0):
        self.clock = FakeClock()
        self.kernel_s, self.launch_s, self.flush_s, self.spins = kernel_s, launch_s, flush_s, spins
        self.capturable, self.l2, self.kernels = capturable, l2_bytes, 1
        self.stream_end, self.cold, self.log = 0.0, False, []
        self.activities, self.captured = [], None
        self.allocations = 0

    def issue(self, seconds):
        """Put work of this length at the end of the stream; returns when it ends."""
        self.stream_end = max(self.stream_end, self.clock.now) + seconds
        return self.stream_end

    def run(self, kernel_s):
        """A call's kernels on the device, one after the other."""
        start = max(self.stream_end, self.clock.now)
        seconds = kernel_s(start) if callable(kernel_s) else kernel_s
        for index in range(self.kernels):
            begin, end = (start + seconds * part / self.kernels for part in (index, index + 1))
            self.activities.append(Activity(int(begin * 1e9), int(end * 1e9), "kernel", copy=False))
        self.issue(seconds)

    def call(self, launches=1):
        if self.captured is not None:
            self.captured.append(self.kernel_s)
            return
        self.clock.now += self.launch_s * launches
        self.log.append("cold call" if self.cold else "hot call")
        self.cold = False
        self.run(self.kernel_s)

    def event(self):
        return FakeEvent(self)

    def flush_cache(self):
        self.clock.now += self.launch_s
        self.cold = True
        start = self.issue(0.0)
        self.activities.append(Activity(int(start * 1e9), int((start + self.flush_s) * 1e9), "flush", copy=False))
        self.issue(self.flush_s)

    def spin(self, ms):
        self.clock.now += self.launch_s
        self.log.append("spin")
        if self.spins:
            self.issue(ms / 1e3)

    def synchronize(self):
        self.clock.now = max(self.clock.now, self.stream_end)

    def capture(self, calls):
        if not self.capturable:
            raise GraphUnsupported("it waits for the device")
        self.captured = []
        for call in calls:
            call()
        work, self.captured = self.captured, None
        return FakeGraph(self, work)

    def stream(self):
        return None

    def sm_count(self):
        return None

    def l2_bytes(self):
        return self.l2

    def free_bytes(self):
        return 10**9

    def device_allocations(self):
        return self.allocations

    def nbytes(self, arrays):
        return sum(arrays)

    def copy(self, array):
        return array


class FakeCompletion:
    """The end of what was issued last, by the host's clock when it is waited for."""

    def __init__(self, gpu):
        self.gpu = gpu

    def record(self):
        self.end = self.gpu.stream_end

    def reached(self):
        return self.gpu.clock.now >= self.end

    def wait(self):
        self.gpu.clock.now = self.at = max(self.gpu.clock.now, self.end)

    def ms_until(self, later):
        return (later.at - self.at) * 1e3


class EventlessGpu(FakeGpu):
    """As JAX's: there is no event, no spin and no capture; reading compiles something when it is first called."""

    device_events = False
    spin = capture = None
    compiled = False

    def event(self):
        return FakeCompletion(self)

    def flush_cache(self):
        if not self.compiled:
            self.compiled = True
            self.run(1e-3)
        super().flush_cache()


class FakeTracer:
    """Traces what a fake GPU ran."""

    def __init__(self, gpu):
        self.gpu = gpu

    def trace(self, run):
        self.gpu.synchronize()
        self.gpu.activities.clear()
        run()
        self.gpu.synchronize()
        return sorted(self.gpu.activities)


class FakeSmClock:
    """A clock that falls by 1 MHz from mark to mark."""

    def __init__(self):
        self.marks = 0

    def mark(self):
        self.marks += 1
        return self.marks - 1

    def mhz(self, first, second):
        return 2000.0 - first


def subject(gpu, call=None, nbytes=1000, warm_ms=0.2):
    """What the worker hands over, with arrays that are their own sizes; `on` holds the inputs of `another`."""
    given = Inputs(nbytes, 0, 0, None, None, "bshd")
    on = []

    def another(inputs):
        on.append(inputs)
        return lambda: (call or gpu.call)()

    return SimpleNamespace(call=call or gpu.call, given=given, another=another, warm_ms=warm_ms, on=on)
