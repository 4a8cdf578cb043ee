"""Whatever lies on the disk: what is no record is left out and said, nothing blocks, nothing is counted twice."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from report_records import prefill, values, write

from attnsweep import parquet, records
from attnsweep.errors import ConfigError
from attnsweep.report import load
from attnsweep.report.cli import main

POINT = prefill(1, 2048)


def table(rows: list[dict[str, Any]]) -> pa.Table:
    """Rows as a table, unchecked."""
    return pa.Table.from_pylist([row | {"schema_version": 1} for row in rows], schema=parquet.arrow_schema())


def changed(path: Path, column: str, array: Any) -> None:
    """Write one good record in which `column` is another array."""
    good = table([values(POINT, "bad")])
    pq.write_table(good.set_column(good.schema.get_field_index(column), column, array), path)


def half(path: Path) -> None:
    pq.write_table(table([values(POINT, "bad")]), path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def twice(path: Path) -> None:
    good = table([values(POINT, "bad")])
    pq.write_table(good.append_column("status", good["status"]), path)


def folder(path: Path) -> None:
    path.mkdir()
    (path / "inside.parquet").write_text("not a cell")


JUNK: dict[str, tuple[Callable[[Path], object], str]] = {
    "an empty file": (lambda path: path.touch(), "is not a readable file of records"),
    "noise": (lambda path: path.write_bytes(bytes(range(256)) * 40), "is not a readable file of records"),
    "half a file": (half, "is not a readable file of records"),
    "other columns": (lambda path: pq.write_table(pa.table({"a": [1]}), path), "holds no attnsweep records"),
    "a text for a latency": (lambda path: changed(path, "latency_ms", pa.array(["fast"])), "is not a readable file"),
    "a number for a list": (lambda path: changed(path, "samples_ms", pa.array([1.5])), "is not a readable file"),
    "text that is not UTF-8": (
        lambda path: changed(
            path, "reason", pa.array([b"\xff\xfe"]).view(pa.binary()).cast(pa.binary()).view("string")
        ),
        "is not a readable file of records",
    ),
    "a newer schema": (lambda path: changed(path, "schema_version", pa.array([99])), "has schema version 99"),
    "a version in words": (lambda path: changed(path, "schema_version", pa.array(["new"])), "that is no integer"),
    "a column twice": (twice, "has two columns of one name"),
    "another status": (lambda path: changed(path, "status", pa.array(["splendid"])), "of no status that is known"),
    "no status": (lambda path: changed(path, "status", pa.nulls(1, pa.string())), "of no status that is known"),
    "a link to nowhere": (lambda path: path.symlink_to("nowhere"), "a link that leads nowhere (No such file"),
    "a link to itself": (lambda path: path.symlink_to(path.name), "a link that leads nowhere (Too many levels"),
    "a pipe": (os.mkfifo, "neither a file nor a folder"),
    "an endless device": (lambda path: path.symlink_to("/dev/zero"), "neither a file nor a folder"),
    "a folder": (folder, "a folder with a record's name"),
    "a link to a folder": (lambda path: path.symlink_to(".."), "a link to a folder, which is not followed"),
    **{
        f"a latency of {latency}": (
            lambda path, latency=latency: changed(path, "latency_ms", pa.array([latency], pa.float64())),
            "a record that is ok without a possible latency_ms",
        )
        for latency in (None, float("nan"), float("inf"), -1.0, 0.0, 5e-324, 1e308)
    },
}


@pytest.mark.parametrize("junk", JUNK)
def test_junk_beside_a_record_costs_the_record_nothing(junk: str, tmp_path: Path) -> None:
    """It is left out by name and with a reason, and the record is reported."""
    make, reason = JUNK[junk]
    write(tmp_path, [values(POINT, "fa2")])
    make(tmp_path / "cells" / "junk.parquet")
    loaded = load.load([tmp_path])
    assert [row["impl"] for row in loaded.rows()] == ["fa2"]
    (sentence,) = loaded.left_out
    assert reason in sentence
    assert "junk.parquet" in sentence or values(POINT, "bad")["cell_id"] in sentence


@pytest.mark.parametrize("junk", JUNK)
def test_junk_alone_is_a_sentence_that_says_why(junk: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 2, one line, no report."""
    make, reason = JUNK[junk]
    (tmp_path / "cells").mkdir()
    make(tmp_path / "cells" / "junk.parquet")
    assert main([str(tmp_path)]) == 2
    err = capsys.readouterr().err
    assert reason in err
    assert err.count("\n") == 1
    assert not (tmp_path / "report").exists()


