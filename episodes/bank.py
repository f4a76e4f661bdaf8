"""The feature bank: one row of features per image, on which all measurements are made."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from episodes.arrays import IntArray
from episodes.cards import TEXTS, Kind, read_card
from episodes.files import atomic_path, release_pages, write_text

NEARLY_CONSTANT = 1e-5
"""Features with a smaller spread are called nearly constant. A forward pass in single precision errs by up to 1.4e-6 of
the features' length (30 untrained timm models against double precision), a seventh of this spread. Below it probe
accuracies began to fall, and at 1e-7 they were at chance. No untrained model with informative features had less than
3e-3."""
_ROWS_AT_ONCE = 4096
_CARD: Mapping[str, Kind] = {
    "identity": dict,
    "images_digest": str,
    "features_sha256": str,
    "class_names": TEXTS,
    "image_ids": TEXTS,
}
"""Entries of `bank.json`."""


@dataclass(frozen=True, kw_only=True)
class FeatureBank:
    """Features of images of known classes.

    Attributes:
        features: (n_images, n_features) float32, read-only; a memory map when loaded from disk.
        labels: (n_images,) int64, index into `class_names`, read-only.
        image_ids: One unique name per image.
        class_names: One name per class.
        identity: JSON-serialisable description of the origin of the features; empty if unknown.
    """

    features: NDArray[np.float32]
    labels: IntArray
    image_ids: tuple[str, ...]
    class_names: tuple[str, ...]
    identity: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        n_images = len(self.labels)
        if self.features.ndim != 2 or len(self.features) != n_images or len(self.image_ids) != n_images:
            raise ValueError(
                f"features of shape {self.features.shape}, {n_images} labels and {len(self.image_ids)} image ids "
                "do not belong together; each image needs one row of features, one label and one id"
            )
        if n_images and not 0 <= self.labels.min() <= self.labels.max() < len(self.class_names):
            raise ValueError(f"labels must lie in 0..{len(self.class_names) - 1}, with one class name each")
        for array in (self.features, self.labels):
            array.setflags(write=False)

    def __repr__(self) -> str:
        n_images, n_features = self.features.shape
        return f"FeatureBank({n_images:,} images of {len(self.class_names):,} classes, {n_features:,} features)"

    @classmethod
    def from_arrays(cls, features: NDArray[Any], labels: NDArray[Any]) -> FeatureBank:
        """Make a bank from bare arrays, with row numbers as image ids and the sorted label values as classes.

        Args:
            features: (n_images, n_features), any float type.
            labels: (n_images,), of any type that sorts.

        Raises:
            ValueError: The two differ in length, or a feature is not finite in single precision.
        """
        if np.ndim(labels) != 1:
            raise ValueError(f"labels have the shape {np.shape(labels)}; each image needs one label, (n_images,)")
        values, indices = np.unique(np.asarray(labels), return_inverse=True)
        with np.errstate(over="ignore"):
            single = np.array(features, dtype=np.float32)
        if not np.isfinite(single).all():
            row = int(np.argwhere(~np.isfinite(single))[0, 0])
            raise ValueError(f"row {row} of the features holds a number that is not finite in single precision")
        return cls(
            features=single,
            labels=indices.astype(np.int64),
            image_ids=tuple(str(row) for row in range(len(indices))),
            class_names=tuple(str(value) for value in values),
        )

    @cached_property
    def images_digest(self) -> str:
        """SHA-256 of image ids, labels and class names: equal digests mean the same rows."""
        return images_digest(self.labels, self.image_ids, self.class_names)

    @cached_property
    def spread(self) -> float:
        """Difference of features between images, as a share of their length, in [0, 1]; 0 if all are the same.

        sqrt(mean |x - mean x|^2 / mean |x|^2) over images, in double precision.
        """
        mean = sum(block.sum(0) for block in self._in_double()) / max(len(self.features), 1)
        around_mean = sum(float(((block - mean) ** 2).sum()) for block in self._in_double())
        around_zero = sum(float((block**2).sum()) for block in self._in_double())
        return math.sqrt(around_mean / around_zero) if around_zero else 0.0

    def _in_double(self) -> Iterator[NDArray[np.float64]]:
        for start in range(0, len(self.features), _ROWS_AT_ONCE):
            yield self.features[start : start + _ROWS_AT_ONCE].astype(np.float64)
            if start % (16 * _ROWS_AT_ONCE) == 0:
                release_pages(self.features)

    def save(self, folder: Path | str) -> None:
        """Write `features.npy`, `labels.npy` and, last, `bank.json`; the bank exists as soon as that file does."""
        write_bank(
            Path(folder),
            iter([self.features]),
            n_features=self.features.shape[1],
            labels=self.labels,
            image_ids=self.image_ids,
            class_names=self.class_names,
            identity=self.identity,
        )

    @classmethod
    def load(cls, folder: Path | str) -> FeatureBank:
        """Read a saved bank; the features are mapped into memory, not copied.

        Raises:
            FileNotFoundError: There is no complete bank in `folder`.
            ValueError: Its files do not belong together.
        """
        folder = Path(folder)
        for name in ("bank.json", "features.npy", "labels.npy"):
            if not (folder / name).is_file():  # opening a named pipe would wait for ever
                raise FileNotFoundError(f"there is no file {folder / name}")
        card = read_card((folder / "bank.json").read_bytes(), _CARD, what="bank.json")
        features, labels = np.load(folder / "features.npy", mmap_mode="r"), np.load(folder / "labels.npy")
        if features.dtype != np.dtype("<f4") or labels.dtype.kind != "i" or labels.ndim != 1:
            raise ValueError(f"features are {features.dtype} and labels {labels.dtype}, not float32 and int64")
        state = (folder / "features.npy").stat()
        if _sha256(folder / "features.npy", state.st_mtime_ns, state.st_size) != card["features_sha256"]:
            raise ValueError("features.npy is not what was written")
        image_ids, class_names = tuple(card["image_ids"]), tuple(card["class_names"])
        check_names(labels, image_ids, class_names)
        if images_digest(labels, image_ids, class_names) != card["images_digest"]:
            raise ValueError("labels or names are not what was written")
        return cls(
            features=features,
            labels=labels,
            image_ids=image_ids,
            class_names=class_names,
            identity=card["identity"],
        )


def write_bank(
    folder: Path,
    batches: Iterable[NDArray[np.float32]],
    *,
    n_features: int,
    labels: IntArray,
    image_ids: tuple[str, ...],
    class_names: tuple[str, ...],
    identity: Mapping[str, Any],
) -> None:
    """Write a bank batch by batch, so that its features need not fit into memory; see `FeatureBank.save`.

    A bank that `folder` holds already is gone once the new features are complete.

    Args:
        folder: The folder of the bank.
        batches: Features (n, n_features) of some images each, in the order of the rows.
        n_features: Number of features.
        labels: See `FeatureBank`.
        image_ids: See `FeatureBank`.
        class_names: See `FeatureBank`.
        identity: See `FeatureBank`.

    Raises:
        ValueError: There is not one row of features per label, or a feature is not finite.
    """
    with atomic_path(folder / "features.npy") as temporary:
        n_rows = _write_features(temporary, batches, (len(labels), n_features))
        with temporary.open("rb") as stream:
            sha256 = hashlib.file_digest(stream, "sha256").hexdigest()
        if n_rows != len(labels):
            raise ValueError(f"{n_rows} rows of features and {len(labels)} labels do not belong together")
        (folder / "bank.json").unlink(missing_ok=True)  # the old card must not describe the new features
    with atomic_path(folder / "labels.npy") as temporary:
        np.save(temporary, labels)
    card = {
        "identity": identity,
        "images_digest": images_digest(labels, image_ids, class_names),
        "features_sha256": sha256,
        "class_names": class_names,
        "image_ids": image_ids,
    }
    write_text(folder / "bank.json", json.dumps(card, ensure_ascii=False))


def _write_features(path: Path, batches: Iterable[NDArray[np.float32]], shape: tuple[int, int]) -> int:
    """Write the batches as one array in NumPy's format; return the number of their rows."""
    n_rows = 0
    with path.open("wb") as stream:
        header = {"descr": "<f4", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(stream, header)
        for batch in batches:
            if not np.isfinite(batch).all():
                row = n_rows + int(np.argmin(np.isfinite(batch).all(axis=1)))
                raise ValueError(f"row {row} of the features holds a number that is not finite")
            stream.write(np.ascontiguousarray(batch, dtype="<f4").data)
            n_rows += len(batch)
    return n_rows


@lru_cache(maxsize=64)
def _sha256(path: Path, changed_ns: int, n_bytes: int) -> str:
    """Return the digest of a file, read once per process and state of the file."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def check_names(labels: IntArray, image_ids: tuple[str, ...], class_names: tuple[str, ...]) -> None:
    """Raise unless every image has a label and a name of its own, and every label a class.

    Raises:
        ValueError: They do not belong together.
    """
    if len(labels) != len(image_ids) or len(set(image_ids)) < len(image_ids):
        raise ValueError(f"{len(labels)} images have {len(set(image_ids))} different ids")
    if len(labels) and not 0 <= labels.min() <= labels.max() < len(class_names):
        raise ValueError(f"labels must lie in 0..{len(class_names) - 1}, with one class name each")
    if len(set(class_names)) < len(class_names):
        raise ValueError("two classes have one name")


def images_digest(labels: IntArray, image_ids: tuple[str, ...], class_names: tuple[str, ...]) -> str:
    """Return the SHA-256 of the image ids, labels and class names of a bank."""
    content = hashlib.sha256(json.dumps([list(image_ids), list(class_names)]).encode())
    content.update(np.ascontiguousarray(labels, dtype="<i8").tobytes())
    return content.hexdigest()
