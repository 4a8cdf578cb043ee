"""Faults in the file system: a sentence and an exit code, what was measured is kept, what cannot be read runs again."""

from __future__ import annotations

import os
import platform
import re
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import commands
import pyarrow.parquet as pq
import pytest
from commands import Command
from mounting import needs_mount, under
from quick import HANGS_AT

import processes
from aftermath import parent_of
from attnsweep import records
from conftest import Observer
from processes import survivors

#: A bound on the time that a command takes which is refused, or runs six cells, on a loaded machine.
BOUND_S = 20.0
LENGTHS = (16, 17, 18)


@pytest.fixture(autouse=True)
def marker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A world of its own for each test, and no process left after it."""
    yield from processes.alone(tmp_path, monkeypatch)


def in_words(code: int, err: str, command: Command) -> str:
    """What was seen, for the table: exit code, sentence, records, what is left."""
    said = err.strip().replace(str(commands.HERE), "...").replace(platform.node(), "HOST") or "nothing said"
    left = ", ".join(command.left()) or "nothing"
    return f"exit {code}: {said[:160]}; {len(command.whole())} records whole; {left} left"


def sentence(err: str, words: str) -> bool:
    """Whether it is one line of the command's with these words."""
    return re.fullmatch(rf"attnsweep: [^\n]*{words}[^\n]*\n", err) is not None


# A file system that does not do it


@needs_mount
def test_no_space_left(tmp_path: Path, marker: str, observe: Observer) -> None:
    """The first record that does not fit ends the sweep; what did fit stays, and with room again the rest follows."""
    (tmp_path / "outputs").mkdir()
    command = Command(tmp_path, range(16, 36), under=under("outputs", "size=800k", last="cp -a outputs saved"))
    code, out, err = command.end()
    shutil.copytree(tmp_path / "saved", tmp_path / "outputs", dirs_exist_ok=True)
    kept = command.whole()
    observe(
        "files",
        "no space left on the file system of the results",
        "exit 1, said once; what is recorded stays, and a resume measures the rest alone",
        in_words(code, err, command),
    )
    assert code == 1
    assert sentence(err, "could not be written: No space left on device")
    assert "What is done is kept; this goes on:" in out
    assert 20 < len(kept) < 40
    assert (command.left(), survivors(marker)) == ([], [])
    began = len(command.started())
    again = Command(tmp_path, range(16, 36))
    assert again.end()[::2] == (0, "")
    assert kept.items() <= again.whole().items()
    assert not set(again.started()[began:]) & set(kept)
    assert len(again.whole()) == 40


@needs_mount
@pytest.mark.parametrize(
    ("first", "words"),
    [
        ("true", "cannot be made: Read-only file system"),
        ("mkdir -p outputs/s/cells", r"\.lock, .* cannot be locked \(Read-only file system\)"),
    ],
    ids=["empty", "with a sweep"],
)
def test_a_read_only_folder(tmp_path: Path, observe: Observer, first: str, words: str) -> None:
    """Nothing could be recorded, so nothing runs."""
    (tmp_path / "outputs").mkdir()
    read_only = under("outputs", "size=1m", first=f"{first} && mount -o remount,ro outputs")
    command = Command(tmp_path, LENGTHS, under=read_only)
    code, _, err = command.end()
    observe(
        "files",
        f"a read-only folder, {'with the sweep in it' if 'mkdir' in first else 'empty'}",
        "exit 2 with a sentence; nothing runs",
        in_words(code, err, command),
    )
    assert (code, sentence(err, words)) == (2, True), err
    assert command.started() == []


# What stands in the place of a record


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def noise(path: Path) -> None:
    path.write_bytes(os.urandom(path.stat().st_size))


