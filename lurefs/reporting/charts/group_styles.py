"""Which colour, marker and dash each group of runs has, and what the charts say of groups."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from lurefs.comparing.finished_runs import Run
from lurefs.comparing.groups import Group
from lurefs.reporting.charts.style import MAX_NAMED

SEEDS = "Several seeds: their mean; bands: its 95\u00a0% interval over seeds."


def styled(groups: Sequence[Group], ranked: Sequence[Run]) -> list[Group]:
    """Return the groups; of more than can be named in a chart, those that matter most have the first styles.

    Args:
        groups: In any order, which is kept.
        ranked: All their runs, those first that matter most.
    """
    if len(groups) <= MAX_NAMED:
        return list(groups)
    order = list(dict.fromkeys(group.label for run in ranked for group in groups if run in group.runs))
    return [replace(group, style=order.index(group.label)) for group in groups]


def styles_of(groups: Sequence[Group]) -> dict[str, int]:
    """Return the style of each run, by its label."""
    return {run.label: group.style for group in groups for run in group.runs}
