"""Error of a mean over episodes as an estimate for new classes of the same kind.

Episodes share classes, so they are not independent. The error has three parts: how easy each class is, how easy each
pair of classes is to tell apart, and what differs between episodes of the same classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache
from math import comb
from typing import Any

import numpy as np

from episodes.arrays import FloatArray, IntArray
from episodes.intervals import NORMAL_95, student_p, student_quantile

MIN_CLASSES = 3
EPISODES_PER_CLASS = 1.5
"""Fewer episodes than this times the number of classes do not show their own noise apart from the classes'."""
FEWEST_FOR_SKEWNESS = 8
"""Fewer classes than this do not show whether their effects are skewed."""
MAX_STEPS, ACCURACY = 100, 1e-9
"""Most steps to the half width of an interval, and the share of it by which the last step may move. The error that is
left is about the square of that share."""
WIDEST = 1.25
"""Largest factor by which skewed effects widen an interval: the expansion behind it holds for small corrections."""


@dataclass(frozen=True, kw_only=True)
class ClassIndex:
    """Index from classes to their episodes, to sum many values on the same episodes.

    Attributes:
        present: (C,) int64, the classes that occur, ascending.
        n_of_class: (C,) int64, number of episodes with each class.
        episodes: (n_entries,) int64, an episode per entry, ascending.
        columns: (n_entries,) int64, place in `present` of one class of that episode.
        n_episodes: Number of episodes.
    """

    present: IntArray
    n_of_class: IntArray
    episodes: IntArray
    columns: IntArray
    n_episodes: int

    @property
    def shows_noise(self) -> bool:
        """Whether the episodes suffice to tell their own noise from the classes' effects."""
        return self.n_episodes >= EPISODES_PER_CLASS * len(self.present)

    def sums(self, values: FloatArray) -> FloatArray:
        """Return (C,) sums of the values over the episodes with each class."""
        sums = np.bincount(self.columns, weights=values[self.episodes], minlength=len(self.present))
        return sums.astype(np.float64)

    def sums_of_classes(self, values: FloatArray) -> FloatArray:
        """Return (n_episodes,) sums of one value per class over the classes of each episode."""
        sums = np.bincount(self.episodes, weights=values[self.columns], minlength=self.n_episodes)
        return sums.astype(np.float64)

    def means_without(self, values: FloatArray) -> FloatArray:
        """Return (C,) means of the values over the episodes without each class."""
        means: FloatArray = (np.sum(values) - self.sums(values)) / (self.n_episodes - self.n_of_class)
        return means

    @cached_property
    def design(self) -> Any:
        """(n_episodes, C), sparse: 1 / n_way for each class of an episode, otherwise 0."""
        from scipy.sparse import csr_matrix

        n_way = np.bincount(self.episodes, minlength=self.n_episodes)
        shape = (self.n_episodes, len(self.present))
        return csr_matrix((1 / n_way[self.episodes], (self.episodes, self.columns)), shape=shape)

    @cached_property
    def inflation(self) -> float:
        """How often the jackknife over classes counts the variance of a mean of independent values."""
        n_classes = len(self.present)
        shares = 1 / (self.n_episodes - self.n_of_class)
        weights = shares.sum() - self.sums_of_classes(shares)
        return float(
            self.n_episodes * (n_classes - 1) / n_classes * (shares.sum() - np.square(weights).sum() / n_classes)
        )

    @cached_property
    def of_pairs(self) -> tuple[IntArray, IntArray] | None:
        """Episodes with each pair of classes, pair by pair, and where each pair begins; None if n_way varies."""
        n_way = len(self.episodes) // self.n_episodes
        if np.any(np.bincount(self.episodes, minlength=self.n_episodes) != n_way):
            return None
        columns = np.sort(self.columns.reshape(self.n_episodes, n_way), axis=1)
        one, other = np.triu_indices(n_way, k=1)
        pairs = (columns[:, one] * len(self.present) + columns[:, other]).ravel()
        order = np.argsort(pairs, kind="stable")
        starts = np.flatnonzero(np.diff(pairs[order], prepend=-1))
        return order // max(len(one), 1), starts


