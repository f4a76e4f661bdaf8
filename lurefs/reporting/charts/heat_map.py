"""Heat map of accuracies: runs by benchmarks; deeper colours are higher."""

from __future__ import annotations

from collections.abc import Sequence

from lurefs.reporting.charts.names import fitted, n_cells
from lurefs.reporting.charts.style import (
    CELLS_PER_INCH,
    COLOURS,
    INK,
    MUTED,
    PAPER,
    WIDTH_INCHES,
    chart_context,
    drawn,
    mark,
    new_chart,
    to_svg,
)

NUMBER_WIDTH = 7
"""Of a column of numbers, in small letters."""
DEEPEST = 0.5
"""Highest opacity of a cell; the numbers keep a contrast of 4.5 on light and dark pages."""


@drawn
def heat_map(
    labels: Sequence[str],
    styles: Sequence[int],
    columns: Sequence[str],
    values: Sequence[Sequence[float | None]],
    *,
    name: str,
    n_controls: int = 0,
) -> str:
    """Draw one row per run and one column per benchmark, coloured from a column's lowest value to its highest.

    Args:
        labels: (n,) names of the rows.
        styles: (n,) styles of their runs.
        columns: (m,) names of the columns.
        values: n rows of m accuracies, percent; None if not measured.
        name: Salt of the file's ids.
        n_controls: Number of controls, which are the last rows, below a line and without colour.
    """
    with chart_context(name):
        from matplotlib.patches import Rectangle

        room = CELLS_PER_INCH * WIDTH_INCHES
        down = fitted(labels, max(14.0, min(26.0, room - NUMBER_WIDTH * len(columns))), n_lines=2)
        height_of_row = 0.42 if any("\n" in label for label in down) else 0.3
        room -= max(n_cells(line) for label in down for line in label.split("\n"))
        room_of_column = room / len(columns) - 1
        are_turned = max(map(n_cells, columns)) > 2 * room_of_column
        across = fitted(columns, 26) if are_turned else fitted(columns, room_of_column, n_lines=2)
        height_of_head = max(map(n_cells, across)) / CELLS_PER_INCH if are_turned else 0.3
        figure, axes = new_chart(height_inches=0.5 + height_of_head + height_of_row * len(labels))
        for column, benchmark in enumerate(columns):
            n_runs = len(values) - n_controls
            depths = [*_depths([row[column] for row in values[:n_runs]]), *[0.0] * n_controls]
            for place, (row, depth) in enumerate(zip(values, depths, strict=True)):
                value = row[column]
                square = Rectangle((column, place), 1, 1, facecolor=COLOURS[0], alpha=depth, edgecolor=PAPER, lw=2)
                cell = axes.add_patch(square)
                said = "not measured" if value is None else f"{value:.2f} %"
                mark(cell, styles[place], [f"{labels[place]}, {benchmark}: {said}"])
                text = "–" if value is None else f"{value:.1f}"
                axes.text(column + 0.5, place + 0.53, text, ha="center", va="center", color=INK, fontsize=10)
        if n_controls:
            axes.axhline(len(labels) - n_controls, color=MUTED, lw=1)
        axes.set_xlim(0, len(columns))
        axes.set_ylim(len(labels), 0)
        axes.xaxis.tick_top()
        axes.set_xticks([place + 0.5 for place in range(len(columns))], across, rotation=90 if are_turned else 0)
        axes.set_yticks([place + 0.5 for place in range(len(labels))], down)
        axes.tick_params(length=0, labelsize=10)
        axes.grid(visible=False)
        for spine in axes.spines.values():
            spine.set_visible(False)
        return to_svg(figure, name)


def _depths(values: Sequence[float | None]) -> list[float]:
    """Return the opacity of each cell of a column, from almost 0 for the lowest value to `DEEPEST`."""
    found = [value for value in values if value is not None]
    low, spread = min(found, default=0.0), max(found, default=0.0) - min(found, default=0.0)
    return [0.0 if value is None else 0.04 + (DEEPEST - 0.04) * ((value - low) / (spread or 1)) for value in values]
