"""How much is needed to tell two models apart: power of the tests that comparisons use, from what made values vary.

`episodes.components` takes a paired difference apart, `Design` says how much is measured, and `power`,
`smallest_difference` and `needed` say what that can show. The tests are those of `episodes.comparison` (this pool of
classes, new classes) and of `episodes.over_seeds` (new seeds).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal

import numpy as np

from episodes.arrays import FloatArray
from episodes.components import (
    MOST_SKEWNESS,
    Components,
    design_of_pairs,
    pairs_around_classes,
    per_pair,
    twice_counted,
)
from episodes.intervals import student_quantile
from episodes.over_classes import EPISODES_PER_CLASS, MIN_CLASSES, ClassError, widening_by_skewness
from episodes.over_seeds import MIN_SEEDS

Scope = Literal["pool", "classes", "seeds"]
"""This pool of classes over episodes, new classes of this kind, or new seeds on this pool."""
Quantity = Literal["n_classes", "n_episodes", "n_seeds", "n_images"]
"""A field of `Design` that `needed` looks for."""
LIMITS: dict[Quantity, int] = {"n_classes": 100_000, "n_episodes": 1_000_000, "n_seeds": 1_000, "n_images": 100_000}
"""No more than this is looked for."""
_N_NODES = 48
_N_SETS, _MOST_DRAWN = 1_000, 200
"""Sets of classes that are drawn to find the expected widening by skewness, and the most classes in one."""


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


def power(components: Components, design: Design, difference: float, *, scope: Scope, level: float = 0.05) -> float:
    """Return the chance that the test of a scope calls a true difference real.

    If effects of classes are skewed, one direction of the difference is harder to show than the other. It is not known
    beforehand which of two models is the better one, so the chance is that of the harder direction.

    Args:
        components: Those of the difference of the two models.
        design: How much is measured.
        difference: The true difference, fraction.
        scope: What the test is over.
        level: Two-sided level of the test; for one of k pairs, 0.05 / k is the worst that a correction does.

    Raises:
        ValueError: The test cannot be made with so few classes, episodes or seeds, or the seeds' spread is unknown.
    """
    return _test(components, design, scope, level).power(difference)


def smallest_difference(
    components: Components, design: Design, *, scope: Scope, at_power: float = 0.8, level: float = 0.05
) -> float:
    """Return the true difference, fraction, that the test of a scope shows with a chance of `at_power`.

    Raises:
        ValueError: As `power`, or the wanted chance is not above the level and below 1.
    """
    _check_chance(at_power, level)
    return _test(components, design, scope, level).smallest_difference(at_power)


def expected_width(components: Components, design: Design, *, scope: Scope, level: float = 0.05) -> float:
    """Return the expected half width of the interval of a scope, 95 % by default.

    Raises:
        ValueError: As `power`.
    """
    test = _test(components, design, scope, level)
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
        ValueError: Images are asked for and their effect is unknown, or as `smallest_difference`.
    """
    _check_chance(at_power, level)
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


def _check_chance(at_power: float, level: float) -> None:
    if not level < at_power < 1:
        raise ValueError(f"the chance wanted is {at_power:g}, but it must be above {level:g}, the level, and below 1")


def plausible(components: Components, pilot: Design, *, level: float = 0.05) -> tuple[Components, Components]:
    """Return components with the least and with the largest effect of classes that a pilot leaves plausible.

    The effect of classes is estimated from the square of the jackknife's error over the pilot's classes, which varies
    as a chi-square divided by its degrees of freedom. What pairs, episodes and seeds add is taken as known.

    Args:
        components: Those that the pilot gave.
        pilot: How much it measured.
        level: Chance that the true effect is outside.

    Raises:
        ValueError: The pilot has too few classes or episodes.
    """
    from scipy.special import gammaincinv

    expected = expectations(components, pilot)
    half = 1 / expected.varies
    ends = []
    for chance in (1 - level / 2, level / 2):
        surplus = expected.jackknife * (half / gammaincinv(half, chance) - 1)
        square = max(components.of_class**2 + surplus / expected.per_class, 0.0)
        ends.append(replace(components, of_class=float(np.sqrt(square))))
    return ends[0], ends[1]


