from __future__ import annotations

import os
import subprocess
import sys

import pytest

from lurefs.reporting.charts.style import add_legend, chart_context, new_chart, to_svg


def drawn() -> str:
    with chart_context("chart"):
        figure, axes = new_chart()
        axes.plot([1, 2], [3, 4])
        return to_svg(figure, "chart")


def test_a_chart_does_not_depend_on_the_style_of_the_user_who_keeps_it() -> None:
    import matplotlib

    before = drawn()
    changes = {"font.size": 20.0, "figure.dpi": 200.0, "axes.titlesize": "x-large", "lines.linewidth": 7.0}
    with matplotlib.rc_context(changes):
        assert drawn() == before
        assert {name: matplotlib.rcParams[name] for name in changes} == changes


@pytest.mark.parametrize(("named", "kept"), [("no_such_backend", "agg"), ("svg", "svg"), ("", "agg")])
def test_a_backend_that_cannot_be_had_is_in_no_chart_s_way_and_others_are_kept(named: str, kept: str) -> None:
    code = (
        "from test_style import drawn\n"
        "assert '<svg' in drawn()\n"
        "import os, matplotlib.pyplot as pyplot\n"
        "print(pyplot.get_backend(), os.environ['MPLBACKEND'])"
    )
    environment = {**os.environ, "MPLBACKEND": named, "DISPLAY": "", "PYTHONPATH": os.path.dirname(__file__)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split(" ")[0] == kept
    assert done.stdout.strip().endswith(named)


def test_the_backend_of_a_notebook_is_in_no_chart_s_way_even_if_it_is_not_installed() -> None:
    inline = "module://matplotlib_inline.backend_inline"
    environment = {**os.environ, "MPLBACKEND": inline, "PYTHONPATH": os.path.dirname(__file__)}
    code = "import sys; sys.modules['matplotlib_inline'] = None; from test_style import drawn; print(drawn()[:5])"
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == "<?xml\n"


@pytest.mark.parametrize(
    "names", [[f"model é-{number}" for number in range(8)], ["lure (3 seeds)", "warm (3 seeds)", "x"]]
)
def test_the_names_of_a_legend_end_within_the_chart(names: list[str]) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    with chart_context("chart"):
        figure, axes = new_chart()
        add_legend(axes, [axes.plot([0, 1], [0, 1])[0] for _ in names], names)
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
        [legend] = figure.legends
        assert [text.get_text() for text in legend.get_texts()] == names
        assert legend.get_window_extent(canvas.get_renderer()).x1 < figure.bbox.x1
