"""A cell's id holds what changes the measurement and nothing else, and is a file's name."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import replace
from pathlib import Path

import pytest

from attnsweep import environment, identity, records
from attnsweep.schema import Check
from plans import make, only
from sweeps import CPU, DEFAULT, EAGER, GPU, LOAD, QUICK, combination, impl, one_case, settings


def test_what_changes_the_measurement_changes_the_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Implementation, environment, variant, compile mode, case, check, seed, version, device's name; and with each the
    digest of what may be pooled, which the timing preset leaves alone.
    """
    base = combination(scenario=one_case())
    plain = only(tmp_path, base)
    variables = {"env": {"variables": {"X": "1"}}}
    others = [
        only(tmp_path, replace(base, impl=impl("naive", layout="bshd"))),
        only(tmp_path, replace(base, impl=impl("naive", **variables))),
        only(tmp_path, replace(base, variant="layout=bhsd")),
        only(tmp_path, replace(base, compile=DEFAULT)),
        only(tmp_path, replace(base, compile={**EAGER, "dynamic": True})),
        only(tmp_path, replace(base, scenario=one_case(dtype="bf16"))),
        only(tmp_path, base, check=Check(enabled=False)),
        only(tmp_path, base, check=Check(forward_factor=3.0)),
        only(tmp_path, base, seed=1),
        only(tmp_path, base, device=replace(CPU, name="another")),
    ]
    monkeypatch.setattr(environment, "own_version", lambda distribution: "99")
    others.append(only(tmp_path, base))
    measured = {cell.columns["measurement"] for cell in [plain, *others]}
    assert len(measured) == 1 + len(others)
    monkeypatch.undo()
    longer = only(tmp_path, replace(base, timing={**QUICK, "time_cap_s": 0.7}))
    assert longer.columns["measurement"] == plain.columns["measurement"]
    hashes = [cell.id[-8:] for cell in [plain, *others, longer]]
    assert len(set(hashes)) == len(hashes)


def test_overridden_fields_of_a_preset_are_part_of_its_name_in_a_record(tmp_path: Path) -> None:
    """What a report compares and pools by name is one configuration; what has a column, or no effect, is left out."""
    typed = ("timing.time_cap_s=0.7", "compile.fullgraph=false", "timing.cache=hot", "compile.dynamic=true")
    changed = only(tmp_path, combination(scenario=one_case(), compile=DEFAULT, overrides=typed)).columns
    assert (changed["compile"], changed["timing"]) == ("default[dynamic=true,fullgraph=false]", "quick[time_cap_s=0.7]")
    more = ("scenario.dtype=fp32", "timing.replicates=2", "timing.cache=hot", "compile.dynamic=true")
    plain = only(tmp_path, combination(scenario=one_case(), overrides=more)).columns
    assert (plain["compile"], plain["timing"]) == ("eager", "quick")


def test_the_cache_is_part_of_the_id_on_a_gpu_and_always_hot_on_a_cpu(tmp_path: Path) -> None:
    """Nothing is evicted before a call on a CPU, whatever the preset asks for."""
    base = combination(scenario=one_case())
    hot = replace(base, timing={**QUICK, "cache": "hot"})
    assert only(tmp_path, base).id == only(tmp_path, hot).id
    assert only(tmp_path, base).columns["cache"] == "hot"
    assert only(tmp_path, base, device=GPU).id != only(tmp_path, hot, device=GPU).id
    assert only(tmp_path, base, device=GPU).columns["cache"] == "cold"


def test_what_a_preset_says_of_a_gpu_opens_no_cell_on_a_cpu(tmp_path: Path) -> None:
    """No load there, no blocks: another soak is the same cell, where a GPU has another."""
    base = combination(scenario=one_case(), timing={**QUICK, **LOAD})
    longer = replace(base, timing={**base.timing, "soak_s": 2.0, "rest_ms": 5.0})
    assert only(tmp_path, base).id == only(tmp_path, longer).id == only(tmp_path, combination(scenario=one_case())).id
    assert only(tmp_path, base, device=GPU).id != only(tmp_path, longer, device=GPU).id


