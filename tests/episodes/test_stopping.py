from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from episodes.stopping import episodes_needed, stops_at, until_narrow
from episodes.summary import half_width


@pytest.mark.parametrize(("std", "target"), [(0.1, 0.002), (0.1, 0.01), (0.08, 0.5), (1.0, 0.3), (0.0, 0.01)])
def test_episodes_needed_are_the_least_that_suffice(std: float, target: float) -> None:
    n = episodes_needed(std, target)
    assert half_width(std, n) <= target
    assert n == 2 or half_width(std, n - 1) > target


def test_ten_thousand_episodes_are_needed_for_a_fifth_of_a_point_at_one_shot() -> None:
    assert episodes_needed(0.102, 0.002) == pytest.approx(10_000, rel=0.01)


def test_the_rule_stops_at_the_first_block_whose_interval_is_narrow_enough() -> None:
    values = np.random.default_rng(0).normal(0.6, 0.1, 5000)
    n = stops_at(values, 0.005)
    assert n is not None and n % 100 == 0
    assert half_width(float(values[:n].std(ddof=1)), n) <= 0.005
    assert half_width(float(values[: n - 100].std(ddof=1)), n - 100) > 0.005


def test_no_stop_before_the_least_number_and_none_where_the_values_do_not_suffice() -> None:
    values = np.random.default_rng(0).normal(0.6, 0.1, 1000)
    assert stops_at(np.full(1000, 0.6), 0.01, min_episodes=350) == 400
    assert stops_at(values, 0.001) is None


def test_a_target_of_zero_is_refused() -> None:
    with pytest.raises(ValueError, match="target_ci95 is 0"):
        stops_at(np.ones(300), 0)
    with pytest.raises(ValueError, match="target_ci95 is -1"):
        episodes_needed(0.1, -1)


def test_no_block_is_computed_after_the_last_that_is_needed() -> None:
    values = np.random.default_rng(0).normal(0.6, 0.1, 5000)
    computed = []

    def blocks() -> Iterator[np.ndarray]:
        for start in range(0, 5000, 100):
            computed.append(start)
            yield values[start : start + 100]

    taken = list(until_narrow(blocks(), lambda block: block, 0.005))
    assert sum(len(block) for block in taken) == stops_at(values, 0.005)
    assert len(computed) == len(taken)


def test_the_interval_of_a_run_that_stopped_by_its_width_still_covers() -> None:
    rng = np.random.default_rng(0)
    covered = []
    for _ in range(800):
        values = rng.binomial(75, 0.6 + 0.1 * rng.standard_normal(1500).clip(-2, 2)) / 75
        n = stops_at(values, 0.009)
        assert n is not None
        covered.append(abs(values[:n].mean() - 0.6) < half_width(float(values[:n].std(ddof=1)), n))
    assert 0.93 < np.mean(covered) < 0.97
