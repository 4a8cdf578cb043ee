"""A small sweep for tests that end its process from outside: `python parent.py '{"folder": ..., "cells": [...]}'`.

Each cell is [do, payload]. Prints a line of JSON when the pool has returned, and says on stderr that it waits
for a lock. With `terminal`, it first makes its stdin the terminal that controls it.
"""

from __future__ import annotations

import dataclasses
import fcntl
import json
import signal
import sys
import termios
from pathlib import Path

from attnsweep.pool import Pool
from processes import BARE, CPU, cell

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def main() -> None:
    """Run the sweep that the argument describes."""
    wanted = json.loads(sys.argv[1])
    if wanted.get("terminal"):
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    for name in wanted.get("ignored", ()):
        signal.signal(signal.Signals[name], signal.SIG_IGN)
    before = [signal.getsignal(number) for number in SIGNALS]
    interpreter = dataclasses.replace(BARE, preload=tuple(wanted.get("preload", ())))
    ends = {}
    pool = Pool([CPU], log_folder=Path(wanted["folder"], "cells"), run="fakes:run", grace_s=0.3)
    cause = pool.run(
        [
            cell(do, name=f"{index}-{do}", interpreter=interpreter, **payload)
            for index, (do, payload) in enumerate(wanted["cells"])
        ],
        lambda one, device: None,
        lambda one, device, end: ends.update({one.id: end.status and str(end.status)}),
    )
    restored = before == [signal.getsignal(number) for number in SIGNALS]
    print(json.dumps({"cause": cause, "ends": ends, "restored": restored}), flush=True)


if __name__ == "__main__":
    main()
