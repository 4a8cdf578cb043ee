"""Is the output right? FlashAttention's rule, and the error numbers that the record carries.

The largest error may be twice (gradients: three times) that of the plain formula in the case's own dtype, plus
twice what adding and taking away 0.3 costs there. Source: tests/test_flash_attn.py of Dao-AILab/flash-attention.
"""

from __future__ import annotations

import math
from typing import Any, Callable

from attnsweep import reference
from attnsweep.case import Case
from attnsweep.errors import Incorrect
from attnsweep.frameworks import Array, Framework
from attnsweep.inputs import Inputs


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
    framework.poison(framework.nbytes((inputs.q,)) // case.head_dim * case.head_dim_v)
    results = tuple(framework.copy(result) for result in call())
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
    max_abs = fw.max_abs(error)
    plain = fw.max_abs(fw.cast(rounded, wide) - exact)
    stored = fw.cast(exact, case.dtype)
    granularity = fw.max_abs(fw.cast((stored + 0.3 - 0.3) - stored, wide))
    count = math.prod(fw.shape(result))
    squares, norm, value_norm = (fw.total(x * x) for x in (error, exact, value))
    errors = {
        "max_abs_err": max_abs,
        "mae": fw.total(abs(error)) / count,
        "mse": squares / count,
        "rel_l2": math.sqrt(squares / norm) if norm else math.inf,
        "cosine": fw.total(value * exact) / math.sqrt(norm * value_norm) if norm and value_norm else 0.0,
        "err_ratio": max_abs / plain if plain else (0.0 if not max_abs else math.inf),
    }
    allowed = factor * plain + 2 * granularity
    if max_abs <= allowed:
        return errors, None
    return errors, (
        f"{name} differs from the reference by up to {max_abs:.3g}; {allowed:.3g} is allowed in {case.dtype} "
        f"(the plain formula differs by {plain:.3g})"
    )


def _worse(one: dict[str, float], other: dict[str, float]) -> dict[str, float]:
    """Column by column the worse of two results: the larger error, the smaller cosine."""
    if not one or not other:
        return one or other
    return {name: (min if name == "cosine" else max)(one[name], other[name]) for name in one}
