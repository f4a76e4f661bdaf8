"""What it costs to choose a backbone by a score, and how far the score's order agrees with that of the accuracies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from episodes.arrays import FloatArray, IntArray
from episodes.comparison import LEVEL
from episodes.intervals import student_quantile
from episodes.over_classes import error_over_classes, index_classes


@dataclass(frozen=True, kw_only=True)
class Regret:
    """Accuracy of the best backbone minus that of the chosen one.

    Attributes:
        mean: Of the best on these episodes, fraction; 0 if that one was chosen. Since the best is picked by the same
            episodes, it is on average a little above the true regret.
        low: Lower bound of the 95 % interval, fraction; at least 0.
        high: Upper bound.
        scope: What the interval is over: `classes` for new classes of this kind, `pool` for episodes of these classes.
    """

    mean: float
    low: float
    high: float
    scope: Literal["classes", "pool"]


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """Kendall's tau-b between a score and the accuracies.

    Attributes:
        tau: In [-1, 1]; pairs with equal scores count for neither side.
        low: The lowest tau that the tests of the pairs leave possible.
        high: The highest.
        p: Two-sided p of no relation, with the backbones as the sample.
    """

    tau: float
    low: float
    high: float
    p: float


def choice_regret(accuracies: FloatArray, chosen: Sequence[int], classes: IntArray) -> Regret:
    """Return the regret of a choice among backbones that met the same episodes, with a simultaneous interval.

    The regret is the largest difference between a backbone and the chosen one. All these differences have paired
    intervals that hold together with 95 % (Bonferroni), so the largest of their lower bounds and the largest of their
    upper bounds enclose the largest true difference, however the best was picked (multiple comparisons with the best,
    Hsu 1981). For a fixed choice it covers at least 95 %. The upper bound also holds for a choice that was made on the
    same episodes, since only pairs with the truly best backbone can break it.

    Args:
        accuracies: (n_backbones, n_episodes), at least two of each.
        chosen: The chosen backbone; of several the mean is taken, as of a choice among them at random.
        classes: (n_episodes, n_way); negative entries mean no class.
    """
    accuracies = np.asarray(accuracies, dtype=np.float64)
    index = index_classes(classes)
    differences = accuracies - accuracies[list(chosen)].mean(axis=0)
    others = [row for number, row in enumerate(differences) if [number] != list(chosen)]
    level = LEVEL / len(others)
    means = np.array([row.mean() for row in others])
    errors = [error_over_classes(row, index) for row in others]
    over_classes = [error.least_mean(level) for error in errors if not isinstance(error, str)]
    n_episodes = accuracies.shape[1]
    over_episodes = student_quantile(n_episodes - 1, level) * np.std(others, axis=1, ddof=1) / np.sqrt(n_episodes)
    is_over_classes = len(over_classes) == len(others)
    widths = np.array(over_classes) if is_over_classes else over_episodes
    return Regret(
        mean=max(0.0, float(means.max())),
        low=max(0.0, float((means - widths).max())),
        high=max(0.0, float((means + widths).max())),
        scope="classes" if is_over_classes else "pool",
    )


def rank_agreement(
    scores: Sequence[float], means: Sequence[float], told_apart: Mapping[tuple[int, int], bool]
) -> Agreement | None:
    """Return how far the order of scores agrees with that of mean accuracies; None if all scores are equal.

    Two backbones that the corrected tests tell apart have the order of their means; any other two may be in either
    order. Their best and worst cases bound tau. With tests that err on any pair with at most 5 %, the bounds hold the
    true tau with at least 95 %.

    Args:
        scores: One per backbone.
        means: One per backbone.
        told_apart: Pair of places -> whether a test tells them apart; pairs without a test may be left out.
    """
    from scipy.stats import kendalltau

    n_backbones = len(scores)
    of_scores, known, unknown = 0, 0.0, 0
    for i in range(n_backbones):
        for j in range(i + 1, n_backbones):
            order = np.sign(scores[i] - scores[j])
            of_scores += int(order != 0)
            if told_apart.get((i, j)) or told_apart.get((j, i)):
                known += order * np.sign(means[i] - means[j])
            else:
                unknown += int(order != 0)
    found = kendalltau(scores, means, variant="b")
    if not of_scores or np.isnan(found.statistic):
        return None
    most = np.sqrt(of_scores * (n_backbones * (n_backbones - 1) / 2))
    bounds = (float((known - unknown) / most), float((known + unknown) / most))
    tau = float(found.statistic)
    return Agreement(tau=tau, low=min(tau, bounds[0]), high=max(tau, bounds[1]), p=float(found.pvalue))