def index_classes(classes: IntArray) -> ClassIndex:
    """Index the classes of episodes, (n_episodes, n_way) int64; negative entries mean no class."""
    episodes, places = np.nonzero(np.asarray(classes) >= 0)
    present, columns = np.unique(np.asarray(classes)[episodes, places], return_inverse=True)
    return ClassIndex(
        present=present.astype(np.int64),
        n_of_class=np.bincount(columns, minlength=len(present)).astype(np.int64),
        episodes=episodes.astype(np.int64),
        columns=columns.astype(np.int64),
        n_episodes=len(classes),
    )


@dataclass(frozen=True, kw_only=True)
class ClassError:
    """Error of a mean over episodes for new classes, and how well it is known.

    The jackknife's square is the expected one times a chi-square over its degrees of freedom. With the known noise of
    episodes taken off, what is left may be small or negative by chance; then a fixed error would be far too small.
    So the unknown expected square gets its distribution given the jackknife, with the usual prior 1 / square, cut at
    the noise below which it cannot lie. Without noise this is Student's t, C - 1 degrees of freedom.

    Attributes:
        jackknife: Square of the jackknife's error.
        freedom: C - 1 for C classes.
        noise: Square of the part of the error that is due to single episodes.
        inflation: How often the jackknife counts the noise; at least 1.
        pairs: Square of the part that is due to pairs of classes, which the jackknife counts twice.
        widening: Factor of the error because effects of classes are skewed, see `widening_by_skewness`; at least 1.
    """

    jackknife: float
    freedom: int
    noise: float = 0.0
    inflation: float = 1.0
    pairs: float = 0.0
    widening: float = 1.0

    def p(self, mean: float) -> float:
        """Return the two-sided p of a mean of zero on new classes, for a measured mean."""
        mean = mean / self.widening
        if self.noise == 0 or self.jackknife == 0:
            return student_p(mean, float(np.sqrt(self.jackknife)), self.freedom)
        from scipy.special import ndtr

        variances, weights = self._variances
        return float(weights @ (2 * ndtr(-abs(mean) / np.sqrt(variances))))

    @cached_property
    def half_width(self) -> float:
        """Half width of the 95 % interval: the mean whose p is 0.05."""
        return self.least_mean(0.05)

    def least_mean(self, level: float) -> float:
        """Return the mean whose two-sided p is `level`."""
        quantile = student_quantile(self.freedom, level)
        if self.noise == 0 or self.jackknife == 0:
            return float(self.widening * quantile * np.sqrt(self.jackknife))
        from scipy.special import ndtr

        variances, weights = self._variances
        errors, mean = np.sqrt(variances), float(quantile * np.sqrt(self.jackknife))
        of_slope = weights / errors / np.sqrt(2 * np.pi)
        for _ in range(MAX_STEPS):  # Newton's; p is convex, so each mean but the first is below the wanted one
            ratios = mean / errors
            above = float(weights @ ndtr(-ratios)) - level / 2
            step = above / float(of_slope @ np.exp(-np.square(ratios) / 2))
            mean = max(mean + step, 0.0)
            if abs(step) <= ACCURACY * mean:
                break
        return float(self.widening * mean)

    @cached_property
    def _variances(self) -> tuple[FloatArray, FloatArray]:
        """Values of the error's square, and their weights, which sum to 1: nodes of Gauss and Legendre."""
        from scipy.special import gammainc, gammaincinv

        nodes, weights = _nodes()
        least = self.inflation * self.noise
        half = self.freedom / 2
        share = gammainc(half, half * self.jackknife / least)
        chi_squares = np.maximum(gammaincinv(half, nodes * share), 1e-300)
        of_classes = np.maximum(half * self.jackknife / chi_squares - least, 0.0)
        return of_classes - np.minimum(self.pairs, of_classes / 2) + self.noise, weights


@lru_cache(maxsize=1)
def _nodes() -> tuple[FloatArray, FloatArray]:
    """Return nodes in (0, 1) and their weights, dense near 0, where the error is large and small p are decided."""
    nodes, weights = np.polynomial.legendre.leggauss(200)
    places = (nodes + 1) / 2
    return places**3, weights / 2 * 3 * places**2


