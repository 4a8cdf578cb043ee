"""On a GPU: each implementation of conf/impl is right in what it claims, or says why it cannot."""

import os
import random

import pytest
from cell_runs import run

from attnsweep import capabilities, devices, impls

pytestmark = pytest.mark.gpu

IMPLS = capabilities.implementations()
#: Single questions and pairs of each implementation: a cell is a process, and some compile in it. None has more than 20
#: and 119.
SINGLES, PAIRS = map(int, os.environ.get("ATTNSWEEP_CAPABILITIES", "3,3").split(","))
#: What of an implementation's own is too old for the compilers of today: it may fail there, and by no other word.
OUTDATED = {"fa2_triton": "trans_b"}
#: Several blocks of any kernel.
TOKENS = 512


def parameters():
    """A sample, the same each time, of what each implementation claims on an H200."""
    found = []
    for name, impl in IMPLS.items():
        alone = {(question,): case for question, case in capabilities.singles(impl, TOKENS).items()}
        for asked, count in ((alone, SINGLES), (capabilities.pairs(impl, TOKENS), PAIRS)):
            claimed = [one for one in asked if not capabilities.why_unsupported(impl, asked[one], capabilities.H200)]
            for questions in random.Random(name).sample(claimed, min(count, len(claimed))):
                found.append(pytest.param(name, asked[questions], id=f"{name}-{' + '.join(questions)}"))
    return found


@pytest.fixture(scope="module")
def device():
    """The GPU that cells run on."""
    return devices.find("cuda")[0]


@pytest.mark.timeout(600)  # FlashInfer compiles for up to a minute, autotuning takes longer
@pytest.mark.parametrize(("name", "case"), parameters())
def test_what_is_claimed_is_correct_or_unsupported_with_a_reason(name, case, device):
    """Never incorrect, never an error; what is not installed, or refuses this GPU, is skipped."""
    impl = IMPLS[name]
    why = impls.why_missing(impl) or capabilities.why_unsupported(impl, case, device)
    if why is not None:
        pytest.skip(why)
    variables = (impl.get("env") or {}).get("variables")
    timing = {"min_time_s": 0.01, "time_cap_s": 0.1}
    outcome = run(name, capabilities.compile_mode(impl, device), variables, timing, **case.to_dict())
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
