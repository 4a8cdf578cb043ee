"""The record of a cell: one table of columns, and the rule that a failure carries no number.

`COLUMNS` is the only place that names a column; docs/columns.md and the Parquet schema are made from it. Columns
may be added; renaming or dropping one needs a new SCHEMA_VERSION.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from attnsweep.errors import RecordError, Status

SCHEMA_VERSION = 1

#: Version of how times are taken. Another one makes other cells, and rows of two are never pooled.
PROTOCOL = 4

#: Keys of a sample in the column `telemetry`.
TELEMETRY = ("time_s", "sm_clock_mhz", "mem_clock_mhz", "power_w", "temperature_c", "energy_mj")


@dataclass(frozen=True)
class Column:
    """One column of a record. `type` is one that parquet.arrow_schema knows; `unit` is empty where there is none."""

    name: str
    type: str
    unit: str
    meaning: str
    group: str


def _group(group: str, *rows: tuple[str, str, str, str]) -> tuple[Column, ...]:
    return tuple(Column(name, type_, unit, meaning, group) for name, type_, unit, meaning in rows)


COLUMNS: tuple[Column, ...] = (
    *_group(
        "identity",
        ("schema_version", "int", "", "version of this table of columns"),
        ("sweep", "str", "", "name of the sweep, its folder below output_dir"),
        ("cell_id", "str", "", "impl-compile-case-replicate-hash; the record's file name"),
        (
            "measurement",
            "str",
            "",
            "8 hex of what was measured: all that makes a cell but timing preset and replicate; never pooled over two",
        ),
        ("replicate", "int", "", "number of the process among equal ones, from 0"),
        ("impl", "str", "", "name of the implementation"),
        ("variant", "str", "", "fields of the implementation overridden in this run, else empty"),
        ("layout", "str", "", "memory layout the implementation is given: bshd or bhsd"),
        ("impl_version", "str", "", "version of the distribution that provides it"),
        ("distribution", "str", "", "Python distribution that provides the implementation"),
        ("compile", "str", "", "eager, a mode of torch.compile, or jit, which is JAX's; with its overridden fields"),
        ("timing", "str", "", "name of the timing preset, with its overridden fields"),
        ("protocol", "int", "", "version of how times are taken (docs/measurement.md); null is 1"),
        ("cache", "str", "", "state of the L2 cache before each call: cold or hot; on a CPU always hot"),
        ("scenario", "str", "", "name of the scenario"),
        ("axis", "str", "", "the scenario's field that plots put on their axis"),
        ("axis_value", "float", "", "value of that field in this cell"),
        ("study", "str", "", "name of the study, where the sweep was one"),
        ("config", "str", "", "the resolved cell as JSON"),
        ("command", "str", "", "how to run this one cell again"),
        ("attnsweep", "str", "", "version of attnsweep"),
    ),
    *_group(
        "case",
        ("case", "str", "", "short readable id of the case"),
        ("batch_size", "int", "", "sequences in the batch"),
        ("q_len", "int", "tokens", "queries of each sequence"),
        ("kv_len", "int", "tokens", "keys and values of each sequence"),
        ("num_heads", "int", "", "query heads"),
        ("num_kv_heads", "int", "", "key/value heads"),
        ("head_dim", "int", "", "size of a query or key vector"),
        ("head_dim_v", "int", "", "size of a value vector"),
        ("causal", "bool", "", "causal mask, aligned bottom-right"),
        ("window", "ints", "tokens", "[left, right] window, -1 unbounded; null for none"),
        ("bias", "str", "", "additive bias: none or dense"),
        ("dtype", "str", "", "element type of q, k, v and the output"),
        ("direction", "str", "", "fwd, bwd or fwd_bwd"),
    ),
    *_group(
        "outcome",
        ("status", "str", "", "how the cell ended; only ok carries a latency"),
        ("reason", "str", "", "why, in a sentence, for every status but ok"),
        ("traceback", "str", "", "traceback or last lines of the log of a failure"),
        ("exit_signal", "str", "", "name of the signal that ended the process"),
        ("started_at", "str", "", "when the cell was requested, ISO 8601, UTC"),
        ("wall_s", "float", "s", "from the pool's request to the written record, less the look for foreign processes"),
        (
            "overhead_s",
            "float",
            "s",
            "wall_s less the stages import, inputs, prepare, check, proof, memory, timing",
        ),
        ("import_s", "float", "s", "importing the implementation's library in the cell"),
        ("inputs_s", "float", "s", "making the inputs"),
        ("prepare_s", "float", "s", "layout, planning, compilation and first calls"),
        ("check_s", "float", "s", "reference and comparison"),
        ("proof_s", "float", "s", "finding the names of the kernels that ran"),
        ("memory_s", "float", "s", "the call whose memory was measured"),
        ("timing_s", "float", "s", "warm-up and samples"),
        ("plan_s", "float", "s", "planning calls that a caller makes once for many calls"),
        ("first_call_s", "float", "s", "the first call, compilation included"),
        ("compile_s", "float", "s", "the first call of a compiled cell less a later one; null for eager"),
        ("autotune_s", "float", "s", "the part of compile_s in which the compiler timed candidates; null for eager"),
        ("compile_cache", "str", "", "whether the compiler's disk cache answered: hit, miss, or null"),
    ),
    *_group(
        "latency",
        ("timer", "str", "", "primary timer of the case: events, graph, kernel or host"),
        ("latency_ms", "float", "ms", "median of the burst regime, by `timer`; on a CPU of all samples"),
        ("latency_ci_low_ms", "float", "ms", "lower end of the 95 % confidence interval of the median"),
        ("latency_ci_high_ms", "float", "ms", "upper end of the 95 % confidence interval of the median"),
        ("p10_ms", "float", "ms", "10th percentile of the samples"),
        ("p90_ms", "float", "ms", "90th percentile of the samples"),
        ("stop_reason", "str", "", "why sampling ended: interval (narrow enough), time or samples (the cap)"),
        ("samples_ms", "floats", "ms", "every sample, in order"),
        ("sample_start_s", "floats", "s", "when each sample was issued, since timing began"),
        ("sample_block", "ints", "", "number of the block each sample belongs to; -1 before the blocks settled"),
        ("settle_s", "float", "s", "from the first block to the first that counts"),
        (
            "block_clock_mhz",
            "floats",
            "MHz",
            "SM clock during each block, settling included, by the GPU's own counters",
        ),
        ("events_ms", "float", "ms", "median by CUDA events around each call; null where not measured"),
        ("graph_ms", "float", "ms", "per call in a CUDA graph; null where not measured"),
        ("kernel_ms", "float", "ms", "busy time of the cell's own kernels; null where not measured"),
        ("host_ms", "float", "ms", "wall clock of one call with synchronisation"),
        ("sustained_ms", "float", "ms", "mean per call under continuous load, once steady; null where not measured"),
        ("sustained_ci_low_ms", "float", "ms", "lower end of its 95 % confidence interval"),
        ("sustained_ci_high_ms", "float", "ms", "upper end of its 95 % confidence interval"),
        ("sustained_stop_reason", "str", "", "why the load ended: steady, or time (the cap)"),
        (
            "sustained_samples_ms",
            "floats",
            "ms",
            "every sample under load, each a mean over back-to-back calls of 1 ms",
        ),
        ("sustained_start_s", "floats", "s", "when each of them began on the device, since the load began"),
        (
            "sustained_clock_mhz",
            "floats",
            "MHz",
            "SM clock of successive stretches of the load, by the GPU's own counters",
        ),
        ("sustained_clock_start_s", "floats", "s", "when each stretch began, since the load began"),
    ),
    *_group(
        "rates",
        ("flops", "float", "FLOP", "floating-point operations of the exact visible pairs"),
        ("bytes", "float", "B", "compulsory bytes: every tensor once"),
        ("tflops", "float", "TFLOP/s", "flops / latency"),
        ("gb_per_s", "float", "GB/s", "bytes / latency"),
        ("tokens_per_s", "float", "1/s", "query tokens / latency"),
        ("peak_fraction", "float", "", "fraction of the bounding datasheet peak; null for an unknown device"),
        ("peak_fraction_at_clock", "float", "", "the same, arithmetic at burst_clock_mhz (else sm_clock_mhz)"),
        ("bound", "str", "", "what bounds the case on this device: compute or memory"),
    ),
    *_group(
        "correctness",
        ("max_abs_err", "float", "", "largest absolute error against the reference"),
        ("mae", "float", "", "mean absolute error"),
        ("mse", "float", "", "mean squared error"),
        ("rel_l2", "float", "", "norm of the error / norm of the reference"),
        ("cosine", "float", "", "cosine between output and reference"),
        ("rel_l1", "float", "", "mean absolute error / mean absolute value of the reference"),
        ("err_ratio", "float", "", "largest error of the output / the plain formula's in the case's own dtype"),
        ("grad_err_ratio", "float", "", "the same for the gradients, the worst of them; null for a forward pass"),
        ("precision_class", "str", "", "native, or the quantised class that the implementation declares"),
        ("check", "str", "", "passed, failed, or skipped and why"),
    ),
    *_group(
        "memory",
        ("peak_memory_bytes", "int", "B", "peak device memory of one call, inputs included"),
        ("output_bytes", "int", "B", "size of the outputs"),
        ("workspace_bytes", "int", "B", "peak memory of one call beyond inputs and outputs"),
    ),
    *_group(
        "machine",
        ("device", "str", "", "cuda or cpu"),
        ("device_name", "str", "", "the GPU's name, or the CPU's model"),
        ("hostname", "str", "", "name of the host"),
        ("gpu_name", "str", "", "name of the GPU"),
        ("gpu_uuid", "str", "", "UUID of the GPU"),
        (
            "other_gpus_in_use",
            "int",
            "",
            "other GPUs of the host, of those that NVML shows, with a CUDA process when the cell began or ended; null "
            "where that cannot be told",
        ),
        ("sm_count", "int", "", "streaming multiprocessors"),
        ("driver", "str", "", "version of the NVIDIA driver"),
        ("cuda", "str", "", "version of CUDA that the framework was built with"),
        ("cudnn", "str", "", "version of cuDNN"),
        ("torch", "str", "", "version of torch"),
        ("triton", "str", "", "version of triton"),
        ("jax", "str", "", "version of jax"),
        ("jaxlib", "str", "", "version of jaxlib"),
        ("python", "str", "", "version of the cell's Python"),
        (
            "sm_clock_mhz",
            "float",
            "MHz",
            "median SM clock that NVML read during sampling, rests included",
        ),
        ("burst_clock_mhz", "float", "MHz", "median SM clock of the blocks that count, by the GPU's own counters"),
        ("load_clock_mhz", "float", "MHz", "SM clock of the steady load, by the GPU's own counters"),
        ("load_power_w", "float", "W", "mean power under the steady load; null where not measured"),
        ("load_throttle", "strs", "", "throttle reasons seen under the steady load"),
        ("mem_clock_mhz", "float", "MHz", "median memory clock while samples were taken"),
        (
            "power_w",
            "float",
            "W",
            "mean power that NVML read during sampling, rests included",
        ),
        ("power_limit_w", "float", "W", "enforced power limit"),
        (
            "energy_mj",
            "float",
            "mJ",
            "sustained_ms times the mean power under the steady load, by NVML's energy counter; by load_power_w where "
            "that moved less than twice; null where not measured",
        ),
        ("temperature_c", "float", "C", "highest GPU temperature while samples were taken"),
        ("throttle", "strs", "", "throttle reasons seen while samples were taken"),
        (
            "telemetry",
            "telemetry",
            "",
            "NVML samples: time_s, sm_clock_mhz, mem_clock_mhz, power_w, temperature_c, energy_mj (counts up)",
        ),
    ),
    *_group(
        "proof",
        (
            "kernel_names",
            "strs",
            "",
            "GPU kernels that ran in one call, on a CPU operators that never should; null where none could be seen",
        ),
        (
            "kernel_count",
            "int",
            "",
            "how many kernels, copies and fills one call ran; null where they could not be seen",
        ),
        ("unproven_reason", "str", "", "why the flags say unproven, in a sentence; null where they do not"),
        (
            "autotuned_configs",
            "strs",
            "",
            "each kernel that Triton's autotuner tuned or Inductor's ran, with the last configuration; null for none",
        ),
        ("flags", "strs", "", "what a reader should know: throttled, fallback, unproven, long_call, ..."),
    ),
)

NAMES: tuple[str, ...] = tuple(column.name for column in COLUMNS)
_BY_NAME = {column.name: column for column in COLUMNS}

#: Columns that only a status of ok may carry: latency and everything computed from it.
MEASURED: frozenset[str] = frozenset(
    column.name for column in COLUMNS if column.group == "latency" and column.name != "timer"
) | {
    "tflops",
    "gb_per_s",
    "tokens_per_s",
    "peak_fraction",
    "peak_fraction_at_clock",
    "energy_mj",
    "load_clock_mhz",
    "load_power_w",
}


@dataclass(frozen=True)
class Record:
    """One row: `values` maps every column of COLUMNS to a value or None.

    Raises RecordError for an unknown column, a value of the wrong type, a failure that carries a latency, a
    success without one, or a failure without a reason.
    """

    values: dict[str, Any]

    def __post_init__(self) -> None:
        unknown = sorted(set(self.values) - set(NAMES))
        if unknown:
            raise RecordError(f"no such column: {', '.join(unknown)}")
        values = {name: self.values.get(name) for name in NAMES}
        values["schema_version"] = SCHEMA_VERSION
        for name, value in values.items():
            values[name] = _checked(_BY_NAME[name], value)
        object.__setattr__(self, "values", values)
        try:
            status = Status(values["status"])
        except ValueError:
            raise RecordError(f"no such status: {values['status']!r}") from None
        if status is Status.OK:
            latency = values["latency_ms"]
            if latency is None or not latency > 0:
                raise RecordError(f"{values['cell_id']}: status ok needs a positive latency_ms, not {latency!r}")
            return
        carried = sorted(name for name in MEASURED if values[name] is not None)
        if carried:
            raise RecordError(f"{values['cell_id']}: status {status} may not carry {', '.join(carried)}")
        if not values["reason"]:
            raise RecordError(f"{values['cell_id']}: status {status} needs a reason")

    @property
    def status(self) -> Status:
        """How the cell ended."""
        return Status(self.values["status"])


_PYTHON: dict[str, tuple[type[Any], ...]] = {"int": (int,), "float": (int, float), "str": (str,), "bool": (bool,)}


def _checked(column: Column, value: Any) -> Any:
    """The value as its column holds it; non-finite numbers become None, text is made valid UTF-8."""
    if value is None:
        return None
    if column.type in ("ints", "floats", "strs"):
        if not isinstance(value, (list, tuple)):
            raise RecordError(f"{column.name} must be a list, not {value!r}")
        element = Column(column.name, column.type[:-1], column.unit, column.meaning, column.group)
        return [_checked(element, one) for one in value]
    if column.type == "telemetry":
        return [{key: None if one.get(key) is None else float(one[key]) for key in TELEMETRY} for one in value]
    if not isinstance(value, _PYTHON[column.type]) or (isinstance(value, bool) and column.type != "bool"):
        raise RecordError(f"{column.name} must be of type {column.type}, not {value!r}")
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode("utf-8")
    if column.type == "float":
        number = float(value)
        return number if math.isfinite(number) else None
    return value


def columns_markdown() -> str:
    """docs/columns.md: the table of columns for readers."""
    lines = [
        "# Columns of a record",
        "",
        f"Schema version {SCHEMA_VERSION}. Made from `attnsweep/records.py` by `make docs`; a test compares the two.",
        "One Parquet file a cell; `results.parquet` holds the same columns, one row a cell.",
    ]
    for group in dict.fromkeys(column.group for column in COLUMNS):
        lines += ["", f"## {group}", "", "| column | type | unit | meaning |", "|---|---|---|---|"]
        lines += [
            f"| `{column.name}` | {column.type} | {column.unit} | {column.meaning} |"
            for column in COLUMNS
            if column.group == group
        ]
    return "\n".join(lines) + "\n"