def error_over_classes(
    values: FloatArray, classes: IntArray | ClassIndex, left: FloatArray | None = None
) -> ClassError | str:
    """Return the error of the mean over episodes for new classes, or why there is none.

    The start is the leave-one-class-out jackknife (Efron and Stein 1981; on classes as the sampling unit of episodes:
    Lafargue et al. 2024): J = (C - 1) / C * sum_c (theta_(-c) - mean_c theta_(-c))^2, where theta_(-c) is the mean over
    the episodes without class c. It counts two parts of the error too often:

     - the noise of single episodes, K times instead of once, because each theta_(-c) has its own. K follows from the
       design alone: it is J of independent values of variance 1 / n_episodes, 5 to 40 for 5 to 20 classes an episode;
     - the pairs of classes twice, as every jackknife counts parts of second order (Efron and Stein 1981, section 2).

    With f = s^2 / n_episodes, where s^2 is the variance of the values around the classes' effects, J - K f is what the
    classes and pairs add. The pairs' part is taken off once, but never more than half of this sum. With fewer episodes
    than `EPISODES_PER_CLASS` times the number of classes s^2 cannot be had, and the error is the jackknife's.

    If a few classes are much harder than the others, it is widened, see `widening_by_skewness`.

    Each class must be absent from some episodes: if all episodes have the same classes, one value per episode says
    nothing about how classes differ.

    Args:
        values: (n_episodes,) finite.
        classes: (n_episodes, n_way) int64; negative entries mean no class. Or their index.
        left: Result of `around_classes` for these values, if it is known.

    Raises:
        ValueError: A value is not finite.
    """
    values = np.asarray(values, dtype=np.float64)
    if not np.isfinite(values).all():
        raise ValueError("a value of an episode is not finite; leave out episodes that were not measured")
    index = classes if isinstance(classes, ClassIndex) else index_classes(classes)
    n_classes, n_episodes = len(index.present), len(values)
    if n_classes < MIN_CLASSES:
        return f"{n_classes} classes are too few"
    if index.n_of_class.max() == n_episodes:
        return "a class is in every episode"
    without = index.means_without(values)
    jackknife = float((n_classes - 1) / n_classes * np.square(without - without.mean()).sum())
    widening = float(widening_by_skewness(without))
    if not index.shows_noise:
        return ClassError(jackknife=jackknife, freedom=n_classes - 1, widening=widening)
    left = around_classes(values, index) if left is None else left
    variance = float(np.square(left).sum()) / (n_episodes - n_classes)
    pairs, by_chance = variance_of_pairs(left, variance, index)
    return ClassError(
        jackknife=jackknife,
        freedom=n_classes - 1,
        noise=variance / n_episodes,
        inflation=index.inflation,
        pairs=max(pairs - by_chance, 0.0),
        widening=widening,
    )


def widening_by_skewness(values: FloatArray) -> FloatArray:
    """Return the factor that a 95 % interval of Student's t needs, for the mean of skewed values; at least 1.

    By the Edgeworth expansion of Student's statistic (Hall 1992, "The Bootstrap and Edgeworth Expansion", section 2.6),
    skewness g moves the quantile z of a two-sided interval of n values to z (1 + g^2 (z^4 + 2 z^2 - 3) / (18 n)). It is
    at most `WIDEST`.

    Args:
        values: (n,), one for each class; or (n_sets, n), to get a factor for each set.
    """
    z, n = NORMAL_95, np.shape(values)[-1]
    factor: FloatArray = 1 + np.square(skewness(values)) * (z**4 + 2 * z**2 - 3) / (18 * n)
    return np.minimum(factor, WIDEST)


