"""Finding, reading and deduplicating records."""

from __future__ import annotations

import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from report_records import prefill, values, write

from attnsweep.errors import ConfigError
from attnsweep.report import load

POINT = prefill(1, 2048)


def impls(loaded: load.Loaded) -> list[str]:
    return sorted(row["impl"] for row in loaded.rows())


def test_every_cell_below_the_folders_is_found_once(tmp_path: Path) -> None:
    """Several folders, one inside the other, give each file once."""
    write(tmp_path / "a", [values(POINT, "fa2")])
    write(tmp_path / "deep" / "er" / "b", [values(POINT, "naive", sweep="b")])
    loaded = load.load([tmp_path, tmp_path / "a", tmp_path / "a" / "cells"])
    assert impls(loaded) == ["fa2", "naive"]
    assert loaded.files == 2


def test_the_reports_own_output_is_never_merged_again(tmp_path: Path) -> None:
    """A results.parquet in a folder named report does not count, whatever it says."""
    write(tmp_path, [values(POINT, "fa2")])
    (tmp_path / "report").mkdir()
    other = write(tmp_path / "elsewhere", [values(POINT, "naive", sweep="other")])
    load.write(load.load([other]).table, tmp_path / "report" / "results.parquet")
    for file in (other / "cells").iterdir():
        file.unlink()
    assert impls(load.load([tmp_path])) == ["fa2"]


def test_a_published_results_file_is_read_from_its_folder_or_by_name(tmp_path: Path) -> None:
    """A folder with results.parquet alone, that folder's parent and the file itself all give its records."""
    source = write(tmp_path / "source", [values(POINT, "fa2"), values(POINT, "naive")])
    published = tmp_path / "docs" / "results" / "h200"
    published.mkdir(parents=True)
    load.write(load.load([source]).table, published / "results.parquet")
    for folder in (published, tmp_path / "docs", published / "results.parquet"):
        assert impls(load.load([folder])) == ["fa2", "naive"]


def test_cells_win_over_a_results_file_above_them(tmp_path: Path) -> None:
    """Where a folder has its cells, a results.parquet that was merged from them is not read beside them."""
    write(tmp_path, [values(POINT, "fa2")])
    load.write(load.load([tmp_path]).table, tmp_path / "results.parquet")
    assert load.load([tmp_path]).files == 1


@pytest.mark.parametrize(
    ("started", "kept"),
    [
        (("2026-01-02T00:00:00+00:00", "2026-01-01T00:00:00+00:00"), 1.0),
        (("2026-01-01T00:00:00+00:00", "2026-01-01T00:00:01.5+00:00"), 2.0),
        (("2026-01-01T01:00:00+02:00", "2025-12-31T23:30:00Z"), 2.0),
        (("not a time", "2026-01-01T00:00:00Z"), 2.0),
        ((None, "2026-01-01T00:00:00Z"), 2.0),
    ],
)
def test_of_one_cell_the_record_that_started_last_counts(
    tmp_path: Path, started: tuple[str | None, str], kept: float
) -> None:
    """The same hostname, sweep and cell_id are one cell; times are compared as times, not as text."""
    rows = [values(POINT, latency_ms=ms, started_at=at) for ms, at in zip((1.0, 2.0), started, strict=True)]
    loaded = load.load([write(tmp_path, rows)])
    assert [row["latency_ms"] for row in loaded.rows()] == [kept]
    assert loaded.replaced == 1


@pytest.mark.parametrize("column", ["hostname", "sweep", "cell_id"])
def test_cells_that_differ_in_host_sweep_or_id_all_stay(tmp_path: Path, column: str) -> None:
    """Only the three together make two records one cell."""
    rows = [values(POINT), values(POINT, **{column: "other"})]
    assert len(load.load([write(tmp_path, rows)]).rows()) == 2


def test_records_without_an_id_are_never_duplicates(tmp_path: Path) -> None:
    """Nothing is dropped because a column is null."""
    rows = [values(POINT) | {"cell_id": None, "hostname": None, "sweep": None} for _ in range(2)]
    assert len(load.load([write(tmp_path, rows)]).rows()) == 2


