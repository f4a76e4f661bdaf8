"""How well features suit classes, without episodes: LogME, the H-score, and the leave-one-out nearest centroid.

Each score takes the features of labelled images and returns one number; higher is better. They use the labels of all
images, so they are no few-shot measurement: they serve to choose a backbone before anything is measured. Numbers of
different images or classes are not comparable.

All work in double precision on blocks of images. Memory grows with the square of the smaller of the numbers of images
and of features, and with the number of classes times that of features.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from episodes.arrays import FloatArray, IntArray

SMALLEST = 1e-12
"""Squared singular values below this share of the largest are noise of a forward pass in single precision, and zero."""
N_STARTS, MAX_STEPS = 30, 200
_NUMBERS_AT_ONCE = 2**22


def logme(features: NDArray[Any], labels: NDArray[Any]) -> float:
    """Return LogME, the largest log evidence of a linear model, per image and as a mean over classes.

    For a class with the one-vs-rest target y and the features F the model is y = F w + noise, with w ~ N(0, 1 / alpha)
    and noise ~ N(0, 1 / beta). The two are those that maximise the evidence (You et al. 2021, "LogME: Practical
    Assessment of Pre-trained Models for Transfer Learning"), found by the fixed-point iteration of the journal version
    (You et al. 2022, "Ranking and Tuning Pre-trained Models").

    Departures: with t = alpha / beta known the best beta has a closed form, so only t is iterated. It starts from the
    best of `N_STARTS` values, since the evidence may have several maxima. Nothing is added to denominators; instead t
    stays within 1e-12 to 1e12 times the largest squared singular value. Directions in which all features are zero add
    nothing to the evidence. So the value depends neither on the scale of the features, nor on a rotation, nor on
    columns of zeros. It does depend on their origin: there is no intercept.

    Args:
        features: (n_images, n_features), finite in single precision.
        labels: (n_images,), of any type that sorts, at least two values.

    Raises:
        ValueError: The two do not belong together, a feature is not finite, or there is a single class.
    """
    data = _checked(features, labels)
    squares, sums = _spectrum(data, np.zeros(data.features.shape[1]))
    if not len(squares):
        squares, sums = np.ones(1), np.zeros((data.n_classes, 1))  # one direction that explains nothing
    at_once = max(1, _NUMBERS_AT_ONCE // len(squares))
    starts = range(0, data.n_classes, at_once)
    evidence = [
        _evidence(squares, sums[start : start + at_once] ** 2, data.counts[start : start + at_once], data.n_images)
        for start in starts
    ]
    return float(np.concatenate(evidence).mean())


def h_score(features: NDArray[Any], labels: NDArray[Any]) -> float:
    """Return the H-score with shrinkage: the share of the scatter that is between classes, summed over directions.

    (1 - a) tr(S^-1 B), where B is the covariance of the class means, image by image, and S = (1 - a) T + a m I is the
    covariance T of all images, shrunk towards its mean variance m by the share a of Ledoit and Wolf (2004), as in
    Ibrahim et al. 2021, "Newer is not always better". Both covariances are divided by the number of images. It lies
    between 0 and the number of classes less 1; constant features have 0. The scale, origin and rotation of the features
    do not matter.

    Args:
        features: (n_images, n_features), finite in single precision.
        labels: (n_images,), of any type that sorts, at least two values.

    Raises:
        ValueError: The two do not belong together, a feature is not finite, or there is a single class.
    """
    data = _checked(features, labels)
    mean = data.mean
    squares, sums = _spectrum(data, mean)
    if not len(squares):
        return 0.0
    n_images, n_features = data.features.shape
    variances = squares / n_images
    shrinkage, level = _ledoit_wolf(data, mean, variances, n_features)
    between = (sums**2 / data.counts[:, np.newaxis]).sum(axis=0)
    kept = (1 - shrinkage) * variances
    return float((kept / (kept + shrinkage * level)) @ between)


def nearest_centroid(features: NDArray[Any], labels: NDArray[Any]) -> float:
    """Return the share of images that are nearer to the other images of their class than to any other class.

    The distance is Euclidean, to the mean of a class; of an image's own class to the mean of its other images. This is
    the leave-one-out accuracy of the nearest-centroid classifier on all images. Equal distances count as wrong, and so
    does an image that is the only one of its class. The scale, origin and rotation of the features do not matter.

    Args:
        features: (n_images, n_features), finite in single precision.
        labels: (n_images,), of any type that sorts, at least two values.

    Raises:
        ValueError: The two do not belong together, a feature is not finite, or there is a single class.
    """
    data = _checked(features, labels)
    centre = data.mean
    centroids = data.sums(centre) / data.counts[:, np.newaxis]
    lengths = np.square(centroids).sum(axis=1)
    n_correct = 0
    for rows, block in data.blocks(centre, data.n_classes):
        own, images = data.labels[rows], np.arange(len(block))
        squares = np.square(block).sum(axis=1)
        distances = squares[:, np.newaxis] - 2 * block @ centroids.T + lengths
        count = data.counts[own]
        without = distances[images, own] * np.square(count / np.maximum(count - 1, 1))
        distances[images, own] = np.inf
        margin = 1e-10 * (squares + lengths[own])  # closer distances differ by rounding only
        n_correct += int(((without < distances.min(axis=1) - margin) & (count > 1)).sum())
    return n_correct / data.n_images


SCORES: Mapping[str, Callable[[NDArray[Any], NDArray[Any]], float]] = MappingProxyType(
    {"logme": logme, "h_score": h_score, "nearest_centroid": nearest_centroid}
)


@dataclass(frozen=True, kw_only=True)
class _Data:
    """Features with the indices of their classes, all of which occur."""

    features: NDArray[Any]
    labels: IntArray
    counts: IntArray

    @property
    def n_images(self) -> int:
        return len(self.labels)

    @property
    def n_classes(self) -> int:
        return len(self.counts)

    @property
    def mean(self) -> FloatArray:
        """The mean of the features; exactly the features if all images have the same."""
        first = self.features[0].astype(np.float64)
        return np.asarray(first + self.sums(first).sum(axis=0) / self.n_images)

    def blocks(self, centre: FloatArray, n_more: int = 0) -> Iterator[tuple[slice, FloatArray]]:
        """Yield rows and their features minus `centre`; `n_more` is the number of further numbers per row."""
        at_once = max(1, _NUMBERS_AT_ONCE // (len(centre) + n_more))
        for start in range(0, self.n_images, at_once):
            rows = slice(start, start + at_once)
            yield rows, self.features[rows].astype(np.float64) - centre

    def sums(self, centre: FloatArray) -> FloatArray:
        """Return (n_classes, n_features) sums over the images of a class."""
        found = np.zeros((self.n_classes, len(centre)))
        for rows, block in self.blocks(centre):
            found += self.of_classes(rows) @ block
        return found

    def of_classes(self, rows: slice) -> Any:
        """Return (n_classes, n_rows), sparse: 1 where an image is of the class."""
        from scipy.sparse import csr_matrix

        labels = self.labels[rows]
        shape = (self.n_classes, len(labels))
        return csr_matrix((np.ones(len(labels)), (labels, np.arange(len(labels)))), shape=shape)


def _checked(features: NDArray[Any], labels: NDArray[Any]) -> _Data:
    features, labels = np.asarray(features), np.asarray(labels)
    if features.ndim != 2 or labels.shape != features.shape[:1] or not features.shape[1]:
        raise ValueError(
            f"features of shape {features.shape} and labels of shape {labels.shape} do not belong together; each image "
            "needs one row of at least one feature, and one label"
        )
    values, indices, counts = np.unique(labels, return_inverse=True, return_counts=True)
    if len(values) < 2:
        raise ValueError(f"the labels name {len(values)} classes; a score needs at least two")
    data = _Data(features=features, labels=indices.astype(np.int64), counts=counts.astype(np.int64))
    for rows, block in data.blocks(np.zeros(features.shape[1])):
        is_wrong = ~(np.abs(block) <= np.finfo(np.float32).max)
        if is_wrong.any():
            row = rows.start + int(np.argwhere(is_wrong)[0, 0])
            raise ValueError(f"row {row} of the features holds a number that is not finite in single precision")
    return data


def _spectrum(data: _Data, centre: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Decompose the features minus `centre` into singular values and vectors, and sum these over classes.

    Returns:
        (r,) squared singular values that are not zero, and (n_classes, r) sums over the images of each class of the
        left singular vectors.
    """
    n_images, n_features = data.features.shape
    gram = np.zeros((min(n_images, n_features),) * 2)
    if n_features <= n_images:
        for _, block in data.blocks(centre):
            gram += block.T @ block
        squares, vectors = _eigen(gram)
        return squares, data.sums(centre) @ vectors / np.sqrt(squares)
    at_once = max(1, _NUMBERS_AT_ONCE // n_images)
    for start in range(0, n_features, at_once):
        columns = slice(start, start + at_once)
        block = data.features[:, columns].astype(np.float64) - centre[columns]
        gram += block @ block.T
    squares, vectors = _eigen(gram)
    return squares, data.of_classes(slice(None)) @ vectors


def _eigen(gram: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return the eigenvalues of a Gram matrix that are not zero, with their vectors as columns."""
    from scipy.linalg import eigh

    values, vectors = eigh(gram, overwrite_a=True, check_finite=False, driver="evd")
    is_kept = values > SMALLEST * max(values[-1], 0.0)
    return values[is_kept], vectors[:, is_kept]


def _evidence(squares: FloatArray, x2: FloatArray, counts: IntArray, n_images: int) -> FloatArray:
    """Return the largest log evidence per image of some classes.

    Args:
        squares: (r,) squared singular values of the features.
        x2: (n_classes, r) squares of the targets in the directions of the left singular vectors.
        counts: (n_classes,) squared length of each target.
        n_images: Number of images.
    """
    outside = np.maximum(counts - x2.sum(axis=1), 0.0)  # the part of the target that no feature reaches

    def evidence(t: FloatArray) -> FloatArray:
        at = t[:, np.newaxis]
        misfit = (x2 * (at / (squares + at))).sum(axis=1) + outside
        fit = -0.5 * (np.log(2 * np.pi) + np.log(misfit / n_images) + 1)
        return np.asarray(fit - 0.5 * np.log1p(squares / at).sum(axis=1) / n_images)

    least, most = SMALLEST * squares.max(), squares.max() / SMALLEST
    starts = np.geomspace(squares.min() / 100, squares.max() * n_images, N_STARTS)
    tried = np.stack([evidence(np.full(len(x2), start)) for start in [least, *starts, most]])
    t = np.array([least, *starts, most])[tried.argmax(axis=0)]
    moving = np.arange(len(x2))
    for _ in range(MAX_STEPS):
        at, x = t[moving, np.newaxis], x2[moving]
        shares = squares / (squares + at)
        gamma, left = shares.sum(axis=1), n_images - len(squares) + (1 - shares).sum(axis=1)
        m2 = (x * shares / (squares + at)).sum(axis=1)
        residual = (x * np.square(1 - shares)).sum(axis=1) + outside[moving]
        with np.errstate(divide="ignore", over="ignore"):
            new = np.clip(gamma / m2 * (residual / left), least, most)
        is_moving = np.abs(new - t[moving]) > 1e-6 * t[moving]
        t[moving] = new
        moving = moving[is_moving]
        if not len(moving):
            break
    return np.asarray(np.maximum(evidence(t), tried.max(axis=0)))


def _ledoit_wolf(data: _Data, mean: FloatArray, variances: FloatArray, n_features: int) -> tuple[float, float]:
    """Return the share of shrinkage (Ledoit and Wolf 2004, section 3.3) and the variance that is shrunk towards."""
    fourth = sum(float(np.square(np.square(block).sum(axis=1)).sum()) for _, block in data.blocks(mean))
    level = float(variances.sum()) / n_features
    of_squares = float(np.square(variances).sum())
    distance = of_squares / n_features - level**2
    error = (fourth / data.n_images - of_squares) / (n_features * data.n_images)
    if distance <= 1e-12 * level**2:  # it is its own target already, as that of a single feature
        return 0.0, level
    return max(0.0, min(error / distance, 1.0)), level
