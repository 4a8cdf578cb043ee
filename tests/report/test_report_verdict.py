"""The verdict names who is fastest, and claims nothing that the data do not carry."""

from __future__ import annotations

from report_records import decode, prefill
from test_report_derive import failed, only, row, standing

from attnsweep.errors import Status
from attnsweep.report.derive import derive
from attnsweep.report.notes import Footnotes
from attnsweep.report.summary import best_table
from attnsweep.report.verdict import verdict


def test_a_tie_of_many_or_of_one_implementation_is_said_in_short() -> None:
    """The first by name and how many others; the next is the first that is really slower."""
    pair = [row("fa2", 1.0), row("fa2", 1.001, compile="default"), row("naive", 1.05)]
    assert verdict(only(pair)) == (
        "1 of 1 case is a tie for the fastest: fa2 is tied with 1 other, 1.05x the speed of naive (geometric mean). "
        "Next is naive."
    )
    many = [row(impl, 1.0) for impl in ("a", "b", "c", "d")]
    assert verdict(only(many)).startswith("1 of 1 case is a tie for the fastest: a is tied with 3 others")


def test_who_ties_by_the_very_same_kernels_is_told() -> None:
    """Whole names and Triton's choice must agree; where no kernel was seen nothing is the same."""
    names = {"kernel_names": ["void flash<64>", "void flash_join"]}
    mine = [row("fa2", 1.0, **names), row("fa2", 1.001, compile="default", **names)]
    others = [
        row("x", 1.0, kernel_names=["void flash<128>", "void flash_join"]),
        row("y", 1.0, autotuned_configs=["flash: BLOCK_M=64"], **names),
        row("z", 1.0, kernel_names=None),
    ]
    section = only(mine + others)
    assert "fa2 is tied with 4 others (1 by the same kernels)" in verdict(section)
    derived = derive(mine + others)
    assert best_table(section, Footnotes(derived)).rows[0][2].text == "4 others (1 by the same kernels)"
    unseen = [row(impl, 1.0, kernel_names=None) for impl in ("a", "b")]
    assert verdict(only(unseen)) == "1 of 1 case is a tie between a and b."
    apart = [row("a", 1.0, replicate=one, kernel_names=[name]) for one, name in enumerate(names["kernel_names"])]
    assert verdict(only([*apart, row("b", 1.0, **names)])) == "1 of 1 case is a tie between a and b."
    pair = [row(impl, 1.0, **names) for impl in ("a", "b")]
    assert verdict(only(pair)) == "1 of 1 case is a tie between a and b, which ran the same kernels."
    variants = [row("a", 1.0, variant=f"block_q={size}", **names) for size in (64, 128)]
    assert "the same kernels" not in verdict(only(variants))
    others = [row("a", 1.0, variant="block_q=64", **names), row("b", 1.0, **names)]
    assert "which ran the same kernels" in verdict(only(others))
    for name in ("triton_tem_fused_zeros_2", "triton_"):
        inductors = [row(impl, 1.0, kernel_names=[name]) for impl in ("a", "b")]
        assert verdict(only(inductors)) == "1 of 1 case is a tie between a and b."


def test_a_winner_of_most_cases_may_be_slower_in_the_mean() -> None:
    """Then it is not called the fastest without saying so: two wins by 20 % and a loss by a factor of four."""
    points = [prefill(1, length) for length in (1024, 2048, 4096)]
    found = [row("fa2", ms, point) for ms, point in zip((1.0, 1.0, 4.0), points, strict=True)]
    found += [row("flex", ms, point) for ms, point in zip((1.2, 1.2, 1.0), points, strict=True)]
    said = verdict(only(found))
    assert said.startswith("fa2 is fastest in 2 of 3 cases")
    assert "In the mean over all cases flex is faster and takes 29% less time" in said


def test_a_tie_is_not_named_after_a_borrowed_kernel() -> None:
    """Where the compiler put another implementation's kernel in, that one is named."""
    section = only([row("naive", 1.0, compile="default", flags=["substituted"]), row("cudnn", 1.001), row("x", 1.0)])
    assert "cudnn is tied with 2 others" in verdict(section) or "x is tied with 2 others" in verdict(section)
    assert "naive (default) is tied" not in verdict(section)


def test_the_only_one_with_a_result_is_said_to_be_that() -> None:
    """One implementation wins against nobody."""
    section = only([row("fa2", 1.0), failed("naive")])
    assert verdict(section) == "fa2 alone has a result (1 of 1 case)."
    assert (standing(section, "fa2").wins, standing(section, "fa2").unopposed) == (0, 1)


def test_failures_alone_make_a_table_without_a_winner() -> None:
    """All statuses but ok: nothing is ranked, and the verdict says so."""
    section = only([failed("fa2", status, decode(1, 2048)) for status in Status if status is not Status.OK])
    assert section.standings == ()
    assert verdict(section) == "Nothing is ranked in 1 case: see the failures."


