"""Implementations that tests on a GPU time: right, and slower by a known amount, or wrong in one way."""

import time

import fake_impls
from attnsweep.impls.sdpa import SdpaAttention


class Spinning(SdpaAttention):
    """SDPA and then a kernel that spins for `cycles` of an SM; `host_us` of the host's time before both."""

    def __init__(self, *, cycles: int = 0, host_us: float = 0.0, **common):
        super().__init__(**common)
        self.cycles, self.host_s = cycles, host_us / 1e6

    def prepare(self, case, device):
        import torch

        right, cycles, host_s = super().prepare(case, device), self.cycles, self.host_s

        def call(q, k, v):
            until = time.perf_counter() + host_s
            while time.perf_counter() < until:
                pass
            out = right(q, k, v)
            if cycles:
                torch.cuda._sleep(cycles)
            return out

        return call


class Waiting(SdpaAttention):
    """SDPA and then a wait for the device, which no capture allows."""

    def prepare(self, case, device):
        import torch

        right = super().prepare(case, device)

        def call(q, k, v):
            out = right(q, k, v)
            torch.cuda.synchronize()
            return out

        return call


class Wrong(fake_impls.Fake):
    """Naive attention with a mistake that only shows on a GPU's memory or masks."""

    def call_forgets_the_mask(self, right, q, k, v):
        from torch.nn.functional import scaled_dot_product_attention

        return scaled_dot_product_attention(q, k, v)

    def call_masks_top_left(self, right, q, k, v):
        from torch.nn.functional import scaled_dot_product_attention

        return scaled_dot_product_attention(q, k, v, is_causal=True)

    def call_takes_the_other_layout(self, right, q, k, v):
        from torch.nn.functional import scaled_dot_product_attention

        return scaled_dot_product_attention(*(x.transpose(1, 2) for x in (q, k, v))).transpose(1, 2)

    def call_computes_in_another_stream(self, right, q, k, v):
        import torch

        if not hasattr(self, "other"):
            self.other = torch.cuda.Stream()
        # It waits for its inputs, and nobody for it. Its memory is that stream's, where an earlier output may be found
        self.other.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self.other):
            return right(q, k, v)

    def call_leaves_its_output_as_it_was(self, right, q, k, v):
        import torch

        return torch.empty_like(q)
