"""The report's charts as SVG texts: one small chart a file, so that a phone shows each at its full width.

Numbers in, text out; nothing here knows of runs or files, and how charts look is in `lurefs.reporting.chart_style`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lurefs.reporting.chart_style import (
    MUTED,
    PAPER,
    add_legend,
    chart_context,
    look_of,
    name_axes,
    new_chart,
    short,
    to_svg,
)

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes

MAX_MARKERS = 12


@dataclass(frozen=True, kw_only=True)
class Line:
    """One curve.

    Attributes:
        label: Its name in the legend.
        x: (n,) positions.
        y: (n,) values.
        style: Index of its colour, marker and dash.
        half_width: (n,) half widths of intervals, or None.
        has_band: Whether the intervals are drawn as a band instead of bars: they are over seeds.
    """

    label: str
    x: ArrayLike
    y: ArrayLike
    style: int
    half_width: ArrayLike | None = None
    has_band: bool = False


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


def curves(lines: Sequence[Line], *, name: str, x_label: str, y_label: str, x_is_whole: bool = True) -> str:
    """Draw one curve a line, with its intervals.

    Args:
        lines: At least one.
        name: Salt of the file's ids: two charts on one page need two names.
        x_label: What x is, with its unit.
        y_label: What y is, with its unit.
        x_is_whole: Whether x is counted in steps, as chunks are; otherwise it is an amount, and starts at zero.
    """
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    with chart_context(name):
        figure, axes = new_chart()
        handles = []
        for line, shift in zip(lines, _shifts(lines) if x_is_whole else [0.0] * len(lines), strict=True):
            handles.append(draw_line(axes, line, np.asarray(line.x, dtype=float) + shift))
        axes.xaxis.set_major_locator(
            MaxNLocator(integer=x_is_whole, nbins=8 if x_is_whole else 5, steps=[1, 2, 2.5, 5, 10])
        )
        axes.yaxis.set_major_locator(MaxNLocator(nbins=6, steps=[1, 2, 2.5, 5, 10]))
        if not x_is_whole:
            axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.6g}"))
            axes.set_xlim(left=0)
        name_axes(axes, x_label, y_label)
        add_legend(axes, handles, [line.label for line in lines])
        return to_svg(figure, name)


def reliability(lines: Sequence[Line], *, name: str) -> str:
    """Draw accuracy against confidence, both in percent, with the diagonal on which a calibrated probe lies."""
    with chart_context(name):
        figure, axes = new_chart()
        axes.plot([0, 100], [0, 100], color=MUTED, lw=1, zorder=1)
        handles = [draw_line(axes, line, np.asarray(line.x, dtype=float)) for line in lines]
        axes.set_xlim(0, 100)
        axes.set_ylim(0, 100)
        name_axes(axes, "confidence, %", "accuracy, %")
        add_legend(axes, handles, [line.label for line in lines])
        return to_svg(figure, name)


def _shifts(lines: Sequence[Line]) -> list[float]:
    """Return by how much of a step each line is set apart, so that bars of curves that run together can be told."""
    n_bars = sum(line.half_width is not None and not line.has_band for line in lines)
    step = min(0.06, 0.4 / max(1, len(lines))) if n_bars else 0.0
    return [step * (index - (len(lines) - 1) / 2) for index in range(len(lines))]


def draw_line(axes: Axes, line: Line, x: NDArray[np.float64]) -> Artist:
    """Draw a line with its intervals at (n,) places `x`, and return what stands for it in the legend."""
    look, y = look_of(line.style), np.asarray(line.y, dtype=float)
    if line.half_width is not None:
        half_width = np.asarray(line.half_width, dtype=float)
        if line.has_band:
            axes.fill_between(x, y - half_width, y + half_width, color=look["color"], alpha=0.16, linewidth=0)
        else:
            axes.errorbar(x, y, yerr=half_width, fmt="none", ecolor=look["color"], elinewidth=1.4)
    [handle] = axes.plot(x, y, markevery=max(1, len(x) // MAX_MARKERS), clip_on=False, **look)
    return handle


def scatter(lines: Sequence[Line], *, name: str, x_label: str, y_label: str) -> str:
    """Draw the points of each line as markers with their intervals; x starts at zero."""
    with chart_context(name):
        figure, axes = new_chart()
        handles = []
        for line in lines:
            look = {**look_of(line.style), "linestyle": "none", "markersize": 8}
            if line.half_width is not None:
                axes.errorbar(line.x, line.y, yerr=line.half_width, fmt="none", ecolor=look["color"], elinewidth=1.4)
            handles.extend(axes.plot(line.x, line.y, **look))
        axes.set_xlim(left=0, right=1.1 * max(float(np.max(np.asarray(line.x))) for line in lines) or 1)
        name_axes(axes, x_label, y_label)
        add_legend(axes, handles, [line.label for line in lines])
        return to_svg(figure, name)


def intervals(rows: Sequence[Interval], *, name: str, x_label: str, zero_line: bool = False) -> str:
    """Draw one value a row with its two intervals, the first row on top.

    Args:
        rows: At least one.
        name: Salt of the file's ids.
        x_label: What the values are, with their unit.
        zero_line: Whether to draw a line at zero, for differences.
    """
    with chart_context(name):
        figure, axes = new_chart(height_inches=0.75 + 0.42 * len(rows))
        for place, row in enumerate(rows):
            look = look_of(row.style)
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
        name_axes(axes, x_label, "")
        return to_svg(figure, name)
