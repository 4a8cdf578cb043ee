"""The pool: whatever a cell does, it gets its status, every other cell is unharmed, and no process is left."""

from __future__ import annotations

import dataclasses
import os
import shutil
import sys
import tempfile
import threading
import time
import venv
from pathlib import Path

import pytest

import processes
from attnsweep.devices import Device
from attnsweep.errors import AttnsweepError, Status
from attnsweep.interpreters import RESERVED
from attnsweep.pool import Pool, Queue, neighbours, slot
from processes import BARE, cell, survivors, sweep

TESTS = Path(__file__).parent


@pytest.fixture(autouse=True)
def marker(tmp_path, monkeypatch):
    """A world of its own for each test, and no process left after it."""
    yield from processes.alone(tmp_path, monkeypatch)


def test_a_cell_that_returns_is_what_it_says(tmp_path):
    """The outcome arrives whole, with the phase, the times and the memory of its process."""
    ends = sweep(tmp_path, cell("ok"))
    end = ends["ok"]
    assert end.status is Status.OK
    assert end.outcome["columns"]["pid"] != os.getpid()
    assert (end.reason, end.traceback, end.exit_signal) == (None, None, None)
    assert end.phase == "timing"
    assert 0 < end.ended_s - end.requested_s < 10
    assert end.max_rss_bytes > 1_000_000
    assert end.started_at.endswith("+00:00")
    assert end.telemetry == []


def test_a_cell_that_raises_is_an_error_with_its_traceback(tmp_path):
    """An entry point that lets an exception out did not crash its process."""
    end = sweep(tmp_path, cell("raises"))["raises"]
    assert (end.status, end.reason) == (Status.ERROR, "ValueError: no such kernel")
    assert "in raises" in end.traceback


def test_sys_exit_is_an_error(tmp_path):
    """SystemExit is an exception like others, not the end of a process."""
    end = sweep(tmp_path, cell("sys_exit"))["sys_exit"]
    assert (end.status, end.reason) == (Status.ERROR, "SystemExit: 3")


def test_an_exit_without_outcome_is_a_crash(tmp_path):
    """The phase and the last lines of the log say where."""
    end = sweep(tmp_path, cell("exit_code", code=7))["exit_code"]
    assert end.status is Status.CRASHED
    assert end.reason == "exit 7 without outcome (in phase prepare)"
    assert end.traceback == "last words"
    assert end.exit_signal is None


@pytest.mark.parametrize("do", ["hang", "hang_ignoring_sigterm"])
def test_a_hang_is_a_timeout_that_says_where(tmp_path, do):
    """Also where SIGTERM is ignored; the phase is in the reason, the place in the traceback."""
    end = sweep(tmp_path, cell(do, timeout_s=0.5))[do]
    assert end.status is Status.TIMEOUT
    assert end.reason == "still running after its deadline of 0.5 s (in phase timing); pool.timeout_s raises it"
    assert "in hang" in end.traceback
    assert end.exit_signal == ("SIGTERM" if do == "hang" else "SIGKILL")


def test_a_complete_outcome_wins_over_the_deadline(tmp_path):
    """A cell that hangs after it has said everything was measured."""
    assert sweep(tmp_path, cell("outcome_then_hang", timeout_s=0.5))["outcome_then_hang"].status is Status.OK


def test_output_of_c_and_python_reaches_the_log(tmp_path):
    """Buffers are flushed although the process ends at once."""
    sweep(tmp_path, cell("c_printf"))
    assert sorted((tmp_path / "cells" / "c_printf.log").read_text().splitlines()) == ["from C", "from Python"]


def test_a_quiet_cell_leaves_no_log(tmp_path):
    """Nor does a log of an earlier run stay, nor an empty one of a zygote."""
    (tmp_path / "cells").mkdir()
    (tmp_path / "cells" / "ok.log").write_text("of yesterday")
    sweep(tmp_path, cell("ok"))
    assert list((tmp_path / "cells").iterdir()) == []


def test_json_too_deep_to_read_does_not_count(tmp_path):
    """What would exhaust the parent's stack is passed over."""
    assert sweep(tmp_path, cell("deep_json"))["deep_json"].status is Status.OK


