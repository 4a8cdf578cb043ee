"""A cell's log is bounded: its beginning, its end, and how much is missing between."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from attnsweep.pool.cell_log import CellLog


@pytest.mark.parametrize("size", [0, 1, 9, 10, 11, 29, 30, 31, 32, 60, 1000])
@pytest.mark.parametrize("chunk", [1, 7, 64, 2000])
def test_what_is_kept_is_the_beginning_and_the_end(tmp_path, size, chunk):
    """With a head of 10 and a tail of 20 bytes, however the output comes."""
    output = bytes(random.Random(size).choices(b"abcdefgh", k=size))
    path = tmp_path / "log"
    with CellLog(path, head_bytes=10, tail_bytes=20) as log:
        for start in range(0, size, chunk):
            log.write(output[start : start + chunk])
        tail = log.last_lines(5)
    if size == 0:
        assert not path.exists()
        return
    assert output.decode().endswith(tail)
    assert len(tail) >= min(size, 20)
    if size <= 30:
        assert path.read_bytes() == output
    else:
        missing = f"\n[... {size - 30} bytes left out ...]\n".encode()
        assert path.read_bytes() == output[:10] + missing + output[-20:]


def test_the_beginning_is_on_disk_at_once(tmp_path):
    """A sweep that is killed leaves what its cell said first."""
    log = CellLog(tmp_path / "log")
    log.write(b"first")
    assert (tmp_path / "log").read_bytes() == b"first"
    log.close()
    log.close()


def test_last_lines_span_the_beginning_and_the_end(tmp_path):
    """And bytes that are no text are replaced."""
    with CellLog(tmp_path / "log", head_bytes=6, tail_bytes=100) as log:
        log.write(b"one\ntwo\nthree\n\xff")
        assert log.last_lines(3) == "two\nthree\n\ufffd"


def test_an_older_log_is_removed(tmp_path):
    """It was another process's."""
    (tmp_path / "log").write_text("old")
    with CellLog(tmp_path / "log"):
        assert not (tmp_path / "log").exists()


def test_a_log_without_a_folder_is_silent(tmp_path):
    """Its cell goes on, and the last lines are known all the same."""
    with CellLog(tmp_path / "gone" / "log", head_bytes=6, tail_bytes=100) as log:
        log.write(b"one\ntwo\nthree\n")
        assert log.last_lines(2) == "two\nthree"
    assert list(tmp_path.iterdir()) == []


def test_a_log_that_cannot_be_removed_is_silent(tmp_path):
    """A folder stands in its place."""
    (tmp_path / "log").mkdir()
    with CellLog(tmp_path / "log") as log:
        log.write(b"one")
        assert log.last_lines(1) == "one"


def test_a_full_disk_makes_the_log_silent(tmp_path, monkeypatch):
    """From the first write that fails, closing included."""
    monkeypatch.setattr(Path, "unlink", lambda self, missing_ok: None)
    with CellLog(Path("/dev/full"), head_bytes=2, tail_bytes=4) as log:
        for _ in range(9):
            log.write(b"abc\n")
        assert log.last_lines(1) == "abc"
