"""Is the output right? FlashAttention's rule, held to in every block of rows, and the record's error numbers.

The largest error may be twice (gradients: three times) that of the plain formula in the case's own dtype, plus
twice what adding and taking away 0.3 costs there. Source: tests/test_flash_attn.py of Dao-AILab/flash-attention.
Under a causal mask the first rows are an average of few values and the last one of thousands, so one maximum over all
would let the last rows be anything; the rule therefore holds in each of up to 16 blocks of rows, and the norm of the
error is held to the same factor.

Both have one term more, the rounding of the scores to fp32, which every softmax has: a score of size S is known to
S * 2**-24, and so is the probability, relatively. The plain formula shows it only by chance (a one-hot row is exact
there, because its own maximum is taken away from it; in a backward pass that has the logarithm of the sum it is not).
In fp16 and bf16 the term is nothing. In fp32 it decides: without it three in a hundred of PyTorch's own flash gradients
on a CPU were refused on ordinary inputs and twenty in a hundred on peaky ones, at up to 10 times what was allowed; with
it none was.

Peaky inputs (inputs.PEAK) are judged over all rows at once: a few rows with two nearly equal scores have all the
error there, so that a block without such a row has an accidental yardstick. Gradients of correct kernels were at up to
5 times the rule in bf16 by blocks, and at 0.4 over all rows. With a single row in the whole case there is no yardstick
at all: two in five of flash's gradients were refused, since the gradient through a one-hot row nearly vanishes, the
plain formula is exact there, and flash takes away a sum over its rounded output. Below 64 rows gradients are not
checked on peaky inputs.
"""

from __future__ import annotations

import math
from typing import Any, Callable

from attnsweep import reference
from attnsweep.case import Case
from attnsweep.errors import Incorrect
from attnsweep.frameworks import Array, Framework
from attnsweep.inputs import Inputs, make, make_peaky, replace


def names(direction: str) -> tuple[str, ...]:
    """What a call of this direction returns, in order."""
    return {"fwd": ("out",), "bwd": ("dq", "dk", "dv"), "fwd_bwd": ("out", "dq", "dk", "dv")}[direction]


