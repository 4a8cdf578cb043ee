"""The table of the kernels that ran, and their names in the CSV."""

from __future__ import annotations

import csv
import io
from typing import Any

from report_records import prefill, values

from attnsweep.errors import Status
from attnsweep.report.csvfile import to_csv
from attnsweep.report.derive import derive
from attnsweep.report.kernels import kernel_table

FLASH = (
    "void pytorch_flash::flash_fwd_kernel<Flash_fwd_kernel_traits<128, 128, 64, 4, false, false, cutlass::bfloat16_t>, "
    "false, true>(pytorch_flash::Flash_fwd_params)"
)


def ran(point: Any, impl: str, *names: str, **columns: Any) -> dict[str, Any]:
    return values(point, impl, kernel_names=list(names), **columns)


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


def test_the_csv_has_what_triton_tuned_to_and_processes_that_chose_differently_are_marked() -> None:
    """Each choice once; a record that knows none, as older ones, is no other choice, and a failure's is not timed."""
    forward, other, backward = (f"_{name}: BLOCK_M={rows}" for name, rows in (("fwd", 128), ("fwd", 64), ("bwd", 64)))
    told: dict[str, list[list[str] | None]] = {
        "same": [[backward, forward], [backward, forward], None],
        "other": [[forward], [other]],
        "none": [None, None],
    }
    point = prefill(1, 2048)
    rows = [
        values(point, impl, replicate=number, autotuned_configs=configs)
        for impl, each in told.items()
        for number, configs in enumerate(each)
    ]
    rows.append(values(point, "same", replicate=3, status=Status.OOM, autotuned_configs=[other]))
    derived = derive(rows)
    said = {row["label"]: row["autotuned_configs"] for row in csv.DictReader(io.StringIO(to_csv(derived)))}
    assert said == {"same": f"{backward}; {forward}; {other}", "other": f"{forward}; {other}", "none": ""}
    measured = derived.sections[0].cases[0].measured
    assert {label: "configs" in one.marks for label, one in measured.items()} == {
        "same": False,
        "other": True,
        "none": False,
    }
