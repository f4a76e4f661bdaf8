"""How much is needed to tell two models apart: power of the tests that comparisons use, from what made values vary.

`variance_components` takes a paired difference apart, `Design` says how much is measured, and `power`,
`smallest_difference` and `needed` say what that can show. The tests are those of `episodes.comparison` (this pool of
classes, new classes) and of `episodes.over_seeds` (new seeds).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from episodes.arrays import FloatArray, IntArray
from episodes.intervals import student_quantile
from episodes.over_classes import (
    EPISODES_PER_CLASS,
    MIN_CLASSES,
    ClassError,
    ClassIndex,
    PairDesign,
    around_classes,
    error_over_classes,
    index_classes,
    pair_design,
    variance_of_pairs,
)
from episodes.over_seeds import MIN_SEEDS

Scope = Literal["pool", "classes", "seeds"]
"""This pool of classes over episodes, new classes of this kind, or new seeds on this pool."""
Quantity = Literal["n_classes", "n_episodes", "n_seeds", "n_images"]
"""A field of `Design` that `needed` looks for."""
LIMITS: dict[Quantity, int] = {"n_classes": 100_000, "n_episodes": 1_000_000, "n_seeds": 1_000, "n_images": 100_000}
"""No more than this is looked for."""
_N_NODES = 48


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


@dataclass(frozen=True, kw_only=True)
class Design:
    """How much is measured.

    Attributes:
        n_classes: Classes that episodes are drawn from.
        n_episodes: Episodes.
        n_seeds: Training seeds of each model, all on the same episodes.
        n_images: Images of a class; None for as many as behind the components.
    """

    n_classes: int
    n_episodes: int
    n_seeds: int = 1
    n_images: int | None = None


def variance_components(values: FloatArray, classes: IntArray) -> Components:
    """Return what makes the values of episodes vary, by the moments that `error_over_classes` uses.

    An estimate below zero becomes zero. Classes and pairs cannot be told apart exactly by few episodes: each estimate
    itself has an error, of the classes' deviation about 1 / sqrt(2 C) of it for C classes.

    Args:
        values: (n_episodes,) finite; for a comparison the differences of two models.
        classes: (n_episodes, n_way) int64; negative entries mean no class.

    Raises:
        ValueError: There are too few classes or episodes, or a class is in every episode.
    """
    index = index_classes(classes)
    return _from_variances(_variances(np.asarray(values, dtype=np.float64), index), index, len(values))


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
    of_each = np.mean([_variances(row, index) for row in values], axis=0)
    of_seed, of_episode = values.mean(axis=1), values.mean(axis=0)
    left = values - of_seed[:, np.newaxis] - of_episode + values.mean()
    rest = float(np.square(left).sum()) / ((n_seeds - 1) * (n_episodes - 1))
    seed = max(float(of_seed.var(ddof=1)) - rest / n_episodes, 0.0)
    return replace(
        _from_variances(of_each, index, n_episodes), of_seed=float(np.sqrt(seed)), of_rest=float(np.sqrt(rest))
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


def power(components: Components, design: Design, difference: float, *, scope: Scope, level: float = 0.05) -> float:
    """Return the chance that the test of a scope calls a true difference real, in either direction.

    Args:
        components: Those of the difference of the two models.
        design: How much is measured.
        difference: The true difference, fraction.
        scope: What the test is over.
        level: Two-sided level of the test; for one of k pairs, 0.05 / k is the worst that a correction does.

    Raises:
        ValueError: The test cannot be made with so few classes, episodes or seeds, or the seeds' spread is unknown.
    """
    return _Test.make(components, design, scope, level).power(difference)


def smallest_difference(
    components: Components, design: Design, *, scope: Scope, at_power: float = 0.8, level: float = 0.05
) -> float:
    """Return the true difference, fraction, that the test of a scope shows with a chance of `at_power`.

    Raises:
        ValueError: As `power`.
    """
    return _Test.make(components, design, scope, level).smallest_difference(at_power)


def expected_width(components: Components, design: Design, *, scope: Scope, level: float = 0.05) -> float:
    """Return the expected half width of the interval of a scope, 95 % by default.

    Raises:
        ValueError: As `power`.
    """
    test = _Test.make(components, design, scope, level)
    return float(test.weights @ test.critical)


def needed(
    quantity: Quantity,
    components: Components,
    design: Design,
    difference: float,
    *,
    scope: Scope,
    at_power: float = 0.8,
    level: float = 0.05,
) -> int | None:
    """Return the least number of classes, episodes, seeds or images of a class that shows a difference.

    All other numbers stay those of the design. None if no number up to `LIMITS` does. More classes than the episodes
    suffice for (`EPISODES_PER_CLASS`) are not considered: their noise could not be taken off.

    Raises:
        ValueError: Images are asked for and their effect is unknown, or as `power`.
    """
    if quantity == "n_images" and (components.of_image is None or components.n_images is None):
        raise ValueError("the effect of images is unknown, so that no number of them can be found")
    least = {
        "n_classes": max(MIN_CLASSES, int(components.n_way) + 1),
        "n_episodes": 2 if scope != "classes" else int(np.ceil(EPISODES_PER_CLASS * design.n_classes)),
        "n_seeds": MIN_SEEDS if scope == "seeds" else 1,
        "n_images": int(components.least_images),
    }[quantity]
    most = LIMITS[quantity]
    if quantity == "n_classes" and scope == "classes":
        most = min(most, int(design.n_episodes / EPISODES_PER_CLASS))

    def suffices(number: int) -> bool:
        changed = replace(design, **{quantity: number})
        return power(components, changed, difference, scope=scope, level=level) >= at_power

    return _first(suffices, least, most)


@dataclass(frozen=True, kw_only=True)
class _Test:
    """A test as what decides it: its critical values, with their chances, and the true error of the mean.

    The mean and its estimated error are taken as independent, as they are for normal values.

    Attributes:
        critical: (n,) least absolute mean that is called a difference.
        weights: (n,) chance of each; they sum to 1.
        error: Standard error of the mean.
    """

    critical: FloatArray
    weights: FloatArray
    error: float

    @classmethod
    def make(cls, components: Components, design: Design, scope: Scope, level: float) -> _Test:
        return {"pool": _pool, "classes": _classes, "seeds": _seeds}[scope](components, design, level)

    def power(self, difference: float) -> float:
        from scipy.special import ndtr

        if self.error == 0:
            return float(abs(difference) > 0)
        above, below = (ndtr((sign * difference - self.critical) / self.error) for sign in (1, -1))
        return float(self.weights @ (above + below))

    def smallest_difference(self, at_power: float) -> float:
        from scipy.optimize import brentq

        if self.error == 0 or self.power(0.0) >= at_power:
            return 0.0
        widest = self.error
        while self.power(widest) < at_power:
            widest *= 2
        return float(brentq(lambda difference: self.power(difference) - at_power, 0.0, widest, rtol=1e-8))


def _pool(components: Components, design: Design, level: float) -> _Test:
    """Return the test over episodes: Student's t, which the sign flips of `episodes.comparison` agree with."""
    freedom = design.n_episodes - 1
    if freedom < 1:
        raise ValueError(f"{design.n_episodes} episodes are too few; an interval over episodes needs two")
    error = float(np.sqrt(_within(components, design.n_classes) / design.n_episodes))
    ratios, weights = _chi_square_ratios(freedom)
    return _Test(critical=student_quantile(freedom, level) * error * np.sqrt(ratios), weights=weights, error=error)


