from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.stats import ortho_group
from sklearn.covariance import LedoitWolf

from episodes import transferability
from episodes.transferability import SCORES, h_score, logme, nearest_centroid

Score = Callable[[NDArray[Any], NDArray[Any]], float]
each_score = pytest.mark.parametrize("score", SCORES.values(), ids=SCORES)


def features(n_classes: int, n_images: int, n_features: int, *, apart: float = 1.0) -> tuple[Any, Any]:
    rng = np.random.default_rng([n_classes, n_images, n_features])
    labels = np.repeat(np.arange(n_classes), n_images)
    means = apart * rng.normal(size=(n_classes, n_features))
    noise = rng.normal(size=(len(labels), n_features)) * np.geomspace(3, 0.1, n_features)
    return means[labels] + noise + 0.5, labels


SHAPES = {
    "more images": features(4, 12, 6),
    "more features": features(4, 5, 40),
    "square": features(3, 5, 15),
    "one feature": features(4, 12, 1),
    "two classes": features(2, 20, 3),
    "one image of a class": features(7, 1, 4),
    "one image of a class, many features": features(7, 1, 30),
    "no signal": features(3, 20, 4, apart=0.0),
    "duplicated columns": (np.repeat(features(4, 12, 3)[0], 3, axis=1), features(4, 12, 3)[1]),
    "constant columns": (np.hstack([features(4, 12, 3)[0], np.full((48, 2), 7.0)]), features(4, 12, 3)[1]),
    "columns of zeros": (np.hstack([features(4, 12, 3)[0], np.zeros((48, 60))]), features(4, 12, 3)[1]),
    "uneven classes": (features(4, 12, 6)[0][:40], features(4, 12, 6)[1][:40]),
}
each_shape = pytest.mark.parametrize(("x", "y"), SHAPES.values(), ids=SHAPES)


def brute_logme(x: Any, y: Any) -> float:
    """Maximise the evidence of y ~ N(0, noise (I + F F' / t)) over a grid of t, then around its best point."""
    n_images, gram = len(x), x @ x.T

    def minus_evidence(log_t: float, target: Any) -> float:
        covariance = np.eye(n_images) + gram / np.exp(log_t)
        noise = float(target @ np.linalg.solve(covariance, target)) / n_images
        return 0.5 * (n_images * (np.log(2 * np.pi * noise) + 1) + float(np.linalg.slogdet(covariance)[1])) / n_images

    found = []
    for value in np.unique(y):
        target = (y == value).astype(np.float64)
        grid = np.log(np.trace(gram)) + np.linspace(-22, 22, 300)
        best = grid[np.argmin([minus_evidence(at, target) for at in grid])]
        around = minimize_scalar(minus_evidence, bounds=(best - 0.2, best + 0.2), args=(target,), method="bounded")
        found.append(-around.fun)
    return float(np.mean(found))


def brute_h_score(x: Any, y: Any) -> float:
    shrunk = LedoitWolf().fit(x)
    means = np.stack([x[y == label].mean(axis=0) for label in y])
    between = (means - x.mean(axis=0)).T @ (means - x.mean(axis=0)) / len(x)
    return float(np.trace(np.linalg.inv(shrunk.covariance_) @ between) * (1 - shrunk.shrinkage_))


def brute_nearest_centroid(x: Any, y: Any) -> float:
    n_correct = 0
    for row in range(len(x)):
        others = np.arange(len(x)) != row
        distances = {
            label: float(np.linalg.norm(x[row] - x[others & (y == label)].mean(axis=0)))
            for label in np.unique(y)
            if np.any(others & (y == label))
        }
        n_correct += min(distances, key=distances.__getitem__) == y[row]
    return n_correct / len(x)


@each_shape
def test_logme_is_the_evidence_at_its_numerical_maximum(x: Any, y: Any) -> None:
    assert logme(x, y) == pytest.approx(brute_logme(x, y), abs=1e-5)


@each_shape
def test_the_h_score_is_that_of_an_explicit_inverse_of_the_shrunk_covariance(x: Any, y: Any) -> None:
    assert h_score(x, y) == pytest.approx(brute_h_score(x, y), rel=1e-8)


@each_shape
def test_the_nearest_centroid_is_found_as_by_a_loop_that_leaves_each_image_out(x: Any, y: Any) -> None:
    assert nearest_centroid(x, y) == pytest.approx(brute_nearest_centroid(x, y))


