"""What a zygote's interpreter finds when it starts: the import folder and its environment."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest

import attnsweep
from attnsweep.errors import ConfigError
from attnsweep.interpreters import Interpreter
from attnsweep.pool import pyenv

OWN = Interpreter("/usr/bin/python3", (), (), True)
FOREIGN = Interpreter("/usr/bin/python3", (("A", "1"), ("PYTHONPATH", "/theirs")), (), False)
PACKAGE = Path(attnsweep.__path__[0]).resolve()


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """A cache folder and a temporary folder of the test's own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path / "cache"


def test_the_import_folder_holds_one_link_to_this_package(cache):
    """Nothing else, so that nothing else is imported from it; asking again changes nothing."""
    folder = pyenv.import_folder()
    assert folder.is_relative_to(cache)
    assert [entry.name for entry in folder.iterdir()] == ["attnsweep"]
    assert (folder / "attnsweep").resolve() == PACKAGE
    before = (folder / "attnsweep").lstat().st_ino
    assert pyenv.import_folder() == folder
    assert (folder / "attnsweep").lstat().st_ino == before
    assert [entry.name for entry in folder.parent.iterdir()] == [folder.name]


def test_a_link_that_points_elsewhere_is_replaced():
    """A checkout may have been moved."""
    folder = pyenv.import_folder()
    (folder / "attnsweep").unlink()
    (folder / "attnsweep").symlink_to("/nowhere")
    assert (pyenv.import_folder() / "attnsweep").resolve() == PACKAGE


def test_without_a_cache_folder_it_stands_in_the_temporary_one(tmp_path, monkeypatch):
    """A home that cannot be written, as in many containers."""
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    folder = pyenv.import_folder()
    assert folder.parent == tmp_path / f"attnsweep-import-{os.getuid()}"
    assert folder.parent.stat().st_mode & 0o777 == 0o700
    assert (folder / "attnsweep").resolve() == PACKAGE


def test_a_temporary_folder_that_is_somebody_elses_is_refused(tmp_path, monkeypatch):
    """Python would import what they put there."""
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    (tmp_path / f"attnsweep-import-{os.getuid()}").symlink_to(tmp_path)
    with pytest.raises(ConfigError, match="belongs to somebody else"):
        pyenv.import_folder()


def test_the_own_interpreter_inherits_the_users_path_made_absolute(tmp_path, monkeypatch):
    """Behind the import folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", f"relative::{os.sep}absolute")
    monkeypatch.setenv("LD_LIBRARY_PATH", "/lib/of/users")
    found = pyenv.environment(OWN, Path("/imports"), "a token")
    assert found["PYTHONPATH"] == f"/imports:{tmp_path}/relative:/absolute"
    assert found["LD_LIBRARY_PATH"] == "/lib/of/users"
    assert "PYTHONNOUSERSITE" not in found or "PYTHONNOUSERSITE" in os.environ


def test_a_foreign_interpreter_gets_nothing_of_the_parents_python(monkeypatch):
    """Neither packages nor homes; its own variables, but not a path that would hide attnsweep."""
    for name in ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV"):
        monkeypatch.setenv(name, "/parents")
    found = pyenv.environment(FOREIGN, Path("/imports"), "a token")
    assert found["PYTHONPATH"] == "/imports:/theirs"
    assert found["PYTHONNOUSERSITE"] == "1"
    assert found["A"] == "1"
    assert not {"PYTHONHOME", "VIRTUAL_ENV"} & set(found)


@pytest.mark.parametrize(
    ("users", "variables", "childs"),
    [(None, (), None), ("5", (), "5"), ("5", (("OPENBLAS_NUM_THREADS", "2"),), "2")],
)
def test_openblas_has_one_thread_in_the_zygote_and_the_users_in_the_child(monkeypatch, users, variables, childs):
    """The guard against threads needs one; subprocesses of a cell read the user's."""
    if users is None:
        monkeypatch.delenv("OPENBLAS_NUM_THREADS", raising=False)
    else:
        monkeypatch.setenv("OPENBLAS_NUM_THREADS", users)
    interpreter = Interpreter("/usr/bin/python3", variables, (), True)
    assert pyenv.environment(interpreter, Path("/imports"), "a token")["OPENBLAS_NUM_THREADS"] == "1"
    assert pyenv.restored(interpreter) == {"OPENBLAS_NUM_THREADS": childs}


@pytest.mark.parametrize("users", [None, "/mine"])
def test_the_compilers_cache_is_named_and_the_users_where_set(tmp_path, monkeypatch, users):
    """torch's default would lie in a cell's TMPDIR and go with it."""
    if users is None:
        monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR", raising=False)
    else:
        monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", users)
    monkeypatch.setenv("LOGNAME", "a/b:c")
    found = pyenv.environment(OWN, Path("/imports"), "a token")["TORCHINDUCTOR_CACHE_DIR"]
    assert found == (users or str(tmp_path / "torchinductor_a_b_c"))


@pytest.mark.slow
def test_the_compilers_cache_is_where_torch_itself_would_put_it(monkeypatch):
    """So that a user's caches are found."""
    from torch._inductor.runtime.cache_dir_utils import default_cache_dir

    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR", raising=False)
    assert pyenv.environment(OWN, Path("/imports"), "a token")["TORCHINDUCTOR_CACHE_DIR"] == default_cache_dir()
