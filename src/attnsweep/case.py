"""One attention problem, fully determined, and how many (query, key) pairs it makes visible.

No tensors here, standard library only, Python 3.9 on: parent, worker and report all read it.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from attnsweep.errors import ConfigError

DTYPES = {"fp32": 4, "bf16": 2, "fp16": 2}
DIRECTIONS = ("fwd", "bwd", "fwd_bwd")
BIASES = ("none", "dense")

#: What a 32-bit index reaches, as many kernels have; and bytes that a 64-bit size can say.
MOST = 2**31 - 1
_MOST_BYTES = 2**63 - 1


def size(field: str, value: Any) -> int:
    """The value of a field, if it can be the size of something; raises ConfigError."""
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ConfigError(f"{field} must be a positive integer, not {value!r}")
    if value > MOST:
        raise ConfigError(f"{field} must be {MOST} or less, not {value}")
    return value


@dataclass(frozen=True)
class Case:
    """One attention problem: softmax(scale * Q K^T + mask + bias) V.

    Shapes, in the layout `bshd`: q (batch_size, q_len, num_heads, head_dim), k (batch_size, kv_len, num_kv_heads,
    head_dim), v (batch_size, kv_len, num_kv_heads, head_dim_v), output (batch_size, q_len, num_heads, head_dim_v);
    a dense bias is (1, num_heads, q_len, kv_len), added to the scaled scores, and gets no gradient.
    Masks are aligned bottom-right, as a KV cache means them: query i stands at key i + kv_len - q_len. `window` is
    (left, right) keys seen beside that one, -1 for unbounded, None for no window. Raises ConfigError for a problem
    that is none.
    """

    batch_size: int
    q_len: int
    kv_len: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    head_dim_v: int
    causal: bool = False
    window: tuple[int, int] | None = None
    bias: str = "none"
    dtype: str = "bf16"
    direction: str = "fwd"

    def __post_init__(self) -> None:
        for field in ("batch_size", "q_len", "kv_len", "num_heads", "num_kv_heads", "head_dim", "head_dim_v"):
            size(field, getattr(self, field))
        if not isinstance(self.causal, bool):
            raise ConfigError(f"causal must be true or false, not {self.causal!r}")
        if self.window is not None:
            window = self.window
            if not isinstance(window, (list, tuple)) or len(window) != 2:
                raise ConfigError(f"window must be [left, right] or null, not {window!r}")
            if any(not isinstance(side, int) or isinstance(side, bool) or side < -1 for side in window):
                raise ConfigError(f"window must hold two integers of -1 (unbounded) or more, not {window!r}")
            if max(window) > MOST:
                raise ConfigError(f"window must hold integers up to {MOST}, not {window!r}")
            object.__setattr__(self, "window", (window[0], window[1]))
        for field, choices in (("bias", BIASES), ("dtype", tuple(DTYPES)), ("direction", DIRECTIONS)):
            if getattr(self, field) not in choices:
                raise ConfigError(f"{field} must be one of {', '.join(choices)}, not {getattr(self, field)!r}")
        if self.num_heads % self.num_kv_heads:
            raise ConfigError(f"num_heads ({self.num_heads}) must be a multiple of num_kv_heads ({self.num_kv_heads})")
        if self.q_len > self.kv_len and (self.causal or self.window is not None):
            raise ConfigError(
                f"a causal mask or a window needs q_len ({self.q_len}) <= kv_len ({self.kv_len}): the first "
                "queries would see no key"
            )
        if self.batch_size * self._most_elements * max(DTYPES.values()) > _MOST_BYTES:
            raise ConfigError(f"this problem is too large: its tensors or scores exceed {_MOST_BYTES} bytes")

    @property
    def _most_elements(self) -> int:
        """Elements, for one batch entry, of the largest of queries and output, keys and values, and scores."""
        widest = max(self.head_dim, self.head_dim_v)
        return self.num_heads * max(self.q_len * widest, self.kv_len * widest, self.q_len * self.kv_len)

    @property
    def scale(self) -> float:
        """The softmax scale, 1 / sqrt(head_dim)."""
        return 1.0 / math.sqrt(self.head_dim)

    @property
    def group_size(self) -> int:
        """Query heads that share one key/value head."""
        return self.num_heads // self.num_kv_heads

    @property
    def bounds(self) -> tuple[int, int]:
        """(left, right) keys seen beside a query's own position, -1 unbounded: causal and window together."""
        left, right = self.window if self.window is not None else (-1, -1)
        return left, 0 if self.causal else right

    @property
    def masked(self) -> bool:
        """Whether the mask hides any pair: one causal query at the end of a KV cache sees every key."""
        return self.visible_pairs < self.q_len * self.kv_len

    @property
    def effective_causal(self) -> bool:
        """Whether the causal mask alone hides any pair: the flag for a library that aligns it top-left."""
        return self.causal and self.q_len > 1

    @property
    def visible_pairs(self) -> int:
        """Exact number of (query, key) pairs that the mask leaves visible, for one batch entry and head."""
        left, right = self.bounds
        offset, last = self.kv_len - self.q_len, self.kv_len - 1
        upper = self.q_len * last if right < 0 else _clamped_sum(offset + right, self.q_len, last)
        # max(0, x) = x - min(x, 0), summed over x = i + offset - left
        lower = 0
        if left >= 0:
            start = offset - left
            plain = self.q_len * start + self.q_len * (self.q_len - 1) // 2
            lower = plain - _clamped_sum(start, self.q_len, 0)
        return upper - lower + self.q_len

    def visible(self, query: int, key: int) -> bool:
        """Whether `query` sees `key`; the definition that `visible_pairs` counts."""
        left, right = self.bounds
        position = query + self.kv_len - self.q_len
        return (left < 0 or key >= position - left) and (right < 0 or key <= position + right)

    @property
    def element_size(self) -> int:
        """Bytes of one element."""
        return DTYPES[self.dtype]

    @property
    def name(self) -> str:
        """A short readable id, such as b1-h32x8-q1-kv4096-d128-causal-bf16-fwd; different cases differ in it."""
        heads = f"h{self.num_heads}" + (f"x{self.num_kv_heads}" if self.group_size > 1 else "")
        lengths = f"s{self.q_len}" if self.q_len == self.kv_len else f"q{self.q_len}-kv{self.kv_len}"
        dim = f"d{self.head_dim}" + (f"x{self.head_dim_v}" if self.head_dim_v != self.head_dim else "")
        parts = [f"b{self.batch_size}", heads, lengths, dim]
        if self.causal:
            parts.append("causal")
        if self.window is not None:
            parts.append("w" + "_".join("inf" if side < 0 else str(side) for side in self.window))
        if self.bias != "none":
            parts.append(f"bias_{self.bias}")
        return "-".join([*parts, self.dtype, self.direction])

    def to_dict(self) -> dict[str, Any]:
        """The fields as JSON carries them."""
        fields = asdict(self)
        fields["window"] = list(self.window) if self.window is not None else None
        return fields

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> Case:
        """The inverse of `to_dict`."""
        return cls(**fields)


def _clamped_sum(start: int, count: int, ceiling: int) -> int:
    """Sum of min(start + i, ceiling) for i in 0 .. count - 1."""
    below = min(max(ceiling - start, 0), count)
    return below * start + below * (below - 1) // 2 + (count - below) * ceiling