@each_score
@each_shape
def test_a_score_depends_neither_on_rotation_scale_order_nor_names(score: Score, x: Any, y: Any) -> None:
    expected = score(x, y)
    order = np.random.default_rng(1).permutation(len(y))
    assert score(x @ ortho_group.rvs(x.shape[1], random_state=2), y) == pytest.approx(expected, abs=1e-6)
    assert score(1e6 * x, y) == pytest.approx(expected, abs=1e-6)
    assert score(1e-6 * x, y) == pytest.approx(expected, abs=1e-6)
    assert score(x[order], y[order]) == pytest.approx(expected, abs=1e-6)
    assert score(x, np.array(["zebra", "ant", "b", "c", "d", "e", "f"])[y]) == pytest.approx(expected, abs=1e-9)


@each_shape
def test_the_origin_matters_for_logme_alone(x: Any, y: Any) -> None:
    assert h_score(x + 5, y) == pytest.approx(h_score(x, y), rel=1e-7)
    assert nearest_centroid(x + 5, y) == nearest_centroid(x, y)


@each_score
def test_blocks_change_nothing(score: Score, monkeypatch: pytest.MonkeyPatch) -> None:
    wide, tall = features(4, 5, 40), features(4, 12, 6)
    expected = score(*wide), score(*tall)
    monkeypatch.setattr(transferability, "_NUMBERS_AT_ONCE", 30)
    assert (score(*wide), score(*tall)) == pytest.approx(expected, rel=1e-7)


@each_score
def test_classes_that_lie_further_apart_score_higher(score: Score) -> None:
    scores = [score(*features(6, 15, 8, apart=apart)) for apart in (0.0, 0.5, 2.0)]
    assert scores == sorted(scores) and scores[0] < scores[2]


def test_constant_features_have_the_lowest_scores() -> None:
    x, y = np.full((12, 3), 0.1, dtype=np.float32), np.repeat(np.arange(3), 4)
    assert h_score(x, y) == nearest_centroid(x, y) == 0
    assert np.isfinite(logme(x, y))
    assert logme(x, y) < logme(features(3, 4, 3)[0], y)
    assert logme(np.zeros((12, 3)), y) == pytest.approx(-0.5 * (np.log(2 * np.pi / 3) + 1))


def test_features_that_hold_the_answers_have_the_highest_finite_scores() -> None:
    y = np.repeat(np.arange(3), 20)
    answers = np.eye(3)[y] + 1e-3 * np.random.default_rng(0).normal(size=(60, 3))
    assert 1.9 < h_score(answers, y) < 2  # shrinkage keeps it below the number of classes less 1
    assert nearest_centroid(answers, y) == 1
    assert np.isfinite(logme(np.eye(3)[y], y))
    assert logme(np.eye(3)[y], y) > logme(answers, y) > logme(features(3, 20, 3)[0], y)


def test_an_image_alone_in_its_class_and_equal_distances_count_as_wrong() -> None:
    assert nearest_centroid(np.array([[0.0], [1.0], [9.0]]), np.array([0, 0, 1])) == pytest.approx(2 / 3)
    assert nearest_centroid(np.array([[0.0], [2.0], [0.0], [2.0]]), np.array([0, 0, 1, 1])) == 0
    assert nearest_centroid(np.array([[0.1], [0.1], [0.1], [0.1]]), np.array([0, 0, 1, 1])) == 0


def test_a_fixed_point_at_no_signal_is_the_evidence_without_features() -> None:
    x = np.array([[1.0], [-1.0], [1.0], [-1.0]])
    assert logme(x, np.array([0, 0, 1, 1])) == pytest.approx(-0.5 * (np.log(np.pi) + 1), abs=1e-9)


@pytest.mark.parametrize(
    ("x", "y", "words"),
    [
        (np.zeros((3, 2)), np.zeros(2), "do not belong together"),
        (np.zeros(3), np.zeros(3), "do not belong together"),
        (np.zeros((3, 0)), np.zeros(3), "at least one feature"),
        (np.zeros((3, 2)), np.zeros(3), "at least two"),
        (np.zeros((0, 2)), np.zeros(0), "at least two"),
        (np.array([[0.0], [np.nan], [1.0]]), np.array([0, 1, 1]), "row 1 .* not finite"),
        (np.array([[0.0], [1e39], [1.0]]), np.array([0, 1, 1]), "row 1 .* not finite in single precision"),
        (np.array([[0.0], [1.0], [-np.inf]]), np.array([0, 1, 1]), "row 2 .* not finite"),
    ],
)
@each_score
def test_what_has_no_score_is_refused(score: Score, x: Any, y: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        score(x, y)
