"""Measured ceilings, which are records like any other: what a case's FLOPs, or its bytes, cost at best.

They take attention's inputs and ignore them: the work is a dense matrix product, or a copy, of operands of their own.
Successive calls go round so many sets of operands that together they exceed L2 five times: unlike attention's inputs
they cannot be copied from outside, so they are as cold under a CUDA graph or a load as attention's are, and with
timing.cache=hot as well.
"""

from __future__ import annotations

import itertools
import math
from abc import abstractmethod
from functools import cache
from typing import Any, Callable

from attnsweep import metrics
from attnsweep.case import Case
from attnsweep.devices import Device
from attnsweep.impls.base import Attention

#: Sides of a product are multiples of the first, where tensor cores are at their best, and at most the second.
_STEP, _LONGEST = 128, 16384

_TIMES_L2 = 5


class Ceiling(Attention):
    """A bound to compare attention with: never checked, never ranked."""

    is_attention = False

    def prepare(self, case: Case, device: str) -> Callable[..., Any]:
        import torch

        generator = torch.Generator(device).manual_seed(0)
        first = self.operands(case, generator)
        size = sum(array.numel() * array.element_size() for array in first)
        l2 = torch.cuda.get_device_properties(0).L2_cache_size if device == "cuda" else 0
        more = max(1, math.ceil(_TIMES_L2 * l2 / size)) - 1
        turns = itertools.cycle([first, *(self.operands(case, generator) for _ in range(more))])

        def call(q: Any, k: Any, v: Any, bias: Any = None) -> Any:
            return self.run(*next(turns))

        return call

    @abstractmethod
    def operands(self, case: Case, generator: Any) -> tuple[Any, ...]:
        """Random arrays of one call, the output last, from a torch.Generator and on its device: zeros draw less power
        and run faster.
        """

    @abstractmethod
    def run(self, *operands: Any) -> Any:
        """One call; its output."""


class MatmulCeiling(Ceiling):
    """One dense matrix product in the case's dtype of, as nearly as its sides allow, the case's FLOPs."""

    def supports(self, case: Case, device: Device, compile_mode: str) -> str | None:
        most = 2 * _LONGEST**3
        if metrics.flops(case) <= most:
            return None
        return f"the case has {metrics.flops(case):.3g} FLOPs, and one product with sides of {_LONGEST} has {most:.3g}"

    def work(self, case: Case) -> metrics.Work:
        m, n, k = sides(metrics.flops(case))
        read = (m * k + k * n) * case.element_size
        moved = read + m * n * case.element_size
        return metrics.Work(2 * m * n * k, moved, read, case.dtype, case.batch_size * case.q_len, "compute")

    def operands(self, case: Case, generator: Any) -> tuple[Any, ...]:
        import torch

        m, n, k = sides(metrics.flops(case))
        dtype = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}[case.dtype]
        shapes = ((m, k), (k, n), (m, n))
        return tuple(torch.randn(shape, dtype=dtype, device=generator.device, generator=generator) for shape in shapes)

    def run(self, *operands: Any) -> Any:
        import torch

        a, b, product = operands
        return torch.mm(a, b, out=product)


class CopyCeiling(Ceiling):
    """The case's compulsory bytes, half of them read and half written, by one kernel."""

    def work(self, case: Case) -> metrics.Work:
        half = 4 * _elements(case)
        return metrics.Work(0, 2 * half, half, case.dtype, case.batch_size * case.q_len, "memory")

    def operands(self, case: Case, generator: Any) -> tuple[Any, ...]:
        import torch

        size = _elements(case)
        return tuple(torch.randn(size, device=generator.device, generator=generator) for _ in range(2))

    def run(self, *operands: Any) -> Any:
        import torch

        source, target = operands
        # The plainest kernel that moves what a copy does: a copy itself would be flagged as an impurity
        return torch.neg(source, out=target)


@cache
def sides(flops: int) -> tuple[int, int, int]:
    """(m, n, k) of a product of nearly `flops` = 2*m*n*k, and nearly a cube: a percent off costs as much as a side that
    is longer than another by the length of the shortest.
    """
    wanted = flops / (2 * _STEP**3)
    most = _LONGEST // _STEP
    cube = min(wanted ** (1 / 3), most)
    near = range(max(1, math.floor(0.8 * cube)), min(most, math.ceil(1.25 * cube)) + 1)

    def off(blocks: tuple[int, int, int]) -> float:
        return 100 * abs(math.prod(blocks) / wanted - 1) + max(blocks) / min(blocks)

    candidates = ((m, n, min(most, max(1, round(wanted / (m * n))))) for m in near for n in near if n <= m)
    m, n, k = min(candidates, key=off)
    return m * _STEP, n * _STEP, k * _STEP


def _elements(case: Case) -> int:
    """fp32 elements of the source: half of the case's bytes."""
    return max(1, metrics.bytes_moved(case) // 8)
