"""A record refuses what contradicts its status, and its columns are told from one table."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from attnsweep import records
from attnsweep.errors import RecordError, Status
from attnsweep.records import COLUMNS, MEASURED, NAMES, Record
from example_records import EXAMPLES, ok

FAILED = [status for status in Status if status is not Status.OK]


def test_a_success_needs_a_positive_latency() -> None:
    """None, zero, negative and not-a-number are no latencies."""
    assert ok().status is Status.OK
    for latency in (None, 0.0, -1.0, math.nan, math.inf):
        with pytest.raises(RecordError, match="latency_ms"):
            ok(latency_ms=latency)


@pytest.mark.parametrize("status", FAILED)
@pytest.mark.parametrize("column", sorted(MEASURED))
def test_a_failure_may_not_carry_a_number(status: Status, column: str) -> None:
    """No status but ok goes with a latency or anything computed from one."""
    kind = next(one.type for one in COLUMNS if one.name == column)
    with pytest.raises(RecordError, match=column):
        Record({"status": status.value, "reason": "why", column: EXAMPLES[kind]})


@pytest.mark.parametrize("status", FAILED)
def test_a_failure_needs_a_reason_and_may_carry_the_rest(status: Status) -> None:
    """What was learned before the failure stays: errors, versions, stages."""
    with pytest.raises(RecordError, match="reason"):
        Record({"status": status.value})
    with pytest.raises(RecordError, match="reason"):
        Record({"status": status.value, "reason": ""})
    rest = {one.name: EXAMPLES[one.type] for one in COLUMNS if one.name not in {*MEASURED, "status"}}
    assert Record({**rest, "status": status.value}).status is status


def test_latency_rates_and_energy_are_what_only_a_success_carries() -> None:
    """The columns that the report ranks by are all among them; what costs nothing to know is not."""
    assert {"latency_ms", "samples_ms", "kernel_ms", "tflops", "gb_per_s", "peak_fraction"} <= MEASURED
    assert not {"timer", "flops", "bytes", "max_abs_err", "peak_memory_bytes", "wall_s"} & MEASURED


@pytest.mark.parametrize("status", [None, "", "OK", "fine", 1])
def test_an_unknown_status_is_refused(status: object) -> None:
    """Only the words of Status."""
    with pytest.raises(RecordError):
        Record({"status": status, "reason": "why"})


def test_an_unknown_column_is_refused_by_name() -> None:
    """A typo cannot become a lost number."""
    with pytest.raises(RecordError, match="latency_us"):
        ok(latency_us=400.0)


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("q_len", 1.5),
        ("q_len", True),
        ("q_len", "1"),
        ("causal", 1),
        ("impl", 3),
        ("wall_s", "1"),
        ("wall_s", True),
        ("samples_ms", 0.4),
        ("samples_ms", ["0.4"]),
        ("flags", "throttled"),
    ],
)
def test_a_value_of_the_wrong_type_is_refused(column: str, value: object) -> None:
    """Nothing is converted on the way to Parquet but a whole number to a float."""
    with pytest.raises(RecordError, match=column):
        ok(**{column: value})


def test_numbers_that_are_none_become_none() -> None:
    """NaN and infinity are no values of a column."""
    values = ok(rel_l2=math.nan, max_abs_err=math.inf, samples_ms=[0.4, math.nan]).values
    assert values["rel_l2"] is None
    assert values["max_abs_err"] is None
    assert values["samples_ms"] == [0.4, None]


def test_the_table_of_columns_names_each_once_and_explains_it() -> None:
    """Unique snake-case names, known types, a meaning for each."""
    assert len(set(NAMES)) == len(NAMES)
    for column in COLUMNS:
        assert column.name.isidentifier()
        assert column.name == column.name.lower()
        assert column.meaning
        assert column.type in EXAMPLES


def test_the_promised_columns_are_there() -> None:
    """Columns may be added, never renamed: those of the first version stay."""
    promised = """
        schema_version sweep cell_id replicate impl variant layout impl_version distribution compile timing cache
        scenario axis study config command attnsweep case batch_size q_len kv_len num_heads num_kv_heads head_dim
        head_dim_v causal window bias dtype direction status reason traceback exit_signal started_at wall_s
        overhead_s import_s plan_s first_call_s compile_s compile_cache timer latency_ms latency_ci_low_ms
        latency_ci_high_ms p10_ms p90_ms stop_reason samples_ms sample_start_s sustained_ms kernel_ms graph_ms
        host_ms flops bytes tflops gb_per_s tokens_per_s peak_fraction peak_fraction_at_clock bound max_abs_err mae
        mse rel_l2 cosine err_ratio precision_class check peak_memory_bytes output_bytes workspace_bytes device
        hostname gpu_name gpu_uuid sm_count driver cuda cudnn torch triton python sm_clock_mhz mem_clock_mhz power_w
        power_limit_w energy_mj temperature_c throttle telemetry kernel_names flags
    """
    assert set(promised.split()) <= set(NAMES)


def test_the_document_of_columns_is_made_from_the_table() -> None:
    """docs/columns.md is what columns_markdown() says, and names every column."""
    text = (Path(__file__).parents[1] / "docs" / "columns.md").read_text()
    assert text == records.columns_markdown()
    assert all(f"`{name}`" in text for name in NAMES)
