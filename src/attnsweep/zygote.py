"""The warm process: `python -m attnsweep.zygote FD` imports a framework once and forks a child for each cell.

It never computes and never touches the GPU, so that every child starts clean. It serves one cell at a time
over the `SOCK_SEQPACKET` socket FD, one packet a JSON message; end of file means death in both directions:

    parent -> zygote  {"preload": ["torch"], "run": "attnsweep.worker:run"} + descriptors to hold        once
    zygote -> parent  {"ready": true, "pid", "python", "versions": {}, "threads": 1, "import_s"}
                      {"ready": false, "why": "ModuleNotFoundError: ...", "needs": "torch"}      then exit 3
                      {"ready": false, "why": "importing jax ...", "unfit": true}                the same
    parent -> zygote  {"id", "token", "payload", "seed", "env": {}, "cwd"} + descriptors [outcome, log]
    zygote -> parent  {"id", "pid"}                         right after the fork, or {"id", "failed": why}
    parent -> zygote  {"id", "signal": 15}                  ignored when that cell is already over
    zygote -> parent  {"id", "exit": code or -signal, "maxrss_kib", "strays", "left"}
    child  -> outcome {"token", "event": "phase", ...}\\n ... {"token", "outcome": {...}}\\n

Standard library only, Python 3.9 on: it runs in any environment that an implementation asks for, and what it
runs is data.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import importlib
import json
import os
import select
import signal
import socket
import sys
import time
import traceback
from typing import List, NoReturn, Optional, Tuple

from attnsweep.child import PR_SET_CHILD_SUBREAPER, Caught, Entry, Job, Message, become, prctl

_CUDA_ERROR_NOT_INITIALIZED = 3
#: More than a packet can carry (some 200 kB), so that one is never cut in silence.
_PACKET_BYTES = 1 << 20
#: How long the killing of one cell's leftovers may take before the parent is told that some are left.
_STRAYS_S = 5.0


def main(argv: List[str]) -> NoReturn:
    """Serve the socket whose descriptor is argv[1] until its other end is gone."""
    control = socket.socket(fileno=int(argv[1]))
    control.set_inheritable(False)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    hello = receive(control)
    if hello is None:
        os._exit(0)
    ready, entry = prepare(hello[0])
    connected = send(control, ready)
    if entry is None:
        os._exit(3)
    job = serve(control) if connected else None
    if job is None:
        os._exit(0)
    # From here on this is a forked child. It must not keep what tells others that parent or sweep is alive.
    control.close()
    for held in hello[1]:
        os.close(held)
    become(job, entry)


def receive(control: socket.socket) -> Optional[Tuple[Message, List[int]]]:
    """The next message and the descriptors with it (not inheritable), or None when nobody is there."""
    try:
        # Not socket.recv_fds: it ignores its flags, and every subprocess of a cell would get the descriptors.
        data, ancillary, flags, _ = control.recvmsg(_PACKET_BYTES, socket.CMSG_SPACE(8 * 4), socket.MSG_CMSG_CLOEXEC)
    except ConnectionError:
        return None
    if not data:
        return None
    if flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC):
        raise OSError("a message was cut on its way")
    fds = [
        int.from_bytes(body[start : start + 4], sys.byteorder)
        for level, kind, body in ancillary
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS
        for start in range(0, len(body) - len(body) % 4, 4)
    ]
    return json.loads(data), fds


def send(control: socket.socket, message: Message) -> bool:
    """Send one message; False when nobody is there."""
    try:
        control.send(json.dumps(message).encode(), socket.MSG_NOSIGNAL)
    except ConnectionError:
        return False
    return True


def prepare(hello: Message) -> Tuple[Message, Optional[Entry]]:
    """Import what the parent named; the answer to it, and the entry point unless this process is unfit."""
    start = time.monotonic()
    module_name, _, function = hello["run"].partition(":")
    versions = {}
    entry = None
    with Caught() as caught:
        os.close(os.pidfd_open(os.getpid()))
        prctl(PR_SET_CHILD_SUBREAPER, 1)
    if caught.value is not None:
        return {"ready": False, "why": f"Linux 5.3 and Python 3.9 or newer are needed ({caught})"}, None
    for name in [*hello["preload"], module_name]:
        with Caught() as caught:
            module = importlib.import_module(name)
            versions[name] = str(getattr(module, "__version__", ""))
            if name == module_name:
                entry = getattr(module, function)
        if caught.value is not None:
            traceback.print_exception(type(caught.value), caught.value, caught.value.__traceback__)
            needs = caught.value.name if isinstance(caught.value, ModuleNotFoundError) else None
            return {"ready": False, "why": str(caught), "needs": needs}, None
        unfit = why_unfit()
        if unfit is not None:
            return {"ready": False, "why": f"importing {name} {unfit}", "unfit": True}, None
    if "numpy" in sys.modules:
        # numpy imports it on first use, and every child would: 10 ms, to seed it.
        importlib.import_module("numpy.random")
    # What lives now is shared with every child for as long as no collection writes to it.
    gc.collect()
    gc.freeze()
    return {
        "ready": True,
        "pid": os.getpid(),
        "python": ".".join(str(part) for part in sys.version_info[:3]),
        "versions": versions,
        "threads": 1 + len(_threads()),
        "import_s": time.monotonic() - start,
    }, entry


def why_unfit() -> Optional[str]:
    """Why a child forked from here would hang or fail (threads, CUDA initialised), or None."""
    deadline = time.monotonic() + 0.5
    # A thread that was joined stays in /proc for a moment; before Linux 6.9 no descriptor tells when one is gone.
    while _threads() and time.monotonic() < deadline:
        time.sleep(0.005)
    if _threads():
        return f"started threads ({', '.join(_threads())}), and a forked child would hang without them"
    if cuda_initialised():
        return "initialised CUDA, and CUDA cannot be used in a forked child after that"
    return None


def _threads() -> List[str]:
    """Names of the threads beside the main one, without the CUDA driver's own.

    The driver's library starts a thread named cuda... when torch's compiler is imported, before anybody calls cuInit
    (seen on torch 2.11+cu130, driver 580); a child does without it, and `cuda_initialised` is the guard for the rest.
    """
    names = []
    for task in os.listdir("/proc/self/task"):
        if int(task) != os.getpid():
            # A thread that ended meanwhile is none.
            with contextlib.suppress(OSError), open(f"/proc/self/task/{task}/comm") as comm:
                names.append(comm.read().strip())
    return [name for name in names if not name.startswith("cuda")]


def cuda_initialised() -> bool:
    """Whether anybody called cuInit in this process; asking does not initialise, nor load the driver."""
    try:
        driver = ctypes.CDLL("libcuda.so.1", mode=os.RTLD_NOLOAD | os.RTLD_LAZY)
    except OSError:
        return False
    return bool(driver.cuDeviceGetCount(ctypes.byref(ctypes.c_int())) != _CUDA_ERROR_NOT_INITIALIZED)


def serve(control: socket.socket) -> Optional[Job]:
    """Fork a child for each request. Returns None at end of file, and in each child its own job."""
    zygote = os.getpid()
    connected = True
    while connected:
        packet = receive(control)
        if packet is None:
            break
        request, fds = packet
        if "signal" in request:
            continue
        outcome, log = fds
        sys.stdout.flush()
        sys.stderr.flush()
        pid, failed = -1, None
        try:
            pid = os.fork()
        except OSError as error:
            failed = str(error)
        if pid == 0:
            return Job(request, outcome, log, zygote)
        os.close(outcome)
        os.close(log)
        if failed is not None:
            connected = send(control, {"id": request["id"], "failed": failed})
        else:
            connected = _attend(control, request["id"], pid)
    return None


def _attend(control: socket.socket, cell: str, pid: int) -> bool:
    """Wait for a child, pass the parent's signals on, report its end; False when the parent is gone."""
    # The child does the same: without both, a signal could come before the group is there.
    with contextlib.suppress(OSError):
        os.setpgid(pid, pid)
    pidfd = os.pidfd_open(pid)
    connected = send(control, {"id": cell, "pid": pid})
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    if connected:
        poll.register(control, select.POLLIN)
    else:
        _signal(pid, pidfd, signal.SIGKILL)
    while True:
        ready = {fd for fd, _ in poll.poll()}
        if pidfd in ready:
            break
        packet = receive(control)
        if packet is None:
            connected = False
            poll.unregister(control)
            _signal(pid, pidfd, signal.SIGKILL)
        elif packet[0].get("id") == cell and "signal" in packet[0]:
            _signal(pid, pidfd, packet[0]["signal"])
    # Before the child is reaped: its zombie still pins the process id and with it the group.
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)
    os.close(pidfd)
    _, status, usage = os.wait4(pid, 0)
    killed, left = _kill_strays()
    report = {
        "id": cell,
        "exit": os.waitstatus_to_exitcode(status),
        "maxrss_kib": usage.ru_maxrss,
        "strays": killed,
        "left": left,
    }
    return connected and send(control, report)


