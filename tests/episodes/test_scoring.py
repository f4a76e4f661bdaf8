from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from episodes import EpisodeSpec, EpisodeTable, FeatureBank, Manifest, Probe, make_manifest, score
from episodes.metrics import accuracy, brier, nll
from episodes.probes import knn, lda, linear_svm, logistic_regression, nearest_centroid, ridge
from episodes.scoring import ProbeError, predict
from episodes.table import collect

SPEC = EpisodeSpec(n_way=4, n_shot=3, n_query=5, n_episodes=6)


@pytest.fixture
def bank() -> FeatureBank:
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(8), 12)
    return FeatureBank.from_arrays(rng.normal(size=(96, 10)) + rng.normal(size=(8, 10))[labels] * 0.7, labels)


@pytest.fixture
def manifest(bank: FeatureBank) -> Manifest:
    return make_manifest(bank.labels, SPEC, seed=0, images_digest=bank.images_digest)


def probe(classifier: object, transform: str = "l2", solver: str = "auto") -> Probe:
    return Probe(name="probe", classifier=classifier, transform=transform, solver=solver)  # type: ignore[arg-type]


def test_scores_equal_those_of_scikit_learn_called_by_hand(bank: FeatureBank, manifest: Manifest) -> None:
    from sklearn.linear_model import LogisticRegression

    features = bank.features.astype(np.float64)
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    for solver, tolerance in (("sklearn", 1e-9), ("auto", 2e-5)):
        table = collect(score(bank, manifest, probe(logistic_regression(C=2.0, tol=1e-8), solver=solver)), {})
        for episode in manifest:
            fitted = LogisticRegression(C=2.0, max_iter=1000, tol=1e-8)
            fitted.fit(unit[episode.support], episode.support_labels)
            probabilities = fitted.predict_proba(unit[episode.query])
            assert table.accuracy[episode.index] == accuracy(probabilities, episode.query_labels)
            assert table.nll[episode.index] == pytest.approx(nll(probabilities, episode.query_labels), abs=tolerance)
            assert table.brier[episode.index] == pytest.approx(
                brier(probabilities, episode.query_labels), abs=tolerance
            )
        assert table.converged.all()
        assert table.reliability.n.sum() == 6 * 20


@pytest.mark.parametrize("factory", [logistic_regression, ridge, nearest_centroid, knn, linear_svm, lda])
def test_every_probe_is_far_above_chance_on_separated_classes(
    bank: FeatureBank, manifest: Manifest, factory: object
) -> None:
    centres = np.random.default_rng(1).normal(size=(8, 10)) * 4
    noise = np.random.default_rng(2).normal(size=(96, 10))
    far = FeatureBank.from_arrays(centres[bank.labels] + noise, bank.labels)
    table = collect(score(far, manifest, probe(factory())), {})  # type: ignore[operator]
    assert table.accuracy.mean() > 0.9


def test_nearest_centroid_at_one_shot_has_accuracy_only(bank: FeatureBank) -> None:
    spec = EpisodeSpec(n_way=4, n_shot=1, n_query=5, n_episodes=6)
    manifest = make_manifest(bank.labels, spec, seed=0, images_digest=bank.images_digest)
    table = collect(score(bank, manifest, probe(nearest_centroid(), solver="sklearn")), {})
    assert np.isfinite(table.accuracy).all()
    assert np.isnan(table.nll).all()


@pytest.mark.parametrize("factory", [ridge, linear_svm, nearest_centroid])
def test_classifiers_without_probabilities_have_accuracy_only(
    bank: FeatureBank, manifest: Manifest, factory: object
) -> None:
    table = collect(score(bank, manifest, probe(factory())), {})  # type: ignore[operator]
    assert np.isfinite(table.accuracy).all()
    assert np.isnan(table.nll).all()
    assert np.isnan(table.reliability.ece)


