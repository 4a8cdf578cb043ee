"""Entry points for cells that misbehave in every way the pool has to survive: `fakes:run` does payload["do"]."""

from __future__ import annotations

import ctypes
import importlib
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Callable

#: How long what never ends takes, in seconds: longer than any test, and no leftover of a broken one stays for good.
FOREVER_S = 600
#: How long a cell waits for another process before it says so.
PATIENCE_S = 60

Payload = dict
Emit = Callable[[dict], None]


def run(payload: Payload, emit: Emit) -> Any:
    """Do what the payload says."""
    return globals()[payload["do"]](payload, emit)


def outcome(**columns: Any) -> dict[str, Any]:
    """A worker's outcome of status ok."""
    return {"status": "ok", "reason": None, "traceback": None, "stages": {}, "windows": {}, "columns": columns}


def ok(payload: Payload, emit: Emit) -> dict[str, Any]:
    emit({"event": "phase", "phase": "timing"})
    return outcome(pid=os.getpid(), zygote=os.getppid())


def raises(payload: Payload, emit: Emit) -> dict[str, Any]:
    raise ValueError("no such kernel")


def sys_exit(payload: Payload, emit: Emit) -> dict[str, Any]:
    sys.exit(3)


def exit_code(payload: Payload, emit: Emit) -> dict[str, Any]:
    emit({"event": "phase", "phase": "prepare"})
    print("last words", flush=True)
    os._exit(payload["code"])


def signal_self(payload: Payload, emit: Emit) -> dict[str, Any]:
    os.kill(os.getpid(), getattr(signal, payload["signal"]))
    return hang(payload, emit)


def segfault(payload: Payload, emit: Emit) -> dict[str, Any]:
    ctypes.string_at(0)
    raise AssertionError("address 0 can be read")


def hang(payload: Payload, emit: Emit) -> dict[str, Any]:
    emit({"event": "phase", "phase": "timing"})
    if "marker" in payload:
        Path(payload["marker"]).touch()
    time.sleep(FOREVER_S)
    raise AssertionError("nobody ended it")


def hang_ignoring_sigterm(payload: Payload, emit: Emit) -> dict[str, Any]:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    return hang(payload, emit)


def outcome_then_hang(payload: Payload, emit: Emit) -> dict[str, Any]:
    """Hangs when its output is flushed, after the outcome was written."""

    class Stuck:
        def flush(self) -> None:
            hang({}, emit)

    sys.stdout = Stuck()
    return outcome()


