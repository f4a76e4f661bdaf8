from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from scipy.stats import norm, skew, t

from episodes.arrays import FloatArray, IntArray
from episodes.over_classes import WIDEST, ClassError, error_over_classes, widening_by_skewness

CLASSES = np.array([[0, 1], [1, 2], [2, 3], [0, 3], [1, 3]])
VALUES = np.array([0.8, 0.6, 0.4, 0.9, 0.5])


def half_width_over_classes(values: FloatArray, classes: IntArray) -> float:
    error = error_over_classes(values, classes)
    assert isinstance(error, ClassError)
    return error.half_width


def test_few_episodes_have_the_jackknife_by_hand() -> None:
    without = [(0.6 + 0.4 + 0.5) / 3, (0.4 + 0.9) / 2, (0.8 + 0.9 + 0.5) / 3, (0.8 + 0.6) / 2]
    mean = sum(without) / 4
    error = np.sqrt(3 / 4 * sum((value - mean) ** 2 for value in without))
    assert half_width_over_classes(VALUES, CLASSES) == pytest.approx(t.ppf(0.975, 3) * error)


def test_two_classes_are_too_few() -> None:
    assert error_over_classes(np.array([0.1, 0.2]), np.array([[0, 1], [0, 1]])) == "2 classes are too few"


def draw(rng: np.random.Generator, n_classes: int, n_way: int, n_episodes: int) -> np.ndarray:
    return np.argsort(rng.random((n_episodes, n_classes)), axis=1)[:, :n_way]


def test_values_that_do_not_vary_have_no_error() -> None:
    classes = draw(np.random.default_rng(0), 12, 3, 100)
    assert half_width_over_classes(np.full(100, 0.7), classes) == pytest.approx(0, abs=1e-9)


def test_if_only_classes_matter_the_error_is_that_of_their_mean() -> None:
    """All sets of 3 of 9 classes, each value the mean of three known numbers without skewness: nothing else varies."""
    ease = np.array([0.5, 0.55, 0.62, 0.68, 0.7, 0.72, 0.78, 0.85, 0.9])
    classes = np.array(list(combinations(range(9), 3)))
    width = half_width_over_classes(ease[classes].mean(axis=1), classes)
    assert width == pytest.approx(t.ppf(0.975, 8) * ease.std(ddof=1) / 3, rel=1e-4)


def test_if_only_pairs_matter_they_count_once() -> None:
    """3 of 20 classes, each value the mean of its pairs' numbers: the error of a mean over 190 pairs."""
    rng = np.random.default_rng(2)
    found, jackknife = [], []
    for _ in range(40):
        classes, ease = draw(rng, 20, 3, 4000), np.zeros((20, 20))
        ease[np.triu_indices(20, 1)] = rng.normal(0, 1, 190)
        ease += ease.T
        values = np.mean([ease[classes[:, i], classes[:, j]] for i, j in combinations(range(3), 2)], axis=0)
        error = error_over_classes(values, classes)
        assert isinstance(error, ClassError)
        found.append(error.jackknife - (error.inflation - 1) * error.noise - error.pairs)
        jackknife.append(error.jackknife)
    assert np.mean(found) == pytest.approx(1 / 190, rel=0.25)
    assert np.mean(jackknife) > 1.8 / 190


def test_noise_of_episodes_alone_is_the_error_of_their_mean() -> None:
    rng = np.random.default_rng(2)
    found = []
    for _ in range(50):
        values = rng.normal(0, 1, 600)
        error = error_over_classes(values, draw(rng, 85, 5, 600))
        assert isinstance(error, ClassError)
        assert error.noise == pytest.approx(values.var(ddof=1) / 600, rel=0.15)
        found.append((error.half_width / (t.ppf(0.975, 84) * np.sqrt(error.jackknife)), 600 * error.jackknife))
    ratios, jackknives = np.transpose(found)
    assert jackknives.mean() == pytest.approx(error.inflation, rel=0.06)
    assert ratios.max() < 1
    assert ratios.mean() < 0.7


def test_without_noise_p_and_width_are_students() -> None:
    error, limit = ClassError(jackknife=0.01, freedom=9), ClassError(jackknife=0.01, freedom=9, noise=1e-9)
    assert limit.half_width == pytest.approx(error.half_width, rel=1e-5)
    for mean in (0.0, 0.1, 0.5, 1.0):
        assert error.p(mean) == pytest.approx(2 * t.sf(mean / 0.1, 9))
        assert limit.p(mean) == pytest.approx(error.p(mean), rel=1e-3)


def test_p_is_at_the_level_where_the_interval_ends_at_zero() -> None:
    for jackknife in (1.0, 5.0, 40.0):
        error = ClassError(jackknife=jackknife, freedom=19, noise=1.0, inflation=8.0, pairs=0.2)
        assert error.p(error.half_width) == pytest.approx(0.05)
        assert error.half_width > 1.9


