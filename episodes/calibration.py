"""Temperature scaling: a probe's probabilities, made as confident as they are accurate on held-out episodes.

The temperature is fitted on episodes of other classes than those that are measured, so it needs none of their labels.
Arrays of answers are (n_episodes, n_query, n_way). Where an episode has fewer classes or queries, probabilities are NaN
and labels -1.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from episodes.arrays import FloatArray, IntArray
from episodes.metrics import Probabilities, Reliability, count_by_confidence
from episodes.summary import summarise

MIN_TEMPERATURE, MAX_TEMPERATURE = 0.01, 100.0
"""Bounds of the fit. The lower one is reached if all answers are correct, the upper one if they are no better than
guesses."""
LEAST_PROBABILITY = 1e-12
"""Smaller probabilities count as this one, as in `episodes.metrics.nll`."""
FLAT = 1e-9
"""Slope of the NLL, nats, below which no temperature is better than another."""


@dataclass(frozen=True, kw_only=True)
class Temperature:
    """A fitted temperature T: probabilities become p^(1 / T), divided by their sum.

    Attributes:
        value: T; below 1 if the probe is underconfident, above 1 if it is overconfident.
        low: Lower end of its 95 % interval; None if the fit ended at a bound or the interval cannot be had.
        high: Upper end; None likewise.
        over: Units that the interval is over: other `classes` of the same kind, or only other `episodes` of the same
            classes where these do not allow the former; None without an interval.
        n_episodes: Number of held-out episodes.
        n_classes: Number of their classes.
    """

    value: float
    low: float | None
    high: float | None
    over: Literal["classes", "episodes"] | None
    n_episodes: int
    n_classes: int


@dataclass(frozen=True, kw_only=True)
class AnswerScores:
    """Quality of probabilities.

    Attributes:
        nll: (n_episodes,) float64, mean negative log-likelihood of the queries, nats.
        brier: (n_episodes,) float64, mean Brier score of the queries.
        reliability: Counts of answers by confidence, over all queries.
    """

    nll: FloatArray
    brier: FloatArray
    reliability: Reliability


def fit_temperature(probabilities: Probabilities, labels: IntArray, classes: IntArray) -> Temperature:
    """Return the temperature that minimises the mean NLL over episodes (Guo et al. 2017, section 4.2).

    The NLL is convex in b = 1 / T, and its derivative is the mean of E_b[log p] - log p(label). The interval is that of
    an M-estimator (Huber 1967): the error of the mean derivative per episode over the curvature, on the scale of log T.
    The former is over classes as for any mean over episodes, see `episodes.over_classes`.

    Args:
        probabilities: (n_episodes, n_query, n_way) answers on held-out episodes, before scaling.
        labels: (n_episodes, n_query) int64, the correct episode labels.
        classes: (n_episodes, n_way) int64, the classes of each episode; negative entries mean no class.

    Raises:
        ValueError: Fewer than two episodes, or one without a query.
    """
    n_queries = (labels >= 0).sum(axis=1)
    if len(labels) < 2 or n_queries.min() == 0:
        raise ValueError(f"a temperature needs at least two episodes with queries; there are {len(labels)}")
    episodes, queries = np.nonzero(labels >= 0)
    logs = _logs(probabilities[episodes, queries])
    of_label = logs[np.arange(len(logs)), labels[episodes, queries]]
    shares = 1 / n_queries[episodes]

    def derivatives(inverse: float) -> tuple[FloatArray, float]:
        """Return the NLL's derivative per episode, and its mean second derivative."""
        first, second = _moments(logs, inverse)
        of_episode = np.bincount(episodes, weights=(first - of_label) * shares)
        return of_episode.astype(np.float64), float((second * shares).sum() / len(labels))

    inverse, is_inside = _root(lambda place: float(derivatives(place)[0].mean()))
    low = high = None
    over: Literal["classes", "episodes"] | None = None
    if is_inside:
        slopes, curvature = derivatives(inverse)
        error = summarise(slopes, classes)
        over = "episodes" if error.ci95_classes is None else "classes"
        width = (error.ci95_episodes if error.ci95_classes is None else error.ci95_classes) / (curvature * inverse)
        ends = np.exp(np.clip([-np.log(inverse) - width, -np.log(inverse) + width], *np.log(_BOUNDS)))
        low, high = float(ends[0]), float(ends[1])
    return Temperature(
        value=1 / inverse,
        low=low,
        high=high,
        over=over,
        n_episodes=len(labels),
        n_classes=len(np.unique(classes[classes >= 0])),
    )


