"""Entry points for cells that misbehave in every way the pool has to survive: `fakes:run` does payload["do"]."""

from __future__ import annotations

import ctypes
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Callable

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


def signal_self_once(payload: Payload, emit: Emit) -> dict[str, Any]:
    marker = Path(payload["marker"])
    if marker.exists():
        return ok(payload, emit)
    marker.touch()
    return signal_self(payload, emit)


def segfault(payload: Payload, emit: Emit) -> dict[str, Any]:
    ctypes.string_at(0)
    raise AssertionError("address 0 can be read")


def hang(payload: Payload, emit: Emit) -> dict[str, Any]:
    emit({"event": "phase", "phase": "timing"})
    if "marker" in payload:
        Path(payload["marker"]).touch()
    while True:
        time.sleep(3600)


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


def flood(payload: Payload, emit: Emit) -> dict[str, Any]:
    print("the beginning", flush=True)
    line = b"x" * 99 + b"\n"
    for _ in range(payload["bytes"] // 100_000):
        os.write(2, line * 1000)
    print("the end")
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


def close_everything(payload: Payload, emit: Emit) -> dict[str, Any]:
    os.closerange(0, 4096)
    return outcome()


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
        time.sleep(3600)
        os._exit(0)
    while not (Path(payload["marker"]).exists() and Path(payload["marker"]).read_text()):
        time.sleep(0.001)
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
    while not Path(payload["theirs"]).exists():
        time.sleep(0.001)
    return outcome()
