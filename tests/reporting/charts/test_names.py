"""Names on charts fit, are told apart, and are whole where there is room."""

from __future__ import annotations

import unicodedata

import pytest

from lurefs.reporting.charts.names import fitted, n_cells

LONG = "learn-unlearn-relearn-keep-ratio-0.8"
ALIKE = {
    "their ends": [f"{LONG}-{end}" for end in ("one", "two", "six")],
    "their beginnings": [f"{start}-{LONG}" for start in ("one", "two", "six")],
    "their middles": [f"{LONG}-{middle}-{LONG}" for middle in ("one", "two", "six")],
    "an end that all share after it": [f"{LONG}-{name} (3 seeds)" for name in ("one", "two")],
    "one letter of many of one kind": ["W" * 60 + "M" + "W" * count for count in (9, 30, 59)],
    "nothing to cut": ["lure", "warm"],
}


@pytest.mark.parametrize("kind", ALIKE)
@pytest.mark.parametrize(("width", "n_lines"), [(12, 1), (18, 1), (26, 2), (47, 4)])
def test_names_that_differ_anywhere_stay_different(kind: str, width: float, n_lines: int) -> None:
    assert len(set(fitted(ALIKE[kind], width, n_lines=n_lines))) == len(ALIKE[kind])


@pytest.mark.parametrize("names", [ALIKE["their ends"], ["长" * 40, "短" * 3], ["W" * 60, "i" * 60], ["🦊🐻🐼" * 9]])
def test_a_cut_name_is_as_wide_as_its_room_at_most_and_uses_most_of_it(names: list[str]) -> None:
    for name, shown in zip(names, fitted(names, 20), strict=True):
        assert n_cells(shown) <= 20
        assert shown == name or n_cells(shown) > 15


def test_a_name_that_fits_in_its_lines_is_whole() -> None:
    [shown] = fitted([f"{LONG} (3 seeds)"], 30, n_lines=2)
    assert shown == "learn-unlearn-relearn-keep-\nratio-0.8 (3 seeds)"


def test_a_difference_is_broken_before_its_second_name_and_seeds_stay_together() -> None:
    [shown] = fitted(["from_scratch (3 seeds) − warm_start (3 seeds)"], 30, n_lines=4)
    assert shown == "from_scratch (3 seeds) −\nwarm_start (3 seeds)"


def test_a_name_that_would_need_more_lines_between_its_words_is_broken_within_one() -> None:
    [shown] = fitted([f"{LONG}-two (2 seeds)"], 26, n_lines=2)
    assert shown == "learn-unlearn-relearn-kee\np-ratio-0.8-two (2 seeds)"


def test_equal_names_stay_equal() -> None:
    assert len(set(fitted(["x" * 50] * 3, 20))) == 1


def test_digits_after_a_name_that_is_read_from_right_to_left_do_not_join_it() -> None:
    [shown] = fitted(["שיטה (3 seeds)"], 30)
    place = shown.index(" (")
    assert unicodedata.bidirectional(shown[place - 1]) == "L" and shown.replace("\u200e", "") == "שיטה (3 seeds)"