def test_a_reason_names_the_first_and_counts_the_rest(tmp_path: Path) -> None:
    """A few damaged files are all named, and a thousand are one sentence."""
    write(tmp_path, [values(POINT)])
    for number in range(7):
        (tmp_path / "cells" / f"noise-{number}.parquet").write_bytes(b"noise")
    (tmp_path / "cells" / "pipe.parquet").symlink_to("nowhere")
    lost, noise = load.load([tmp_path]).left_out
    assert "pipe.parquet" in lost
    assert "more" not in lost
    assert re.findall(r"noise-\d", noise) == [f"noise-{number}" for number in range(5)]
    assert noise.endswith(" and 2 more")
    assert main([str(tmp_path)]) == 0
    for name in ("summary.md", "report.html"):
        assert "and 2 more" in (tmp_path / "report" / name).read_text()


def test_an_older_record_is_read_with_what_it_has(tmp_path: Path) -> None:
    """Columns that it lacks are null, columns that nobody knows are dropped, no version is an old one."""
    good = table([values(POINT, protocol=1)])
    kept = [name for name in good.column_names if name not in ("graph_ms", "events_ms", "protocol", "err_ratio")]
    old = good.select(kept).append_column("colour", pa.array(["red"]))
    (tmp_path / "cells").mkdir()
    pq.write_table(old.set_column(0, "schema_version", pa.nulls(1)), tmp_path / "cells" / "old.parquet")
    write(tmp_path, [values(POINT, "naive")])
    loaded = load.load([tmp_path])
    assert loaded.left_out == ()
    assert {row["impl"]: row["err_ratio"] for row in loaded.rows()} == {"fa2": None, "naive": 0.9}


def test_links_to_folders_are_said_and_not_followed(tmp_path: Path) -> None:
    """Neither a circle nor another disk is walked; a linked sweep can be named."""
    write(tmp_path / "real", [values(POINT, "fa2")])
    write(tmp_path / "here", [values(POINT, "naive")])
    (tmp_path / "here" / "linked").symlink_to(tmp_path / "real")
    (tmp_path / "here" / "loop").symlink_to(tmp_path / "here")
    loaded = load.load([tmp_path / "here"])
    assert [row["impl"] for row in loaded.rows()] == ["naive"]
    assert loaded.left_out == (
        f"a link to a folder, which is not followed: {tmp_path}/here/linked and {tmp_path}/here/loop",
    )
    assert len(load.load([tmp_path / "here", tmp_path / "here" / "linked"]).rows()) == 2


def test_a_linked_record_is_read_once(tmp_path: Path) -> None:
    """Two names of one file are one file."""
    write(tmp_path, [values(POINT)])
    (tmp_path / "cells" / "again.parquet").symlink_to("cell-00000.parquet")
    loaded = load.load([tmp_path])
    assert (loaded.files, loaded.replaced) == (1, 0)


def test_a_path_too_long_to_be_read_is_said(tmp_path: Path) -> None:
    """What may hold records and cannot be opened is never passed over in silence."""
    write(tmp_path, [values(POINT)])
    place = os.open(tmp_path, os.O_RDONLY)
    for _ in range(21):
        os.mkdir("d" * 200, dir_fd=place)
        inner = os.open("d" * 200, os.O_RDONLY, dir_fd=place)
        os.close(place)
        place = inner
    os.close(place)
    (sentence,) = load.load([tmp_path]).left_out
    assert sentence.startswith("a path that cannot be read (File name too long): ")


def test_the_same_records_in_two_folders_count_once(tmp_path: Path) -> None:
    """A copy adds nothing, and is said."""
    rows = [values(POINT, impl) for impl in ("fa2", "naive")]
    loaded = load.load([write(tmp_path / "a", rows), write(tmp_path / "copy", rows)])
    assert sorted(row["impl"] for row in loaded.rows()) == ["fa2", "naive"]
    assert loaded.replaced == 2
    assert main([str(tmp_path)]) == 0
    summary = (tmp_path / "report" / "summary.md").read_text()
    assert "2 records left out: of one cell the newest counts." in summary


def test_a_results_file_beside_cells_is_said(tmp_path: Path) -> None:
    """Its records may be others than those of the cells that count."""
    write(tmp_path / "deep", [values(POINT, "fa2")])
    load.write(table([values(POINT, "naive")]), tmp_path / "results.parquet")
    loaded = load.load([tmp_path])
    assert [row["impl"] for row in loaded.rows()] == ["fa2"]
    assert loaded.left_out == (f"a results.parquet with cells beside or below it: {tmp_path}/results.parquet",)


