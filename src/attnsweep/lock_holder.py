"""Who holds a lock: written into its file by the holder, read by whoever finds it held."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import shlex
import sys
from pathlib import Path

from attnsweep import safe_text

#: Characters of a holder's command that are told.
_COMMAND = 200


def sign(fd: int, **more: str) -> None:
    """Name this process in the lock's file, by its command and, where `more` has it, its `sweep`.

    On a full disk it stays empty: a lock without its holder's name is a lock all the same.
    """
    process = {"pid": os.getpid(), "host": platform.node(), **more, "command": shlex.join(sys.orig_argv)}
    clear(fd)
    with contextlib.suppress(OSError):
        os.pwrite(fd, json.dumps(process).encode(), 0)


def clear(fd: int) -> None:
    """Take the name of whoever signed last out of the file, where that can be done."""
    with contextlib.suppress(OSError):
        os.ftruncate(fd, 0)


def told(path: Path) -> str | None:
    """Who signed, as one harmless phrase, for anybody may write there; None where nobody did (or not yet)."""
    try:
        signed = json.loads(path.read_bytes())
        sweep = f"sweep {signed['sweep']}, " if "sweep" in signed else ""
        command = str(signed["command"])[:_COMMAND]
        return safe_text.line(f"process {signed['pid']} on {signed['host']} ({sweep}{command})")
    except (OSError, ValueError, KeyError, TypeError):
        return None
