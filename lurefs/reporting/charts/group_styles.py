"""Colour, marker and dash of each group of runs, and the caption for groups."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from lurefs.comparing.finished_runs import Run
from lurefs.comparing.groups import Group
from lurefs.reporting.charts.style import MAX_NAMED

SEEDS = "For several seeds: their mean, with its 95\u00a0% interval over seeds as a band."


def styled(groups: Sequence[Group], ranked: Sequence[Run]) -> list[Group]:
    """Return the groups; if a chart cannot name all, those of the first `ranked` runs get the distinct styles."""
    if len(groups) <= MAX_NAMED:
        return list(groups)
    order = list(dict.fromkeys(group.label for run in ranked for group in groups if run in group.runs))
    return [replace(group, style=order.index(group.label)) for group in groups]


def styles_of(groups: Sequence[Group]) -> dict[str, int]:
    """Return label of a run -> style."""
    return {run.label: group.style for group in groups for run in group.runs}
