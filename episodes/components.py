"""What makes the values of episodes vary: classes, pairs of them, images, seeds, and the episodes themselves."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from episodes.arrays import FloatArray, IntArray
from episodes.over_classes import (
    EPISODES_PER_CLASS,
    ClassIndex,
    PairDesign,
    around_classes,
    error_over_classes,
    index_classes,
    pair_design,
    skewness,
    variance_of_pairs,
)

MOST_SKEWNESS = 2.8
"""Largest skewness of classes' effects, either way, that a plan follows; that of an exponential distribution is 2."""
LEAST_SHARE = 0.1
"""A smaller share of the classes in what the jackknife sees does not show how their effects are skewed."""


@dataclass(frozen=True, kw_only=True)
class Components:
    """Standard deviations of what makes the values of episodes vary; fractions, as the values.

    Of a paired difference of two models, `of_class` is the interaction of class and model: what both share cancels.

    Attributes:
        n_way: Classes in an episode; the mean if it varies.
        of_episode: Of an episode, beyond the effects of its classes and their pairs.
        of_class: Of a class's effect, on an episode of it alone, with `n_images` images.
        of_pair: Of a pair of classes' effect, likewise.
        of_image: Of an image's effect on its class; None if unknown.
        n_images: Images of a class behind `of_class`; None if unknown.
        least_images: Images of a class that an episode takes, as support and queries.
        of_seed: Of a training seed's effect on all episodes; None if unknown.
        of_rest: Of what one seed gets in one episode, a part of what episodes vary by; None if unknown.
        skewness: Of the classes' effects, a number: below zero if a few classes have a far lower value than the others.
    """

    n_way: float
    of_episode: float
    of_class: float = 0.0
    of_pair: float = 0.0
    of_image: float | None = None
    n_images: float | None = None
    least_images: float = 1
    of_seed: float | None = None
    of_rest: float | None = None
    skewness: float = 0.0


def variance_components(values: FloatArray, classes: IntArray) -> Components:
    """Return what makes the values of episodes vary, by the moments that `error_over_classes` uses.

    An estimate below zero becomes zero, and so does skewness that chance explains. Classes and pairs cannot be told
    apart exactly by few episodes: each estimate itself has an error, of the classes' deviation about 1 / sqrt(2 C) of
    it for C classes.

    Args:
        values: (n_episodes,) finite; for a comparison the differences of two models.
        classes: (n_episodes, n_way) int64; negative entries mean no class.

    Raises:
        ValueError: There are too few classes or episodes, or a class is in every episode.
    """
    index = index_classes(classes)
    return _from_moments(_moments(np.asarray(values, dtype=np.float64), index), index, len(values))


def components_over_seeds(values: FloatArray, classes: IntArray) -> Components:
    """Return what makes values vary over episodes, classes and training seeds.

    Args:
        values: (n_seeds, n_episodes) finite, the seeds' values on the same episodes; at least two seeds.
        classes: (n_episodes, n_way) int64; negative entries mean no class.

    Raises:
        ValueError: As `variance_components`, or there is a single seed.
    """
    values = np.asarray(values, dtype=np.float64)
    n_seeds, n_episodes = values.shape
    if n_seeds < 2:
        raise ValueError("a single seed does not show how seeds vary; give at least two")
    index = index_classes(classes)
    of_each = np.mean([_moments(row, index) for row in values], axis=0)
    of_seed, of_episode = values.mean(axis=1), values.mean(axis=0)
    left = values - of_seed[:, np.newaxis] - of_episode + values.mean()
    rest = float(np.square(left).sum()) / ((n_seeds - 1) * (n_episodes - 1))
    seed = max(float(of_seed.var(ddof=1)) - rest / n_episodes, 0.0)
    return replace(
        _from_moments(of_each, index, n_episodes), of_seed=float(np.sqrt(seed)), of_rest=float(np.sqrt(rest))
    )


