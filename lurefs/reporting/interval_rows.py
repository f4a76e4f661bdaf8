"""The rows of interval charts, in percent: accuracies, and differences from the reference, the best first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from episodes.summary import MIN_SEEDS, SeedSummary, Summary, summarise_seeds
from lurefs.reporting.comparison import Comparison
from lurefs.reporting.figures import Interval
from lurefs.reporting.over_seeds import difference_over_seeds
from lurefs.reporting.runs import Run
from lurefs.reporting.seeds import Group
from lurefs.reporting.wording import win_tie_loss


def accuracy_intervals(groups: Sequence[Group], benchmark: str, probes: Sequence[str]) -> list[Interval]:
    """Return the accuracies to chart: several groups by the first probe, the best first, or one run by all its probes.

    Of several seeds it is their mean, and its interval is over seeds.
    """
    if len(groups) == 1 and not groups[0].is_pooled:
        rows = [(probe, 0, groups[0].runs[0].accuracy(benchmark, probe)) for probe in probes]
        return [_interval(label, summary, style) for label, style, summary in rows if summary is not None]
    found = []
    for group in groups:
        means = group.mean_by_seed(benchmark, probes[0])
        if group.is_pooled and means:
            found.append(_seed_interval(group, means))
        elif (accuracy := group.runs[0].accuracy(benchmark, probes[0])) is not None:
            found.append(_interval(group.label, accuracy, group.style))
    return sorted(found, key=lambda row: -row.value)


def difference_intervals(
    groups: Sequence[Group], reference: Run, comparisons: Sequence[Comparison], probe: str
) -> list[Interval]:
    """Return the differences by one probe, the best first: paired by episode, or of seeds where there are several."""
    of_reference = next(group for group in groups if reference in group.runs)
    entries = {entry.run.label: entry for entry in comparisons if entry.probe == probe}
    found = []
    for group in groups:
        first = entries.get(group.runs[0].label)
        if group is of_reference or first is None:
            continue
        if group.is_pooled or of_reference.is_pooled:
            over_seeds = difference_over_seeds(group, of_reference, first.benchmark, probe)
            if isinstance(over_seeds, SeedSummary):
                value, width = 100 * over_seeds.mean, 100 * over_seeds.ci95_seeds
                found.append(Interval(label=group.label, value=value, inner=width, outer=None, style=group.style))
        elif first.paired is not None:
            row = _interval(group.label, first.paired.difference, group.style)
            found.append(replace(row, note=win_tie_loss(first.paired)))
    return sorted(found, key=lambda row: -row.value)


def _seed_interval(group: Group, means: Mapping[int, float]) -> Interval:
    """Return a mean over seeds; its bar has no width where the seeds are too few for an interval."""
    value = 100 * float(np.mean(list(means.values())))
    width = 100 * summarise_seeds(means).ci95_seeds if len(means) >= MIN_SEEDS else 0.0
    return Interval(label=group.label, value=value, inner=width, outer=None, style=group.style)


def _interval(label: str, summary: Summary, style: int) -> Interval:
    return Interval(
        label=label,
        value=100 * summary.mean,
        inner=100 * summary.ci95_episodes,
        outer=None if summary.ci95_classes is None else 100 * summary.ci95_classes,
        style=style,
    )
