"""FLOPs, bytes and peaks: against brute force, and against figures known from elsewhere."""

from __future__ import annotations

import itertools

import pytest

from attnsweep import metrics
from attnsweep.case import DTYPES, Case

H200 = "NVIDIA H200"


def case(**changed: object) -> Case:
    fields = {
        "batch_size": 1,
        "q_len": 4096,
        "kv_len": 4096,
        "num_heads": 16,
        "num_kv_heads": 16,
        "head_dim": 128,
        "head_dim_v": 128,
    }
    return Case(**{**fields, **changed})  # type: ignore[arg-type]


def small_cases() -> list[Case]:
    """Small problems with every mask, uneven lengths, grouped heads and unlike head dims."""
    cases = []
    windows = (None, (0, 0), (2, 0), (1, 3), (-1, 2), (3, -1))
    for (q_len, kv_len), causal, window, direction, bias in itertools.product(
        ((5, 5), (1, 9), (4, 11)), (False, True), windows, ("fwd", "bwd", "fwd_bwd"), ("none", "dense")
    ):
        cases.append(
            case(
                batch_size=2,
                q_len=q_len,
                kv_len=kv_len,
                num_heads=6,
                num_kv_heads=2,
                head_dim=8,
                head_dim_v=3,
                causal=causal,
                window=window,
                direction=direction,
                bias=bias,
            )
        )
    return cases


@pytest.mark.parametrize("one", small_cases(), ids=lambda one: one.name)
def test_flops_are_the_multiply_adds_of_each_visible_pair(one: Case) -> None:
    """Every product over every visible pair, counted one by one: a multiply-add is two."""
    forward = backward = 0
    for query, key in itertools.product(range(one.q_len), range(one.kv_len)):
        if one.visible(query, key):
            scores, output = 2 * one.head_dim, 2 * one.head_dim_v
            forward += scores + output  # q k, p v
            backward += scores  # q k again
            backward += output  # dp = do v
            backward += output  # dv = p do
            backward += scores + scores  # dq = ds k, dk = ds q
    expected = {"fwd": forward, "bwd": backward, "fwd_bwd": forward + backward}[one.direction]
    assert metrics.flops(one) == one.batch_size * one.num_heads * expected


@pytest.mark.parametrize("one", small_cases(), ids=lambda one: one.name)
def test_bytes_are_every_element_that_must_move(one: Case) -> None:
    """Tensors counted element by element; a key that no query sees is not read."""
    seen = sum(any(one.visible(query, key) for query in range(one.q_len)) for key in range(one.kv_len))
    q = one.batch_size * one.q_len * one.num_heads * one.head_dim
    o = one.batch_size * one.q_len * one.num_heads * one.head_dim_v
    dk = one.batch_size * one.kv_len * one.num_kv_heads * one.head_dim
    dv = one.batch_size * one.kv_len * one.num_kv_heads * one.head_dim_v
    kv = one.batch_size * seen * one.num_kv_heads * (one.head_dim + one.head_dim_v)
    bias = one.num_heads * one.q_len * one.kv_len if one.bias == "dense" else 0
    forward = q + kv + bias + o
    backward = q + kv + bias + o + o + q + dk + dv
    expected = {"fwd": forward, "bwd": backward, "fwd_bwd": forward + backward}[one.direction]
    assert metrics.bytes_moved(one) == 2 * expected


@pytest.mark.parametrize("one", small_cases(), ids=lambda one: one.name)
def test_what_must_be_read_is_less_than_what_moves(one: Case) -> None:
    """The plausibility limit may never be stricter than the compulsory traffic."""
    assert 0 < metrics.bytes_read(one) < metrics.bytes_moved(one)


def test_the_flux_shape_has_its_published_count() -> None:
    """4 * heads * tokens^2 * dim at 1024 px and 512 text tokens: 260.9 GFLOP, 2.5 times that backward."""
    flux = case(q_len=4608, kv_len=4608, num_heads=24, num_kv_heads=24)
    assert metrics.flops(flux) == 260_919_263_232
    assert metrics.bytes_moved(flux) == 4 * 24 * 4608 * 128 * 2
    backward = case(q_len=4608, kv_len=4608, num_heads=24, num_kv_heads=24, direction="bwd")
    assert metrics.flops(backward) == 2.5 * metrics.flops(flux)


