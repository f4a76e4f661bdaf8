"""The batched solvers against scikit-learn run to convergence, on kind and on nasty features."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from episodes import EpisodeSpec, FeatureBank, Probe, make_manifest, score
from episodes.fitting import ProbeError, predict
from episodes.probes import converged, knn, lda, linear_svm, logistic_regression, nearest_centroid, ridge
from episodes.scoring import AuditError
from episodes.solver import Solution, find_solver
from episodes.table import collect

Features = np.ndarray[Any, np.dtype[Any]]
N_CLASSES, N_PER_CLASS = 8, 40


def kind(rng: np.random.Generator, labels: Features) -> Features:
    return rng.normal(size=(len(labels), 24)) + rng.normal(size=(N_CLASSES, 24))[labels] * 0.8


def nearly_collapsed(rng: np.random.Generator, labels: Features) -> Features:
    return rng.normal(size=(N_CLASSES, 24))[labels] + 1e-3 * rng.normal(size=(len(labels), 24))


def all_alike(rng: np.random.Generator, labels: Features) -> Features:
    return np.ones((len(labels), 24)) + 1e-4 * rng.normal(size=(len(labels), 24))


def duplicated(rng: np.random.Generator, labels: Features) -> Features:
    return np.repeat(kind(rng, labels)[::4], 4, axis=0)


def with_zeros(rng: np.random.Generator, labels: Features) -> Features:
    features = kind(rng, labels)
    features[::5] = 0
    return features


def partly_equal(rng: np.random.Generator, labels: Features) -> Features:
    """Episodes of equal images beside kind ones: the first are done at once, and must stay so."""
    features = kind(rng, labels)
    features[labels < 6] = 1.0 + 1e-6 * rng.normal(size=(6 * N_PER_CLASS, 24))
    return features


def wide(rng: np.random.Generator, labels: Features) -> Features:
    return rng.normal(size=(len(labels), 700)) + 0.3 * rng.normal(size=(N_CLASSES, 700))[labels]


INPUTS: list[Callable[..., Features]] = [kind, nearly_collapsed, all_alike, duplicated, with_zeros, partly_equal, wide]
PROBES: dict[str, Callable[[], Any]] = {
    "logistic_regression": logistic_regression,
    "logistic_regression, C=10": lambda: logistic_regression(C=10.0),
    "logistic_regression, C=0.1": lambda: logistic_regression(C=0.1),
    "ridge": ridge,
    "nearest_centroid": nearest_centroid,
    "1-nn": knn,
    "3-nn": lambda: knn(n_neighbors=3),
}


def bank_of(make: Callable[..., Features]) -> FeatureBank:
    labels = np.repeat(np.arange(N_CLASSES), N_PER_CLASS)
    return FeatureBank.from_arrays(make(np.random.default_rng(0), labels), labels)


@pytest.mark.parametrize("transform", ["l2", "none"])
@pytest.mark.parametrize("name", PROBES)
@pytest.mark.parametrize("make", INPUTS, ids=lambda make: make.__name__)
def test_every_prediction_is_that_of_scikit_learn_at_convergence(
    make: Callable[..., Features], name: str, transform: str
) -> None:
    bank, classifier = bank_of(make), PROBES[name]()
    for n_way, n_shot in ((2, 3), (5, 1), (5, 5)):
        if n_way * n_shot < 3 or ("3-nn" in name and n_shot == 1 and n_way == 2):
            continue
        spec = EpisodeSpec(n_way=n_way, n_shot=n_shot, n_query=8, n_episodes=12)
        manifest = make_manifest(bank.labels, spec, seed=n_shot, images_digest=bank.images_digest)
        probe = Probe(name="probe", classifier=classifier, transform=transform)
        table = collect(score(bank, manifest, probe, audit_share=1.0), {})  # every certain episode is audited
        exact = Probe(name="probe", classifier=converged(classifier), transform=transform, solver="sklearn")
        expected = collect(score(bank, manifest, exact), {})
        assert np.array_equal(table.accuracy, expected.accuracy)
        if table.n_by_solver["batched"] and np.isfinite(table.nll).all():
            np.testing.assert_allclose(table.nll, expected.nll, atol=2e-5)
            np.testing.assert_allclose(table.brier, expected.brier, atol=2e-5)
        assert table.n_by_solver["batched"] + table.n_by_solver["scikit-learn"] == 12


@pytest.mark.parametrize(
    "classifier",
    [logistic_regression(C=1e-4), logistic_regression(C=1e-3), ridge(alpha=1e-4), ridge(alpha=1e-6)],
    ids=["C=1e-4", "C=1e-3", "alpha=1e-4", "alpha=1e-6"],
)
@pytest.mark.parametrize("offset", [0, 10])
@pytest.mark.parametrize("n_features", [3, 16])
def test_penalties_that_leave_little_or_almost_all_free_have_the_answers_of_scikit_learn(
    classifier: Any, n_features: int, offset: int
) -> None:
    """Small weights are for the intercepts to decide, and a small penalty multiplies what the products are off by."""
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(N_CLASSES), N_PER_CLASS)
    features = rng.normal(size=(N_CLASSES, n_features))[labels] + rng.normal(size=(len(labels), n_features))
    bank = FeatureBank.from_arrays(features + offset, labels)
    spec = EpisodeSpec(n_way=5, n_shot=5, n_query=8, n_episodes=60)
    manifest = make_manifest(bank.labels, spec, seed=0, images_digest=bank.images_digest)
    table = collect(score(bank, manifest, Probe(name="probe", classifier=classifier), audit_share=1.0), {})
    assert table.n_by_solver["audited"] == table.n_by_solver["batched"]
    assert table.n_by_solver["batched"] + table.n_by_solver["scikit-learn"] == 60


def test_where_the_nearest_centroid_has_no_probabilities_no_episode_has() -> None:
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(N_CLASSES), N_PER_CLASS)
    bank = FeatureBank.from_arrays(rng.integers(0, 2, size=(len(labels), 4)), labels)  # many equal distances
    spec = EpisodeSpec(n_way=2, n_shot=5, n_query=8, n_episodes=60)
    manifest = make_manifest(bank.labels, spec, seed=0, images_digest=bank.images_digest)
    probe = Probe(name="probe", classifier=nearest_centroid(), transform="none")
    table = collect(score(bank, manifest, probe), {})
    assert 0 < table.n_by_solver["scikit-learn"] < 60
    assert np.isnan(table.nll).all() and np.isnan(table.brier).all()
    assert not table.reliability.n.any()


@pytest.mark.parametrize("classifier", [logistic_regression(C=0), knn(n_neighbors=6)], ids=["C=0", "too few to vote"])
def test_what_scikit_learn_refuses_is_refused_with_the_episode(classifier: Any) -> None:
    bank = bank_of(kind)
    spec = EpisodeSpec(n_way=5, n_shot=1, n_query=8, n_episodes=30)
    manifest = make_manifest(bank.labels, spec, seed=0, images_digest=bank.images_digest)
    with pytest.raises(ProbeError, match="probe cannot be fitted on episode 0: "):
        list(score(bank, manifest, Probe(name="probe", classifier=classifier), audit_share=0))


@pytest.mark.parametrize("C", [1.0, 100.0])
def test_ten_thousand_predictions_are_also_those_of_the_solver_that_scikit_learn_takes_unasked(C: float) -> None:  # noqa: N803
    bank = bank_of(kind)
    spec = EpisodeSpec(n_way=5, n_shot=5, n_query=8, n_episodes=250)
    manifest = make_manifest(bank.labels, spec, seed=0, images_digest=bank.images_digest)
    predicted = []
    for solver, tol in (("auto", 1e-6), ("sklearn", 1e-8)):
        classifier = logistic_regression(C=C, tol=tol, max_iter=10_000)
        assert classifier.solver == "lbfgs"
        probe = Probe(name="probe", classifier=classifier, solver=solver)
        table = collect(score(bank, manifest, probe), {})
        predicted.append(table.predicted)
    assert predicted[0].size == 10_000
    assert np.array_equal(*predicted)


@pytest.mark.parametrize("transform", ["l2", "none"])
@pytest.mark.parametrize("name", PROBES)
def test_queries_of_another_bank_have_the_predictions_of_scikit_learn_called_by_hand(name: str, transform: str) -> None:
    from sklearn.preprocessing import normalize

    bank = bank_of(kind)
    changed = bank.features + 0.5 * np.random.default_rng(5).normal(size=bank.features.shape)
    other = FeatureBank.from_arrays(changed, bank.labels)
    spec = EpisodeSpec(n_way=5, n_shot=3, n_query=8, n_episodes=20)
    manifest = make_manifest(bank.labels, spec, seed=0, images_digest=bank.images_digest)
    probe = Probe(name="probe", classifier=PROBES[name](), transform=transform)
    table = collect(score(bank, manifest, probe, query_bank=other, audit_share=1.0), {})
    assert transform == "none" or "C=10" in name or table.n_by_solver["audited"] > 0
    for episode, accuracy in zip(manifest, table.accuracy, strict=True):
        support, query = bank.features[episode.support], other.features[episode.query]
        if transform == "l2":
            support, query = normalize(support), normalize(query)
        fitted = converged(PROBES[name]()).fit(support.astype(float), episode.support_labels)
        assert accuracy == (fitted.predict(query.astype(float)) == episode.query_labels).mean()
        predicted = predict(bank.features, episode, probe, query_features=other.features)
        assert accuracy == pytest.approx((predicted == episode.query_labels).mean(), abs=1 / 40)
    turned = collect(score(other, manifest, probe, query_bank=bank), {})
    assert not np.array_equal(turned.accuracy, table.accuracy)


def test_queries_of_the_same_bank_given_twice_change_nothing() -> None:
    bank = bank_of(kind)
    spec = EpisodeSpec(n_way=5, n_shot=2, n_query=5, n_episodes=30)
    manifest = make_manifest(bank.labels, spec, seed=0, images_digest=bank.images_digest)
    again = FeatureBank.from_arrays(bank.features.copy(), bank.labels)
    for solver in ("auto", "sklearn"):
        probe = Probe(name="probe", classifier=logistic_regression(), solver=solver)
        one, two = (collect(score(bank, manifest, probe, query_bank=other), {}) for other in (None, again))
        assert np.array_equal(one.accuracy, two.accuracy)
        assert np.array_equal(one.nll, two.nll)


@pytest.mark.parametrize("rows", [slice(0, -1), slice(None)], ids=["other images", "other features"])
def test_banks_that_do_not_belong_together_are_refused(rows: slice) -> None:
    bank = bank_of(kind)
    spec = EpisodeSpec(n_way=5, n_shot=2, n_query=5, n_episodes=3)
    manifest = make_manifest(bank.labels, spec, seed=0, images_digest=bank.images_digest)
    other = FeatureBank.from_arrays(bank.features[rows, :-1], bank.labels[rows])
    with pytest.raises(ValueError, match="both must be equal"):
        list(score(bank, manifest, Probe(name="p", classifier=ridge()), query_bank=other))


def test_ten_thousand_queries_have_the_predictions_of_scikit_learn() -> None:
    bank = bank_of(kind)
    spec = EpisodeSpec(n_way=5, n_shot=5, n_query=15, n_episodes=140)
    manifest = make_manifest(bank.labels, spec, seed=0, images_digest=bank.images_digest)
    probe = Probe(name="probe", classifier=logistic_regression())
    table = collect(score(bank, manifest, probe, audit_share=1.0), {})
    assert table.n_by_solver["audited"] == table.n_by_solver["batched"] >= 135
    assert table.n_by_solver["audited"] * 75 > 10_000


@pytest.mark.parametrize(
    ("name", "scale", "offset", "transform", "solver"),
    [
        *(
            (name, 1.0, 0.0, transform, "batched")
            for name in PROBES
            if "C=10" not in name
            for transform in ("l2", "none")
        ),
        ("logistic_regression, C=10", 1.0, 0.0, "l2", "batched"),
        ("logistic_regression, C=10", 1.0, 0.0, "none", "scikit-learn"),
        *((name, 1.0, 10.0, "none", "scikit-learn") for name in PROBES),
        *((name, 10.0, 0.0, "none", "scikit-learn") for name in PROBES),
    ],
)
def test_features_need_scikit_learn_where_they_are_long(
    name: str, scale: float, offset: float, transform: str, solver: str
) -> None:
    bank = bank_of(lambda *of: scale * 0.8 * wide(*of) + offset)  # of a squared length of 500
    spec = EpisodeSpec(n_way=5, n_shot=2, n_query=5, n_episodes=20)
    manifest = make_manifest(bank.labels, spec, seed=0, images_digest=bank.images_digest)
    probe = Probe(name="probe", classifier=PROBES[name](), transform=transform)
    assert collect(score(bank, manifest, probe, audit_share=1.0), {}).n_by_solver[solver] >= 19


@pytest.mark.parametrize(
    "name", ["logistic_regression", "logistic_regression, C=10", "ridge", "nearest_centroid", "1-nn"]
)
def test_features_that_differ_by_a_hundredth_need_no_scikit_learn(name: str) -> None:
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(N_CLASSES), N_PER_CLASS)
    bank = FeatureBank.from_arrays(rng.normal(size=24) + 1e-2 * kind(rng, labels), labels)
    spec = EpisodeSpec(n_way=5, n_shot=5, n_query=8, n_episodes=30)
    manifest = make_manifest(bank.labels, spec, seed=0, images_digest=bank.images_digest)
    table = collect(score(bank, manifest, Probe(name="probe", classifier=PROBES[name]()), audit_share=1.0), {})
    assert table.n_by_solver == {"batched": 30, "scikit-learn": 0, "audited": 30}


@pytest.mark.parametrize("name", ["logistic_regression", "ridge", "nearest_centroid", "1-nn"])
def test_what_single_precision_leaves_open_is_solved_in_double(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    from episodes import inner_products

    bank, probe = bank_of(kind), Probe(name="probe", classifier=PROBES[name]())
    spec = EpisodeSpec(n_way=5, n_shot=3, n_query=8, n_episodes=40)
    manifest = make_manifest(bank.labels, spec, seed=0, images_digest=bank.images_digest)
    plain = collect(score(bank, manifest, probe), {})
    monkeypatch.setattr(inner_products, "SINGLE_ERROR", 1.0)  # as if nothing were known in single precision
    table = collect(score(bank, manifest, probe, audit_share=1.0), {})
    assert table.n_by_solver == {"batched": 40, "scikit-learn": 0, "audited": 40}
    assert np.array_equal(table.predicted, plain.predicted)
    np.testing.assert_allclose(table.nll, plain.nll, atol=1e-6)


@pytest.mark.parametrize("n_features", [1, 24, 700, 4096])
@pytest.mark.parametrize("n_rows", [1, 2, 5, 8, 9, 16, 17, 100])
def test_a_gram_matrix_is_that_of_double_precision(n_rows: int, n_features: int) -> None:
    import torch

    from episodes.inner_products import multiply_rows

    rows = torch.randn(3, n_rows, n_features, generator=torch.Generator().manual_seed(0))
    out = torch.full((3, n_rows, n_rows), float("nan"))
    multiply_rows(rows, out)
    exact = rows.double() @ rows.double().transpose(1, 2)
    longest = float(exact.diagonal(dim1=1, dim2=2).max())
    np.testing.assert_allclose(out.numpy(), exact.numpy(), atol=2.5e-7 * longest)


@pytest.mark.parametrize("shapes", [(5, 640, 75), (20, 640, 300), (20, 100, 640), (100, 4000, 300), (3, 2, 1)])
@pytest.mark.parametrize("is_given", [True, False])
def test_products_are_the_same_however_they_are_cut(shapes: tuple[int, int, int], is_given: bool) -> None:
    import torch

    from episodes.solver import multiply

    m, k, n = shapes
    generator = torch.Generator().manual_seed(0)
    left, right = torch.randn(2, m, k, generator=generator), torch.randn(2, n, k, generator=generator).transpose(1, 2)
    out = torch.full((2, m, n), float("nan")) if is_given else None
    found = multiply(left, right, out)
    assert out is None or found.data_ptr() == out.data_ptr()
    np.testing.assert_allclose(found.numpy(), (left.double() @ right.double()).numpy(), atol=1e-3)
    np.testing.assert_allclose(multiply(left.double(), right.double()).numpy(), found.numpy(), atol=1e-3)


def test_blocks_do_not_change_an_episodes_result(monkeypatch: pytest.MonkeyPatch) -> None:
    from episodes import scoring

    bank = bank_of(kind)
    spec = EpisodeSpec(n_way=5, n_shot=2, n_query=5, n_episodes=50)
    manifest = make_manifest(bank.labels, spec, seed=0, images_digest=bank.images_digest)
    probe = Probe(name="probe", classifier=logistic_regression())
    whole = collect(score(bank, manifest, probe), {})
    monkeypatch.setattr(scoring, "MAX_BATCHED_EPISODES", 9)
    blocks = list(score(bank, manifest, probe))
    assert [len(block) for block in blocks] == [9, 9, 9, 9, 9, 5]
    parts = collect(blocks, {})
    assert np.array_equal(parts.accuracy, whole.accuracy)
    np.testing.assert_allclose(parts.nll, whole.nll, atol=1e-5)
    assert parts.index.tolist() == list(range(50))


@pytest.mark.parametrize("n_at_once", [9, 100, 256])
def test_the_episode_that_ends_the_scoring_does_not_depend_on_blocks(
    monkeypatch: pytest.MonkeyPatch, n_at_once: int
) -> None:
    from episodes import scoring
    from episodes.intervals import half_width

    bank, target = bank_of(kind), 0.0075
    spec = EpisodeSpec(n_way=5, n_shot=1, n_query=8, n_episodes=1000)
    manifest = make_manifest(bank.labels, spec, seed=0, images_digest=bank.images_digest)
    probe = Probe(name="probe", classifier=nearest_centroid())
    whole = collect(score(bank, manifest, probe), {})
    monkeypatch.setattr(scoring, "MAX_BATCHED_EPISODES", n_at_once)
    stopped = collect(score(bank, manifest, probe, target_ci95=target), {})
    widths = {n: half_width(float(whole.accuracy[:n].std(ddof=1)), n) for n in range(200, 1000, 100)}
    assert len(stopped) == next(n for n, width in widths.items() if width <= target)
    assert 200 < len(stopped) < 1000
    assert np.array_equal(stopped.accuracy, whole.accuracy[: len(stopped)])
    assert stopped.n_by_solver["audited"] >= 20


def test_a_solver_that_is_wrong_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    from episodes import scoring

    def wrong(block: Any) -> Solution:
        import torch

        n_episodes, _, n_query = block.of_query(None).shape
        return Solution(
            predicted=torch.zeros(n_episodes, n_query, dtype=torch.int64),
            probabilities=None,
            is_certain=torch.ones(n_episodes, dtype=torch.bool),
        )

    monkeypatch.setattr(scoring, "find_solver", lambda classifier: wrong)
    bank = bank_of(kind)
    spec = EpisodeSpec(n_way=5, n_shot=2, n_query=5, n_episodes=30)
    manifest = make_manifest(bank.labels, spec, seed=0, images_digest=bank.images_digest)
    with pytest.raises(AuditError, match="differs from scikit-learn in"):
        list(score(bank, manifest, Probe(name="probe", classifier=logistic_regression())))
    assert len(list(score(bank, manifest, Probe(name="p", classifier=logistic_regression()), audit_share=0))) == 1


@pytest.mark.parametrize(
    ("classifier", "has_solver"),
    [
        (logistic_regression(), True),
        (logistic_regression(class_weight="balanced"), False),
        (logistic_regression(fit_intercept=False), False),
        (logistic_regression(l1_ratio=0.5, solver="saga"), False),
        (ridge(), True),
        (ridge(positive=True), False),
        (ridge(alpha=0), False),
        (logistic_regression(C=0), False),
        (ridge(class_weight="balanced"), False),
        (knn(weights="distance"), False),
        (knn(metric_params={"w": np.arange(24)}), False),
        (nearest_centroid(metric="manhattan"), False),
        (nearest_centroid(priors="empirical"), False),
        (lda(), False),
        (linear_svm(), False),
    ],
)
def test_only_settings_whose_answer_is_known_have_a_solver(classifier: Any, has_solver: bool) -> None:
    assert (find_solver(classifier) is not None) == has_solver


def test_the_literal_estimator_is_used_when_asked_for() -> None:
    bank = bank_of(kind)
    spec = EpisodeSpec(n_way=5, n_shot=2, n_query=5, n_episodes=10)
    manifest = make_manifest(bank.labels, spec, seed=0, images_digest=bank.images_digest)
    probe = Probe(name="probe", classifier=logistic_regression(max_iter=1), solver="sklearn")
    table = collect(score(bank, manifest, probe), {})
    assert table.n_by_solver == {"scikit-learn": 10}
    assert not table.converged.any()
    predicted = predict(bank.features, manifest[0], probe)
    assert (predicted == manifest[0].query_labels).mean() == table.accuracy[0]
