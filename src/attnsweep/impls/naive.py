"""The plain formula in PyTorch, scores in memory: the baseline that everything is compared with."""

from __future__ import annotations

from typing import Any, Callable

from attnsweep.case import Case
from attnsweep.impls.base import Attention
from attnsweep.impls.masks import dense


class NaiveAttention(Attention):
    """softmax(scale * Q K^T + mask + bias) V in the case's dtype, in three steps over the whole matrix of scores."""

    def prepare(self, case: Case, device: str) -> Callable[..., Any]:
        import torch

        mask = dense(case, device)
        hidden = None if mask is None else ~mask
        scale, groups = case.scale, case.group_size

        def call(q: Any, k: Any, v: Any, bias: Any = None) -> Any:
            if groups > 1:
                k, v = (x.repeat_interleave(groups, dim=1) for x in (k, v))
            scores = torch.matmul(q, k.transpose(-1, -2)) * scale
            if bias is not None:
                scores = scores + bias
            if hidden is not None:
                scores = scores.masked_fill(hidden, float("-inf"))
            return torch.matmul(torch.softmax(scores, dim=-1), v)

        return call
