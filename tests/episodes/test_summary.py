from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import ncx2, t

from episodes.intervals import half_width
from episodes.summary import chance_level, hardest_by_chance, percentile_5_by_chance, summarise, tails

CLASSES = np.array([[0, 1], [1, 2], [2, 3], [0, 3], [1, 3]])
VALUES = np.array([0.8, 0.6, 0.4, 0.9, 0.5])


def test_interval_over_episodes_is_students_t() -> None:
    summary = summarise(VALUES, CLASSES)
    assert summary.mean == pytest.approx(0.64)
    assert summary.ci95_episodes == pytest.approx(t.ppf(0.975, 4) * VALUES.std(ddof=1) / np.sqrt(5))


def test_no_interval_over_classes_where_a_class_is_in_every_episode() -> None:
    summary = summarise(np.array([0.1, 0.2, 0.3]), np.array([[0, 1], [0, 2], [0, 1]]))
    assert summary.ci95_classes is None
    assert summary.no_ci95_classes == "a class is in every episode"


def test_order_of_episodes_and_names_of_classes_change_nothing() -> None:
    order = np.array([3, 1, 4, 0, 2])
    one, other = summarise(VALUES, CLASSES), summarise(VALUES[order], 10 - CLASSES[order])
    assert other.ci95_episodes == pytest.approx(one.ci95_episodes)
    assert other.ci95_classes == pytest.approx(one.ci95_classes)


def test_values_that_are_not_finite_are_refused() -> None:
    with pytest.raises(ValueError, match="finite"):
        summarise(np.array([0.1, np.nan]), CLASSES[:2])


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


def test_intervals_over_episodes_cover_the_exact_accuracy_of_two_gaussians() -> None:
    """Nearest centroid on N(mu_i, I): 1000 evaluations of 60 one-shot episodes against the noncentral chi-squares."""
    n_features, distance, n_runs, n_episodes, n_query = 16, 2.0, 1000, 60, 10
    scale_a, scale_b = np.sqrt(2), np.sqrt(1.5)
    means = [(distance / scale_a + sign * distance / (2 * scale_b)) ** 2 / 2 for sign in (-1, 1)]
    # P(chi'2(l1) < chi'2(l2)) by quadrature over the second: the mean of the first's distribution function
    quantiles = ncx2.ppf((np.arange(4000) + 0.5) / 4000, n_features, means[1])
    exact = ncx2.cdf(quantiles, n_features, means[0]).mean()
    assert exact == pytest.approx(0.604751, abs=2e-5)
    rng = np.random.default_rng(1)
    values = np.empty((n_runs, n_episodes))
    for values_of_run in values:
        points = rng.standard_normal((2, n_episodes, 1 + n_query, n_features), dtype=np.float32)
        points[1, ..., 0] += distance
        centroids, queries = points[:, :, :1], points[:, :, 1:]
        nearer = [np.square(queries - centroids[way]).sum(-1) for way in (0, 1)]
        right = (nearer[0] < nearer[1])[0].sum(-1) + (nearer[1] < nearer[0])[1].sum(-1)
        values_of_run[:] = right / (2 * n_query)
    widths = t.ppf(0.975, n_episodes - 1) * values.std(axis=1, ddof=1) / np.sqrt(n_episodes)
    assert widths[0] == pytest.approx(half_width(float(values[0].std(ddof=1)), n_episodes))
    assert 0.93 < (np.abs(values.mean(axis=1) - exact) < widths).mean() < 0.97


class TestTails:
    def test_by_hand(self) -> None:
        found = tails(VALUES, CLASSES)
        assert found.percentile_5 == pytest.approx(0.4 + 0.2 * 0.1)
        # class 0: (0.8 + 0.9) / 2; 1: (0.8 + 0.6 + 0.5) / 3; 2: (0.6 + 0.4) / 2; 3: (0.4 + 0.9 + 0.5) / 3
        assert (found.hardest_class, found.hardest_class_n) == (2, 2)
        assert found.hardest_class_mean == pytest.approx(0.5)

    def test_chance_of_a_varying_number_of_classes_is_the_mean_of_chances(self) -> None:
        assert chance_level(CLASSES) == 0.5
        assert chance_level(np.array([[0, 1, -1, -1], [0, 1, 2, 3]])) == pytest.approx((1 / 2 + 1 / 4) / 2)


def test_entries_that_stand_for_no_class_change_nothing() -> None:
    padded = np.concatenate([CLASSES, np.full((5, 2), -1)], axis=1)
    assert summarise(VALUES, padded) == summarise(VALUES, CLASSES)
    assert tails(VALUES, padded) == tails(VALUES, CLASSES)


class TestTheEndsOfTheScale:
    CLASSES = np.array([[0, 1], [1, 2], [0, 2], [0, 1]])

    def test_perfect_episodes_have_bounds_over_episodes_and_classes_instead_of_no_width(self) -> None:
        summary = summarise(np.ones(4), self.CLASSES)
        assert summary.ci95_episodes == pytest.approx(1 - 0.05 ** (1 / 4))
        assert summary.ci95_classes == pytest.approx(1 - 0.05 ** (1 / 3))
        assert str(summary).startswith("100.00% − 52.71% on this pool")
        assert str(summary).endswith("all perfect: one-sided bounds")

    def test_equal_values_within_the_scale_keep_a_width_of_zero(self) -> None:
        assert summarise(np.full(4, 0.5), self.CLASSES).ci95_episodes == 0

    def test_a_difference_of_nothing_keeps_a_width_of_zero(self) -> None:
        assert summarise(np.zeros(4), self.CLASSES).ci95_episodes == 0


class TestByChance:
    def test_the_hardest_of_equal_classes_lies_where_a_simulation_puts_it(self) -> None:
        rng = np.random.default_rng(0)
        lowest = rng.normal(0, 0.09 / np.sqrt(12), (4000, 85)).min(axis=1).mean()
        assert hardest_by_chance(0.09, 12, 85) == pytest.approx(-lowest, rel=0.02)

    def test_a_single_class_is_not_picked(self) -> None:
        assert hardest_by_chance(0.09, 12, 1) == 0

    def test_the_5th_percentile_of_equal_episodes_lies_where_a_simulation_puts_it(self) -> None:
        rng = np.random.default_rng(0)
        found = np.quantile(rng.binomial(75, 0.7, 100_000) / 75, 0.05)
        assert 0.7 - percentile_5_by_chance(0.7, 75) == pytest.approx(found, abs=0.01)