def test_one_query_at_the_end_of_a_cache_is_not_halved_by_a_causal_mask() -> None:
    """Decode sees the whole cache, so its FLOPs and bytes are those without a mask."""
    masked, plain = case(q_len=1, causal=True), case(q_len=1)
    assert metrics.flops(masked) == metrics.flops(plain) == 4 * 16 * 4096 * 128
    assert metrics.bytes_moved(masked) == metrics.bytes_moved(plain)


def test_grouped_heads_move_fewer_keys_and_do_the_same_arithmetic() -> None:
    """Key/value heads count for bytes, query heads for FLOPs."""
    full, grouped = case(q_len=1), case(q_len=1, num_kv_heads=2)
    assert metrics.flops(full) == metrics.flops(grouped)
    assert metrics.bytes_moved(full) - metrics.bytes_moved(grouped) == 2 * 4096 * 14 * 128 * 2


@pytest.mark.parametrize("name", [H200, "NVIDIA H100 80GB HBM3"])
def test_hopper_sxm_has_989_4_dense_tflops(name: str) -> None:
    """The data sheet's figure is that of 132 SMs at 1830 MHz; fp16 is bf16's, fp8 double, fp32 67."""
    line = metrics.peak(name)
    assert line is not None
    assert line.tflops("bf16") == line.tflops("fp16") == 989.4
    assert line.tflops_at("bf16", 1830, 132) == pytest.approx(989.4, abs=0.1)
    assert line.tflops("fp8_e4m3") == pytest.approx(2 * 989.4, rel=1e-3)
    assert line.tflops("fp32") == 67
    assert line.tflops_at("fp32", 1980, 132) == pytest.approx(66.9, abs=0.1)


def test_memory_bandwidths_are_the_data_sheets() -> None:
    """H100 SXM 3.35 TB/s, H200 4.8 TB/s, A100 80 GB 2.039 TB/s."""
    wanted = {H200: 4800, "NVIDIA H100 80GB HBM3": 3350, "NVIDIA A100-SXM4-80GB": 2039}
    for name, gb_per_s in wanted.items():
        line = metrics.peak(name)
        assert line is not None
        assert line.gb_per_s == gb_per_s


def test_an_a100_at_its_boost_clock_reaches_its_data_sheet() -> None:
    """108 SMs x 2048 x 1410 MHz is 312 TFLOP/s."""
    line = metrics.peak("NVIDIA A100-SXM4-80GB")
    assert line is not None
    assert line.tflops_at("bf16", 1410, 108) == pytest.approx(312, rel=1e-3)
    assert line.tflops_at("tf32", 1410, 108) == pytest.approx(156, rel=1e-3)


def test_each_line_of_the_table_is_a_different_gpu_with_ordered_peaks() -> None:
    """No name stands twice for the same SM count, and narrower arithmetic is never slower."""
    keys = [(line.name, line.sm_count) for line in metrics.PEAKS]
    assert len(set(keys)) == len(keys)
    for line in metrics.PEAKS:
        assert line.bf16 > line.tf32 >= line.fp32 >= line.fp64 > 0
        assert line.fp8 is None or line.fp8 >= 1.9 * line.bf16
        assert all(line.tflops(dtype) for dtype in DTYPES)


@pytest.mark.parametrize("name", ["NVIDIA H100", "H200", "NVIDIA H200 ", "AMD EPYC", "", None])
def test_an_unknown_device_gets_no_fraction_and_no_guess(name: str | None) -> None:
    """A name that is nearly one of the table's is unknown."""
    columns = metrics.rates(case(), 1.0, name, 1830, 132)
    assert columns["tflops"] > 0
    assert columns["peak_fraction"] is columns["peak_fraction_at_clock"] is columns["bound"] is None
    assert metrics.implausible(case(), 1e-9, name, cold=True, sm_clock_mhz=1830, sm_count=132) is None