def test_a_payload_too_large_for_a_message_is_an_error(tmp_path):
    """It costs neither the zygote nor the next cell."""
    ends = sweep(tmp_path, cell("ok", name="big", blob="x" * 3_000_000), cell("ok"))
    assert ends["big"].status is Status.ERROR
    assert "larger than a message" in ends["big"].reason
    assert ends["ok"].status is Status.OK


def test_a_copy_of_the_cell_has_no_say(tmp_path):
    """A forked copy that comes back from the entry point writes no outcome."""
    assert sweep(tmp_path, cell("forked_copy_returns"))["forked_copy_returns"].outcome["columns"] == {"copy": False}


def test_a_cell_that_killed_its_zygote_gets_a_second_attempt(tmp_path):
    """One death may have come from outside; the second is the cell's, and no other cell pays for it."""
    once = cell("kill_zygote_once", marker=str(tmp_path / "once"))
    ends = sweep(tmp_path, cell("kill_zygote"), cell("ok"), once)
    assert ends["kill_zygote"].status is Status.CRASHED
    assert ends["ok"].status is Status.OK
    assert ends["kill_zygote_once"].status is Status.OK


@pytest.fixture
def starts(monkeypatch):
    """The interpreters for which a zygote was started, in order."""
    started = []

    class Counted(slot.Zygote):
        def __init__(self, interpreter, **options):
            started.append(interpreter)
            super().__init__(interpreter, **options)

    monkeypatch.setattr(slot, "Zygote", Counted)
    return started


def test_a_preload_that_cannot_be_imported_is_missing(tmp_path, starts):
    """For every cell of that interpreter, from one attempt to start it; other interpreters go on."""
    broken = dataclasses.replace(BARE, preload=("no_such_library",))
    cells = [cell("ok", name=f"c{number}", interpreter=broken) for number in range(3)]
    ends = sweep(tmp_path, *cells, cell("ok"))
    for one in cells:
        assert ends[one.id].status is Status.MISSING
        assert "No module named 'no_such_library'" in ends[one.id].reason
        assert f"{sys.executable} -m pip install no_such_library" in ends[one.id].reason
    assert ends["ok"].status is Status.OK
    assert starts == [broken, BARE]


def test_a_zygote_that_dies_twice_while_importing_is_a_crash_for_all(tmp_path, starts, monkeypatch):
    """Two starts, however many cells want it."""
    (tmp_path / "deadly.py").write_text("import os\nprint('about to die', flush=True)\nos._exit(9)\n")
    monkeypatch.setenv("PYTHONPATH", f"{TESTS}:{tmp_path}")
    deadly = dataclasses.replace(BARE, preload=("deadly",))
    ends = sweep(tmp_path, *(cell("ok", name=f"c{number}", interpreter=deadly) for number in range(3)))
    assert {end.status for end in ends.values()} == {Status.CRASHED}
    (log,) = {one.reason.rpartition("more in ")[2].removesuffix(")") for one in ends.values()}
    who = f"{sys.executable}, which imports deadly"
    assert ends["c0"].reason == f"its zygote died twice before it was ready ({who}): about to die (more in {log})"
    assert Path(log).read_text() == "about to die\n"
    assert ends["c0"].traceback == "about to die"
    assert starts == [deadly, deadly]


def test_a_preload_that_takes_too_long_is_an_error(tmp_path, monkeypatch):
    """An import that hangs does not hang the sweep."""
    (tmp_path / "slow.py").write_text("import time\ntime.sleep(600)\n")
    monkeypatch.setenv("PYTHONPATH", f"{TESTS}:{tmp_path}")
    slow = dataclasses.replace(BARE, preload=("slow",))
    end = sweep(tmp_path, cell("ok", interpreter=slow), ready_timeout_s=0.3)["ok"]
    assert end.status is Status.ERROR
    assert "not ready for cells within 0.3 s" in end.reason


def test_a_thread_that_has_ended_is_no_reason_to_refuse(tmp_path, monkeypatch):
    """Libraries look for things in threads while they are imported."""
    (tmp_path / "brief.py").write_text(
        "import threading\n"
        "threads = [threading.Thread(target=print) for _ in range(20)]\n"
        "[thread.start() for thread in threads]\n"
        "[thread.join() for thread in threads]\n"
    )
    monkeypatch.setenv("PYTHONPATH", f"{TESTS}:{tmp_path}")
    brief = dataclasses.replace(BARE, preload=("brief",))
    assert sweep(tmp_path, cell("ok", interpreter=brief))["ok"].status is Status.OK


