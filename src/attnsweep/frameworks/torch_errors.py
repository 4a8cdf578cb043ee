"""What the exceptions of PyTorch, its compilers and the libraries above it mean for a cell."""

from __future__ import annotations

import re

import torch

from attnsweep.errors import Status, first_line, said

#: What libraries say, at the call, of a case that they cannot do.
_REFUSALS = {
    "PyTorch": ("No available kernel", "No viable backend for scaled_dot_product_attention"),
    "xFormers": ("No operator found for", "does not support inputs:"),
    "Transformer Engine": ("No dot product attention backend is available",),
    "FlashAttention 4": (") is not supported on SM",),
}

#: What Triton, and Inductor's launcher in its place (with the kernel's name), says where a kernel's tiles do not fit a
#: multiprocessor. More threads than its registers allow, which they also call out of resource, is another matter.
_NO_ROOM = re.compile(
    r"out of resource: (?:shared memory,|(tensor) memory,|\w+) Required: (\d+),? Hardware limit: ?(\d+)"
)

#: How Dynamo ends the line of the operator, with all its arguments, that it could not trace: what that raised.
_RAISED = re.compile(r": got \w+\((['\"])(.*)\1\)$", re.MULTILINE)


def status_of(error: BaseException) -> tuple[Status, str] | None:
    """The status that an exception means, with a reason; None for one that says nothing of PyTorch or a library."""
    text = said(error)
    full = _NO_ROOM.search(text)
    if full is not None:  # before what is out of memory: Inductor's launcher raises torch's own exception for that
        what = f"{full[2]} {'columns of tensor' if full[1] else 'bytes of shared'} memory, and there are {full[3]}"
        return Status.UNSUPPORTED, f"Triton: a kernel's tiles take {what}: smaller ones may fit"
    if isinstance(error, torch.OutOfMemoryError) or "DefaultCPUAllocator: can't allocate memory" in text:
        return Status.OOM, first_line(text)
    for library, refusals in _REFUSALS.items():
        if any(refusal in text for refusal in refusals):
            return Status.UNSUPPORTED, f"{library}: {first_line(text)}"
    modules = [cls.__module__ for cls in type(error).__mro__]
    if any(module.startswith(("torch._dynamo", "torch._inductor", "triton.")) for module in modules):
        inner = getattr(error, "inner_exception", None)
        if isinstance(inner, torch.OutOfMemoryError):
            return Status.OOM, first_line(str(inner))
        return Status.COMPILE_ERROR, _compiler_says(type(error).__name__, text)
    return None


def _compiler_says(kind: str, text: str) -> str:
    """One sentence of Dynamo's or Inductor's many lines: which guard failed, or why a graph broke."""
    lines = [line.strip() for line in text.splitlines()]
    guards = [line.split("#")[0].strip("- ") for line in lines if line.startswith("- ")]
    why = [line.removeprefix("Explanation:").strip() for line in lines if line.startswith("Explanation:")]
    if kind == "RecompileError":
        return f"a call after the warm ones was compiled again, because a guard failed: {'; '.join(guards[:1])}"
    if kind in ("FailOnRecompileLimitHit", "FailOnCacheLimitHit"):  # torch 2.6 has the latter
        return "it was compiled again and again, up to torch.compile's limit, and would run eagerly from there on"
    if kind == "Unsupported":
        return f"graph break: {': '.join([first_line(text), *why[:1]])}"
    raised = _RAISED.search(text)
    cause = [] if raised is None else [first_line(raised[2].replace("\\n", "\n"))]
    return ": ".join([kind, first_line(text), *cause])
