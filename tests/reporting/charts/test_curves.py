from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from itertools import combinations

import matplotlib
import pytest

from lurefs.reporting.charts.curves import Interval, Level, Line, curves, intervals
from lurefs.reporting.charts.heat_map import DEEPEST, heat_map
from lurefs.reporting.charts.pareto import front, scatter
from lurefs.reporting.charts.style import COLOURS, inline, look_of

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
    if kind == "heat map":
        rows = [[50.0, 75.0], [None, 70.0]]
        return heat_map(["a", "b"], [0, 1], ["accuracy, %", "other"], rows, name=name)
    return intervals(ROWS, name=name, x_label="points", zero_line=True)


def texts(svg: str) -> list[str]:
    return [element.text or "" for element in ElementTree.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")]


@pytest.mark.parametrize("kind", ["curves", "scatter", "intervals", "heat map"])
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


class TestMarks:
    def told(self, svg: str) -> list[tuple[str | None, str | None]]:
        """Return the group and the title of every mark."""
        namespace = "{http://www.w3.org/2000/svg}"
        marks = [mark for mark in ElementTree.fromstring(svg).iter(f"{namespace}g") if mark.get("class") == "mark"]
        return [(mark.get("data-group"), mark.findtext(f"{namespace}title")) for mark in marks]

    def test_every_place_of_a_curve_says_its_value_and_interval(self) -> None:
        assert self.told(chart("curves")) == [
            ("0", "nothing: 40 ± 1 at 1"),
            ("0", "nothing: 50 ± 1 at 2"),
            ("0", "nothing: 55 ± 2 at 3"),
            ("1", "lure & <co>: 41 at 1"),
            ("1", "lure & <co>: 52 at 2"),
            ("1", "lure & <co>: 58 at 3"),
        ]

    def test_a_row_of_intervals_says_both_and_its_note(self) -> None:
        svg = intervals([replace(ROWS[0], note="3 / 2 / 1"), ROWS[1]], name="rows", x_label="points")
        assert self.told(svg) == [("0", "a: 1.00 ± 0.50 ± 2.00 3 / 2 / 1"), ("1", "b: -1.00 ± 0.50")]

    def test_a_cell_of_the_map_says_whose_it_is_and_what_is_missing(self) -> None:
        assert self.told(chart("heat map")) == [
            ("0", "a, accuracy, %: 50.00 %"),
            ("1", "b, accuracy, %: not measured"),
            ("0", "a, other: 75.00 %"),
            ("1", "b, other: 70.00 %"),
        ]

    def test_a_mark_stands_around_its_own_marker(self) -> None:
        svg = chart("curves")
        uses = re.findall(r'<g class="mark" data-group="\d"><title>[^<]*</title><use [^>]*/></g>', svg)
        assert len(uses) == 6


def test_beside_the_rows_stands_what_is_noted_of_them() -> None:
    svg = intervals(
        [replace(ROWS[0], note="3 / 2 / 1"), ROWS[1]], name="r", x_label="points", note_label="win / tie / loss"
    )
    assert {"3 / 2 / 1", "win / tie / loss"} <= set(texts(svg))


def test_of_many_curves_the_first_styles_are_named_and_the_rest_counted() -> None:
    lines = [Line(label=f"run {index}", x=[1, 2], y=[index, index], style=11 - index) for index in range(12)]
    shown = texts(curves(lines, name="many", x_label="chunk", y_label="y"))
    assert [text for text in shown if text.startswith("run") or "others" in text] == [
        *(f"run {index}" for index in range(2, 12)),
        "2 others",
    ]


class TestFront:
    @pytest.mark.parametrize(
        ("points", "expected"),
        [
            ([(1, 50), (2, 60), (3, 55), (4, 70)], [0, 1, 3]),
            ([(1, 50), (1, 60)], [1]),
            ([(1, 50), (2, 50)], [0]),
            ([(2, 50), (2, 50)], [0]),
        ],
        ids=["different", "equal cost", "equal accuracy", "equal points"],
    )
    def test_holds_those_that_no_other_beats_from_the_cheapest_on(
        self, points: list[tuple[float, float]], expected: list[int]
    ) -> None:
        assert front(points) == expected

    def test_its_members_are_named_beside_their_markers_and_of_many_points_no_others(self) -> None:
        lines = [Line(label="best", x=[1.0], y=[90.0], style=0)]
        lines += [Line(label=f"run {index}", x=[1.0 + index], y=[50.0], style=index) for index in range(1, 12)]
        shown = texts(scatter(lines, name="many", x_label="seconds", y_label="accuracy, %"))
        assert [text for text in shown if text == "best" or text.startswith("run")] == ["best"]
        shown = texts(scatter(lines[:4], name="few", x_label="seconds", y_label="accuracy, %"))
        assert {"best", "run 1", "run 2", "run 3"} <= set(shown)

    def test_is_drawn_from_the_cheapest_to_the_dearest_side(self) -> None:
        points = [(1.0, 50.0), (2.0, 60.0), (3.0, 40.0)]
        lines = [Line(label=f"run {x}", x=[x], y=[y], style=0) for x, y in points]
        svg = scatter(lines, name="front", x_label="cost", y_label="accuracy, %")
        [line] = re.findall(r'<path d="([^"]*)"[^>]*stroke-width: 1.2;', svg)
        across = [float(x) for x in re.findall(r"[ML] (\S+)", line)]
        assert across == sorted(across)
        assert len(set(across)) == 3

    def test_costs_of_different_orders_stand_on_a_logarithmic_axis(self) -> None:
        lines = [Line(label=str(cost), x=[cost], y=[cost], style=0) for cost in (1.0, 10.0, 100.0)]
        shown = texts(scatter(lines, name="log", x_label="GMACs", y_label="accuracy, %"))
        assert {"1", "10", "100"} <= set(shown)


def test_levels_are_dashed_lines_with_their_names_beside_them() -> None:
    line = Line(label="lure", x=[1, 2], y=[50, 60], style=0)
    levels = [Level(label="image statistics", value=63.0), Level(label="untrained twin", value=31.0)]
    svg = curves([line], name="levels", x_label="chunk", y_label="accuracy, %", levels=levels)
    assert {"image", "statistics", "untrained", "twin"} <= set(texts(svg))
    assert "<title>image statistics: 63.00</title>" in svg
    assert "statistics" not in curves([line], name="levels", x_label="chunk", y_label="accuracy, %")


def test_controls_stand_below_the_map_without_a_ground() -> None:
    values = [[50.0], [60.0], [90.0]]
    svg = heat_map(["a", "b", "control"], [0, 1, -1], ["novel"], values, name="map", n_controls=1)
    alphas = re.findall(r'data-group="(-?\d)"[^>]*>\s*<title>[^<]*</title>\s*<path[^>]*style="([^"]*)"', svg)
    assert [style for style, _ in alphas] == ["0", "1", "-1"]
    depths = [float(match[1]) if (match := re.search(r"opacity: ([\d.]+)", look)) else 1.0 for _, look in alphas]
    assert depths == [0.04, 0.5, 0]


@pytest.mark.parametrize(
    ("ink", "paper", "series"),
    [("#20242b", "#ffffff", "#0072b2"), ("#e6e8eb", "#1c2026", "#5aaeea")],
    ids=["light", "dark"],
)
def test_numbers_on_the_deepest_ground_of_the_map_have_a_contrast_of_four_and_a_half(
    ink: str, paper: str, series: str
) -> None:
    def channels(colour: str) -> list[float]:
        return [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]

    def luminance(colour: list[float]) -> float:
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in colour]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    ground = [DEEPEST * a + (1 - DEEPEST) * b for a, b in zip(channels(series), channels(paper), strict=True)]
    low, high = sorted([luminance(ground), luminance(channels(ink))])
    assert (high + 0.05) / (low + 0.05) >= 4.5
