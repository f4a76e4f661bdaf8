"""The report's charts as SVG texts: one small chart a file, so that a phone shows each at its full width.

Numbers in, text out; nothing here knows of runs or files. Lines differ by colour, marker and dash: none needs colour.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's colours, which people with any form of colour vision tell apart; yellow is too light for lines.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
MARKERS = ("o", "s", "^", "D", "v", "P")
DASHES: tuple[Any, ...] = ("-", (0, (5, 2)), (0, (1.5, 1.5)), (0, (6, 2, 1.5, 2)), (0, (8, 3)), (0, (3, 1.5)))
INK, MUTED, RULE, PAPER = "#20242b", "#5b6472", "#d9dde3", "#fffffe"
WIDTH_INCHES = 4.6
LABEL_LENGTH = 30


@dataclass(frozen=True, kw_only=True)
class Line:
    """One curve.

    Attributes:
        label: Its name in the legend.
        x: (n,) positions.
        y: (n,) values.
        style: Index of its colour, marker and dash.
        half_width: (n,) half widths of intervals, or None.
    """

    label: str
    x: ArrayLike
    y: ArrayLike
    style: int
    half_width: ArrayLike | None = None


@dataclass(frozen=True, kw_only=True)
class Interval:
    """One row of an interval chart: a value with a thick bar (this pool) inside a thin one (new classes).

    Attributes:
        label: The row's name.
        value: The middle.
        inner: Half width of the thick bar.
        outer: Half width of the thin bar, or None.
        style: Index of its colour and marker.
    """

    label: str
    value: float
    inner: float
    outer: float | None
    style: int


def curves(lines: Sequence[Line], *, name: str, x_label: str, y_label: str) -> str:
    """Draw one curve a line, with a bar for each interval.

    Args:
        lines: At least one.
        name: Salt of the file's ids: two charts on one page need two names.
        x_label: What x is, with its unit.
        y_label: What y is, with its unit.
    """
    from matplotlib.ticker import MaxNLocator

    with _style(name):
        figure, axes = _new_chart(height_inches=3.1)
        # Bars of curves that run together are set apart by a fraction of a step.
        shift = 0.06 if any(line.half_width is not None for line in lines) else 0.0
        handles = []
        for index, line in enumerate(lines):
            x = np.asarray(line.x, dtype=float) + shift * (index - (len(lines) - 1) / 2)
            look = _look(line.style)
            if line.half_width is not None:
                axes.errorbar(x, line.y, yerr=line.half_width, fmt="none", ecolor=look["color"], elinewidth=1.4)
            handles.extend(axes.plot(x, line.y, **look))
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8))
        axes.yaxis.set_major_locator(MaxNLocator(nbins=6))
        _name_axes(axes, x_label, y_label)
        _legend(axes, handles, [line.label for line in lines])
        return _to_svg(figure, name)


def scatter(lines: Sequence[Line], *, name: str, x_label: str, y_label: str) -> str:
    """Draw one marker a line at its only point, with its interval; x starts at zero."""
    with _style(name):
        figure, axes = _new_chart(height_inches=3.1)
        handles = []
        for line in lines:
            look = {**_look(line.style), "linestyle": "none", "markersize": 8}
            if line.half_width is not None:
                axes.errorbar(line.x, line.y, yerr=line.half_width, fmt="none", ecolor=look["color"], elinewidth=1.4)
            handles.extend(axes.plot(line.x, line.y, **look))
        axes.set_xlim(left=0, right=1.1 * max(float(np.max(np.asarray(line.x))) for line in lines) or 1)
        _name_axes(axes, x_label, y_label)
        _legend(axes, handles, [line.label for line in lines])
        return _to_svg(figure, name)


def intervals(rows: Sequence[Interval], *, name: str, x_label: str, zero_line: bool = False) -> str:
    """Draw one value a row with its two intervals, the first row on top.

    Args:
        rows: At least one.
        name: Salt of the file's ids.
        x_label: What the values are, with their unit.
        zero_line: Whether to draw a line at zero, for differences.
    """
    with _style(name):
        figure, axes = _new_chart(height_inches=0.75 + 0.42 * len(rows))
        for place, row in enumerate(rows):
            look = _look(row.style)
            if row.outer is not None:
                axes.plot([row.value - row.outer, row.value + row.outer], [place, place], color=look["color"], lw=1.2)
            axes.plot(
                [row.value - row.inner, row.value + row.inner],
                [place, place],
                color=look["color"],
                lw=4.5,
                solid_capstyle="butt",
            )
            axes.plot([row.value], [place], **{**look, "linestyle": "none", "markersize": 8, "markeredgecolor": PAPER})
        if zero_line:
            axes.axvline(0, color=MUTED, lw=1, zorder=1)
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.set_yticks(range(len(rows)), [short(row.label) for row in rows])
        axes.tick_params(axis="y", length=0)
        axes.grid(visible=False, axis="y")
        axes.grid(visible=True, axis="x")
        _name_axes(axes, x_label, "")
        return _to_svg(figure, name)


def inline(svg: str, *, name: str, label: str) -> str:
    """Turn an SVG file into an element for a page: ids of its own, and the page's colours instead of fixed ones.

    Args:
        svg: What one of this module's functions returned.
        name: Put before every id, since ids must be unique on a page.
        label: What a screen reader says.
    """
    from html import escape

    view_box = re.search(r'viewBox="([^"]*)"', svg)
    body = svg[svg.index(">", svg.index("<svg")) + 1 : svg.rindex("</svg>")]
    body = re.sub(r"<metadata>.*?</metadata>", "", body, flags=re.DOTALL)
    body = re.sub(r"<style.*?</style>", "", body, flags=re.DOTALL)
    body = re.sub(r'\bid="', f'id="{name}-', body)
    body = re.sub(r'xlink:href="#', f'xlink:href="#{name}-', body)
    body = re.sub(r"url\(#", f"url(#{name}-", body)
    for index, colour in enumerate(COLOURS):
        body = body.replace(colour, f"var(--series-{index})")
    for colour, variable in ((INK, "ink"), (MUTED, "muted"), (RULE, "rule"), (PAPER, "paper")):
        body = body.replace(colour, f"var(--{variable})")
    assert view_box is not None
    return f'<svg class="chart" viewBox="{view_box[1]}" role="img" aria-label="{escape(label)}">{body}</svg>'


def _style(name: str) -> Any:
    """Return a context in which charts look alike and files depend on their content only."""
    import matplotlib

    settings: Any = {
        "svg.hashsalt": name,
        "svg.fonttype": "none",
        "text.parse_math": False,
        "font.size": 11,
        "text.color": INK,
        "axes.labelcolor": INK,
        "xtick.labelcolor": MUTED,
        "ytick.labelcolor": MUTED,
        "xtick.color": RULE,
        "ytick.color": RULE,
        "axes.edgecolor": RULE,
        "axes.axisbelow": True,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "axes.grid.axis": "y",
        "grid.color": RULE,
        "grid.linewidth": 0.7,
        "figure.facecolor": PAPER,
        "axes.facecolor": "none",
        "legend.frameon": False,
    }
    return matplotlib.rc_context(settings)


def _new_chart(*, height_inches: float) -> tuple[Figure, Axes]:
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH_INCHES, height_inches), layout="constrained")
    FigureCanvasSVG(figure)
    return figure, figure.add_subplot()


def _look(index: int) -> dict[str, Any]:
    turn = index % len(COLOURS)
    return {
        "color": COLOURS[turn],
        "marker": MARKERS[(index + index // len(COLOURS)) % len(MARKERS)],
        "linestyle": DASHES[turn],
        "markersize": 5.5,
        "linewidth": 1.8,
    }


def _name_axes(axes: Axes, x_label: str, y_label: str) -> None:
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)


def _legend(axes: Axes, handles: Sequence[Any], labels: Sequence[str]) -> None:
    """Name the curves above the chart; a single one needs no name."""
    if len(labels) < 2:
        return
    shown = [short(label) for label in labels]
    n_columns = max(1, min(len(shown), 38 // (max(len(label) for label in shown) + 5)))
    axes.legend(handles, shown, loc="lower left", bbox_to_anchor=(-0.02, 1.0), ncols=n_columns, handlelength=2.8)


def short(label: str) -> str:
    """Return a name cut to `LABEL_LENGTH`, such that matplotlib does not leave it out if it starts with `_`."""
    text = label if len(label) <= LABEL_LENGTH else label[: LABEL_LENGTH - 1] + "…"
    return f"\u200b{text}" if text.startswith("_") else text


def _to_svg(figure: Figure, name: str) -> str:
    buffer = io.StringIO()
    with warnings.catch_warnings():
        # The text is stored as text: a glyph that matplotlib's font lacks is drawn by the reader's own fonts.
        warnings.filterwarnings("ignore", message="Glyph .* missing")
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": "lurefs", "Title": name})
    return buffer.getvalue()