@dataclass(frozen=True, kw_only=True)
class _Test:
    """A test as what decides it: its critical values, with their chances, and the true error of the mean.

    Attributes:
        critical: (n,) least absolute mean that is called a difference.
        weights: (n,) chance of each; they sum to 1.
        error: Standard error of the mean where the critical value is known.
        shifts: (n,) expected error of the mean with each critical value; zero where no effects are skewed.
    """

    critical: FloatArray
    weights: FloatArray
    error: float
    shifts: FloatArray | float = 0.0

    def power(self, difference: float) -> float:
        if self.error == 0:
            return float(abs(difference) > 0)
        return min(self._power_of(difference), self._power_of(-difference))

    def _power_of(self, difference: float) -> float:
        from scipy.special import ndtr

        means = difference + self.shifts
        above, below = (ndtr((sign * means - self.critical) / self.error) for sign in (1, -1))
        return float(self.weights @ (above + below))

    def smallest_difference(self, at_power: float) -> float:
        from scipy.optimize import brentq

        if self.error == 0 or self.power(0.0) >= at_power:
            return 0.0
        widest = self.error
        while self.power(widest) < at_power:
            widest *= 2
        return float(brentq(lambda difference: self.power(difference) - at_power, 0.0, widest, rtol=1e-8))


@lru_cache(maxsize=1024)  # one test has a power, a smallest difference and a width
def _test(components: Components, design: Design, scope: Scope, level: float) -> _Test:
    return {"pool": _pool, "classes": _classes, "seeds": _seeds}[scope](components, design, level)


def _pool(components: Components, design: Design, level: float) -> _Test:
    """Return the test over episodes: Student's t, which the sign flips of `episodes.comparison` agree with."""
    freedom = design.n_episodes - 1
    if freedom < 1:
        raise ValueError(f"{design.n_episodes} episodes are too few; an interval over episodes needs two")
    error = float(np.sqrt(_within(components, design.n_classes) / design.n_episodes))
    ratios, weights = _chi_square_ratios(freedom)
    return _Test(critical=student_quantile(freedom, level) * error * np.sqrt(ratios), weights=weights, error=error)


@dataclass(frozen=True, kw_only=True)
class Expectations:
    """Expectations of what `error_over_classes` measures.

    Episodes have some classes more often than others: this adds noise to the classes' part of the mean, which the
    jackknife counts as often as that of episodes.

    Attributes:
        of_classes: Square of the part of the error that is due to classes.
        of_pairs: Likewise, to pairs of them.
        noise: Likewise, to single episodes.
        uneven: Likewise, to uneven numbers of episodes with a class.
        inflation: How often the jackknife counts the last two.
        jackknife: Square of the jackknife's error.
        per_class: By how much it grows with the variance of a class's effect.
        varies: Its relative variance.
        skewness: Of all that the jackknife sees of a class.
    """

    of_classes: float
    of_pairs: float
    noise: float
    uneven: float
    inflation: float
    jackknife: float
    per_class: float
    varies: float
    skewness: float


def _classes(components: Components, design: Design, level: float) -> _Test:
    """Return the test over new classes; the jackknife's square is its expectation times a chi-square by its freedom.

    Skewed effects of classes widen the interval, make the jackknife's square vary more, as those of a gamma
    distribution of this skewness, and make it depend on the mean. Their covariance is the third moment of an effect by
    the square of the number of classes; the mean's expectation is taken as linear in the jackknife's square.
    """
    found, n_classes, n_episodes = expectations(components, design), design.n_classes, design.n_episodes
    ratios, weights = _chi_square_ratios(2 / found.varies)
    expected = ClassError(
        jackknife=found.jackknife,
        freedom=n_classes - 1,
        widening=_expected_widening(n_classes, found.skewness),
    )
    if n_episodes >= EPISODES_PER_CLASS * n_classes:
        taken_off = _pairs_taken_off(components, design, found.noise, found.of_pairs)
        expected = replace(expected, noise=found.noise, inflation=found.inflation, pairs=taken_off)
    slope = found.skewness * np.sqrt(found.jackknife / n_classes) / found.varies
    variance = found.of_classes + found.of_pairs + found.noise + found.uneven
    return _Test(
        critical=np.array([replace(expected, jackknife=found.jackknife * ratio).least_mean(level) for ratio in ratios]),
        weights=weights,
        error=float(np.sqrt(max(variance - slope**2 * found.varies, 0.0))),
        shifts=slope * (ratios - 1),
    )