def test_a_cell_starts_clean(tmp_path, monkeypatch):
    """Group, signals, threads, descriptors, stdin, memory score, folder, TMPDIR and variables are as they should be."""
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "7")
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR", raising=False)
    monkeypatch.chdir(tmp_path)
    seen = sweep(tmp_path, cell("look"))["look"].outcome["columns"]
    assert seen["own_group"]
    assert seen["sigint_default"]
    assert seen["blocked"] == 0
    assert seen["threads"] == 1
    # null, the log twice, the outcome, and the listing itself
    assert seen["fds"] == 5
    assert seen["stdin"] == "/dev/null"
    assert seen["oom_score_adj"] >= 500
    assert seen["cwd"] == str(tmp_path)
    assert seen["environ"]["CUDA_VISIBLE_DEVICES"] == ""
    assert seen["environ"]["OPENBLAS_NUM_THREADS"] == "7"
    assert seen["environ"]["PYTORCH_NVML_BASED_CUDA_CHECK"] == "1"
    assert "HYDRA_FULL_ERROR" not in seen["environ"]
    assert seen["temporary"].startswith(seen["environ"]["TMPDIR"] + "/")
    assert not Path(seen["environ"]["TMPDIR"]).exists()
    cache = seen["environ"]["TORCHINDUCTOR_CACHE_DIR"]
    assert Path(cache).parent == Path(tempfile.gettempdir())
    assert Path(cache).name.startswith("torchinductor_")


def test_a_temporary_folder_remembered_by_a_preload_is_forgotten(tmp_path, monkeypatch):
    """torch's compiler asks for it while it is imported."""
    (tmp_path / "asks.py").write_text("import tempfile\ntempfile.gettempdir()\n")
    monkeypatch.setenv("PYTHONPATH", f"{TESTS}:{tmp_path}")
    asking = dataclasses.replace(BARE, preload=("asks",))
    seen = sweep(tmp_path, cell("look", interpreter=asking))["look"].outcome["columns"]
    assert seen["temporary"].startswith(seen["environ"]["TMPDIR"] + "/")


def test_openblas_is_left_alone_where_the_user_says_nothing(tmp_path, monkeypatch):
    """The zygote's own setting is not a cell's."""
    monkeypatch.delenv("OPENBLAS_NUM_THREADS", raising=False)
    environ = sweep(tmp_path, cell("look"))["look"].outcome["columns"]["environ"]
    assert "OPENBLAS_NUM_THREADS" not in environ


class FakeSensors:
    """Sensors of a GPU on which a test's functions say who is; `looks` has what was alive at each look."""

    processes = staticmethod(lambda: 0)
    percent = staticmethod(lambda: 0)
    others = staticmethod(lambda: None)

    def __init__(self, uuid):
        self.uuid, self.closed, self.looks = uuid, False, []

    def sample(self):
        return {"time_s": 1.0, "throttle": []}

    def compute_processes(self):
        self.looks.append(("processes", len(survivors(os.environ[processes.MARKER]))))
        return self.processes()

    def utilization(self):
        self.looks.append(("percent", len(survivors(os.environ[processes.MARKER]))))
        return self.percent()

    def other_gpus_in_use(self):
        return self.others()

    def close(self):
        self.closed = True


@pytest.fixture
def opened(monkeypatch):
    """The fake sensors that slots open, in order; none is left open."""
    made = []
    monkeypatch.setattr(slot, "Sensors", lambda uuid: made.append(FakeSensors(uuid)) or made[-1])
    monkeypatch.setattr(neighbours, "_BUSY_S", 0.05)
    monkeypatch.setattr(neighbours, "_BUSY_AGAIN_S", 0.01)
    yield made
    assert all(sensors.closed for sensors in made)


GPU = Device(kind="cuda", uuid="GPU-1234", name="a GPU")


def test_a_gpu_is_made_visible_by_its_uuid(tmp_path, opened):
    """And its sensors are read while a cell is timed, and not before."""
    ends = sweep(tmp_path, cell("look"), cell("hang", timeout_s=0.3), devices=(GPU,))
    assert ends["look"].telemetry == []
    assert ends["look"].outcome["columns"]["environ"]["CUDA_VISIBLE_DEVICES"] == "GPU-1234"
    # 300 ms at one reading each 20 ms, on a machine that may be busy
    assert 5 <= len(ends["hang"].telemetry) <= 40
    assert [sensors.uuid for sensors in opened] == ["GPU-1234"]
    assert [end.flags for end in ends.values()] == [frozenset()] * 2


