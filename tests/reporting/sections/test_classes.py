from __future__ import annotations

import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest

from episodes.bank import FeatureBank
from episodes.confusion import Confusion
from lurefs.reporting.sections import feature_map
from lurefs.reporting.sections.confusion import Pair, cells_of, confused_pairs, heat_map, in_words

NAMES = ("heart", "star", "moon")
FOUND = Confusion(
    n_queries=np.array([[60, 30, 15], [30, 60, 0], [15, 0, 60]]),
    n_taken=np.array([[40, 12, 8], [3, 57, 0], [0, 0, 60]]),
    n_episodes=np.array([[12, 6, 1], [6, 12, 0], [1, 0, 12]]),
)
"""Heart is taken for star in 40 % of 6 episodes, for moon in 53 % of one; star and moon never met."""


def texts(svg: str) -> list[str]:
    return [element.text or "" for element in ElementTree.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")]


def test_a_high_rate_of_a_single_episode_does_not_stand_first() -> None:
    assert confused_pairs(FOUND) == [
        Pair(asked=0, taken_for=1),
        Pair(asked=0, taken_for=2),
        Pair(asked=1, taken_for=0),
    ]


def test_a_confusion_is_said_with_what_it_is_a_share_of() -> None:
    assert in_words(FOUND, confused_pairs(FOUND)[:1], NAMES) == [
        "When heart and star met in an episode, heart was taken for star in 40.0\u00a0% of its 30 queries, in 6 "
        "episodes."
    ]


def test_cells_are_the_classes_of_the_first_pairs_each_once() -> None:
    pairs = [Pair(asked=4, taken_for=1), Pair(asked=1, taken_for=4), Pair(asked=2, taken_for=1)]
    assert cells_of(pairs, 12) == [4, 1, 2]
    assert cells_of(pairs, 2) == [4, 1]


def test_every_cell_has_its_number_and_pairs_that_never_met_a_dot() -> None:
    shown = texts(heat_map(FOUND.rate, NAMES, name="heat"))
    assert sorted(text for text in shown if text == "·" or text.isdigit()) == sorted(["40", "53", "10", "0", "·", "·"])
    assert [shown.count(name) for name in NAMES] == [2, 2, 2]


def test_classes_and_images_of_a_map_are_spread_evenly_over_all(monkeypatch: pytest.MonkeyPatch) -> None:
    labels = np.repeat(np.arange(5), 9)
    bank = FeatureBank.from_arrays(np.ones((45, 2)), labels)
    monkeypatch.setattr(feature_map, "MAX_CLASSES", 3)
    monkeypatch.setattr(feature_map, "MAX_IMAGES", 2)
    assert feature_map.rows_to_map(bank).tolist() == [0, 8, 18, 26, 36, 44]


def test_a_map_of_600_images_is_small_and_each_class_has_its_own_marker_or_colour_and_its_name() -> None:
    labels = np.repeat(np.arange(12), 50)
    places = np.random.default_rng(0).normal(size=(600, 2)) * 30
    names = [f"class {label}" for label in range(12)]
    svg = feature_map.scatter_classes(places, labels, names, name="map")
    assert len(svg) < 150_000
    assert [text for text in texts(svg) if text] == names
    uses = [use for use in ElementTree.fromstring(svg).iter("{http://www.w3.org/2000/svg}use") if use.get("x")]
    href = "{http://www.w3.org/1999/xlink}href"
    assert len(uses) == 600 and len({(use.get(href), use.get("style")) for use in uses}) == 12


def test_names_of_classes_that_lie_together_do_not_cover_one_another() -> None:
    labels = np.repeat(np.arange(12), 5)
    places = np.concatenate([np.random.default_rng(0).normal(size=(60, 2)), [[100.0, 100.0]]])
    svg = feature_map.scatter_classes(places, np.append(labels, 12), [f"class {n:02d}" for n in range(13)], name="map")
    names = [text for text in ElementTree.fromstring(svg).iter("{http://www.w3.org/2000/svg}text") if text.text]
    heights = sorted(float(text.get("y", "nan")) for text in names)
    assert len(heights) == 13
    assert min(np.diff(heights)) > 9