def verify(
    framework: Framework,
    case: Case,
    inputs: Inputs,
    call: Callable[[], tuple[Array, ...]],
    options: dict[str, Any],
    precision: dict[str, Any] | None = None,
    peaky: bool = False,
) -> dict[str, Any]:
    """Run the call once over poisoned memory, compare with the reference, and return the record's error columns.

    `options` are conf's check: the factors on the plain formula's error. `precision` is that of a quantised
    implementation's YAML, whose limits then stand for the rule. `peaky` inputs are judged over all rows at once.
    Raises Incorrect, with the same columns, for a wrong shape or dtype, a value that is not finite, or an error beyond
    the rule.
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
    with framework.exact():
        columns, failures = _judge(framework, case, inputs, results, options, precision, peaky)
    if failures:
        raise Incorrect("; ".join(failures), {**columns, "check": "failed"})
    return {**columns, "check": "passed"}


def _judge(
    framework: Framework,
    case: Case,
    inputs: Inputs,
    results: tuple[Array, ...],
    options: dict[str, Any],
    precision: dict[str, Any] | None,
    peaky: bool,
) -> tuple[dict[str, Any], list[str]]:
    """The error columns of results in the layout bhsd, and what is wrong with them."""
    truth = reference.compute(framework, case, inputs, reference.REFERENCE_DTYPE[case.dtype])
    plain = reference.compute(framework, case, inputs, case.dtype)
    spread = _score_rounding(framework, case, inputs)
    columns: dict[str, Any] = {}
    failures = []
    for name, result, exact, rounded in zip(names(case.direction), results, truth, plain):
        bad = framework.count_nonfinite(result)
        if bad:
            failures.append(f"{name} has {bad} values that are not finite")
            continue
        compared = _Compared(framework, case.dtype, result, exact, rounded)
        ratio = "err_ratio" if name == "out" else "grad_err_ratio"
        columns = _worse(columns, {**compared.errors, ratio: compared.ratio})
        if precision is not None:
            reason = _beyond_class(name, compared.errors, precision)
        else:
            factor = options["forward_factor"] if name == "out" else options["backward_factor"]
            reason = compared.beyond(name, factor, spread, 1 if peaky else _MOST_BLOCKS)
        if reason:
            failures.append(reason)
    return columns, failures


def verify_again(
    framework: Framework,
    case: Case,
    inputs: Inputs,
    call: Callable[[], tuple[Array, ...]],
    seed: int,
    options: dict[str, Any],
    precision: dict[str, Any] | None = None,
) -> None:
    """After timing: the same call on other values in the same memory must be right too, and leave them as they were.

    What remembers an earlier output, is right only at first or on a flat softmax, or writes into its inputs is found
    here. The values are peaky where they can be; those of `bwd`, whose graph holds q, k and v, are another incoming
    gradient alone, and `verify_peaky` is the rest. A quantised implementation declares its error on ordinary values,
    and is held to it on those. Raises Incorrect.
    """
    peaky = case.direction != "bwd" and precision is None and _has_yardstick(case)
    replaced = ("cotangent",) if case.direction == "bwd" else ("q", "k", "v", "bias", "cotangent")
    fresh = (make_peaky if peaky else make)(framework, case, seed, inputs.layout)
    replace(framework, inputs, fresh, case.direction)

    def watched() -> tuple[Array, ...]:
        results = call()
        framework.synchronize()
        for name in replaced:
            given, expected = getattr(inputs, name), getattr(fresh, name)
            if given is not None and not framework.equal(given, expected):
                raise Incorrect(f"it changed its input {name}", {"check": "failed"})
        return results

    try:
        verify(framework, case, inputs, watched, options, precision, peaky)
    except Incorrect as error:
        raise Incorrect(f"after timing, on other inputs: {error}", error.columns) from None


def verify_peaky(
    framework: Framework,
    case: Case,
    layout: str,
    another: Callable[[Inputs], Callable[[], tuple[Array, ...]]],
    seed: int,
    options: dict[str, Any],
    precision: dict[str, Any] | None = None,
) -> None:
    """After timing, for `bwd`: a call of its own on peaky inputs, made by `another`, must be right too.

    Raises Incorrect.
    """
    if not _has_yardstick(case):
        return
    peaky = make_peaky(framework, case, seed, layout)
    try:
        verify(framework, case, peaky, another(peaky), options, precision, peaky=True)
    except Incorrect as error:
        raise Incorrect(f"after timing, on peaky inputs: {error}", error.columns) from None


def _has_yardstick(case: Case) -> bool:
    """Whether the plain formula's error on peaky inputs is a steady thing: an output's is, gradients need rows."""
    return case.direction == "fwd" or case.batch_size * case.num_heads * case.q_len >= _FEWEST_ROWS


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


def _score_rounding(fw: Framework, case: Case, inputs: Inputs) -> float:
    """Half the spacing of fp32 at the largest score that these inputs could have, an upper bound by the norms."""
    longest = []
    for array in (inputs.q, inputs.k):
        wide = fw.cast(array, reference.REFERENCE_DTYPE[case.dtype])
        longest.append(math.sqrt(fw.max_abs(fw.sum_last(wide * wide))))
    bias = 0.0 if inputs.bias is None else fw.max_abs(inputs.bias)
    return (case.scale * longest[0] * longest[1] + bias) * 2.0**-24


class _Compared:
    """One finite result beside the reference and the plain formula in its own dtype; `errors` are columns."""

    def __init__(self, fw: Framework, dtype: str, result: Array, exact: Array, rounded: Array) -> None:
        wide = reference.REFERENCE_DTYPE[dtype]
        value = fw.cast(result, wide)
        error, plain = value - exact, fw.cast(rounded, wide) - exact
        stored = fw.cast(exact, dtype)
        granularity = fw.cast((stored + 0.3 - 0.3) - stored, wide)
        count = math.prod(fw.shape(result))
        squares, plain_squares, norm, value_norm = (fw.total(x * x) for x in (error, plain, exact, value))
        size, absolute = fw.total(abs(exact)), fw.total(abs(error))
        self.dtype = dtype
        self.worst, self.plain, self.grain = (fw.max_abs_rows(x) for x in (error, plain, granularity))
        self.largest = fw.max_abs(exact)
        self.plain_l2 = math.sqrt(plain_squares / norm) if norm else 0.0
        self.ratio = _ratio(max(self.worst), max(self.plain))
        self.errors = {
            "max_abs_err": max(self.worst),
            "mae": absolute / count,
            "mse": squares / count,
            "rel_l2": math.sqrt(_ratio(squares, norm)),
            "rel_l1": _ratio(absolute, size),
            "cosine": fw.total(value * exact) / math.sqrt(norm * value_norm) if norm and value_norm else 0.0,
        }

    def beyond(self, name: str, factor: float, spread: float, most_blocks: int) -> str | None:
        """Why the result is wrong by FlashAttention's rule in up to `most_blocks` blocks of rows, or None.

        `spread` is how far, relatively, rounding the scores to fp32 moves a probability.
        """
        step = max(_FEWEST_ROWS, math.ceil(len(self.worst) / most_blocks))
        for start in range(0, len(self.worst), step):
            ours, theirs, grain = (max(rows[start : start + step]) for rows in (self.worst, self.plain, self.grain))
            allowed = factor * (theirs + spread * self.largest) + 2 * grain
            if not ours <= allowed:
                where = "" if len(self.worst) <= step else f" in rows {start} and on"
                return (
                    f"{name} differs from the reference by up to {ours:.3g}{where}; {allowed:.3g} is allowed in "
                    f"{self.dtype} (the plain formula differs by {theirs:.3g})"
                )
        allowed = factor * (self.plain_l2 + spread) + _EPSILON[self.dtype] / 4
        if not self.errors["rel_l2"] <= allowed:
            return (
                f"the error of {name} is {self.errors['rel_l2']:.3g} of the reference's norm; {allowed:.3g} is allowed "
                f"in {self.dtype}"
            )
        return None


def _beyond_class(name: str, errors: dict[str, float], precision: dict[str, Any]) -> str | None:
    """Why a result is wrong by the limits of a quantised class, or None."""
    if errors["cosine"] >= precision["cosine"] and errors["rel_l1"] <= precision["rel_l1"]:
        return None
    return (
        f"{name} has cosine {errors['cosine']:.4g} and relative L1 {errors['rel_l1']:.3g} against the reference; "
        f"precision {precision['class']} must have at least {precision['cosine']:g} and at most {precision['rel_l1']:g}"
    )


#: Spacing of numbers at one.
_EPSILON = {"fp16": 2.0**-10, "bf16": 2.0**-7, "fp32": 2.0**-23}

#: The rule holds in each of at most so many blocks of rows, of at least so many rows: a block must hold enough
#: elements for its maximum to be a steady thing.
_MOST_BLOCKS, _FEWEST_ROWS = 16, 64


def _ratio(ours: float, theirs: float) -> float:
    if theirs:
        return ours / theirs
    return 0.0 if not ours else math.inf


def _worse(one: dict[str, float], other: dict[str, float]) -> dict[str, float]:
    """Column by column the worse of two results: the larger error, the smaller cosine; what one lacks, the other's."""
    both = {name: (min if name == "cosine" else max)(one[name], other[name]) for name in one.keys() & other.keys()}
    return {**one, **other, **both}
