"""Find the records below some folders, read them, and keep the newest of what was measured twice."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attnsweep import records
from attnsweep.errors import ConfigError, RecordError

if TYPE_CHECKING:
    import pyarrow as pa

#: One record as a mapping of column to value, without the raw columns, and its PLACE.
Row = dict[str, Any]

RESULTS = "results.parquet"
REPORT = "report"

#: Columns with thousands of values a record. Rows do not have them; `Loaded.raw` gives those of one.
RAW = (
    "samples_ms",
    "sample_start_s",
    "sample_block",
    "block_clock_mhz",
    "sustained_samples_ms",
    "sustained_start_s",
    "sustained_clock_mhz",
    "sustained_clock_start_s",
    "telemetry",
    "config",
)

#: The key under which a row says where its record is in the table.
PLACE = "place"

#: Files read at a time. A table of one row takes 100 kB whatever it holds, so that many become one at once.
BATCH = 512


@dataclass(frozen=True)
class Loaded:
    """All records found: `table` in the records' schema, one row a cell, and what was left aside.

    `files` counts the files read, `replaced` the records that a newer one of the same cell replaced,
    `unreadable` says in a sentence each which files could not be read.
    """

    table: pa.Table
    files: int
    replaced: int
    unreadable: tuple[str, ...]

    def rows(self) -> list[Row]:
        """The records as dicts without the raw columns; numbers that are not finite are None.

        What the first protocol left to be understood is said: its number, and that a latency is its timer's.
        """
        kept = self.table.drop_columns(list(RAW)).combine_chunks().to_pylist()
        return [
            _explicit({name: _finite(value) for name, value in row.items()}) | {PLACE: place}
            for place, row in enumerate(kept)
        ]

    def raw(self, row: Row) -> Row:
        """The raw columns of the record that one of `rows` is about."""
        found: Row = self.table.select(list(RAW)).slice(row[PLACE], 1).to_pylist()[0]
        return found


def _explicit(row: Row) -> Row:
    row["protocol"] = row["protocol"] or 1
    own = f"{row['timer']}_ms"
    if own in row and row[own] is None:
        row[own] = row["latency_ms"]
    return row


def find(folders: list[Path]) -> list[Path]:
    """The Parquet files that hold the records of `folders`, each once, in a fixed order.

    A folder gives every `cells/*.parquet` below it, and every results.parquet of a folder that has no cells
    below it (a published report). What lies in a folder named `report` is this command's own output and is
    passed over, unless it is named itself.

    Raises ConfigError for a path that does not exist or that holds nothing.
    """
    found: dict[Path, None] = {}
    for folder in folders:
        if not folder.exists():
            raise ConfigError(f"{folder} does not exist")
        paths = [folder] if folder.is_file() else _below(folder)
        if not paths:
            own = folder / REPORT / RESULTS
            hint = f"; {own} is a report's own output, name that file to read it" if own.is_file() else ""
            raise ConfigError(f"no records below {folder} (looked for cells/*.parquet and {RESULTS}){hint}")
        found.update(dict.fromkeys(path.resolve() for path in paths))
    return list(found)


def _below(folder: Path) -> list[Path]:
    cells: list[Path] = []
    results: list[Path] = []
    for directory, subdirectories, names in os.walk(folder):
        here = Path(directory)
        subdirectories[:] = sorted(name for name in subdirectories if name != REPORT)
        if here.name == "cells":
            cells += [here / name for name in sorted(names) if name.endswith(".parquet") and name[0] != "."]
        elif RESULTS in names:
            results.append(here / RESULTS)
    return cells + [path for path in results if not any(path.parent in cell.parents for cell in cells)]


def load(folders: list[Path]) -> Loaded:
    """Read all records of `folders`. Raises ConfigError if none can be read."""
    import pyarrow as pa

    paths = find(folders)
    tables: list[pa.Table] = []
    unreadable: list[str] = []
    for start in range(0, len(paths), BATCH):
        batch = paths[start : start + BATCH]
        try:
            tables.append(records.read(batch).combine_chunks())
        except RecordError:
            tables += _one_by_one(batch, unreadable)
    if not tables:
        raise ConfigError(f"no record could be read: {unreadable[0]}")
    merged = pa.concat_tables(tables)
    if merged.num_rows == 0:
        raise ConfigError(f"{', '.join(map(str, folders))}: the files found hold no records")
    keep = _newest(merged)
    newest = merged if len(keep) == merged.num_rows else merged.take(keep)
    return Loaded(newest, len(paths) - len(unreadable), merged.num_rows - newest.num_rows, tuple(unreadable))


def _one_by_one(paths: list[Path], unreadable: list[str]) -> list[pa.Table]:
    """The tables of the files that can be read; why the others cannot is added to `unreadable`."""
    tables = []
    for path in paths:
        try:
            tables.append(records.read([path]))
        except RecordError as error:
            unreadable.append(str(error))
    return tables


def write(table: pa.Table, path: Path) -> None:
    """Write the merged records atomically."""
    import pyarrow.parquet as pq

    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        # By groups of rows: the writer holds one of them in memory, and a reader needs only its own.
        pq.write_table(table, temporary, compression="zstd", row_group_size=BATCH)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def moment(started_at: object) -> datetime:
    """A record's started_at as a time in UTC; the earliest time there is where it says none."""
    try:
        when = datetime.fromisoformat(str(started_at))
    except ValueError:
        return datetime.min.replace(tzinfo=timezone.utc)
    return when.astimezone(timezone.utc) if when.tzinfo else when.replace(tzinfo=timezone.utc)


def _newest(table: pa.Table) -> list[int]:
    """Indices of the rows to keep: of one (hostname, sweep, cell_id) the one that started last."""
    chosen: dict[object, int] = {}
    columns = (table[name].to_pylist() for name in ("hostname", "sweep", "cell_id", "started_at"))
    started: list[datetime] = []
    for index, (hostname, sweep, cell_id, started_at) in enumerate(zip(*columns, strict=True)):
        started.append(moment(started_at))
        key: object = index if cell_id is None else (hostname, sweep, cell_id)
        if key not in chosen or started[index] >= started[chosen[key]]:
            chosen[key] = index
    return sorted(chosen.values())


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
