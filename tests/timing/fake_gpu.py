"""A GPU with a clock of its own: launches cost host time, kernels device time, and a stream runs in order."""


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

    def ms_until(self, later):
        return (later.time - self.time) * 1e3


class FakeGpu:
    """A framework with one stream. `kernel_s(cold)` is what a call takes on the device."""

    on_gpu = True

    def __init__(self, kernel_s=1e-4, launch_s=5e-6, flush_s=6e-5, spins=True):
        self.clock = FakeClock()
        self.kernel_s, self.launch_s, self.flush_s, self.spins = kernel_s, launch_s, flush_s, spins
        self.stream_end, self.cold, self.log = 0.0, False, []

    def issue(self, seconds):
        """Put work of this length at the end of the stream; returns when it ends."""
        self.stream_end = max(self.stream_end, self.clock.now) + seconds
        return self.stream_end

    def call(self, launches=1):
        self.clock.now += self.launch_s * launches
        self.log.append("cold call" if self.cold else "hot call")
        self.cold = False
        self.issue(self.kernel_s)

    def event(self):
        return FakeEvent(self)

    def flush_cache(self):
        self.clock.now += self.launch_s
        self.cold = True
        self.issue(self.flush_s)

    def spin(self, ms):
        self.clock.now += self.launch_s
        self.log.append("spin")
        if self.spins:
            self.issue(ms / 1e3)

    def synchronize(self):
        self.clock.now = max(self.clock.now, self.stream_end)
