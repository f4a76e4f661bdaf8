"""Summary of one model's per-episode results: the mean with intervals of a named scope, and the worst cases.

Comparisons of models are in `episodes.comparison`; the number of episodes to draw is in `episodes.stopping`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from episodes.arrays import FloatArray, IntArray
from episodes.intervals import bound_without_exceptions, half_width
from episodes.over_classes import ClassError, ClassIndex, error_over_classes, index_classes


@dataclass(frozen=True, kw_only=True)
class Summary:
    """A mean over episodes.

    Where all values are 1, no interval can be had from their spread. `bound_without_exceptions` then
    takes the place of the half widths, over the number of episodes, or of classes.

    Attributes:
        mean: Mean over episodes.
        std: Standard deviation over episodes (ddof 1).
        n: Number of episodes.
        ci95_episodes: Half width of the 95 % interval for *this model on this pool of classes*.
        ci95_classes: Half width of the 95 % interval for *this model on new classes of this kind*; None if the
            episodes do not allow one.
        no_ci95_classes: Why `ci95_classes` is missing; None if it is not.
    """

    mean: float
    std: float
    n: int
    ci95_episodes: float
    ci95_classes: float | None
    no_ci95_classes: str | None = None

    def __str__(self) -> str:
        sign = "−" if self.mean == 1 else "±"
        classes = f"none: {self.no_ci95_classes}" if self.ci95_classes is None else f"{sign} {self.ci95_classes:.2%}"
        perfect = ", all perfect: one-sided bounds" if self.mean == 1 else ""
        return (
            f"{self.mean:.2%} {sign} {self.ci95_episodes:.2%} on this pool of classes "
            f"(new classes of this kind: {classes}), {self.n} episodes{perfect}"
        )


@dataclass(frozen=True, kw_only=True)
class Tails:
    """Worst cases of the results: the 5th percentile over episodes, and the hardest class.

    Both are picked because they are low; `hardest_by_chance` and `percentile_5_by_chance` say how low chance alone
    would make them.

    Attributes:
        percentile_5: 5th percentile of the episodes (linear interpolation, type 7 of Hyndman and Fan 1996).
        hardest_class: The class whose episodes have the lowest mean; of equals the first.
        hardest_class_mean: Mean over the episodes *with this class*, of all their queries. It is not the accuracy on
            the class itself, which per-episode results do not hold: the other classes pull it to the mean.
        hardest_class_n: Number of episodes with this class.
    """

    percentile_5: float
    hardest_class: int
    hardest_class_mean: float
    hardest_class_n: int


def summarise(
    values: FloatArray, classes: IntArray | ClassIndex, *, over_classes: ClassError | str | None = None
) -> Summary:
    """Summarise one value per episode.

    The interval over episodes is Student's: t(T - 1) * s / sqrt(T) with T episodes (Student 1908).

    Args:
        values: (n_episodes,) finite.
        classes: (n_episodes, n_way) int64, the classes in each episode; negative entries mean no class. Or their
            index, which the summaries of several models can share.
        over_classes: Result of `error_over_classes` for these values, if it is known.

    Raises:
        ValueError: Fewer than two episodes, or a value that is not finite.
    """
    values = np.asarray(values, dtype=np.float64)
    if len(values) < 2 or not np.isfinite(values).all():
        raise ValueError(f"a summary needs at least two values, all finite; there are {len(values)}")
    std, n, is_perfect = float(values.std(ddof=1)), len(values), bool((values == 1).all())
    if over_classes is None:
        over_classes = error_over_classes(values, classes)
    of_classes = None
    if isinstance(over_classes, ClassError):
        of_classes = bound_without_exceptions(over_classes.freedom + 1) if is_perfect else over_classes.half_width
    return Summary(
        mean=float(values.mean()),
        std=std,
        n=n,
        ci95_episodes=bound_without_exceptions(n) if is_perfect else half_width(std, n),
        ci95_classes=of_classes,
        no_ci95_classes=over_classes if isinstance(over_classes, str) else None,
    )


def tails(values: FloatArray, classes: IntArray) -> Tails:
    """Return the 5th percentile of the episodes, and the hardest class.

    Args:
        values: (n_episodes,) finite, higher is better.
        classes: (n_episodes, n_way) int64; negative entries mean no class.
    """
    values = np.asarray(values, dtype=np.float64)
    index = index_classes(classes)
    means = index.sums(values) / index.n_of_class
    place = int(means.argmin())
    return Tails(
        percentile_5=float(np.quantile(values, 0.05)),
        hardest_class=int(index.present[place]),
        hardest_class_mean=float(means[place]),
        hardest_class_n=int(index.n_of_class[place]),
    )


def hardest_by_chance(std: float, n_of_class: int, n_classes: int) -> float:
    """Return how far the hardest of equally hard classes would lie below the mean.

    Args:
        std: Standard deviation of the values over episodes.
        n_of_class: Episodes with the class.
        n_classes: Number of classes from which the hardest is picked; at least 1.

    The mean of the lowest of n normal values is -Phi^-1((n - 3/8) / (n + 1/4)) standard deviations (Blom 1958).
    """
    from scipy.special import ndtri

    return float(std / np.sqrt(n_of_class) * ndtri((n_classes - 0.375) / (n_classes + 0.25))) if n_classes > 1 else 0.0


def percentile_5_by_chance(mean: float, n_query: int) -> float:
    """Return how far the 5th percentile of equally hard episodes would lie below the mean: 1.645 binomial deviations.

    Args:
        mean: Mean accuracy.
        n_query: Queries in an episode, all classes together.
    """
    return float(1.645 * np.sqrt(mean * (1 - mean) / n_query))


def chance_level(classes: IntArray) -> float:
    """Return the accuracy of guessing: 1 / n_way, or its mean over episodes where n_way varies.

    Args:
        classes: (n_episodes, n_way) int64; negative entries mean no class.
    """
    return float((1 / (np.asarray(classes) >= 0).sum(axis=1)).mean())
