from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pyarrow import parquet

from episodes import EpisodeSpec, EpisodeTable, FeatureBank, Manifest, Probe, make_manifest, score
from episodes.conformal import nonconformity
from episodes.fitting import ProbeError, predict
from episodes.metrics import accuracy, brier, empty_reliability, nll
from episodes.probes import knn, lda, linear_svm, logistic_regression, nearest_centroid, ridge
from episodes.specs import MetaDatasetSpec
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


@pytest.mark.parametrize("factory", [logistic_regression, ridge, nearest_centroid, knn, linear_svm])
@pytest.mark.parametrize(("n_way", "n_shot"), [(4, 3), (4, 1), (2, 3)])
def test_values_of_all_queries_agree_with_predictions_and_between_solvers(
    bank: FeatureBank, factory: Callable[..., Any], n_way: int, n_shot: int
) -> None:
    """Only differences between classes count where there are no probabilities."""
    spec = EpisodeSpec(n_way=n_way, n_shot=n_shot, n_query=5, n_episodes=30)
    manifest = make_manifest(bank.labels, spec, seed=0, images_digest=bank.images_digest)
    tables, margins = [], []
    for solver in ("auto", "sklearn"):
        blocks = list(score(bank, manifest, probe(factory(), solver=solver), with_values=True))
        table = collect(blocks, {})
        assert table.values is not None
        np.testing.assert_array_equal(table.values.argmax(axis=2), table.predicted)
        tables.append(table)
        margins.append(nonconformity(table.values, are_probabilities=False))
    np.testing.assert_allclose(*margins, atol=2e-4)
    assert collect(score(bank, manifest, probe(factory())), {}).values is None


def test_probabilities_of_episodes_of_several_forms_are_padded(bank: FeatureBank) -> None:
    spec = EpisodeSpec(n_episodes=12, meta_dataset=MetaDatasetSpec(min_way=2, max_way=4, max_query=3))
    manifest = make_manifest(bank.labels, spec, seed=0, images_digest=bank.images_digest)
    table = collect(score(bank, manifest, probe(logistic_regression()), with_values=True), {})
    assert table.values is not None
    for row, episode in enumerate(manifest):
        inside = table.values[row, : len(episode.query), : len(episode.classes)]
        np.testing.assert_allclose(inside.sum(axis=1), 1)
        assert nll(inside, episode.query_labels) == pytest.approx(table.nll[row])
        assert np.isfinite(table.values[row]).sum() == inside.size


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
    with pytest.raises(ValueError, match="the manifest was drawn on images"):
        list(score(other, manifest, probe(knn())))


@pytest.mark.parametrize("chosen", [range(0, 6, 2), range(4, 7), range(3, 0, -1)])
def test_only_episodes_of_the_manifest_one_after_another_can_be_chosen(
    bank: FeatureBank, manifest: Manifest, chosen: range
) -> None:
    with pytest.raises(ValueError, match=r"the manifest has range\(0, 6\)"):
        list(score(bank, manifest, probe(ridge()), chosen=chosen))


def test_a_reference_of_other_features_is_refused(bank: FeatureBank, manifest: Manifest) -> None:
    centred = replace(probe(ridge(), transform="cl2n"), reference=bank.features[:, :-1])
    with pytest.raises(ValueError, match=r"the reference has the shape \(96, 9\), but the bank has 10 features"):
        list(score(bank, manifest, centred))


def test_a_solver_is_one_of_two() -> None:
    with pytest.raises(ValueError, match="solver is 'scikit-learn'; it must be 'auto' or 'sklearn'"):
        probe(ridge(), solver="scikit-learn")


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
    assert again.predicted is not None and again.predicted.dtype == np.int16
    assert np.array_equal(again.predicted, table.predicted)
    assert again.n_by_solver == table.n_by_solver != {}


def make_table(**columns: np.ndarray) -> EpisodeTable:
    n_episodes = len(columns["classes"])
    values = np.linspace(0, 1, n_episodes)
    return EpisodeTable(
        index=np.arange(n_episodes),
        accuracy=values,
        nll=values,
        brier=values,
        converged=values > 0,
        seconds=values,
        reliability=empty_reliability(),
        **columns,
    )


