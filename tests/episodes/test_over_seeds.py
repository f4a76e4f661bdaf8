from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import t, ttest_rel

from episodes.over_seeds import summarise_seeds


def column(*means: float) -> np.ndarray:
    return np.array(means)[:, np.newaxis]


class TestWithoutEpisodes:
    def test_the_interval_is_students_t_of_the_means(self) -> None:
        summary = summarise_seeds(column(0.70, 0.74, 0.75))
        assert summary.mean == pytest.approx(0.73)
        assert summary.n_seeds == 3
        assert summary.ci95_seeds == pytest.approx(t.ppf(0.975, 2) * np.sqrt(0.0007) / np.sqrt(3))

    def test_p_is_that_of_scipys_paired_t_test(self) -> None:
        a, b = [0.7, 0.8, 0.6, 0.75], [0.68, 0.74, 0.5, 0.78]
        assert summarise_seeds(column(*np.subtract(a, b))).p == pytest.approx(ttest_rel(a, b).pvalue)

    def test_p_of_differences_that_do_not_vary_is_certain(self) -> None:
        assert summarise_seeds(column(0, 0, 0)).p == 1.0
        assert summarise_seeds(column(0.25, 0.25, 0.25)).p == 0.0


def test_two_seeds_are_too_few() -> None:
    with pytest.raises(ValueError, match="there are 2 seeds, but an interval over seeds needs at least 3"):
        summarise_seeds(column(0.7, 0.8))


def test_a_seed_that_was_not_measured_is_refused() -> None:
    with pytest.raises(ValueError, match="not finite"):
        summarise_seeds(column(0.7, 0.8, float("nan")))


def test_p_is_at_the_level_where_the_interval_ends_at_zero() -> None:
    values = np.random.default_rng(0).normal(0, 0.1, (4, 50)) + np.random.default_rng(1).normal(0, 0.2, 50)
    width = summarise_seeds(values).ci95_seeds
    assert summarise_seeds(values - values.mean() + width).p == pytest.approx(0.05)


def test_the_error_is_that_of_the_two_way_layout() -> None:
    """Seeds that agree leave the noise of the episodes; its mean squares by hand."""
    values = np.array([[0.2, 0.4, 0.9, 0.5], [0.3, 0.4, 0.8, 0.5], [0.2, 0.5, 0.9, 0.5]])
    of_seed, of_episode = 4 * values.mean(1).var(ddof=1), 3 * values.mean(0).var(ddof=1)
    total = np.square(values - values.mean()).sum()
    of_rest = (total - 2 * of_seed - 3 * of_episode) / 6
    parts = np.array([of_seed, of_episode, -of_rest]) / 12
    freedom = parts.sum() ** 2 / (parts**2 / np.array([2, 3, 6])).sum()
    found = summarise_seeds(values)
    assert found.ci95_seeds == pytest.approx(t.ppf(0.975, freedom) * np.sqrt(parts.sum()))
    assert found.p == pytest.approx(2 * t.sf(values.mean() / np.sqrt(parts.sum()), freedom))


def test_seeds_that_are_all_alike_have_the_interval_of_their_episodes() -> None:
    values = np.random.default_rng(2).random(100)
    found = summarise_seeds(np.tile(values, (5, 1)))
    assert found.std == pytest.approx(0, abs=1e-12)
    assert found.ci95_seeds == pytest.approx(t.ppf(0.975, 99) * values.std(ddof=1) / 10)


def test_the_interval_covers_what_it_claims_and_students_does_not() -> None:
    rng = np.random.default_rng(3)
    n_runs, n_seeds, n_episodes = 1000, 5, 200
    covers = covers_student = 0
    for _ in range(n_runs):
        shared, own = rng.normal(0, 0.09, n_episodes), rng.normal(0, 0.01, (n_seeds, 1))
        values = shared + own + rng.normal(0, 0.05, (n_seeds, n_episodes))
        mean = abs(values.mean())
        covers += mean < summarise_seeds(values).ci95_seeds
        covers_student += mean < summarise_seeds(values.mean(axis=1, keepdims=True)).ci95_seeds
    assert 0.93 < covers / n_runs < 0.975
    assert covers_student / n_runs < 0.9


def test_seeds_without_any_error_have_a_bound_over_their_number_instead_of_no_width() -> None:
    assert summarise_seeds(np.ones((3, 40))).ci95_seeds == pytest.approx(1 - 0.05 ** (1 / 3))
