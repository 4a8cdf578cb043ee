"""Who else is on a GPU: what lasts is believed, what goes away or cannot be told is not."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator

import pytest

from attnsweep.pool import neighbours
from attnsweep.pool.interrupt import Stop
from attnsweep.pool.neighbours import Neighbours
from sweeps import CPU, GPU


class Counters:
    """The readings of both kinds that are given, the last one for ever; `asked` counts them."""

    def __init__(self, readings: Iterable[int | None]) -> None:
        self._readings = list(readings)
        self.asked = 0

    def utilization(self) -> int | None:
        self.asked += 1
        return self._readings[min(self.asked, len(self._readings)) - 1]

    compute_processes = utilization


@pytest.fixture
def stop() -> Iterator[Stop]:
    """The end of a sweep, not asked for yet."""
    stop = Stop()
    yield stop
    stop.close()


@pytest.fixture
def said() -> list[str]:
    """What the user was told."""
    return []


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Twenty looks in a fifth of a second, of either kind."""
    for name, seconds in (("_LISTED_S", 0.2), ("_LISTED_AGAIN_S", 0.01), ("_BUSY_S", 0.2), ("_BUSY_AGAIN_S", 0.01)):
        monkeypatch.setattr(neighbours, name, seconds)


@pytest.mark.parametrize("look", ["busy", "foreign"])
@pytest.mark.parametrize(
    ("readings", "seen", "asked"),
    [([0], False, 1), ([None], False, 1), ([3, 2, 1, 0, 9], False, 4), ([3, None, 9], False, 2)],
)
def test_what_goes_away_or_cannot_be_told_is_nobody(
    stop: Stop, said: list[str], look: str, readings: list[int | None], seen: bool, asked: int
) -> None:
    """The first 0 ends the looking, and so does a counter that is not there."""
    counters = Counters(readings)
    assert getattr(Neighbours(GPU, counters, stop, said.append), look)() is seen
    assert (counters.asked, said) == (asked, [])


@pytest.mark.parametrize("look", ["busy", "foreign"])
def test_what_lasts_is_somebody(stop: Stop, said: list[str], look: str) -> None:
    """After the time allowed and not before; the sentence has the GPU and the last reading."""
    counters = Counters([5, 4])
    begin = time.monotonic()
    assert getattr(Neighbours(GPU, counters, stop, said.append), look)()
    assert time.monotonic() - begin >= 0.2
    assert counters.asked > 2
    (sentence,) = said
    assert sentence.startswith("NVIDIA H200 (GPU-0) ")
    assert "4 %" in sentence if look == "busy" else "4 processes that are not this sweep's" in sentence


def test_the_sweeps_end_is_not_waited_out_and_tells_nothing(
    stop: Stop, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C while a busy GPU is looked at."""
    monkeypatch.setattr(neighbours, "_BUSY_S", 60.0)
    stop.request("SIGINT")
    assert not Neighbours(GPU, Counters([37]), stop, said.append).busy()
    assert said == []


def test_nobody_is_looked_for_on_a_cpu(stop: Stop, said: list[str]) -> None:
    """Other processes there are the rule; `contended` says what they take."""
    alone = Neighbours(CPU, None, stop, said.append)
    assert not alone.busy()
    assert not alone.foreign()
