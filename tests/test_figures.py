from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from itertools import combinations

import matplotlib
import pytest

from lurefs.reporting.chart_style import COLOURS, inline, look_of, short
from lurefs.reporting.figures import Interval, Line, curves, intervals, scatter

LINES = [
    Line(label="nothing", x=[1, 2, 3], y=[40.0, 50.0, 55.0], half_width=[1.0, 1.0, 2.0], style=0),
    Line(label="lure & <co>", x=[1, 2, 3], y=[41.0, 52.0, 58.0], style=1),
]
ROWS = [
    Interval(label="a", value=1.0, inner=0.5, outer=2.0, style=0),
    Interval(label="b", value=-1.0, inner=0.5, outer=None, style=1),
]


def chart(kind: str, name: str = "chart") -> str:
    if kind == "curves":
        return curves(LINES, name=name, x_label="chunk", y_label="accuracy, %")
    if kind == "scatter":
        points = [Line(label=line.label, x=[30.0], y=[50.0], half_width=[1.0], style=line.style) for line in LINES]
        return scatter(points, name=name, x_label="seconds", y_label="accuracy, %")
    return intervals(ROWS, name=name, x_label="points", zero_line=True)


def texts(svg: str) -> list[str]:
    return [element.text or "" for element in ElementTree.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")]


@pytest.mark.parametrize("kind", ["curves", "scatter", "intervals"])
class TestEveryChart:
    def test_equal_input_gives_equal_bytes(self, kind: str) -> None:
        assert chart(kind) == chart(kind)

    def test_states_no_date(self, kind: str) -> None:
        assert "dc:date" not in chart(kind)

    def test_is_an_svg_file_with_text_as_text(self, kind: str) -> None:
        root = ElementTree.fromstring(chart(kind))
        assert root.tag == "{http://www.w3.org/2000/svg}svg"
        assert any(word in texts(chart(kind)) for word in ("accuracy, %", "points"))

    def test_leaves_the_settings_of_matplotlib_as_they_were(self, kind: str) -> None:
        before = dict(matplotlib.rcParams)
        chart(kind)
        assert dict(matplotlib.rcParams) == before

    def test_inline_element_refers_to_its_own_ids_and_to_nothing_outside(self, kind: str) -> None:
        element = inline(chart(kind), name="chart7", label="a chart")
        ids = re.findall(r'\bid="([^"]*)"', element)
        references = re.findall(r"(?:href=\"|url\()#([^\")]*)", element)
        assert ids and all(name.startswith("chart7-") for name in ids)
        assert set(references) <= set(ids)
        assert not re.search(r"https?://", element)

    def test_inline_element_takes_its_colours_from_the_page(self, kind: str) -> None:
        element = inline(chart(kind), name="chart7", label="a chart")
        assert "var(--series-0)" in element and "var(--ink)" in element
        assert not any(colour in element for colour in COLOURS)

    def test_inline_element_is_named_for_screen_readers(self, kind: str) -> None:
        element = inline(chart(kind), name="chart7", label='"a" < b')
        assert 'role="img" aria-label="&quot;a&quot; &lt; b"' in element


def test_names_of_curves_are_escaped() -> None:
    svg = chart("curves")
    assert "lure &amp; &lt;co&gt;" in svg
    assert "lure & <co>" in texts(svg)


def test_a_single_curve_has_no_legend() -> None:
    svg = curves(LINES[:1], name="one", x_label="chunk", y_label="accuracy, %")
    assert "nothing" not in texts(svg)


def test_a_name_with_dollar_signs_is_no_formula() -> None:
    lines = [Line(label=label, x=[1], y=[1.0], style=0) for label in ("$x^2$", "other")]
    assert "$x^2$" in texts(curves(lines, name="dollar", x_label="chunk", y_label="y"))


def test_a_name_that_the_font_cannot_draw_stays_text_and_warns_nobody() -> None:
    lines = [Line(label=label, x=[1], y=[1.0], style=0) for label in ("学习", "other")]
    assert "学习" in texts(curves(lines, name="glyphs", x_label="chunk", y_label="y"))


def test_a_name_that_starts_with_an_underscore_stands_in_the_legend() -> None:
    lines = [Line(label=label, x=[1], y=[1.0], style=0) for label in ("_hidden", "other")]
    assert any(text.endswith("_hidden") for text in texts(curves(lines, name="hidden", x_label="chunk", y_label="y")))


def test_a_long_name_is_cut() -> None:
    assert short("x" * 31) == "x" * 29 + "…"
    assert short("x" * 30) == "x" * 30


def test_more_runs_than_colours_are_told_apart_by_their_markers() -> None:
    lines = [Line(label=f"run {index}", x=[1, 2], y=[index, index], style=index) for index in range(8)]
    labels = texts(curves(lines, name="many", x_label="chunk", y_label="y"))
    assert {f"run {index}" for index in range(8)} <= set(labels)


def test_of_18_styles_no_two_share_two_of_colour_marker_and_dash() -> None:
    looks = [[look_of(index)[key] for key in ("color", "marker", "linestyle")] for index in range(18)]
    for one, other in combinations(looks, 2):
        assert sum(a == b for a, b in zip(one, other, strict=True)) < 2


def test_36_styles_differ() -> None:
    assert len({(look["color"], look["marker"]) for look in map(look_of, range(36))}) == 36


def test_many_names_make_a_chart_higher_and_not_its_plot_smaller() -> None:
    def height(n_lines: int) -> float:
        lines = [Line(label=f"a name of some length {index}", x=[1], y=[1.0], style=index) for index in range(n_lines)]
        svg = curves(lines, name="high", x_label="chunk", y_label="y")
        return float(ElementTree.fromstring(svg).attrib["viewBox"].split()[3])

    assert height(2) == pytest.approx(3.1 * 72)
    assert height(12) > height(2) + 90


def test_intervals_over_seeds_are_a_band_and_others_are_bars() -> None:
    bars = Line(label="one", x=[1, 2], y=[1.0, 2.0], half_width=[0.5, 0.5], style=0)
    band, bar = (
        curves([line], name="x", x_label="chunk", y_label="y") for line in (replace(bars, has_band=True), bars)
    )
    assert "FillBetweenPolyCollection" in band or "PolyCollection" in band
    assert "LineCollection" in bar and "PolyCollection" not in bar


def test_an_amount_starts_at_zero_and_has_separators_of_thousands() -> None:
    line = Line(label="one", x=[10_000, 40_000], y=[1.0, 2.0], style=0)
    shown = texts(curves([line], name="x", x_label="images", y_label="y", x_is_whole=False))
    assert "0" in shown and "40,000" in shown
