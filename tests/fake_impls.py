"""Implementations that misbehave, each in one way: what a sweep must survive."""

import ctypes
import os
import subprocess
import sys
import time

from attnsweep.errors import CompileError, Missing, Unsupported
from attnsweep.impls import Attention
from attnsweep.impls.naive import NaiveAttention

#: Long enough that a deadline always comes first.
FOREVER_S = 600


class Fake(NaiveAttention):
    """Naive attention that does `deed` first: in `prepare`, or in the call where `late` says so."""

    def __init__(self, *, deed: str, **common):
        super().__init__(**common)
        self.deed = deed

    def prepare(self, case, device):
        right = super().prepare(case, device)
        deed = getattr(self, f"do_{self.deed}", None)
        if deed is not None:
            deed()
            return right
        return lambda q, k, v: getattr(self, f"call_{self.deed}")(right, q, k, v)

    def call_ok(self, right, q, k, v):
        return right(q, k, v)

    def call_wrong(self, right, q, k, v):
        return right(q, k, v) * 1.5

    def call_not_finite(self, right, q, k, v):
        return right(q, k, v) * float("nan")

    def call_memoises(self, right, q, k, v):
        if not hasattr(self, "remembered"):
            self.remembered = right(q, k, v)
        return self.remembered

    def call_right_at_first(self, right, q, k, v):
        self.calls = getattr(self, "calls", 0) + 1
        return right(q, k, v) if self.calls < 8 else q

    def call_scales_q_in_place(self, right, q, k, v):
        q.mul_(0.5)
        return right(q, k, v)

    def call_two_outputs(self, right, q, k, v):
        return right(q, k, v), None

    def call_raises(self, right, q, k, v):
        raise ValueError("the kernel said [bold]no[/bold] <script>")

    def do_missing(self):
        raise Missing("no such library; install it with: pip install nothing")

    def do_unsupported(self):
        raise Unsupported("only on Sundays")

    def do_compile_error(self):
        raise CompileError("nvcc was not amused")

    def do_memory_error(self):
        raise MemoryError("not that much")

    def do_system_exit(self):
        sys.exit(3)

    def do_segfault(self):
        ctypes.string_at(0)

    def do_hang(self):
        time.sleep(FOREVER_S)

    def do_eat_memory(self):
        import torch

        torch.ones(2**50, dtype=torch.uint8)

    def do_flood_stderr(self):
        line = b"x" * 1023 + b"\n"
        for _ in range(64 * 1024):
            os.write(2, line)

    def do_os_exit(self):
        os._exit(7)

    def do_grandchild(self):
        subprocess.Popen(
            [sys.executable, "-c", f"import time; time.sleep({FOREVER_S})"],
            start_new_session=True,
            close_fds=False,
        )


class NeedsFlag(Attention):
    """An implementation with a required and an optional keyword of its own."""

    def __init__(self, *, flag: int, block_q: int = 64, **common):
        super().__init__(**common)
        self.flag, self.block_q = flag, block_q

    def prepare(self, case, device):
        return lambda q, k, v: q
