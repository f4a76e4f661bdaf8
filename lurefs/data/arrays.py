"""Images that are in memory already, as a data set."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from lurefs.data.dataset import ImageArray, ImageDataset
from lurefs.errors import UserError

UNLABELLED = "unlabelled"
"""Name of the only class of images without labels."""


def array(images: Any, labels: ArrayLike | None = None) -> ImageDataset:
    """Return an array of images as a data set; the array is not copied.

    Args:
        images: (n_images, height, width, n_channels) or (n_images, height, width) uint8 in [0, 255]; square, with 1
            (grey) or 3 (RGB) channels.
        labels: (n_images,) of any type that sorts; the sorted values are the classes. None for images of one class.

    Raises:
        UserError: The arrays have another type or shape, or do not belong together.
    """
    pixels: ImageArray = np.asarray(images)
    shape = (*pixels.shape, 1) if pixels.ndim == 3 else pixels.shape
    if pixels.dtype != np.uint8 or len(shape) != 4 or shape[3] not in (1, 3) or 0 in shape or shape[1] != shape[2]:
        raise UserError(
            f"the images have shape {pixels.shape} and type {pixels.dtype}",
            "(n_images, height, width, 1 or 3) or (n_images, height, width), uint8 in [0, 255], square",
            "put channels last, scale to 0..255 and convert with .astype('uint8'), or crop to squares",
        )
    pixels = pixels.reshape(shape)
    given = np.full(len(pixels), UNLABELLED) if labels is None else np.asarray(labels)
    if given.shape != (len(pixels),):
        raise UserError(
            f"the labels have shape {given.shape}", f"({len(pixels)},), one label per image", "correct the labels"
        )
    values, indices = np.unique(given, return_inverse=True)
    return ImageDataset(
        name="array",
        labels=indices.astype(np.int64),
        class_names=tuple(str(value) for value in values),
        image_ids=tuple(str(row) for row in range(len(pixels))),
        sources=np.zeros(len(pixels), np.int64),
        source_names=("array",),
        image_size=shape[1],
        n_channels=shape[3],
        identity={"source": "array", "images_sha256": _digest(pixels), "image_size": shape[1]},
        read=lambda rows: pixels[rows],
    )


def _digest(pixels: ImageArray) -> str:
    content = hashlib.sha256(str(pixels.shape).encode())
    for image in pixels:
        content.update(image.tobytes())
    return content.hexdigest()