def test_others_are_looked_for_while_nothing_of_ours_can_be_on_the_gpu(tmp_path, opened):
    """For work before the first zygote; for processes with one zygote, which has no GPU, before and after each cell."""
    daemon = cell("daemon", marker=str(tmp_path / "pid"), then="segfault")
    sweep(tmp_path, cell("ok"), daemon, cell("hang", timeout_s=0.1), devices=(GPU,))
    assert opened[0].looks == [("percent", 0)] + [("processes", 1)] * 6


def test_a_foreign_process_flags_each_cell_beside_it_and_is_said_once(tmp_path, opened, monkeypatch):
    """One that was there before, for a GPU and a sweep; a second sweep says it again."""
    said = []
    monkeypatch.setattr(FakeSensors, "processes", staticmethod(lambda: 2))
    monkeypatch.setattr(neighbours, "_LISTED_S", 0.02)
    for _ in range(2):
        ends = sweep(tmp_path, cell("ok"), cell("segfault"), devices=(GPU,), waiting=said.append)
        assert [end.flags for end in ends.values()] == [{"foreign_process"}] * 2
        # What is known before a cell is not waited for after it
        assert [end.looked_s for end in ends.values()] == [0.0] * 2
    assert (
        said
        == ["a GPU (GPU-1234) is used by 2 processes that are not this sweep's: cells get the flag foreign_process"] * 2
    )


@pytest.mark.parametrize(
    ("readings", "most"), [([0, 2], 2), ([1, 0], 1), ([None, 3], 3), ([0, None], 0), ([None, None], None)]
)
def test_a_cell_knows_how_many_other_gpus_were_in_use(tmp_path, opened, monkeypatch, readings, most):
    """The most of before and after; one that could not be told says nothing."""
    monkeypatch.setattr(FakeSensors, "others", staticmethod(iter(readings).__next__))
    (end,) = sweep(tmp_path, cell("ok"), devices=(GPU,)).values()
    assert end.other_gpus_in_use == most


def test_a_foreign_process_that_came_during_a_cell_flags_that_cell(tmp_path, opened, monkeypatch):
    """And not the one before it, nor the one after it has gone."""
    came = tmp_path / "came"
    monkeypatch.setattr(FakeSensors, "processes", staticmethod(lambda: int(came.exists())))
    said = []
    ends = sweep(
        tmp_path,
        cell("ok", name="before"),
        cell("hang", name="during", marker=str(came), timeout_s=0.1),
        cell("ok", name="after"),
        devices=(GPU,),
        finished=lambda one, end: came.unlink(missing_ok=True),
        waiting=said.append,
    )
    assert {name: set(end.flags) for name, end in ends.items()} == {
        "before": set(),
        "during": {"foreign_process"},
        "after": set(),
    }
    assert len(said) == 1
    assert "1 process that is not this sweep's" in said[0]


def test_a_cell_that_the_driver_lists_a_while_after_its_death_is_not_foreign(tmp_path, opened, monkeypatch):
    """It is looked again, and the waiting is no time of the cell."""
    listed = iter([0, 1, 1, 1, 0])
    monkeypatch.setattr(FakeSensors, "processes", staticmethod(lambda: next(listed)))
    monkeypatch.setattr(neighbours, "_LISTED_S", 20.0)
    monkeypatch.setattr(neighbours, "_LISTED_AGAIN_S", 0.1)
    said, told = [], []
    end = sweep(
        tmp_path,
        cell("ok"),
        devices=(GPU,),
        waiting=said.append,
        finished=lambda one, end: told.append(time.monotonic()),
    )["ok"]
    assert end.flags == frozenset()
    assert said == []
    assert 0.3 <= end.looked_s <= told[0] - end.ended_s


def test_a_process_of_ours_that_cannot_be_killed_is_not_called_foreign(tmp_path, opened, monkeypatch):
    """It is why the device is retired; nobody looks any more."""
    monkeypatch.setattr(slot.Zygote, "close", unkillable(slot.Zygote.close))
    end = sweep(tmp_path, cell("kill_zygote"), devices=(GPU,))["kill_zygote"]
    assert end.flags == frozenset()
    assert [what for what, _ in opened[0].looks] == ["percent", "processes"]