def skewness(values: FloatArray) -> FloatArray:
    """Return the skewness of a value for each class, less what normal values show on average by chance.

    The square of what chance shows is taken off the square. Zero if there are fewer than `FEWEST_FOR_SKEWNESS` values,
    or all are equal.

    Args:
        values: (n,), or (n_sets, n), to get the skewness of each set.
    """
    values = np.asarray(values, dtype=np.float64)
    n, around = values.shape[-1], values - values.mean(axis=-1, keepdims=True)
    if n < FEWEST_FOR_SKEWNESS:
        return np.zeros(values.shape[:-1])
    spread, cubes = np.square(around).mean(axis=-1), (around * around * around).mean(axis=-1)
    varies = spread > np.finfo(np.float64).eps * np.square(values).mean(axis=-1)
    squared = np.square(cubes) / np.where(varies, spread, 1.0) ** 3 * n * (n - 1) / (n - 2) ** 2
    by_chance = 6 * n * (n - 1) / ((n - 2) * (n + 1) * (n + 3))
    return np.asarray(np.where(varies, np.sign(cubes) * np.sqrt(np.maximum(squared - by_chance, 0.0)), 0.0))


def around_classes(values: FloatArray, index: ClassIndex) -> FloatArray:
    """Return what is left of the values after the mean effect of each episode's classes, by least squares."""
    from scipy.sparse.linalg import lsqr

    effects = index.design
    centred = values - values.mean()
    solution: FloatArray = lsqr(effects, centred, atol=1e-9, btol=1e-9, iter_lim=1000)[0]
    left: FloatArray = centred - effects @ solution
    return left


@dataclass(frozen=True, kw_only=True)
class PairDesign:
    """Products of the noise of two episodes as an estimate of what pairs of classes add to a mean.

    Attributes:
        weights: (n_way + 1,) weight of a product by the number of classes that both episodes have.
        to_variance: From the mean weighted product to the variance that pairs add to the mean.
        deviation: Standard error of that estimate without any pairs' effect, for n_episodes and variance 1.
        bias: How far the estimate is too low, for n_classes / n_episodes^2 and variance 1, since fitted classes take up
            a part of the noise.
    """

    weights: FloatArray
    to_variance: float
    deviation: float
    bias: float


@lru_cache(maxsize=64)
def pair_design(n_classes: int, n_way: int) -> PairDesign | None:
    """Return how pairs are estimated if an episode's classes are drawn independently; None if they cannot be.

    The number of shared classes m is then hypergeometric. The weights are taken orthogonal to 1 and m, as noise around
    the classes' effects is.
    """
    shared = np.arange(n_way + 1)
    n_draws = comb(n_classes, n_way)
    chance = np.array([comb(n_way, m) * comb(n_classes - n_way, n_way - m) / n_draws for m in range(n_way + 1)])
    pairs = shared * (shared - 1) / 2
    mean = float(chance @ shared)
    slope = float(chance @ ((shared - mean) * pairs)) / float(chance @ np.square(shared - mean))
    weights = pairs - chance @ pairs - slope * (shared - mean)
    scale = float(chance @ np.square(weights))
    if scale < 1e-12:
        return None
    to_variance = float(chance @ pairs) / scale
    return PairDesign(
        weights=weights,
        to_variance=to_variance,
        deviation=float(np.sqrt(2 * scale)) * to_variance,
        bias=float(weights[-1]) * to_variance,
    )


def variance_of_pairs(noise: FloatArray, variance: float, index: ClassIndex) -> tuple[float, float]:
    """Return the part of the mean's variance that is due to pairs of classes, and its error if they have no effect.

    Episodes that share m classes share m (m - 1) / 2 pairs. The sum of products of noise over all couples of episodes,
    each weighted by its pairs, estimates the variance of a pair's effect; see `pair_design`. `error_over_classes` takes
    one error off, so that chance seldom narrows an interval. Zero where the number of classes per episode varies.

    Args:
        noise: (n_episodes,) what is left after the classes' effects.
        variance: Its variance.
        index: The classes.
    """
    n_classes, n_episodes = len(index.present), len(noise)
    if index.of_pairs is None:
        return 0.0, 0.0
    if (design := pair_design(n_classes, len(index.episodes) // n_episodes)) is None:
        return 0.0, 0.0
    episodes, starts = index.of_pairs
    of_pairs = float(np.square(np.add.reduceat(noise[episodes], starts)).sum()) if len(starts) else 0.0
    excess = (of_pairs - variance * n_episodes * float(design.weights[-1])) / n_episodes**2
    return excess * design.to_variance, variance * design.deviation / n_episodes