def test_another_protocol_makes_other_cells(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was measured by another procedure is not taken for done."""
    before = only(tmp_path, combination(scenario=one_case()))
    monkeypatch.setattr(records, "PROTOCOL", records.PROTOCOL + 1)
    after = only(tmp_path, combination(scenario=one_case()))
    assert after.id != before.id
    assert after.columns["protocol"] == before.columns["protocol"] + 1


def test_what_does_not_change_the_measurement_keeps_the_id(tmp_path: Path) -> None:
    """Where, when, how many beside it, whether forked or spawned, and what its check never reads."""
    base = combination(scenario=one_case())
    plain = only(tmp_path, base, device=GPU)
    same = [
        only(tmp_path / "elsewhere", base, device=GPU, name="other"),
        only(tmp_path, base, device=replace(GPU, uuid="GPU-9", driver="580.1", power_limit_w=500.0)),
        only(tmp_path, base, device=GPU, study="flux", force=True, shard=(1, 1), isolation="spawn"),
        only(tmp_path, replace(base, impl=impl("naive", isolation="spawn")), device=GPU),
        only(tmp_path, base, device=GPU, check=Check(backward_factor=4.0)),
        only(tmp_path, base, device=GPU, pool=replace(settings(tmp_path).pool, timeout_s=3.0)),
    ]
    assert {cell.id for cell in same} == {plain.id}
    assert {cell.columns["measurement"] for cell in same} == {plain.columns["measurement"]}


def test_more_replicates_keep_those_that_are_done(tmp_path: Path) -> None:
    """Three processes hold the cells of one, so that a quick look is a start."""
    few = make(tmp_path, combination())
    many = make(tmp_path, combination(timing={**QUICK, "replicates": 3}))
    assert {cell.id for cell in few.cells} < {cell.id for cell in many.cells}


def test_replicates_are_of_one_measurement(tmp_path: Path) -> None:
    """Three processes differ in their ids alone; the digest is that of the six cases."""
    cells = make(tmp_path, combination(timing={**QUICK, "replicates": 3})).cells
    assert len({cell.id for cell in cells}) == 18
    assert len({cell.columns["measurement"] for cell in cells}) == 6
    assert len({(cell.columns["measurement"], cell.group) for cell in cells}) == 6


def test_an_id_names_its_parts_and_fits_a_file_name(tmp_path: Path) -> None:
    """impl-variant-compile-case-replicate-hash; whatever the names are, letters and under 200 bytes with suffixes."""
    cell = only(tmp_path, combination("fa2", variant="block_q=64", scenario=one_case()))
    assert cell.id.startswith("fa2-block_q=64-eager-b1-h4-s32-d16-causal-fp32-fwd-0-")
    long = one_case(seq_len=7 * 10**8, head_dim_v=10**8, window=[10**9, 10**9], bias="dense", direction="fwd_bwd")
    wild = combination("../é \n" + "x" * 300, variant="a/b=" + "y" * 300, scenario=long)
    wild = replace(wild, compile={**EAGER, "name": ".hidden/" + "z" * 300})
    odd = only(tmp_path, wild)
    assert set(odd.id) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._=-")
    assert not odd.id.startswith((".", "-"))
    assert len(f".{odd.id}.parquet.4194304.tmp".encode()) < 200
    assert len(f"..{odd.id}.rehearsal.4194304.tmp".encode()) < 200


def test_the_hash_is_that_of_canonical_json(tmp_path: Path) -> None:
    """The order of keys in a YAML is not part of what a cell is."""
    base = combination(scenario=one_case())
    turned = replace(base, impl=dict(reversed(base.impl.items())), timing=dict(reversed(base.timing.items())))
    assert only(tmp_path, base).id == only(tmp_path, turned).id


def test_an_edited_kernel_makes_new_cells_of_ours_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The source of attnsweep.kernels is hashed where the implementation names it."""
    ours = {
        "_target_": "attnsweep.impls.FunctionAttention",
        "function": "attnsweep.kernels.flash.attention",
        "arguments": {"is_causal": "causal"},
    }
    kernel, other = combination(impl=impl("ours", **ours), scenario=one_case()), combination(scenario=one_case())
    before = only(tmp_path, kernel).id, only(tmp_path, other).id
    monkeypatch.setattr("attnsweep.identity.kernels_digest", lambda: "edited")
    after = only(tmp_path, kernel).id, only(tmp_path, other).id
    assert before[0] != after[0]
    assert before[1] == after[1]


def test_what_a_check_reads_is_part_of_the_id() -> None:
    """A factor of the directions that run, where anything is checked and no class of its own brings other limits."""
    check = {"enabled": True, "forward_factor": 2.0, "backward_factor": 3.0}
    read = {way: set(identity.applying(check, way)) for way in ("fwd", "bwd", "fwd_bwd")}
    assert read == {
        "fwd": {"enabled", "forward_factor"},
        "bwd": {"enabled", "backward_factor"},
        "fwd_bwd": {"enabled", "forward_factor", "backward_factor"},
    }
    assert identity.applying(check, "fwd", quantised=True) == {"enabled": True}
    assert identity.applying({**check, "enabled": False}, "fwd") == {"enabled": False}


def test_a_ceiling_is_the_same_cell_however_others_are_checked(tmp_path: Path) -> None:
    """Its output is not attention's: nothing of `check` is read where it runs."""
    copy = {"_target_": "attnsweep.impls.ceilings.CopyCeiling"}
    base = combination(impl=impl("ceiling_copy", **copy), scenario=one_case())
    looser, unchecked = Check(forward_factor=3.0), Check(enabled=False)
    ids = {only(tmp_path, base, check=check).id for check in (Check(), looser, unchecked)}
    assert len(ids) == 1


def test_an_infinite_constant_is_no_obstacle(tmp_path: Path) -> None:
    """A YAML may hold .inf; the cell has an id and its configuration is JSON that Python reads."""
    library = {"_target_": "attnsweep.impls.FunctionAttention", "function": "a.b", "arguments": {"causal": "causal"}}
    one = only(tmp_path, combination(impl=impl("a", **library, constants={"cap": math.inf}), scenario=one_case()))
    assert json.loads(one.columns["config"])["impl"]["constants"] == {"cap": math.inf}


def test_ids_do_not_depend_on_the_process(tmp_path: Path) -> None:
    """The hash is sha256 of text, not Python's own, which every process salts: resume works from another one."""
    cell = only(tmp_path, combination(impl=impl("naive", distribution=None), scenario=one_case()))
    hashed = (
        '{"case":{"batch_size":1,"bias":"none","causal":true,"direction":"fwd","dtype":"fp32","head_dim":16,'
        '"head_dim_v":16,"kv_len":32,"num_heads":4,"num_kv_heads":4,"q_len":32,"window":null},'
        '"check":{"enabled":true,"forward_factor":2.0},'
        '"compile":{"dynamic":false,"fullgraph":true,"mode":null,"name":"eager"},"device":"AMD EPYC",'
        '"impl":{"_target_":"attnsweep.impls.naive.NaiveAttention","distribution":null,"layout":"bhsd",'
        '"name":"naive"},"kernels":null,"protocol":4,%s"seed":0,%s"variant":"","version":null}'
    )
    timing = '"timing":{"cache":"hot","name":"quick","sustained":false,"time_cap_s":0.6},'
    for said, parts in ((cell.id[-8:], ('"replicate":0,', timing)), (cell.columns["measurement"], ("", ""))):
        assert said == hashlib.sha256((hashed % parts).encode()).hexdigest()[:8]