def noise(payload: Payload, emit: Emit) -> dict[str, Any]:
    """As many bytes on stdout as on stderr, none of which is UTF-8; then an exit with the code, if there is one."""
    block = bytes(range(128, 256)) * 8192
    for _ in range(payload["bytes"] // len(block) // 2):
        for fd in (1, 2):
            left = block
            while left:
                left = left[os.write(fd, left) :]
    if "code" in payload:
        os._exit(payload["code"])
    return outcome()


def grandchild(payload: Payload, emit: Emit) -> dict[str, Any]:
    """Leaves a process in its own group that holds every descriptor of the cell, its pipes too."""
    for entry in os.listdir("/proc/self/fd"):
        if os.path.exists(f"/proc/self/fd/{entry}"):
            os.set_inheritable(int(entry), True)
    subprocess.Popen(["sleep", str(FOREVER_S)], close_fds=False)
    return outcome()


def fork_tree(payload: Payload, emit: Emit) -> dict[str, Any]:
    """A fork bomb's first generations, 2 ** payload["generations"] processes, half of each in sessions of their own."""
    for generation in range(payload["generations"]):
        if os.fork() == 0:
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
                signal.signal(number, signal.SIG_IGN)
            if generation % 2:
                os.setsid()
    return hang(payload, emit)


def hop(payload: Payload, emit: Emit) -> dict[str, Any]:
    """A daemon that is never the same process for long: each forks the next one and ends; for payload["hops"]."""
    if os.fork() == 0:
        os.setsid()
        for _ in range(payload["hops"]):
            if os.fork() != 0:
                os._exit(0)
            time.sleep(0.001)
        os._exit(0)
    return outcome()


def delete_tmpdir(payload: Payload, emit: Emit) -> dict[str, Any]:
    os.rmdir(os.environ["TMPDIR"])
    return outcome()


def replace_tmpdir(payload: Payload, emit: Emit) -> dict[str, Any]:
    os.rmdir(os.environ["TMPDIR"])
    os.symlink(payload["link"], os.environ["TMPDIR"])
    return outcome()


def fill_tmpdir(payload: Payload, emit: Emit) -> dict[str, Any]:
    for _ in range(payload["megabytes"]):
        Path(tempfile.mkdtemp(), "large").write_bytes(bytes(2**20))
    return outcome()


def lock_tmpdir(payload: Payload, emit: Emit) -> dict[str, Any]:
    """Leaves folders in folders that nobody may read, write or enter, and a link to somewhere else."""
    innermost = Path(tempfile.mkdtemp(), "inner")
    innermost.mkdir()
    (innermost / "left").write_text("behind")
    (innermost / "link").symlink_to(payload["link"])
    for folder in (innermost, innermost.parent, innermost.parent.parent):
        folder.chmod(0)
    return outcome()


def c_printf(payload: Payload, emit: Emit) -> dict[str, Any]:
    ctypes.CDLL(None).printf(b"from C\n")
    sys.stdout.write("from Python\n")
    return outcome()


def too_large(payload: Payload, emit: Emit) -> dict[str, Any]:
    return outcome(blob="x" * payload["bytes"])


def large(payload: Payload, emit: Emit) -> dict[str, Any]:
    return outcome(samples=[0.1] * 100_000)


def forge(payload: Payload, emit: Emit) -> dict[str, Any]:
    forged = b'{"token": "guessed", "outcome": {"status": "ok", "columns": {"forged": true}}}\n{"torn'
    for fd in range(256):
        try:
            os.write(fd, forged)
        except OSError:
            continue
    print('{"outcome": {"status": "ok", "columns": {"forged": true}}}', flush=True)
    return {**outcome(), "status": "incorrect", "reason": "the true one"}


def deep_json(payload: Payload, emit: Emit) -> dict[str, Any]:
    for fd in range(3, 256):
        try:
            os.write(fd, b"[" * 200_000 + b"\n")
        except OSError:
            continue
    return outcome()


def not_json(payload: Payload, emit: Emit) -> dict[str, Any]:
    return outcome(value=object())


def not_dict(payload: Payload, emit: Emit) -> Any:
    return 7


def no_status(payload: Payload, emit: Emit) -> dict[str, Any]:
    return {"status": "splendid"}


def odd_values(payload: Payload, emit: Emit) -> dict[str, Any]:
    return outcome(nan=float("nan"), inf=float("-inf"), text="\ud800 \u0000", big=2**70)


def close_everything_and_open(payload: Payload, emit: Emit) -> dict[str, Any]:
    os.closerange(0, 4096)
    for _ in range(64):
        os.open(payload["file"], os.O_WRONLY)
    return outcome()


def daemon(payload: Payload, emit: Emit) -> dict[str, Any]:
    """Leaves a daemon in a session of its own that holds every descriptor and ignores signals."""
    Path(payload["marker"]).unlink(missing_ok=True)
    if os.fork() == 0:
        os.setsid()
        if os.fork() != 0:
            os._exit(0)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        Path(payload["marker"]).write_text(str(os.getpid()))
        time.sleep(FOREVER_S)
        os._exit(0)
    _await(lambda: Path(payload["marker"]).exists() and Path(payload["marker"]).read_text())
    return globals()[payload.get("then", "ok")]({"marker": payload.get("hanging", os.devnull)}, emit)


def forked_copy_returns(payload: Payload, emit: Emit) -> dict[str, Any]:
    """A careless fork: the copy comes back from the entry point as well, and first."""
    pid = os.fork()
    if pid == 0:
        return outcome(copy=True)
    os.waitpid(pid, 0)
    return outcome(copy=False)


def subprocesses(payload: Payload, emit: Emit) -> dict[str, Any]:
    """Which descriptors and which attnsweep an ordinary subprocess of a cell gets."""
    code = "import os, attnsweep; print(len(os.listdir('/proc/self/fd')), attnsweep.__path__[0])"
    text = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, close_fds=False)
    count, path = text.stdout.split()
    return outcome(fds=int(count), path=path)


