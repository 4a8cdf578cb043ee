"""FLOPs, bytes and peaks: against brute force, and against figures known from elsewhere."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest

from attnsweep import metrics
from attnsweep.case import DTYPES, Case

H200 = "NVIDIA H200"
RTX_3090_TI = "NVIDIA GeForce RTX 3090 Ti"


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
    columns = metrics.rates(metrics.work(case()), 1.0, name, 1830, 132)
    assert columns["tflops"] > 0
    assert columns["peak_fraction"] is columns["peak_fraction_at_clock"] is columns["bound"] is None
    assert metrics.implausible(metrics.work(case()), 1e-9, name, cold=True, sm_clock_mhz=1830, sm_count=132) is None


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
    columns = metrics.rates(metrics.work(prefill), latency_ms, H200, 915, 132)
    assert columns["bound"] == "compute"
    assert columns["tflops"] == pytest.approx(989.4 / 2)
    assert columns["peak_fraction"] == pytest.approx(0.5)
    assert columns["peak_fraction_at_clock"] == pytest.approx(1.0, rel=1e-3)
    assert columns["tokens_per_s"] == pytest.approx(4096 / latency_ms * 1e3)


def test_a_memory_bound_case_is_measured_against_bandwidth() -> None:
    """Decode at half of 4.8 TB/s is at half of its peak, whatever the SM clock."""
    decode = case(q_len=1, batch_size=4, causal=True)
    latency_ms = metrics.bytes_moved(decode) / 4.8e12 * 1e3 * 2
    columns = metrics.rates(metrics.work(decode), latency_ms, H200, 915, 132)
    assert columns["bound"] == "memory"
    assert columns["gb_per_s"] == pytest.approx(2400)
    assert columns["peak_fraction"] == columns["peak_fraction_at_clock"] == pytest.approx(0.5)
    assert columns["tokens_per_s"] == pytest.approx(4 / latency_ms * 1e3)


def test_fp32_has_a_peak_of_its_own() -> None:
    """The same latency is a far larger fraction in fp32, which has no tensor cores, than in bf16."""
    half = metrics.rates(metrics.work(case()), 10.0, H200)["peak_fraction"]
    single = metrics.rates(metrics.work(case(dtype="fp32")), 10.0, H200)["peak_fraction"]
    assert single / half == pytest.approx(989.4 / 67)


def test_without_a_clock_only_the_data_sheets_fraction_is_given() -> None:
    """A clock or an SM count that was not read gives None, not the data sheet again."""
    for clock, count in ((None, 132), (1830, None)):
        columns = metrics.rates(metrics.work(case()), 1.0, H200, clock, count)
        assert columns["peak_fraction"] is not None
        assert columns["peak_fraction_at_clock"] is None


def why(one: Case, tflops: float, name: str = H200, clock: float | None = None, native: bool = True) -> str | None:
    """What the gate says of a hot row that reaches so many TFLOP/s."""
    done = metrics.work(one)
    sm_count = {H200: 132, RTX_3090_TI: 84}[name]
    latency_ms = done.flops / tflops / 1e9
    return metrics.implausible(done, latency_ms, name, cold=False, sm_clock_mhz=clock, sm_count=sm_count, native=native)


def test_faster_than_the_arithmetic_at_its_clock_is_implausible() -> None:
    """1 % over what the SMs can do at the clock is refused, 1 % under is not; a higher clock allows more."""
    at_peak = 4096 * 132 * 1.83e9 / 1e12
    assert why(case(), at_peak * 1.01, clock=1830) == "999 TFLOP/s, and 132 SMs at 1830 MHz can do 989"
    assert why(case(), at_peak / 1.01, clock=1830) is None
    assert why(case(), at_peak * 1.01, clock=1980) is None


def test_where_no_clock_was_read_the_data_sheet_holds_with_a_margin_for_the_clock() -> None:
    """A quarter above it: an H200 at its highest clock passes, twice the peak does not."""
    boosted = 4096 * 132 * 1.98e9 / 1e12
    assert why(case(), boosted) is None
    assert why(case(), 989.4 * 1.24) is None
    said = why(case(), 989.4 * 1.26)
    assert said == "1247 TFLOP/s, and NVIDIA H200 at 1.25 times its datasheet's clock can do 1237"


def test_a_gpu_whose_rate_in_a_clock_is_not_known_is_held_to_its_data_sheet(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock that was read says nothing there."""
    line = metrics.Peak(H200, 4800, bf16=100, tf32=50, fp32=10, fp64=1)
    monkeypatch.setattr(metrics, "PEAKS", (line,))
    assert why(case(), 126, clock=300) is not None
    assert why(case(), 124, clock=300) is None