RAGGED = np.array([[1, 0, -1], [2, 1, 0]], dtype=np.int16)


def test_predictions_of_episodes_of_unequal_size_read_back_each_at_its_own_length(tmp_path: Path) -> None:
    make_table(classes=np.array([[4, 7, -1], [0, 1, 2]]), predicted=RAGGED).save(tmp_path / "t.parquet")
    assert parquet.read_table(tmp_path / "t.parquet")["predicted"].to_pylist() == [[1, 0], [2, 1, 0]]
    again = EpisodeTable.load(tmp_path / "t.parquet")
    assert again.classes.tolist() == [[4, 7, -1], [0, 1, 2]]
    assert again.predicted is not None and again.predicted.tolist() == RAGGED.tolist()


def test_predictions_are_left_in_the_file_when_they_are_not_wanted(tmp_path: Path) -> None:
    make_table(classes=np.array([[4, 7, -1], [0, 1, 2]]), predicted=RAGGED).save(tmp_path / "t.parquet")
    again = EpisodeTable.load(tmp_path / "t.parquet", with_predicted=False)
    assert again.predicted is None
    assert again.classes.tolist() == [[4, 7, -1], [0, 1, 2]]


def test_a_file_from_before_the_predictions_were_kept_has_none(tmp_path: Path) -> None:
    make_table(classes=np.array([[4, 7], [0, 1]])).save(tmp_path / "t.parquet")
    assert "predicted" not in parquet.read_table(tmp_path / "t.parquet").column_names
    assert EpisodeTable.load(tmp_path / "t.parquet").predicted is None


def test_a_file_that_is_no_table_of_episodes_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    make_table(classes=np.array([[4, 7], [0, 1]])).save(path)
    saved = parquet.read_table(path)
    for other in (saved.drop_columns(["accuracy"]), saved.replace_schema_metadata(None)):
        parquet.write_table(other, path)
        with pytest.raises(ValueError, match="is not a table of episodes: it should have the columns index, classes"):
            EpisodeTable.load(path)


def test_a_file_from_before_the_solvers_were_counted_has_no_counts(tmp_path: Path) -> None:
    make_table(classes=np.array([[4, 7], [0, 1]])).save(tmp_path / "t.parquet")
    saved = parquet.read_table(tmp_path / "t.parquet")
    old = {name: value for name, value in saved.schema.metadata.items() if name != b"n_by_solver"}
    parquet.write_table(saved.replace_schema_metadata(old), tmp_path / "t.parquet")
    assert EpisodeTable.load(tmp_path / "t.parquet").n_by_solver == {}


def test_how_episodes_were_solved_is_counted_over_all_blocks() -> None:
    block = replace(make_table(classes=np.array([[4, 7]])), n_by_solver={"batched": 5, "audited": 1})
    other = replace(block, n_by_solver={"batched": 2, "scikit-learn": 3})
    assert collect([block, other], {}).n_by_solver == {"batched": 7, "audited": 1, "scikit-learn": 3}


def test_blocks_of_unequal_width_are_gathered_and_one_without_predictions_takes_all(tmp_path: Path) -> None:
    narrow = make_table(classes=np.array([[4, 7]]), predicted=np.array([[1, 0]], dtype=np.int16))
    wide = make_table(classes=np.array([[0, 1, 2]]), predicted=np.array([[2, 1, 0]], dtype=np.int16))
    table = collect([narrow, wide], {})
    assert table.classes.tolist() == [[4, 7, -1], [0, 1, 2]]
    assert table.predicted is not None and table.predicted.tolist() == RAGGED.tolist()
    assert collect([narrow, replace(wide, predicted=None)], {}).predicted is None


@pytest.mark.parametrize("solver", ["sklearn", "auto"])
def test_every_prediction_is_kept_in_the_order_of_the_queries(
    bank: FeatureBank, manifest: Manifest, solver: str
) -> None:
    asked = probe(logistic_regression(), solver=solver)
    table = collect(score(bank, manifest, asked), {})
    assert table.predicted is not None
    for episode in manifest:
        expected = predict(bank.features, episode, probe(logistic_regression(tol=1e-8)))
        assert table.predicted[episode.index].tolist() == expected.tolist()