def apply_temperature(probabilities: Probabilities, temperature: float) -> FloatArray:
    """Return scaled probabilities, float64: p^(1 / T) over its sum, exact for the softmax of logits over T.

    No prediction changes: the first of the most probable classes stays the first of the most probable ones.

    Args:
        probabilities: (..., n_way); NaN where an episode has fewer classes.
        temperature: T, positive.
    """
    logs = _logs(probabilities) / temperature
    is_no_query = np.isnan(probabilities).all(axis=-1, keepdims=True)
    logs -= np.where(is_no_query, 0.0, logs.max(axis=-1, keepdims=True))
    scaled = np.exp(logs)
    scaled /= np.where(is_no_query, 1.0, scaled.sum(axis=-1, keepdims=True))
    before, after = (predicted(values)[..., None] for values in (probabilities, scaled))
    largest = np.take_along_axis(scaled, after, axis=-1)
    kept = np.where(before == after, largest, np.nextafter(largest, 2.0))  # rounding has made two classes equal
    np.put_along_axis(scaled, before, np.where(is_no_query, np.nan, kept), axis=-1)
    return np.where(np.isnan(probabilities), np.nan, scaled)


def are_probabilities(values: NDArray[np.floating]) -> bool:
    """Return whether values (..., n_way) are probabilities: none is negative, and those of a query sum to 1."""
    sums = np.nansum(values, axis=-1)[~np.isnan(values).all(axis=-1)]
    return bool(np.nanmin(values) >= 0 and np.abs(sums - 1).max() < 1e-3)


def predicted(values: NDArray[np.floating]) -> IntArray:
    """Return the first of the highest classes, (...,) int64, for (..., n_way) values with NaN for missing classes."""
    places: IntArray = np.where(np.isnan(values), -np.inf, values).argmax(axis=-1).astype(np.int64)
    return places


def score_answers(probabilities: Probabilities, labels: IntArray) -> AnswerScores:
    """Return NLL and Brier score of each episode, and the counts by confidence of all queries.

    Args:
        probabilities: (n_episodes, n_query, n_way).
        labels: (n_episodes, n_query) int64.
    """
    is_query = labels >= 0
    n_queries = is_query.sum(axis=1)
    filled = np.nan_to_num(np.asarray(probabilities, dtype=np.float64), nan=0.0)
    of_label = np.take_along_axis(filled, np.maximum(labels, 0)[..., None], axis=2)[..., 0]
    losses = np.where(is_query, -np.log(np.maximum(of_label, LEAST_PROBABILITY)), 0.0)
    distances = np.where(is_query, np.square(filled).sum(axis=2) + 1 - 2 * of_label, 0.0)
    confidence = np.nanmax(np.where(is_query[..., None], probabilities, -1.0), axis=2)
    return AnswerScores(
        nll=losses.sum(axis=1) / n_queries,
        brier=distances.sum(axis=1) / n_queries,
        reliability=count_by_confidence(confidence[is_query], (predicted(probabilities) == labels)[is_query]),
    )


_BOUNDS = (MIN_TEMPERATURE, MAX_TEMPERATURE)


def _logs(probabilities: Probabilities) -> FloatArray:
    """Return log probabilities, float64; -inf for missing classes."""
    values = np.asarray(probabilities, dtype=np.float64)
    return np.where(np.isnan(values), -np.inf, np.log(np.maximum(np.nan_to_num(values, nan=1.0), LEAST_PROBABILITY)))


def _moments(logs: FloatArray, inverse: float) -> tuple[FloatArray, FloatArray]:
    """Return mean and variance of each row's logs under its own probabilities at 1 / T, (n,) each."""
    scaled = np.exp(inverse * (logs - logs.max(axis=1, keepdims=True)))
    scaled /= scaled.sum(axis=1, keepdims=True)
    finite = np.where(np.isinf(logs), 0.0, logs)
    mean = (scaled * finite).sum(axis=1)
    return mean, (scaled * np.square(finite - mean[:, None])).sum(axis=1)


def _root(slope: Callable[[float], float]) -> tuple[float, bool]:
    """Return where an increasing slope is zero, or the bound at which it comes nearest, and whether it is inside."""
    from scipy.optimize import brentq

    least, most = 1 / MAX_TEMPERATURE, 1 / MIN_TEMPERATURE
    at_least, at_most = slope(least), slope(most)
    if max(abs(at_least), abs(at_most)) < FLAT:  # all probabilities are equal
        return 1.0, False
    if at_least >= 0 or at_most <= 0:
        return (least if at_least >= 0 else most), False
    return float(np.exp(brentq(lambda place: slope(np.exp(place)), np.log(least), np.log(most), xtol=1e-12))), True