@pytest.mark.parametrize("n_way", [2, 5, 12])
def test_order_and_names_change_nothing(n_way: int) -> None:
    rng = np.random.default_rng(3)
    classes, values = draw(rng, 20, n_way, 200), rng.random(200)
    order = rng.permutation(200)
    renamed = rng.permutation(1000)[:20][classes[order]]
    assert half_width_over_classes(values[order], renamed) == pytest.approx(half_width_over_classes(values, classes))
    padded = np.concatenate([classes, np.full((200, 2), -1)], axis=1)
    assert half_width_over_classes(values, padded) == half_width_over_classes(values, classes)


def test_twice_the_values_are_twice_as_uncertain() -> None:
    rng = np.random.default_rng(4)
    classes, values = draw(rng, 20, 5, 300), rng.random(300)
    one, two = half_width_over_classes(values, classes), half_width_over_classes(2 * values + 5, classes)
    assert isinstance(one, float) and two == pytest.approx(2 * one, rel=1e-6)


@pytest.mark.parametrize(
    ("n_classes", "n_way", "n_episodes", "pair"),
    [(85, 5, 200, 0.05), (20, 5, 600, 0.3), (40, 20, 300, 0.1), (20, 5, 150, 0.0)],
)
def test_the_interval_covers_what_it_claims(n_classes: int, n_way: int, n_episodes: int, pair: float) -> None:
    rng = np.random.default_rng(5)
    covers, n_runs = 0, 300
    for _ in range(n_runs):
        classes = draw(rng, n_classes, n_way, n_episodes)
        ease, of_pair = rng.normal(0, 0.1, n_classes), rng.normal(0, pair, (n_classes, n_classes))
        of_pair += of_pair.T
        values = ease[classes].mean(axis=1) + rng.normal(0, 0.09, n_episodes)
        values += of_pair[classes[:, :, None], classes[:, None, :]].sum(axis=(1, 2)) / n_way**2
        values -= np.diagonal(of_pair)[classes].sum(axis=1) / n_way**2
        width = half_width_over_classes(values, classes)
        assert isinstance(width, float)
        covers += abs(values.mean()) < width
    assert covers / n_runs > 0.92


def test_episodes_of_a_varying_number_of_classes_have_an_error_too() -> None:
    rng = np.random.default_rng(6)
    classes = draw(rng, 30, 8, 400)
    classes[np.arange(8) >= rng.integers(2, 9, 400)[:, None]] = -1
    width = half_width_over_classes(rng.random(400), classes)
    assert isinstance(width, float) and 0.02 < width < 0.1


def test_skewed_effects_of_classes_widen_the_interval_and_its_p_alike() -> None:
    values = np.random.default_rng(6).exponential(size=20)
    squared, z = skew(values, bias=False) ** 2, norm.ppf(0.975)
    widening = widening_by_skewness(values)
    assert 1.02 < widening < WIDEST
    by_chance = 6 * 20 * 19 / (18 * 21 * 23)  # variance of the skewness of 20 normal values
    assert widening == pytest.approx(1 + (squared - by_chance) * (z**4 + 2 * z**2 - 3) / (18 * 20))
    assert widening_by_skewness(100 - 3 * values) == pytest.approx(widening)
    error = ClassError(jackknife=1.0, freedom=19, noise=0.05, inflation=8.0, widening=widening)
    plain = ClassError(jackknife=1.0, freedom=19, noise=0.05, inflation=8.0)
    assert error.half_width == pytest.approx(widening * plain.half_width)
    assert error.p(error.half_width) == pytest.approx(0.05)


def test_symmetric_equal_and_few_values_are_not_widened_and_one_outlier_is_bounded() -> None:
    assert widening_by_skewness(np.arange(20.0)) == 1
    assert widening_by_skewness(np.full(20, 0.7)) == widening_by_skewness(0.7 + 1e-18 * np.arange(20.0) ** 2) == 1
    assert widening_by_skewness(np.array([0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 9.0])) == 1
    assert widening_by_skewness(np.append(np.zeros(84), 1.0)) == WIDEST


def test_the_interval_of_a_few_exponential_values_holds_their_mean_more_often() -> None:
    values = np.random.default_rng(7).exponential(size=(4_000, 20))
    width = t.ppf(0.975, 19) * values.std(axis=1, ddof=1) / np.sqrt(20)
    widened = width * np.array([widening_by_skewness(row) for row in values])
    covers, student = (float((np.abs(values.mean(axis=1) - 1) < found).mean()) for found in (widened, width))
    assert student < 0.925 < 0.93 < covers
