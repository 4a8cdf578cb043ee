"""A Triton kernel that writes where it is told, also outside of its array."""

import triton
import triton.language as tl


@triton.jit
def _store(pointer, offset):
    tl.store(pointer + offset, 1.0)


def fill(array, offset):
    """Write one element `offset` elements behind the start of the array; offset is a Python int below 2**63."""
    _store[(1,)](array, offset)
