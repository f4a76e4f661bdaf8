"""Chart of accuracy against cost, with its Pareto front, or against a score."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain, pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from lurefs.reporting.charts.curves import Line, told
from lurefs.reporting.charts.names import fitted, n_cells
from lurefs.reporting.charts.style import (
    INK,
    MAX_NAMED,
    MUTED,
    PAPER,
    chart_context,
    drawn,
    look_of,
    mark,
    name_axes,
    new_chart,
    to_svg,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LOG_FROM = 20
"""Ratio of the largest to the smallest cost from which the axis is logarithmic."""
NAME_WIDTH, NAME_SIZE = 22, 9.5
Point = tuple[float, float]
Box = tuple[float, float, float, float]
"""Left, bottom, right, top, in pixels."""


def front(points: Sequence[Point]) -> list[int]:
    """Return the indices of the points (cost, accuracy) that no other point beats, cheapest first.

    A point beats another if it is at least as cheap and at least as accurate, and better in one of the two. Of equal
    points only the first is returned.
    """
    order = sorted(range(len(points)), key=lambda place: (points[place][0], -points[place][1], place))
    members: list[int] = []
    for place in order:
        if not members or points[place][1] > points[members[-1]][1]:
            members.append(place)
    return members


@drawn
def scatter(
    lines: Sequence[Line],
    *,
    name: str,
    x_label: str,
    y_label: str,
    names: Sequence[str] = (),
    has_front: bool = True,
) -> str:
    """Draw accuracy against cost, one point per line, and the Pareto front as a step line.

    The members of the front are named beside their markers, and the others too if there are few.

    Args:
        lines: At least one; x is the cost, y the accuracy.
        name: Salt of the file's ids.
        x_label: Label of the cost, with the unit.
        y_label: Label of the accuracy, with the unit.
        names: Names beside the markers; the lines' labels if empty.
        has_front: Whether x is a cost; otherwise there is no front.
    """
    names = names or [line.label for line in lines]
    points = [(float(np.mean(np.asarray(line.x))), float(np.mean(np.asarray(line.y)))) for line in lines]
    members = front(points) if has_front else []
    with chart_context(name):
        figure, axes = new_chart()
        if has_front:
            _set_limits(axes, [x for x, _ in points])
            _draw_front(axes, [points[place] for place in members])
        else:
            axes.margins(x=0.12)
        for place, line in enumerate(lines):
            _draw_point(axes, line, is_member=place in members)
        name_axes(axes, x_label, y_label)
        others = [place for place in range(len(lines)) if place not in members]
        named = [*members, *(others if len(lines) <= MAX_NAMED else [])]
        figure.draw_without_rendering()
        figure.set_layout_engine("none")
        steps = _step_boxes(axes, [points[place] for place in members]) if has_front else []
        shown = fitted([names[place] for place in named], NAME_WIDTH)
        written = [(place, text, place in members) for place, text in zip(named, shown, strict=True)]
        _name_points(axes, points, steps, written)
        return to_svg(figure, name)


def _set_limits(axes: Axes, costs: Sequence[float]) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    low, high = min(costs), max(costs)
    if low > 0 and high >= LOG_FROM * low:
        axes.set_xscale("log")
        axes.set_xlim(low / 1.6, high * 1.6)
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5), numticks=7))
        axes.xaxis.set_minor_formatter(NullFormatter())
    else:
        axes.set_xlim(0, 1.12 * high or 1)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.6g}"))


def _draw_front(axes: Axes, members: Sequence[Point]) -> None:
    """Draw the best accuracy at each cost as steps from member to member, up to the edge of the chart."""
    costs = [cost for cost, _ in members] + [axes.get_xlim()[1]]
    reached = [accuracy for _, accuracy in members] + [members[-1][1]]
    axes.step(costs, reached, where="post", color=MUTED, lw=1.2, zorder=1)


def _draw_point(axes: Axes, line: Line, *, is_member: bool) -> None:
    look = {**look_of(line.style), "linestyle": "none", "markersize": 9 if is_member else 7, "markeredgecolor": PAPER}
    if line.half_width is not None:
        axes.errorbar(line.x, line.y, yerr=line.half_width, fmt="none", ecolor=look["color"], elinewidth=1.4)
    [marker] = axes.plot(line.x, line.y, **look)
    mark(marker, line.style, told(line))


def _step_boxes(axes: Axes, members: Sequence[Point]) -> list[Box]:
    """Return the boxes of the front's lines, which names avoid."""
    places: Any = axes.transData.transform(members)
    boxes = [
        box
        for (x, y), (next_x, next_y) in pairwise(places)
        for box in ((min(x, next_x), y - 2, max(x, next_x), y + 2), (next_x - 2, y, next_x + 2, next_y))
    ]
    x, y = places[-1]
    area = axes.get_window_extent()
    return [*boxes, (x, y - 2, area.x1, y + 2)]


def _name_points(
    axes: Axes, points: Sequence[Point], steps: Sequence[Box], named: Sequence[tuple[int, str, bool]]
) -> None:
    """Write names near their points, in the given order; names that do not fit appear on hover.

    A thin line joins each name with its point.
    """
    places: Any = axes.transData.transform(points)
    scale = axes.figure.dpi / 72
    taken: list[Box] = [(x - 5, y - 5, x + 5, y + 5) for x, y in places]
    area = axes.get_window_extent()
    limits: Box = (area.x0, area.y0, area.x1 + 4, area.y1 + 18)
    for place, text, is_member in named:
        width, height = (0.68 if is_member else 0.58) * NAME_SIZE * n_cells(text) * scale, 1.15 * NAME_SIZE * scale
        off_the_front = _free_boxes(places[place], width, height, [*taken, *steps], limits)
        anywhere = _free_boxes(places[place], width, height, taken, limits)
        found = next(chain(off_the_front, anywhere if is_member else ()), None)
        if found is None:
            continue
        taken.append(found)
        axes.annotate(
            text,
            points[place],
            xytext=((found[0] + found[2]) / 2, (found[1] + found[3]) / 2),
            textcoords="figure pixels",
            ha="center",
            va="center",
            fontsize=NAME_SIZE,
            color=INK if is_member else MUTED,
            fontweight="bold" if is_member else "normal",
            arrowprops={"arrowstyle": "-", "color": MUTED, "lw": 0.7, "shrinkA": 1, "shrinkB": 4},
        )


def _free_boxes(at: Point, width: float, height: float, taken: Sequence[Box], limits: Box) -> Iterator[Box]:
    """Yield the free boxes around a point, nearest first."""
    (x, y), gap = at, 8
    for reach in (gap, gap + height, gap + 2 * height):
        for across, up in ((1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (-1, 1), (1, -1), (-1, -1)):
            if reach > gap and not up:
                continue
            centre_x = x + across * (gap + width / 2)
            centre_y = y + up * (reach + height / 2)
            box = (centre_x - width / 2, centre_y - height / 2, centre_x + width / 2, centre_y + height / 2)
            is_inside = box[0] >= limits[0] and box[1] >= limits[1] and box[2] <= limits[2] and box[3] <= limits[3]
            if is_inside and not any(_overlap(box, other) for other in taken):
                yield box


def _overlap(a: Box, b: Box) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]
