"""What JAX's exceptions mean for a cell, and the one that says a device is full."""

from __future__ import annotations

import jax

from attnsweep.errors import Status, first_line

#: What JAX, its Pallas kernels, XLA and cuDNN say, at the call, of a case that they cannot do, by the exception raised:
#: none of them has one of its own for that. What is worded otherwise is for the worker, an error in its own words.
REFUSALS: dict[type[Exception], tuple[str, ...]] = {
    ValueError: (  # in 0.10.2, where a test looks them up; the first and the last also in 0.4.37
        "exceeds available shared memory",
        "not supported with cuda versions",
        "is not supported by dot_general on",
    ),
    jax.errors.JaxRuntimeError: (
        "no supported engine for the graph",  # cuDNN, as XLA has it since 0.11, and before
        "No execution plans support the graph",
        "Unsupported dot precision algorithm",  # XLA, of fp16 and one query: a product of one row
    ),
}


class OutOfMemory(Exception):
    """The device has no room for an array of ours."""


class Room:
    """Makes of JAX's error, in a block, that the device's memory does not suffice an OutOfMemory."""

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is not None and _out_of_memory(error):
            raise OutOfMemory(first_line(str(error))) from error


ROOM = Room()


def status_of(error: BaseException) -> tuple[Status, str] | None:
    """The status that an exception means, with a reason; None for one that is not JAX's to explain."""
    text = str(error)
    if isinstance(error, OutOfMemory) or _out_of_memory(error):
        return Status.OOM, first_line(text)
    if isinstance(error, NotImplementedError):  # JAX's, or that of a library above it: its traceback does not tell
        return Status.UNSUPPORTED, f"not implemented: {first_line(text)}"
    said = [refusal for kind, refusals in REFUSALS.items() if isinstance(error, kind) for refusal in refusals]
    if _coded(error, "UNIMPLEMENTED") or any(refusal in text for refusal in said):
        return Status.UNSUPPORTED, f"JAX: {first_line(text)}"
    return None


def _out_of_memory(error: BaseException) -> bool:
    return _coded(error, "RESOURCE_EXHAUSTED")


def _coded(error: BaseException, code: str) -> bool:
    """Whether XLA ended with this code, whose name begins what it says; jaxlib 0.5.3 has no `error_code` yet."""
    return isinstance(error, jax.errors.JaxRuntimeError) and str(error).startswith(code)
