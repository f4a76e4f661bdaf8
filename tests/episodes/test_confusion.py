from __future__ import annotations

import numpy as np
import pytest

from episodes import confusion
from episodes.blocks import Block
from episodes.confusion import cautious_interval, count_confusions, order_by_likeness

BLOCK = Block(
    n_ways=np.array([2, 3]),
    classes=np.array([3, 1, 1, 0, 3]),
    n_support=np.ones(5, dtype=np.int64),
    n_query=np.array([2, 1, 2, 0, 1]),
    support=np.arange(5),
    query=np.arange(6),
)
"""Classes 3 and 1, then classes 1, 0 and 3, of which class 0 is asked for nothing."""
PREDICTED = np.array([[0, 1, 1], [0, 2, 1]], dtype=np.int16)
"""Of class 3: one right, one for 1. Of class 1: right; then right, and for 3. Of class 3: for 0."""


def test_queries_are_counted_where_both_classes_stood() -> None:
    found = count_confusions(BLOCK, PREDICTED, 4)
    assert found.n_queries.tolist() == [[0, 0, 0, 0], [2, 3, 0, 3], [0, 0, 0, 0], [1, 3, 0, 3]]
    assert found.n_taken.tolist() == [[0, 0, 0, 0], [0, 2, 0, 1], [0, 0, 0, 0], [1, 1, 0, 1]]
    assert found.n_episodes.tolist() == [[0, 0, 0, 0], [1, 2, 0, 2], [0, 0, 0, 0], [1, 2, 0, 2]]
    assert found.rate[3, 0] == 1 and found.rate[1, 3] == pytest.approx(1 / 3) and np.isnan(found.rate[0, 3])


def test_the_size_of_the_parts_changes_no_count(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = count_confusions(BLOCK, PREDICTED, 4)
    monkeypatch.setattr(confusion, "MAX_PAIRS", 1)
    parts = count_confusions(BLOCK, PREDICTED, 4)
    assert np.array_equal(parts.n_queries, whole.n_queries) and np.array_equal(parts.n_episodes, whole.n_episodes)


def test_episodes_that_were_not_scored_are_left_out() -> None:
    found = count_confusions(BLOCK, PREDICTED[:1], 4)
    assert found.n_queries[1].tolist() == [0, 1, 0, 1]
    assert found.n_taken.sum() == 3


def test_other_episodes_are_refused() -> None:
    with pytest.raises(ValueError, match="there are 5 predictions for 6 queries"):
        count_confusions(BLOCK, np.array([[0, 1, 1], [0, 2, -1]], dtype=np.int16), 4)


def test_intervals_are_those_of_wilson_with_episodes_as_observations() -> None:
    from scipy.stats import binomtest

    low, high = cautious_interval(np.array([0.25, 0.0, 1.0, np.nan]), np.array([8, 5, 5, 0]))
    for place, n_right, n in ((0, 2, 8), (1, 0, 5), (2, 5, 5)):
        expected = binomtest(n_right, n).proportion_ci(method="wilson")
        assert (low[place], high[place]) == pytest.approx((expected.low, expected.high), abs=1e-6)
    assert np.isnan(low[3]) and np.isnan(high[3])


def test_the_interval_holds_where_an_episode_is_right_or_wrong_as_a_whole() -> None:
    """Of 10 episodes of 15 queries, all of an episode alike: intervals over queries would miss half of the time."""
    shares = np.random.default_rng(0).binomial(10, 0.3, 2000) / 10
    low, high = cautious_interval(shares, np.full(2000, 10))
    assert ((low <= 0.3) & (high >= 0.3)).mean() > 0.9


def test_confused_classes_become_neighbours() -> None:
    rate = np.zeros((4, 4))
    rate[0, 3] = rate[2, 1] = 0.5
    rate[3, 2] = 0.1
    order = order_by_likeness(rate).tolist()
    assert order in ([0, 3, 2, 1], [1, 2, 3, 0])
    assert order_by_likeness(np.zeros((2, 2))).tolist() == [0, 1]
