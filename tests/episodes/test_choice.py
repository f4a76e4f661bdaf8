from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
from scipy.stats import kendalltau

from episodes.choice import choice_regret, rank_agreement
from episodes.comparison import paired_difference

CLASSES = np.array([np.random.default_rng(n).permutation(12)[:3] for n in range(300)])


def accuracies(*means: float, noise: float = 0.02) -> np.ndarray:
    rng = np.random.default_rng(0)
    ease = rng.normal(0, 0.05, 12)[CLASSES].mean(axis=1)
    return np.array(means)[:, np.newaxis] + ease + rng.normal(0, noise, (len(means), 300))


def test_the_regret_of_two_backbones_is_their_paired_difference_on_new_classes() -> None:
    found = accuracies(0.7, 0.6)
    paired = paired_difference(found[0], found[1], CLASSES, rng=np.random.default_rng(0)).difference
    regret = choice_regret(found, [1], CLASSES)
    assert paired.ci95_classes is not None
    assert regret.mean == pytest.approx(paired.mean)
    assert (regret.low, regret.high) == pytest.approx(
        (paired.mean - paired.ci95_classes, paired.mean + paired.ci95_classes)
    )
    assert regret.scope == "classes"


def test_episodes_of_the_same_classes_give_an_interval_on_this_pool() -> None:
    found, classes = accuracies(0.7, 0.6), np.tile([0, 1, 2], (300, 1))
    paired = paired_difference(found[0], found[1], classes, rng=np.random.default_rng(0)).difference
    regret = choice_regret(found, [1], classes)
    assert regret.high == pytest.approx(paired.mean + paired.ci95_episodes)
    assert regret.scope == "pool"


def test_the_choice_of_the_best_has_no_regret_but_an_upper_bound() -> None:
    regret = choice_regret(accuracies(0.7, 0.695, 0.5), [0], CLASSES)
    assert (regret.mean, regret.low) == (0, 0)
    assert 0 <= regret.high < 0.01
    assert choice_regret(accuracies(0.9, 0.5, 0.4), [0], CLASSES).high == 0


def test_more_rivals_make_the_interval_wider() -> None:
    few = choice_regret(accuracies(0.6, 0.7), [0], CLASSES)
    many = choice_regret(accuracies(0.6, 0.7, *[0.3] * 8), [0], CLASSES)
    assert many.high - many.mean > few.high - few.mean > 0


def test_of_equal_scores_the_mean_is_chosen() -> None:
    found = accuracies(0.7, 0.6, 0.5)
    assert choice_regret(found, [0, 1, 2], CLASSES).mean == pytest.approx(found[0].mean() - found.mean())


def test_equal_accuracies_have_no_regret() -> None:
    found = np.tile(accuracies(0.6), (3, 1))
    regret = choice_regret(found, [1], CLASSES)
    assert (regret.mean, regret.low, regret.high) == pytest.approx((0, 0, 0), abs=1e-12)


def test_tau_has_no_doubt_if_all_pairs_are_told_apart_and_all_doubt_if_none_is() -> None:
    scores, means = [1, 2, 3, 4, 5], [0.1, 0.2, 0.4, 0.3, 0.5]
    pairs = {(i, j): True for i in range(5) for j in range(i)}
    sure, unsure = rank_agreement(scores, means, pairs), rank_agreement(scores, means, {})
    assert sure is not None and unsure is not None
    assert sure.tau == unsure.tau == pytest.approx(0.8)
    assert (sure.low, sure.high) == pytest.approx((0.8, 0.8))
    assert (unsure.low, unsure.high) == pytest.approx((-1, 1))
    assert sure.p == pytest.approx(kendalltau(scores, means).pvalue)


def test_the_bounds_of_tau_hold_each_order_that_the_tests_leave_open() -> None:
    scores, means = [3.0, 1.0, 1.0, 2.0], [0.4, 0.3, 0.2, 0.1]
    told_apart = {(0, 2): True, (3, 0): True, (1, 3): False}
    found = rank_agreement(scores, means, told_apart)
    assert found is not None
    possible = [
        kendalltau(scores, order).statistic
        for order in permutations(means)
        if order[0] > order[2] and order[0] > order[3]
    ]
    assert found.low - 1e-12 < min(possible) and max(possible) < found.high + 1e-12
    assert found.high < 1


def test_equal_scores_rank_nothing() -> None:
    assert rank_agreement([1, 1, 1], [0.1, 0.2, 0.3], {}) is None
