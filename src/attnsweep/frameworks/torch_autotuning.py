"""How long torch.compile spends in running candidates against each other."""

from __future__ import annotations

import functools
import time
from typing import Any, Callable


class Autotuning:
    """Seconds for which Inductor ran candidates against each other: Triton configs, GEMM templates, fusions, paddings.

    All go through one object's methods (torch 2.6 to 2.13). They call each other, so only the outermost is counted.
    Compiling candidates is not in it, and dynamo_timed's phases do not do: none has the paddings since torch 2.11.
    """

    def __init__(self, benchmarker: Any) -> None:
        self.seconds = 0.0
        self._depth = 0
        self._since = 0.0
        for name in dir(benchmarker):
            if name.startswith("benchmark"):
                setattr(benchmarker, name, self._timed(getattr(benchmarker, name)))

    def _timed(self, method: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(method)
        def timed(*args: Any, **keywords: Any) -> Any:
            if self._depth == 0:
                self._since = time.monotonic()
            self._depth += 1
            try:
                return method(*args, **keywords)
            finally:
                self._depth -= 1
                if self._depth == 0:
                    self.seconds += time.monotonic() - self._since

        return timed
