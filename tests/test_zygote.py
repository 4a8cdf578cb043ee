"""The zygote's own contract: what it may import, what it says over its socket, and when it refuses."""

from __future__ import annotations

import array
import ast
import ctypes
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from attnsweep import child, zygote
from attnsweep.pool import pyenv

SOURCES = [Path(module.__file__) for module in (zygote, child)]


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.name)
def test_it_is_python_3_9_and_the_standard_library(path):
    """It runs in whatever environment an implementation lives in."""
    tree = ast.parse(path.read_text(), feature_version=(3, 9))
    imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    imported |= {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    foreign = {name for name in imported if name.partition(".")[0] not in sys.stdlib_module_names}
    assert foreign <= {"attnsweep.child"}


@pytest.fixture
def pair():
    """Both ends of a control socket: the parent's and the zygote's."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        yield ours, theirs


def send(sock: socket.socket, message: object, fds: tuple[int, ...] = ()) -> None:
    """One message with descriptors."""
    sock.sendmsg([json.dumps(message).encode()], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))])


def test_received_descriptors_are_not_inheritable(pair):
    """Or every subprocess of a cell would hold them."""
    ours, theirs = pair
    send(ours, {"a": 1}, (0, 1))
    message, fds = zygote.receive(theirs)
    assert message == {"a": 1}
    assert [os.get_inheritable(fd) for fd in fds] == [False, False]
    for fd in fds:
        os.close(fd)


def test_a_cut_message_is_an_error(pair):
    """More descriptors than there is room for must not vanish in silence."""
    ours, theirs = pair
    send(ours, {}, (0,) * 9)
    with pytest.raises(OSError, match="cut"):
        zygote.receive(theirs)


def test_end_of_file_and_a_reset_both_mean_that_nobody_is_there(pair):
    """A peer that dies with unread packets gives ECONNRESET."""
    ours, theirs = pair
    theirs.send(b"unread")
    ours.close()
    assert zygote.receive(theirs) is None
    assert zygote.send(theirs, {}) is False


def test_a_fork_that_fails_is_reported_and_costs_nothing_else(pair, monkeypatch):
    """The zygote stays; the parent can say what happened."""
    ours, theirs = pair

    def fork():
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(os, "fork", fork)
    before = len(os.listdir("/proc/self/fd"))
    send(ours, {"id": "a"}, (0, 1))
    send(ours, {"id": "a", "signal": 15})
    send(ours, {"id": "b"}, (0, 1))
    ours.shutdown(socket.SHUT_WR)
    assert zygote.serve(theirs) is None
    answers = [json.loads(ours.recv(4096)) for _ in range(2)]
    assert [answer["id"] for answer in answers] == ["a", "b"]
    assert "temporarily unavailable" in answers[0]["failed"]
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize(("answer", "initialised"), [(3, False), (0, True), (100, True)])
def test_cuda_is_initialised_unless_the_driver_denies_it(monkeypatch, answer, initialised):
    """CUDA_ERROR_NOT_INITIALIZED is 3; the driver is asked only where somebody has loaded it."""
    modes = []

    class Driver:
        def __init__(self, name, mode):
            modes.append((name, mode & os.RTLD_NOLOAD))

        def cuDeviceGetCount(self, count):
            return answer

    monkeypatch.setattr(ctypes, "CDLL", Driver)
    assert zygote.cuda_initialised() is initialised
    assert modes == [("libcuda.so.1", os.RTLD_NOLOAD)]


def test_cuda_is_not_initialised_where_nobody_loaded_the_driver():
    """And asking does not load it."""
    code = (
        "from attnsweep import zygote\n"
        "assert not zygote.cuda_initialised()\n"
        "assert 'libcuda' not in open('/proc/self/maps').read()\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def start(hello: dict | None) -> tuple[int, dict | None]:
    """Run a real zygote that is told `hello` and then left alone; its exit code and its answer."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        process = subprocess.Popen(
            [sys.executable, "-m", "attnsweep.zygote", str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            cwd=pyenv.import_folder(),
            stderr=subprocess.PIPE,
        )
        theirs.close()
        answer = None
        if hello is not None:
            send(ours, hello)
            answer = json.loads(ours.recv(1 << 20))
        ours.close()
        process.communicate(timeout=30)
    return process.returncode, answer


def test_it_ends_when_its_parent_does():
    """Before anything was said, and after."""
    assert start(None) == (0, None)
    code, answer = start({"preload": ["json"], "run": "base64:b64encode"})
    assert code == 0
    assert answer["ready"]
    assert answer["threads"] == 1
    assert answer["versions"] == {"json": json.__version__, "base64": ""}
    assert answer["python"] == ".".join(str(part) for part in sys.version_info[:3])
    assert answer["import_s"] > 0


@pytest.mark.parametrize(
    ("hello", "why", "needs"),
    [
        ({"preload": ["nowhere.at_all"], "run": "json:dumps"}, "No module named 'nowhere'", "nowhere"),
        ({"preload": [], "run": "json:no_such_function"}, "no_such_function", None),
        ({"preload": [], "run": "antigravity_free:run"}, "No module named 'antigravity_free'", "antigravity_free"),
    ],
)
def test_it_says_why_it_cannot_serve(hello, why, needs):
    """And ends with exit code 3."""
    code, answer = start(hello)
    assert code == 3
    assert answer["ready"] is False
    assert why in answer["why"]
    assert answer["needs"] == needs


def test_a_channel_ends_the_process_rather_than_write_elsewhere(tmp_path):
    """The descriptor's number may belong to another file by now."""
    code = (
        "import os, sys\n"
        "from attnsweep.child import Channel\n"
        "read, write = os.pipe()\n"
        "channel = Channel(write, 'token')\n"
        "channel.emit({'event': 'phase'})\n"
        "assert b'token' in os.read(read, 4096)\n"
        "os.dup2(os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT), write)\n"
        "channel.emit({'event': 'phase'})\n"
    )
    victim = tmp_path / "victim"
    assert subprocess.run([sys.executable, "-c", code, str(victim)]).returncode == child.EXIT_PIPE_LOST
    assert victim.read_bytes() == b""
