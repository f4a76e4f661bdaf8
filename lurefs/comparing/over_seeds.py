"""Difference of two training procedures over seeds, paired by seed on the same episodes."""

from __future__ import annotations

from collections.abc import Sequence

from episodes.arrays import FloatArray
from episodes.over_seeds import MIN_SEEDS
from lurefs.comparing.estimates import Estimate, over_seeds
from lurefs.comparing.groups import Group
from lurefs.comparing.pairs import differences_by_episode, manifests_of, rows_of_equal_length
from lurefs.comparing.texts import joined, seeds_in_words


def difference_over_seeds(group: Group, less: Group, benchmark: str, probe: str) -> Estimate | str:
    """Return one group minus another, mean over the seeds of both, or why fewer than `MIN_SEEDS` can be paired.

    Seeds that only one of them has, or whose two runs met different episodes, are left out, and the estimate says so.
    """
    own, others = (
        {run.config.seed: run for run in side.runs if run.accuracy(benchmark, probe) is not None}
        for side in (group, less)
    )
    found: dict[int, FloatArray] = {}
    reasons = []
    for seed in sorted(own.keys() & others.keys()):
        difference = differences_by_episode(own[seed], others[seed], benchmark, probe)
        if isinstance(difference, str):
            reasons.append(f"seed {seed} cannot be paired ({difference})")
        else:
            found[seed] = difference
    reasons = _lonely(sorted(own.keys() ^ others.keys())) + reasons
    if len(found) < MIN_SEEDS:
        shared = f"both have {len(found) or 'none'} of the {MIN_SEEDS} seeds that a difference over seeds needs"
        return f"{shared}, since {joined(reasons)}" if reasons else shared
    n_all = len(own.keys() | others.keys())
    is_crossed = len(manifests_of([own[seed] for seed in found], benchmark)) == 1
    return over_seeds(
        [float(differences.mean()) for differences in found.values()],
        by_episode=rows_of_equal_length(list(found.values())) if is_crossed else None,
        n_episodes=min(map(len, found.values())),
        note=f"difference over {len(found)} of {n_all} seeds, since {joined(reasons)}" if reasons else "",
    )


def _lonely(seeds: Sequence[int]) -> list[str]:
    """Return a list with one sentence on the seeds that only one side has; an empty list if there are none."""
    return [f"{seeds_in_words(seeds)} a result in one of the two only"] if seeds else []
