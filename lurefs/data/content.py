"""What images are, whatever their files are called: checksums of decoded pixels, and identities of some of the images.

The identity of a data set is that of all its images. Here is that of a few of them, so that features depend on the
images that were embedded, and weights on those that were learned.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from episodes.arrays import IntArray
from lurefs.data.dataset import ImageDataset

MAX_BYTES = 2**24
"""Bytes of pixels in memory at one time."""


def settings_of(identity: Mapping[str, Any]) -> dict[str, Any]:
    """Return the part of a data set's identity that holds for each of its images: all but digests and names."""
    return {key: value for key, value in identity.items() if not key.endswith("_sha256") and key != "skipped"}


def content_of(dataset: ImageDataset, rows: IntArray) -> str:
    """Return a digest of the pixels of some images, in their order.

    Where every read decodes its files again (a source without a stamp), it is the digest of all images that the source
    itself gives: another image of it is another content then.
    """
    dataset = dataset.original or dataset
    if dataset.decoded is None and dataset.viewed is not None:
        return hashlib.sha256(repr(sorted(dataset.identity.items())).encode()).hexdigest()[:16]
    return hashlib.sha256(checksums(dataset, rows).tobytes()).hexdigest()[:16]


def checksums(dataset: ImageDataset, rows: IntArray) -> NDArray[np.uint32]:
    """Return the CRC-32 of the pixels of each image, (n,); those of stored images are read from the store.

    Raises:
        UserError: An image is missing or damaged.
    """
    if dataset.decoded is not None:
        return dataset.decoded.checksums(rows)
    found = np.empty(len(rows), np.uint32)
    for here, images in batches(dataset, rows):
        found[here] = [zlib.crc32(image) for image in np.ascontiguousarray(images)]
    return found


def batches(dataset: ImageDataset, rows: IntArray) -> Iterator[tuple[slice, NDArray[Any]]]:
    """Yield images, or the features that the data bring, a few at a time, with their places among the rows.

    Raises:
        UserError: An image is missing or damaged.
    """
    read: Callable[[IntArray], NDArray[Any]] = dataset.read_features or dataset.read
    n_values = 4 * dataset.n_features or dataset.image_size**2 * dataset.n_channels
    n_at_once = max(1, MAX_BYTES // n_values)
    for start in range(0, len(rows), n_at_once):
        here = slice(start, start + n_at_once)
        yield here, read(rows[here])