def test_the_folder_of_cells_may_be_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`attnsweep-report .` there finds what `attnsweep-report cells` finds above."""
    monkeypatch.chdir(write(tmp_path, [values(POINT)]) / "cells")
    assert load.load([Path()]).files == 1


@pytest.mark.parametrize("kind", ["pipe", "loop", "long", "edge", "noise"])
def test_an_argument_that_is_no_folder_is_a_sentence(kind: str, tmp_path: Path) -> None:
    """A pipe is not waited for, a path that cannot be asked about is said."""
    path = tmp_path / ("x" * 300 if kind == "long" else kind)
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "loop":
        path.symlink_to(path.name)
    elif kind == "noise":
        path.write_bytes(b"noise")
    elif kind == "edge":  # what lies below it has a path too long to be asked about
        path.mkdir()
        while len(str(path)) < 4089:
            path /= "d" * min(200, 4089 - len(str(path)))
            path.mkdir()
    said = {
        "pipe": "is neither a folder nor a file of records",
        "loop": "cannot be read: Too many levels",
        "long": "cannot be read: File name too long",
        "edge": "no records below",
        "noise": "no record could be read; a file that is not a readable file",
    }
    with pytest.raises(ConfigError, match=said[kind]):
        load.load([path])


NUMBERS = (float("nan"), float("inf"), float("-inf"), -1.0, 0.0, -0.0, 1e308, -1e308, 5e-324, 2.0**63)
WHOLE = (2**63 - 1, -(2**63), 0, -1)


def test_numbers_that_cannot_be_make_a_report(tmp_path: Path) -> None:
    """In every column of numbers but the latency itself, at several points of an axis; none reaches a table."""
    rows = []
    for column_type, several in (("float", NUMBERS), ("int", WHOLE)):
        # A device is told by its power limit and SM count: those would make a table for each row.
        apart = ("latency_ms", "schema_version", "power_limit_w", "sm_count")
        names = [column.name for column in records.COLUMNS if column.type == column_type and column.name not in apart]
        for number, value in enumerate(several):
            for at in (1024, 2048, 8192):
                row = values(prefill(1, at), f"{column_type}{number}") | dict.fromkeys(names, value)
                lists = {
                    name: [value] * 3 for name in load.RAW if isinstance(row[name], list) and column_type == "float"
                }
                rows.append(row | lists | {"cell_id": str(len(rows))})
    rows += [values(prefill(1, at)) for at in (1024, 2048, 8192)]
    load.write(table(rows), tmp_path / "results.parquet")
    assert main([str(tmp_path)]) == 0
    summary = (tmp_path / "report" / "summary.md").read_text()
    assert not re.search(r"\b(nan|inf)\b", summary)


@pytest.mark.parametrize("started", ["0001-01-01T00:00:00+05:00", "9999-12-31T23:59:59-05:00", "yesterday", None])
def test_a_time_that_cannot_be_is_the_earliest(started: str | None) -> None:
    """Also one that its offset carries out of the calendar."""
    assert load.moment(started) < load.moment("2020-01-01T00:00:00Z")


def command(*arguments: str, encoding: str = "utf-8", ending: str = "") -> subprocess.CompletedProcess[str]:
    """attnsweep-report in a process and a shell of its own; `ending` follows it there."""
    code = "import sys; from attnsweep.report.cli import main; sys.exit(main())"
    return subprocess.run(
        ["bash", "-o", "pipefail", "-c", f'"$@"{ending}', "bash", sys.executable, "-c", code, *arguments],
        env=os.environ | {"PYTHONIOENCODING": encoding},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def test_a_terminal_that_lacks_a_letter_gets_its_number(tmp_path: Path) -> None:
    """An encoding is no reason to fail."""
    done = command(str(write(tmp_path, [values(POINT, "\u6f22")])), encoding="ascii")
    assert (done.returncode, done.stderr) == (0, "")
    assert "\\u6f22 alone has a result" in done.stdout


def test_a_reader_that_goes_early_is_no_failure(tmp_path: Path) -> None:
    """`attnsweep-report outputs | head -1` ends well: the report is written."""
    done = command(str(write(tmp_path, [values(POINT)])), ending=" | true")
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "report" / "report.html").is_file()


@pytest.mark.slow
def test_ten_thousand_records_are_a_report_in_a_minute(tmp_path: Path) -> None:
    """A gigabyte is enough too; twice the minute is allowed, for a loaded machine."""
    points = [
        prefill(batch, length, dtype=dtype, direction=direction)
        for batch in (1, 2, 4)
        for length in (512, 1024, 2048, 4096, 8192)
        for dtype in ("bf16", "fp16")
        for direction in ("fwd", "bwd")
    ]
    kinds = [(impl, mode) for impl in "abcdefg" for mode in ("eager", "default", "max_autotune", "reduce_overhead")]
    rows = [values(point, *kind, replicate=number) for point in points for kind in kinds for number in range(6)]
    load.write(table(rows), tmp_path / "results.parquet")
    assert len(rows) == 10080
    code = (
        "import os, re; from attnsweep.report.cli import main\n"
        "code = main()\n"
        # Not ru_maxrss, which begins with that of the process that started this one
        "peak = re.search(r'VmHWM:\\s+(\\d+) kB', open('/proc/self/status').read())\n"
        "print(code, sum(os.times()[:2]), int(peak[1]) / 1024)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True)
    code_said, seconds, mebibytes = done.stdout.splitlines()[-1].split()
    assert code_said == "0"
    assert float(seconds) < 120
    assert float(mebibytes) < 1024
