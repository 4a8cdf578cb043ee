"""Implementations that misbehave, each in one way: what a sweep must survive."""

import ctypes
import os
import subprocess
import sys
import time

from attnsweep.errors import CompileError, Missing, Unsupported
from attnsweep.impls import Attention
from attnsweep.impls.masks import dense
from attnsweep.impls.naive import NaiveAttention

#: Long enough that a deadline always comes first.
FOREVER_S = 600

#: What a test turns on in the middle of a cell, to make compiled code stale.
SWITCHED = False


class Fake(NaiveAttention):
    """Naive attention that does `deed` first: in `prepare`, or in the call where `late` says so."""

    def __init__(self, *, deed: str, **common):
        super().__init__(**common)
        self.deed = deed

    def prepare(self, case, device):
        right = super().prepare(case, device)
        self.mask = dense(case, device)
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

    def scores(self, q, k):
        """Scaled and masked, in fp32; no grouped heads."""
        found = q.float() @ k.float().transpose(-1, -2) * q.shape[-1] ** -0.5
        return found if self.mask is None else found.masked_fill(~self.mask, float("-inf"))

    def call_overflows(self, right, q, k, v):
        # No maximum is taken away, and fp16 ends at exp(11)
        weights = self.scores(q, k).exp().half().float()
        return (weights @ v.float() / weights.sum(dim=-1, keepdim=True)).to(q.dtype)

    def call_forgets_to_rescale(self, right, q, k, v):
        # An online softmax over eight keys at a time: its maximum moves on when the scores outgrow it by 8, and what
        # was summed up before stays as it is
        maximum, total, out = None, 0, 0
        for scores, values in zip(self.scores(q, k).split(8, dim=-1), v.float().split(8, dim=-2)):
            top = scores.amax(dim=-1, keepdim=True)
            maximum = top if maximum is None else top.where(top > maximum + 8, maximum)
            weights = (scores - maximum).exp()
            total = total + weights.sum(dim=-1, keepdim=True)
            out = out + weights @ values
        return (out / total).to(q.dtype)

    def call_rounds_k_to_int8(self, right, q, k, v):
        step = k.detach().abs().amax(dim=-1, keepdim=True) / 127
        return right(q, k + ((k.detach() / step).round() * step - k.detach()), v)

    def call_two_outputs(self, right, q, k, v):
        return right(q, k, v), None

    def call_raises(self, right, q, k, v):
        raise ValueError("the kernel said [bold]no[/bold] <script>")

    def call_prints(self, right, q, k, v):
        print("from the middle of it")
        return right(q, k, v)

    def call_prints_in_a_loop(self, right, q, k, v):
        for _ in range(2):
            out = right(q, k, v)
            print("from the middle of it")
        return out

    def call_branches_on_data(self, right, q, k, v):
        return right(q, k, v) if q.sum() < 1e9 else q

    def call_follows_a_switch(self, right, q, k, v):
        return right(q, k, v) if not SWITCHED else right(q, k, v) + 0

    def call_by_hand(self, right, q, k, v):
        # Inductor knows no such formula, so the products stay products
        weights = (q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5).exp()
        return weights @ v / weights.sum(dim=-1, keepdim=True)

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
