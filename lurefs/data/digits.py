"""scikit-learn's handwritten digits, for quick checks."""

from __future__ import annotations

import hashlib
from functools import partial
from importlib.metadata import version

import numpy as np

from episodes.arrays import IntArray
from lurefs.data.dataset import ImageArray, ImageDataset
from lurefs.data.pixels import check_image_size, resize_images


def digits(image_size: int = 8) -> ImageDataset:
    """Return scikit-learn's 1,797 handwritten digits as a data set: grey, 10 classes, ids like `3/0017`.

    Args:
        image_size: Side length in pixels; stored images have 8.

    Raises:
        UserError: `image_size` is not a positive whole number.
    """
    from sklearn.datasets import load_digits

    check_image_size(image_size, where="digits")
    bunch = load_digits()
    stored = np.rint(bunch.images * (255 / 16)).astype(np.uint8)[..., np.newaxis]
    labels = bunch.target.astype(np.int64)
    identity: dict[str, object] = {
        "source": "digits",
        "images_sha256": hashlib.sha256(stored.tobytes()).hexdigest(),
        "image_size": image_size,
    }
    if image_size != stored.shape[1]:
        identity["pillow"] = version("pillow")
    return ImageDataset(
        name="digits",
        labels=labels,
        class_names=tuple(str(digit) for digit in range(10)),
        image_ids=tuple(f"{label}/{row:04d}" for row, label in enumerate(labels)),
        sources=np.zeros(len(labels), np.int64),
        source_names=("digits",),
        image_size=image_size,
        n_channels=1,
        identity=identity,
        read=partial(_read_rows, stored, image_size),
    )


def _read_rows(stored: ImageArray, image_size: int, rows: IntArray) -> ImageArray:
    return resize_images(stored[rows], image_size)
