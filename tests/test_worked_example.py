"""docs/adding-an-implementation.md: its worked example is carried out as it stands, and its list of keys is whole."""

from __future__ import annotations

import csv
import os
import re
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pytest

from attnsweep import compose, impls, interpreters
from attnsweep.impls import fields
from composing import loader
from processes import TESTS

TEXT = (TESTS.parent / "docs" / "adding-an-implementation.md").read_text()
#: The first line of a block that is a file.
FILE = re.compile(r"# ~/(\S+)\n")


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, its text, and below the home folder the file that it is, if it names one."""

    language: str
    text: str
    file: str | None


def blocks() -> list[Block]:
    """The document's fenced blocks, in order."""
    found = []
    for language, text in re.findall(r"^```(\w+)\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL):
        named = FILE.match(text)
        found.append(Block(language, text, named[1] if named else None))
    return found


def script(output: Path) -> str:
    """The document as one shell script: files are written and commands run where they stand, and it ends with the
    first that fails. What the n-th block prints goes to `output`/n.
    """
    lines = ["set -eu"]
    for number, block in enumerate(blocks()):
        if block.file is not None:
            lines += [f"cat > ~/{block.file} <<'END OF {block.file}'", f"{block.text}END OF {block.file}"]
        elif block.language == "sh":
            lines += [f"exec > {output}/{number}", block.text]
    return "\n".join(lines)


def environment(home: Path) -> dict[str, str]:
    """A user's own, who has nothing but attnsweep: no variable that leads elsewhere; uv may use its cache."""
    kept = {
        key: value
        for key, value in os.environ.items()
        if not key.startswith(("PYTHON", "XDG_", "ATTNSWEEP_")) or key == "ATTNSWEEP_LOCKS"
    }
    kept.setdefault("UV_CACHE_DIR", str(Path.home() / ".cache" / "uv"))
    if "PIP_FIND_LINKS" in kept:  # uv reads none of pip's variables
        kept["UV_FIND_LINKS"] = kept["PIP_FIND_LINKS"]
    return {**kept, "HOME": str(home), "PATH": f"{Path(sys.executable).parent}:{kept['PATH']}"}


@pytest.fixture(scope="module")
def carried_out(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The home folder of somebody who did all that the document says, and the folder of what the commands printed."""
    home, output = tmp_path_factory.mktemp("home"), tmp_path_factory.mktemp("output")
    done = subprocess.run(
        ["bash", "-c", script(output)],
        cwd=home,
        env=environment(home),
        capture_output=True,
        text=True,
        timeout=580,
        check=False,
    )
    said = "\n".join(path.read_text() for path in sorted(output.iterdir(), key=lambda path: int(path.name)))
    assert done.returncode == 0, said + done.stderr
    return home, output


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_every_row_that_it_promises_is_in_the_report(carried_out: tuple[Path, Path]) -> None:
    """By YAML, by class with a field swept, and in environments of their own; whatever is ok has a time."""
    home, _ = carried_out
    with open(home / "attn/outputs/mine/report/summary.csv", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["impl"].startswith("mylib")]
    assert Counter((row["impl"], row["variant"], row["impl_version"], row["status"]) for row in rows) == {
        ("mylib", "", "", "ok"): 8,
        ("mylib_blocks", "block_q=16", "", "ok"): 4,
        ("mylib_blocks", "block_q=32", "", "ok"): 4,
        ("mylib_blocks", "block_q=64", "", "ok"): 2,
        ("mylib_blocks", "block_q=64", "", "unsupported"): 2,
        ("mylib_einops", "", "0.8.1", "ok"): 4,
        ("mylib_einops07", "", "0.7.0", "ok"): 4,
    }
    assert all((row["latency_ms"] != "") == (row["status"] == "ok") for row in rows)
    assert {row["reason"] for row in rows} == {"", "needs a multiple of 64 queries"}
    assert (home / "attn/outputs/mine/report/report.html").is_file()


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_it_prints_what_the_reader_will_see(carried_out: tuple[Path, Path]) -> None:
    """What stands as output below commands is what they print, to the letter."""
    promised = [(number - 1, block.text) for number, block in enumerate(blocks()) if block.language == "text"]
    assert len(promised) == 3
    for number, text in promised:
        assert (carried_out[1] / str(number)).read_text() == text


def test_every_block_is_used() -> None:
    """A file, commands, or the output of the commands before it; only what is quoted further down names no file."""
    found = blocks()
    assert Counter(block.language for block in found if block.file) == {"python": 3, "yaml": 4}
    assert all(found[number - 1].language == "sh" for number, block in enumerate(found) if block.language == "text")
    loose = [block for block in found if block.file is None and block.language not in ("sh", "text")]
    assert [block.text.split()[1] for block in loose] == ["fa4_here.yaml"]


def test_its_yaml_composes_and_binds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the environments that it says; the rest of the sweep's parts are ours."""
    for block in blocks():
        if block.language in ("python", "yaml"):
            path = tmp_path / (block.file or f"attn/impl/{block.text.split()[1]}")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(block.text)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.syspath_prepend(tmp_path / "attn")
    names = ("mylib", "mylib_blocks", "mylib_einops", "mylib_einops07", "fa4_here")
    assert sorted(path.stem for path in (tmp_path / "attn/impl").iterdir()) == sorted(names)
    with loader(tmp_path / "attn") as found:
        made = compose.combinations(found, "config", [["name=n", f"impl={name}"] for name in names])[1]
    monkeypatch.delitem(sys.modules, "mylib_blocks", raising=False)
    assert {impls.bind(one.impl).__name__ for one in made} == {"FunctionAttention", "Blocks"}
    hosts = [interpreters.host(one.impl, "fork", "cpu") for one in made]
    assert [host.own for host in hosts] == [True, True, False, False, False]
    recipes = [host.recipe for host in hosts if host.recipe is not None]
    assert [recipe.requirements[0] for recipe in recipes] == ["einops==0.8.1", "einops==0.7.0"]
    assert made[2].impl["env"]["variables"] == made[3].impl["env"]["variables"] == {"PYTHONPATH": f"{tmp_path}/attn"}


def test_the_keys_of_a_yaml_are_all_named() -> None:
    """Those of `supports` in the order of the code, and of every other mapping and class each one."""
    listed = re.search(r"Its keys: `([^`]*)`", TEXT)
    assert listed is not None
    assert [key.strip() for key in listed[1].split(",")] == list(fields.SUPPORTS)
    reference = TEXT[TEXT.index("## The keys of a YAML") : TEXT.index("## Classes")]
    keys = {*impls.keywords(impls.FunctionAttention), "_target_", *fields.ENV, *fields.KERNELS, *fields.PRECISION}
    words = set(re.findall(r"\w+", " ".join(re.findall(r"`[^`]*`|```.*?```", reference, re.DOTALL))))
    assert keys - words == set()
