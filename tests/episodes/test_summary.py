from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import t

from episodes.summary import jackknife_over_classes, paired_difference, summarise

CLASSES = np.array([[0, 1], [1, 2], [2, 3], [0, 3], [1, 3]])
VALUES = np.array([0.8, 0.6, 0.4, 0.9, 0.5])


def test_interval_over_episodes_is_students_t() -> None:
    summary = summarise(VALUES, CLASSES)
    assert summary.mean == pytest.approx(0.64)
    assert summary.ci95_episodes == pytest.approx(t.ppf(0.975, 4) * VALUES.std(ddof=1) / np.sqrt(5))


def test_interval_over_classes_by_hand() -> None:
    without = [(0.6 + 0.4 + 0.5) / 3, (0.4 + 0.9) / 2, (0.8 + 0.9 + 0.5) / 3, (0.8 + 0.6) / 2]
    mean = sum(without) / 4
    error = np.sqrt(3 / 4 * sum((value - mean) ** 2 for value in without))
    assert summarise(VALUES, CLASSES).ci95_classes == pytest.approx(t.ppf(0.975, 3) * error)


def test_no_interval_over_classes_where_a_class_is_in_every_episode() -> None:
    summary = summarise(np.array([0.1, 0.2, 0.3]), np.array([[0, 1], [0, 2], [0, 1]]))
    assert summary.ci95_classes is None
    assert summary.no_ci95_classes == "a class is in every episode"


def test_two_classes_are_too_few() -> None:
    assert jackknife_over_classes(np.array([0.1, 0.2]), np.array([[0, 1], [0, 1]])) == "2 classes are too few"


def test_order_of_episodes_and_names_of_classes_change_nothing() -> None:
    order = np.array([3, 1, 4, 0, 2])
    one, other = summarise(VALUES, CLASSES), summarise(VALUES[order], 10 - CLASSES[order])
    assert other.ci95_episodes == pytest.approx(one.ci95_episodes)
    assert other.ci95_classes == pytest.approx(one.ci95_classes)


def test_values_that_are_not_finite_are_refused() -> None:
    with pytest.raises(ValueError, match="finite"):
        summarise(np.array([0.1, np.nan]), CLASSES[:2])


def test_paired_difference_counts_wins_and_takes_the_interval_of_differences() -> None:
    other = np.array([0.7, 0.6, 0.5, 0.7, 0.4])
    paired = paired_difference(VALUES, other, CLASSES)
    assert (paired.n_wins, paired.n_ties, paired.n_losses) == (3, 1, 1)
    assert paired.difference.mean == pytest.approx(0.06)
    assert paired.difference.ci95_episodes == pytest.approx(summarise(VALUES - other, CLASSES).ci95_episodes)
    assert paired.correlation == pytest.approx(np.corrcoef(VALUES, other)[0, 1])


def test_unequal_numbers_of_episodes_are_not_paired() -> None:
    with pytest.raises(ValueError, match="cannot be paired"):
        paired_difference(VALUES, VALUES[:3], CLASSES)


def test_both_intervals_cover_what_they_claim() -> None:
    """Simulate pools of classes of known difficulty: the mean over the pool, and the mean over all classes."""
    rng = np.random.default_rng(0)
    n_runs, n_classes, n_episodes, n_way = 300, 30, 400, 5
    covers_pool = covers_world = naive_covers_world = 0
    for _ in range(n_runs):
        difficulty = rng.normal(0.7, 0.1, n_classes)
        classes = np.argsort(rng.random((n_episodes, n_classes)), axis=1)[:, :n_way]
        values = difficulty[classes].mean(1) + rng.normal(0, 0.05, n_episodes)
        summary = summarise(values, classes)
        assert summary.ci95_classes is not None
        covers_pool += abs(summary.mean - difficulty.mean()) < summary.ci95_episodes
        covers_world += abs(summary.mean - 0.7) < summary.ci95_classes
        naive_covers_world += abs(summary.mean - 0.7) < summary.ci95_episodes
    assert 0.92 < covers_pool / n_runs < 0.98
    assert covers_world / n_runs > 0.92
    assert naive_covers_world / n_runs < 0.5
