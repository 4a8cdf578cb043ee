"""A case refuses what is no problem, counts its visible pairs exactly, and has a name of its own."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator

import pytest

from attnsweep.case import BIASES, DIRECTIONS, DTYPES, Case
from attnsweep.errors import ConfigError

PLAIN = {
    "batch_size": 1,
    "q_len": 8,
    "kv_len": 8,
    "num_heads": 4,
    "num_kv_heads": 4,
    "head_dim": 16,
    "head_dim_v": 16,
}


def make(**changed: object) -> Case:
    return Case(**{**PLAIN, **changed})  # type: ignore[arg-type]


def masks() -> Iterator[Case]:
    sides = (-1, 0, 1, 2, 5, 9)
    windows = [None, *itertools.product(sides, sides)]
    for q_len, kv_len in itertools.product(range(1, 8), range(1, 10)):
        for causal, window in itertools.product((False, True), windows):
            if q_len <= kv_len or not (causal or window):
                yield make(q_len=q_len, kv_len=kv_len, causal=causal, window=window)


def test_visible_pairs_are_those_that_the_definition_shows() -> None:
    """The closed form agrees with counting, for every small mask."""
    count = 0
    for case in masks():
        pairs = itertools.product(range(case.q_len), range(case.kv_len))
        counted = sum(case.visible(query, key) for query, key in pairs)
        assert case.visible_pairs == counted, case
        assert case.masked == (counted < case.q_len * case.kv_len)
        count += 1
    assert count > 2000


def test_every_query_sees_at_least_itself() -> None:
    """No row of the softmax is empty in a case that was accepted."""
    for case in masks():
        rows = [any(case.visible(query, key) for key in range(case.kv_len)) for query in range(case.q_len)]
        assert all(rows), case


def test_a_causal_mask_is_aligned_bottom_right() -> None:
    """The last query sees every key, the first sees those of the cache and its own."""
    case = make(q_len=3, kv_len=8, causal=True)
    assert [sum(case.visible(query, key) for key in range(8)) for query in range(3)] == [6, 7, 8]
    assert case.visible_pairs == 3 * 8 - 3 * 2 // 2


def test_different_cases_have_different_names() -> None:
    """Over a grid of every field, with numbers that could be run together, no two names are equal."""
    grid = itertools.product(
        (1, 11),  # batch
        ((1, 11), (11, 11), (1, 111), (11, 111)),  # lengths
        ((4, 4), (4, 2), (42, 42), (4, 1)),  # heads
        ((16, 16), (16, 1), (161, 161), (1, 61)),  # head dims
        (False, True),
        (None, (-1, 0), (1, 0), (10, -1), (-1, -1)),
        BIASES,
        DTYPES,
        DIRECTIONS,
    )
    cases = [
        make(
            batch_size=batch_size,
            q_len=lengths[0],
            kv_len=lengths[1],
            num_heads=heads[0],
            num_kv_heads=heads[1],
            head_dim=dims[0],
            head_dim_v=dims[1],
            causal=causal,
            window=window,
            bias=bias,
            dtype=dtype,
            direction=direction,
        )
        for batch_size, lengths, heads, dims, causal, window, bias, dtype, direction in grid
    ]
    assert len({case.name for case in cases}) == len(set(cases)) == len(cases)


def test_a_name_is_short_and_can_be_part_of_a_file_name() -> None:
    """The example of the docstring, letter by letter."""
    case = make(q_len=1, kv_len=4096, num_heads=32, num_kv_heads=8, head_dim=128, head_dim_v=128, causal=True)
    assert case.name == "b1-h32x8-q1-kv4096-d128-causal-bf16-fwd"


def test_a_case_survives_json() -> None:
    """What crosses to the worker is the same case, its window a tuple again."""
    for window in (None, (3, 0)):
        case = make(window=window, direction="fwd_bwd", bias="dense")
        assert Case.from_dict(json.loads(json.dumps(case.to_dict()))) == case


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("batch_size", 0, "positive integer"),
        ("q_len", 1.0, "positive integer"),
        ("head_dim", True, "positive integer"),
        ("batch_size", 2**31, "2147483647 or less"),
        ("window", [2**31, 0], "2147483647"),
        ("causal", 1, "true or false"),
        ("window", [1], "[left, right]"),
        ("window", [1, -2], "-1"),
        ("window", [1.5, 0], "integers"),
        ("bias", "alibi", "none, dense"),
        ("dtype", "int3", "bf16"),
        ("direction", "backward", "fwd, bwd, fwd_bwd"),
        ("num_kv_heads", 3, "multiple of num_kv_heads"),
    ],
)
def test_a_mistake_is_answered_with_the_field_and_the_choices(field: str, value: object, said: str) -> None:
    """One sentence names the field and what it may be."""
    with pytest.raises(ConfigError) as caught:
        make(**{field: value})
    assert field in str(caught.value)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    "fields", [{"q_len": 2**31 - 1, "kv_len": 2**31 - 1}, {"head_dim_v": 2**31 - 1, "batch_size": 2**31 - 1}]
)
def test_what_no_size_can_say_is_refused(fields: dict[str, int]) -> None:
    """Scores or tensors of 2^63 bytes and more would overflow a size, not run out of memory."""
    with pytest.raises(ConfigError, match="this problem is too large"):
        make(**{"num_heads": 8, "num_kv_heads": 8, **fields})


@pytest.mark.parametrize("mask", [{"causal": True}, {"window": (4, 0)}])
def test_more_queries_than_keys_need_no_mask(mask: dict[str, object]) -> None:
    """Bottom-right leaves the first queries without a key, so it is refused; without a mask it is fine."""
    with pytest.raises(ConfigError, match="q_len"):
        make(q_len=9, kv_len=8, **mask)
    assert make(q_len=9, kv_len=8).visible_pairs == 72


def test_derived_fields_follow_from_the_case() -> None:
    """Scale, group size, bounds and the causal flag for libraries that align top-left."""
    case = make(q_len=1, num_heads=8, num_kv_heads=2, causal=True, window=(5, 3), dtype="fp32")
    assert case.scale == 0.25
    assert case.group_size == 4
    assert case.bounds == (5, 0)
    assert case.element_size == 4
    assert not case.effective_causal
    assert make(causal=True).effective_causal