def test_one_name_for_two_parts_is_told_apart_by_its_sm_count(monkeypatch: pytest.MonkeyPatch) -> None:
    """A line with an SM count is for that part alone; another count, or none read, is an unknown GPU."""
    line = metrics.Peak("Twin", 100, bf16=4, tf32=2, fp32=1, fp64=1, sm_count=68)
    monkeypatch.setattr(metrics, "PEAKS", (line,))
    assert metrics.peak("Twin", 68) is line
    assert metrics.peak("Twin", 70) is None
    assert metrics.peak("Twin") is None


def test_a_compute_bound_case_is_measured_against_arithmetic() -> None:
    """Half of the peak's time for the FLOPs is half of the peak; at a lower clock it is more."""
    prefill = case()
    latency_ms = metrics.flops(prefill) / 989.4e12 * 1e3 * 2
    columns = metrics.rates(prefill, latency_ms, H200, 915, 132)
    assert columns["bound"] == "compute"
    assert columns["tflops"] == pytest.approx(989.4 / 2)
    assert columns["peak_fraction"] == pytest.approx(0.5)
    assert columns["peak_fraction_at_clock"] == pytest.approx(1.0, rel=1e-3)
    assert columns["tokens_per_s"] == pytest.approx(4096 / latency_ms * 1e3)


def test_a_memory_bound_case_is_measured_against_bandwidth() -> None:
    """Decode at half of 4.8 TB/s is at half of its peak, whatever the SM clock."""
    decode = case(q_len=1, batch_size=4, causal=True)
    latency_ms = metrics.bytes_moved(decode) / 4.8e12 * 1e3 * 2
    columns = metrics.rates(decode, latency_ms, H200, 915, 132)
    assert columns["bound"] == "memory"
    assert columns["gb_per_s"] == pytest.approx(2400)
    assert columns["peak_fraction"] == columns["peak_fraction_at_clock"] == pytest.approx(0.5)
    assert columns["tokens_per_s"] == pytest.approx(4 / latency_ms * 1e3)


def test_fp32_has_a_peak_of_its_own() -> None:
    """The same latency is a far larger fraction in fp32, which has no tensor cores, than in bf16."""
    half = metrics.rates(case(), 10.0, H200)["peak_fraction"]
    single = metrics.rates(case(dtype="fp32"), 10.0, H200)["peak_fraction"]
    assert single / half == pytest.approx(989.4 / 67)


def test_without_a_clock_only_the_data_sheets_fraction_is_given() -> None:
    """A clock or an SM count that was not read gives None, not the data sheet again."""
    for clock, count in ((None, 132), (1830, None)):
        columns = metrics.rates(case(), 1.0, H200, clock, count)
        assert columns["peak_fraction"] is not None
        assert columns["peak_fraction_at_clock"] is None


def test_faster_than_the_arithmetic_at_its_clock_is_implausible() -> None:
    """1 % over what the SMs can do at the clock is refused, 1 % under is not; a higher clock allows more."""
    at_peak_ms = metrics.flops(case()) / (4096 * 132 * 1.83e9) * 1e3

    def why(latency_ms: float, clock: float | None) -> str | None:
        return metrics.implausible(case(), latency_ms, H200, cold=False, sm_clock_mhz=clock, sm_count=132)

    assert why(at_peak_ms / 1.01, 1830) is not None
    assert why(at_peak_ms * 1.01, 1830) is None
    assert why(at_peak_ms / 1.01, 1980) is None
    assert why(at_peak_ms / 1.01, None) is None


def test_faster_than_cold_memory_is_implausible_and_hot_is_not() -> None:
    """Reads alone at twice the bandwidth cannot be from a cold cache; from a hot one they can."""
    decode = case(q_len=1, causal=True)
    latency_ms = metrics.bytes_read(decode) / 9.6e12 * 1e3
    reason = metrics.implausible(decode, latency_ms, H200, cold=True)
    assert reason is not None
    assert "9600 GB/s" in reason
    assert metrics.implausible(decode, latency_ms, H200, cold=False) is None
    assert metrics.implausible(decode, 2.1 * latency_ms, H200, cold=True) is None