def test_a_gpu_that_stays_busy_before_the_sweep_flags_all_its_cells(tmp_path, opened, monkeypatch):
    """It is said once, with how busy."""
    monkeypatch.setattr(FakeSensors, "percent", staticmethod(lambda: 37))
    said = []
    ends = sweep(tmp_path, cell("ok"), cell("segfault"), devices=(GPU,), waiting=said.append)
    assert [end.flags for end in ends.values()] == [{"gpu_busy"}] * 2
    assert said == ["a GPU (GPU-1234) was busy before this sweep used it (37 %): its cells get the flag gpu_busy"]


def test_equal_seeds_give_equal_numbers_and_others_do_not(tmp_path):
    """`random` does not go on where the last cell left it."""
    cells = [cell("look", name=name, seed=seed) for name, seed in (("a", 1), ("b", 1), ("c", 2))]
    numbers = {name: end.outcome["columns"]["random"] for name, end in sweep(tmp_path, *cells).items()}
    assert numbers["a"] == numbers["b"] != numbers["c"]


def test_each_interpreter_has_its_variables(tmp_path):
    """Variables are set before a zygote starts, and stay within it."""
    a = dataclasses.replace(BARE, variables=(("ATTNSWEEP_FAKE", "a"), ("OPENBLAS_NUM_THREADS", "3")))
    b = dataclasses.replace(BARE, variables=(("ATTNSWEEP_FAKE", "b"),))
    ends = sweep(tmp_path, *(cell("look", name=str(i), interpreter=one) for i, one in enumerate((a, b, a, BARE))))
    seen = [end.outcome["columns"] for end in ends.values()]
    assert [one["environ"].get("ATTNSWEEP_FAKE") for one in seen] == ["a", "b", "a", None]
    assert seen[0]["environ"]["OPENBLAS_NUM_THREADS"] == "3"
    assert seen[0]["zygote"] == seen[2]["zygote"] != seen[1]["zygote"]


def test_a_cell_has_every_variable_that_its_implementation_may_set(tmp_path, monkeypatch):
    """Whatever else is set for a cell gives way to them; PYTHONPATH is put together."""
    caches = {"TORCHINDUCTOR_CACHE_DIR", "JAX_COMPILATION_CACHE_DIR"}
    for name in caches:  # what compiles in the process of the tests sets the first, and then it is the parent's
        monkeypatch.delenv(name, raising=False)
    ours = sweep(tmp_path, cell("look"))["look"].outcome["columns"]["environ"]
    changed = {name for name, value in ours.items() if os.environ.get(name) != value} | {"OPENBLAS_NUM_THREADS"}
    assert changed >= RESERVED
    theirs = {name: f"/{name}" for name in changed - RESERVED - {"PYTHONPATH"}}
    assert caches <= set(theirs)
    one = dataclasses.replace(BARE, variables=tuple(theirs.items()))
    seen = sweep(tmp_path, cell("look", interpreter=one))["look"].outcome["columns"]["environ"]
    assert {name: seen[name] for name in theirs} == theirs


def test_the_working_folder_is_not_imported_from(tmp_path, monkeypatch):
    """A json.py or numpy.py of the user's, lying where the command was typed, is not ours to import."""
    hostile = tmp_path / "hostile"
    hostile.mkdir()
    for module in ("json", "numpy", "signal", "attnsweep", "fakes"):
        (hostile / f"{module}.py").write_text("raise SystemExit('imported from the working folder')")
    monkeypatch.chdir(hostile)
    seen = sweep(tmp_path, cell("look"))["look"].outcome["columns"]
    assert seen["cwd"] == str(hostile)
    assert not seen["json"].startswith(str(hostile))
    assert str(hostile) not in seen["path"]


def test_a_relative_pythonpath_means_the_parents_folder(tmp_path, monkeypatch):
    """Although the zygote starts elsewhere."""
    shutil.copy(TESTS / "fakes.py", tmp_path / "fakes.py")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", "nowhere:.")
    assert str(tmp_path) in sweep(tmp_path, cell("look"))["look"].outcome["columns"]["path"]


