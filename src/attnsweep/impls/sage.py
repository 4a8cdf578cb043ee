"""SageAttention 1.x, whose smoothing of the keys would change the caller's."""

from __future__ import annotations

from typing import Any, Callable

from attnsweep.case import Case
from attnsweep.impls.function import FunctionAttention


class SageAttention1(FunctionAttention):
    """sageattention.sageattn of version 1, its `smooth_k` done here.

    `smooth_k=True` (its default) subtracts the keys' mean over the tokens in place (1.0.6, core.py: `k -= km`), so the
    caller's keys are not what they were. The same subtraction out of place comes first here, in every call, and
    `smooth_k` is off. Smoothing changes no exact result: it adds a constant to each query's scores.
    """

    def prepare(self, case: Case, device: str) -> Callable[..., Any]:
        self.constants = {**self.constants, "smooth_k": False}
        attend = super().prepare(case, device)
        tokens = 1 if self.layout == "bshd" else 2

        def call(q: Any, k: Any, v: Any) -> Any:
            return attend(q, k - k.mean(dim=tokens, keepdim=True), v)

        return call
