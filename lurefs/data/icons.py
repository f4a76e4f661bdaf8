"""The `icons` data set of the package: concepts, each drawn by many icon sets. Data card: `assets/ICONS.md`."""

from __future__ import annotations

import hashlib
import io
from functools import cache, partial
from importlib.metadata import version
from importlib.resources import files

import numpy as np

from episodes.arrays import IntArray
from lurefs.data.dataset import ImageArray, ImageDataset
from lurefs.data.pixels import check_image_size, resize_images

STORED_SIZE = 32


def icons(image_size: int = STORED_SIZE) -> ImageDataset:
    """Return the icons as a data set, grey with ink 255 on 0.

    Labels, names and ids cost a few milliseconds; pixels are unpacked at the first read of a process.

    Args:
        image_size: Side length in pixels; for other sizes than 32, images are resized at each read.

    Returns:
        One class per concept, one source per icon set, at most one image per pair; ids like `calendar/feather`.

    Raises:
        UserError: `image_size` is not a positive whole number.
    """
    check_image_size(image_size, where="icons")
    asset = _asset()
    with np.load(io.BytesIO(asset)) as arrays:
        labels = arrays["labels"].astype(np.int64)
        sources = arrays["sources"].astype(np.int64)
        class_names = tuple(arrays["class_names"].tolist())
        source_names = tuple(arrays["source_names"].tolist())
    identity: dict[str, object] = {
        "source": "icons",
        "asset_sha256": hashlib.sha256(asset).hexdigest(),
        "image_size": image_size,
    }
    if image_size != STORED_SIZE:
        identity["pillow"] = version("pillow")
    return ImageDataset(
        name="icons",
        labels=labels,
        class_names=class_names,
        image_ids=tuple(
            f"{class_names[label]}/{source_names[source]}" for label, source in zip(labels, sources, strict=True)
        ),
        sources=sources,
        source_names=source_names,
        image_size=image_size,
        n_channels=1,
        identity=identity,
        read=partial(_read, image_size),
    )


def _read(image_size: int, rows: IntArray) -> ImageArray:
    return resize_images(_stored_images()[rows], image_size)


@cache
def _stored_images() -> ImageArray:
    """Unpack all pixels, two per byte, to (n_images, 32, 32, 1) uint8."""
    with np.load(io.BytesIO(_asset())) as arrays:
        packed: ImageArray = arrays["pixels"]
    pixels = np.empty((len(packed), STORED_SIZE * STORED_SIZE), np.uint8)
    pixels[:, 0::2] = packed >> 4
    pixels[:, 1::2] = packed & 15
    pixels *= 17
    pixels.setflags(write=False)
    return pixels.reshape(-1, STORED_SIZE, STORED_SIZE, 1)


def _asset() -> bytes:
    return files("lurefs.data").joinpath("assets", "icons.npz").read_bytes()
