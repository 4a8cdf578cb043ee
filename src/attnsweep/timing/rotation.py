"""A call's inputs with copies of them that evict each other from L2: what keeps graphs and loads cold."""

from __future__ import annotations

import math
from dataclasses import replace

from attnsweep.errors import GraphUnsupported
from attnsweep.frameworks import Framework
from attnsweep.inputs import Inputs
from attnsweep.timing.subject import Call, Subject

#: Copies of the inputs together are this many times L2, so that none is left there when its turn comes again.
_TIMES_L2 = 5
_MOST_COPIES = 1024


class Rotation:
    """The given inputs and, where the cache is to be cold, copies of them; they are made when first asked for."""

    def __init__(self, framework: Framework, subject: Subject, cache: str) -> None:
        self.framework, self.subject, self.cache = framework, subject, cache
        self.inputs: list[Inputs] = []

    def calls(self) -> list[Call]:
        """The call over copies of its inputs that together exceed L2, the given ones last; over those alone where the
        cache is to be hot. The copies are made once; the calls each time, since a backward pass runs on the stream of
        its forward pass, which is another in a capture. Raises GraphUnsupported where copies are too many or too large.
        """
        if not self.inputs:
            self.inputs = self._copies()
        return [self.subject.another(inputs) for inputs in self.inputs]

    def forget(self) -> None:
        """Let go of the copies."""
        self.inputs = []

    def _copies(self) -> list[Inputs]:
        fw, given = self.framework, self.subject.given
        size, copies = fw.nbytes(given.all), 1
        if self.cache == "cold":
            copies = math.ceil(_TIMES_L2 * fw.l2_bytes() / size)
            if copies > _MOST_COPIES or (copies - 1) * size > fw.free_bytes() / 4:
                raise GraphUnsupported(f"{copies} copies of the inputs that evict each other from L2 are too many")
        return [*(duplicate(fw, given) for _ in range(copies - 1)), given]


def duplicate(framework: Framework, given: Inputs) -> Inputs:
    """The same inputs in other memory."""
    names = ("q", "k", "v", "bias", "cotangent")
    copies = {name: getattr(given, name) for name in names if getattr(given, name) is not None}
    return replace(given, **{name: framework.copy(array) for name, array in copies.items()})
