"""The temporary folder of a cell: gone with it, and with the next sweep where its own was killed."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from attnsweep.pool import scratch


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A temporary folder of the test's own."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def test_a_folder_is_new_and_goes_with_all_that_is_in_it(temporary: Path) -> None:
    """Also what is in it without the right to write."""
    folder = scratch.Folder()
    inner = Path(folder.path, "cache")
    inner.mkdir()
    (inner / "kernel").write_text("")
    inner.chmod(0o500)
    folder.discard()
    assert list(temporary.iterdir()) == []


def test_what_a_killed_sweep_left_goes_and_what_is_in_use_stays(temporary: Path) -> None:
    """By the lock that dies with a process; nothing else in the temporary folder is touched, nor is a link followed."""
    code = "from attnsweep.pool import scratch; f = scratch.Folder(); print(f.path, flush=True); input()"
    command = [sys.executable, "-c", code]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, env={**os.environ, "TMPDIR": str(temporary)}, text=True, **pipes) as other:
        assert other.stdout is not None
        path = Path(other.stdout.readline().strip())
        (path / "file").write_text("")
        mine = scratch.Folder()
        (temporary / "precious").mkdir()
        (temporary / "attnsweep-cell-link").symlink_to(temporary / "precious")
        (temporary / "attnsweep-cell-file").write_text("")
        stays = {"precious", "attnsweep-cell-link", "attnsweep-cell-file", Path(mine.path).name}
        scratch.discard_left()
        assert {one.name for one in temporary.iterdir()} == stays | {path.name}
        other.kill()
        other.wait()
        scratch.discard_left()
    assert {one.name for one in temporary.iterdir()} == stays
    mine.discard()


def test_a_folder_taken_before_it_was_locked_is_made_anew(temporary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another sweep may look in between."""
    real, taken = tempfile.mkdtemp, []

    def mkdtemp(**options: str) -> str:
        path = real(**options)
        if not taken:
            taken.append(path)
            scratch.discard_left()
        return path

    monkeypatch.setattr(tempfile, "mkdtemp", mkdtemp)
    folder = scratch.Folder()
    assert [str(one) for one in temporary.iterdir()] == [folder.path] != taken
    folder.discard()
