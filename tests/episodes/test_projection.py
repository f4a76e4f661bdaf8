from __future__ import annotations

import numpy as np

from episodes.projection import project

LABELS = np.repeat(np.arange(3), 20)


def features() -> np.ndarray:
    rng = np.random.default_rng(0)
    return (rng.normal(size=(3, 8))[LABELS] * 6 + rng.normal(size=(60, 8))).astype(np.float32)


def test_neighbours_of_one_class_stay_neighbours() -> None:
    places = project(features(), seed=0)
    distances = np.linalg.norm(places[:, None] - places, axis=2)
    np.fill_diagonal(distances, np.inf)
    assert (LABELS[distances.argmin(axis=1)] == LABELS).all()


def test_equal_features_give_equal_places_whatever_their_length() -> None:
    assert np.array_equal(project(features(), seed=0), project(features() * 4, seed=0))


def test_features_that_are_all_alike_or_few_or_of_one_number_have_places_too() -> None:
    for alike in (np.zeros((10, 8)), np.ones((5, 8)), np.arange(10.0)[:, None]):
        assert np.isfinite(project(alike.astype(np.float32), seed=0)).all()
