"""What an exception says becomes a reason: what is wrong, not where in which source it was met."""

import time

import pytest
import torch
import triton
import triton.language as tl
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from attnsweep.errors import Status, first_line, last_line, said
from attnsweep.frameworks.torch import Torch

PLACE = "at 118:14:\n    q = tl.load(q_ptr)\n    qk = tl.dot(q, k, trans_b=True)\n              ^\n"
NO_TRANSPOSE = "dot() got an unexpected keyword argument 'trans_b'"


@triton.jit
def transposes(pointer, n: tl.constexpr):
    x = tl.zeros((16, 16), tl.float32)
    tl.store(pointer, tl.dot(x, x, trans_b=True))


@triton.jit
def helper(x):
    return tl.dot(x, x, trans_b=True)


@triton.jit
def transposes_in_a_function(pointer, n: tl.constexpr):
    tl.store(pointer, helper(tl.zeros((16, 16), tl.float32)))


@triton.jit
def asserts(pointer, n: tl.constexpr):
    tl.static_assert(n > 8, "n is too small")
    tl.store(pointer, 0.0)


@pytest.mark.parametrize(
    ("kernel", "reason"),
    [
        (transposes, f"CompilationError: {NO_TRANSPOSE}"),
        (transposes_in_a_function, f"CompilationError: {NO_TRANSPOSE}"),
        (asserts, "CompileTimeAssertionFailure: n is too small"),
    ],
)
def test_what_tritons_compiler_refuses_is_the_reason(monkeypatch, kernel, reason):
    """A real kernel that does not compile for a GPU: the message has its place first, or nothing else."""
    monkeypatch.setenv("TRITON_DEFAULT_FP_FUSION", "1")  # it warns of its default
    source = ASTSource(fn=kernel, signature={"pointer": "*fp32", "n": "constexpr"}, constexprs={(1,): 4})
    with pytest.raises(triton.CompilationError) as refused:
        triton.compile(source, target=GPUTarget("cuda", 90, 32))
    assert str(refused.value).startswith("at ")
    status = Torch({"kind": "cpu"}).status_of(refused.value)
    assert status == (Status.COMPILE_ERROR, reason)


def test_what_dynamo_cannot_trace_is_the_reason():
    """Not only that it could not: what the operator said, behind a line of all its arguments."""
    with pytest.raises(RuntimeError) as refused:
        torch.compile(lambda x: x @ x, fullgraph=True, backend="eager")(torch.randn(2, 3))
    status, reason = Torch({"kind": "cpu"}).status_of(refused.value)
    assert status == Status.COMPILE_ERROR
    said = "a and b must have same reduction dim, but got [2, 3] X [2, 3]."
    assert reason == f"TorchRuntimeError: RuntimeError when making fake tensor call: {said}"


def test_of_an_operators_many_lines_the_first_that_says_something_is_the_reason():
    """A message may begin with a line break."""
    text = (
        "RuntimeError when making fake tensor call\n  Explanation: op(*(), **{}): got ValueError('\\n  k is odd\\nwhy')"
    )
    _, reason = Torch({"kind": "cpu"}).status_of(torch._dynamo.exc.TorchRuntimeError(text))
    assert reason == "TorchRuntimeError: RuntimeError when making fake tensor call: k is odd"


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (f"{PLACE}{NO_TRANSPOSE}", NO_TRANSPOSE),
        (f"CompilationError: {PLACE}{NO_TRANSPOSE}\n\nSet X=1 for more", f"CompilationError: {NO_TRANSPOSE}"),
        (f"backend='inductor' raised:\nCompilationError: {PLACE}no", "backend='inductor' raised: CompilationError: no"),
        ("at 1:2:\n <source unavailable>\nno", "no"),
        ("two\nlines", "two"),
        ("\n  indented\nmore", "indented"),
        ("where:\n\n  here\nmore", "where: here"),
        ("look at 5:3: it ends", "look at 5:3: it ends"),
        ("it ends:", "it ends:"),
        ("", "no message"),
    ],
)
def test_the_line_that_says_what_is_wrong(message, expected):
    """Of a message of many lines; one that only announces the next has it beside it."""
    assert first_line(said(RuntimeError(message))) == expected


@pytest.mark.parametrize(
    ("cause", "expected"), [(ValueError("inner\nmore"), "inner\nmore"), (ValueError(), "ValueError")]
)
def test_who_says_nothing_has_a_cause(cause, expected):
    """A place alone, or a name and a place, are followed by what was met there."""
    for message, before in ((PLACE, ""), (f"CompilationError: {PLACE}", "CompilationError: "), ("", "")):
        error = RuntimeError(message)
        error.__cause__ = cause
        assert said(error) == f"{before}{expected}"
    error = RuntimeError("says enough")
    error.__cause__ = cause
    assert said(error) == "says enough"


def test_a_cause_may_be_a_circle():
    """Python allows an exception to be the cause of itself, or of its own cause."""
    alone = ValueError("")
    alone.__cause__ = alone
    assert said(alone) == ""
    first, second = ValueError("first:"), ValueError("second:")
    first.__cause__, second.__cause__ = second, first
    assert said(first) == "first: second:"


def test_a_message_as_long_as_a_program_is_looked_at_in_part():
    """Ten megabytes of what could be places take no time."""
    begun = time.perf_counter()
    assert said(RuntimeError("at 12:30:\n" * 1_000_000))
    assert time.perf_counter() - begun < 5


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("first\n  last \n\n", "last"),
        ("Fatal Python error: why\n\nCurrent thread 0x0 (most recent call first):\n  <no Python frame>\n", None),
        (
            "Fatal Python error: why\n\nThread 0x0 (most recent call first):\n  File\n\nCurrent thread 0x1:\n  File",
            None,
        ),
        ("x" * 1000, "x" * 200),
        (" \n", ""),
    ],
)
def test_the_last_line_is_above_the_stacks(text, expected):
    """Of what a program said before it died."""
    assert last_line(text) == ("Fatal Python error: why" if expected is None else expected)
