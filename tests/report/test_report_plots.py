"""The look of the plots: colours that stay apart, legends in the order that they name, lines that are seen."""

from __future__ import annotations

import itertools
import math
import operator
from pathlib import Path

import matplotlib as mpl
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Text
from report_records import prefill, values
from test_report_outputs import POINT, drawn_texts, svg

from attnsweep.case import Case
from attnsweep.errors import Status
from attnsweep.report.captions import heading
from attnsweep.report.derive import derive
from attnsweep.report.labels import Label
from attnsweep.report.lines import line_plot, panels_of
from attnsweep.report.measures import measures_of
from attnsweep.report.sections import Derived
from attnsweep.report.styles import COLOURS, assign, settings

#: Machado, Oliveira and Fernandes 2009, severity 1, on linear RGB.
SIGHT = {
    "normal": ((1, 0, 0), (0, 1, 0), (0, 0, 1)),
    "protan": ((0.152286, 1.052583, -0.204868), (0.114503, 0.786281, 0.099216), (-0.003882, -0.048116, 1.051998)),
    "deutan": ((0.367322, 0.860646, -0.227968), (0.280085, 0.672501, 0.047413), (-0.011820, 0.042940, 0.968881)),
}
XYZ = ((0.4124 / 0.9505, 0.3576 / 0.9505, 0.1805 / 0.9505), (0.2126, 0.7152, 0.0722), (0.0177, 0.1095, 0.8728))


def lab(colour: str, sight: str) -> tuple[float, float, float]:
    """A colour as somebody sees it, in CIELAB, where distances are about as large as they look."""
    plain = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    seen = [one / 12.92 if one <= 0.04045 else ((one + 0.055) / 1.055) ** 2.4 for one in plain]
    for matrix in (SIGHT[sight], XYZ):
        seen = [max(0.0, sum(map(operator.mul, row, seen))) for row in matrix]
    x, y, z = (one ** (1 / 3) if one > 0.008856 else 7.787 * one + 16 / 116 for one in seen)
    return 116 * y - 16, 500 * (x - y), 200 * (y - z)


def test_the_colours_stay_apart_for_the_colour_blind() -> None:
    """Ten; by Machado's model of protan and deutan sight no two come nearer than 17 in CIELAB, as 7 % of grey."""
    assert len(set(COLOURS)) == len(COLOURS) == 10
    for sight in ("normal", "protan", "deutan"):
        found = [lab(colour, sight) for colour in COLOURS]
        assert min(math.dist(one, other) for one, other in itertools.combinations(found, 2)) > 17


def test_a_colour_that_comes_again_has_another_line() -> None:
    """The eleventh implementation has the first one's colour, dashed and with another marker."""
    labels = [Label(f"impl{n:02}", "", "eager", "", f"{n}") for n in range(12)]
    styles = assign(labels)
    first, again = styles["0"], styles["10"]
    assert first.colour == again.colour
    assert first.line != again.line
    assert first.marker != again.marker
    assert len({(one.colour, str(one.line)) for one in styles.values()}) == 12


def test_what_has_no_result_takes_no_colour(tmp_path: Path) -> None:
    """Eleven that fail before the only one that is drawn leave it the first colour."""
    rows = [values(POINT, f"a{n:02}", status=Status.MISSING) for n in range(11)]
    assert "#0072b2" in svg(derive([*rows, values(POINT, "z")]), tmp_path, "latency").lower()


def legend(derived: Derived, folder: Path, kind: str) -> list[str]:
    texts = drawn_texts(svg(derived, folder, kind))
    return texts[next(n for n, text in enumerate(texts) if text.endswith("first, in the mean")) - len(texts) :]


def test_a_legend_has_the_order_that_it_names(tmp_path: Path) -> None:
    """By mean latency, quantised and incomplete ones where they belong, by memory in the plot of memory, where lines
    that hide each other are one."""
    points = [prefill(1, length) for length in (1024, 2048, 4096)]
    told = {"naive": (9.0, 4000), "int8": (0.5, 300), "fa2": (1.0, 102), "flex": (2.0, 100), "part": (1.5, 200)}
    rows = [
        values(point, impl, latency_ms=ms, peak_memory_bytes=held, bytes=1, timer="events", kernel_ms=ms, events_ms=ms)
        | {"precision_class": "int8" if impl == "int8" else "native"}
        for point in points
        for impl, (ms, held) in told.items()
        if impl != "part" or point is not points[0]
    ]
    rows += [values(points[0], "part", status=Status.UNSUPPORTED)]
    derived = derive(rows)
    timed = legend(derived, tmp_path, "latency")
    assert timed[:6] == ["fastest first, in the mean", "int8 *", "fa2", "part", "flex", "naive"]
    held = legend(derived, tmp_path, "memory")
    assert held[:6] == ["least first, in the mean", "flex", "as well: fa2", "part", "int8 *", "naive"]
    bent = [
        values(p, "bent", latency_ms=3.0, peak_memory_bytes=m, bytes=1)
        for p, m in zip(points, (90, 101, 114), strict=True)
    ]
    derived = derive([*rows, *(row | {"timer": "events"} for row in bent)])
    assert legend(derived, tmp_path, "memory")[1:4] == ["flex", "as well: fa2", "bent"]
    hidden = assign([one.label for one in derived.sections[0].standings])["fa2"].colour
    assert hidden.lower() not in svg(derived, tmp_path, "memory").lower()


