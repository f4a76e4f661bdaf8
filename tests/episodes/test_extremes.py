"""Intervals and plans at their ends: as few classes, seeds and episodes as there can be, and values that never vary."""

from __future__ import annotations

import numpy as np
import pytest

from episodes.comparison import paired_difference
from episodes.components import Components, components_over_seeds, variance_components
from episodes.over_classes import ClassError, error_over_classes
from episodes.over_seeds import summarise_seeds
from episodes.planning import Design, Quantity, Scope, needed, plausible, power, smallest_difference

SPREAD = Components(n_way=2, of_class=0.03, of_pair=0.02, of_episode=0.05, of_seed=0.01, of_rest=0.04)


def pairs_of(n_classes: int, n_episodes: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.stack([rng.permutation(n_classes)[:2] for _ in range(n_episodes)])


def test_two_classes_have_no_interval_over_classes_and_no_plan() -> None:
    classes = pairs_of(2, 50)
    values = np.random.default_rng(0).random(50)
    assert error_over_classes(values, classes) == "2 classes are too few"
    with pytest.raises(ValueError, match="2 classes are too few"):
        variance_components(values, classes)
    with pytest.raises(ValueError, match="2 classes are too few: an interval on new classes needs 3"):
        power(SPREAD, Design(n_classes=2, n_episodes=50), 0.02, scope="classes")
    with pytest.raises(ValueError, match="2 classes are too few"):
        plausible(SPREAD, Design(n_classes=2, n_episodes=50))


def test_two_seeds_show_their_spread_but_have_no_interval() -> None:
    values = np.random.default_rng(0).random((2, 60))
    with pytest.raises(ValueError, match="needs at least 3"):
        summarise_seeds(values)
    assert components_over_seeds(values, pairs_of(12, 60)).of_seed is not None
    with pytest.raises(ValueError, match="needs 3 seeds"):
        smallest_difference(SPREAD, Design(n_classes=12, n_episodes=60, n_seeds=2), scope="seeds")


@pytest.mark.parametrize("scope", ["pool", "classes", "seeds"])
def test_one_episode_shows_nothing(scope: Scope) -> None:
    with pytest.raises(ValueError, match=r"1 episodes are too few|and 2 episodes"):
        power(SPREAD, Design(n_classes=12, n_episodes=1, n_seeds=3), 0.02, scope=scope)
    assert isinstance(error_over_classes(np.array([0.5]), np.array([[0, 1, 2]])), str)


@pytest.mark.parametrize("level", [0.0, 0.4, 1.0])
def test_equal_accuracies_have_an_error_of_zero_and_never_vary(level: float) -> None:
    classes, values = pairs_of(12, 60), np.full(60, level)
    error = error_over_classes(values, classes)
    assert isinstance(error, ClassError)
    assert error.half_width == pytest.approx(0, abs=1e-12) and error.p(0.0) == pytest.approx(1)
    found = variance_components(values, classes)
    assert (found.of_class, found.of_pair, found.of_episode) == pytest.approx((0, 0, 0), abs=1e-7)
    assert abs(found.skewness) == 0
    assert smallest_difference(found, Design(n_classes=12, n_episodes=60), scope="classes") < 1e-6


def test_a_class_that_is_never_drawn_is_not_counted() -> None:
    classes = pairs_of(12, 100)
    values = np.random.default_rng(1).random(100)
    shifted = np.where(classes >= 5, classes + 3, classes)  # classes 5 to 7 of 15 are in no episode
    assert variance_components(values, shifted) == variance_components(values, classes)
    one, other = error_over_classes(values, shifted), error_over_classes(values, classes)
    assert isinstance(one, ClassError) and isinstance(other, ClassError)
    assert one.half_width == other.half_width and one.freedom == 11


def test_a_class_in_every_episode_has_no_interval() -> None:
    classes = np.stack([np.zeros(40, dtype=np.int64), np.arange(40) % 9 + 1], axis=1)
    assert error_over_classes(np.random.default_rng(0).random(40), classes) == "a class is in every episode"


@pytest.mark.parametrize("wrong", [np.nan, np.inf])
def test_values_that_are_not_finite_are_refused(wrong: float) -> None:
    values = np.random.default_rng(0).random((3, 60))
    values[1, 7] = wrong
    with pytest.raises(ValueError, match="not finite"):
        summarise_seeds(values)
    with pytest.raises(ValueError, match="finite"):
        variance_components(values[1], pairs_of(12, 60))
    with pytest.raises(ValueError, match="finite"):
        components_over_seeds(values, pairs_of(12, 60))
    with pytest.raises(ValueError, match="finite"):
        error_over_classes(values[1], pairs_of(12, 60))
    with pytest.raises(ValueError, match="finite"):
        paired_difference(values[1], values[0], pairs_of(12, 60), rng=np.random.default_rng(0))


def test_a_class_that_occurs_once_among_episodes_of_varying_way_counts_like_any_other() -> None:
    rng = np.random.default_rng(2)
    classes = np.stack([rng.permutation(12)[:4] for _ in range(120)])
    classes[np.arange(120) % 3 == 0, 3] = -1
    classes[60] = [12, 0, 1, -1]  # the only episode with class 12
    values = rng.random(120)
    error = error_over_classes(values, classes)
    assert isinstance(error, ClassError) and error.freedom == 12 and np.isfinite(error.half_width)
    found = variance_components(values, classes)
    assert found.n_way == pytest.approx(classes[classes >= 0].size / 120)
    assert smallest_difference(found, Design(n_classes=13, n_episodes=120), scope="classes") > 0


@pytest.mark.parametrize("scope", ["pool", "classes", "seeds"])
def test_a_difference_of_zero_is_called_real_as_often_as_the_level_says(scope: Scope) -> None:
    design = Design(n_classes=12, n_episodes=400, n_seeds=4)
    chance = power(SPREAD, design, 0.0, scope=scope)
    assert chance <= 0.055
    assert power(SPREAD, design, -0.05, scope=scope) == power(SPREAD, design, 0.05, scope=scope) > chance
    assert power(SPREAD, design, 5.0, scope=scope) == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("at_power", [0.0, 1.0, -0.5, 1.5, float("nan")])
def test_a_chance_that_no_test_can_have_is_refused(at_power: float) -> None:
    design = Design(n_classes=12, n_episodes=400)
    with pytest.raises(ValueError, match="chance"):
        smallest_difference(SPREAD, design, scope="classes", at_power=at_power)
    with pytest.raises(ValueError, match="chance"):
        needed("n_classes", SPREAD, design, 0.02, scope="classes", at_power=at_power)


@pytest.mark.parametrize("quantity", ["n_classes", "n_episodes"])
def test_no_number_shows_a_difference_of_zero(quantity: Quantity) -> None:
    assert needed(quantity, SPREAD, Design(n_classes=12, n_episodes=400), 0.0, scope="classes") is None