def deviation_of_images(values: FloatArray, images: IntArray, classes: IntArray) -> float:
    """Return the standard deviation of the images' effects around their classes' means, zero if none shows.

    Products of what two uses of one image have beyond their class estimate the variance of an image's effect.

    Args:
        values: (n_uses,) value of one use of an image, in different episodes.
        images: (n_uses,) int64, the image.
        classes: (n_uses,) int64, its class.
    """
    _, of_class = np.unique(classes, return_inverse=True)
    _, of_image = np.unique(images, return_inverse=True)
    means = np.bincount(of_class, weights=values) / np.bincount(of_class)
    left = values - means[of_class]
    sums, n_uses = np.bincount(of_image, weights=left), np.bincount(of_image)
    n_products = float((n_uses * (n_uses - 1.0)).sum())
    if n_products == 0:
        return 0.0
    return float(np.sqrt(max(float(np.square(sums).sum() - np.square(left).sum()) / n_products, 0.0)))


def _moments(values: FloatArray, index: ClassIndex) -> FloatArray:
    """Return the variances of class, pair and episode, negative ones as zero, and the skewness of the class."""
    n_classes, n_episodes = len(index.present), len(values)
    found = error_over_classes(values, index)
    if isinstance(found, str):
        raise ValueError(f"{found}: what classes add cannot be had from these episodes")
    if found.noise == 0 and n_episodes < EPISODES_PER_CLASS * n_classes:
        raise ValueError(
            f"{n_episodes} episodes are too few for {n_classes} classes: what they vary by needs "
            f"{int(np.ceil(EPISODES_PER_CLASS * n_classes))}"
        )
    left = around_classes(values, index)
    around = float(np.square(left).sum()) / (n_episodes - n_classes)
    n_way = len(index.episodes) / n_episodes
    of_pairs, _ = variance_of_pairs(left, around, index)
    if (pairs := design_of_pairs(n_way, n_classes)) is not None:
        of_pairs += pairs.bias * around * n_classes / n_episodes**2
    of_pairs = max(of_pairs, 0.0)
    of_pair = of_pairs / per_pair(n_classes)
    shares = 1 / n_way - 1 / n_classes
    uneven = found.inflation * shares / n_episodes
    of_both = (
        found.jackknife
        - twice_counted(n_classes) * of_pairs
        - found.inflation * (found.noise + 4 * of_pair / (n_classes - 1) * shares / n_episodes)
    )
    of_episode = around - of_pair * pairs_around_classes(n_way, n_classes)
    of_class = max(of_both / (1 / n_classes + uneven), 0.0)
    # Pairs and noise are symmetric: they add to the spread that the jackknife sees, and not to the third moment.
    share = min(of_class / n_classes / found.jackknife, 1.0) if found.jackknife > 0 else 0.0
    skewed = -float(skewness(index.means_without(values))) / share**1.5 if share > LEAST_SHARE else 0.0
    return np.array([of_class, of_pair, max(of_episode, 0.0), float(np.clip(skewed, -MOST_SKEWNESS, MOST_SKEWNESS))])


def _from_moments(moments: FloatArray, index: ClassIndex, n_episodes: int) -> Components:
    of_class, of_pair, of_episode = map(float, np.sqrt(moments[:3]))
    n_way = len(index.episodes) / n_episodes
    return Components(
        n_way=n_way, of_episode=of_episode, of_class=of_class, of_pair=of_pair, skewness=float(moments[3])
    )


def per_pair(n_classes: float) -> float:
    """Return 1 / number of pairs."""
    return 2 / (n_classes * (n_classes - 1))


def twice_counted(n_classes: int) -> float:
    """Return how often the jackknife counts the part of pairs: twice for many classes."""
    return 2 * (n_classes - 1) / (n_classes - 2)


def pairs_around_classes(n_way: float, n_classes: int) -> float:
    """Return the variance over episodes of the mean of their pairs' effects of variance 1, around classes' effects.

    A class's effect takes up the mean of its pairs: 4 / (C - 1) (1 / N - 1 / C) of it.
    """
    taken_up = 4 / (n_classes - 1) * (1 / n_way - 1 / n_classes)
    return max(per_pair(n_way) - per_pair(n_classes) - taken_up, 0.0)


def design_of_pairs(n_way: float, n_classes: int) -> PairDesign | None:
    """Return how pairs are estimated; None if they cannot be, also because the number of classes varies."""
    return pair_design(n_classes, int(n_way)) if n_way == int(n_way) else None
