"""Table of transfer results, one row per fit, its Parquet file, and means with confidence intervals.

`ci95_repeats` covers other draws of the training images, with these test images. `ci95_images` covers other test images
of these classes, with these training images. Neither covers other classes or another seed of the backbone.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from episodes.arrays import FloatArray, IntArray
from episodes.cards import NUMBERS, TRUTHS, Kind, check_card, read_card
from episodes.files import atomic_path
from episodes.intervals import NORMAL_95, bound_without_exceptions, half_width, wilson
from episodes.transfer.fits import TransferFit, recalls
from episodes.transfer.split import Size

COLUMNS = tuple(TransferFit.__dataclass_fields__)
_KINDS: Mapping[str, Kind] = {
    "size": str,
    "is_at_edge": bool,
    "correct": TRUTHS,
    **dict.fromkeys(("repeat", "n_train", "n_validation", "n_fits", "n_not_converged"), int),
    **dict.fromkeys(("chosen", "accuracy", "macro_accuracy", "nll", "ece", "seconds"), float),
}
"""Types of the columns."""


@dataclass(frozen=True, kw_only=True)
class TransferTable:
    """The fits of one probe on one split of one bank.

    Attributes:
        fits: In the order of `TransferSpec.fits`.
        test_labels: (n_test,) int64, the class of each test image.
        identity: JSON-serialisable: images, split, spec, the probe's settings, the bank's identity.
    """

    fits: tuple[TransferFit, ...]
    test_labels: IntArray
    identity: dict[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.fits)

    @property
    def sizes(self) -> list[Size]:
        """The sizes, in order."""
        return list(dict.fromkeys(fit.size for fit in self.fits))

    def of_size(self, size: Size) -> list[TransferFit]:
        """Return the fits of one size, one per repeat."""
        return [fit for fit in self.fits if fit.size == size]

    def save(self, path: Path | str) -> None:
        """Write a Parquet file with the columns `COLUMNS`; identity and test labels go into its metadata."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        columns: dict[str, list[Any]] = {name: [getattr(fit, name) for fit in self.fits] for name in COLUMNS}
        columns["size"] = [str(size) for size in columns["size"]]
        columns["correct"] = [correct.tolist() for correct in columns["correct"]]
        metadata = {"identity": json.dumps(self.identity), "test_labels": json.dumps(self.test_labels.tolist())}
        with atomic_path(path) as temporary:
            pq.write_table(pa.table(columns).replace_schema_metadata(metadata), temporary)

    @classmethod
    def load(cls, path: Path | str) -> TransferTable:
        """Read a file that `save` wrote.

        Raises:
            FileNotFoundError: There is no such file.
            ValueError: The file is not a table of a transfer.
        """
        import pyarrow.parquet as pq

        table = pq.read_table(path)
        metadata = table.schema.metadata or {}
        if b"test_labels" not in metadata or tuple(table.column_names) != COLUMNS:
            raise ValueError(f"{path} is not a table of a transfer: it should have the columns {', '.join(COLUMNS)}")
        labels = read_card(b'{"labels": %s}' % metadata[b"test_labels"], {"labels": NUMBERS}, what="the test labels")
        test_labels = np.array(labels["labels"], dtype=np.int64)
        rows = [_checked(row, len(test_labels)) for row in table.to_pylist()]
        return cls(
            fits=tuple(TransferFit(**row) for row in rows),
            test_labels=test_labels,
            identity=read_card(metadata[b"identity"], {}, what="the identity of the results"),
        )


@dataclass(frozen=True, kw_only=True)
class TransferFigure:
    """The mean of a metric over the repeats of one size, with confidence intervals.

    Attributes:
        mean: Mean over repeats.
        n: Number of repeats.
        std: Standard deviation over repeats (ddof 1); None for one fit.
        ci95_repeats: Half width of the 95 % interval over draws of the training images (Student's t); None for one fit.
        ci95_images: The 95 % interval over test images, low and high: Wilson's for the accuracy of one fit, otherwise
            normal; None for other metrics, or if a class has a single test image.
    """

    mean: float
    n: int
    std: float | None
    ci95_repeats: float | None
    ci95_images: tuple[float, float] | None


@dataclass(frozen=True, kw_only=True)
class SizeSummary:
    """All metrics of one size, over its repeats.

    Attributes:
        n_train: Images fitted on.
        n_validation: Images that the setting was chosen on.
        n_test: Images measured on.
        accuracy: Share of test images classified correctly.
        macro_accuracy: Mean over classes of that share.
        nll: Nats; None if the classifier has no probabilities.
        ece: Fraction; None if the classifier has no probabilities.
        chosen: The chosen value of the grid, one per repeat; None if nothing was chosen.
        n_at_edge: Number of repeats that chose the first or last value of the grid.
        n_not_converged: Number of fits that stopped at their limit of iterations, over all values of the grid.
        n_fits: Total number of fits.
        seconds: Total time.
    """

    n_train: int
    n_validation: int
    n_test: int
    accuracy: TransferFigure
    macro_accuracy: TransferFigure
    nll: TransferFigure | None
    ece: TransferFigure | None
    chosen: tuple[float, ...] | None
    n_at_edge: int
    n_not_converged: int
    n_fits: int
    seconds: float


