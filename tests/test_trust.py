"""What docs/trust.md promises: results are data, and nothing that reads them runs code."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import attnsweep

SOURCES = Path(attnsweep.__path__[0]).parent

#: Modules that make objects of bytes by running what the bytes say; multiprocessing's pipes do.
MODULES = {"pickle", "_pickle", "cPickle", "marshal", "shelve", "dill", "cloudpickle", "joblib", "multiprocessing"}
#: Calls that run text, or read a pickle unless they are told not to.
CALLS = {"eval", "exec", "execfile", "torch.load", "np.load", "numpy.load", "pd.read_pickle", "pandas.read_pickle"}
YAML = {"yaml.load", "yaml.full_load", "yaml.unsafe_load", "yaml.load_all", "yaml.unsafe_load_all"}
KEYWORDS = {"allow_pickle", "weights_only"}


def offences(source: str) -> Iterator[str]:
    """What in a module's source could run what it reads."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.split(".")[0] in MODULES)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in MODULES:
            yield str(node.module)
        elif isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            if name in CALLS | YAML or name.removeprefix("builtins.") in CALLS:
                yield name
            yield from (one.arg for one in node.keywords if one.arg in KEYWORDS)
        elif isinstance(node, ast.Constant) and node.value in MODULES:
            yield f"the name {node.value!r}"


@pytest.mark.parametrize(
    "source",
    [
        *("import pickle", "from multiprocessing import Pipe", "import a, marshal as m", "eval(text)", "exec(text)"),
        *("torch.load(path)", "np.load(path)", "load(path, allow_pickle=True)", "yaml.load(text, Loader)"),
        *("builtins.eval(text)", "importlib.import_module('pickle')", "def f():\n    from cloudpickle import loads"),
    ],
)
def test_the_search_finds_each_way(source: str) -> None:
    """A search that finds nothing anywhere proves nothing."""
    assert list(offences(source))


def test_nothing_of_ours_runs_what_it_reads() -> None:
    """No pickle, marshal or evaluated text in any module, the plugin's included."""
    paths = [*SOURCES.joinpath("attnsweep").rglob("*.py"), *SOURCES.joinpath("hydra_plugins").rglob("*.py")]
    assert len(paths) > 90
    found = {path: list(offences(path.read_text())) for path in paths}
    assert {str(path): what for path, what in found.items() if what} == {}
