"""CUPTI's activities by a library in its place: what is traced and when, how long the GPU was busy, names."""

import sys
from types import SimpleNamespace

import pytest

from attnsweep.timing import cupti
from attnsweep.timing.cupti import Activity, CuptiFailed, Tracer, busy_ms


class FakeCupti:
    """cupti.cupti: what `ran` hands over at the flush, if its kind is enabled then; `refused` fails, by `error`."""

    class cuptiError(Exception):
        pass

    ActivityKind = SimpleNamespace(CONCURRENT_KERNEL=10, MEMCPY=1, MEMSET=2)

    def __init__(self, refused=None, error=None):
        self.refused, self.error = refused, error or self.cuptiError("not permitted")
        self.enabled, self.pending = set(), []

    def ran(self, kind, start, end, **fields):
        if kind in self.enabled:
            self.pending.append(SimpleNamespace(kind=kind, start=start, end=end, **fields))

    def _may(self, name):
        if name == self.refused:
            raise self.error

    def activity_register_callbacks(self, requested, completed):
        self.completed = completed

    def activity_enable(self, kind):
        self._may("activity_enable")
        self.enabled.add(kind)

    def activity_disable(self, kind):
        self.enabled.discard(kind)

    def activity_flush_all(self, flag):
        self._may("activity_flush_all")
        self.completed(self.pending)
        self.pending = []


@pytest.fixture
def library(monkeypatch):
    """Put a library in cupti-python's place."""

    def put(fake):
        monkeypatch.setitem(sys.modules, "cupti", SimpleNamespace(cupti=fake))
        monkeypatch.setitem(sys.modules, "cupti.cupti", fake)
        return fake

    return put


def test_kernels_copies_and_fills_are_traced_by_their_start(library):
    """Whatever order the buffers have; copies are told from fills."""
    fake = library(FakeCupti())

    def run():
        fake.ran(10, 30, 50, name="kernel")
        fake.ran(2, 20, 25)
        fake.ran(1, 10, 15)

    assert Tracer(lambda: None).trace(run) == [
        Activity(10, 15, "memcpy", copy=True),
        Activity(20, 25, "memset", copy=False),
        Activity(30, 50, "kernel", copy=False),
    ]


def test_nothing_is_watched_but_while_it_traces(library):
    """Neither before nor after, nor after a call that raised: timed calls run without CUPTI."""
    fake = library(FakeCupti())
    watching = Tracer(lambda: None)
    assert fake.enabled == set()
    seen = watching.trace(lambda: fake.ran(10, 1, 2, name="first"))
    assert fake.enabled == set()
    with pytest.raises(ZeroDivisionError):
        watching.trace(lambda: 1 / 0)
    assert fake.enabled == set()
    assert [one.name for one in [*seen, *watching.trace(lambda: None)]] == ["first"]


def test_what_cupti_refuses_is_said_with_its_words(library):
    """Of a trace, and of a tracer that cannot even begin."""
    library(FakeCupti("activity_flush_all"))
    with pytest.raises(CuptiFailed, match="CUPTI failed in activity_flush_all: not permitted"):
        Tracer(lambda: None).trace(lambda: None)
    library(FakeCupti("activity_enable"))
    with pytest.raises(CuptiFailed, match="CUPTI failed in activity_enable: not permitted"):
        Tracer(lambda: None)


def test_a_cupti_that_is_not_found_failed(library):
    """cupti-python looks for libcupti.so in its first call, and says so by a RuntimeError of several lines."""
    lost = RuntimeError('Failure finding "libcupti.so": No such file: libcupti.so\n  listdir("/opt"):\n')
    library(FakeCupti("activity_enable", lost))
    with pytest.raises(CuptiFailed) as caught:
        Tracer(lambda: None)
    assert str(caught.value) == (
        'CUPTI failed in activity_enable: Failure finding "libcupti.so": No such file: libcupti.so'
    )


@pytest.mark.parametrize("absent", ["cupti", "cupti.cupti"])
def test_a_package_that_is_not_there_is_said_with_how_to_get_it(monkeypatch, absent):
    monkeypatch.delitem(sys.modules, "cupti", raising=False)
    monkeypatch.delitem(sys.modules, "cupti.cupti", raising=False)
    monkeypatch.setitem(sys.modules, absent, None)
    if absent == "cupti.cupti":
        monkeypatch.setitem(sys.modules, "cupti", SimpleNamespace(__path__=[]))
    with pytest.raises(CuptiFailed) as caught:
        Tracer(lambda: None)
    assert str(caught.value) == "cupti-python is not there (install it with: pip install cupti-python)"


@pytest.mark.parametrize(
    ("raised", "why"),
    [
        ("ModuleNotFoundError(\"No module named 'elftools'\", name='elftools')", "No module named 'elftools'"),
        ("ImportError('GLIBC_2.99 not found', name='cupti.cupti')", "GLIBC_2.99 not found"),
        ("OSError('libcuda.so.1: cannot open\\nmore')", "libcuda.so.1: cannot open"),
        ("RuntimeError('compiled against another ABI')", "compiled against another ABI"),
        ("TypeError('C function f has wrong signature')", "C function f has wrong signature"),
        ("ValueError('numpy.dtype size changed')", "numpy.dtype size changed"),
    ],
    ids=["what it needs", "its own library", "the loader", "an ABI", "a signature", "a size"],
)
def test_a_package_that_cannot_be_imported_is_there_and_says_why(monkeypatch, tmp_path, raised, why):
    """As where it was installed without what it needs; whoever reads must not look for cupti-python itself."""
    (tmp_path / "cupti").mkdir()
    (tmp_path / "cupti" / "__init__.py").write_text(f"raise {raised}")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "cupti", raising=False)
    monkeypatch.delitem(sys.modules, "cupti.cupti", raising=False)
    with pytest.raises(CuptiFailed) as caught:
        Tracer(lambda: None)
    assert str(caught.value) == f"cupti-python cannot be imported: {why}"


@pytest.mark.parametrize(
    ("spans", "ns"),
    [([], 0), ([(0, 5)], 5), ([(0, 5), (7, 9)], 7), ([(0, 5), (3, 9)], 9), ([(0, 10), (2, 4), (12, 13)], 11)],
)
def test_busy_is_the_time_in_which_anything_ran(spans, ns):
    """Gaps do not count, and what runs side by side counts once."""
    assert busy_ms(Activity(start, end, "k", copy=False) for start, end in spans) == pytest.approx(ns / 1e6)


@pytest.mark.parametrize(
    ("name", "copy"),
    [
        (
            "void at::native::unrolled_elementwise_kernel<at::native::direct_copy_kernel_cuda(at::TensorIterator&)>",
            True,
        ),
        ("void at::native::(anonymous namespace)::CatArrayBatchedCopy<float>", True),
        ("void at::native::vectorized_elementwise_kernel<4, at::native::FillFunctor<float>>", False),
        ("flash_fwd_kernel", False),
    ],
)
def test_kernels_that_only_copy_are_known_by_name(name, copy):
    assert cupti.copies(Activity(0, 1, name, copy=False)) == copy


def test_names_of_cpp_are_readable_and_cut():
    """Others stay as they are."""
    assert cupti.readable("_ZN5flash10fwd_kernelEv") == "flash::fwd_kernel()"
    assert cupti.readable("cudnn_generated") == "cudnn_generated"
    assert len(cupti.readable("x" * 1000)) == 240
