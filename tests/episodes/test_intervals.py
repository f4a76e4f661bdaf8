from __future__ import annotations

import pytest

from episodes.intervals import bound_without_exceptions


@pytest.mark.parametrize("n", [3, 85, 2000])
def test_a_share_of_the_bound_leaves_no_exception_in_n_cases_with_a_chance_of_5_percent(n: int) -> None:
    assert (1 - bound_without_exceptions(n)) ** n == pytest.approx(0.05)


def test_the_bound_is_about_three_over_n() -> None:
    assert bound_without_exceptions(2000) == pytest.approx(3 / 2000, rel=0.01)
