"""Find the records below some folders, read them, keep the newest of what was measured twice, and write them as one."""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attnsweep import parquet, records
from attnsweep.errors import ConfigError, RecordError, Status
from attnsweep.report.text import listing

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

#: The key of `measurement`, or where a record has none of a digest of what was configured but for the timing preset.
CONFIGURATION = "configuration"

#: What of a cell's JSON is no part of that: the id, where it ran, how it was timed, and which of equals it is.
_NOT_CONFIGURED = frozenset({"id", "device", "timing", "replicate"})

#: Files read at a time. A table of one row takes 100 kB whatever it holds, so that many become one at once.
BATCH = 512

#: What is taken for a time in ms: a nanosecond to eleven days.
SHORTEST_MS, LONGEST_MS = 1e-6, 1e9

#: What is taken for any other number; products and ratios of such are numbers still.
LARGEST = 1e30

_TIMES = frozenset(column.name for column in records.COLUMNS if column.unit == "ms")


#: How many of what is left out for one reason are named.
NAMED = 5


class LeftOut:
    """What was found and is not used, by reason: the first NAMED, and how many more."""

    def __init__(self) -> None:
        self._found: dict[str, list[str]] = {}

    def add(self, reason: str, examples: list[str]) -> None:
        """Count `examples`, which are in order, for `reason`."""
        if examples:
            self._found.setdefault(reason, []).extend(examples)

    def sentences(self) -> tuple[str, ...]:
        """A sentence without its full stop for each reason, in the order in which they were met."""
        return tuple(f"{reason}: {_named(examples)}" for reason, examples in self._found.items())


def _named(examples: list[str]) -> str:
    more = [f"{len(examples) - NAMED} more"] if len(examples) > NAMED else []
    return listing(examples[:NAMED] + more)


@dataclass(frozen=True)
class Loaded:
    """All records found: `table` in the records' schema, one row a cell, and what was left aside.

    `files` counts the files read, `replaced` the records in whose stead another of the same cell is used, `left_out`
    says in a sentence each what else was found and not used, and why.
    """

    table: pa.Table
    files: int
    replaced: int
    left_out: tuple[str, ...]

    def rows(self) -> list[Row]:
        """The records as dicts without the raw columns; what cannot be a time or a finite number is None.

        What the first protocol left to be understood is said: its number, and that a latency is its timer's.
        """
        kept = self.table.drop_columns(list(RAW)).combine_chunks().to_pylist()
        configured = map(_configuration, self.table["config"].to_pylist())
        return [
            _explicit(_sane(row)) | {PLACE: place, CONFIGURATION: row["measurement"] or told}
            for place, (row, told) in enumerate(zip(kept, configured, strict=True))
        ]

    def raw(self, row: Row) -> Row:
        """The raw columns of the record that one of `rows` is about."""
        return _sane(self.table.select(list(RAW)).slice(row[PLACE], 1).to_pylist()[0])


def _configuration(config: str | None) -> str | None:
    """A digest of a record's `config`; None where that says nothing."""
    try:
        told = json.loads(config or "null")
    except (ValueError, RecursionError):
        return None
    if not isinstance(told, dict):
        return None
    kept = {name: value for name, value in told.items() if name not in _NOT_CONFIGURED}
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()


def _explicit(row: Row) -> Row:
    row["protocol"] = row["protocol"] or 1
    own = f"{row['timer']}_ms"
    if own in row and row[own] is None:
        row[own] = row["latency_ms"]
    return row


def _sane(row: Row) -> Row:
    return {name: _number(value, name in _TIMES) for name, value in row.items()}


def _number(value: Any, time: bool) -> Any:
    """`value`, or None for a float that is none; of a list each."""
    if isinstance(value, list):
        return [_number(one, time) for one in value]
    if not isinstance(value, float):
        return value
    able = SHORTEST_MS <= value <= LONGEST_MS if time else abs(value) <= LARGEST
    return value if able else None


