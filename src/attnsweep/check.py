"""Is the output right? FlashAttention's rule, held to in every block of rows, and the record's error numbers.

The largest error may be twice (gradients: three times) that of the plain formula in the case's own dtype, plus
twice what adding and taking away 0.3 costs there. Source: tests/test_flash_attn.py of Dao-AILab/flash-attention.
Under a causal mask the first rows are an average of few values and the last one of thousands, so one maximum over all
would let the last rows be anything; the rule therefore holds in each of up to 16 blocks of rows, and the norm of the
error is held to the same factor.
"""

from __future__ import annotations

import math
from typing import Any, Callable

from attnsweep import reference
from attnsweep.case import Case
from attnsweep.errors import Incorrect
from attnsweep.frameworks import Array, Framework
from attnsweep.inputs import Inputs, make, replace


def names(direction: str) -> tuple[str, ...]:
    """What a call of this direction returns, in order."""
    return {"fwd": ("out",), "bwd": ("dq", "dk", "dv"), "fwd_bwd": ("out", "dq", "dk", "dv")}[direction]


def verify(
    framework: Framework,
    case: Case,
    inputs: Inputs,
    call: Callable[[], tuple[Array, ...]],
    options: dict[str, Any],
) -> dict[str, Any]:
    """Run the call once over poisoned memory, compare with the reference, and return the record's error columns.

    `options` are conf's check: the factors on the plain formula's error. Raises Incorrect, with the same columns, for
    a wrong shape or dtype, a value that is not finite, or an error beyond the rule.
    """
    framework.poison(_sizes(case))
    raw = call()
    for name, result in zip(names(case.direction), raw):
        if not hasattr(result, "shape"):
            what = f"a {type(result).__name__}" + (f" of {len(result)}" if isinstance(result, (tuple, list)) else "")
            raise Incorrect(
                f"{name} is {what}, not an array; a YAML says `output: 0` where a library returns several",
                {"check": "failed"},
            )
    results = tuple(framework.copy(result) for result in raw)
    framework.synchronize()
    for name, result in zip(names(case.direction), results):
        _check_form(framework, case, inputs.layout, name, result)
    results = tuple(result if inputs.layout == "bhsd" else framework.swap(result, 1, 2) for result in results)
    truth = reference.compute(framework, case, inputs, reference.REFERENCE_DTYPE[case.dtype])
    plain = reference.compute(framework, case, inputs, case.dtype)
    columns: dict[str, Any] = {}
    failures = []
    for name, result, exact, rounded in zip(names(case.direction), results, truth, plain):
        factor = options["forward_factor"] if name == "out" else options["backward_factor"]
        errors, reason = _compare(framework, case, name, result, exact, rounded, factor)
        columns = _worse(columns, errors)
        if reason:
            failures.append(reason)
    if failures:
        raise Incorrect("; ".join(failures), {**columns, "check": "failed"})
    return {**columns, "check": "passed"}


def verify_again(
    framework: Framework,
    case: Case,
    inputs: Inputs,
    call: Callable[[], tuple[Array, ...]],
    seed: int,
    options: dict[str, Any],
) -> None:
    """After timing: the same call on other values in the same memory must be right too, and leave them as they were.

    What remembers an earlier output, is right only at first, or writes into its inputs is found here. Raises
    Incorrect.
    """
    fresh = make(framework, case, seed, inputs.layout)
    replace(framework, inputs, fresh, case.direction)

    def watched() -> tuple[Array, ...]:
        results = call()
        framework.synchronize()
        for name in ("cotangent",) if case.direction == "bwd" else ("q", "k", "v", "bias", "cotangent"):
            given, expected = getattr(inputs, name), getattr(fresh, name)
            if given is not None and not framework.equal(given, expected):
                raise Incorrect(f"it changed its input {name}", {"check": "failed"})
        return results

    try:
        verify(framework, case, inputs, watched, options)
    except Incorrect as error:
        raise Incorrect(f"after timing, on other inputs: {error}", error.columns) from None


def _sizes(case: Case) -> list[int]:
    """Bytes of each result of a call, for memory that is poisoned before it."""
    rows = {
        "out": case.q_len * case.num_heads * case.head_dim_v,
        "dq": case.q_len * case.num_heads * case.head_dim,
        "dk": case.kv_len * case.num_kv_heads * case.head_dim,
        "dv": case.kv_len * case.num_kv_heads * case.head_dim_v,
    }
    return [case.batch_size * rows[name] * case.element_size for name in names(case.direction)]


