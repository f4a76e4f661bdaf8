"""Metrics of predicted probabilities, each with its unit and direction."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from episodes.arrays import IntArray

Probabilities = NDArray[np.floating]

N_BINS = 15


@dataclass(frozen=True, kw_only=True)
class Reliability:
    """Counts of predictions by confidence, in `N_BINS` equal-width bins (lower edge excluded, upper edge included).

    Attributes:
        n: (N_BINS,) int64, predictions per bin.
        confidence: (N_BINS,) float64, sum of their top probabilities.
        correct: (N_BINS,) int64, how many of them are correct.
    """

    n: IntArray
    confidence: NDArray[np.float64]
    correct: IntArray

    def __add__(self, other: Reliability) -> Reliability:
        return Reliability(
            n=self.n + other.n, confidence=self.confidence + other.confidence, correct=self.correct + other.correct
        )

    @property
    def ece(self) -> float:
        """Expected calibration error: mean gap of confidence and accuracy, weighted by n; NaN for no predictions."""
        total = int(self.n.sum())
        return float(np.abs(self.confidence - self.correct).sum() / total) if total else float("nan")


def empty_reliability() -> Reliability:
    """Return counts of zero, to which counts of predictions can be added."""
    zeros = np.zeros(N_BINS, dtype=np.int64)
    return Reliability(n=zeros, confidence=np.zeros(N_BINS), correct=zeros)


def reliability(probabilities: Probabilities, labels: IntArray) -> Reliability:
    """Count predictions by their top-label confidence (Guo et al. 2017, section 2).

    Args:
        probabilities: (n, n_classes), rows sum to 1.
        labels: (n,) int64 in 0..n_classes-1.
    """
    return count_by_confidence(probabilities.max(axis=1), probabilities.argmax(axis=1) == labels)


def count_by_confidence(confidence: NDArray[np.floating], correct: NDArray[np.bool_]) -> Reliability:
    """Count predictions in bins of their top probability; both arrays may have any shape, but the same one.

    An edge is k / N_BINS rounded to the precision of the probabilities, so that a probability of exactly an edge lies
    in the bin below it in single precision, too.
    """
    confidence, correct = confidence.reshape(-1), correct.reshape(-1)
    edges = (np.arange(1, N_BINS) / N_BINS).astype(confidence.dtype)
    bins = np.searchsorted(edges, confidence, side="left")
    return Reliability(
        n=np.bincount(bins, minlength=N_BINS).astype(np.int64),
        confidence=np.bincount(bins, weights=confidence, minlength=N_BINS).astype(np.float64),
        correct=np.bincount(bins, weights=correct, minlength=N_BINS).astype(np.int64),
    )


def accuracy(probabilities: Probabilities, labels: IntArray) -> float:
    """Return the share of rows whose most probable class is the label."""
    return float((probabilities.argmax(axis=1) == labels).mean())


def nll(probabilities: Probabilities, labels: IntArray) -> float:
    """Return the mean negative log-likelihood of the labels, nats; probabilities below 1e-12 count as 1e-12."""
    of_label = probabilities[np.arange(len(labels)), labels].astype(np.float64)
    return float(-np.log(np.maximum(of_label, 1e-12)).mean())


def brier(probabilities: Probabilities, labels: IntArray) -> float:
    """Return the Brier score: mean squared distance of probabilities from the one-hot label, in [0, 2] (Brier 1950)."""
    target = np.zeros_like(probabilities, dtype=np.float64)
    target[np.arange(len(labels)), labels] = 1.0
    return float(np.square(probabilities - target).sum(axis=1).mean())


def ece(probabilities: Probabilities, labels: IntArray) -> float:
    """Return the expected calibration error (top label, 15 equal-width bins); needs many predictions, pooled."""
    return reliability(probabilities, labels).ece
