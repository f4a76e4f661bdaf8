"""Split of a bank's rows into train, validation and test for transfer, and nested draws of a few rows per class."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from episodes.arrays import IntArray
from episodes.bank import FeatureBank

Size = int | Literal["all"]


@dataclass(frozen=True, kw_only=True)
class RowSplit:
    """Disjoint rows of a bank, int64: to fit on, to choose the setting on, to measure on."""

    train: IntArray
    validation: IntArray
    test: IntArray


def split_rows(labels: IntArray, class_names: Sequence[str], *, validation: float, test: float, seed: int) -> RowSplit:
    """Divide the rows of each class into train, validation and test, the same way whatever other classes there are.

    Args:
        labels: (n_images,) int64, index into `class_names`.
        class_names: One name per class.
        validation: Share of each class's images; at least one image is taken.
        test: Likewise.
        seed: The seed to draw with.

    Raises:
        ValueError: A class has too few images.
    """
    parts: dict[str, list[IntArray]] = {"train": [], "validation": [], "test": []}
    for label, rows in _rows_by_class(labels, np.arange(len(labels))):
        n_validation, n_test = (max(1, round(share * len(rows))) for share in (validation, test))
        if n_validation + n_test >= len(rows):
            raise ValueError(
                f"class {class_names[label]!r} has {len(rows)} images, of which {n_validation} go to validation and "
                f"{n_test} to test, which leaves none to train on; lower these shares, or drop the class"
            )
        rows = _generator("split", seed, class_names[label]).permutation(rows)
        parts["validation"].append(rows[:n_validation])
        parts["test"].append(rows[n_validation : n_validation + n_test])
        parts["train"].append(rows[n_validation + n_test :])
    return RowSplit(**{part: np.sort(np.concatenate(rows)) for part, rows in parts.items()})


def draw_rows(bank: FeatureBank, rows: IntArray, size: Size, *, seed: int, repeat: int) -> IntArray:
    """Draw at most `size` of the given rows from each class.

    The rows of one repeat are nested: those of size 1 are among those of size 2. Repeats are independent.

    Args:
        bank: The bank that the rows belong to.
        rows: The rows to draw from.
        size: Rows per class; `all` returns `rows`.
        seed: The seed to draw with.
        repeat: The number of the draw.
    """
    if size == "all":
        return rows
    return np.concatenate(
        [
            _generator("draw", seed, repeat, bank.class_names[label]).permutation(of_class)[:size]
            for label, of_class in _rows_by_class(bank.labels, rows)
        ]
    )


def smallest_class(labels: IntArray, rows: IntArray) -> tuple[int, int]:
    """Return the label in `labels` with the fewest of the given rows, and their number, which may be 0."""
    present = np.unique(labels)
    n_rows = np.bincount(labels[rows], minlength=int(present[-1]) + 1)[present]
    return int(present[n_rows.argmin()]), int(n_rows.min())


def _rows_by_class(labels: IntArray, rows: IntArray) -> list[tuple[int, IntArray]]:
    in_order = rows[np.argsort(labels[rows], kind="stable")]
    present, starts = np.unique(labels[in_order], return_index=True)
    return list(zip(present.tolist(), np.split(in_order, starts[1:]), strict=True))


def _generator(*path: str | int) -> np.random.Generator:
    """Return the generator of one named draw, independent of other draws and of the hash seed."""
    text = "/".join(("transfer", *(str(part) for part in path)))
    return np.random.default_rng(int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big"))
