"""The command with cells that take a blink: `python quick.py ARGUMENTS` is `attnsweep ARGUMENTS`, for faults around it.

Everything is the real thing but what a cell does: `run` here. It measures nothing, and writes its id to the file
QUICK_LOG when it begins. QUICK_TERMINAL in the environment makes stdin the terminal that controls it; QUICK_IMPORT is a
file to touch by a zygote that never gets ready.
"""

from __future__ import annotations

import fcntl
import functools
import os
import sys
import termios
import time
from pathlib import Path
from typing import Any, Callable

#: How long a cell takes, in seconds; those of this length of queries do not end.
CELL_S, HANGS_AT = 0.02, 333
#: And how long those take: longer than any test, so that no leftover of a broken one stays for good.
FOREVER_S = 600


def run(payload: dict[str, Any], emit: Callable[[dict], None]) -> dict[str, Any]:
    """An outcome as of a cell that was measured."""
    emit({"event": "phase", "phase": "timing"})
    with open(os.environ["QUICK_LOG"], "a", encoding="utf-8") as log:
        log.write(f"{payload['id']}\n")
    time.sleep(FOREVER_S if payload["case"]["q_len"] == HANGS_AT else CELL_S)
    columns = {"timer": "host", "latency_ms": 0.5, "flags": [], "samples_ms": [0.5] * 5000}
    return {"status": "ok", "reason": None, "traceback": None, "stages": {}, "windows": {}, "columns": columns}


def main() -> int:
    """Run the command; its cells are spawned, so that their zygote imports this module alone."""
    from attnsweep import cli, pool

    if "QUICK_TERMINAL" in os.environ:
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    pool.Pool = functools.partial(pool.Pool, run="quick:run")  # type: ignore[assignment,misc]
    return cli.main([*sys.argv[1:], "isolation=spawn"])


if __name__ == "quick" and "QUICK_IMPORT" in os.environ:
    Path(os.environ["QUICK_IMPORT"]).touch()
    time.sleep(FOREVER_S)

if __name__ == "__main__":
    sys.exit(main())