def _signal(pid: int, pidfd: int, number: int) -> None:
    """Signal a child's process group, or the child alone where it has left its group."""
    try:
        os.killpg(pid, number)
    except ProcessLookupError:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(pidfd, number)
        return
    if number == signal.SIGKILL:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(pidfd, number)


def _kill_strays() -> Tuple[int, int]:
    """Kill and reap whatever a cell left behind, daemons included; how many were killed, how many resisted.

    This process is a subreaper and serves one cell at a time, so that every child it has now is a stray.
    """
    deadline = time.monotonic() + _STRAYS_S
    killed = 0
    while True:
        strays = _children()
        if not strays or time.monotonic() > deadline:
            return killed, len(strays)
        for pid in strays:
            os.kill(pid, signal.SIGKILL)
        for pid in strays:
            pidfd = os.pidfd_open(pid)
            poll = select.poll()
            poll.register(pidfd, select.POLLIN)
            if poll.poll(max(0.0, deadline - time.monotonic()) * 1e3):
                os.waitpid(pid, 0)
                killed += 1
            os.close(pidfd)


def _children() -> List[int]:
    with open(f"/proc/self/task/{os.getpid()}/children") as file:
        return [int(pid) for pid in file.read().split()]


if __name__ == "__main__":
    main(sys.argv)
