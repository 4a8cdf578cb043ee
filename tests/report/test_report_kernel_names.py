"""Kernel names cut to what a reader needs."""

from __future__ import annotations

import pytest
from test_report_kernels import FLASH

from attnsweep.report.kernel_names import LIMIT, short_name, short_names


@pytest.mark.parametrize(
    ("full", "short"),
    [
        (FLASH, "flash_fwd_kernel"),
        (FLASH[:80], "flash_fwd_kernel"),
        ("triton_tem_fused_flex_attention_0", "triton_tem_fused_flex_attention_0"),
        ("fmha_cutlassF_bf16_aligned_64x128_rf_sm80(Kernel<cutlass::bfloat16_t, true>::Params)",
         "fmha_cutlassF_bf16_aligned_64x128_rf_sm80"),
        ("void at::native::(anonymous namespace)::cunn_SoftMaxForwardReg<float, long, 5>(float*, long)",
         "cunn_SoftMaxForwardReg"),
        ("void (anonymous namespace)::softmax_warp_forward<float, 11>(float*)", "softmax_warp_forward"),
        ("std::enable_if<!(false), void>::type internal::gemvx::kernel<int, 9, cublasGemvTensor<floa", "gemvx::kernel"),
        ("void cutlass::Kernel2<cutlass_80_simt_sgemm>(cutlass_80_simt_sgemm::Params)", "cutlass::Kernel2"),
        ("void f<&g::operator()(int)>(int)", "f"),
        ("a;b", "a,b"),
        ("<all of it>", "<all of it>"),
    ],
)  # fmt: skip
def test_a_short_name_is_the_kernels_own(full: str, short: str) -> None:
    """Return type, namespaces, template arguments and argument list go, also from a name that was cut off."""
    assert short_name(full) == short


def test_a_long_name_loses_its_end() -> None:
    """What is beyond the limit is cut, and that can be seen."""
    name = "cudnn_generated_fort_native_sdpa_sm90_flash_fprop_wgmma_f16_knob_7_64x128x128_4x1x1_cga1x1x1_kernel0_0"
    assert len(short_name(name)) == LIMIT
    assert short_name(name).startswith("cudnn_generated_fort_native_sdpa_sm90_flash_fprop_wgmma")
    assert short_name(name).endswith("...")


def test_short_names_are_said_once() -> None:
    """Two instances of one template are one kernel to the reader; nothing stays nothing."""
    assert short_names(["void f<1>(int)", "void f<2>(int)", "g", "", " "]) == ["f", "g"]
