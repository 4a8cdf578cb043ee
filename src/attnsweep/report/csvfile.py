"""summary.csv: one row for each case and label, failures included, for machines to read."""

from __future__ import annotations

import csv
import io
from typing import Any

from attnsweep.errors import Status
from attnsweep.report.aggregate import Measurement
from attnsweep.report.sections import CASE_FIELDS, CaseRow, Derived, Section
from attnsweep.report.sustained import reasons, under_load
from attnsweep.report.text import csv_text

#: Medians over the processes of a measurement, copied under their own names.
_NUMBERS = (
    "sustained_ms",
    "events_ms",
    "graph_ms",
    "kernel_ms",
    "host_ms",
    "p10_ms",
    "p90_ms",
    "peak_fraction",
    "peak_fraction_at_clock",
    "max_abs_err",
    "rel_l2",
    "rel_l1",
    "cosine",
    "err_ratio",
    "grad_err_ratio",
    "peak_memory_bytes",
    "workspace_bytes",
    "plan_s",
    "first_call_s",
    "compile_s",
    "autotune_s",
    "sm_clock_mhz",
    "burst_clock_mhz",
    "load_clock_mhz",
    "power_w",
    "load_power_w",
    "energy_mj",
    "kernel_count",
)

COLUMNS = (
    *("device", "scenario", "direction", "dtype", "cache", "axis", "axis_value", "case"),
    *CASE_FIELDS,
    *("label", "impl", "variant", "compile", "impl_version", "status", "ranked", "rank", "fastest", "tie"),
    *("processes", "processes_ok", "timer", "latency_ms", "interval_low_ms", "interval_high_ms", "interval"),
    *("baseline", "speedup", "slowdown", "tflops", "gb_per_s", "tokens_per_s"),
    *_NUMBERS,
    *("sustained_low_ms", "sustained_high_ms", "sustained_interval", "load_throttle"),
    *("bound", "precision_class", "flags", "kernels", "autotuned_configs", "hosts", "reason", "command"),
)


def to_csv(derived: Derived) -> str:
    """The table as text. Numbers are plain, text from records is safe to open in a spreadsheet."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(COLUMNS)
    for section in derived.sections:
        for case in section.cases:
            ranks = {text: rank for its in case.classes.values() for rank, text in enumerate(its, start=1)}
            loads = under_load(case)
            for text in section.labels:
                if text in case.measured:
                    row = _row(section, case, text, ranks.get(text)) | _load(loads.get(text))
                    writer.writerow([_field(row[name]) for name in COLUMNS])
    return out.getvalue()


def _row(section: Section, case: CaseRow, text: str, rank: int | None) -> dict[str, Any]:
    key, one = section.key, case.measured[text]
    best = case.fastest[0] if case.fastest else text
    flops, moved = one.per_second("flops"), one.per_second("bytes")
    ok = one.latency_ms is not None
    return {
        "device": key.device,
        "scenario": key.scenario,
        "direction": key.direction,
        "dtype": key.dtype,
        "cache": key.cache,
        "axis": key.axis,
        "axis_value": case.axis_value,
        "case": case.case,
        **case.fields,
        "label": text,
        "impl": one.label.impl,
        "variant": one.label.variant,
        "compile": one.label.compile,
        "impl_version": " ".join(one.texts("impl_version")),
        "status": str(one.status),
        "ranked": one.ranked,
        "rank": rank,
        "fastest": text in case.fastest,
        "tie": text in case.fastest and len(case.fastest) > 1,
        "processes": len(one.rows),
        "processes_ok": one.ok,
        "timer": _timer(case, one),
        "latency_ms": one.latency_ms,
        "interval_low_ms": one.interval.low if one.interval else None,
        "interval_high_ms": one.interval.high if one.interval else None,
        "interval": one.interval.kind if one.interval else None,
        "baseline": section.baseline,
        "speedup": case.ratio(text, section.baseline) if section.baseline is not None else None,
        "slowdown": case.ratio(best, text),
        "tflops": None if flops is None else flops / 1e12,
        "gb_per_s": None if moved is None else moved / 1e9,
        "tokens_per_s": case.tokens_per_s(text),
        **{name: _number(one, name) if _told(name, ok, one.primary) else None for name in _NUMBERS},
        "bound": " ".join(one.texts("bound")),
        "precision_class": " ".join(one.texts("precision_class")),
        "flags": " ".join(one.marks),
        "kernels": ";".join(one.kernels),
        "autotuned_configs": "; ".join(one.configs),
        "hosts": " ".join(one.texts("hostname")),
        "reason": " / ".join(one.texts("reason")),
        "command": next(iter(one.texts("command")), ""),
    }


def _timer(case: CaseRow, one: Measurement) -> str:
    """What a latency was timed by: the case's timer, but for a call too long for a graph, which has events."""
    own = dict.fromkeys(str(row["timer"]) for row in one.rows if row["status"] == Status.OK and row["timer"])
    return " ".join(own) if one.primary and own else case.timer


def _load(one: Measurement | None) -> dict[str, Any]:
    interval = None if one is None else one.interval
    return {
        "sustained_low_ms": interval.low if interval else None,
        "sustained_high_ms": interval.high if interval else None,
        "sustained_interval": interval.kind if interval else None,
        "load_throttle": " ".join(reasons(one)) if one else "",
    }


#: What an incorrect record carries too.
_ERRORS = frozenset(
    {
        "max_abs_err",
        "rel_l2",
        "rel_l1",
        "cosine",
        "err_ratio",
        "grad_err_ratio",
        "peak_memory_bytes",
        "workspace_bytes",
    }
)

#: What is derived from the primary timer's latency and says nothing where another ranks it.
_PRIMARY = frozenset({"peak_fraction", "peak_fraction_at_clock", "p10_ms", "p90_ms"})


def _number(one: Measurement, name: str) -> float | None:
    return one.memory(name) if name in ("peak_memory_bytes", "workspace_bytes") else one.number(name)


def _told(name: str, ok: bool, primary: bool) -> bool:
    """Whether a number belongs to a row, by its outcome and by whether its primary timer ranks it."""
    return (ok or name in _ERRORS) and (primary or name not in _PRIMARY)


def _field(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return f"{value:.8g}" if value != int(value) or abs(value) >= 1e15 else str(int(value))
    return str(value) if isinstance(value, int) else csv_text(value)
