"""How far two training procedures are apart: differences of their runs, each seed's on the same episodes."""

from __future__ import annotations

from collections.abc import Sequence

from episodes.summary import MIN_SEEDS
from lurefs.comparing.estimates import Estimate, over_seeds
from lurefs.comparing.groups import Group
from lurefs.comparing.pairs import mean_difference
from lurefs.comparing.texts import joined, seeds_in_words


def difference_over_seeds(group: Group, less: Group, benchmark: str, probe: str) -> Estimate | str:
    """Return the mean of one group less another over the seeds that both were measured with.

    Seeds that only one of them has, or whose two runs met different episodes, are left out, and the estimate says so.

    Returns:
        The estimate, or the reason why there is none: fewer than `MIN_SEEDS` such seeds.
    """
    own, others = (
        {run.config.seed: run for run in side.runs if run.accuracy(benchmark, probe) is not None}
        for side in (group, less)
    )
    found, reasons = {}, []
    for seed in sorted(own.keys() & others.keys()):
        difference = mean_difference(own[seed], others[seed], benchmark, probe)
        if isinstance(difference, str):
            reasons.append(f"seed {seed} cannot be paired ({difference})")
        else:
            found[seed] = difference
    reasons = _lonely(sorted(own.keys() ^ others.keys())) + reasons
    if len(found) < MIN_SEEDS:
        shared = f"both have {len(found) or 'none'} of the {MIN_SEEDS} seeds that a difference over seeds needs"
        return f"{shared}, since {joined(reasons)}" if reasons else shared
    n_all = len(own.keys() | others.keys())
    return over_seeds(
        list(found.values()),
        note=f"difference over {len(found)} of {n_all} seeds, since {joined(reasons)}" if reasons else "",
    )


def _lonely(seeds: Sequence[int]) -> list[str]:
    """Say which seeds one side alone was measured with, in one entry; nothing if there is none."""
    return [f"{seeds_in_words(seeds)} a result in one of the two only"] if seeds else []
