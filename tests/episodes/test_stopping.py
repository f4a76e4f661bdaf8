from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from episodes.intervals import half_width
from episodes.stopping import until_narrow


def n_until_narrow(values: np.ndarray, target: float, **settings: int) -> int:
    """After how many of the values the rule stops, in blocks of 100; all if it never does."""
    blocks = np.split(values, range(100, len(values), 100))
    return sum(map(len, until_narrow(blocks, lambda block: block, target, **settings)))


def test_the_rule_stops_at_the_first_block_whose_interval_is_narrow_enough() -> None:
    values = np.random.default_rng(0).normal(0.6, 0.1, 5000)
    widths = {n: half_width(float(values[:n].std(ddof=1)), n) for n in range(200, 5001, 100)}
    n = n_until_narrow(values, 0.005)
    assert n == next(n for n, width in widths.items() if width <= 0.005) < 5000


def test_no_stop_before_the_least_number_and_none_where_the_values_do_not_suffice() -> None:
    values = np.random.default_rng(0).normal(0.6, 0.1, 1000)
    assert n_until_narrow(values, 0.1, min_episodes=350) == 400
    assert n_until_narrow(values, 0.001) == 1000


def test_no_stop_before_some_episodes_differ_from_the_most_common_value() -> None:
    assert n_until_narrow(np.ones(1000), 0.01) == 1000
    rarely = np.ones(1000)
    rarely[49::50] = 0.7  # the tenth of them is the 500th
    assert n_until_narrow(rarely, 0.01) == 500


def test_an_interval_of_nearly_perfect_episodes_covers_too() -> None:
    rng = np.random.default_rng(1)
    covered = []
    for _ in range(500):
        values = np.where(rng.random(6000) < 0.02, 0.7, 1.0)
        n = n_until_narrow(values, 0.003)
        covered.append(abs(values[:n].mean() - 0.994) < half_width(float(values[:n].std(ddof=1)), n))
    assert 0.92 < np.mean(covered) < 0.98


def test_a_target_of_zero_is_refused() -> None:
    with pytest.raises(ValueError, match="target_ci95 is 0"):
        n_until_narrow(np.ones(300), 0)


def test_no_block_is_computed_after_the_last_that_is_needed() -> None:
    values = np.random.default_rng(0).normal(0.6, 0.1, 5000)
    computed = []

    def blocks() -> Iterator[np.ndarray]:
        for start in range(0, 5000, 100):
            computed.append(start)
            yield values[start : start + 100]

    taken = list(until_narrow(blocks(), lambda block: block, 0.005))
    assert len(computed) == len(taken) < 50


def test_the_interval_of_a_run_that_stopped_by_its_width_still_covers() -> None:
    rng = np.random.default_rng(0)
    covered = []
    for _ in range(800):
        values = rng.binomial(75, 0.6 + 0.1 * rng.standard_normal(1500).clip(-2, 2)) / 75
        n = n_until_narrow(values, 0.009)
        assert n < 1500
        covered.append(abs(values[:n].mean() - 0.6) < half_width(float(values[:n].std(ddof=1)), n))
    assert 0.93 < np.mean(covered) < 0.97
