"""Difference of two training procedures over seeds, paired by seed on the same episodes."""

from __future__ import annotations

from collections.abc import Sequence

from episodes.arrays import FloatArray
from episodes.over_seeds import MIN_SEEDS
from lurefs.comparing.estimates import Estimate, over_seeds
from lurefs.comparing.finished_runs import Run
from lurefs.comparing.groups import Group
from lurefs.comparing.pairs import differences_by_episode, manifests_of, rows_of_equal_length
from lurefs.comparing.texts import joined, seeds_in_words


def difference_over_seeds(group: Group, less: Group, benchmark: str, probe: str) -> Estimate | str:
    """Return one group minus another, mean over the seeds of both, or why fewer than `MIN_SEEDS` can be paired.

    Seeds that only one of them has, or whose two runs met different episodes, are left out, and the estimate says so.
    """
    own, others = (_measured(side, benchmark, probe) for side in (group, less))
    found, reasons = differences_by_seed(group, less, benchmark, probe)
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


def differences_by_seed(
    group: Group, less: Group, benchmark: str, probe: str
) -> tuple[dict[int, FloatArray], list[str]]:
    """Return the differences by episode of each seed that both groups have, and why others are left out."""
    own, others = (_measured(side, benchmark, probe) for side in (group, less))
    found: dict[int, FloatArray] = {}
    reasons = []
    for seed in sorted(own.keys() & others.keys()):
        difference = differences_by_episode(own[seed], others[seed], benchmark, probe)
        if isinstance(difference, str):
            reasons.append(f"seed {seed} cannot be paired ({difference})")
        else:
            found[seed] = difference
    return found, _lonely(sorted(own.keys() ^ others.keys())) + reasons


def _measured(group: Group, benchmark: str, probe: str) -> dict[int, Run]:
    return {run.config.seed: run for run in group.runs if run.accuracy(benchmark, probe) is not None}


def _lonely(seeds: Sequence[int]) -> list[str]:
    """Return a list with one sentence on the seeds that only one side has; an empty list if there are none."""
    return [f"{seeds_in_words(seeds)} a result in one of the two only"] if seeds else []
