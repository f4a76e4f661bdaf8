from __future__ import annotations

import numpy as np
import pytest
from scipy.special import softmax
from scipy.stats import binom

from episodes.arrays import FloatArray, IntArray
from episodes.conformal import (
    SetSummary,
    count_sets,
    full_sets,
    nonconformity,
    of_labels,
    split_p_values,
    summarise_sets,
    support_p_values,
)


def binomial_range(n: int, share: float) -> tuple[float, float]:
    """Return the shares between which a binomial share lies in all but one of 10,000 cases."""
    low, high = binom.ppf([5e-5, 1 - 5e-5], n, share) / n
    return float(low), float(high)


def _task(rng: np.random.Generator, *, n_shot: int, n_way: int = 3, n_query: int = 1) -> tuple[FloatArray, ...]:
    """Return support and query of classes of different widths; class 2 is eight times as wide as class 0."""
    means, widths = rng.normal(0, 2, (n_way, 4)), 0.5 * 2.83 ** np.arange(n_way)[:, None, None]
    images = means[:, None] + widths * rng.standard_normal((n_way, n_shot + n_query, 4))
    return images[:, :n_shot].reshape(-1, 4), images[:, n_shot:].reshape(-1, 4)


def _by_hand(support: FloatArray, labels: IntArray, query: FloatArray) -> FloatArray:
    """Compute the p-values of `support_p_values` by loops, from their definition."""
    n_way = int(labels.max()) + 1
    p_values = np.empty((len(query), n_way))
    for place, image in enumerate(query):
        for label in range(n_way):
            group = np.vstack([support[labels == label], image])
            others = [support[labels == other].mean(axis=0) for other in range(n_way) if other != label]
            scores = []
            for member in range(len(group)):
                own = np.delete(group, member, axis=0).mean(axis=0)
                nearest = min(np.square(group[member] - mean).sum() for mean in others)
                scores.append(np.square(group[member] - own).sum() - nearest)
            p_values[place, label] = np.mean(np.array(scores) >= scores[-1] - 1e-9)
    return p_values


@pytest.mark.parametrize("shots", [[1, 1, 1], [5, 5, 5], [1, 4, 9]])
def test_p_values_from_the_support_are_those_of_the_definition(shots: list[int]) -> None:
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(3), shots)
    support, query = rng.normal(100, 1, (len(labels), 6)), rng.normal(100, 1, (20, 6))
    np.testing.assert_array_equal(support_p_values(support, labels, query), _by_hand(support, labels, query))


def test_p_values_from_the_support_are_uniform_for_each_class_however_the_classes_differ() -> None:
    rng, n, n_shot = np.random.default_rng(1), 4000, 4
    labels = np.repeat(np.arange(3), n_shot)
    own = np.stack([np.diag(support_p_values(s, labels, q)) for s, q in (_task(rng, n_shot=n_shot) for _ in range(n))])
    low, high = binomial_range(n, 1 / (n_shot + 1))
    for place in range(1, n_shot + 2):
        shares = np.isclose(own, place / (n_shot + 1)).mean(axis=0)
        assert (low <= shares).all(), place
        assert (shares <= high).all(), place


@pytest.mark.parametrize(("n_shot", "alpha"), [(1, 0.5), (4, 0.2), (9, 0.1), (9, 0.15)])
def test_sets_from_the_support_cover_each_class_with_the_promised_probability(n_shot: int, alpha: float) -> None:
    """Scores without ties: coverage is exactly 1 - floor(alpha (K + 1)) / (K + 1), at least 1 - alpha."""
    rng, n = np.random.default_rng(2), 3000
    labels = np.repeat(np.arange(3), n_shot)
    p_values = np.stack([support_p_values(s, labels, q) for s, q in (_task(rng, n_shot=n_shot) for _ in range(n))])
    counts = count_sets(p_values, np.tile(np.arange(3), (n, 1)), alpha=alpha)
    if n_shot == 1:  # the two scores of a class differ only by their distance to the others
        assert (counts.covered.mean(axis=0) >= binomial_range(n, 0.5)[0]).all()
        return
    exact = 1 - np.floor(alpha * (n_shot + 1) + 1e-9) / (n_shot + 1)
    low, high = binomial_range(n, exact)
    assert exact >= 1 - alpha
    assert ((low <= counts.covered.mean(axis=0)) & (counts.covered.mean(axis=0) <= high)).all()