def test_the_verdict_names_winner_speed_baseline_and_marks() -> None:
    """All in one sentence or two; a fall-back is not hidden behind a win."""
    section = only([row("fa2", 1.0, flags=["fallback"]), row("flex", 1.5), row("naive", 3.0)])
    assert verdict(section) == (
        "fa2 is fastest in 1 of 1 case, 3.00x the speed of naive (geometric mean). "
        "Next is flex, which takes 1.50x its time. Marks on fa2: fallback."
    )


def test_the_verdict_warns_of_rough_ratios() -> None:
    """A factor over a baseline that is known to 40 % is not a factor to quote."""
    section = only([row("fa2", 1.0), row("naive", 3.0, width=0.4)])
    assert "Ratios are rough: the worst case is known for naive to ±40%." in verdict(section)
    assert "rough" not in verdict(only([row("fa2", 1.0), row("naive", 3.0)]))
    wild = row("naive", 3.0) | {"latency_ci_high_ms": 200.0}
    assert "the worst case is known for naive to a factor of 67." in verdict(only([row("fa2", 1.0), wild]))


def test_a_win_without_an_interval_is_not_claimed_to_be_sure() -> None:
    """Kernel time of one process has no interval, and the reader is told what that means."""
    rows = [row("fa2", 1.0, timer="graph", kernel_ms=0.6), row("jax", 2.0, kernel_ms=0.9)]
    assert verdict(only(rows)).endswith("Some of these have no interval: differences above 2% were taken for real.")


def test_on_a_cpu_without_intervals_more_is_needed() -> None:
    """The floor that is told is that of the clock, and none where nothing was decided."""
    none = {"latency_ci_low_ms": None, "latency_ci_high_ms": None}
    told = "Some of these have no interval: differences above 50% were taken for real."
    for flags, ends in (([], True), (["contended"], False)):
        rows = [row(name, ms, timer="host", flags=flags) | none for name, ms in (("fa2", 1.0), ("naive", 3.0))]
        assert verdict(only(rows)).endswith(told) is ends


def test_a_tie_by_the_levels_of_a_graph_is_said_to_be_one() -> None:
    """And how many of several are; one that the intervals make, or of other timers, is a tie without it."""
    told = "on the two levels of a CUDA graph: differences up to 0.45 us a kernel were not taken for real"
    points = [decode(1, length) for length in (2048, 4096)]

    def said(*further_us: float, timer: str = "graph") -> str:
        rows = [row("fa2", 14e-3, point, timer=timer, kernel_count=2) for point in points[: len(further_us)]]
        rows += [
            row("flex", (14 + more) * 1e-3, point, timer=timer, kernel_count=2)
            for more, point in zip(further_us, points, strict=False)
        ]
        return verdict(only(rows))

    assert said(0.7) == f"1 of 1 case is a tie between fa2 and flex. The tie rests {told}."
    assert f"2 of 2 cases are ties between fa2 and flex. 1 of the ties rests {told}" in said(0.7, 0.05)
    assert f"2 of the ties rest {told}" in said(0.7, 0.6)
    assert "levels" not in said(0.05) + said(1.0) + said(0.7, timer="events")
    between = (
        "what lies between the kernels of a call: differences up to 1.75 us a kernel of the faster call and 0.75 us "
    )
    assert said(4.8, timer="kernel").endswith(f"The tie rests on {between}one of the slower were not taken for real.")


def test_a_tie_may_rest_on_both() -> None:
    """By a graph with one, and by their kernels with another that has nothing else."""
    rows = [row("a", 14.0e-3, timer="graph", kernel_count=2), row("b", 14.7e-3, timer="graph", kernel_count=2)]
    said = verdict(only([*rows, row("jax", 15.0e-3, timer="kernel", kernel_count=2)]))
    assert "The tie rests on the two levels of a CUDA graph" in said
    assert "The tie rests on what lies between the kernels of a call" in said


def test_a_tie_may_rest_on_what_the_first_has_between_its_kernels() -> None:
    """The other has the lower latency, without that, and comes last for it."""
    rows = [row("jax", 28.5e-3, timer="kernel", kernel_count=4)]
    rows += [row("fa2", 33.6e-3, timer="graph", kernel_ms=30e-3, kernel_count=1)]
    assert "The tie rests on what lies between the kernels of a call" in verdict(only(rows))


def test_what_is_not_compared_with_the_first_is_next_without_a_ratio() -> None:
    """Others beat it, of which each has but one case."""
    rows = []
    for point, other in ((decode(1, 2048), "b"), (decode(1, 4096), "c")):
        rows += [row("a", 1.0, point, timer="graph", kernel_ms=None), row(other, 2.0, point, timer="graph")]
        rows += [row("jax", 9.0, point, timer="kernel", kernel_ms=9.0), row("naive", 50.0, point, timer="graph")]
    assert verdict(only(rows, baseline="b")).endswith("Next is naive, which takes 50.0x its time.")
    assert verdict(only([one for one in rows if one["impl"] != "naive"], baseline="b")).endswith("Next is jax.")


