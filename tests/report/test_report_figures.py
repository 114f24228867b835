import functools
import re
import xml.etree.ElementTree as ET

import pytest
from sample_records import bars, heatmap, histogram, intervals, lines, panels

from metier.report.canvas import SERIES
from metier.report.figures import draw
from metier.runs import Figure, Lines, Panel, Panels, Reference, Series

FIGURES = {
    "lines": lines(),
    "intervals": intervals(),
    "bars": bars(),
    "bars-horizontal": bars(horizontal=True),
    "heatmap": heatmap(),
    "heatmap-diverging": heatmap(diverging=True),
    "histogram": histogram(),
    "panels": panels(),
}


@functools.cache
def drawn(name, narrow):
    return draw(FIGURES[name], narrow=narrow)


def words(svg):
    return {
        "".join(node.itertext()).strip()
        for node in ET.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")
    }


def simple(series, **changes):
    data = Lines(**({"x_label": "x", "y_label": "y", "series": series} | changes))
    return Figure(id="f", title="t", caption="c", alt="an example line", data=data)


@pytest.mark.parametrize("narrow", [False, True])
@pytest.mark.parametrize("name", FIGURES)
def test_figure_should_draw_the_same_valid_svg_twice(name, narrow):
    svg = drawn(name, narrow)
    assert svg == draw(FIGURES[name], narrow=narrow)
    width = float(ET.fromstring(svg).get("viewBox").split()[2])
    assert width == (350 if narrow else 720)


@pytest.mark.parametrize("name", FIGURES)
def test_figure_should_take_every_color_from_the_page(name):
    svg = drawn(name, False)
    outside = re.sub(r"var\([^)]*\)", "", svg)
    assert set(re.findall(r"#[0-9a-f]{6}\b", outside)) <= {"#000000", "#ffffff"}
    assert "#0102" not in svg
    assert "currentColor" in svg


@pytest.mark.parametrize("name", FIGURES)
def test_figure_should_name_no_date_font_or_outside_address(name):
    svg = drawn(name, False)
    assert "DejaVu" not in svg
    assert "metadata" not in svg
    assert "http" not in svg.replace("http://www.w3.org/2000/svg", "")


def test_variants_should_share_no_id():
    wide, narrow = (set(re.findall(r'\bid="([^"]+)"', draw(lines(), narrow=n))) for n in (False, True))
    assert wide
    assert not wide & narrow


def test_text_should_hold_what_the_record_says():
    assert {"validation loss", "iteration", "oracle", "best so far"} <= words(draw(lines()))
    assert {"0.031  [0.012, 0.050]", "random balanced clusters"} <= words(draw(intervals()))
    assert {"−0.1", "cluster 3", "mean squared loss"} <= {
        word.replace("−0.10", "−0.1") for word in words(draw(heatmap(diverging=True)))
    }
    assert "Cluster 4: weekly, 160 series" in words(draw(panels()))


def test_muted_series_should_take_no_color():
    svg = draw(lines())
    assert "var(--c0" in svg
    assert "var(--c1" in svg
    assert "var(--c2" not in svg


def test_name_should_keep_its_color_across_panels():
    def panel(*names):
        return Panel(title="p", series=tuple(Series(name=n, x=[0, 1], y=[0, 1]) for n in names))

    data = Panels(x_label="x", y_label="y", panels=(panel("a", "b"), panel("b")))
    svg = draw(Figure(id="f", title="t", caption="c", alt="two panels of lines", data=data))
    curves = re.findall(r'<path d="[^"]*" clip-path[^>]*stroke: var\(--(c\d)', svg)
    assert curves == ["c0", "c1", "c1"]


@pytest.mark.parametrize(
    "label", ["$x^2$ costs $5", "100 % _a_", "<b> & \"q\" 'r'", "日本\x00\x07", "", "\\alpha"]
)
def test_any_label_should_be_drawn_as_it_is(label):
    svg = draw(
        simple((Series(name=label, x=[1, 2], y=[1, 2]), Series(name="b", x=[1], y=[1])), x_label=label)
    )
    shown = "".join(c if c.isprintable() else " " for c in label).strip()
    assert shown in words(svg) | {""}


@pytest.mark.parametrize("x", [["a", "b", "c", "d", "e"], [1, 2, 3, 4, 5]])
def test_gap_should_split_the_line(x):
    svg = draw(simple((Series(name="a", x=x, y=[1.0, 2.0, float("nan"), 2.0, 1.0]),)))
    (curve,) = re.findall(r'<path d="([^"]*)" clip-path[^>]*stroke: var\(--c0', svg)
    assert curve.count("M") == 2


def test_reference_labels_should_have_ids_of_their_own_across_panels():
    line = (Series(name="a", x=[0, 1], y=[0, 1]),)
    panel = Panel(title="p", series=line, references=(Reference(axis="y", value=0.5, label="half"),) * 2)
    data = Panels(x_label="x", y_label="y", panels=(panel, panel))
    svg = draw(Figure(id="f", title="t", caption="c", alt="two panels of lines", data=data))
    ids = re.findall(r'id="(f-w-reference-label[^"]*)"', svg)
    assert len(ids) == len(set(ids)) == 4


def test_many_series_should_reuse_colors():
    series = tuple(Series(name=f"series {k}", x=[0, 1], y=[0, k]) for k in range(20))
    svg = draw(simple(series), narrow=True)
    assert {"series 0", "series 19"} <= words(svg)
    assert f"var(--c{len(SERIES) - 1}" in svg


def test_log_axes_should_be_drawn():
    svg = draw(simple((Series(name="a", x=[1, 10, 100], y=[1e-3, 1, 1e3]),), x_scale="log", y_scale="log"))
    (curve,) = re.findall(r'<path d="([^"]*)" clip-path[^>]*stroke: var\(--c0', svg)
    (x0, y0), (x1, y1), (x2, y2) = (map(float, point) for point in re.findall(r"([0-9.]+) ([0-9.]+)", curve))
    assert x1 - x0 == pytest.approx(x2 - x1, rel=1e-6)
    assert y1 - y0 == pytest.approx(y2 - y1, rel=1e-6)


@pytest.mark.parametrize(("low", "high"), [(1.05, 1.9), (0.5, 5.0), (2.1, 2.6), (1e3, 9e3)])
def test_log_axes_shorter_than_two_decades_should_have_ticks(low, high):
    from matplotlib.figure import Figure as Canvas

    from metier.report.figures import _plain_powers

    axes = Canvas().subplots()
    axes.set_xscale("log")
    axes.set_xlim(low, high)
    _plain_powers(axes.xaxis)
    assert sum(low <= at <= high for at in axes.xaxis.get_majorticklocs()) >= 3
