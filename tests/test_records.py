"""A record refuses what contradicts its status, and comes back from Parquet as it went in."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from attnsweep import records
from attnsweep.errors import RecordError, Status
from attnsweep.records import COLUMNS, MEASURED, NAMES, TELEMETRY, Record

FAILED = [status for status in Status if status is not Status.OK]

#: A value that fits each type of column.
EXAMPLES: dict[str, Any] = {
    "int": 3,
    "float": 0.5,
    "str": "text",
    "bool": True,
    "ints": [1, -1],
    "floats": [0.5, 1.5],
    "strs": ["a", "b"],
    "telemetry": [dict.fromkeys(TELEMETRY, 1.0)],
}


def ok(**changed: object) -> Record:
    return Record({"cell_id": "c", "status": "ok", "latency_ms": 0.4, **changed})


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


def test_every_column_survives_parquet(tmp_path: Path) -> None:
    """A full record comes back value by value, and so does one with the fewest."""
    full = ok(**{one.name: EXAMPLES[one.type] for one in COLUMNS if one.name not in ("status", "schema_version")})
    bare = Record({"status": "crashed", "reason": "died of SIGSEGV"})
    full.write(tmp_path / "full.parquet")
    bare.write(tmp_path / "bare.parquet")
    table = records.read([tmp_path / "full.parquet", tmp_path / "bare.parquet"])
    assert table.schema == records.arrow_schema()
    assert table.to_pylist() == [full.values, bare.values]
    assert bare.values["schema_version"] == records.SCHEMA_VERSION


def test_text_that_is_no_unicode_is_kept_readable(tmp_path: Path) -> None:
    """A lone surrogate, as a file name may hold, does not lose the record."""
    Record({"status": "error", "reason": "no \udcff file \x1b[31m"}).write(tmp_path / "r.parquet")
    assert records.read([tmp_path / "r.parquet"])["reason"].to_pylist() == ["no ? file \x1b[31m"]


def test_a_record_replaces_another_whole_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    """Readers see the old record or the new one; no temporary file stays."""
    path = tmp_path / "r.parquet"
    Record({"status": "crashed", "reason": "first"}).write(path)
    ok(reason=None).write(path)
    assert records.read([path])["status"].to_pylist() == ["ok"]
    assert os.listdir(tmp_path) == ["r.parquet"]


def test_a_record_that_cannot_be_written_leaves_the_old_one(tmp_path: Path, monkeypatch: Any) -> None:
    """A full disk in the middle of writing costs the new record only."""
    path = tmp_path / "r.parquet"
    ok().write(path)

    def full(table: object, where: Path, **options: object) -> None:
        Path(where).write_bytes(b"PAR1")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pq, "write_table", full)
    with pytest.raises(OSError, match="No space"):
        Record({"status": "crashed", "reason": "second"}).write(path)
    monkeypatch.undo()
    assert records.read([path])["status"].to_pylist() == ["ok"]
    assert os.listdir(tmp_path) == ["r.parquet"]


def test_an_older_file_is_read_with_null_for_what_it_lacks(tmp_path: Path) -> None:
    """A column added since is null; the order and types are today's."""
    ok(impl="fa2", flags=["throttled"]).write(tmp_path / "new.parquet")
    table = pq.read_table(tmp_path / "new.parquet").drop_columns(["flags", "sample_block"])
    pq.write_table(table, tmp_path / "old.parquet")
    old = records.read([tmp_path / "old.parquet"])
    assert old.schema == records.arrow_schema()
    assert old["flags"].to_pylist() == [None]
    assert old["impl"].to_pylist() == ["fa2"]


def test_a_newer_files_columns_are_left_out_and_a_newer_schema_is_refused(tmp_path: Path) -> None:
    """An added column does not stop an older attnsweep; a new schema version does, by number."""
    ok().write(tmp_path / "r.parquet")
    table = pq.read_table(tmp_path / "r.parquet")
    pq.write_table(table.append_column("later", pa.array([1])), tmp_path / "added.parquet")
    assert "later" not in records.read([tmp_path / "added.parquet"]).column_names
    index = table.column_names.index("schema_version")
    newer = table.set_column(index, "schema_version", pa.array([records.SCHEMA_VERSION + 1]))
    pq.write_table(newer, tmp_path / "newer.parquet")
    with pytest.raises(RecordError, match=f"schema version {records.SCHEMA_VERSION + 1}"):
        records.read([tmp_path / "newer.parquet"])


def test_a_file_that_is_no_record_is_refused_by_its_path(tmp_path: Path) -> None:
    """Cut short, not Parquet, or Parquet of something else."""
    (tmp_path / "cut.parquet").write_bytes(b"PAR1")
    (tmp_path / "empty.parquet").write_bytes(b"")
    pq.write_table(pa.table({"x": [1]}), tmp_path / "other.parquet")
    for name in ("cut", "empty", "other", "absent"):
        with pytest.raises(RecordError, match=f"{name}.parquet"):
            records.read([tmp_path / f"{name}.parquet"])


def test_a_flipped_bit_is_not_read_as_another_number(tmp_path: Path) -> None:
    """The file is refused, wherever in the numbers it is; a few bits of the pages' headers alone have no checksum."""
    path = tmp_path / "c.parquet"
    samples = [0.1 * number for number in range(500)]
    ok(samples_ms=samples).write(path)
    good = path.read_bytes()
    pages = len(good) - 8 - int.from_bytes(good[-8:-4], "little")
    refused = wrong = 0
    for at in range(4, pages, 11):
        path.write_bytes(good[:at] + bytes([good[at] ^ 1 << at % 8]) + good[at + 1 :])
        try:
            wrong += records.read([path])["samples_ms"].to_pylist() != [samples]
        except RecordError:
            refused += 1
    assert refused > 100 * wrong


def test_no_paths_make_an_empty_table() -> None:
    """The schema stands without rows."""
    assert records.read([]).schema == records.arrow_schema()
    assert records.read([]).num_rows == 0


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
