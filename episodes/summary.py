"""From per-episode results to a mean with intervals, each of which says what it is an interval over."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]


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


@dataclass(frozen=True, kw_only=True)
class PairedDifference:
    """How much better one model is than another on the same episodes.

    Attributes:
        difference: Summary of the per-episode differences a - b.
        n_wins: Episodes in which a is better.
        n_ties: Episodes in which both are equal.
        n_losses: Episodes in which b is better.
        correlation: Pearson correlation of the two over episodes; NaN if one of them is constant.
    """

    difference: Summary
    n_wins: int
    n_ties: int
    n_losses: int
    correlation: float


def summarise(values: FloatArray, classes: IntArray) -> Summary:
    """Summarise one value an episode.

    Args:
        values: (n_episodes,) finite.
        classes: (n_episodes, n_way) int64, the classes in each episode.

    Raises:
        ValueError: Fewer than two episodes, or a value that is not finite.
    """
    from scipy.stats import t as student_t

    values = np.asarray(values, dtype=np.float64)
    if len(values) < 2 or not np.isfinite(values).all():
        raise ValueError(f"{len(values)} values, all of which must be finite and at least two")
    std = float(values.std(ddof=1))
    half_width = float(student_t.ppf(0.975, len(values) - 1) * std / np.sqrt(len(values)))
    over_classes = jackknife_over_classes(values, classes)
    return Summary(
        mean=float(values.mean()),
        std=std,
        n=len(values),
        ci95_episodes=half_width,
        ci95_classes=over_classes if isinstance(over_classes, float) else None,
        no_ci95_classes=over_classes if isinstance(over_classes, str) else None,
    )


def jackknife_over_classes(values: FloatArray, classes: IntArray) -> float | str:
    """Return the half width of the 95 % interval over classes, or the reason why there is none.

    Leave-one-class-out jackknife: theta_(-c) is the mean over the episodes without class c, and
    SE^2 = (C - 1) / C * sum_c (theta_(-c) - mean_c theta_(-c))^2 with C classes and C - 1 degrees of freedom
    (Efron and Stein 1981; on classes as the sampling unit of episodes: Lafargue et al. 2024).

    Args:
        values: (n_episodes,).
        classes: (n_episodes, n_way) int64.
    """
    from scipy.stats import t as student_t

    present = np.unique(classes)
    n_classes = len(present)
    if n_classes < 3:
        return f"{n_classes} classes are too few"
    columns = np.searchsorted(present, classes)
    n_of_class = np.bincount(columns.reshape(-1), minlength=n_classes)
    sum_of_class = np.bincount(columns.reshape(-1), weights=np.repeat(values, classes.shape[1]), minlength=n_classes)
    n_without = len(values) - n_of_class
    if n_without.min() == 0:
        return "a class is in every episode"
    without = (values.sum() - sum_of_class) / n_without
    variance = (n_classes - 1) / n_classes * np.square(without - without.mean()).sum()
    return float(student_t.ppf(0.975, n_classes - 1) * np.sqrt(variance))


def paired_difference(a: FloatArray, b: FloatArray, classes: IntArray) -> PairedDifference:
    """Compare two models on the same episodes.

    Args:
        a: (n_episodes,) values of the first model.
        b: (n_episodes,) values of the second, episode by episode.
        classes: (n_episodes, n_way) int64.

    Raises:
        ValueError: The two differ in length, or hold fewer than two episodes.
    """
    if len(a) != len(b):
        raise ValueError(f"{len(a)} and {len(b)} episodes cannot be paired")
    differences = np.asarray(a, dtype=np.float64) - np.asarray(b, dtype=np.float64)
    constant = np.ptp(a) == 0 or np.ptp(b) == 0
    return PairedDifference(
        difference=summarise(differences, classes),
        n_wins=int((differences > 0).sum()),
        n_ties=int((differences == 0).sum()),
        n_losses=int((differences < 0).sum()),
        correlation=float("nan") if constant else float(np.corrcoef(a, b)[0, 1]),
    )
