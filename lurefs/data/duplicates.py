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

    A bit says whether the grey level rises from one cell to its right neighbour by more than half a level, on a grid of
    8 rows and 9 columns of mean grey levels (dHash, Krawetz 2013; there any rise counts, also one by rounding).
    """
    hashes, is_flat = np.empty(len(rows), np.uint64), np.empty(len(rows), bool)
    for here, images in batches(dataset, rows):
        cells = _cells(images)
        rises = (np.diff(cells, axis=2) > 0.5).reshape(len(cells), -1)
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


def _cells(images: ImageArray) -> NDArray[np.float32]:
    """Return the mean grey level of the cells of a grid, (n, 8, 9)."""
    grey = images.mean(axis=3, dtype=np.float32)
    height, width = grey.shape[1:]
    return np.asarray(_parts(HASH_SIZE, height) @ grey @ _parts(HASH_SIZE + 1, width).T)


def _parts(n_cells: int, size: int) -> NDArray[np.float32]:
    """Return the share of each cell that each pixel covers, (n_cells, size)."""
    edges, pixels = np.linspace(0, size, n_cells + 1)[:, np.newaxis], np.arange(size)
    overlap = np.minimum(edges[1:], pixels + 1) - np.maximum(edges[:-1], pixels)
    return np.asarray(np.maximum(overlap, 0) * n_cells / size, np.float32)