@pytest.mark.parametrize(("clock", "fp16"), [(1860, 2 * 80), (None, 2 * 80 * 1.25)])
def test_what_a_geforce_does_faster_in_fp16_is_not_impossible(clock: float | None, fp16: float) -> None:
    """fp16 accumulated in fp16 runs at twice the rate there; bf16 has no such arithmetic."""
    assert why(case(dtype="fp16"), fp16 * 0.99, RTX_3090_TI, clock) is None
    assert why(case(dtype="fp16"), fp16 * 1.01, RTX_3090_TI, clock) is not None
    assert why(case(), fp16 / 2 * 1.01, RTX_3090_TI, clock) is not None


def test_fp32_by_three_tf32_products_is_not_impossible() -> None:
    """PyTorch's memory-efficient kernel reaches 165 TFLOP/s at best on an H200, whose FMA units do 67."""
    assert why(case(dtype="fp32"), 160, clock=1830) is None
    assert why(case(dtype="fp32"), 170, clock=1830) is not None


def test_an_implementation_of_a_narrower_class_is_held_to_narrower_arithmetic() -> None:
    """Quantised, eight times the 16-bit rate (int4); a microsecond stays impossible."""
    assert why(case(), 4000, clock=1830, native=False) is None
    assert why(case(), 8000, clock=1830, native=False) is not None


def test_faster_than_cold_memory_is_implausible_and_hot_is_not() -> None:
    """Reads alone at twice the bandwidth cannot be from a cold cache; from a hot one they can."""
    decode = metrics.work(case(q_len=1, causal=True))
    latency_ms = decode.bytes_read / 9.6e12 * 1e3
    reason = metrics.implausible(decode, latency_ms, H200, cold=True)
    assert reason is not None
    assert "9600 GB/s" in reason
    assert metrics.implausible(decode, latency_ms, H200, cold=False) is None
    assert metrics.implausible(decode, 2.1 * latency_ms, H200, cold=True) is None


def published(
    q_len: int, heads: int, head_dim: int, latency_ms: float, batch: int = 1, kv_heads: int = 0, direction: str = "fwd"
) -> tuple[Case, float]:
    """A cell of jax-flash-attn2's tables: fp16, no mask."""
    fields = (batch, q_len, q_len, heads, kv_heads or heads, head_dim, head_dim)
    return Case(*fields, dtype="fp16", direction=direction), latency_ms


#: From github.com/erfanzar/jax-flash-attn2, measured with torch's CUDA events, which do not wait for JAX's streams.
#: MHA: benchmarks/mha/triton/batch_size=1-bias=False-headdim=D-num_heads=H-blocksize_q=Q-blocksize_k=K-mode=fwd.csv
#: (`bwd` is jax.grad: both passes) at commit 834fcea80f07b175fa80ae7adab10c5c58036625; the README beside them names
#: the GPU, an RTX 3090 Ti. GQA: benchmarks/triton-vs-jax-sdpa-cudnn/b=B-ub=BIAS-hdim=D-qh=H-kvh=KV-mode=fwd.csv at
#: commit 62b7ca26ceeac948ef4c20637423ce94ca656b77, where no GPU is named; taken for the same one.
IMPOSSIBLE = {
    "D=128 H=16 Q=128 K=128, Triton-BlockPtr": published(6144, 16, 128, 0.001365),
    "D=128 H=16 Q=128 K=128, Triton-PtrBlock": published(8192, 16, 128, 0.001024),
    "D=128 H=32 Q=128 K=64, Triton-BlockPtr": published(6144, 32, 128, 0.001536),
    "D=128 H=32 Q=128 K=64, Triton-PtrBlock": published(6144, 32, 128, 0.223232),
    "D=128 H=32 Q=128 K=64, Triton-BlockPtr, 8192": published(8192, 32, 128, 0.314368),
    "D=128 H=8 Q=64 K=64, Triton-PtrBlock": published(8192, 8, 128, 1.104483),
    "D=64 H=16 Q=64 K=32, Triton-PtrBlock": published(8192, 16, 64, 0.945233),
    "B=4 BIAS=True D=256 H=32 KV=16, Triton": published(8192, 32, 256, 0.001024, batch=4, kv_heads=16),
    "B=4 BIAS=False D=256 H=32 KV=16, Triton": published(1024, 32, 256, 0.316557, batch=4, kv_heads=16),
    "B=4 BIAS=False D=128 H=32 KV=16, Triton": published(2048, 32, 128, 0.024439, batch=4, kv_heads=16),
    "B=1 BIAS=False D=64 H=16 KV=8, Triton": published(1024, 16, 64, 0.001285, kv_heads=8),
}
POSSIBLE = {
    "D=128 H=16 Q=128 K=128, Triton-BlockPtr": published(1024, 16, 128, 2.239545),
    "D=128 H=16 Q=128 K=128, Triton-PtrBlock": published(4096, 16, 128, 4.052608),
    "D=128 H=16 Q=128 K=128, Jax": published(8192, 16, 128, 27.271233),
    "D=256 H=32 Q=64 K=64, Triton-PtrBlock": published(8192, 32, 256, 31.024536),
    "D=256 H=32 Q=64 K=64, Triton-PtrBlock, 1024": published(1024, 32, 256, 0.655316),
    "D=64 H=8 Q=64 K=64, Triton-BlockPtr": published(4096, 8, 64, 0.562122),
    "D=64 H=32 Q=64 K=64 bwd, Triton-PtrBlock": published(8192, 32, 64, 22.914560, direction="fwd_bwd"),
    "B=4 BIAS=False D=128 H=32 KV=16, Jax-cudnn": published(8192, 32, 128, 61.821152, batch=4, kv_heads=16),
    "B=1 BIAS=False D=64 H=16 KV=8, Jax-cudnn": published(8192, 16, 64, 3.882547, kv_heads=8),
    # 162 TFLOP/s: twice the rate of this kernel's fp32 accumulators, but not beyond fp16 ones at a higher clock
    "D=64 H=8 Q=64 K=64, Triton-BlockPtr, 8192": published(8192, 8, 64, 0.846580),
}


