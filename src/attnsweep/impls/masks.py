"""Masks for torch implementations that want them as tensors or as index functions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Callable

from attnsweep.case import Case

if TYPE_CHECKING:
    import torch


def dense(case: Case, device: str) -> torch.Tensor | None:
    """(q_len, kv_len) booleans on the device, True where a query sees a key; None where every one does."""
    import torch

    if not case.masked:
        return None
    queries = torch.arange(case.q_len, device=device)[:, None]
    keys = torch.arange(case.kv_len, device=device)[None, :]
    return visible(case)(queries, keys)


def visible(case: Case) -> Callable[[Any, Any], Any]:
    """The case's mask as a function of query and key indices, for integers or arrays of them; bottom-right."""
    left, right = case.bounds
    offset = case.kv_len - case.q_len

    def see(query: Any, key: Any) -> Any:
        position = query + offset
        if left < 0:
            return key <= position + right
        if right < 0:
            return key >= position - left
        return (key <= position + right) & (key >= position - left)

    return see
