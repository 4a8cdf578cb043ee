"""On a GPU: each implementation of conf/impl is right in what it claims, or says why it cannot.

ATTNSWEEP_CAPABILITIES says how much is asked: 3,3 is three single questions and three pairs of each implementation, all
is everything. `,i/n` after either is the i-th of n parts, for n GPUs, and some processes each: most of a cell's time
is its process's start. Ten on an H200 with 16 CPU cores answer a question a second.

    CUDA_VISIBLE_DEVICES=0 ATTNSWEEP_CAPABILITIES=all,1/40 python -m pytest -m gpu tests/gpu/test_capabilities.py

ATTNSWEEP_ANSWERED=FILE leaves out what such a file has as correct or `unsupported`, to go on where time ended another.
With --junitxml=1.xml each says how its questions ended, and `python benchmarks/capabilities.py 1.xml 2.xml ...` makes
tables of that; docs/results/capabilities has some.
"""

import os
import random
import re
import runpy
from pathlib import Path

import pytest
from cell_runs import run

from attnsweep import capabilities, devices, impls

pytestmark = pytest.mark.gpu

IMPLS = capabilities.implementations()
#: A cell is a process, and some compile in it.
ASKED = os.environ.get("ATTNSWEEP_CAPABILITIES", "3,3")
ANSWERED = os.environ.get("ATTNSWEEP_ANSWERED")
READ = runpy.run_path(str(Path(__file__).parents[2] / "benchmarks" / "capabilities.py"))["read"]
#: What of an implementation's own is too old for the compilers of today: it may fail there, and by no other word.
OUTDATED = {"fa2_triton": "trans_b"}


def parameters(asked, answered=None):
    """What each implementation claims on an H200, as much of it as `asked` says, the same each time, without those that
    the junit file `answered` has as right.
    """
    said = re.fullmatch(r"(?:all|(\d+),(\d+))(?:,(\d+)/(\d+))?", asked)
    part, parts = (int(said[3] or 1), int(said[4] or 1)) if said else (0, 0)
    if not 1 <= part <= parts:
        raise ValueError(f"ATTNSWEEP_CAPABILITIES must be such as 3,3 or all or all,1/4, not {asked}")
    found = []
    for name, impl in IMPLS.items():
        alone, pairs = capabilities.claimed(impl, capabilities.H200)
        for cases, count in ((alone, said[1]), (pairs, said[2])):
            most = len(cases) if count is None else min(int(count), len(cases))
            for question in random.Random(name).sample(list(cases), most):
                found.append(pytest.param(name, cases[question], id=f"{name}-{question}"))
    endings = {} if answered is None else READ(Path(answered))
    right = {"-".join(one) for one, ending in endings.items() if ending.status in ("ok", "unsupported")}
    return [one for one in found if one.id not in right][part - 1 :: parts]


@pytest.fixture(scope="module")
def device():
    """The GPU that cells run on."""
    return devices.find("cuda")[0]


@pytest.mark.timeout(600)  # FlashInfer compiles for up to a minute, autotuning takes longer
@pytest.mark.parametrize(("name", "case"), parameters(ASKED, ANSWERED))
def test_what_is_claimed_is_correct_or_unsupported_with_a_reason(name, case, device, record_property):
    """Never incorrect, never an error; what is not installed, or refuses this GPU, is skipped."""

    def told(status, reason):
        record_property("status", status)
        record_property("reason", reason or "")

    impl = IMPLS[name]
    for status, why in (
        ("missing", impls.why_missing(impl)),
        ("not claimed", capabilities.why_unsupported(impl, case, device)),
    ):
        if why is not None:
            told(status, why)
            pytest.skip(why)
    variables = (impl.get("env") or {}).get("variables")
    timing = {"min_time_s": 0.01, "time_cap_s": 0.1}
    outcome = run(name, capabilities.compile_mode(impl, device), variables, timing, **case.to_dict())
    told(outcome["status"], outcome["reason"])
    if outcome["status"] == "missing":
        pytest.skip(outcome["reason"])
    if outcome["status"] == "compile_error" and name in OUTDATED:
        assert OUTDATED[name] in outcome["traceback"]
        return
    assert outcome["status"] in ("ok", "unsupported"), (outcome["reason"], outcome["traceback"])
    if outcome["status"] == "ok":
        assert outcome["columns"]["check"] == "passed"
    else:
        assert outcome["reason"]