def _check_form(framework: Framework, case: Case, layout: str, name: str, result: Array) -> None:
    length, heads, dim = {
        "out": (case.q_len, case.num_heads, case.head_dim_v),
        "dq": (case.q_len, case.num_heads, case.head_dim),
        "dk": (case.kv_len, case.num_kv_heads, case.head_dim),
        "dv": (case.kv_len, case.num_kv_heads, case.head_dim_v),
    }[name]
    expected = (case.batch_size, *((length, heads) if layout == "bshd" else (heads, length)), dim)
    if framework.shape(result) != expected:
        raise Incorrect(f"{name} has shape {framework.shape(result)}, not {expected} ({layout})", {"check": "failed"})
    if framework.dtype_name(result) != case.dtype:
        raise Incorrect(f"{name} is {framework.dtype_name(result)}, not {case.dtype}", {"check": "failed"})


def _compare(
    fw: Framework, case: Case, name: str, result: Array, exact: Array, rounded: Array, factor: float
) -> tuple[dict[str, float], str | None]:
    """The error columns of one result and, where it is wrong, why."""
    bad = fw.count_nonfinite(result)
    if bad:
        return {}, f"{name} has {bad} values that are not finite"
    wide = reference.REFERENCE_DTYPE[case.dtype]
    value = fw.cast(result, wide)
    error = value - exact
    plain = fw.cast(rounded, wide) - exact
    stored = fw.cast(exact, case.dtype)
    granularity = fw.cast((stored + 0.3 - 0.3) - stored, wide)
    count = math.prod(fw.shape(result))
    squares, plain_squares, norm, value_norm = (fw.total(x * x) for x in (error, plain, exact, value))
    worst, worst_plain = _blocks(fw.max_abs_rows(error)), _blocks(fw.max_abs_rows(plain))
    errors = {
        "max_abs_err": max(worst),
        "mae": fw.total(abs(error)) / count,
        "mse": squares / count,
        "rel_l2": math.sqrt(squares / norm) if norm else math.inf,
        "cosine": fw.total(value * exact) / math.sqrt(norm * value_norm) if norm and value_norm else 0.0,
        "err_ratio": _ratio(max(worst), max(worst_plain)),
    }
    for block, (ours, theirs, grain) in enumerate(zip(worst, worst_plain, _blocks(fw.max_abs_rows(granularity)))):
        allowed = factor * theirs + 2 * grain
        if not ours <= allowed:
            where = "" if len(worst) == 1 else f" in rows {block * _block_rows(fw.shape(result)[-2])} and on"
            return errors, (
                f"{name} differs from the reference by up to {ours:.3g}{where}; {allowed:.3g} is allowed in "
                f"{case.dtype} (the plain formula differs by {theirs:.3g})"
            )
    norm_allowed = factor * math.sqrt(plain_squares / norm) + _EPSILON[case.dtype] / 4 if norm else 0.0
    if not errors["rel_l2"] <= norm_allowed:
        return errors, (
            f"the error of {name} is {errors['rel_l2']:.3g} of the reference's norm; {norm_allowed:.3g} is allowed in "
            f"{case.dtype}"
        )
    return errors, None


#: Spacing of numbers at one.
_EPSILON = {"fp16": 2.0**-10, "bf16": 2.0**-7, "fp32": 2.0**-23}

#: The rule holds in each of at most so many blocks of rows, of at least so many rows: a block must hold enough
#: elements for its maximum to be a steady thing.
_MOST_BLOCKS, _FEWEST_ROWS = 16, 64


def _block_rows(rows: int) -> int:
    return max(_FEWEST_ROWS, math.ceil(rows / _MOST_BLOCKS))


def _blocks(rows: list[float]) -> list[float]:
    """The largest value of each block of rows."""
    step = _block_rows(len(rows))
    return [max(rows[start : start + step]) for start in range(0, len(rows), step)]


def _ratio(ours: float, theirs: float) -> float:
    if theirs:
        return ours / theirs
    return 0.0 if not ours else math.inf


def _worse(one: dict[str, float], other: dict[str, float]) -> dict[str, float]:
    """Column by column the worse of two results: the larger error, the smaller cosine."""
    if not one or not other:
        return one or other
    return {name: (min if name == "cosine" else max)(one[name], other[name]) for name in one}