def test_memory_of_a_case_that_one_failed_does_not_order_the_others(tmp_path: Path) -> None:
    """Least in the mean is by each case: what alone is there where memory grows takes no more for it."""
    points = [prefill(1, length) for length in (1024, 2048, 4096)]
    rows = [
        values(p, "fused", latency_ms=1.0, peak_memory_bytes=m, bytes=1)
        for p, m in zip(points, (9, 30, 400), strict=True)
    ]
    rows += [
        values(p, "naive", latency_ms=2.0, peak_memory_bytes=m, bytes=1) for p, m in zip(points, (10, 40), strict=False)
    ]
    rows += [values(points[2], "naive", status=Status.OOM)]
    assert legend(derive(rows), tmp_path, "memory")[1:3] == ["fused", "naive"]


@pytest.mark.parametrize("failing", ["fa2", "flex"])
def test_a_line_with_a_mark_for_a_failure_keeps_its_own_look(failing: str, tmp_path: Path) -> None:
    """Out of memory in a case: the mark needs a line of its colour in the legend."""
    points = [prefill(1, length) for length in (1024, 2048, 4096, 8192)]
    rows = [values(point, impl, peak_memory_bytes=100, bytes=1) for point in points[:3] for impl in ("fa2", "flex")]
    assert "as well: fa2" in legend(derive(rows), tmp_path / "one", "memory")
    rows += [values(points[3], failing, status=Status.OOM), values(points[3], "x")]
    assert not [text for text in legend(derive(rows), tmp_path, "memory") if text.startswith("as well")]


def test_titles_of_panels_do_not_overlap() -> None:
    """Four fields vary: each title stays within its panel, and a field's name beside its value."""
    rows = [
        values(("prefill", "seq_len", 1024, Case(b, 1024, 1024, h, h, d, d, bias=bias, dtype="fp16")), impl)
        for b, h, d, bias in [(1, 16, 128, "none"), (1, 8, 64, "dense"), (2, 32, 256, "dense"), (4, 32, 128, "dense")]
        for impl in ("fa2", "naive")
    ]
    (section,) = derive(rows).sections
    styles = assign([one.label for one in section.standings])
    with mpl.rc_context(settings()):
        for several in (3, 4):  # three beside each other, two and two
            cases = section.cases[:several]
            (measure, *_) = measures_of(cases, ["fa2", "naive"])
            figure = line_plot(section, panels_of(section, cases), measure, styles, 0)
            FigureCanvasAgg(figure).draw()
            panels = [ax for ax in figure.axes if ax.get_visible()]
            assert len(panels) == several
            for ax in panels:
                said = ax.get_title(loc="left")
                (title,) = [text for text in ax.findobj(Text) if text.get_text() == said]
                assert title.get_window_extent().x1 <= ax.get_window_extent().x1
                assert all(
                    line.rstrip(",").count(" ") == 2 * line.rstrip(",").count(",") + 1 for line in said.split("\n")
                )


def test_plots_over_several_boards_say_so(tmp_path: Path) -> None:
    """In the title of the lines and of the bars."""
    derived = derive([values(POINT), values(prefill(1, 4096), gpu_uuid="GPU-2")])
    for kind in ("latency", "winners"):
        assert "cases on 2 GPUs" in " ".join(drawn_texts(svg(derived, tmp_path / kind, kind)))


def test_the_star_is_explained_where_a_label_that_has_it_is_drawn() -> None:
    """A quantised one among those that are left out says nothing of what is there."""
    quantised = values(POINT, "sage", latency_ms=0.5, precision_class="int8")
    section = derive([values(POINT, "fa2", latency_ms=1.0), quantised]).sections[0]
    for drawn, said in ((["fa2", "sage"], True), (["fa2"], False)):
        assert ("*: not in the case's own precision" in " ".join(heading(section, 9.0, drawn))) is said


def test_a_caption_says_who_has_another_timer() -> None:
    """JAX's points are by its kernels beside those of graphs; of what is not drawn nothing is said."""
    alone = {"timer": "kernel", "kernel_ms": 1.0, "events_ms": None, "graph_ms": None}
    rows = [values(POINT, "fa2", latency_ms=1.0, timer="graph"), values(POINT, "jax", latency_ms=1.0, **alone)]
    section = derive(rows).sections[0]
    said = {drawn: " ".join(heading(section, 9.0, drawn)) for drawn in (("fa2", "jax"), ("fa2",))}
    assert "timer graph, kernel for jax" in said["fa2", "jax"]
    assert "kernel" not in said["fa2",]
    assert "timer" not in " ".join(heading(section, 9.0, ["fa2", "jax"], timed=False))
