"""Chart with a log2 x axis, for shots and training images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from lurefs.reporting.charts.curves import Line, draw_line
from lurefs.reporting.charts.style import add_legend, chart_context, drawn, name_axes, new_chart, to_svg

SHIFT = 0.06
"""Shift between curves, as a share of a doubling, so that their bars do not overlap."""


@drawn
def log_curves(lines: Sequence[Line], ticks: Mapping[float, str], *, name: str, x_label: str) -> str:
    """Draw accuracies in percent against an amount, on a log2 axis.

    Args:
        lines: At least one.
        ticks: Position -> text.
        name: Salt of the file's ids.
        x_label: Label of x, with the unit.
    """
    with chart_context(name):
        figure, axes = new_chart()
        handles = []
        for place, line in enumerate(lines):
            shift = 0.0 if line.has_band else SHIFT * (place - (len(lines) - 1) / 2)
            handles.append(draw_line(axes, line, np.asarray(line.x, dtype=float) * 2**shift))
        axes.set_xscale("log", base=2)
        axes.set_xticks(list(ticks), list(ticks.values()))
        axes.minorticks_off()
        name_axes(axes, x_label, "accuracy, %")
        add_legend(axes, handles, [line.label for line in lines])
        return to_svg(figure, name)