def test_a_file_that_cannot_be_read_is_named_and_costs_no_other(tmp_path: Path) -> None:
    """A damaged cell is said, and the rest is reported."""
    write(tmp_path, [values(POINT, "fa2")])
    (tmp_path / "cells" / "damaged.parquet").write_bytes(b"PAR1 no more")
    loaded = load.load([tmp_path])
    assert impls(loaded) == ["fa2"]
    assert loaded.files == 1
    assert len(loaded.left_out) == 1
    assert "damaged.parquet" in loaded.left_out[0]


def test_nothing_found_is_a_sentence(tmp_path: Path) -> None:
    """A missing folder, an empty one, and one whose only file is damaged are each refused by name."""
    with pytest.raises(ConfigError, match="nowhere does not exist"):
        load.load([tmp_path / "nowhere"])
    with pytest.raises(ConfigError, match="no records below"):
        load.load([tmp_path])
    (tmp_path / "results.parquet").write_bytes(b"nothing")
    with pytest.raises(ConfigError, match="no record could be read"):
        load.load([tmp_path])


def test_a_folder_with_only_an_old_report_says_how_to_read_it(tmp_path: Path) -> None:
    """The hint names the file that would be read if it were asked for."""
    source = write(tmp_path / "source", [values(POINT)])
    (tmp_path / "copy" / "report").mkdir(parents=True)
    results = tmp_path / "copy" / "report" / "results.parquet"
    load.write(load.load([source]).table, results)
    with pytest.raises(ConfigError, match="name that file to read it"):
        load.load([tmp_path / "copy"])
    assert len(load.load([results]).rows()) == 1


def test_rows_leave_the_samples_in_the_table(tmp_path: Path) -> None:
    """A row has no list of samples; those of one record are given for its row, also where others were replaced."""
    rows = [values(POINT, "naive", started_at=at) for at in ("2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z")]
    rows += [values(POINT, impl) for impl in ("fa2", "flex")]
    loaded = load.load([write(tmp_path, rows)])
    found = loaded.rows()
    assert len(found) == 3
    for row in found:
        assert not set(load.RAW) & set(row)
        original = next(one for one in reversed(rows) if one["impl"] == row["impl"])
        for name in ("samples_ms", "sustained_samples_ms", "sustained_clock_start_s"):
            assert loaded.raw(row)[name] == original[name]


def test_files_are_read_in_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is lost or read twice at their borders, and a damaged file costs no other of its batch."""
    monkeypatch.setattr(load, "BATCH", 2)
    impls_written = ["a", "b", "c", "d", "e"]
    write(tmp_path, [values(POINT, impl) for impl in impls_written])
    (tmp_path / "cells" / "cell-00001a.parquet").write_bytes(b"PAR1 no more")
    loaded = load.load([tmp_path])
    assert [row["impl"] for row in loaded.rows()] == impls_written
    assert (loaded.files, len(loaded.left_out)) == (5, 1)


def test_merging_loses_nothing(tmp_path: Path) -> None:
    """What results.parquet holds reads back as the cells did, raw samples included."""
    rows = [values(POINT, impl) for impl in ("fa2", "naive")]
    loaded = load.load([write(tmp_path, rows)])
    load.write(loaded.table, tmp_path / "merged.parquet")
    again = load.load([tmp_path / "merged.parquet"])
    assert again.table.equals(loaded.table)
    assert again.table["samples_ms"].to_pylist()[0] == rows[0]["samples_ms"]


def seconds_of_reading(path: Path) -> float:
    """CPU time in which pyarrow alone reads a file five hundred times."""
    start = time.process_time()
    for _ in range(500):
        pq.ParquetFile(path).read()
    return time.process_time() - start


@pytest.mark.slow
def test_a_thousand_records_merge_in_seconds(tmp_path: Path) -> None:
    """In seven where pyarrow reads a hundred numbers from a file a thousand times in 1.4: what makes records, or their
    reading, half as slow again is a mistake, on a slow machine too.
    """
    write(tmp_path, [values(POINT, replicate=number) for number in range(1000)])
    plain = tmp_path / "plain"
    pq.write_table(pa.table({str(number): [float(number)] for number in range(100)}), plain)
    unit = seconds_of_reading(plain)
    start = time.process_time()
    assert len(load.load([tmp_path]).rows()) == 1000
    took = time.process_time() - start
    assert took < 5 * (unit + seconds_of_reading(plain))
