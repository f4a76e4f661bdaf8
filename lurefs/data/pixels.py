"""Pixel operations shared by the data sources: size checks, square resizing, and decoding of files with Pillow.

Pillow is imported inside functions, so that listing data sets stays fast.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from lurefs.data.dataset import ImageArray, View
from lurefs.errors import UserError

if TYPE_CHECKING:
    from PIL import Image


def check_image_size(image_size: int, *, where: str) -> None:
    """Raise if a side length is not a positive whole number of pixels.

    Raises:
        UserError: `image_size` is below 1 or not an integer.
    """
    if isinstance(image_size, bool) or not isinstance(image_size, int) or image_size < 1:
        raise UserError(
            f"{where}: image_size is {image_size!r}",
            "a whole number of pixels, 1 or more",
            "set image_size to e.g. 32",
        )


def resize_images(images: ImageArray, image_size: int) -> ImageArray:
    """Make images square: resize the shorter side to `image_size`, then crop the centre.

    Args:
        images: (n_images, height, width, n_channels) uint8, `n_channels` 1 or 3.
        image_size: Side length of the result in pixels.

    Returns:
        (n_images, image_size, image_size, n_channels) uint8; `images` itself if it already has that size.
    """
    from PIL import Image

    if images.shape[1:3] == (image_size, image_size):
        return images
    resized = np.empty((len(images), image_size, image_size, images.shape[3]), np.uint8)
    for row, pixels in enumerate(images):
        image = Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)
        resized[row] = as_array(fit_square(image, View(image_size=image_size)))
    return resized


def fit_square(image: Image.Image, view: View) -> Image.Image:
    """Resize the shorter side with an antialiased filter, to `image_size` / `crop_share` pixels, and crop the centre.

    With `is_squashed` both sides get that size. The arithmetic is that of torchvision's Resize and CenterCrop, which
    timm uses for evaluation.
    """
    from PIL import Image

    size = view.image_size
    shorter = max(size, int(size / view.crop_share))
    width, height = (shorter if view.is_squashed else int(shorter * side / min(image.size)) for side in image.size)
    left, top = round((width - size) / 2), round((height - size) / 2)
    resized = image.resize((width, height), Image.Resampling[view.interpolation.upper()])
    return resized.crop((left, top, left + size, top + size))


def as_array(image: Image.Image) -> ImageArray:
    """Return a grey or RGB image as (height, width, n_channels) uint8."""
    pixels = np.asarray(image, np.uint8)
    return pixels[:, :, np.newaxis] if pixels.ndim == 2 else pixels


def read_image(path: Path, view: View, n_channels: int) -> ImageArray:
    """Decode one image file, rotated upright, with transparent parts on white.

    16-bit grey values keep their upper 8 bits, as Pillow does for 16-bit colours.

    Args:
        path: An image file.
        view: Size and crop of the result.
        n_channels: 1 (grey) or 3 (RGB).

    Returns:
        (image_size, image_size, n_channels) uint8 in [0, 255].

    Raises:
        UserError: The file is missing, damaged or not an image, or its pixels have no known range.
    """
    from PIL import Image, ImageOps

    try:
        with Image.open(path) as opened:
            upright = _in_8_bits(ImageOps.exif_transpose(opened))
            # Otherwise a black drawing on transparent black would become a black square.
            if upright.has_transparency_data:
                upright = Image.alpha_composite(Image.new("RGBA", upright.size, "white"), upright.convert("RGBA"))
            image = upright.convert("L" if n_channels == 1 else "RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise UserError(
            f"{path} cannot be read as an image: {error}",
            "an intact image file with integer pixels from 0 to 255 or from 0 to 65535",
            "replace the file or delete it",
        ) from error
    return as_array(fit_square(image, view))


def _in_8_bits(image: Image.Image) -> Image.Image:
    """Scale 16-bit grey values to 8 bits; Pillow would clip them, so that nearly all become white."""
    from PIL import Image

    if image.mode == "F":
        raise ValueError("its pixels are floating-point numbers, whose range is not known")
    if not image.mode.startswith("I"):
        return image
    pixels = np.asarray(image).astype(np.int64)
    if pixels.min() < 0 or pixels.max() > 65535:
        raise ValueError(f"its pixels go from {pixels.min()} to {pixels.max()}")
    return Image.fromarray((pixels >> 8).astype(np.uint8))
