"""One sweep of implementations that misbehave in every way: a record each, nobody else harmed, nothing left."""

import os
import subprocess
import sys
import uuid
from pathlib import Path

import pytest

from attnsweep import parquet

HERE = Path(__file__).parent

#: Each deed and the status that its record must have.
DEEDS = {
    "ok": "ok",
    "wrong": "incorrect",
    "not_finite": "incorrect",
    "forgets_to_rescale": "incorrect",
    "raises": "error",
    "system_exit": "error",
    "missing": "missing",
    "unsupported": "unsupported",
    "compile_error": "compile_error",
    "memory_error": "oom",
    "eat_memory": "oom",
    "segfault": "crashed",
    "os_exit": "crashed",
    "hang": "timeout",
    "flood_stderr": "ok",
    "grandchild": "ok",
}


def carrying(mark):
    """Processes whose environment carries the mark."""
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            if mark.encode() in path.read_bytes():
                found.append(int(path.parent.name))
        except (PermissionError, FileNotFoundError, ProcessLookupError):
            continue
    return found


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    """The sweep's folder, its exit code, its output, and the mark that its processes carried."""
    folder = tmp_path_factory.mktemp("misbehaviour")
    (folder / "conf/impl").mkdir(parents=True)
    for deed in DEEDS:
        yaml = f"name: {deed}\n_target_: fake_impls.Fake\ndeed: {deed}\nlayout: bhsd\n"
        (folder / f"conf/impl/{deed}.yaml").write_text(yaml)
    mark = f"MARK-{uuid.uuid4()}"
    done = subprocess.run(
        [
            sys.executable, "-c", "from attnsweep.cli import main; raise SystemExit(main())",
            f"impl={','.join(DEEDS)}", "scenario=prefill", "scenario.batch_size=1", "scenario.seq_len=32",
            "scenario.num_heads=2", "timing=quick", "device=cpu", "name=deeds", "pool.timeout_s=6", "pool.grace_s=1",
            "--config-dir", str(folder / "conf"),
        ],
        cwd=folder,
        env={
            **os.environ, "PYTHONPATH": str(HERE), "ATTNSWEEP_TEST_MARK": mark, "TMPDIR": str(folder),
            "ATTNSWEEP_LOCKS": str(folder / "locks"),
        },
        capture_output=True,
        text=True,
        timeout=110,
    )  # fmt: skip
    rows = parquet.read(sorted((folder / "outputs/deeds/cells").glob("*.parquet"))).to_pylist()
    return {row["impl"]: row for row in rows}, done, mark, folder


@pytest.mark.parametrize("deed", DEEDS)
def test_each_has_a_record_with_the_right_status(sweep, deed):
    """Whatever it did, and with a reason for everything but ok."""
    rows, done, _, _ = sweep
    assert deed in rows, done.stderr
    assert rows[deed]["status"] == DEEDS[deed], rows[deed]["reason"]
    assert (rows[deed]["reason"] is None) == (DEEDS[deed] == "ok")
    assert (rows[deed]["latency_ms"] is not None) == (DEEDS[deed] == "ok")


def test_reasons_say_what_happened(sweep):
    """A signal by name, an exit code, the place of a hang, the numbers of a wrong answer."""
    rows, _, _, _ = sweep
    assert rows["segfault"]["exit_signal"] == "SIGSEGV"
    assert "7" in rows["os_exit"]["reason"]
    assert "do_hang" in rows["hang"]["traceback"]
    assert rows["wrong"]["max_abs_err"] > 0.1
    assert rows["forgets_to_rescale"]["reason"].startswith("after timing")
    assert "pip install nothing" in rows["missing"]["reason"]
    assert "do_eat_memory" in rows["eat_memory"]["traceback"]


def test_the_sweep_fails_and_says_so(sweep):
    """Exit code 1, a count by status, markup of a hostile message shown as it is."""
    _, done, _, _ = sweep
    assert done.returncode == 1
    assert "the kernel said [bold]no[/bold] <script>" in done.stdout
    assert done.stdout.count("ok") >= 3


def test_no_process_is_left(sweep):
    """Neither a zygote, nor a hung cell, nor the daemon that a cell left behind."""
    _, _, mark, _ = sweep
    assert carrying(mark) == []


def test_a_flood_does_not_fill_the_disk(sweep):
    """64 MB of stderr leave a log of at most 256 kB and 1 MB."""
    _, _, _, folder = sweep
    logs = list((folder / "outputs/deeds/cells").glob("flood_stderr*.log"))
    assert len(logs) == 1
    assert 256 * 1024 < logs[0].stat().st_size < 2 * 2**20


def test_nothing_temporary_is_left(sweep):
    """Each cell's own TMPDIR goes with it."""
    _, _, _, folder = sweep
    left = {path.name for path in folder.iterdir()} - {"conf", "outputs"}
    assert not {name for name in left if "cell" in name}
