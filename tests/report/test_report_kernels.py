"""Kernel names cut to what a reader needs, and the table of what ran."""

from __future__ import annotations

import csv
import io
from typing import Any

import pytest
from report_records import prefill, values

from attnsweep.report.csvfile import to_csv
from attnsweep.report.derive import derive
from attnsweep.report.kernels import LIMIT, kernel_table, short_name, short_names

FLASH = (
    "void pytorch_flash::flash_fwd_kernel<Flash_fwd_kernel_traits<128, 128, 64, 4, false, false, cutlass::bfloat16_t>, "
    "false, true>(pytorch_flash::Flash_fwd_params)"
)


def ran(point: Any, impl: str, *names: str, **columns: Any) -> dict[str, Any]:
    return values(point, impl, kernel_names=list(names), **columns)


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


def test_the_table_says_which_kernels_ran_in_how_many_cases() -> None:
    """A kernel of every case stands alone, another with its number of cases; what named none is left out."""
    one, two = prefill(1, 2048), prefill(1, 4096)
    rows = [ran(one, "fa2", FLASH), ran(two, "fa2", FLASH, "combine"), ran(one, "naive")]
    table = kernel_table(derive(rows))
    assert [[cell.text for cell in row] for row in table.rows] == [["fa2", "flash_fwd_kernel, combine (1)", "2"]]
    assert kernel_table(derive([ran(one, "naive")])).notes == ("No record names the kernels that ran.",)


def test_the_csv_has_the_kernels_joined_by_semicolons() -> None:
    """As few characters as tell them apart; empty where none was seen."""
    point = prefill(1, 2048)
    derived = derive([ran(point, "fa2", FLASH, "combine"), values(point, "flex")])
    said = {row["label"]: row["kernels"] for row in csv.DictReader(io.StringIO(to_csv(derived)))}
    assert said == {"fa2": "flash_fwd_kernel;combine", "flex": ""}


def test_a_kernels_name_does_no_harm() -> None:
    """It is text from a record like any other: no formula in a spreadsheet, one field of the list."""
    derived = derive([ran(prefill(1, 2048), "fa2", "=1;2|x", "\x1b[31m")])
    (row,) = csv.DictReader(io.StringIO(to_csv(derived)))
    assert row["kernels"] == "'=1,2|x;\\x1b[31m"
