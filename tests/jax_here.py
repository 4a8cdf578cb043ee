"""What runs in a process that has JAX up: its threads would spoil the other tests' forks. Functions of plain values."""

import importlib
import math
import os
import sys
import types
import warnings
from pathlib import Path
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np

from attnsweep import check, errors, impls, inputs, reference, worker
from attnsweep.case import Case
from attnsweep.frameworks import jax as framework
from attnsweep.frameworks import jax_errors, jax_programs

CASE = {
    "batch_size": 2,
    "q_len": 24,
    "kv_len": 24,
    "num_heads": 4,
    "num_kv_heads": 2,
    "head_dim": 16,
    "head_dim_v": 16,
    "dtype": "fp32",
}
CPU = {"kind": "cpu", "uuid": "cpu", "name": "test"}
OPTIONS = {"enabled": True, "forward_factor": 2.0, "backward_factor": 3.0}


def fw(device=CPU):
    """The framework, up."""
    loaded = framework.load(device)
    loaded.synchronize()
    return loaded


# implementations, as FunctionAttention calls them


def sees_all(q, k, v, scale):
    """No mask, whatever the case asks for."""
    return jax.nn.dot_product_attention(q, k, v, scale=scale, implementation="xla")


def top_left(q, k, v, scale):
    """Causal as JAX means it."""
    return jax.nn.dot_product_attention(q, k, v, scale=scale, is_causal=True, implementation="xla")


def remembers(q, k, v, scale, kept=[]):  # noqa: B006 - what it is for
    """The first result, for ever."""
    if not kept:
        kept.append(sees_all(q, k, v, scale))
    return kept[0]


def cannot(q, k, v, scale):
    """As JAX's libraries say it."""
    raise NotImplementedError("the head dim must be prime")


# what tests ask


def outcome(cell):
    """A cell's outcome."""
    return worker.run(cell, lambda event: None)


def bits(shape, dtype):
    """The inputs' bits, as integers, and whether anything in them is 64 bits wide."""
    x = inputs.near_normal(fw(), shape, dtype, seed=7, tensor="q")
    return np.asarray(x).view({2: np.int16, 4: np.int32}[x.dtype.itemsize])


def answers(values):
    """The array functions on fp32 values, (2, 3, 4)."""
    here, x = fw(), jnp.asarray(values)
    broken = x.at[0, 1, 2].set(jnp.nan)
    return {
        "max_abs": here.max_abs(x),
        "max_abs of NaN": math.isnan(here.max_abs(broken)),
        "max_abs_rows": here.max_abs_rows(x),
        "total": here.total(jnp.full(10**6, 0.1, jnp.float32)),
        "nonfinite": here.count_nonfinite(broken),
        "swap": np.asarray(here.swap(x, 0, 1)),
        "matmul": np.asarray(here.matmul(x, here.swap(x, 1, 2))),
        "softmax": np.asarray(here.softmax(x)),
        "softmax fp16": np.asarray(here.softmax(here.cast(x, "fp16"))),
        "dtypes": [here.dtype_name(here.cast(x, name)) for name in ("fp16", "bf16", "fp32")],
        "integers": here.dtype_name(here.arange(2**31 - 3, 8)),
        "wrapped": np.asarray(here.arange(2**31 - 3, 8)),
        "nbytes": here.nbytes((x, here.cast(x, "fp16"))),
        "equal": (here.equal(x, here.copy(x)), here.equal(x, broken)),
        "copied": here.copy(x).unsafe_buffer_pointer() != x.unsafe_buffer_pointer(),
        "where": np.asarray(here.where(x > 0, x, -math.inf)),
    }


def exact_reference(fields):
    """The fp64 results of a case, and whether fp64 exists outside `exact`."""
    here, case = fw(), Case(**fields)
    given = inputs.make(here, case, 0, "bhsd")
    with here.exact():
        results = [np.asarray(one) for one in reference.compute(here, case, given, "fp64")]
    return results, jax.config.jax_enable_x64, jnp.arange(3).dtype.name


