"""Charts of curves and intervals as SVG; each is small, so that a phone shows it at full width.

Nothing here knows runs or files; `lurefs.reporting.charts.style` has the style of charts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lurefs.reporting.charts.names import fitted
from lurefs.reporting.charts.style import (
    MAX_NAMED,
    MUTED,
    PAPER,
    add_legend,
    chart_context,
    drawn,
    look_of,
    mark,
    name_axes,
    new_chart,
    to_svg,
)

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes

MAX_MARKERS = 12
NAME_WIDTH = 26
"""Most letters in a line of a row's name."""


@dataclass(frozen=True, kw_only=True)
class Line:
    """One curve.

    Attributes:
        label: Its name in the legend.
        x: (n,) positions.
        y: (n,) values.
        style: Index of its colour, marker and dash.
        half_width: (n,) half widths of intervals, or None.
        has_band: Whether the intervals are over seeds and drawn as a band instead of bars.
    """

    label: str
    x: ArrayLike
    y: ArrayLike
    style: int
    half_width: ArrayLike | None = None
    has_band: bool = False


@dataclass(frozen=True, kw_only=True)
class Level:
    """A level to compare curves with, such as the accuracy of a control.

    Attributes:
        label: Its name.
        value: Its height.
    """

    label: str
    value: float


@dataclass(frozen=True, kw_only=True)
class Interval:
    """One row of an interval chart: a value with a thick bar (this pool or seeds) and a thin one (new classes).

    Attributes:
        label: The row's name.
        value: The middle of the bars.
        inner: Half width of the thick bar.
        outer: Half width of the thin bar, or None.
        style: Index of its colour and marker; -1 for a control, which is grey.
        note: A few words to its right, such as p-values.
    """

    label: str
    value: float
    inner: float
    outer: float | None
    style: int
    note: str = ""


@drawn
def curves(
    lines: Sequence[Line],
    *,
    name: str,
    x_label: str,
    y_label: str,
    x_is_whole: bool = True,
    levels: Sequence[Level] = (),
) -> str:
    """Draw curves with their intervals.

    Args:
        lines: At least one.
        name: Salt of the file's ids; unique on a page.
        x_label: Label of x, with the unit.
        y_label: Label of y, with the unit.
        x_is_whole: Whether x is counted in steps, as chunks are; otherwise it is an amount, and starts at zero.
        levels: Dashed lines across the chart, with their names.
    """
    with chart_context(name):
        from matplotlib.ticker import FuncFormatter, MaxNLocator

        figure, axes = new_chart()
        draw_lines(axes, lines, _shifts(lines) if x_is_whole else [0.0] * len(lines))
        _draw_levels(axes, levels)
        axes.xaxis.set_major_locator(
            MaxNLocator(integer=x_is_whole, nbins=8 if x_is_whole else 5, steps=[1, 2, 2.5, 5, 10])
        )
        axes.yaxis.set_major_locator(MaxNLocator(nbins=6, steps=[1, 2, 2.5, 5, 10]))
        if not x_is_whole:
            axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.6g}"))
            axes.set_xlim(left=0)
        name_axes(axes, x_label, y_label)
        return to_svg(figure, name)


def _draw_levels(axes: Axes, levels: Sequence[Level]) -> None:
    """Draw dashed lines with their names on the right, outside, where no curve is; those of close lines move apart."""
    heights = sorted(level.value for level in levels)
    low, high = axes.get_ylim()
    is_close = len(heights) > 1 and heights[1] - heights[0] < 0.12 * (max(high, *heights) - min(low, *heights))
    for level in levels:
        [line] = axes.plot([0, 1], [level.value] * 2, transform=axes.get_yaxis_transform(), color=MUTED, lw=1, ls="--")
        mark(line, -1, [f"{level.label}: {level.value:.2f}"])
        axes.annotate(
            level.label.replace(" ", "\n", 1),
            (1, level.value),
            xycoords=axes.get_yaxis_transform(),
            xytext=(4, 0),
            textcoords="offset points",
            ha="left",
            va="center" if not is_close else "top" if level.value == heights[0] else "bottom",
            fontsize=8.5,
            color=MUTED,
        )


@drawn
def reliability(lines: Sequence[Line], *, name: str) -> str:
    """Draw accuracy against confidence, both in percent, with the diagonal on which a calibrated probe lies."""
    with chart_context(name):
        figure, axes = new_chart()
        axes.plot([0, 100], [0, 100], color=MUTED, lw=1, zorder=1)
        draw_lines(axes, lines, [0.0] * len(lines))
        axes.set_xlim(0, 100)
        axes.set_ylim(0, 100)
        name_axes(axes, "confidence, %", "accuracy, %")
        return to_svg(figure, name)


def _shifts(lines: Sequence[Line]) -> list[float]:
    """Return the shift of each line in steps, so that bars of close curves do not overlap."""
    n_bars = sum(line.half_width is not None and not line.has_band for line in lines)
    step = min(0.06, 0.4 / max(1, len(lines))) if n_bars else 0.0
    return [step * (index - (len(lines) - 1) / 2) for index in range(len(lines))]