@pytest.mark.parametrize(("one", "latency_ms"), IMPOSSIBLE.values(), ids=IMPOSSIBLE)
def test_a_published_row_that_no_rtx_3090_ti_can_do_is_refused(one: Case, latency_ms: float) -> None:
    """By its arithmetic alone: no clock was published, and nothing of the cache."""
    assert metrics.implausible(metrics.work(one), latency_ms, RTX_3090_TI, cold=False) is not None


@pytest.mark.parametrize(("one", "latency_ms"), POSSIBLE.values(), ids=POSSIBLE)
def test_a_published_row_that_an_rtx_3090_ti_can_do_passes(one: Case, latency_ms: float) -> None:
    """Rows of the same tables, up to the datasheet's peak; also if their cache is taken for cold."""
    assert metrics.implausible(metrics.work(one), latency_ms, RTX_3090_TI, cold=True) is None


def test_an_rtx_3090_ti_at_its_boost_clock_reaches_its_data_sheet() -> None:
    """84 SMs x 512 x 1860 MHz is 80 TFLOP/s with fp32 accumulation, and half of that in tf32 and fp32."""
    line = metrics.peak(RTX_3090_TI)
    assert line is not None
    assert line.tflops_at("fp16", 1860, 84) == pytest.approx(line.bf16, rel=1e-3)
    assert line.tflops_at("fp32", 1860, 84) == pytest.approx(line.fp32, rel=1e-3)
    assert line.tflops_at("fp64", 1860, 84) == pytest.approx(line.fp64, rel=1e-2)


@pytest.mark.parametrize(
    ("one", "timer"),
    [
        (case(q_len=1, causal=True), "graph"),
        (case(q_len=1024, kv_len=1024), "graph"),
        (case(), "graph"),
        (case(q_len=8192, kv_len=8192), "events"),
        (case(q_len=1024, kv_len=1024, num_heads=128, num_kv_heads=128, batch_size=4), "events"),
        (case(q_len=4096, kv_len=4096, num_heads=32, num_kv_heads=32, causal=True), "graph"),
        (case(q_len=1, kv_len=65536, batch_size=2), "events"),
        (case(q_len=1, kv_len=16384), "graph"),
    ],
    ids=lambda one: one.name if isinstance(one, Case) else one,
)
def test_the_primary_timer_of_a_small_case_is_a_graph(one: Case, timer: str) -> None:
    """Small is below 0.2 ms at 1e15 FLOP/s and 4e12 bytes/s, whichever takes longer, on whatever GPU."""
    seconds = max(metrics.flops(one) / 1e15, metrics.bytes_moved(one) / 4e12)
    assert (seconds < 2e-4) is (timer == "graph")
    assert metrics.primary_timer(one) == timer


def test_work_may_say_what_it_is_measured_against() -> None:
    """A product that memory bounds is still a ceiling of arithmetic."""
    small = metrics.Work(flops=2 * 128**3, bytes=3 * 128**2 * 2, bytes_read=2 * 128**2 * 2, dtype="bf16", tokens=1)
    free, told = (metrics.rates(one, 1.0, H200) for one in (small, replace(small, bound="compute")))
    assert (free["bound"], told["bound"]) == ("memory", "compute")
    assert told["peak_fraction"] == pytest.approx(told["tflops"] / 989.4)
