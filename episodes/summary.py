"""From per-episode results to a mean with intervals, each of which says what it is an interval over, and to its tails.

One model at a time; two models are in `episodes.comparison`, and how many episodes to draw is in `episodes.stopping`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from episodes.arrays import FloatArray, IntArray

MIN_SEEDS = 3
NORMAL_95 = 1.959963984540054
"""97.5 % quantile of the normal distribution."""


@dataclass(frozen=True, kw_only=True)
class Summary:
    """A mean over episodes.

    Attributes:
        mean: Mean over episodes.
        std: Standard deviation over episodes (ddof 1).
        n: Number of episodes.
        ci95_episodes: Half width of the 95 % interval for *this model on this pool of classes*.
        ci95_classes: Half width of the 95 % interval for *this model on new classes of this kind*; None where the
            episodes do not allow one, for the reason in `no_ci95_classes`.
        no_ci95_classes: Why there is no `ci95_classes`; None where there is one.
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
class SeedSummary:
    """A mean over training seeds.

    Attributes:
        mean: Mean of the seeds' means.
        std: Standard deviation over seeds (ddof 1).
        n_seeds: Number of seeds.
        ci95_seeds: Half width of the 95 % interval for *this training procedure on new seeds*, on this pool of classes.
    """

    mean: float
    std: float
    n_seeds: int
    ci95_seeds: float


@dataclass(frozen=True, kw_only=True)
class Tails:
    """How bad it gets, which a mean hides.

    Attributes:
        percentile_5: What 5 % of the episodes fall below (linear interpolation, type 7 of Hyndman and Fan 1996).
        hardest_class: The class whose episodes have the lowest mean, the first of equals.
        hardest_class_mean: Mean over the episodes *that hold this class*, of all queries in them. It is not the
            accuracy on the class itself, which per-episode results do not tell: the other classes pull it to the mean.
        hardest_class_n: How many episodes hold it.
    """

    percentile_5: float
    hardest_class: int
    hardest_class_mean: float
    hardest_class_n: int


@dataclass(frozen=True, kw_only=True)
class ClassIndex:
    """Which episodes hold which class: what many values on the same episodes are summed by.

    Attributes:
        present: (C,) int64, the classes that occur, ascending.
        n_of_class: (C,) int64, in how many episodes each does.
        episodes: (n_entries,) int64, an episode.
        columns: (n_entries,) int64, the place in `present` of a class in it.
    """

    present: IntArray
    n_of_class: IntArray
    episodes: IntArray
    columns: IntArray

    def sums(self, values: FloatArray) -> FloatArray:
        """Return (C,), the sum of the values of the episodes that hold each class."""
        sums = np.bincount(self.columns, weights=values[self.episodes], minlength=len(self.present))
        return sums.astype(np.float64)


def index_classes(classes: IntArray) -> ClassIndex:
    """Index the classes of episodes, (n_episodes, n_way) int64; negative entries stand for no class."""
    episodes, places = np.nonzero(np.asarray(classes) >= 0)
    present, columns = np.unique(np.asarray(classes)[episodes, places], return_inverse=True)
    return ClassIndex(
        present=present.astype(np.int64),
        n_of_class=np.bincount(columns, minlength=len(present)).astype(np.int64),
        episodes=episodes.astype(np.int64),
        columns=columns.astype(np.int64),
    )


def summarise(values: FloatArray, classes: IntArray | ClassIndex) -> Summary:
    """Summarise one value an episode.

    The interval over episodes is Student's: t(T - 1) * s / sqrt(T) with T episodes (Student 1908).

    Args:
        values: (n_episodes,) finite.
        classes: (n_episodes, n_way) int64, the classes in each episode; negative entries stand for no class. Or their
            index, which the summaries of several models can share.

    Raises:
        ValueError: Fewer than two episodes, or a value that is not finite.
    """
    values = np.asarray(values, dtype=np.float64)
    if len(values) < 2 or not np.isfinite(values).all():
        raise ValueError(f"{len(values)} values, all of which must be finite and at least two")
    std = float(values.std(ddof=1))
    over_classes = jackknife_over_classes(values, classes)
    return Summary(
        mean=float(values.mean()),
        std=std,
        n=len(values),
        ci95_episodes=half_width(std, len(values)),
        ci95_classes=over_classes if isinstance(over_classes, float) else None,
        no_ci95_classes=over_classes if isinstance(over_classes, str) else None,
    )


