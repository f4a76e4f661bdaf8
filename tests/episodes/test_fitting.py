"""What a probe cannot be fitted on is one kind of error, whatever refuses it and wherever it is scored."""

from __future__ import annotations

import numpy as np
import pytest

from episodes import EpisodeSpec, FeatureBank, Probe, collect, draw_manifest, score
from episodes.fitting import ProbeError
from episodes.probes import knn, logistic_regression

SPEC = EpisodeSpec(n_way=3, n_shot=2, n_query=3, n_episodes=10)


def bank_of(bad_value: float = 0.0) -> FeatureBank:
    features = np.random.default_rng(0).normal(size=(60, 8)).astype(np.float32)
    features[::5, 0] = bad_value
    return FeatureBank(
        features=features,
        labels=np.repeat(np.arange(4), 15),
        image_ids=tuple(str(row) for row in range(60)),
        class_names=tuple("abcd"),
    )


@pytest.mark.parametrize(("solver", "value"), [("auto", np.nan), ("sklearn", np.nan), ("sklearn", np.inf)])
def test_features_that_are_no_numbers_are_refused_with_the_words_of_scikit_learn(solver: str, value: float) -> None:
    bank = bank_of(value)
    probe = Probe(name="p", classifier=logistic_regression(), transform="none", solver=solver)  # type: ignore[arg-type]
    with pytest.raises(ProbeError, match=r"p cannot be fitted on episode \d+: Input X contains"):
        collect(score(bank, draw_manifest(bank, SPEC, seed=0), probe), {})


@pytest.mark.parametrize(
    ("transform", "n_features", "words"),
    [
        ("pca:9", 8, "p cannot be fitted: pca:9 needs more components than a reference of shape"),
        ("center", 7, r"the reference has the shape \(20, 7\), but the bank has 8 features"),
    ],
)
def test_a_transform_that_does_not_suit_the_features_is_refused(transform: str, n_features: int, words: str) -> None:
    bank, reference = bank_of(), np.ones((20, n_features), dtype=np.float32)
    probe = Probe(name="p", classifier=knn(), transform=transform, reference=reference)
    with pytest.raises(ProbeError, match=words):
        list(score(bank, draw_manifest(bank, SPEC, seed=0), probe))