def collect_fits(fits: Iterable[TransferFit], test_labels: IntArray, identity: dict[str, Any]) -> TransferTable:
    """Collect all fits into one table.

    Args:
        fits: What `transfer` yields.
        test_labels: (n_test,) int64 class of each test row, in the order of the split.
        identity: See `TransferTable`.
    """
    return TransferTable(fits=tuple(fits), test_labels=np.asarray(test_labels, dtype=np.int64), identity=identity)


def summarise_transfer(table: TransferTable) -> dict[Size, SizeSummary]:
    """Summarise the fits of every size: means over repeats with confidence intervals."""
    return {size: _summarise(table.of_size(size), table.test_labels) for size in table.sizes}


def paired_transfer(a: TransferTable, b: TransferTable) -> dict[Size, TransferFigure]:
    """Return the paired difference in accuracy, a minus b, of two backbones on the same draws and test images, by size.

    Raises:
        ValueError: The tables differ in images, split, sizes or draws.
    """
    same = [key for key in ("images", "split", "spec") if a.identity.get(key) != b.identity.get(key)]
    if same or not np.array_equal(a.test_labels, b.test_labels):
        raise ValueError(f"two transfers that differ in {', '.join(same) or 'test images'} cannot be paired")
    return {size: _over_images(_correct(a.of_size(size)) - _correct(b.of_size(size))) for size in a.sizes}


def _summarise(fits: list[TransferFit], test_labels: IntArray) -> SizeSummary:
    correct = _correct(fits)

    def figure(name: str) -> TransferFigure | None:
        values = np.array([getattr(fit, name) for fit in fits])
        return _figure(values, None) if np.isfinite(values).all() else None

    return SizeSummary(
        n_train=fits[0].n_train,
        n_validation=fits[0].n_validation,
        n_test=len(test_labels),
        accuracy=_accuracy(correct),
        macro_accuracy=_macro_accuracy(correct, test_labels),
        nll=figure("nll"),
        ece=figure("ece"),
        chosen=None if np.isnan(fits[0].chosen) else tuple(fit.chosen for fit in fits),
        n_at_edge=sum(fit.is_at_edge for fit in fits),
        n_not_converged=sum(fit.n_not_converged for fit in fits),
        n_fits=sum(fit.n_fits for fit in fits),
        seconds=sum(fit.seconds for fit in fits),
    )


def _correct(fits: list[TransferFit]) -> FloatArray:
    """Return a float matrix (n_repeats, n_test): 1 for correct, 0 for wrong."""
    return np.stack([fit.correct for fit in fits]).astype(np.float64)


def _accuracy(correct: FloatArray) -> TransferFigure:
    n_repeats, n_test = correct.shape
    if n_repeats == 1:
        low, high = wilson(float(correct.mean()), n_test)
        return _figure(correct.mean(axis=1), (float(low), float(high)))
    return _over_images(correct)


def _over_images(values: FloatArray) -> TransferFigure:
    """Summarise (n_repeats, n_test) values, with the normal interval over images, each averaged over repeats."""
    of_image = values.mean(axis=0)
    if (values == 1).all():  # no spread to take an error from
        low, high = wilson(1.0, len(of_image))
        return _figure(values.mean(axis=1), (float(low), float(high)))
    error = of_image.std(ddof=1) / np.sqrt(len(of_image)) if len(of_image) > 1 else None
    return _figure(values.mean(axis=1), _normal(float(of_image.mean()), error))


def _macro_accuracy(correct: FloatArray, labels: IntArray) -> TransferFigure:
    """Summarise macro accuracy, with the normal interval of a mean over strata; each class has its own variance."""
    of_image = correct.mean(axis=0)
    n_images = np.bincount(labels)
    n_images = n_images[n_images > 0]
    error = None
    if n_images.min() > 1:
        mean = recalls(of_image, labels)
        variance = (recalls(np.square(of_image), labels) - np.square(mean)) * n_images / (n_images - 1)
        error = np.sqrt(np.maximum(variance / n_images, 0).sum()) / len(n_images)
    values = np.array([recalls(row, labels).mean() for row in correct])
    return _figure(values, _normal(float(values.mean()), error))


def _figure(values: FloatArray, ci95_images: tuple[float, float] | None) -> TransferFigure:
    n = len(values)
    std = float(values.std(ddof=1)) if n > 1 else None
    return TransferFigure(
        mean=float(values.mean()),
        n=n,
        std=std,
        ci95_repeats=None
        if std is None
        else bound_without_exceptions(n)
        if (values == 1).all()
        else half_width(std, n),
        ci95_images=ci95_images,
    )


def _normal(mean: float, error: Any) -> tuple[float, float] | None:
    return None if error is None else (mean - NORMAL_95 * float(error), mean + NORMAL_95 * float(error))


def _checked(row: dict[str, Any], n_test: int) -> dict[str, Any]:
    """Return the entries of a fit.

    Raises:
        ValueError: One is of another type, or the answers are not as many as test images.
    """
    may_be_nan = [name for name in ("chosen", "nll", "ece") if row[name] != row[name]]
    kinds = {name: kind for name, kind in _KINDS.items() if name not in may_be_nan}
    check_card(row, kinds, what="a fit")
    if len(row["correct"]) != n_test or not n_test:
        raise ValueError(f"a fit has {len(row['correct'])} answers for {n_test} test images")
    return {**row, "size": _size(row["size"]), "correct": np.array(row["correct"], dtype=np.bool_)}


def _size(text: str) -> Size:
    return "all" if text == "all" else int(text)