def test_a_foreign_interpreter_gets_attnsweep_and_none_of_the_parents_packages(tmp_path, monkeypatch):
    """Its symlinks are kept (resolving them leaves the venv), and PYTHONPATH is not inherited."""
    venv.create(tmp_path / "env", with_pip=False, symlinks=True)
    packages = next((tmp_path / "env" / "lib").glob("python*/site-packages"))
    shutil.copy(TESTS / "fakes.py", packages / "fakes.py")
    monkeypatch.setenv("PYTHONPATH", f"{TESTS}:/leaked")
    foreign = dataclasses.replace(BARE, python=str(tmp_path / "env" / "bin" / "python"), own=False)
    seen = sweep(tmp_path, cell("look", interpreter=foreign))["look"].outcome["columns"]
    assert seen["prefix"] == str(tmp_path / "env")
    assert "/leaked" not in seen["path"]
    assert "ATTNSWEEP_ZYGOTE" in seen["environ"]
    assert [path for path in seen["path"] if path.endswith("site-packages")] == [str(packages)]


def test_subprocesses_of_a_cell_find_attnsweep_and_get_no_descriptor(tmp_path):
    """Compile workers import the package; the pipes and the lock are not theirs."""
    columns = sweep(tmp_path, cell("subprocesses"))["subprocesses"].outcome["columns"]
    assert columns["fds"] == 4
    assert columns["path"].endswith("/attnsweep")


def test_no_descriptor_leaks_over_50_cells(tmp_path):
    """Neither here, nor in the zygote, nor into later cells."""
    before = len(os.listdir("/proc/self/fd"))
    here = []
    ends = sweep(
        tmp_path,
        *(cell("look", name=f"c{number}") for number in range(50)),
        finished=lambda one, end: here.append(len(os.listdir("/proc/self/fd"))),
    )
    seen = [end.outcome["columns"] for end in ends.values()]
    assert len(set(here)) == 1
    assert len({one["fds"] for one in seen}) == 1
    # stdio, socket, lock; and, depending on who is first, the child's pidfd and its two pipes
    assert {one["zygote_fds"] for one in seen} <= {5, 6, 7, 8}
    assert len(os.listdir("/proc/self/fd")) == before


def test_deadlines_that_race_with_the_start_are_timeouts(tmp_path):
    """100 deadlines between 0 and 10 ms: a cell is timed out or complete, never anything else."""
    cells = [cell("ok", name=f"c{number}", timeout_s=number / 10_000) for number in range(100)]
    ends = sweep(tmp_path, *cells, cell("hang", timeout_s=0.0))
    assert {end.status for end in ends.values()} <= {Status.TIMEOUT, Status.OK}
    assert all(end.outcome for end in ends.values() if end.status is Status.OK)
    assert ends["hang"].status is Status.TIMEOUT


def test_a_bounded_number_of_zygotes_stays_warm(tmp_path, marker):
    """The one used longest ago makes room."""
    interpreters = [dataclasses.replace(BARE, variables=(("N", str(n)),)) for n in (0, 1, 0, 2, 0)]
    warm = []
    ends = sweep(
        tmp_path,
        *(cell("ok", name=f"c{i}", interpreter=one) for i, one in enumerate(interpreters)),
        finished=lambda one, end: warm.append(len(survivors(marker))),
        warm=2,
    )
    zygotes = [end.outcome["columns"]["zygote"] for end in ends.values()]
    assert warm == [1, 2, 2, 2, 2]
    assert zygotes[0] == zygotes[2] == zygotes[4]


TWO = (Device("cpu", "cpu-a", "a"), Device("cpu", "cpu-b", "b"))


def test_two_devices_run_at_the_same_time(tmp_path):
    """Each cell waits until the other runs: one after the other they would never end."""
    one, two = str(tmp_path / "one"), str(tmp_path / "two")
    ends = sweep(
        tmp_path,
        cell("meet", name="a", group="a", mine=one, theirs=two, timeout_s=20),
        cell("meet", name="b", group="b", mine=two, theirs=one, timeout_s=20),
        devices=TWO,
    )
    assert {end.status for end in ends.values()} == {Status.OK}