def test_what_the_batched_solver_is_not_certain_of_has_the_predictions_of_scikit_learn(bank: FeatureBank) -> None:
    """Features of whole numbers have ties in their distances, which the solver leaves to scikit-learn."""
    whole = FeatureBank.from_arrays(np.round(bank.features), bank.labels)
    drawn = make_manifest(whole.labels, SPEC, seed=0, images_digest=whole.images_digest)
    tables = [collect(score(whole, drawn, probe(knn(), "none", solver)), {}) for solver in ("auto", "sklearn")]
    assert tables[0].n_by_solver["scikit-learn"] > 0
    assert np.array_equal(tables[0].predicted, tables[1].predicted)  # type: ignore[arg-type]


ORACLE = {
    (16, 1): (0.5, 0.527815, 0.604751, 0.711292, 0.819407),
    (16, 5): (0.5, 0.568650, 0.721287, 0.862053, 0.946281),
    (64, 1): (0.5, 0.514265, 0.556058, 0.621716, 0.703634),
    (64, 5): (0.5, 0.536643, 0.636111, 0.765286, 0.879533),
}
"""Exact accuracy at the distances 0 to 4, by number of features and shots."""


@pytest.mark.parametrize(
    ("n_features", "n_shot", "distance", "expected"),
    [
        (n_features, n_shot, float(distance), expected)
        for (n_features, n_shot), row in ORACLE.items()
        for distance, expected in enumerate(row)
    ],
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


def test_logistic_regression_in_the_span_of_the_support_is_that_on_raw_features(
    bank: FeatureBank, manifest: Manifest
) -> None:
    """Representer theorem: the weights lie in the span, so n_support coordinates have all that there is to know."""
    wide = np.random.default_rng(4).normal(size=(10, 300)).astype(np.float32)
    features = (bank.features @ wide).astype(np.float64) / 30
    features += np.random.default_rng(5).normal(size=features.shape) / 10
    for episode in manifest:
        support, query = features[episode.support], features[episode.query]
        basis = np.linalg.qr(support.T)[0]
        assert basis.shape == (300, len(episode.support))
        raw, spanned = (
            logistic_regression(tol=1e-10, max_iter=10_000).fit(x, episode.support_labels)
            for x in (support, support @ basis)
        )
        gap = np.abs(raw.predict_proba(query) - spanned.predict_proba(query @ basis)).max()
        assert gap < 1e-6


def test_nearest_centroid_of_one_shot_at_length_one_is_the_nearest_by_cosine(bank: FeatureBank) -> None:
    spec = EpisodeSpec(n_way=5, n_shot=1, n_query=6, n_episodes=40)
    one_shot = make_manifest(bank.labels, spec, seed=0, images_digest=bank.images_digest)
    table = collect(score(bank, one_shot, probe(nearest_centroid(), "l2")), {})
    unit = bank.features / np.linalg.norm(bank.features, axis=1, keepdims=True)
    expected = [
        ((unit[episode.query] @ unit[episode.support].T).argmax(1) == episode.query_labels).mean()
        for episode in one_shot
    ]
    assert np.array_equal(table.accuracy, expected)


@pytest.mark.parametrize("solver", ["auto", "sklearn"])
def test_names_of_classes_and_order_of_episodes_change_no_result(bank: FeatureBank, solver: str) -> None:
    spec = EpisodeSpec(n_way=4, n_shot=3, n_query=5, n_episodes=40)
    drawn = make_manifest(bank.labels, spec, seed=0, images_digest=bank.images_digest)
    plain = collect(score(bank, drawn, probe(logistic_regression(), solver=solver)), {})
    rng = np.random.default_rng(1)
    new_name, order = rng.permutation(8), rng.permutation(40)
    renamed = replace(bank, labels=new_name[bank.labels])
    turned = replace(
        drawn,
        images_digest=renamed.images_digest,
        classes=new_name[drawn.classes[order]],
        support=drawn.support[order],
        query=drawn.query[order],
    )
    found = collect(score(renamed, turned, probe(logistic_regression(), solver=solver)), {})
    assert np.array_equal(found.accuracy, plain.accuracy[order])
    np.testing.assert_allclose(found.nll, plain.nll[order], atol=1e-6)
    assert found.summary().mean == pytest.approx(plain.summary().mean, abs=1e-12)
    assert found.summary().ci95_classes == pytest.approx(plain.summary().ci95_classes, abs=1e-12)


def test_scores_do_not_depend_on_process_or_hash_seed() -> None:
    program = (
        "import hashlib, numpy as np; from episodes import *; from episodes.probes import logistic_regression;"
        "labels = np.repeat([f'class {label}' for label in range(6)], 12);"
        "bank = FeatureBank.from_arrays(np.random.default_rng(0).normal(size=(72, 8)), labels);"
        "manifest = draw_manifest(bank, EpisodeSpec(n_way=3, n_shot=2, n_query=4, n_episodes=30), seed=1);"
        "table = collect(score(bank, manifest, Probe(name='p', classifier=logistic_regression())), {});"
        "results = table.accuracy.tobytes() + table.nll.tobytes();"
        "print(manifest.hash, hashlib.sha256(results).hexdigest())"
    )
    said = {
        subprocess.run(
            [sys.executable, "-W", "ignore", "-c", program],
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for hash_seed in ("1", "2")
    }
    assert len(said) == 1


MEMORY_PROGRAM = """
import json, resource, sys
from pathlib import Path
import numpy as np
import torch  # what the libraries take is not what is measured
from threadpoolctl import threadpool_limits
from episodes import EpisodeSpec, FeatureBank, Probe, make_manifest, score_in_parallel
from episodes.executors import serial
from episodes.probes import nearest_centroid

def kib_of_files():
    line = next(line for line in open("/proc/self/status") if line.startswith("RssFile"))
    return int(line.split()[1])

before = kib_of_files()
bank = FeatureBank.load(Path(sys.argv[1]))
loaded = kib_of_files() - before
peaks = []
for n_episodes in (4096, 4096, 16384):
    spec = EpisodeSpec(n_way=5, n_shot=1, n_query=4, n_episodes=n_episodes)
    manifest = make_manifest(bank.labels, spec, seed=0, images_digest=bank.images_digest)
    probe = Probe(name="p", classifier=nearest_centroid())
    n_scored = sum(len(block) for block in score_in_parallel(bank, manifest, probe, serial(), audit_share=0))
    assert n_scored == n_episodes
    peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
print(json.dumps([loaded, *peaks]))
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the kernel does not say how much a process holds")
def test_memory_does_not_grow_with_the_episodes_of_a_bank_on_disk(tmp_path: Path) -> None:
    n_images, n_features = 1_000_000, 16
    features = np.random.default_rng(0).random((n_images, n_features), dtype=np.float32)
    FeatureBank.from_arrays(features, np.arange(n_images) % 50).save(tmp_path)
    command = [sys.executable, "-W", "ignore", "-c", MEMORY_PROGRAM, str(tmp_path)]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    loaded, _, few, many = json.loads(said)
    file_kib = n_images * n_features * 4 / 1024
    assert loaded < 0.1 * file_kib  # a map, not a copy
    assert many - few < 0.75 * file_kib  # pages of the file that were touched, and nothing for each episode


@pytest.mark.parametrize("target_ci95", [None, 0.02])
def test_features_prepared_in_parts_give_the_same_results(
    bank: FeatureBank, target_ci95: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    many = make_manifest(bank.labels, replace(SPEC, n_episodes=2500), seed=0, images_digest=bank.images_digest)

    def scored() -> list[EpisodeTable]:
        return list(score(bank, many, probe(nearest_centroid()), target_ci95=target_ci95))

    whole = scored()
    monkeypatch.setattr("episodes.scoring.LARGE_BYTES", 0)
    monkeypatch.setattr("episodes.scoring.LARGE_RANGE", 1024)
    for one, other in zip(whole, scored(), strict=True):
        assert np.array_equal(one.accuracy, other.accuracy) and np.array_equal(one.index, other.index)
