"""The inputs of a case: the same bits for every implementation, in every framework.

Each element is a function of (seed, tensor, index) alone: a 32-bit integer hash of the index, twice, gives four
16-bit uniforms; their sum, centred and scaled by 2**-15, is near-normal with a standard deviation of 1.155 and
exact in fp32. The hash is lowbias32 by C. Wellons (https://nullprogram.com/blog/2018/07/31/).
"""

from __future__ import annotations

import dataclasses
import hashlib
from dataclasses import dataclass

from attnsweep.case import Case
from attnsweep.frameworks import Array, Framework

#: Elements hashed at a time: the temporaries of a chunk are 32-bit and there are about eight of them.
_CHUNK = 2**25

#: What q is multiplied by to make the softmax nearly one-hot: the scores' standard deviation becomes 10.7. A power of
#: two is exact in every dtype. No element is beyond 4, so no product of q and k is beyond 128 * head_dim before it is
#: scaled: fp16 holds that up to a head_dim of 511.
PEAK = 8.0

_GOLDEN = 0x9E3779B9
_SECOND = 0x85EBCA6B


@dataclass
class Inputs:
    """q (B, Sq, H, D), k (B, Skv, Hkv, D), v (B, Skv, Hkv, Dv) and cotangent (B, Sq, H, Dv) in the layout asked for.

    `bias` is (1, H, Sq, Skv) or None; `cotangent` is None for a forward pass. All in the case's dtype.
    Calls are made on them, and see what `replace` puts here.
    """

    q: Array
    k: Array
    v: Array
    bias: Array | None
    cotangent: Array | None
    layout: str

    @property
    def arguments(self) -> tuple[Array, ...]:
        """What an implementation is called with: q, k, v, and the bias where there is one."""
        return (self.q, self.k, self.v) if self.bias is None else (self.q, self.k, self.v, self.bias)

    @property
    def all(self) -> tuple[Array, ...]:
        """Every array that lives in memory."""
        return self.arguments if self.cotangent is None else (*self.arguments, self.cotangent)


def make(framework: Framework, case: Case, seed: int, layout: str = "bshd") -> Inputs:
    """The inputs of a case in `layout` (bshd or bhsd), contiguous."""
    batch, q_len, kv_len = case.batch_size, case.q_len, case.kv_len
    shapes = {
        "q": (batch, q_len, case.num_heads, case.head_dim),
        "k": (batch, kv_len, case.num_kv_heads, case.head_dim),
        "v": (batch, kv_len, case.num_kv_heads, case.head_dim_v),
        "cotangent": (batch, q_len, case.num_heads, case.head_dim_v),
    }
    if case.direction == "fwd":
        del shapes["cotangent"]
    arrays = {}
    for name, shape in shapes.items():
        array = near_normal(framework, shape, case.dtype, seed, name)
        arrays[name] = framework.swap(array, 1, 2) if layout == "bhsd" else array
    bias = None
    if case.bias == "dense":
        bias = near_normal(framework, (1, case.num_heads, q_len, kv_len), case.dtype, seed, "bias")
    return Inputs(arrays["q"], arrays["k"], arrays["v"], bias, arrays.get("cotangent"), layout)


def make_peaky(framework: Framework, case: Case, seed: int, layout: str = "bshd") -> Inputs:
    """The same with q times PEAK: few keys have all the weight, and a running maximum over the keys often grows."""
    fresh = make(framework, case, seed, layout)
    return dataclasses.replace(fresh, q=fresh.q * PEAK)


def replace(framework: Framework, given: Inputs, fresh: Inputs, direction: str) -> None:
    """Put other values into inputs that are in use, into their memory where the framework can write there; for `bwd`
    into the incoming gradient alone.

    A backward pass runs over the graph of one forward pass, whose q, k and v must stay.
    """
    for name in ("cotangent",) if direction == "bwd" else ("q", "k", "v", "bias", "cotangent"):
        if getattr(given, name) is not None:
            setattr(given, name, framework.overwrite(getattr(given, name), getattr(fresh, name)))


def near_normal(framework: Framework, shape: tuple[int, ...], dtype: str, seed: int, tensor: str) -> Array:
    """An array of `shape` whose bits depend only on the arguments; `tensor` names the stream."""
    count = 1
    for size in shape:
        count *= size
    digest = hashlib.sha256(f"{seed}/{tensor}".encode()).digest()
    key, salt = int.from_bytes(digest[:4], "big"), int.from_bytes(digest[4:8], "big")
    parts = []
    for start in range(0, count, _CHUNK):
        index = framework.arange(start, min(_CHUNK, count - start))
        first = _hash(index * _signed(_GOLDEN) + _signed(key))
        second = _hash(first * _signed(_SECOND) + _signed(salt))
        uniforms = (first & 0xFFFF) + _shift(first, 16) + (second & 0xFFFF) + _shift(second, 16)
        values = framework.cast(uniforms - 2 * 0xFFFF, "fp32") * 2.0**-15
        parts.append(framework.cast(values, dtype))
    return framework.concat(parts).reshape(shape)


def _hash(x: Array) -> Array:
    x = (x ^ _shift(x, 16)) * _signed(0x7FEB352D)
    x = (x ^ _shift(x, 15)) * _signed(0x846CA68B)
    return x ^ _shift(x, 16)


def _shift(x: Array, bits: int) -> Array:
    """Logical shift right of 32-bit integers that are signed."""
    return (x >> bits) & ((1 << (32 - bits)) - 1)


def _signed(constant: int) -> int:
    """A 32-bit constant as the signed integer with the same bits."""
    constant &= 0xFFFFFFFF
    return constant - 2**32 if constant >= 2**31 else constant
