"""When samples count and when to stop: pure rules that are fed times and can be replayed without a GPU."""

from __future__ import annotations

from attnsweep.timing.statistics import level_shift, mean, median, median_interval

#: A slow call may take this many times the cap to reach the fewest blocks: an interval is worth the wait.
_PATIENCE = 4


class IntervalRule:
    """Stop when the 95 % interval of the median over block medians is narrow enough, or at a cap.

    `target` is the half-width relative to the median, `min_blocks` the fewest blocks and `min_time_s` the shortest
    time before the interval may stop it, `time_cap_s` the time since the first block began at which it stops anyway
    (four times that while there are fewer than `min_blocks`), `max_samples` the most samples. `why()` is interval,
    time or samples.
    """

    def __init__(
        self, *, target: float, min_blocks: int, min_time_s: float, time_cap_s: float, max_samples: int
    ) -> None:
        self.target = target
        self.min_blocks = min_blocks
        self.min_time_s = min_time_s
        self.time_cap_s = time_cap_s
        self.max_samples = max_samples
        self.block_medians: list[float] = []
        self._samples = 0
        self._elapsed_s = 0.0
        self._look_at = min_blocks
        self._why: str | None = None

    def add(self, block: list[float], elapsed_s: float) -> None:
        """One block of samples, and the time since the first block began."""
        self.block_medians.append(median(block))
        self._samples += len(block)
        self._elapsed_s = elapsed_s
        count = len(self.block_medians)
        if count >= self._look_at and elapsed_s >= self.min_time_s:
            # Looking costs a sort, so it happens at every block up to a hundred and then ever more rarely.
            self._look_at = count + max(1, count // 100)
            interval = self.interval()
            if interval and (interval[1] - interval[0]) / 2 <= self.target * median(self.block_medians):
                self._why = "interval"
                return
        if elapsed_s >= self.time_cap_s and (count >= self.min_blocks or elapsed_s >= _PATIENCE * self.time_cap_s):
            self._why = "time"
        elif self._samples >= self.max_samples:
            self._why = "samples"

    def done(self) -> bool:
        """Whether to stop."""
        return self._why is not None

    def why(self) -> str:
        """The reason for stopping."""
        return self._why or "not stopped"

    def interval(self) -> tuple[float, float] | None:
        """The 95 % interval of the median over block medians, or None with fewer than six."""
        return median_interval(self.block_medians)

    def stepped(self) -> bool:
        """Whether the blocks moved from one level to another, by more than `target`: their median is of either."""
        return level_shift(self.block_medians) > self.target * median(self.block_medians)


class SettleRule:
    """Blocks count from where two successive block medians agree within `tolerance`, or after `most` blocks.

    What ran before (a reference in fp32, a compiler) leaves the GPU warmer and slower than a rest does.
    """

    def __init__(self, *, tolerance: float, most: int = 8) -> None:
        self.tolerance, self.most = tolerance, most
        self._medians: list[float] = []

    def add(self, block: list[float]) -> None:
        """One block of samples."""
        self._medians.append(median(block))

    def settled(self) -> bool:
        """Whether the last two blocks agree."""
        if len(self._medians) < 2:
            return False
        before, last = self._medians[-2:]
        return abs(last - before) <= self.tolerance * min(before, last)

    def done(self) -> bool:
        """Whether the next block counts."""
        return self.settled() or len(self._medians) >= self.most


class SteadyRule:
    """Load until it is steady: `soak_s` unseen, then windows of `window_s` until the means of two in a row agree within
    `steady`. Means, and windows of a second: at its power limit an H200's clock swings by 2 % with that period.

    Fed with stretches of samples: each has a duration, and a window is as many as last `window_s`. At `cap_s` it stops
    anyway. `why()` is steady or time. `stretches()` are the numbers of those that count: the last two windows, or
    where there are not two all since the soak, or all there are.
    """

    def __init__(self, *, soak_s: float, window_s: float, steady: float, cap_s: float) -> None:
        self.soak_s, self.window_s, self.steady, self.cap_s = soak_s, window_s, steady, cap_s
        self._count = 0
        self._soaked: int | None = None
        self._window_began_s = 0.0
        self._open: list[float] = []
        self._windows: list[tuple[int, float]] = []
        self._window_first = 0
        self._why: str | None = None

    def add(self, samples: list[float], end_s: float) -> None:
        """A stretch of samples that ended `end_s` after the load began."""
        number, self._count = self._count, self._count + 1
        if self._soaked is None:
            if end_s >= self.soak_s:
                self._soaked = self._window_first = number + 1
                self._window_began_s = end_s
        else:
            self._open += samples
            # A hair's breadth for sums of durations in binary
            if end_s - self._window_began_s >= self.window_s - 1e-9:
                self._close(number, end_s)
        if self._why is None and end_s >= self.cap_s:
            self._why = "time"

    def _close(self, number: int, end_s: float) -> None:
        self._windows.append((self._window_first, mean(self._open)))
        self._open, self._window_first, self._window_began_s = [], number + 1, end_s
        if len(self._windows) >= 2:
            before, last = self._windows[-2][1], self._windows[-1][1]
            if abs(last - before) <= self.steady * min(before, last):
                self._why = "steady"

    def done(self) -> bool:
        """Whether to stop."""
        return self._why is not None

    def why(self) -> str:
        """The reason for stopping."""
        return self._why or "not stopped"

    def stretches(self) -> range:
        """The numbers of the stretches that count."""
        if len(self._windows) >= 2:
            return range(self._windows[-2][0], self._window_first)
        if self._soaked is not None and self._soaked < self._count:
            return range(self._soaked, self._count)
        return range(self._count)