def test_too_few_labels_for_alpha_leave_full_sets() -> None:
    rng = np.random.default_rng(0)
    labels, truth = np.repeat(np.arange(3), 5), np.tile(np.arange(3), (10, 1))
    tasks = [_task(rng, n_shot=5) for _ in range(10)]
    p_values = np.stack([support_p_values(support, labels, query) for support, query in tasks])
    counts, full = count_sets(p_values, truth, alpha=0.16), full_sets(truth, np.tile(np.arange(3), (10, 1)))
    for name in ("n_queries", "covered", "sizes", "correct"):
        np.testing.assert_array_equal(getattr(counts, name), getattr(full, name))
    assert full.sizes.tolist() == [[0, 0, 0, 3]] * 10
    assert count_sets(p_values, truth, alpha=1 / 6).sizes[:, 3].sum() < 30


def test_an_image_that_is_in_the_support_twice_counts_as_a_tie() -> None:
    support, labels = np.array([[0.1], [0.3], [5.0], [6.0]]), np.array([0, 0, 1, 1])
    assert support_p_values(support, labels, support[:1])[0, 0] == 1.0  # its twin has the same score, 0.3 a higher one


def test_p_values_from_held_out_episodes_are_those_of_the_definition() -> None:
    rng = np.random.default_rng(0)
    held_out = rng.normal(size=(7, 4)).round(1)
    held_out[0, 2:], held_out[3, 1:] = np.nan, np.nan
    scores = np.append(rng.normal(size=30).round(1), [-99, 99, np.nan])
    shares = [[np.mean(row[~np.isnan(row)] >= score) for row in held_out] for score in scores[:-1]]
    expected = np.append((np.sum(shares, axis=1) + 1) / 8, np.nan)
    np.testing.assert_allclose(split_p_values(held_out, scores), expected)


def _episodes(rng: np.random.Generator, shape: tuple[int, int], n_query: int = 10) -> tuple[FloatArray, IntArray]:
    """Return scores of the classes of exchangeable episodes, some of which are hard as a whole, and labels."""
    labels = rng.integers(0, 5, (*shape, n_query))
    hardness = rng.exponential(2, (*shape, 1, 1))
    values = rng.normal(0, 1, (*shape, n_query, 5)) + (labels[..., None] == np.arange(5)) * hardness
    return nonconformity(softmax(values, axis=-1), are_probabilities=True), labels


@pytest.mark.parametrize(("n_episodes", "alpha"), [(9, 0.1), (19, 0.1), (40, 0.25)])
def test_sets_from_held_out_episodes_cover_further_episodes(n_episodes: int, alpha: float) -> None:
    """Coverage is between 1 - alpha and 1 - alpha + 1 / (m + 1) for scores without ties, for dependent queries, too."""
    rng, n = np.random.default_rng(3), 4000
    scores, labels = _episodes(rng, (n, n_episodes + 1))
    own = of_labels(scores.reshape(-1, *scores.shape[2:]), labels.reshape(-1, labels.shape[2]))
    own = own.reshape(labels.shape)
    p_values = np.array([split_p_values(row[:-1], row[-1, :1])[0] for row in own])
    covered = float((p_values > alpha).mean())
    assert binomial_range(n, 1 - alpha)[0] <= covered
    assert covered <= binomial_range(n, min(1, 1 - alpha + 1 / (n_episodes + 1)))[1]


