"""Probes are classifiers, and their answers can be repeated."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.cluster import KMeans
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LinearRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from episodes import EpisodeSpec, FeatureBank, Probe, collect, draw_manifest, score
from episodes.probes import SEED, knn, linear_svm


@pytest.mark.parametrize("estimator", [LinearRegression(), KMeans(), StandardScaler(), object()])
def test_what_is_no_classifier_is_refused(estimator: object) -> None:
    with pytest.raises(ValueError, match=rf"{type(estimator).__name__} is no "):
        Probe(name="p", classifier=estimator)


def test_a_classifier_without_a_seed_gives_the_same_answers_twice() -> None:
    rng = np.random.default_rng(0)
    bank = FeatureBank.from_arrays(rng.normal(size=(40, 6)), np.arange(40) % 4)
    manifest = draw_manifest(bank, EpisodeSpec(n_way=3, n_shot=2, n_query=5, n_episodes=6), seed=0)
    forest = make_pipeline(StandardScaler(), RandomForestClassifier(n_estimators=3))
    first, second = (collect(score(bank, manifest, Probe(name="p", classifier=forest)), {}) for _ in range(2))
    assert np.array_equal(first.nll, second.nll)
    assert forest.get_params()["randomforestclassifier__random_state"] is None  # the caller's own is not changed


def test_a_seed_that_is_set_stays() -> None:
    assert Probe(name="p", classifier=RandomForestClassifier(random_state=5)).classifier.random_state == 5
    assert Probe(name="p", classifier=RandomForestClassifier()).classifier.random_state == SEED
    for classifier in (knn(), linear_svm()):
        assert Probe(name="p", classifier=classifier).classifier is classifier
