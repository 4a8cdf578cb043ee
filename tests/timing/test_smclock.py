"""The SM clock from two stamps of each SM, with a driver in CUDA's place whose kernel writes what a GPU would."""

import ctypes

import pytest

from attnsweep.timing import smclock
from attnsweep.timing.smclock import NoSmClock

SMS = 3


class FakeDriver:
    """libcuda: a launch stamps each SM with its (cycles, ns), 10 ms at `mhz` after the last; `fails` returns 1."""

    def __init__(self, mhz=(1500.0, 1600.0, 1900.0), fails=None):
        self.mhz, self.fails, self.ns = mhz, fails, 1000
        self.silent = set()

    def __getattr__(self, name):
        if not name.startswith("cu"):
            raise AttributeError(name)
        return lambda *arguments: 1 if name == self.fails else self.called(name, *arguments)

    def called(self, name, *arguments):
        if name == "cuMemHostAlloc":
            pointer, size, _ = arguments
            self.memory = ctypes.create_string_buffer(size.value)
            pointer._obj.value = ctypes.addressof(self.memory)
        if name == "cuLaunchKernel":
            parameter = ctypes.cast(arguments[9][0], ctypes.POINTER(ctypes.c_uint64)).contents.value
            self.stamp((ctypes.c_uint64 * (2 * SMS)).from_address(parameter))
        return 0

    def stamp(self, memory):
        self.ns += 10_000_000
        for number, mhz in enumerate(self.mhz):
            if number not in self.silent:
                memory[2 * number], memory[2 * number + 1] = round(self.ns * mhz / 1e3), self.ns


@pytest.fixture
def clock(monkeypatch):
    """A clock over a driver."""

    def over(driver):
        monkeypatch.setattr(smclock.ctypes, "CDLL", lambda name: driver)
        return smclock.of(0, SMS)

    return over


def test_the_clock_is_the_median_over_sms_of_cycles_in_time(clock):
    """SMs of another clock than most do not move it."""
    made = clock(FakeDriver())
    assert made.mhz(made.mark(), made.mark()) == pytest.approx(1600)


def test_an_sm_that_wrote_no_stamp_is_left_out(clock):
    """The stamp of 64 marks before stands there no more."""
    driver = FakeDriver()
    made = clock(driver)
    for _ in range(64):
        made.mark()
    driver.silent = {0, 1}
    first = made.mark()
    driver.silent = set()
    assert made.mhz(first, made.mark()) == pytest.approx(1900)
    driver.silent = {0, 1, 2}
    assert made.mhz(first, made.mark()) is None


def test_marks_that_were_overwritten_are_not_read(clock):
    """The last 64 are kept."""
    made = clock(FakeDriver())
    marks = [made.mark() for _ in range(70)]
    assert made.mhz(marks[0], marks[-1]) is made.mhz(marks[5], marks[-1]) is None
    assert made.mhz(marks[6], marks[-1]) == pytest.approx(1600)


@pytest.mark.parametrize("fails", ["cuModuleLoadData", "cuMemHostAlloc"])
def test_a_driver_that_refuses_leaves_the_clock_unknown(clock, fails):
    """The columns are null, and nothing else fails."""
    made = clock(FakeDriver(fails=fails))
    assert isinstance(made, NoSmClock)
    assert made.mhz(made.mark(), made.mark()) is None


def test_without_a_stream_there_is_no_clock(clock):
    """JAX offers none, a CPU has none."""
    clock(FakeDriver())
    assert isinstance(smclock.of(None, SMS), NoSmClock)
    assert isinstance(smclock.of(0, None), NoSmClock)