def verified(fields, factor):
    """The check of the plain formula in the case's dtype, its first result multiplied by `factor`."""
    here, case = fw(), Case(**fields)
    given = inputs.make(here, case, 0, "bhsd")
    first, *others = reference.compute(here, case, given, case.dtype)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # as JAX does of an fp64 that it does not have
        try:
            return check.verify(here, case, given, lambda: (first * factor, *others), OPTIONS)["check"]
        except errors.Incorrect as error:
            return str(error)


def compiled_once():
    """Programs compiled by three calls and by a second one on other inputs; what other shapes come to; its bytes."""
    here = fw()
    given, other = (inputs.make(here, Case(**CASE), seed, "bshd") for seed in (0, 1))
    compiled = here.compile(lambda q, k, v: q * 2 + (k * v).sum(), {"mode": "jit"}, "tag")
    first, second = (here.differentiate(compiled, one, "fwd") for one in (given, other))
    counts = [here.compilations()["xla"]]
    for call in (first, first, second):
        call()
        counts.append(here.compilations()["xla"])
    on_cpu, here.on_gpu = here.peak_memory(first), True
    peak, eager = here.peak_memory(first), here.peak_memory(here.differentiate(lambda q, k, v: q, given, "fwd"))
    here.on_gpu = False
    inputs.replace(here, given, other, "fwd")
    follows = here.equal(first()[0], second()[0])
    given.q = given.q[:, :8]
    try:
        first()
    except TypeError as error:
        return counts, (on_cpu, peak, eager), follows, str(error)
    return counts, (on_cpu, peak, eager), follows, "it was compiled again"


def completions():
    """Whether a completion is reached before and after it is waited for, and ms between two."""
    here = fw()
    given = inputs.make(here, Case(**CASE), 0, "bshd")
    call = here.differentiate(here.compile(lambda q, k, v: q * 2, {"mode": "jit"}, ""), given, "fwd")
    call()
    here.synchronize()
    before, after = here.event(), here.event()
    before.record()
    before.wait()
    call()
    after.record()
    after.wait()
    return after.reached(), before.ms_until(after)


def asked(impl, fields):
    """What an implementation asks of jax.nn.dot_product_attention: the mask, the keywords, the precision."""
    case, seen = Case(**fields), []

    def recorder(q, k, v, bias, mask, **keywords):
        seen.append((mask if mask is None else np.asarray(mask), keywords, jax.config.jax_default_matmul_precision))

    with mock.patch.object(jax.nn, "dot_product_attention", recorder):
        impls.build(impl).prepare(case, "cpu")(None, None, None)
    return seen[0]


def lowered(impl, fields):
    """Mosaic's backward pass, traced and lowered for a GPU that is not here: None, or why JAX refuses."""
    case = Case(**fields)
    # It imports a logger and JAX's own tests, which it makes no use of; both need absl
    sys.modules.setdefault("absl", types.SimpleNamespace(logging=mock.Mock(vlog_is_on=lambda level: False)))
    sys.modules.setdefault("jax._src.test_util", types.ModuleType("test_util"))
    library = importlib.import_module("jax.experimental.pallas.ops.gpu.attention_mgpu")
    cuda = types.SimpleNamespace(cuda_runtime_get_version=lambda: 13000)
    length = {"q": case.q_len, "k": case.kv_len}
    heads = {"q": case.num_heads, "k": case.num_kv_heads}
    q, k = (jax.ShapeDtypeStruct((case.batch_size, length[x], heads[x], case.head_dim), jnp.float16) for x in "qk")

    def backward(q, k, v, gradient):
        return jax.vjp(call, q, k, v)[1](gradient)

    with mock.patch.object(library, "cuda_versions", cuda):
        call = impls.build(impl).prepare(case, "cuda")
        try:
            found = jax.jit(backward).trace(q, k, k, q).lower(lowering_platforms=("cuda",))
        except (ValueError, NotImplementedError) as error:
            return str(error)
    assert [one.shape for one in jax.tree.leaves(found.out_info)] == [q.shape, k.shape, k.shape]
    return None


