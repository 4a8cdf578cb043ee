"""For every test: signals as a terminal has them, device locks of its run's own, PyTorch's backends switched on."""

import os
import signal
import sys
from collections.abc import Iterator

import pytest

#: One thread for PyTorch, here and in every cell: threads that wait for each other on cores that others use make small
#: operations thirty times slower. Before torch is imported, which reads it once.
os.environ.setdefault("OMP_NUM_THREADS", "1")


def pytest_addoption(parser: pytest.Parser) -> None:
    """--faults-table: where the table of tests/faults goes."""
    parser.addoption("--faults-table", default=None, metavar="FILE", help="write the faults seen, as Markdown")


def _as_in_a_terminal() -> None:
    """A runner in the background ignores SIGINT, or SIGHUP, and what it starts inherits that; tests send both."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in (signal.SIGHUP, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)


@pytest.fixture(scope="session", autouse=True)
def signals_as_in_a_terminal() -> None:
    """Before what a module's tests share is made."""
    _as_in_a_terminal()


@pytest.fixture(autouse=True)
def signals_as_before_a_command_that_one_ended(signals_as_in_a_terminal: None) -> None:
    """Such a command ignores them from then on; here its process goes on, to the next test."""
    _as_in_a_terminal()


@pytest.fixture(scope="session", autouse=True)
def own_locks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A sweep elsewhere on the machine makes no test wait; processes that tests start inherit it."""
    before = os.environ.get("ATTNSWEEP_LOCKS")
    os.environ["ATTNSWEEP_LOCKS"] = str(tmp_path_factory.mktemp("locks"))
    yield
    if before is None:
        del os.environ["ATTNSWEEP_LOCKS"]
    else:
        os.environ["ATTNSWEEP_LOCKS"] = before


@pytest.fixture(autouse=True)
def backends_as_a_new_process_has_them() -> Iterator[None]:
    """A cell that pins one of PyTorch's attention switches the others off for good: each has a process of its own, but
    not in tests that run it here.
    """
    yield
    if "torch" in sys.modules:
        for name in ("flash", "mem_efficient", "cudnn", "math"):
            getattr(sys.modules["torch"].backends.cuda, f"enable_{name}_sdp")(True)
