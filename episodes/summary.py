"""Summary of one model's per-episode results: the mean with intervals of a named scope, and the worst cases.

Comparisons of models are in `episodes.comparison`; the number of episodes to draw is in `episodes.stopping`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from episodes.arrays import FloatArray, IntArray
from episodes.intervals import half_width
from episodes.over_classes import ClassError, ClassIndex, error_over_classes, index_classes


@dataclass(frozen=True, kw_only=True)
class Summary:
    """A mean over episodes.

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
        classes = f"± {self.ci95_classes:.2%}" if self.ci95_classes is not None else f"none: {self.no_ci95_classes}"
        return (
            f"{self.mean:.2%} ± {self.ci95_episodes:.2%} on this pool of classes "
            f"(new classes of this kind: {classes}), {self.n} episodes"
        )


@dataclass(frozen=True, kw_only=True)
class Tails:
    """Worst cases of the results: the 5th percentile over episodes, and the hardest class.

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
    std = float(values.std(ddof=1))
    if over_classes is None:
        over_classes = error_over_classes(values, classes)
    return Summary(
        mean=float(values.mean()),
        std=std,
        n=len(values),
        ci95_episodes=half_width(std, len(values)),
        ci95_classes=over_classes.half_width if isinstance(over_classes, ClassError) else None,
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


def chance_level(classes: IntArray) -> float:
    """Return the accuracy of guessing: 1 / n_way, or its mean over episodes where n_way varies.

    Args:
        classes: (n_episodes, n_way) int64; negative entries mean no class.
    """
    return float((1 / (np.asarray(classes) >= 0).sum(axis=1)).mean())
