"""For every test: device locks of this run's own, so that a sweep elsewhere on the machine makes no test wait."""

import os
from collections.abc import Iterator

import pytest


@pytest.fixture(scope="session", autouse=True)
def own_locks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Processes that tests start inherit it."""
    before = os.environ.get("ATTNSWEEP_LOCKS")
    os.environ["ATTNSWEEP_LOCKS"] = str(tmp_path_factory.mktemp("locks"))
    yield
    if before is None:
        del os.environ["ATTNSWEEP_LOCKS"]
    else:
        os.environ["ATTNSWEEP_LOCKS"] = before