def find(folders: list[Path], left_out: LeftOut) -> list[Path]:
    """The Parquet files that hold the records of `folders`, each once, in a fixed order.

    A folder gives every `cells/*.parquet` below it, and every results.parquet of a folder that has no cells
    below it (a published report). What lies in a folder named `report` is this command's own output and is
    passed over, unless it is named itself.

    Raises ConfigError for a path that does not exist or that holds nothing.
    """
    found: dict[str, None] = {}
    for folder in folders:
        try:
            mode = folder.stat().st_mode
        except FileNotFoundError:
            raise ConfigError(f"{folder} does not exist") from None
        except OSError as error:
            raise ConfigError(f"{folder} cannot be read: {error.strerror}") from None
        if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
            raise ConfigError(f"{folder} is neither a folder nor a file of records")
        paths = [folder] if stat.S_ISREG(mode) else _below(folder, left_out)
        if not paths:
            own = folder / REPORT / RESULTS
            said = [f"no records below {folder} (looked for cells/*.parquet and {RESULTS})"]
            said += [f"{own} is a report's own output, name that file to read it"] if os.path.isfile(own) else []
            raise ConfigError("; ".join([*said, *left_out.sentences()]))
        found.update(dict.fromkeys(os.path.realpath(path) for path in paths))
    return [Path(path) for path in found]


def _below(folder: Path, left_out: LeftOut) -> list[Path]:
    cells: list[Path] = []
    results: list[Path] = []
    owners: set[Path] = set()
    for here, files in _walk(folder, left_out):
        if Path(os.path.abspath(here)).name == "cells":
            mine = [here / name for name in files if name.endswith(".parquet") and name[0] != "."]
            cells += mine
            owners.update(here.parents if mine else ())
        elif RESULTS in files:
            results.append(here / RESULTS)
    left_out.add(f"a {RESULTS} with cells beside or below it", [str(path) for path in results if path.parent in owners])
    return cells + [path for path in results if path.parent not in owners]


def _walk(folder: Path, left_out: LeftOut) -> Iterator[tuple[Path, list[str]]]:
    """Every folder from `folder` down that is not a report, with the names of the regular files in it, sorted.

    Links to files are followed, links to folders are not: they may lead round in circles, or anywhere.
    """
    todo = [folder]
    while todo:
        here = todo.pop()
        try:
            names = sorted(os.listdir(here))
        except OSError as error:
            left_out.add(f"{_CLOSED} ({error.strerror})", [str(here)])
            continue
        files: list[str] = []
        folders: list[Path] = []
        for name in names:
            path = here / name
            kind = _kind(path)
            if kind == "file":
                files.append(name)
            elif kind == "folder" and name != REPORT:
                folders.append(path)
            if kind == "folder" and name.endswith(".parquet"):
                left_out.add("a folder with a record's name", [str(path)])
            elif kind not in ("file", "folder") and name != REPORT and _matters(kind, name):
                left_out.add(kind, [str(path)])
        yield here, files
        todo += reversed(folders)


_LINKED = "a link to a folder, which is not followed"
_CLOSED = "a path that cannot be read"


def _matters(kind: str, name: str) -> bool:
    """Whether there may be records behind what is not read."""
    return kind == _LINKED or kind.startswith(_CLOSED) or name.endswith(".parquet")


def _kind(path: Path) -> str:
    """`file`, `folder`, or in words what else a path is. Opens nothing: a pipe would wait for its writer."""
    try:
        mode = path.stat().st_mode
    except OSError as error:
        return f"{'a link that leads nowhere' if os.path.islink(path) else _CLOSED} ({error.strerror})"
    if stat.S_ISDIR(mode):
        return _LINKED if path.is_symlink() else "folder"
    return "file" if stat.S_ISREG(mode) else "neither a file nor a folder"


