"""One sweep in a folder at a time: who is refused, by whose name, and what a holder's death leaves."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from attnsweep.errors import ConfigError
from attnsweep.folder_lock import held


def test_a_second_sweep_into_the_same_folder_is_refused_naming_the_holder(tmp_path: Path) -> None:
    """By process, host and command; free again when the first is over, also after it died."""
    with held(tmp_path):
        with pytest.raises(ConfigError, match=f"process {os.getpid()} on .*name=") as caught, held(tmp_path):
            pass
        assert shlex.join(sys.orig_argv)[:200] in str(caught.value)
    with held(tmp_path):
        pass


def test_shards_and_a_launchers_jobs_share_the_folder(tmp_path: Path) -> None:
    """Different shards side by side, never the same twice, and never beside a whole sweep."""
    with held(tmp_path, shard=(1, 2)), held(tmp_path, shard=(2, 2)), held(tmp_path, shared=True):
        with pytest.raises(ConfigError, match=f"process {os.getpid()}"), held(tmp_path, shard=(2, 2)):
            pass
        with pytest.raises(ConfigError, match="a shard of it or a launcher's job"), held(tmp_path):
            pass
    with held(tmp_path), pytest.raises(ConfigError), held(tmp_path, shared=True):
        pass
    with held(tmp_path):
        pass


def test_a_holder_that_was_killed_holds_nothing_and_is_not_named_later(tmp_path: Path) -> None:
    """The kernel frees the lock with the process; its name does not stand for a later holder's."""
    code = f"""
import os, sys
from pathlib import Path
from attnsweep.folder_lock import held
with held(Path({str(tmp_path)!r})):
    print("held", flush=True)
    sys.stdin.read()
"""
    holder = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert holder.stdin is not None
    assert holder.stdout is not None
    with holder, holder.stdout, holder.stdin:
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(ConfigError, match=f"process {holder.pid} "), held(tmp_path):
            pass
        holder.kill()
    assert json.loads((tmp_path / ".lock").read_text())["pid"] == holder.pid
    with (
        held(tmp_path, shared=True),
        pytest.raises(ConfigError, match="a shard of it or a launcher's job"),
        held(tmp_path),
    ):
        pass


def test_what_a_holder_signed_with_is_one_harmless_line(tmp_path: Path) -> None:
    """Anybody may write into the file, and a command may be long."""
    with held(tmp_path):
        (tmp_path / ".lock").write_text(json.dumps({"pid": 7, "host": "h\x1b[2J", "command": "b\n" + 999 * "c"}))
        with pytest.raises(ConfigError) as caught, held(tmp_path):
            pass
    assert f"{tmp_path}: process 7 on h\\x1b[2J (b {198 * 'c'}); wait" in str(caught.value)


def test_a_lock_that_cannot_be_had_is_a_mistake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder in its place, one that cannot be written, a file system without locks: a sentence with the way out."""
    (tmp_path / ".lock").mkdir()
    with pytest.raises(ConfigError, match=r"\.lock.* cannot be locked \(Is a directory\); give an output_dir="):
        held(tmp_path).__enter__()
    with pytest.raises(ConfigError, match="cannot be locked"):
        held(Path("/proc/self")).__enter__()

    def refuse(fd: int, how: int) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr("fcntl.flock", refuse)
    before = len(os.listdir("/proc/self/fd"))
    (tmp_path / ".lock").rmdir()
    with pytest.raises(ConfigError, match="Operation not supported"):
        held(tmp_path).__enter__()
    assert len(os.listdir("/proc/self/fd")) == before
