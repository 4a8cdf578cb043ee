"""Implementations that misbehave on a GPU, each in one way, and each with most of the GPU's memory in its hands.

That a cell can take so much proves that the one before it, whatever became of it, gave its memory back.
"""

import ctypes
import os

from attnsweep.impls.sdpa import SdpaAttention

#: The part of the GPU's memory that every cell takes first.
HELD = 0.7

#: Two minutes of an SM's clock at 2 GHz.
TWO_MINUTES = 240_000_000_000

#: What a faulty implementation does at one length after the other.
BY_TURNS = (("out_of_memory", None), ("illegal_address", 40), ("segfault", 1), ("leaves", 40), ("spins", 1))


class Faulty(SdpaAttention):
    """SDPA that does `deed` in prepare, or in its `at`-th call where `at` is given; `by_turns` goes by the length."""

    def __init__(self, *, deed: str, at: int | None = None, **common):
        super().__init__(**common)
        self.deed, self.at, self.calls = deed, at, 0

    def prepare(self, case, device):
        import torch

        right = super().prepare(case, device)
        self.held = torch.empty(int(torch.cuda.mem_get_info()[1] * HELD), dtype=torch.uint8, device="cuda")
        if self.deed == "by_turns":
            self.deed, self.at = BY_TURNS[case.kv_len // 128 % len(BY_TURNS)]
        if self.at is None:
            getattr(self, self.deed)()

        def call(q, k, v):
            self.calls += 1
            if self.calls == self.at:
                getattr(self, self.deed)()
            return right(q, k, v)

        return call

    def nothing(self):
        """A cell that is right."""

    def out_of_memory(self):
        import torch

        torch.empty(self.held.numel(), dtype=torch.uint8, device="cuda")

    def illegal_address(self):
        import torch

        import cuda_fill

        cuda_fill.fill(torch.zeros(1, device="cuda"), 1 << 40)

    def segfault(self):
        ctypes.string_at(0)

    def leaves(self):
        os._exit(7)

    def spins(self):
        import torch

        torch.cuda._sleep(TWO_MINUTES)
        torch.cuda.synchronize()