def load(folders: list[Path]) -> Loaded:
    """Read all records of `folders`. Raises ConfigError if none can be read."""
    import pyarrow as pa

    left_out = LeftOut()
    paths = find(folders, left_out)
    tables: list[pa.Table] = []
    files = 0
    for start in range(0, len(paths), BATCH):
        batch = paths[start : start + BATCH]
        try:
            read = [parquet.read(batch)]
            files += len(batch)
        except RecordError:
            read = _one_by_one(batch, left_out)
            files += len(read)
        if read:
            tables.append(pa.concat_tables(read).combine_chunks())
    where = ", ".join(map(str, folders))
    if not tables:
        raise ConfigError("; ".join([f"{where}: no record could be read", *left_out.sentences()]))
    merged = pa.concat_tables(tables)
    if merged.num_rows == 0:
        raise ConfigError(f"{where}: the files found hold no records")
    told = _told(merged, left_out)
    if told.num_rows == 0:
        raise ConfigError("; ".join([f"{where}: no record can be used", *left_out.sentences()]))
    keep = _newest(told)
    newest = told if len(keep) == told.num_rows else told.take(keep)
    return Loaded(newest, files, told.num_rows - newest.num_rows, left_out.sentences())


def _one_by_one(paths: list[Path], left_out: LeftOut) -> list[pa.Table]:
    """The tables of the files that can be read; the others are left out."""
    tables = []
    for path in paths:
        try:
            tables.append(parquet.read([path]))
        except RecordError as error:
            reason, _, detail = str(error).removeprefix(f"{path} ").partition(": ")
            left_out.add(f"a file that {reason}", [f"{path} ({detail})" if detail else str(path)])
    return tables


def _told(table: pa.Table, left_out: LeftOut) -> pa.Table:
    """The rows that say how their cell ended, and how long it took where that was well."""
    import pyarrow as pa
    import pyarrow.compute as pc

    status, latency = table["status"], table["latency_ms"]
    known = pc.is_in(status, pa.array([str(one) for one in Status]))
    timed = pc.and_(pc.greater_equal(latency, SHORTEST_MS), pc.less_equal(latency, LONGEST_MS))
    useless = pc.and_(pc.equal(status, str(Status.OK)), pc.invert(pc.fill_null(timed, fill_value=False)))
    useless = pc.fill_null(useless, fill_value=False)
    for reason, which, column in (
        ("a record of no status that is known", pc.invert(known), "status"),
        ("a record that is ok without a possible latency_ms", useless, "latency_ms"),
    ):
        bad = table.filter(which).select(["cell_id", column]).to_pylist()
        left_out.add(reason, [f"{row['cell_id']} ({column} {row[column]!r})" for row in bad])
    able = pc.and_(known, pc.invert(useless))
    return table if pc.all(able).as_py() else table.filter(able)


def write(table: pa.Table, path: Path) -> None:
    """Write the merged records atomically."""
    import pyarrow.parquet as pq

    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        # By groups of rows: the writer holds one of them in memory, and a reader needs only its own.
        pq.write_table(table, temporary, compression="zstd", row_group_size=BATCH, write_page_checksum=True)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def moment(started_at: object) -> datetime:
    """A record's started_at as a time in UTC; the earliest time there is where it says none."""
    try:
        when = datetime.fromisoformat(str(started_at))
        return when.astimezone(timezone.utc) if when.tzinfo else when.replace(tzinfo=timezone.utc)
    except (ValueError, OverflowError):  # the latter for an offset that leads before the year 1 or after 9999
        return datetime.min.replace(tzinfo=timezone.utc)


def _newest(table: pa.Table) -> list[int]:
    """Indices of the rows to keep: of one (hostname, sweep, cell_id) on one GPU the one that started last.

    Hosts may share a name, and sweeps on them too. A record that knows no GPU is of its cell's, if that had but one.
    """
    rows = table.select(["hostname", "sweep", "cell_id", "gpu_uuid", "started_at"]).to_pylist()
    cells = [
        index if row["cell_id"] is None else (row["hostname"], row["sweep"], row["cell_id"])
        for index, row in enumerate(rows)
    ]
    boards: dict[object, set[str]] = defaultdict(set)
    for cell, row in zip(cells, rows, strict=True):
        boards[cell] |= {row["gpu_uuid"]} - {None}
    chosen: dict[object, int] = {}
    started = [moment(row["started_at"]) for row in rows]
    for index, (cell, row) in enumerate(zip(cells, rows, strict=True)):
        key = (cell, row["gpu_uuid"] if len(boards[cell]) > 1 else None)
        if key not in chosen or started[index] >= started[chosen[key]]:
            chosen[key] = index
    return sorted(chosen.values())