def raises(error):
    raise error


def unsaid(files):
    """Of the words in which JAX itself refuses, those that are not looked up in `files`, or are not in their file."""
    ours = jax_errors.REFUSALS[ValueError]
    package = Path(jax.__file__).parent
    return [words for words in ours if words not in files or words not in (package / files[words]).read_text()]


def status(what):
    """What the framework makes of something that goes wrong."""
    here = fw()
    wrongs = {
        "memory": lambda: jax.block_until_ready(jnp.zeros(2**46, jnp.int8)),
        "no room for a copy": lambda: raises(jax_errors.OutOfMemory("no room")),
        "refusal": lambda: cannot(1, 2, 3, 4),
        "shared memory": lambda: raises(ValueError("Mosaic GPU kernel exceeds available shared memory: 9 > 8")),
        "CUDA's version": lambda: raises(ValueError("Causal masking not supported with cuda versions between")),
        "cuDNN": lambda: raises(
            jax.errors.JaxRuntimeError("INTERNAL: cuDNN reports no supported engine for the graph (head_dim)")
        ),
        "cuDNN before": lambda: raises(
            jax.errors.JaxRuntimeError("INTERNAL: [cudnn_frontend] Error: No execution plans support the graph.")
        ),
        "XLA": lambda: raises(jax.errors.JaxRuntimeError("UNIMPLEMENTED: no such collective")),
        "a precision": lambda: raises(
            jax.errors.JaxRuntimeError("INVALID_ARGUMENT: Unsupported dot precision algorithm: 4")
        ),
        "other words": lambda: raises(ValueError("the kernel's shared memory is not there")),
        "other words of cuDNN's": lambda: raises(jax.errors.JaxRuntimeError("INTERNAL: cuDNN found the graph odd")),
        "a stranger's": lambda: raises(RuntimeError("UNIMPLEMENTED: it exceeds available shared memory")),
        "bug": lambda: jnp.zeros(3) + jnp.zeros(4),
    }
    try:
        wrongs[what]()
    except (RuntimeError, TypeError, ValueError, jax_errors.OutOfMemory) as error:
        return here.status_of(error)
    return "nothing went wrong"


def no_room():
    """Whether a call for whose result there is no memory raises what the framework's `out_of_memory` says."""
    here = fw()
    given = inputs.make(here, Case(**CASE), 0, "bshd")
    call = here.differentiate(lambda q, k, v: jnp.zeros(2**46, jnp.int8), given, "fwd")
    after = here.event()
    try:
        call()
        after.record()
        after.wait()
    except here.out_of_memory:
        return True
    return False


def unplanned():
    """The bytes of a program whose plan XLA does not tell."""
    program = jax_programs.Program(lambda: None)
    program._compiled = mock.Mock(memory_analysis=lambda: None)
    return program.peak_bytes()


def set_up(users):
    """The fraction of the memory under both its names where the user has set `users`, and what XLA keeps on disk."""
    names = ("XLA_PYTHON_CLIENT_MEM_FRACTION", "XLA_CLIENT_MEM_FRACTION")
    with mock.patch.dict(os.environ):
        for name in names:
            os.environ.pop(name, None)
        os.environ.update(users)
        framework.load(CPU)
        return tuple(os.environ.get(name) for name in names), jax.config.jax_persistent_cache_enable_xla_caches


def missing_gpu():
    """What a cell for a GPU comes to in a JAX without CUDA."""
    loaded = framework.load({**CPU, "kind": "cuda"})
    try:
        loaded.synchronize()
    except errors.Missing as error:
        return str(error)
    finally:
        framework.load(CPU)
    return "it found a GPU"
