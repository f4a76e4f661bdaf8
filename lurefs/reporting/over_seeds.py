"""What training with other seeds would give: rows of means over runs that differ only by their seed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from episodes.comparison import holm, p_over_seeds
from episodes.summary import MIN_SEEDS, SeedSummary, summarise_seeds
from lurefs.reporting.comparison import compare
from lurefs.reporting.runs import Run
from lurefs.reporting.seeds import Group
from lurefs.reporting.series import Point, pooled
from lurefs.reporting.wording import MISSING, count, joined, number, p_value, percent, points

Row = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class OverSeeds:
    """A training procedure, measured by runs that differ only by their seed.

    Attributes:
        group: What the runs are called together.
        benchmark: The benchmark's name.
        probe: The probe's name.
        n_seeds: How many runs were measured.
        mean: Mean of the runs' mean accuracies, fraction.
        ci95_seeds: Half width of its 95 % interval over seeds; None for fewer than `MIN_SEEDS`.
        difference: Mean less that of the reference's group, seed by seed on the same episodes, fraction; None for that
            group, and where `no_difference` says why.
        difference_ci95_seeds: Half width of its 95 % interval over seeds.
        p_seeds: Two-sided p of no difference on new seeds, corrected for the number of groups (Holm).
        no_difference: Why there is no difference; "" where there is one, and for the reference's group.
    """

    group: str
    benchmark: str
    probe: str
    n_seeds: int
    mean: float
    ci95_seeds: float | None
    difference: float | None
    difference_ci95_seeds: float | None
    p_seeds: float | None
    no_difference: str


def over_seeds(groups: Sequence[Group], reference: Run, benchmark: str, probe: str) -> list[OverSeeds]:
    """Return what each group of several seeds reaches, and how far it is from the reference's group.

    The intervals are Student's over seeds, from `MIN_SEEDS` on. The p-values are corrected for their number.

    Args:
        groups: All groups of the page.
        reference: The run whose group the others are set against.
        benchmark: Its name.
        probe: Its name.
    """
    of_reference = next(group for group in groups if reference in group.runs)
    pooled = [(group, group.mean_by_seed(benchmark, probe)) for group in groups if group.is_pooled]
    pooled = [(group, means) for group, means in pooled if len(means) > 1]
    found = {
        group.label: difference_over_seeds(group, of_reference, benchmark, probe)
        for group, _ in pooled
        if group is not of_reference
    }
    differences = {label: difference for label, difference in found.items() if isinstance(difference, SeedSummary)}
    p_values = dict(zip(differences, holm([p_over_seeds(entry) for entry in differences.values()]), strict=True))
    return [
        OverSeeds(
            group=group.label,
            benchmark=benchmark,
            probe=probe,
            n_seeds=len(means),
            mean=float(np.mean(list(means.values()))),
            ci95_seeds=summarise_seeds(means).ci95_seeds if len(means) >= MIN_SEEDS else None,
            difference=differences[group.label].mean if group.label in differences else None,
            difference_ci95_seeds=differences[group.label].ci95_seeds if group.label in differences else None,
            p_seeds=p_values.get(group.label),
            no_difference=reason if isinstance(reason := found.get(group.label), str) else "",
        )
        for group, means in pooled
    ]


def rows(groups: Sequence[Group], reference: Run, benchmark: str, probe: str) -> list[Row]:
    """Return the figures of `over_seeds` as people read them, one row a group."""
    return [
        {
            "group": found.group,
            "seeds": count(found.n_seeds),
            "accuracy": percent(found.mean),
            "interval": percent(found.ci95_seeds),
            "why_not": found.no_difference,
            "difference": MISSING if found.difference is None else points(found.difference),
            "difference_interval": percent(found.difference_ci95_seeds),
            "p": p_value(found.p_seeds),
        }
        for found in over_seeds(groups, reference, benchmark, probe)
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