def test_p_values_of_single_queries_are_uniform() -> None:
    rng, n, m = np.random.default_rng(4), 5000, 9
    found = np.array([split_p_values(row[:m, None], row[m:])[0] for row in rng.normal(size=(n, m + 1))])
    low, high = binomial_range(n, 0.1)
    for place in range(1, m + 2):
        assert low <= np.isclose(found, place / (m + 1)).mean() <= high


def test_too_few_held_out_episodes_leave_full_sets() -> None:
    assert (split_p_values(np.zeros((8, 3)), np.array([1e9])) > 0.1).all()
    assert not (split_p_values(np.zeros((9, 3)), np.array([1e9])) > 0.1).any()


def test_nonconformity_of_decision_values_is_their_distance_to_the_best_other_class() -> None:
    values = np.array([[3.0, 1.0, -2.0], [1.0, 1.0, 0.0], [1.0, np.nan, 0.5]])
    expected = [[-2.0, 2.0, 5.0], [0.0, 0.0, 1.0], [-0.5, np.nan, 0.5]]
    np.testing.assert_array_equal(nonconformity(values, are_probabilities=False), expected)
    np.testing.assert_array_equal(nonconformity(values, are_probabilities=True), 1 - values)


def test_sets_are_counted_by_hand() -> None:
    p_values = np.array(
        [[[0.9, 0.05], [0.2, 0.3], [0.01, 0.02], [0.5, 0.1]], [[0.05, 0.4], [0.9, 0.1], *[[np.nan] * 2] * 2]]
    )
    labels = np.array([[0, 0, 1, 1], [1, 1, -1, -1]])
    counts = count_sets(p_values, labels, alpha=0.1)
    assert counts.n_queries.tolist() == [[2, 2], [0, 2]]
    assert counts.covered.tolist() == [[2, 0], [0, 1]]
    assert counts.sizes.tolist() == [[1, 2, 1], [0, 2, 0]]
    assert counts.correct.tolist() == [1, 1]
    found = summarise_sets(counts, np.array([[7, 8], [9, 8]]))
    assert (found.coverage.mean, found.lowest_class, found.lowest_coverage) == (0.5, 8, 0.25)
    assert found.mean_size == pytest.approx(1.0)
    assert found.sizes == pytest.approx((1 / 6, 4 / 6, 1 / 6))
    assert (found.answered, found.accuracy) == (pytest.approx(4 / 6), 0.5)


def test_abstaining_makes_the_answers_better() -> None:
    scores, labels = _episodes(np.random.default_rng(5), (600, 1))
    scores, labels = scores[:, 0], labels[:, 0]
    p_values = split_p_values(of_labels(scores, labels)[:300], scores[300:])
    found = summarise_sets(count_sets(p_values, labels[300:], alpha=0.1), np.tile(np.arange(5), (300, 1)))
    assert found.accuracy is not None
    assert 0.2 < found.answered < 0.8
    assert found.accuracy > 0.1 + float((scores[300:].argmin(axis=2) == labels[300:]).mean())


def test_the_lowest_class_is_told_apart_from_chance() -> None:
    def of_classes(own: FloatArray) -> SetSummary:
        rng = np.random.default_rng(0)
        classes = np.stack([rng.choice(20, 5, replace=False) for _ in range(600)])
        covered = rng.random((600, 5, 15)) < own[classes][:, :, None]
        p_values = np.where(np.eye(5)[:, None] * covered[..., None] > 0, 1.0, 0.0).reshape(600, 75, 5)
        return summarise_sets(count_sets(p_values, np.tile(np.arange(5).repeat(15), (600, 1)), alpha=0.1), classes)

    alike, one_hard = np.full(20, 0.9), np.full(20, 0.9)
    one_hard[3] = 0.5
    found = of_classes(alike)
    assert found.lowest_coverage == pytest.approx(found.lowest_by_chance, abs=0.01)
    found = of_classes(one_hard)
    assert found.lowest_class == 3
    assert found.lowest_coverage < found.lowest_by_chance - 0.2