def _classes(components: Components, design: Design, level: float) -> _Test:
    """Return the test over new classes; the jackknife's square is its expectation times a chi-square by its freedom.

    Expectations follow `error_over_classes`. Episodes have some classes more often than others: this adds noise to the
    classes' part of the mean, which the jackknife counts as often as that of episodes.
    """
    n_classes, n_episodes, n_way = design.n_classes, design.n_episodes, components.n_way
    if n_classes < MIN_CLASSES or n_classes <= n_way:
        least = max(MIN_CLASSES, int(n_way) + 1)
        raise ValueError(f"{n_classes} classes are too few: an interval on new classes needs {least}")
    if n_episodes < 2:
        raise ValueError(f"{n_episodes} episodes are too few; an interval on new classes needs two")
    of_class, of_pair = _of_class(components, design), components.of_pair**2
    inflation = _inflation(n_way, n_classes, n_episodes)
    noise = (components.of_episode**2 + of_pair * _pairs_around_classes(n_way, n_classes)) / n_episodes
    of_classes, of_pairs = of_class / n_classes, of_pair * _per_pair(n_classes)
    shares = 1 / n_way - 1 / n_classes
    uneven = (of_class + 4 * of_pair / (n_classes - 1)) * shares / n_episodes
    jackknife = of_classes + _twice(n_classes) * of_pairs + inflation * (noise + uneven)
    ratios, weights = _chi_square_ratios(n_classes - 1)
    if n_episodes < EPISODES_PER_CLASS * n_classes:
        errors = [ClassError(jackknife=jackknife * ratio, freedom=n_classes - 1) for ratio in ratios]
    else:
        taken_off = _pairs_taken_off(components, design, noise, of_pairs)
        errors = [
            ClassError(
                jackknife=jackknife * ratio,
                freedom=n_classes - 1,
                noise=noise,
                inflation=inflation,
                pairs=taken_off,
            )
            for ratio in ratios
        ]
    return _Test(
        critical=np.array([error.least_mean(level) for error in errors]),
        weights=weights,
        error=float(np.sqrt(of_classes + of_pairs + noise + uneven)),
    )


