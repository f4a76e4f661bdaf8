"""What training with other seeds would give: rows of means over runs that differ only by their seed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from episodes.comparison import holm, p_over_seeds
from episodes.summary import MIN_SEEDS, SeedSummary, summarise_seeds
from lurefs.reporting.comparison import Run, compare
from lurefs.reporting.seeds import Group
from lurefs.reporting.series import Point, pooled
from lurefs.reporting.wording import MISSING, count, joined, number, p_value, percent, points

Row = dict[str, Any]


def rows(groups: Sequence[Group], reference: Run, benchmark: str, probe: str) -> list[Row]:
    """Return one row a group of several seeds: its mean accuracy, and how far it is from the reference's group.

    The intervals are Student's over seeds, from `MIN_SEEDS` on. The p-values are corrected for their number.

    Args:
        groups: All groups of the page.
        reference: The run whose group the others are set against.
        benchmark: Its name.
        probe: Its name.
    """
    of_reference = next(group for group in groups if reference in group.runs)
    pooled = [(group, _means(group, benchmark, probe)) for group in groups if group.is_pooled]
    pooled = [(group, means) for group, means in pooled if len(means) > 1]
    found = {
        group.label: difference_over_seeds(group, of_reference, benchmark, probe)
        for group, _ in pooled
        if group is not of_reference
    }
    differences = {label: difference for label, difference in found.items() if isinstance(difference, SeedSummary)}
    p_values = dict(zip(differences, holm([p_over_seeds(entry) for entry in differences.values()]), strict=True))
    return [
        {
            "group": group.label,
            "seeds": count(len(means)),
            "accuracy": percent(float(np.mean(list(means.values())))),
            "interval": percent(summarise_seeds(means).ci95_seeds) if len(means) >= MIN_SEEDS else MISSING,
            "why_not": found[group.label] if isinstance(found.get(group.label), str) else "",
            **_difference(differences.get(group.label), p_values.get(group.label)),
        }
        for group, means in pooled
    ]


def percent_over_seeds(group: Group, fractions: Sequence[float | None]) -> str:
    """Return the mean over a group's runs in percent, with its interval if there is one; a dash if one has no value."""
    tracks = [{} if fraction is None else {0.0: Point(x=0, y=100 * fraction)} for fraction in fractions]
    line = pooled(group, tracks)
    if line is None:
        return MISSING
    width = "" if line.half_width is None else f" ± {number(float(np.asarray(line.half_width)[0]), 2)}"
    return f"{number(float(np.asarray(line.y)[0]), 2)}{width}"


def difference_over_seeds(group: Group, reference: Group, benchmark: str, probe: str) -> SeedSummary | str:
    """Summarise the differences of two groups, each seed's run against the reference's of that seed on its episodes.

    Returns:
        The summary, or the reason why there is none.
    """
    own, others = ({run.config.seed: run for run in side.runs} for side in (group, reference))
    if unpaired := sorted(own.keys() ^ others.keys()):
        seeds = joined([str(seed) for seed in unpaired])
        return (
            f"{f'seed {seeds} was' if len(unpaired) == 1 else f'seeds {seeds} were'} trained with one of the two only"
        )
    means = {}
    for seed, run in own.items():
        pair = compare(run, others[seed], benchmark, probe)
        if pair.paired is None:
            return f"seed {seed}: {pair.not_paired}"
        means[seed] = pair.paired.difference.mean
    if len(means) < MIN_SEEDS:
        return f"fewer than {MIN_SEEDS} seeds"
    return summarise_seeds(means)


def _means(group: Group, benchmark: str, probe: str) -> dict[int, float]:
    accuracies = {run.config.seed: run.accuracy(benchmark, probe) for run in group.runs}
    return {seed: accuracy.mean for seed, accuracy in accuracies.items() if accuracy is not None}


def _difference(difference: SeedSummary | None, p: float | None) -> Row:
    if difference is None:
        return {"difference": MISSING, "difference_interval": MISSING, "p": MISSING}
    return {
        "difference": points(difference.mean),
        "difference_interval": percent(difference.ci95_seeds),
        "p": p_value(p),
    }
