"""A mean over training seeds, and its error: seeds meet the same episodes, so they share these episodes' noise."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from episodes.arrays import FloatArray
from episodes.intervals import bound_without_exceptions, student_p, student_quantile

MIN_SEEDS = 3


@dataclass(frozen=True, kw_only=True)
class SeedSummary:
    """A mean over training seeds.

    Attributes:
        mean: Mean of the seeds' means.
        std: Standard deviation over seeds (ddof 1).
        n_seeds: Number of seeds.
        ci95_seeds: Half width of the 95 % interval for *this training procedure on new seeds*, on this pool of classes.
            If every episode of every seed is perfect: `bound_without_exceptions` over seeds.
        p: Two-sided p of a mean of zero; below 0.05 where the interval excludes zero.
    """

    mean: float
    std: float
    n_seeds: int
    ci95_seeds: float
    p: float


def summarise_seeds(values: FloatArray) -> SeedSummary:
    """Summarise the values of several training seeds on the same episodes, or differences of two procedures.

    Seeds and episodes are both drawn at random, and cross: every seed meets every episode. With the mean squares of the
    two-way layout, the variance of the mean is (MS_seed + MS_episode - MS_rest) / (S T) for S seeds and T episodes,
    with Satterthwaite's (1946) degrees of freedom (Searle, Casella and McCulloch 1992, chapter 4). Student's interval
    over the seeds' means leaves out the noise of episodes, which all seeds share. It is taken where it is wider: by
    chance for few seeds, and where the values have no noise over episodes.

    Args:
        values: (n_seeds, n_episodes) finite. One column if there are no episodes: then the interval is Student's.

    Raises:
        ValueError: Fewer than three seeds: with two, t(1) = 12.7 makes the interval useless.
    """
    values = np.asarray(values, dtype=np.float64)
    n_seeds, n_episodes = values.shape
    if n_seeds < MIN_SEEDS:
        raise ValueError(
            f"there are {n_seeds} seeds, but an interval over seeds needs at least {MIN_SEEDS}, better 5; "
            "train with more seeds"
        )
    if not np.isfinite(values).all():
        raise ValueError("a value of a seed is not finite; leave out seeds that were not measured")
    means = values.mean(axis=1)
    mean, std = float(means.mean()), float(means.std(ddof=1))
    errors = [(std / np.sqrt(n_seeds), float(n_seeds - 1))]
    if n_episodes > 1 and (crossed := _crossed_error(values)) is not None:
        errors.append(crossed)
    return SeedSummary(
        mean=mean,
        std=std,
        n_seeds=n_seeds,
        ci95_seeds=bound_without_exceptions(n_seeds)
        if (values == 1).all()
        else max(float(student_quantile(freedom) * error) for error, freedom in errors),
        p=max(student_p(mean, error, freedom) for error, freedom in errors),
    )


def _crossed_error(values: FloatArray) -> tuple[float, float] | None:
    """Return the error of the mean and its degrees of freedom; None if episodes add nothing to that of the seeds."""
    n_seeds, n_episodes = values.shape
    of_seed, of_episode = values.mean(axis=1), values.mean(axis=0)
    rest = values - of_seed[:, np.newaxis] - of_episode + values.mean()
    parts = np.array(
        [
            of_seed.var(ddof=1) / n_seeds,
            of_episode.var(ddof=1) / n_episodes,
            -float(np.square(rest).sum()) / ((n_seeds - 1) * (n_episodes - 1)) / (n_seeds * n_episodes),
        ]
    )
    freedoms = np.array([n_seeds - 1, n_episodes - 1, (n_seeds - 1) * (n_episodes - 1)])
    variance = float(parts.sum())
    if variance <= parts[0]:
        return None
    return float(np.sqrt(variance)), float(variance**2 / (np.square(parts) / freedoms).sum())
