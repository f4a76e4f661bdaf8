"""What training with other seeds would give: means and differences over runs that differ only by their seed."""

from __future__ import annotations

from episodes.summary import MIN_SEEDS, SeedSummary, summarise_seeds
from lurefs.comparing.groups import Group
from lurefs.comparing.pairs import mean_difference
from lurefs.comparing.texts import joined


def difference_over_seeds(group: Group, reference: Group, benchmark: str, probe: str) -> SeedSummary | str:
    """Summarise the differences of two groups, each seed's run against the reference's of that seed on its episodes.

    Returns:
        The summary, or the reason why there is none.
    """
    own, others = (
        {run.config.seed: run for run in side.runs if run.accuracy(benchmark, probe) is not None}
        for side in (group, reference)
    )
    if unpaired := sorted(own.keys() ^ others.keys()):
        seeds = joined([str(seed) for seed in unpaired])
        return (
            f"{f'seed {seeds} was' if len(unpaired) == 1 else f'seeds {seeds} were'} trained with one of the two only"
        )
    means = {}
    for seed, run in own.items():
        difference = mean_difference(run, others[seed], benchmark, probe)
        if isinstance(difference, str):
            return f"seed {seed}: {difference}"
        means[seed] = difference
    if len(means) < MIN_SEEDS:
        return f"fewer than {MIN_SEEDS} seeds"
    return summarise_seeds(means)
