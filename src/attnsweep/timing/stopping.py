"""When to stop sampling: a pure rule that is fed blocks and can be replayed without a GPU."""

from __future__ import annotations

from attnsweep.timing.statistics import median, median_interval

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