def test_a_fit_that_did_not_converge_is_counted(bank: FeatureBank, manifest: Manifest) -> None:
    table = collect(score(bank, manifest, probe(logistic_regression(max_iter=1), solver="sklearn")), {})
    assert not table.converged.any()


def test_a_probe_that_cannot_be_fitted_says_which_and_why(bank: FeatureBank, manifest: Manifest) -> None:
    with pytest.raises(ProbeError, match="probe cannot be fitted on episode 0"):
        list(score(bank, manifest, probe(logistic_regression(C=-1.0))))


def test_a_manifest_of_other_images_is_refused(bank: FeatureBank, manifest: Manifest) -> None:
    other = FeatureBank.from_arrays(bank.features, (bank.labels + 1) % 8)
    with pytest.raises(ValueError, match="the manifest means images"):
        list(score(other, manifest, probe(knn())))


def test_rows_of_zeros_pass_the_scaling(bank: FeatureBank, manifest: Manifest) -> None:
    zeros = FeatureBank.from_arrays(np.zeros_like(bank.features), bank.labels)
    table = collect(score(zeros, manifest, probe(logistic_regression())), {})
    assert table.accuracy.mean() == pytest.approx(0.25)


def test_predictions_of_one_episode_have_the_accuracy_of_its_score(bank: FeatureBank, manifest: Manifest) -> None:
    table = next(iter(score(bank, manifest, probe(logistic_regression()))))
    predicted = predict(bank.features, manifest[0], probe(logistic_regression()))
    assert (predicted == manifest[0].query_labels).mean() == table.accuracy[0]


def test_a_saved_table_reads_back(bank: FeatureBank, manifest: Manifest, tmp_path: Path) -> None:
    table = collect(score(bank, manifest, probe(logistic_regression())), {"manifest": manifest.hash})
    table.save(tmp_path / "t.parquet")
    again = EpisodeTable.load(tmp_path / "t.parquet")
    assert again.identity == {"manifest": manifest.hash}
    assert np.array_equal(again.classes, manifest.classes)
    for name in ("accuracy", "nll", "brier", "converged", "seconds"):
        assert np.array_equal(getattr(again, name), getattr(table, name))
    assert again.reliability.ece == table.reliability.ece


@pytest.mark.parametrize(
    ("n_features", "n_shot", "distance", "expected"),
    [(16, 1, 2.0, 0.604751), (16, 5, 2.0, 0.721287), (64, 1, 4.0, 0.703634), (64, 5, 3.0, 0.765286), (16, 5, 0.0, 0.5)],
)
def test_nearest_centroid_has_the_exact_accuracy_of_two_gaussians(
    n_features: int, n_shot: int, distance: float, expected: float
) -> None:
    """Two classes N(mu_i, I) at a distance: the accuracy is a probability of two noncentral chi-squares."""
    rng = np.random.default_rng(0)
    n_query, n_episodes = 20, 800
    n_rows = n_episodes * (n_shot + n_query)
    labels = np.repeat([0, 1], n_rows)
    features = rng.normal(size=(2 * n_rows, n_features))
    features[:n_rows, 0] += distance
    bank = FeatureBank.from_arrays(features, labels)
    rows = np.arange(2 * n_rows).reshape(2, n_episodes, -1).transpose(1, 0, 2)  # no image in two episodes
    manifest = Manifest(
        spec=EpisodeSpec(n_way=2, n_shot=n_shot, n_query=n_query, n_episodes=n_episodes),
        seed=0,
        images_digest=bank.images_digest,
        classes=np.tile([0, 1], (n_episodes, 1)),
        support=rows[:, :, :n_shot].reshape(n_episodes, -1),
        query=rows[:, :, n_shot:].reshape(n_episodes, -1),
    )
    values = collect(score(bank, manifest, probe(nearest_centroid(), "none")), {}).accuracy
    assert abs(values.mean() - expected) < 4 * values.std(ddof=1) / np.sqrt(n_episodes)