def noise_inside(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 4 : len(data) // 4 + 16] = os.urandom(16)
    path.write_bytes(data)


def empty(path: Path) -> None:
    path.write_bytes(b"")


def a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()
    (path / "something").write_text("of somebody's")


def a_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def newer(path: Path) -> None:
    table = pq.read_table(path)
    version = [records.SCHEMA_VERSION + 1]
    pq.write_table(table.set_column(table.column_names.index("schema_version"), "schema_version", [version]), path)


def another(path: Path) -> None:
    shutil.copy(next(one for one in path.parent.glob("fa2*.parquet")), path)


DAMAGES: dict[str, Callable[[Path], None]] = {
    "a record cut short": cut,
    "a record overwritten with noise": noise,
    "16 bytes of noise inside a record": noise_inside,
    "an empty record": empty,
    "a folder in the place of a record": a_folder,
    "a pipe in the place of a record": a_pipe,
    "a record of a newer schema": newer,
    "another cell's record": another,
}


def test_what_is_no_record_is_measured_again(tmp_path: Path, marker: str, observe: Observer) -> None:
    """All at once, beside records in order: those stay as they are, what is none is kept aside and said in one go."""
    lengths = range(16, 18 + len(DAMAGES))
    command = Command(tmp_path, lengths)
    assert command.end()[0] == 0
    before, began = command.whole(), len(command.started())
    ran = [one for one in sorted(before) if one.startswith("naive")]
    damaged = dict(zip(DAMAGES, ran, strict=False))
    for how, one in damaged.items():
        DAMAGES[how](command.cells / f"{one}.parquet")
    begin = time.monotonic()
    again = Command(tmp_path, lengths)
    code, _, err = again.end()
    seconds = time.monotonic() - begin
    after, started = again.whole(), again.started()[began:]
    kept = {path.stem for path in (again.cells / "replaced").iterdir()}
    for how, one in damaged.items():
        same = {other: data for other, data in after.items() if other not in damaged.values()}.items() <= before.items()
        observe(
            "files",
            how,
            "that cell is measured again, its file kept in replaced/, said in a sentence; the others stay",
            f"exit {code}: measured {started.count(one)} time again, {'kept' if one in kept else 'NOT kept'}, "
            f"{'said' if err else 'NOT said'}; others {'the same' if same else 'CHANGED'}",
            seconds,
        )
    assert code == 0, err
    assert sentence(err, f"{len(DAMAGES)} of the records cannot be read whole; these cells are measured again")
    assert sorted(started) == sorted(damaged.values())
    assert kept == set(damaged.values())
    assert set(after) == set(before)
    assert all(after[one] == before[one] for one in before if one not in damaged.values())
    assert (again.left(), survivors(marker)) == ([], [])


# The folder itself


def test_two_sweeps_into_one_folder(tmp_path: Path, observe: Observer) -> None:
    """The second is refused, by process and command, and costs the first nothing."""
    first = Command(tmp_path, [16, HANGS_AT])
    first.until(lambda: any(f"s{HANGS_AT}" in one for one in first.started()))
    second = Command(tmp_path, LENGTHS)
    code, _, err = second.end()
    first.process.send_signal(2)
    assert first.end()[0] == 130
    observe(
        "files",
        "two sweeps into one folder at once",
        "exit 2 with a sentence that names the holder; the first is not disturbed",
        in_words(code, err, second),
    )
    assert code == 2
    assert sentence(err, f"another sweep is running into outputs/s: process {first.process.pid} on ")
    assert len(first.started()) == 2
    assert (len(first.whole()), first.left()) == (3, [])


def test_a_folder_removed_while_running(tmp_path: Path, marker: str, observe: Observer) -> None:
    """Nothing more is measured for nothing; the same name begins anew."""
    command = Command(tmp_path, [16, HANGS_AT, 17])
    command.until(lambda: any(f"s{HANGS_AT}" in one for one in command.started()))
    os.rename(tmp_path / "outputs" / "s", tmp_path / "gone")
    shutil.rmtree(tmp_path / "gone", ignore_errors=True)
    began = time.monotonic()
    # The cell that runs ends now, and has no place for its record
    ours = survivors(marker)
    (running,) = [pid for pid in ours if parent_of(pid) in ours]
    os.kill(running, signal.SIGKILL)
    code, _, err = command.end()
    observe(
        "files",
        "the sweep's folder removed while it runs",
        "exit 1 with a sentence; nothing more is measured, nothing is left",
        in_words(code, err, command),
        time.monotonic() - began,
    )
    assert code == 1
    assert sentence(err, "could not be written: No such file or directory")
    assert len(command.started()) == 2
    assert (command.left(), survivors(marker)) == ([], [])
    assert time.monotonic() - began < BOUND_S
    again = Command(tmp_path, [16])
    assert (again.end()[::2], len(again.whole())) == ((0, ""), 2)


def test_a_folder_of_results_that_is_a_link(tmp_path: Path, observe: Observer) -> None:
    """It is followed, and its sweep goes on by either name."""
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "outputs").symlink_to("elsewhere")
    command = Command(tmp_path, LENGTHS)
    code, _, err = command.end()
    again = Command(tmp_path, LENGTHS, "output_dir=elsewhere")
    out = again.end()[1]
    observe(
        "files",
        "the folder of results is a link",
        "followed: exit 0",
        f"{in_words(code, err, command)}; again: {out.splitlines()[0]}",
    )
    assert (code, err) == (0, "")
    assert "Nothing to do: all 6 cells of elsewhere/s have a record." in out


IN_THE_WAY: dict[str, tuple[Callable[[Path], object], str]] = {
    "name= is a file": (lambda folder: folder.write_text(""), "outputs/s/cells cannot be made: Not a directory"),
    "a file in the place of cells/": (
        lambda folder: [folder.mkdir(), (folder / "cells").write_text("")],
        "outputs/s/cells cannot be made: File exists",
    ),
    "name= is a link to nothing": (
        lambda folder: folder.symlink_to("nowhere"),
        "outputs/s/cells cannot be made: File exists",
    ),
    "name= is a link to itself": (lambda folder: folder.symlink_to("s"), "cannot be made: Too many levels"),
}


@pytest.mark.parametrize("fault", IN_THE_WAY)
def test_a_name_that_is_no_folder(tmp_path: Path, observe: Observer, fault: str) -> None:
    """Nothing could be recorded, so nothing runs, and what is there stays."""
    put, words = IN_THE_WAY[fault]
    (tmp_path / "outputs").mkdir()
    put(tmp_path / "outputs" / "s")
    command = Command(tmp_path, LENGTHS)
    code, _, err = command.end()
    observe("files", fault, "exit 2 with a sentence; nothing runs", f"exit {code}: {err.strip()}")
    assert (code, sentence(err, words)) == (2, True), err
    assert command.started() == []
    assert os.path.lexists(tmp_path / "outputs" / "s")