def _seeds(components: Components, design: Design, level: float) -> _Test:
    """Return the test over seeds of `summarise_seeds`: the wider of Student's and the crossed one.

    Only the seeds' mean square varies here: those of episodes and of the rest are known well, by hundreds of episodes.
    """
    n_seeds, n_episodes = design.n_seeds, design.n_episodes
    if components.of_seed is None or components.of_rest is None:
        raise ValueError("how much seeds vary is unknown; it needs runs with several seeds, or an assumption")
    if n_seeds < MIN_SEEDS or n_episodes < 2:
        raise ValueError(
            f"a test over seeds needs {MIN_SEEDS} seeds and 2 episodes, but there are {n_seeds} and {n_episodes:,}"
        )
    rest = components.of_rest**2
    shared = max(_within(components, design.n_classes) - rest, 0.0)
    # The variances of the mean that the mean squares of seeds, of episodes and of the rest stand for.
    of_seeds = (components.of_seed**2 + rest / n_episodes) / n_seeds
    others = np.array([(shared + rest / n_seeds) / n_episodes, -rest / (n_seeds * n_episodes)])
    freedoms = np.array([n_episodes - 1, (n_seeds - 1) * (n_episodes - 1)])
    ratios, weights = _chi_square_ratios(n_seeds - 1)
    critical = []
    for part in of_seeds * ratios:
        found = student_quantile(n_seeds - 1, level) * np.sqrt(part)
        if (variance := float(part + others.sum())) > part:
            freedom = variance**2 / (part**2 / (n_seeds - 1) + (np.square(others) / freedoms).sum())
            found = max(found, student_quantile(float(freedom), level) * np.sqrt(variance))
        critical.append(found)
    return _Test(critical=np.array(critical), weights=weights, error=float(np.sqrt(of_seeds + others.sum())))


def _within(components: Components, n_classes: int) -> float:
    """Return the variance of one training's values over the episodes of one pool of classes."""
    n_way = components.n_way
    of_classes = components.of_class**2 * max(1 / n_way - 1 / n_classes, 0.0)
    of_pairs = components.of_pair**2 * max(_per_pair(n_way) - _per_pair(n_classes), 0.0)
    return components.of_episode**2 + of_classes + of_pairs


def _per_pair(n_classes: float) -> float:
    """Return 1 / number of pairs."""
    return 2 / (n_classes * (n_classes - 1))


def _twice(n_classes: int) -> float:
    """Return how often the jackknife counts the part of pairs: twice for many classes."""
    return 2 * (n_classes - 1) / (n_classes - 2)


