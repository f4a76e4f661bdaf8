"""Images that occur more than once: exactly, by their decoded pixels, or nearly, by a hash of their gradients."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from episodes.arrays import IntArray
from lurefs.data.content import batches, checksums
from lurefs.data.dataset import ImageArray, ImageDataset

Images = tuple[ImageDataset, IntArray]
"""A data set, and rows of it."""
HASH_SIZE = 8
"""A hash has `HASH_SIZE` x `HASH_SIZE` bits."""
MAX_DISTANCE = 7
"""Largest distance for which a hash is found by one of its bytes."""
FLAT = 2.0
"""An image whose cells differ by less grey levels has no gradients, and is like no other image."""
_PAIRS_AT_ONCE = 2**22


def pixel_keys(parts: Sequence[Images]) -> list[IntArray]:
    """Return a number per image, the same for images of the same pixels, and only for these.

    Checksums find the candidates; only these are read.

    Raises:
        UserError: An image is missing or damaged.
    """
    sums = [checksums(dataset, rows) for dataset, rows in parts]
    values, counts = np.unique(np.concatenate([*sums, np.empty(0, np.uint32)]), return_counts=True)
    repeated = values[counts > 1]
    keys, digests = [], dict[tuple[int, bytes], int]()
    for (dataset, rows), of_part in zip(parts, sums, strict=True):
        own = of_part.astype(np.int64)
        places = np.flatnonzero(np.isin(of_part, repeated))
        images = (image for _, batch in batches(dataset, rows[places]) for image in batch)
        for place, image in zip(places, images, strict=True):
            digest = hashlib.blake2b(repr(image.shape).encode() + image.tobytes(), digest_size=16).digest()
            own[place] = -1 - digests.setdefault((int(own[place]), digest), len(digests))
        keys.append(own)
    return keys


def difference_hashes(dataset: ImageDataset, rows: IntArray) -> tuple[NDArray[np.uint64], NDArray[np.bool_]]:
    """Return the 64-bit difference hash of each image, (n,), and whether it is flat.

    A bit says whether the grey level rises from one cell to its right neighbour, on a grid of 8 rows and 9 columns of
    mean grey levels (dHash, Krawetz 2013).
    """
    hashes, is_flat = np.empty(len(rows), np.uint64), np.empty(len(rows), bool)
    for here, images in batches(dataset, rows):
        cells = _cells(images)
        rises = (np.diff(cells, axis=2) > 0).reshape(len(cells), -1)
        hashes[here] = np.packbits(rises, axis=1).view(">u8")[:, 0]
        is_flat[here] = np.ptp(cells, axis=(1, 2)) < FLAT
    return hashes, is_flat


def near_twins(hashes: NDArray[np.uint64], others: NDArray[np.uint64], distance: int) -> IntArray:
    """Return for each hash the place of another one at most `distance` bits away, or -1; (n,) int64.

    Two hashes that differ in at most seven bits have one of their eight bytes in common, so that only pairs with a
    common byte are compared.

    Args:
        hashes: (n,) hashes.
        others: (m,) hashes to find; if this is the same array, no hash finds itself.
        distance: From 0 to `MAX_DISTANCE`.
    """
    twins = np.full(len(hashes), -1, np.int64)
    for byte in range(8):
        ours, theirs = (_byte(values, byte) for values in (hashes, others))
        waiting = np.flatnonzero(twins < 0)
        for value in np.unique(ours[waiting]):
            a, b = waiting[ours[waiting] == value], np.flatnonzero(theirs == value)
            n_at_once = max(1, _PAIRS_AT_ONCE // max(1, len(b)))
            for start in range(0, len(a) if len(b) else 0, n_at_once):
                block = a[start : start + n_at_once]
                is_near = np.bitwise_count(hashes[block, np.newaxis] ^ others[b]) <= distance
                if hashes is others:
                    is_near &= block[:, np.newaxis] != b
                found = is_near.any(axis=1)
                twins[block[found]] = b[is_near[found].argmax(axis=1)]
    return twins


def _byte(hashes: NDArray[np.uint64], place: int) -> NDArray[np.uint8]:
    return (hashes >> np.uint64(8 * place)).astype(np.uint8)


def _cells(images: ImageArray) -> NDArray[np.floating]:
    """Return the mean grey level of the cells of a grid, (n, 8, 9)."""
    grey = images.mean(axis=3, dtype=np.float32)
    for axis, n_cells in ((1, HASH_SIZE), (2, HASH_SIZE + 1)):
        size = grey.shape[axis]
        edges = np.arange(n_cells) * size // n_cells
        if size < n_cells:
            grey = np.take(grey, edges, axis=axis)
        else:
            shape = [1, 1, 1]
            shape[axis] = n_cells
            grey = np.add.reduceat(grey, edges, axis=axis) / np.diff([*edges, size]).reshape(shape)
    return np.asarray(grey)
