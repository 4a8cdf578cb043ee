"""A record comes back from its Parquet file as it went in, and a file that is none is refused."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from attnsweep import parquet
from attnsweep.errors import RecordError
from attnsweep.records import COLUMNS, SCHEMA_VERSION, Record
from attnsweep.report import load
from example_records import EXAMPLES, ok


def test_every_column_survives_parquet(tmp_path: Path) -> None:
    """A full record comes back value by value, and so does one with the fewest."""
    full = ok(**{one.name: EXAMPLES[one.type] for one in COLUMNS if one.name not in ("status", "schema_version")})
    bare = Record({"status": "crashed", "reason": "died of SIGSEGV"})
    parquet.write(full, tmp_path / "full.parquet")
    parquet.write(bare, tmp_path / "bare.parquet")
    table = parquet.read([tmp_path / "full.parquet", tmp_path / "bare.parquet"])
    assert table.schema == parquet.arrow_schema()
    assert table.to_pylist() == [full.values, bare.values]
    assert bare.values["schema_version"] == SCHEMA_VERSION


def test_text_that_is_no_unicode_is_kept_readable(tmp_path: Path) -> None:
    """A lone surrogate, as a file name may hold, does not lose the record."""
    parquet.write(Record({"status": "error", "reason": "no \udcff file \x1b[31m"}), tmp_path / "r.parquet")
    assert parquet.read([tmp_path / "r.parquet"])["reason"].to_pylist() == ["no ? file \x1b[31m"]


def test_a_record_replaces_another_whole_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    """Readers see the old record or the new one; no temporary file stays."""
    path = tmp_path / "r.parquet"
    parquet.write(Record({"status": "crashed", "reason": "first"}), path)
    parquet.write(ok(reason=None), path)
    assert parquet.read([path])["status"].to_pylist() == ["ok"]
    assert os.listdir(tmp_path) == ["r.parquet"]


def test_a_record_that_cannot_be_written_leaves_the_old_one(tmp_path: Path, monkeypatch: Any) -> None:
    """A full disk in the middle of writing costs the new record only."""
    path = tmp_path / "r.parquet"
    parquet.write(ok(), path)

    def full(table: object, where: Path, **options: object) -> None:
        Path(where).write_bytes(b"PAR1")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pq, "write_table", full)
    with pytest.raises(OSError, match="No space"):
        parquet.write(Record({"status": "crashed", "reason": "second"}), path)
    monkeypatch.undo()
    assert parquet.read([path])["status"].to_pylist() == ["ok"]
    assert os.listdir(tmp_path) == ["r.parquet"]


def test_an_older_file_is_read_with_null_for_what_it_lacks(tmp_path: Path) -> None:
    """A column added since is null; the order and types are today's."""
    parquet.write(ok(impl="fa2", flags=["throttled"]), tmp_path / "new.parquet")
    table = pq.read_table(tmp_path / "new.parquet").drop_columns(["flags", "sample_block"])
    pq.write_table(table, tmp_path / "old.parquet")
    old = parquet.read([tmp_path / "old.parquet"])
    assert old.schema == parquet.arrow_schema()
    assert old["flags"].to_pylist() == [None]
    assert old["impl"].to_pylist() == ["fa2"]


def test_a_newer_files_columns_are_left_out_and_a_newer_schema_is_refused(tmp_path: Path) -> None:
    """An added column does not stop an older attnsweep; a new schema version does, by number."""
    parquet.write(ok(), tmp_path / "r.parquet")
    table = pq.read_table(tmp_path / "r.parquet")
    pq.write_table(table.append_column("later", pa.array([1])), tmp_path / "added.parquet")
    assert "later" not in parquet.read([tmp_path / "added.parquet"]).column_names
    index = table.column_names.index("schema_version")
    newer = table.set_column(index, "schema_version", pa.array([SCHEMA_VERSION + 1]))
    pq.write_table(newer, tmp_path / "newer.parquet")
    with pytest.raises(RecordError, match=f"schema version {SCHEMA_VERSION + 1}"):
        parquet.read([tmp_path / "newer.parquet"])


def test_a_file_that_is_no_record_is_refused_by_its_path(tmp_path: Path) -> None:
    """Cut short, not Parquet, or Parquet of something else."""
    (tmp_path / "cut.parquet").write_bytes(b"PAR1")
    (tmp_path / "empty.parquet").write_bytes(b"")
    pq.write_table(pa.table({"x": [1]}), tmp_path / "other.parquet")
    for name in ("cut", "empty", "other", "absent"):
        with pytest.raises(RecordError, match=f"{name}.parquet"):
            parquet.read([tmp_path / f"{name}.parquet"])


def test_a_file_that_may_not_be_read_is_said_by_its_path_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The operating system's own message would name it a second time, and its number."""

    def closed(path: Path) -> bytes:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "read_bytes", closed)
    path = tmp_path / "r.parquet"
    with pytest.raises(RecordError) as caught:
        parquet.read([path])
    assert str(caught.value) == f"{path} is not a readable file of records: Permission denied"


@pytest.mark.parametrize("merged", [False, True], ids=["a record", "what a report merged"])
def test_a_flipped_bit_is_not_read_as_another_number(tmp_path: Path, merged: bool) -> None:
    """The file is refused, wherever in the numbers it is; a few bits of the pages' headers alone have no checksum."""
    path = tmp_path / "c.parquet"
    samples = [0.1 * number for number in range(500)]
    parquet.write(ok(samples_ms=samples), path)
    if merged:
        load.write(parquet.read([path]), path)
    good = path.read_bytes()
    pages = len(good) - 8 - int.from_bytes(good[-8:-4], "little")
    refused = wrong = 0
    for at in range(4, pages, 11):
        path.write_bytes(good[:at] + bytes([good[at] ^ 1 << at % 8]) + good[at + 1 :])
        try:
            wrong += parquet.read([path])["samples_ms"].to_pylist() != [samples]
        except RecordError:
            refused += 1
    assert refused > 100 * wrong


def test_no_paths_make_an_empty_table() -> None:
    """The schema stands without rows."""
    assert parquet.read([]).schema == parquet.arrow_schema()
    assert parquet.read([]).num_rows == 0