def test_a_group_stays_on_one_device_in_order():
    """Cells of one case are compared with each other, so one GPU measures them all, in the plan's order."""
    queue = Queue([cell("ok", name=f"{group}{n}", group=group) for n in (0, 1) for group in "abc"])
    a, b = TWO
    taken = [(device.uuid, queue.take(device)) for device in (a, b, a, b, b, a, a, a)]
    assert [(uuid, one and one.id) for uuid, one in taken] == [
        ("cpu-a", "a0"),
        ("cpu-b", "b0"),
        ("cpu-a", "c0"),
        ("cpu-b", "b1"),
        ("cpu-b", None),
        ("cpu-a", "a1"),
        ("cpu-a", "c1"),
        ("cpu-a", None),
    ]
    assert not queue.wanted(a)


def test_a_group_that_was_begun_goes_on_where_it_was(tmp_path):
    """The second device measures what it measured before, also where the first is free and it comes later."""
    a, b = TWO
    cells = [cell("ok", name=name, group=name) for name in "xyz"]
    ran = {}
    Pool(list(TWO), log_folder=tmp_path / "cells", run="fakes:run").run(
        cells,
        lambda one, device: ran.update({one.id: device.uuid}),
        lambda one, device, end: None,
        {"x": b.uuid, "y": b.uuid, "z": "a device that is gone"},
    )
    assert ran["x"] == ran["y"] == b.uuid
    assert ran["z"] in (a.uuid, b.uuid)


def test_a_retired_device_leaves_its_cells_to_others():
    """What it had begun is not lost with it."""
    queue = Queue([cell("ok", name=name, group="g") for name in "xy"])
    a, b = TWO
    assert queue.take(a).id == "x"
    assert not queue.wanted(b)
    queue.retire(a)
    assert queue.take(b).id == "y"


def test_a_process_that_cannot_be_killed_retires_the_device(tmp_path, monkeypatch):
    """Its cell is recorded, the rest stays open, and that is said."""
    monkeypatch.setattr(slot.Zygote, "close", unkillable(slot.Zygote.close))
    with pytest.raises(AttnsweepError, match=r"SIGKILL does not end process 4711; 1 cells are still open"):
        sweep(tmp_path, cell("kill_zygote"), cell("ok"))


def unkillable(close):
    """`Zygote.close` with a process that stays."""
    return lambda zygote, **options: [*close(zygote, **options), 4711]


@pytest.mark.parametrize("when", ["started", "finished"])
def test_what_a_callback_raises_ends_the_sweep(tmp_path, when):
    """A full disk, say: nothing more is run, nothing is left, and the error arrives."""
    told = []

    def fail(one, device, end=None):
        told.append(one.id)
        raise OSError("no space left")

    def listen(one, device, end=None):
        pass

    cells = [cell("ok", name="a", group="a"), cell("hang", name="b", group="b"), cell("ok", name="c", group="a")]
    callbacks = (fail, listen) if when == "started" else (listen, fail)
    pool = Pool(list(TWO), log_folder=tmp_path / "cells", run="fakes:run", grace_s=0.2)
    with pytest.raises(OSError, match="no space left"):
        pool.run(cells, *callbacks)
    assert "c" not in told


def test_callbacks_are_told_one_at_a_time(tmp_path):
    """Whatever thread they come from, so that they need no lock of their own."""
    busy = threading.Lock()
    calls = []

    def alone(*told):
        assert busy.acquire(blocking=False)
        calls.append(told)
        busy.release()

    cells = [cell("ok", name=f"c{number}", group=str(number)) for number in range(12)]
    assert Pool(list(TWO), log_folder=tmp_path / "cells", run="fakes:run").run(cells, alone, alone) is None
    assert len(calls) == 24


def test_a_sweep_in_another_thread_than_the_main_one_works(tmp_path):
    """It installs no handlers there, since Python would refuse."""
    ends = []
    thread = threading.Thread(target=lambda: ends.append(sweep(tmp_path, cell("ok"))))
    thread.start()
    thread.join()
    assert ends[0]["ok"].status is Status.OK


def test_a_full_temporary_folder_costs_the_cell_and_not_the_sweep(tmp_path, monkeypatch):
    """Each cell has a TMPDIR of its own; where none can be made the record says so."""

    def full(**options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("attnsweep.pool.scratch.tempfile.mkdtemp", full)
    ends = sweep(tmp_path, cell("ok"))
    assert ends["ok"].status is Status.ERROR
    assert "No space left on device" in ends["ok"].reason