def _pairs_around_classes(n_way: float, n_classes: int) -> float:
    """Return the variance over episodes of the mean of their pairs' effects of variance 1, around classes' effects.

    A class's effect takes up the mean of its pairs: 4 / (C - 1) (1 / N - 1 / C) of it.
    """
    taken_up = 4 / (n_classes - 1) * (1 / n_way - 1 / n_classes)
    return max(_per_pair(n_way) - _per_pair(n_classes) - taken_up, 0.0)


def _of_class(components: Components, design: Design) -> float:
    """Return the variance of a class's effect with the design's number of images."""
    variance = components.of_class**2
    if design.n_images is None or components.of_image is None or components.n_images is None:
        return variance
    return max(variance + components.of_image**2 * (1 / design.n_images - 1 / components.n_images), 0.0)


def _inflation(n_way: float, n_classes: int, n_episodes: int) -> float:
    """Return how often the jackknife counts the noise of episodes, if classes are drawn with equal chances."""
    share = n_way / n_classes
    uneven = share / (n_episodes * (1 - share))
    return max((n_classes - 1) * (share + uneven) / (1 - share), 1.0)


def _pairs_taken_off(components: Components, design: Design, noise: float, of_pairs: float) -> float:
    """Return the expected part of pairs that `error_over_classes` takes off: never below zero, less one error."""
    from scipy.special import ndtr

    found = _pair_design(components.n_way, design.n_classes)
    if found is None or noise == 0:
        return 0.0
    deviation = noise * found.deviation
    shift = (of_pairs - noise * found.bias * design.n_classes / design.n_episodes) / deviation - 1
    return float(deviation * (shift * ndtr(shift) + np.exp(-(shift**2) / 2) / np.sqrt(2 * np.pi)))


def _pair_design(n_way: float, n_classes: int) -> PairDesign | None:
    """Return how pairs are estimated; None if they cannot be, also because the number of classes varies."""
    return pair_design(n_classes, int(n_way)) if n_way == int(n_way) else None


def _variances(values: FloatArray, index: ClassIndex) -> FloatArray:
    """Return estimates of the variances of class, pair and episode; negative ones are zero."""
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
    if (pairs := _pair_design(n_way, n_classes)) is not None:
        of_pairs += pairs.bias * around * n_classes / n_episodes**2
    of_pairs = max(of_pairs, 0.0)
    of_pair = of_pairs / _per_pair(n_classes)
    shares = 1 / n_way - 1 / n_classes
    uneven = found.inflation * shares / n_episodes
    of_both = (
        found.jackknife
        - _twice(n_classes) * of_pairs
        - found.inflation * (found.noise + 4 * of_pair / (n_classes - 1) * shares / n_episodes)
    )
    of_episode = around - of_pair * _pairs_around_classes(n_way, n_classes)
    return np.maximum([of_both / (1 / n_classes + uneven), of_pair, of_episode], 0.0)


def _from_variances(variances: FloatArray, index: ClassIndex, n_episodes: int) -> Components:
    of_class, of_pair, of_episode = map(float, np.sqrt(variances))
    n_way = len(index.episodes) / n_episodes
    return Components(n_way=n_way, of_episode=of_episode, of_class=of_class, of_pair=of_pair)


def _chi_square_ratios(freedom: float) -> tuple[FloatArray, FloatArray]:
    """Return values of a chi-square by its degrees of freedom, and their weights, which sum to 1."""
    from scipy.special import gammaincinv

    nodes, weights = np.polynomial.legendre.leggauss(_N_NODES)
    places = (nodes + 1) / 2
    return np.asarray(gammaincinv(freedom / 2, places) * 2 / freedom, dtype=np.float64), weights / 2


def _first(suffices: Callable[[int], bool], least: int, most: int) -> int | None:
    """Return the least number from `least` to `most` that suffices, if all larger ones do; None if none does."""
    if most < least:
        return None
    too_few, enough = least - 1, least
    while not suffices(enough):
        if enough == most:
            return None
        too_few, enough = enough, min(2 * enough, most)
    while enough - too_few > 1:
        middle = (too_few + enough) // 2
        if suffices(middle):
            enough = middle
        else:
            too_few = middle
    return enough
