"""Fitting and scoring of one episode by scikit-learn."""

from __future__ import annotations

import time
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from episodes.arrays import FloatArray, IntArray
from episodes.inner_products import Features
from episodes.metrics import empty_reliability, reliability
from episodes.probes import Classifier, Probe, fit_quietly
from episodes.sampler import Episode
from episodes.table import EpisodeTable
from episodes.transforms import FeatureTransform, fit_transform


class ProbeError(ValueError):
    """A probe could not be fitted: scikit-learn refuses these features, or its transform does not suit them."""


def predict(
    features: NDArray[np.float32],
    episode: Episode,
    probe: Probe,
    *,
    query_features: NDArray[np.float32] | None = None,
) -> IntArray:
    """Fit the probe on one episode and return the predicted episode label of each query, (n_query,) int64.

    Args:
        features: (n_images, n_features) of the bank, before the probe's transform.
        episode: The rows of support and query.
        probe: The probe to fit.
        query_features: Features of the queries, if they come from elsewhere.
    """
    of_both = Features(support=features, query=features if query_features is None else query_features)
    return fit_episode(of_both, episode, probe, fit_transform(probe.transform, probe.reference)).predicted


@dataclass(frozen=True, kw_only=True)
class Fit:
    """Predictions of a fitted classifier for the queries; see the columns of `EpisodeTable`.

    `values` are decision values, (n_query, n_way), of the nearest centroid and of classifiers without probabilities;
    None if there are none.
    """

    predicted: IntArray
    probabilities: FloatArray | None
    values: FloatArray | None
    converged: bool
    seconds: float


def fit_episode(features: Features, episode: Episode, probe: Probe, transform: FeatureTransform) -> Fit:
    """Fit a probe's classifier on an episode, and record if it did not converge; other warnings are ignored.

    Raises:
        ProbeError: scikit-learn refuses.
    """
    classifier = probe.classifier
    support, query = transform(features.support[episode.support]), transform(features.query[episode.query])
    began = time.perf_counter()
    with warnings.catch_warnings(), np.errstate(invalid="ignore", divide="ignore"):
        warnings.simplefilter("ignore")
        try:
            is_converged = fit_quietly(classifier, support, episode.support_labels)
            predicted = np.asarray(classifier.predict(query), dtype=np.int64)
        except ValueError as error:
            raise ProbeError(f"{probe.name} cannot be fitted on episode {episode.index}: {error}") from error
        probabilities = _probabilities(classifier, query)
        values = _decision_values(classifier, query, has_probabilities=probabilities is not None)
    return Fit(
        predicted=predicted,
        probabilities=probabilities,
        values=values,
        converged=is_converged,
        seconds=time.perf_counter() - began,
    )


def score_episode(
    features: Features,
    episode: Episode,
    probe: Probe,
    transform: FeatureTransform,
    *,
    with_probabilities: bool = True,
) -> EpisodeTable:
    """Score one episode by scikit-learn, as a table of one row; probabilities can be left out."""
    fitted = fit_episode(features, episode, probe, transform)
    labels, probabilities = episode.query_labels, fitted.probabilities if with_probabilities else None
    values = probabilities if fitted.values is None else fitted.values
    nll, brier = proper_scores(None if probabilities is None else probabilities[None], labels, 1)
    return EpisodeTable(
        index=np.array([episode.index]),
        classes=np.asarray(episode.classes)[None],
        accuracy=np.array([(fitted.predicted == labels).mean()]),
        nll=nll,
        brier=brier,
        converged=np.array([fitted.converged]),
        seconds=np.array([fitted.seconds]),
        reliability=empty_reliability() if probabilities is None else reliability(probabilities, labels),
        predicted=fitted.predicted.astype(np.int16)[None],
        n_by_solver={"scikit-learn": 1},
        values=None if values is None else values[None],
    )


def proper_scores(probabilities: FloatArray | None, labels: IntArray, n_episodes: int) -> tuple[FloatArray, FloatArray]:
    """Return NLL and Brier score of each episode for (n_episodes, n_query, n_way) probabilities; NaN without them."""
    if probabilities is None:
        return np.full(n_episodes, np.nan), np.full(n_episodes, np.nan)
    of_label = probabilities[:, np.arange(len(labels)), labels].astype(np.float64)
    nll = -np.log(np.maximum(of_label, 1e-12)).mean(axis=1)
    brier = np.square(probabilities).sum(axis=(1, 2), dtype=np.float64) / len(labels) + (1 - 2 * of_label).mean(axis=1)
    return nll, brier


def _probabilities(classifier: Classifier, query: NDArray[Any]) -> NDArray[np.float64] | None:
    """Return class probabilities, or None if there are none, e.g. of the nearest centroid at one shot."""
    if not hasattr(classifier, "predict_proba"):
        return None
    try:
        probabilities: NDArray[np.float64] = classifier.predict_proba(query)
    except ValueError:
        return None
    return probabilities


def _decision_values(classifier: Classifier, query: NDArray[Any], *, has_probabilities: bool) -> FloatArray | None:
    """Return one value per query and class, higher for likelier classes; None if there are none or none are needed.

    For the nearest centroid, half the negative squared distance: scikit-learn's own value needs two shots, and its
    probabilities are of distances that it rescales, unlike those that it predicts by.
    """
    if hasattr(classifier, "centroids_") and classifier.metric == "euclidean":
        squared = np.square(query[:, None] - classifier.centroids_).sum(axis=2, dtype=np.float64)
        return np.asarray(-squared / 2)
    if has_probabilities or not hasattr(classifier, "decision_function"):
        return None
    try:
        values = np.asarray(classifier.decision_function(query), dtype=np.float64)
    except ValueError:
        return None
    values = np.stack([-values, values], axis=1) if values.ndim == 1 else values
    return values if values.shape == (len(query), len(classifier.classes_)) else None
