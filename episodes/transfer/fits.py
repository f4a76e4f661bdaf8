"""Transfer fits: probes fitted on all training rows of a group of classes, or on a few per class (label efficiency).

The support of a fit has many classes; its query is the whole test part. Each repeat draws its own training rows, nested
across sizes, so that the sizes of a repeat are paired. All fits are measured on the same test rows.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from episodes.arrays import FloatArray, IntArray
from episodes.bank import FeatureBank
from episodes.fitting import ProbeError
from episodes.metrics import nll, reliability
from episodes.probes import Classifier, Probe, fit_quietly
from episodes.transfer.split import RowSplit, Size, draw_rows, smallest_class
from episodes.transforms import fit_transform

SIZES: tuple[Size, ...] = (1, 2, 4, 8, 16, "all")
C_GRID = tuple(10.0**power for power in range(-3, 5))


@dataclass(frozen=True, kw_only=True)
class TransferSpec:
    """The sizes and repeats to fit, and how a setting of the probe is chosen.

    A fit on `size` images per class chooses its setting on at most `size` validation images per class, so that few
    labels are really few; `all` takes all rows of both parts. The measured fit is on training rows alone: it is not
    repeated on training and validation rows together.

    Attributes:
        sizes: Training images per class; `all` is one fit, whatever `n_repeats`.
        n_repeats: Number of draws of training images for each other size. No draw depends on it.
        parameter: The classifier's setting to choose; None chooses nothing and uses no validation rows.
        grid: Its possible values. The first of equally good ones is chosen, so C should ascend.
        choose_by: `nll` takes the lowest NLL on validation (`accuracy` where the classifier has no probabilities).
        seed: The seed of the draws.
    """

    sizes: tuple[Size, ...] = SIZES
    n_repeats: int = 5
    parameter: str | None = "C"
    grid: tuple[float, ...] = C_GRID
    choose_by: Literal["nll", "accuracy"] = "nll"
    seed: int = 0

    @property
    def fits(self) -> list[tuple[Size, int]]:
        """The size and repeat of every fit, in order."""
        return [(size, repeat) for size in self.sizes for repeat in range(1 if size == "all" else self.n_repeats)]


@dataclass(frozen=True, kw_only=True)
class TransferFit:
    """The result of one fit.

    Attributes:
        size: Training images per class, or `all`.
        repeat: Which draw, from 0.
        n_train: Images that the probe was fitted on.
        n_validation: Images that the setting was chosen on; 0 if nothing was chosen.
        chosen: The chosen value of the grid; NaN if nothing was chosen.
        is_at_edge: Whether the first or last of several values was chosen, so that a better one may lie outside.
        accuracy: Share of test images classified correctly.
        macro_accuracy: Mean over classes of the share of the class's test images classified correctly.
        nll: Mean negative log-likelihood of the test images, nats; NaN if the classifier has no probabilities.
        ece: Expected calibration error on the test images; NaN if the classifier has no probabilities.
        n_fits: Number of values of the grid that were fitted.
        n_not_converged: How many of these stopped at their limit of iterations.
        seconds: Time of all these fits.
        correct: (n_test,) bool, whether each test image was classified correctly.
    """

    size: Size
    repeat: int
    n_train: int
    n_validation: int
    chosen: float
    is_at_edge: bool
    accuracy: float
    macro_accuracy: float
    nll: float
    ece: float
    n_fits: int
    n_not_converged: int
    seconds: float
    correct: NDArray[np.bool_]


def transfer(bank: FeatureBank, split: RowSplit, probe: Probe, spec: TransferSpec) -> Iterator[TransferFit]:
    """Fit the probe for every size and repeat, measure it on the test rows, and yield the results in this order.

    A transform that needs a reference, and has none of its own, is fitted on all training rows, without labels. One
    thread is used.

    Raises:
        ValueError: A class has too few rows in a part of the split, parts overlap, or the probe has no setting
            `spec.parameter`.
        ProbeError: scikit-learn refuses to fit the probe.
    """
    from sklearn.base import clone
    from threadpoolctl import threadpool_limits

    _check(bank, split, probe, spec)
    reference = bank.features[split.train] if probe.reference is None else probe.reference
    features = fit_transform(probe.transform, reference)(bank.features)
    labels = np.searchsorted(np.unique(bank.labels), bank.labels).astype(np.int64)
    with threadpool_limits(limits=1):
        for size, repeat in spec.fits:
            train, validation = (
                draw_rows(bank, rows, size, seed=spec.seed, repeat=repeat) for rows in (split.train, split.validation)
            )
            parts = [(features[rows], labels[rows]) for rows in (train, validation, split.test)]
            try:
                yield _fit(clone(probe.classifier), parts, spec, size=size, repeat=repeat)
            except ValueError as error:
                count = "all images" if size == "all" else f"{size} images per class"
                raise ProbeError(f"{probe.name} cannot be fitted on {count}: {error}") from error


def macro_accuracy(correct: NDArray[Any], labels: IntArray) -> float:
    """Return the mean, over all classes present, of the share of correct images of the class."""
    return float(recalls(correct, labels).mean())


def recalls(correct: NDArray[Any], labels: IntArray) -> FloatArray:
    """Return the mean of `correct` in each class present, (n_classes,)."""
    n_images = np.bincount(labels)
    sums = np.bincount(labels, weights=correct)
    means: FloatArray = sums[n_images > 0] / n_images[n_images > 0]
    return means


def _fit(
    classifier: Classifier,
    parts: Sequence[tuple[NDArray[Any], IntArray]],
    spec: TransferSpec,
    *,
    size: Size,
    repeat: int,
) -> TransferFit:
    """Fit every value of the grid and measure the best one; the parts are train, validation, test."""
    (train, train_labels), (validation, validation_labels), (test, test_labels) = parts
    start = time.perf_counter()
    grid: tuple[float | None, ...] = spec.grid if spec.parameter is not None else (None,)
    # Each C starts from the solution of the one before, which saves a third; elsewhere warm_start has other meanings.
    name, settings = spec.parameter or "", classifier.get_params()
    if name == "C" and "warm_start" in settings:
        classifier.set_params(warm_start=True)
    lowest, n_not_converged = np.inf, 0
    chosen, predicted, probabilities = None, np.empty(0), None
    for value in grid:
        if value is not None:
            classifier.set_params(**{name: _with_type_of(value, settings[name])})
        n_not_converged += not fit_quietly(classifier, train, train_labels)
        loss = -1.0 if value is None else _loss(classifier, validation, validation_labels, spec.choose_by)
        if loss < lowest:
            lowest, chosen = loss, value
            predicted, probabilities = _predict(classifier, test)
    correct = predicted == test_labels
    return TransferFit(
        size=size,
        repeat=repeat,
        n_train=len(train),
        n_validation=0 if spec.parameter is None else len(validation),
        chosen=float("nan") if chosen is None else float(chosen),
        is_at_edge=chosen is not None and len(grid) > 1 and chosen in (grid[0], grid[-1]),
        accuracy=float(correct.mean()),
        macro_accuracy=macro_accuracy(correct, test_labels),
        nll=float("nan") if probabilities is None else nll(probabilities, test_labels),
        ece=float("nan") if probabilities is None else reliability(probabilities, test_labels).ece,
        n_fits=len(grid),
        n_not_converged=n_not_converged,
        seconds=time.perf_counter() - start,
        correct=correct,
    )


def _predict(classifier: Classifier, features: NDArray[Any]) -> tuple[NDArray[Any], FloatArray | None]:
    """Return predicted labels and probabilities; None if there are no finite probabilities."""
    with warnings.catch_warnings(), np.errstate(invalid="ignore", divide="ignore"):
        warnings.simplefilter("ignore")
        predicted = np.asarray(classifier.predict(features))
        try:
            probabilities = np.asarray(classifier.predict_proba(features), dtype=np.float64)
        except (AttributeError, ValueError):
            return predicted, None
    return predicted, probabilities if np.isfinite(probabilities).all() else None


def _loss(classifier: Classifier, features: NDArray[Any], labels: IntArray, choose_by: str) -> float:
    predicted, probabilities = _predict(classifier, features)
    if choose_by == "nll" and probabilities is not None:
        return nll(probabilities, labels)
    return float((predicted != labels).mean())


def _with_type_of(value: float, current: Any) -> float:
    """Convert a whole number to int if the current value is one, such as a number of neighbours."""
    return int(value) if isinstance(current, int) and float(value).is_integer() else value


def _check(bank: FeatureBank, split: RowSplit, probe: Probe, spec: TransferSpec) -> None:
    parts = {"train": split.train, "validation": split.validation, "test": split.test}
    rows = np.concatenate(list(parts.values()))
    if len(np.unique(rows)) < len(rows):
        raise ValueError("a row of the bank is in two parts of the split; train, validation and test must share no row")
    for part, part_rows in parts.items():
        label, n_rows = smallest_class(bank.labels, part_rows)
        if n_rows == 0:
            raise ValueError(f"class {bank.class_names[label]!r} has no image in part {part!r} of the split; add one")
    label, n_rows = smallest_class(bank.labels, split.train)
    for size in spec.sizes:
        if size != "all" and not 1 <= size <= n_rows:
            raise ValueError(
                f"size {size} needs {size} training images per class, but class {bank.class_names[label]!r} has "
                f"{n_rows}; give sizes of 1 to {n_rows}, or drop the class"
            )
    settings = probe.classifier.get_params()
    if spec.parameter is not None and spec.parameter not in settings:
        raise ValueError(f"{probe.name} has no setting {spec.parameter!r}; it has {', '.join(sorted(settings))}")
    if spec.parameter is not None and not spec.grid:
        raise ValueError(f"the grid of {spec.parameter!r} is empty; give at least one value, or parameter None")
