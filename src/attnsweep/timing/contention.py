"""How long this process's threads were runnable and waited for a CPU: what a busy neighbour does to a CPU's times."""

from __future__ import annotations

from pathlib import Path

#: Waiting, as a share of the time sampled and summed over threads, above which the CPU was shared. Read on two cores,
#: naive attention of 32 to 2048 tokens, windows of 0.15 s: 0.001 to 0.023 alone, 0.48 to 0.99 beside one busy process,
#: 0.98 to 1.01 beside two.
SHARED = 0.1


def waited_s(tasks: Path = Path("/proc/self/task")) -> float | None:
    """Seconds that the threads of `tasks` have waited in a run queue so far; None where the kernel does not say.

    The second number of /proc/PID/task/TID/schedstat, in nanoseconds (Documentation/scheduler/sched-stats of Linux).
    """
    total, found = 0, False
    for path in tasks.glob("*/schedstat"):
        try:
            total += int(path.read_text().split()[1])
        except OSError:
            continue  # the thread ended meanwhile
        except (IndexError, ValueError):
            return None
        found = True
    return total / 1e9 if found else None


def shared(before_s: float | None, after_s: float | None, window_s: float) -> bool:
    """Whether two readings of `waited_s` say that the CPU was shared in the window between them."""
    return before_s is not None and after_s is not None and after_s - before_s > SHARED * window_s
