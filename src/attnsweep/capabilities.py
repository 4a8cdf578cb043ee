"""What each implementation of conf/impl claims: the questions, the cases that ask them, and docs/implementations.md."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from attnsweep import conf_path, impls
from attnsweep.case import Case
from attnsweep.devices import Device
from attnsweep.errors import ConfigError
from attnsweep.report.tables import Cell, Column, Table, to_markdown

#: What the document asks about.
H200 = Device(kind="cuda", uuid="GPU-0", name="NVIDIA H200", compute_capability=9.0)
#: Keys of the plain case: several blocks of any kernel.
TOKENS = 512
#: By how many tokens a ragged length is shorter, so that no block of a kernel divides it.
_RAGGED = 27
_PLAIN: dict[str, Any] = {
    "batch_size": 2,
    "num_heads": 8,
    "num_kv_heads": 8,
    "head_dim": 64,
    "head_dim_v": 64,
    "dtype": "bf16",
    "direction": "fwd",
    "queries": "all",
}
_COMPILE: dict[str, dict[str, Any]] = {
    "eager": {"name": "eager", "mode": None},
    "default": {"name": "default", "mode": "default"},
    "jit": {"name": "jit", "mode": "jit"},
}
#: The compile modes in which a framework's implementations are asked, by the first that does not refuse the plain case:
#: JAX is used in jax.jit.
_MODES = {"torch": ("eager", "default"), "jax": ("jit",)}


@dataclass(frozen=True)
class Question:
    """`name` heads its column; `fields` are what its case has unlike the plain one.

    They are a case's, but for the lengths: `queries` is all, half, twice or one of the keys, `ragged` makes the keys
    a number that no block divides, `window` is left or both, a quarter of the keys on each side.
    """

    name: str
    fields: dict[str, Any]


QUESTIONS = (
    Question("fp16", {"dtype": "fp16"}),
    Question("bf16", {"dtype": "bf16"}),
    Question("fp32", {"dtype": "fp32"}),
    Question("causal", {"causal": True}),
    Question("GQA 4:1", {"num_kv_heads": 2}),
    Question("window, left", {"window": "left"}),
    Question("window, both sides", {"window": "both"}),
    Question("bias", {"bias": "dense"}),
    Question("q_len < kv_len", {"queries": "half"}),
    Question("q_len < kv_len, causal", {"queries": "half", "causal": True}),
    Question("q_len > kv_len", {"queries": "twice"}),
    Question("decode", {"queries": "one"}),
    Question("head dim 64", {"head_dim": 64, "head_dim_v": 64}),
    Question("head dim 128", {"head_dim": 128, "head_dim_v": 128}),
    Question("head dim 192/128", {"head_dim": 192, "head_dim_v": 128}),
    Question("head dim 256", {"head_dim": 256, "head_dim_v": 256}),
    Question("ragged", {"ragged": True}),
    Question("fwd", {"direction": "fwd"}),
    Question("bwd", {"direction": "bwd"}),
    Question("fwd_bwd", {"direction": "fwd_bwd"}),
)


def implementations() -> dict[str, dict[str, Any]]:
    """The YAML of each implementation of conf/impl by its name, without the ceilings, which are not attention."""
    found: dict[str, dict[str, Any]] = {}
    for path in _files():
        impl: Any = OmegaConf.to_container(OmegaConf.load(path))
        if impls.bind(impl).is_attention:
            found[path.stem] = impl
    return found


def singles(impl: dict[str, Any], tokens: int = TOKENS) -> dict[str, Case]:
    """The case of each question alone, by its name, for this implementation."""
    return {one.name: _case({**_plain(impl), **one.fields}, tokens) for one in QUESTIONS}


def pairs(impl: dict[str, Any], tokens: int = TOKENS) -> dict[tuple[str, str], Case]:
    """The case of every two questions that make a problem of its own: no plain one, no two of the same fields."""
    plain, alone = _plain(impl), set(singles(impl, tokens).values())
    unlike = [one for one in QUESTIONS if {**plain, **one.fields} != plain]
    found = {}
    for one, other in combinations(unlike, 2):
        if one.fields.keys() & other.fields.keys():
            continue
        try:
            case = _case({**plain, **one.fields, **other.fields}, tokens)
        except ConfigError:  # A mask with more queries than keys: no such problem
            continue
        if case not in alone:
            found[one.name, other.name] = case
    return found


def compile_mode(impl: dict[str, Any], device: Device) -> str:
    """How the implementation is asked: as its framework is used, or `default` where its plain case is refused eager."""
    case, modes = _case(_plain(impl), TOKENS), _MODES[impls.framework(impl)]
    claimed = (mode for mode in modes if not impls.why_unsupported(impl, case, device, _COMPILE[mode]))
    return next(claimed, modes[0])


def why_unsupported(impl: dict[str, Any], case: Case, device: Device) -> str | None:
    """Why the implementation does not claim this case on this device, or None: then it is tried."""
    return impls.why_unsupported(impl, case, device, _COMPILE[compile_mode(impl, device)])


def claimed(impl: dict[str, Any], device: Device) -> tuple[dict[str, Case], dict[str, Case]]:
    """The questions that the implementation claims on this device, alone and in pairs, with their cases."""
    pairwise = {" + ".join(both): case for both, case in pairs(impl).items()}
    alone, both = (
        {question: case for question, case in asked.items() if not why_unsupported(impl, case, device)}
        for asked in (singles(impl), pairwise)
    )
    return alone, both


def markdown() -> str:
    """docs/implementations.md: what each implementation is, how to get it, and what it claims on an H200."""
    found = implementations()
    reasons: dict[str, str] = {}
    claims = _claims(found, reasons)
    together = _together(found)
    modes = {name: compile_mode(impl, H200) for name, impl in found.items()}
    compiled = ", ".join(f"`{name}`" for name, mode in modes.items() if mode == "default")
    jitted = ", ".join(f"`{name}`" for name, mode in modes.items() if mode == "jit")
    half = ", ".join(f"`{name}`" for name, impl in found.items() if _plain(impl)["dtype"] == "fp16")
    decoding = ", ".join(f"`{name}`" for name, impl in found.items() if _plain(impl)["queries"] == "one")
    return "\n".join(
        [
            "# Implementations",
            "",
            "Made from `conf/impl` by `make docs`; a test compares the two. `attnsweep-doctor` says which of them a",
            "machine can run. [Adding an implementation](adding-an-implementation.md) has the keys of a YAML.",
            "",
            to_markdown(_libraries(found), level=2),
            "## What they claim on an H200",
            "",
            "A yes is what the YAML and its class claim, which is no more than that they do not refuse it. The tests",
            "decide: `tests/test_implementations.py` on a CPU and `tests/gpu/test_capabilities.py` on GPUs ask these",
            "questions, alone and in pairs, and take only a correct result, or `unsupported` with a reason; how H200s",
            "answered: [capabilities](results/capabilities/README.md). In a sweep the check of each cell decides.",
            "",
            "Each column changes one thing of a plain case: batch 2, 8 heads, head dim 64, bf16, forward, no mask,",
            f"{TOKENS} queries and keys. GQA is 8 heads on 2, decode one query, ragged {TOKENS - _RAGGED} queries and",
            "keys, a window a quarter of the keys on a side. Compiled, because eager is refused:",
            f"{compiled}. In `jax.jit`, as JAX is used:",
            f"{jitted}. Asked with one query, because they are for decoding:",
            f"{decoding}. Asked in fp16, because they take no bf16:",
            f"{half}.",
            "",
            to_markdown(claims),
            *(f"{mark}. {reason}" for reason, mark in reasons.items()),
            "",
            to_markdown(together, level=2).rstrip("\n"),
            "",
        ]
    )


def _files() -> list[Path]:
    return sorted((conf_path.conf_folder() / "impl").glob("*.yaml"))


def _plain(impl: dict[str, Any]) -> dict[str, Any]:
    """What a question changes: one query for an implementation that takes few only, its first dtype if not bf16."""
    rules = impl.get("supports") or {}
    queries = _PLAIN["queries"] if rules.get("q_len_max") is None else "one"
    dtypes = rules.get("dtypes") or [_PLAIN["dtype"]]
    return {**_PLAIN, "queries": queries, "dtype": _PLAIN["dtype"] if _PLAIN["dtype"] in dtypes else dtypes[0]}


def _case(fields: dict[str, Any], tokens: int) -> Case:
    """The case of a question's fields; raises ConfigError where they contradict one another."""
    given = dict(fields)
    kv_len = tokens - _RAGGED if given.pop("ragged", False) else tokens
    q_len = {"all": kv_len, "half": kv_len // 2, "twice": 2 * kv_len, "one": 1}[given.pop("queries")]
    side = kv_len // 4
    window = {None: None, "left": (side, 0), "both": (side, side)}[given.pop("window", None)]
    return Case(**given, q_len=q_len, kv_len=kv_len, window=window)


def _libraries(found: dict[str, dict[str, Any]]) -> Table:
    """What each is, in the words at the top of its YAML, and what pip is given to get it."""
    rows = []
    for path in _files():
        impl = found.get(path.stem)
        if impl is None:
            continue
        env = impl.get("env") or {}
        by_uv = env.get("requirements") is not None
        rows.append(
            (
                Cell(path.stem, code=True),
                Cell(_said(path)),
                Cell(impl.get("function", "-")),
                Cell(impl["distribution"]),
                Cell("uv, in an environment of its own") if by_uv else Cell(_pip(impl), code=True),
            )
        )
    titles = ("implementation", "what it is", "function", "distribution", "how to get it")
    return Table("What they are", (), tuple(Column(title) for title in titles), tuple(rows))


def _pip(impl: dict[str, Any]) -> str:
    return f"pip install {impl.get('pip') or impl['distribution']}"


def _said(path: Path) -> str:
    """The comment at the top of a YAML, as one line."""
    lines = []
    for line in path.read_text().splitlines():
        if not line.startswith("#"):
            break
        lines.append(line.lstrip("# "))
    return " ".join(lines)


def _claims(found: dict[str, dict[str, Any]], reasons: dict[str, str]) -> Table:
    """A row an implementation, a column a question; fills `reasons` with the mark of each reason."""
    rows = []
    for name, impl in found.items():
        row = [Cell(name, code=True)]
        for case in singles(impl).values():
            why = why_unsupported(impl, case, H200)
            if why is None:
                row.append(Cell("yes"))
            else:
                row.append(Cell("no", marks=(reasons.setdefault(why, str(len(reasons) + 1)),)))
        rows.append(tuple(row))
    columns = (Column("implementation"), *(Column(one.name) for one in QUESTIONS))
    return Table("", (), columns, tuple(rows))


def _together(found: dict[str, dict[str, Any]]) -> Table:
    """What is refused although neither of its two questions is, alone."""
    rows = []
    for name, impl in found.items():
        alone = {question: why_unsupported(impl, case, H200) for question, case in singles(impl).items()}
        by_reason: dict[str, list[str]] = {}
        for (one, other), case in pairs(impl).items():
            why = why_unsupported(impl, case, H200)
            if why is not None and alone[one] is None and alone[other] is None:
                by_reason.setdefault(why, []).append(f"{one} + {other}")
        rows += [(Cell(name, code=True), Cell("; ".join(both)), Cell(why)) for why, both in by_reason.items()]
    notes = ("Every other pair is claimed where both of its questions are.",)
    titles = ("implementation", "pairs", "why")
    return Table("Refused only together", notes, tuple(Column(title) for title in titles), tuple(rows))
