"""What CUDA itself costs a process that does nothing: the floor below which isolation cannot go on this machine.

    python benchmarks/context.py [--times 5]

Forks children that load the driver through ctypes, initialise it, make the primary context of GPU 0 and exit; no
framework is imported. Prints the seconds of each step; the exit ends when the parent has reaped the child.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import time


def child() -> dict[str, float]:
    """The steps' durations in this process, and when it is about to exit."""
    start = time.monotonic()
    driver = ctypes.CDLL("libcuda.so.1")
    steps = [start, time.monotonic()]
    for call in (
        lambda: driver.cuInit(0),
        lambda: driver.cuDevicePrimaryCtxRetain(ctypes.byref(ctypes.c_void_p()), 0),
    ):
        code = call()
        if code:
            raise SystemExit(f"the CUDA driver answered {code}")
        steps.append(time.monotonic())
    names = ("load", "cuInit", "context")
    durations = {name: later - earlier for name, earlier, later in zip(names, steps, steps[1:])}
    return {**durations, "exiting_at": time.monotonic()}


def fork() -> dict[str, float]:
    """Seconds of each step of one child, its exit and the total with it."""
    read, write = os.pipe()
    start = time.monotonic()
    pid = os.fork()
    if pid == 0:
        os.write(write, json.dumps(child()).encode())
        os._exit(0)
    os.close(write)
    durations: dict[str, float] = json.loads(os.read(read, 4096) or b"{}")
    os.close(read)
    os.waitpid(pid, 0)
    end = time.monotonic()
    if not durations:
        raise SystemExit("the child ended before it could report: is there a GPU here?")
    durations["exit"] = end - durations.pop("exiting_at")
    durations["total"] = end - start
    return durations


def main() -> None:
    """Fork, time, print a line each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--times", type=int, default=5)
    for _ in range(parser.parse_args().times):
        print("  ".join(f"{name} {seconds:.3f}" for name, seconds in fork().items()))


if __name__ == "__main__":
    main()