def test_a_quantised_one_is_not_set_beside_what_it_is_not_compared_with() -> None:
    """CUPTI saw none of the others' kernels."""
    rows = [row("a", 1.0, timer="graph", kernel_ms=None), row("b", 1.0, timer="graph", kernel_ms=None)]
    rows += [row("jax", 9.0, timer="kernel", precision_class="int8")]
    told = "Nothing that is quantised (int8) has a case in common with a result in the case's own precision"
    assert verdict(only(rows)).startswith("1 of 1 case is a tie between a and b")
    assert told in verdict(only(rows))


def test_beside_a_tie_by_the_timer_the_other_differences_are_the_floors() -> None:
    """Of what has no interval 2 % are not told as enough where more was asked."""
    none = {"latency_ci_low_ms": None, "latency_ci_high_ms": None, "timer": "kernel", "kernel_count": 2}
    rows = [row(impl, ms) | none for impl, ms in (("fa2", 14e-3), ("flex", 17e-3), ("naive", 1.0))]
    told = "differences above 2% were taken for real"
    assert f"Some of these have no interval: other {told}." in verdict(only(rows))
    assert f"Some of these have no interval: {told}." in verdict(only([rows[0], rows[2]]))


def test_a_quantised_one_is_faster_only_where_it_beats() -> None:
    """A tie in all cases or in some is told as such, and a mean that no win is behind is not told."""
    points = [decode(1, length) for length in (2048, 4096)]

    def said(*sage_us: float, kernels: int = 2) -> str:
        rows = [row("fa2", 14e-3, point, timer="graph", kernel_count=2) for point in points]
        rows += [
            row("sage", us / 1e3, point, timer="graph", kernel_count=number, precision_class="int8")
            for us, point, number in zip(sage_us, points, (kernels, 2), strict=False)
        ]
        return verdict(only(rows)).partition("Quantised, sage (int8) ")[2]

    assert said(13.2) == "is tied with the fastest that is not in 1 of 2 cases."
    assert said(13.2, 14.8) == "is tied with the fastest that is not in 2 of 2 cases."
    assert said(7.0) == "has 2.00x the speed of the fastest that is not (geometric mean over 1 of 2)."
    assert said(28.0, 28.0) == "has 0.500x the speed of the fastest that is not (geometric mean)."
    assert (
        said(7.0, 14.0) == "has 1.41x the speed of the fastest that is not (geometric mean) and is tied with it in 1."
    )
    assert said(7.0, 15.5, kernels=20) == "is tied with the fastest that is not in 1 of 2 cases and slower in 1."


def test_marks_on_the_next_and_on_the_baseline_are_said_too() -> None:
    """A win over a contended process is one over its neighbours; what says nothing of a speed is not told of them."""
    flags = {"flex": ["contended", "long_call"], "naive": ["unstable", "superseded"]}
    rows = [row("fa2", 1.0, flags=["stepped"])]
    rows += [row(impl, ms, flags=flags[impl]) for impl, ms in (("flex", 1.5), ("naive", 3.0))]
    said = verdict(only(rows))
    assert said.endswith("Marks on fa2: stepped; on flex: contended; on naive: unstable.")
    others = [row("x", 2.0, flags=["contended"]), row("naive", 3.0)]
    assert "Marks" not in verdict(only([row("fa2", 1.0), row("flex", 1.5), *others]))


def test_a_tie_with_the_baseline_is_no_gain_over_it() -> None:
    """By one process each the data do not say which is faster, whatever the ratio of their medians; in a tie of others
    it is told.
    """
    wide = {"latency_ci_low_ms": 0.01, "latency_ci_high_ms": 9.0}
    tied = [row("fa2", 0.02) | wide, row("naive", 9.0)]
    assert verdict(only(tied)) == "1 of 1 case is a tie between fa2 and naive."
    others = verdict(only([row("fa2", 1.0), row("flex", 1.001), row("naive", 3.0)]))
    assert others.startswith("1 of 1 case is a tie between fa2 and flex, 3.00x the speed of naive")


def test_marks_on_a_tie_are_said() -> None:
    """Of both of a pair, of the one that stands for many, and of what comes after them; not of the others."""
    pair = [row("fa2", 1.0, flags=["contended"]), row("flex", 1.001, flags=["fallback"])]
    after = row("naive", 9.0, flags=["partial"])
    assert verdict(only([*pair, after])).endswith("Marks on fa2: contended; on flex: fallback; on naive: partial.")
    many = [*pair, row("x", 1.0), row("z", 1.0), after]
    assert verdict(only(many)).endswith("Marks on fa2: contended; on naive: partial.")


def test_the_only_one_is_marked_as_well() -> None:
    """Nobody to compare it with is no reason to keep quiet."""
    assert verdict(only([row("fa2", 1.0, flags=["throttled"])])).endswith("Marks on fa2: throttled.")


def test_what_is_shown_and_not_ranked_is_no_failure() -> None:
    """Unchecked results alone: there are no failures to see."""
    rows = [row("fa2", 1.0, flags=["unchecked"]), row("flex", 1.0, flags=["unchecked"])]
    assert verdict(only(rows)) == "Nothing is ranked in 1 case: 2 results are unchecked."
    mixed = verdict(only([*rows[:1], failed("naive")]))
    assert mixed == "Nothing is ranked in 1 case: 1 result is unchecked; see the failures."
