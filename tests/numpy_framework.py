"""A second framework for tests, numpy on the CPU: what is written against `Framework` must not know torch."""

import contextlib
import time

import numpy as np

DTYPES = {"fp16": np.float16, "fp32": np.float32, "fp64": np.float64}


class Numpy:
    """The array functions of `attnsweep.frameworks.Framework` on numpy arrays."""

    name = "numpy"
    on_gpu = False

    def arange(self, start, count):
        return ((np.arange(count, dtype=np.int64) + start + 2**31) % 2**32 - 2**31).astype(np.int32)

    def cast(self, x, dtype):
        return x.astype(DTYPES[dtype])

    def concat(self, parts, axis=0):
        return np.concatenate(parts, axis=axis)

    def swap(self, x, one, other):
        return np.ascontiguousarray(np.swapaxes(x, one, other))

    def matmul(self, a, b):
        return np.matmul(a, b)

    def where(self, condition, x, other):
        return np.where(condition, x, np.asarray(other, dtype=x.dtype))

    def softmax(self, x):
        exponentials = np.exp(x - x.max(axis=-1, keepdims=True))
        return exponentials / exponentials.sum(axis=-1, keepdims=True)

    def sum_last(self, x):
        return x.sum(axis=-1, keepdims=True)

    def max_abs(self, x):
        return float(np.abs(x).max())

    def total(self, x):
        return float(x.sum(dtype=np.float64))

    def count_nonfinite(self, x):
        return int((~np.isfinite(x)).sum())

    def shape(self, x):
        return x.shape

    def dtype_name(self, x):
        return {value: key for key, value in DTYPES.items()}[x.dtype.type]

    def nbytes(self, arrays):
        return sum(x.nbytes for x in arrays)

    def copy(self, x):
        return x.copy()

    def exact(self):
        return contextlib.nullcontext()

    def max_abs_rows(self, x):
        return np.abs(x).max(axis=-1).reshape(-1, x.shape[-2]).max(axis=0).tolist()

    def overwrite(self, x, values):
        x[...] = values
        return x

    def equal(self, x, y):
        return np.array_equal(x, y)

    def poison(self, sizes):
        for nbytes in sizes:
            np.full(nbytes // 4, np.nan, dtype=np.float32)

    def synchronize(self):
        time.monotonic()