def imports(payload: Payload, emit: Emit) -> dict[str, Any]:
    """Whether a module was there before the cell, which imports it."""
    preloaded = payload["module"] in sys.modules
    importlib.import_module(payload["module"])
    return outcome(preloaded=preloaded)


def kill_zygote(payload: Payload, emit: Emit) -> dict[str, Any]:
    os.kill(os.getppid(), signal.SIGKILL)
    return hang({}, emit)


def kill_zygote_once(payload: Payload, emit: Emit) -> dict[str, Any]:
    marker = Path(payload["marker"])
    if marker.exists():
        return ok(payload, emit)
    marker.touch()
    return kill_zygote(payload, emit)


def stop_zygote(payload: Payload, emit: Emit) -> dict[str, Any]:
    os.kill(os.getppid(), signal.SIGSTOP)
    return hang(payload, emit)


def look(payload: Payload, emit: Emit) -> dict[str, Any]:
    """What a cell sees of the world."""
    temporary = tempfile.mkdtemp()
    (Path(temporary) / "left").write_text("behind")
    random_numbers = [random.random() for _ in range(2)]
    import json

    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, [])
    return outcome(
        environ=dict(os.environ),
        cwd=os.getcwd(),
        path=sys.path,
        json=json.__file__,
        prefix=sys.prefix,
        python=list(sys.version_info[:2]),
        temporary=temporary,
        random=random_numbers,
        own_group=os.getpgid(0) == os.getpid(),
        sigint_default=signal.getsignal(signal.SIGINT) == signal.SIG_DFL,
        blocked=len(blocked),
        threads=len(os.listdir("/proc/self/task")),
        fds=len(os.listdir("/proc/self/fd")),
        stdin=os.readlink("/proc/self/fd/0"),
        oom_score_adj=int(Path("/proc/self/oom_score_adj").read_text()),
        zygote=os.getppid(),
        zygote_fds=len(os.listdir(f"/proc/{os.getppid()}/fd")),
        modules=sorted(sys.modules),
    )


def meet(payload: Payload, emit: Emit) -> dict[str, Any]:
    """Waits for another cell to run at the same time."""
    Path(payload["mine"]).touch()
    _await(Path(payload["theirs"]).exists)
    return outcome()


def _await(there: Callable[[], Any]) -> None:
    """Wait until something is there, or fail: the pool's deadline is not what a test that waits is about."""
    deadline = time.monotonic() + PATIENCE_S
    while not there():
        assert time.monotonic() < deadline, "nobody came"
        time.sleep(0.001)


def burn(payload: Payload, emit: Emit) -> dict[str, Any]:
    """Uses the CPU for some seconds of wall time, in this process, a child or a daemon, and waits for its end."""
    emit({"event": "phase", "phase": payload["phase"]})
    end = time.monotonic() + payload["seconds"]
    code = f"import os, time\n{{}}\nwhile time.monotonic() < {end}: pass"
    if payload["where"] == "child":
        subprocess.run([sys.executable, "-c", code.format("os.setsid()")], check=True)
    elif payload["where"] == "daemon":
        subprocess.run([sys.executable, "-c", code.format("if os.fork(): os._exit(0)\nos.setsid()")], check=True)
        time.sleep(max(0.0, end - time.monotonic()))
    else:
        while time.monotonic() < end:
            pass
    return outcome()


def sleep(payload: Payload, emit: Emit) -> dict[str, Any]:
    """Sleeps in a phase for ever."""
    emit({"event": "phase", "phase": payload["phase"]})
    time.sleep(FOREVER_S)
    raise AssertionError("nobody ended it")
