"""Images as the common corruptions leave them, by the library imagecorruptions, which is imported here alone.

Source: Hendrycks and Dietterich 2019, "Benchmarking Neural Network Robustness to Common Corruptions and Perturbations".
Formulas and severities are those of ImageNet-C. They were chosen for large images: at 32 pixels blurs destroy more than
those of CIFAR-10-C, whose settings are milder, so figures of the two do not compare.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from episodes.arrays import IntArray
from lurefs.config.schema import CORRUPTIONS
from lurefs.data.dataset import ImageArray, ImageDataset
from lurefs.errors import UserError, not_installed, unknown_name
from lurefs.seeding import seed_stream, seeded_numpy

MIN_IMAGE_SIZE = 32
"""The smallest side in pixels that the library takes."""
SEVERITIES = (1, 2, 3, 4, 5)
_TAKE_A_SEED = ("impulse_noise", "glass_blur")  # they draw from fresh entropy, and never from NumPy's global generator


def corrupt(images: ImageArray, image_ids: Sequence[str], *, corruption: str, severity: int) -> ImageArray:
    """Return the images after one corruption; each is a pure function of its pixels, its id, corruption and severity.

    Grey images are corrupted as colour images, and the green channel is kept: the mean of three channels would weaken
    noise.

    Args:
        images: (n, height, width, n_channels) uint8, 1 or 3 channels, sides of `MIN_IMAGE_SIZE` or more; not changed.
        image_ids: One stable name an image, the seed of its noise.
        corruption: One of `lurefs.config.schema.CORRUPTIONS`.
        severity: 1 (mild) to 5.

    Returns:
        (n, height, width, n_channels) uint8.

    Raises:
        UserError: An unknown corruption or severity, images that are too small, or the library is not installed.
    """
    if severity not in SEVERITIES:
        raise UserError(f"severity is {severity!r}", "a whole number from 1 to 5", "choose one of these")
    if corruption not in CORRUPTIONS:
        raise unknown_name("corruption", corruption, CORRUPTIONS)
    check_corruptible(min(images.shape[1:3]))
    corrupted = np.empty_like(images)
    for row, (pixels, image_id) in enumerate(zip(images, image_ids, strict=True)):
        seed = seed_stream(0, "corruption", image_id, corruption, severity)
        corrupted[row] = _corrupt_image(pixels, corruption, severity, seed % 2**32)
    return corrupted


def corrupted_dataset(dataset: ImageDataset, *, corruption: str, severity: int) -> ImageDataset:
    """Return the data set with the same images, ids and labels, each image corrupted when it is read; see `corrupt`."""

    def read(rows: IntArray) -> ImageArray:
        ids = [dataset.image_ids[row] for row in rows]
        return corrupt(dataset.read(rows), ids, corruption=corruption, severity=severity)

    identity = {**dataset.identity, "corruption": corruption, "severity": severity}
    return replace(dataset, identity=identity, read=read)


def check_corruptible(
    image_size: int,
    *,
    setting: str = "robustness.corruptions",
    way_out: str = "robustness.corruptions to []",
) -> None:
    """Refuse images that are too small to be corrupted.

    Args:
        image_size: Their side in pixels.
        setting: What asks for it, for the message.
        way_out: What may be set in place of larger images, for the message.

    Raises:
        UserError: Too small, or the library is not installed.
    """
    _library(setting)
    if image_size < MIN_IMAGE_SIZE:
        raise UserError(
            f"corruptions are for images of {MIN_IMAGE_SIZE} pixels or more, and these have {image_size}",
            "a data set of larger images (what backbone.image_size says is done later, and does not count)",
            f"set dataset.params.image_size to {MIN_IMAGE_SIZE} or more, or {way_out}",
        )


def _corrupt_image(pixels: ImageArray, corruption: str, severity: int, seed: int) -> ImageArray:
    from PIL import Image

    n_channels = pixels.shape[2]
    colour = Image.fromarray(np.repeat(pixels, 3 // n_channels, axis=2))
    own_seed = {"seed": seed} if corruption in _TAKE_A_SEED else {}
    with seeded_numpy(seed):
        corrupted = np.asarray(_library().corruption_dict[corruption](colour, severity, **own_seed))
    corrupted = corrupted.astype(np.uint8)  # cuts off fractions, as the images of ImageNet-C were made
    return corrupted if n_channels == 3 else corrupted[:, :, 1:2]


def _library(setting: str = "robustness.corruptions") -> Any:
    try:
        import imagecorruptions
    except ImportError as error:
        raise not_installed(setting, "robustness", error) from error
    return imagecorruptions
