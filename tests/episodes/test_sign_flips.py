from __future__ import annotations

import numpy as np
import pytest

from episodes.sign_flips import draw_signs, flipped_sums

N_FLIPS = 50


def signs(n_episodes: int) -> np.ndarray:
    return draw_signs(n_episodes, N_FLIPS, rng=np.random.default_rng(0))


def test_sums_are_those_of_the_signs_bit_by_bit() -> None:
    values = np.random.default_rng(1).random(21)
    each = [[1.0 if byte >> (7 - place) & 1 == 0 else -1.0 for byte in row] for row in signs(21) for place in range(8)]
    assert flipped_sums(values, signs(21))[0] == pytest.approx(values @ np.array(each)[:21])


def test_signs_of_the_first_episodes_do_not_depend_on_how_many_follow() -> None:
    assert np.array_equal(signs(80)[:3], signs(24))


def test_sums_of_first_episodes_are_those_of_these_alone() -> None:
    values = np.random.default_rng(2).random(40)
    lengths = [3, 8, 13, 14, 40]
    sums = flipped_sums(values, signs(40), lengths)
    for length, row in zip(lengths, sums, strict=True):
        assert row == pytest.approx(flipped_sums(values[:length], signs(40))[0])


def test_signs_are_as_often_minus_as_plus() -> None:
    sums = flipped_sums(np.ones(1000), draw_signs(1000, 2000, rng=np.random.default_rng(3)))[0]
    assert abs(sums.mean()) < 3 * np.sqrt(1000 / 2000)
    assert sums.std() == pytest.approx(np.sqrt(1000), rel=0.05)


def test_the_difference_of_two_sums_is_the_sum_of_the_difference() -> None:
    a, b = np.random.default_rng(4).random((2, 100))
    difference = flipped_sums(a, signs(100)) - flipped_sums(b, signs(100))
    assert difference == pytest.approx(flipped_sums(a - b, signs(100)))