def draw_line(axes: Axes, line: Line, x: NDArray[np.float64], *, is_named: bool = True) -> Artist:
    """Draw a line with its intervals at (n,) positions `x`, and return its handle for the legend."""
    look, y = look_of(line.style), np.asarray(line.y, dtype=float)
    if not is_named:
        look |= {"color": MUTED, "marker": "o", "markersize": 1, "linestyle": "-", "linewidth": 0.6, "alpha": 0.6}
    elif line.half_width is not None:
        half_width = np.asarray(line.half_width, dtype=float)
        if line.has_band:
            axes.fill_between(x, y - half_width, y + half_width, color=look["color"], alpha=0.16, linewidth=0)
            for edge in (
                y - half_width,
                y + half_width,
            ):  # in the line's dash, for those who cannot tell the colours apart
                axes.plot(x, edge, color=look["color"], linestyle=look["linestyle"], linewidth=0.5, alpha=0.6)
        else:
            axes.errorbar(x, y, yerr=half_width, fmt="none", ecolor=look["color"], elinewidth=1.4)
    every = max(1, len(x) // MAX_MARKERS)
    [handle] = axes.plot(x, y, markevery=every, clip_on=False, **look)
    mark(handle, line.style, told(line)[::every])
    return handle


def told(line: Line) -> list[str]:
    """Return the hover texts of a line, one per point."""
    widths = [""] * len(np.asarray(line.x))
    if line.half_width is not None:
        widths = [f" ± {width:.2g}" for width in np.asarray(line.half_width)]
    places = zip(np.asarray(line.x), np.asarray(line.y), widths, strict=True)
    return [f"{line.label}: {y:,.4g}{width} at {x:,.4g}" for x, y, width in places]


def draw_lines(axes: Axes, lines: Sequence[Line], shifts: Sequence[float]) -> None:
    """Draw all lines with their shifts, and their legend; if there are many, some are thin and grey."""
    are_many = len(lines) > MAX_NAMED
    named = [line.style < MAX_NAMED or not are_many for line in lines]
    drawn = [
        draw_line(axes, line, np.asarray(line.x, dtype=float) + shift, is_named=is_named)
        for line, shift, is_named in zip(lines, shifts, named, strict=True)
    ]
    entries = [(artist, line.label) for artist, line, is_named in zip(drawn, lines, named, strict=True) if is_named]
    if n_others := len(lines) - len(entries):
        entries.append((drawn[named.index(False)], f"{n_others} others"))
    add_legend(axes, [artist for artist, _ in entries], [label for _, label in entries])


@drawn
def intervals(
    rows: Sequence[Interval], *, name: str, x_label: str, zero_line: bool = False, note_label: str = ""
) -> str:
    """Draw one value per row with its intervals, the first row on top.

    Args:
        rows: At least one.
        name: Salt of the file's ids.
        x_label: Label of the values, with the unit.
        zero_line: Whether to draw a line at zero, for differences.
        note_label: Header of the rows' notes.
    """
    with chart_context(name):
        are_few = len(rows) <= MAX_NAMED
        figure, axes = new_chart(height_inches=0.75 + (0.42 if are_few else 0.27) * len(rows))
        for place, row in enumerate(rows):
            _draw_interval(axes, row, place)
        if zero_line:
            axes.axvline(0, color=MUTED, lw=1, zorder=1)
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.set_yticks(range(len(rows)), fitted([row.label for row in rows], NAME_WIDTH, n_lines=2 if are_few else 1))
        axes.tick_params(axis="y", length=0)
        if note_label:
            beside = axes.secondary_yaxis("right")
            beside.set_yticks(range(len(rows)), [row.note for row in rows])
            beside.tick_params(axis="y", length=0, labelsize=9)
            beside.spines["right"].set_visible(False)
            axes.set_title(note_label, loc="right", fontsize=9, color=MUTED)
        axes.grid(visible=False, axis="y")
        axes.grid(visible=True, axis="x")
        name_axes(axes, x_label, "")
        return to_svg(figure, name)


def _draw_interval(axes: Axes, row: Interval, place: int) -> None:
    look = {**look_of(max(row.style, 0)), "linestyle": "none", "markersize": 8, "markeredgecolor": PAPER}
    if row.style < 0:
        look |= {"color": MUTED, "marker": "|", "markeredgecolor": MUTED}
    widths = [(row.inner, 4.5), *([] if row.outer is None else [(row.outer, 1.2)])]
    for half_width, thickness in reversed(widths):
        ends = [row.value - half_width, row.value if row.value == 100 else row.value + half_width]
        axes.plot(ends, [place, place], color=look["color"], lw=thickness, solid_capstyle="butt")
    [marker] = axes.plot([row.value], [place], **look)
    scopes = " ".join(f"± {half_width:.2f}" for half_width, _ in widths)
    mark(marker, row.style, [f"{row.label}: {row.value:.2f} {scopes} {row.note}".strip()])
