"""Common image corruptions (fog, noise, blur ...), by the library imagecorruptions, which only this module imports.

Source: Hendrycks and Dietterich 2019, "Benchmarking Neural Network Robustness to Common Corruptions and Perturbations".
Formulas and severities are those of ImageNet-C. They were chosen for large images. At 32 pixels, blurs destroy more
than the milder ones of CIFAR-10-C, so results on the two are not comparable.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from episodes.arrays import IntArray
from lurefs.config.schema import CORRUPTIONS
from lurefs.data.dataset import ImageArray, ImageDataset, View
from lurefs.errors import UserError, not_installed, unknown_name
from lurefs.seeding import seed_stream, seeded_numpy

MIN_IMAGE_SIZE = 32
"""The smallest side, in pixels, that the library accepts."""
SEVERITIES = (1, 2, 3, 4, 5)
_TAKE_A_SEED = ("impulse_noise", "glass_blur")  # they ignore NumPy's global generator


def corrupt(images: ImageArray, image_ids: Sequence[str], *, corruption: str, severity: int) -> ImageArray:
    """Return corrupted images; each is a pure function of its pixels, its id, the corruption and the severity.

    Grey images are corrupted as colour images, and the green channel is kept: a mean of three channels would weaken the
    noise.

    Args:
        images: (n, height, width, n_channels) uint8, 1 or 3 channels, sides of `MIN_IMAGE_SIZE` or more; not changed.
        image_ids: One stable name per image, which seeds its noise.
        corruption: One of `lurefs.config.schema.CORRUPTIONS`.
        severity: 1 (mild) to 5.

    Returns:
        (n, height, width, n_channels) uint8.

    Raises:
        UserError: The corruption or severity is unknown, images are too small, or the library is not installed.
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
    """Return the data set with its images corrupted when they are read; ids and labels stay. See `corrupt`."""

    def read(rows: IntArray) -> ImageArray:
        ids = [dataset.image_ids[row] for row in rows]
        return corrupt(dataset.read(rows), ids, corruption=corruption, severity=severity)

    def viewed(view: View) -> ImageDataset:
        assert dataset.viewed is not None
        return corrupted_dataset(dataset.viewed(view), corruption=corruption, severity=severity)

    identity = {**dataset.identity, "corruption": corruption, "severity": severity}
    viewed_or_none = viewed if dataset.viewed else None
    return replace(dataset, identity=identity, read=read, viewed=viewed_or_none, original=dataset.original or dataset)


def check_corruptible(
    image_size: int,
    *,
    setting: str = "robustness.corruptions",
    way_out: str = "robustness.corruptions to []",
) -> None:
    """Raise if images are too small to be corrupted.

    Args:
        image_size: Their side in pixels.
        setting: The setting that asks for corruptions, for the message.
        way_out: What to set if images stay small, for the message.

    Raises:
        UserError: Images are too small, or the library is not installed.
    """
    _library(setting)
    if image_size < MIN_IMAGE_SIZE:
        raise UserError(
            f"corruptions need images of {MIN_IMAGE_SIZE} pixels or more, and these have {image_size}",
            "a data set of larger images (backbone.image_size does not count, since it is applied later)",
            f"set dataset.params.image_size to {MIN_IMAGE_SIZE} or more, or {way_out}",
        )


def _corrupt_image(pixels: ImageArray, corruption: str, severity: int, seed: int) -> ImageArray:
    from PIL import Image

    n_channels = pixels.shape[2]
    colour = Image.fromarray(np.repeat(pixels, 3 // n_channels, axis=2))
    own_seed = {"seed": seed} if corruption in _TAKE_A_SEED else {}
    with seeded_numpy(seed):
        corrupted = np.asarray(_library().corruption_dict[corruption](colour, severity, **own_seed))
    corrupted = corrupted.astype(np.uint8)  # cuts off fractions, as ImageNet-C does
    return corrupted if n_channels == 3 else corrupted[:, :, 1:2]


def _library(setting: str = "robustness.corruptions") -> Any:
    try:
        import imagecorruptions
    except ImportError as error:
        raise not_installed(setting, "robustness", error) from error
    return imagecorruptions