def expectations(components: Components, design: Design) -> Expectations:
    """Return what `error_over_classes` is expected to measure; a ValueError says why it would measure nothing."""
    n_classes, n_episodes, n_way = design.n_classes, design.n_episodes, components.n_way
    if n_classes < MIN_CLASSES or n_classes <= n_way:
        raise ValueError(
            f"{n_classes} classes are too few: an interval on new classes needs {max(MIN_CLASSES, int(n_way) + 1)}"
        )
    if n_episodes < 2:
        raise ValueError(f"{n_episodes} episodes are too few; an interval on new classes needs two")
    of_class, of_pair = _of_class(components, design), components.of_pair**2
    inflation = _inflation(n_way, n_classes, n_episodes)
    noise = (components.of_episode**2 + of_pair * pairs_around_classes(n_way, n_classes)) / n_episodes
    of_classes, of_pairs = of_class / n_classes, of_pair * per_pair(n_classes)
    shares = 1 / n_way - 1 / n_classes
    uneven = (of_class + 4 * of_pair / (n_classes - 1)) * shares / n_episodes
    jackknife = of_classes + twice_counted(n_classes) * of_pairs + inflation * (noise + uneven)
    skewness = float(np.clip(components.skewness, -MOST_SKEWNESS, MOST_SKEWNESS))
    share = of_classes / jackknife if jackknife > 0 else 0.0
    varies = 2 / (n_classes - 1) + 1.5 * skewness**2 * share**2 / n_classes
    return Expectations(
        of_classes=of_classes,
        of_pairs=of_pairs,
        noise=noise,
        uneven=uneven,
        inflation=inflation,
        jackknife=jackknife,
        per_class=1 / n_classes + inflation * shares / n_episodes,
        varies=varies,
        skewness=skewness * share**1.5,
    )


def _expected_widening(n_classes: int, skewness: float) -> float:
    """Return the expected factor by which `widening_by_skewness` widens an interval over classes.

    Values of this skewness are a z + b (z^2 - 1) of normal z. At most `_MOST_DRAWN` classes are drawn: what the factor
    has above 1 is inverse to the number of further ones.
    """
    n_drawn = min(n_classes, _MOST_DRAWN)
    square = np.sqrt(2) * np.sin(np.arcsin(abs(skewness) / np.sqrt(8)) / 3)
    drawn = _normal_sets()[:, :n_drawn]
    values = np.sqrt(1 - 2 * square**2) * drawn + square * (drawn * drawn - 1)
    return float(1 + (widening_by_skewness(values).mean() - 1) * n_drawn / n_classes)


@lru_cache(maxsize=1)
def _normal_sets() -> FloatArray:
    return np.random.default_rng(0).standard_normal((_N_SETS, _MOST_DRAWN))


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
    of_pairs = components.of_pair**2 * max(per_pair(n_way) - per_pair(n_classes), 0.0)
    return components.of_episode**2 + of_classes + of_pairs


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

    found = design_of_pairs(components.n_way, design.n_classes)
    if found is None or noise == 0:
        return 0.0
    deviation = noise * found.deviation
    shift = (of_pairs - noise * found.bias * design.n_classes / design.n_episodes) / deviation - 1
    return float(deviation * (shift * ndtr(shift) + np.exp(-(shift**2) / 2) / np.sqrt(2 * np.pi)))


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
