"""A process with Triton's interpreter, for all tests of kernels."""

from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import interpreting
import pytest


@pytest.fixture(scope="session")
def interpreted():
    """interpreted(function, *arguments): what a function of a module that a test may import returns there."""
    with ProcessPoolExecutor(1, get_context("spawn"), interpreting.switch_on) as pool:
        yield lambda function, *arguments, **keywords: pool.submit(function, *arguments, **keywords).result()