def half_width(std: float, n: int) -> float:
    """Return t(n - 1) * std / sqrt(n), half of the 95 % interval of a mean of `n` >= 2 independent values."""
    return float(student_quantile(n - 1) * std / np.sqrt(n))


@lru_cache(maxsize=1024)
def student_quantile(degrees_of_freedom: int) -> float:
    """Return the 97.5 % quantile of Student's t, which all 95 % intervals are made with."""
    from scipy.special import stdtrit  # scipy.stats gives the same bits, and takes most of a second to import

    return float(stdtrit(degrees_of_freedom, 0.975))


def wilson(share: float | FloatArray, n: int | IntArray) -> tuple[FloatArray, FloatArray]:
    """Return the ends of the 95 % interval of a share of `n` >= 1 observations, in [0, 1] (Wilson 1927).

    Args:
        share: One, or an array of them; NaN gives NaN.
        n: Of how many observations each is.
    """
    squared = NORMAL_95**2
    centre = (share + squared / (2 * n)) / (1 + squared / n)
    half = NORMAL_95 / (1 + squared / n) * np.sqrt(share * (1 - share) / n + squared / (4 * n**2))
    return np.maximum(centre - half, 0.0), np.minimum(centre + half, 1.0)


def jackknife_over_classes(values: FloatArray, classes: IntArray | ClassIndex) -> float | str:
    """Return the half width of the 95 % interval over classes, or the reason why there is none.

    Leave-one-class-out jackknife: theta_(-c) is the mean over the episodes without class c, and
    SE^2 = (C - 1) / C * sum_c (theta_(-c) - mean_c theta_(-c))^2 with C classes and C - 1 degrees of freedom
    (Efron and Stein 1981; on classes as the sampling unit of episodes: Lafargue et al. 2024).

    It needs episodes that avoid each class. Where all episodes hold the same classes, one value an episode says
    nothing of how classes differ.

    Args:
        values: (n_episodes,).
        classes: (n_episodes, n_way) int64; negative entries stand for no class. Or their index.
    """
    values = np.asarray(values, dtype=np.float64)
    index = classes if isinstance(classes, ClassIndex) else index_classes(classes)
    n_classes = len(index.present)
    if n_classes < 3:
        return f"{n_classes} classes are too few"
    n_without = len(values) - index.n_of_class
    if n_without.min() == 0:
        return "a class is in every episode"
    without = (np.sum(values) - index.sums(values)) / n_without
    variance = (n_classes - 1) / n_classes * np.square(without - without.mean()).sum()
    return float(student_quantile(n_classes - 1) * np.sqrt(variance))


def summarise_seeds(mean_of_seed: Mapping[int, float]) -> SeedSummary:
    """Summarise the means of several training seeds: the unit is the seed, however many episodes each was measured on.

    The interval is Student's, t(S - 1) * s / sqrt(S) with S seeds (Student 1908).

    Args:
        mean_of_seed: The mean over episodes by seed, all on the same episodes; or, of two procedures that share their
            seeds, the difference of their means.

    Raises:
        ValueError: Fewer than three seeds: with two, t(1) = 12.7 makes the interval say nothing.
    """
    if len(mean_of_seed) < MIN_SEEDS:
        raise ValueError(
            f"there are {len(mean_of_seed)} seeds, but an interval over seeds needs at least {MIN_SEEDS}, better 5; "
            "train with more seeds"
        )
    means = np.array(list(mean_of_seed.values()), dtype=np.float64)
    if not np.isfinite(means).all():
        raise ValueError("a seed's mean is not finite; leave out what was not measured")
    std = float(means.std(ddof=1))
    return SeedSummary(mean=float(means.mean()), std=std, n_seeds=len(means), ci95_seeds=half_width(std, len(means)))


def tails(values: FloatArray, classes: IntArray) -> Tails:
    """Return how bad the worst episodes and the hardest class are.

    Args:
        values: (n_episodes,) finite, higher is better.
        classes: (n_episodes, n_way) int64; negative entries stand for no class.
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
        classes: (n_episodes, n_way) int64; negative entries stand for no class.
    """
    return float((1 / (np.asarray(classes) >= 0).sum(axis=1)).mean())
