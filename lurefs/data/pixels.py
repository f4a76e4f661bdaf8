"""Pixel operations shared by the data sources: size checks, square resizing, and decoding of files with Pillow.

Pillow is imported inside functions, so that listing data sets stays fast.
"""

from __future__ import annotations

import io
import re
import warnings
from pathlib import Path
from typing import IO, TYPE_CHECKING

import numpy as np

from lurefs.data.dataset import ImageArray, View
from lurefs.errors import UserError, first_line, not_installed

if TYPE_CHECKING:
    from PIL import Image

LEAST_OF_16_BITS = 1 << 14
"""The brightest grey of an image of 16 bits is above this, unless it uses 14 bits or fewer."""
REPLACE = "replace the file or delete it"
"""What helps with an image that is damaged."""
MAX_IMAGE_SIZE = 16384
"""Pixels; the bound of `backbone.image_size`, too."""
MAX_RATIO = 100
"""Of images that are longer than this many times their width, only the middle is resized, to save memory."""


def check_image_size(image_size: int, *, where: str) -> None:
    """Raise if a side length is not a positive whole number of pixels, or larger than any image that can be learned.

    Raises:
        UserError: `image_size` is below 1, above `MAX_IMAGE_SIZE` or not an integer.
    """
    if isinstance(image_size, bool) or not isinstance(image_size, int) or not 1 <= image_size <= MAX_IMAGE_SIZE:
        raise UserError(
            f"{where}: image_size is {image_size!r}",
            f"a whole number of pixels from 1 to {MAX_IMAGE_SIZE}",
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

    image = image if view.is_squashed else _middle(image)
    size = view.image_size
    shorter = max(size, int(size / view.crop_share))
    width, height = (shorter if view.is_squashed else int(shorter * side / min(image.size)) for side in image.size)
    left, top = round((width - size) / 2), round((height - size) / 2)
    resized = image.resize((width, height), Image.Resampling[view.interpolation.upper()])
    return resized.crop((left, top, left + size, top + size))


def _middle(image: Image.Image) -> Image.Image:
    width, height = image.size
    longest = MAX_RATIO * min(width, height)
    if max(width, height) <= longest:
        return image
    left, top = max(0, (width - longest) // 2), max(0, (height - longest) // 2)
    return image.crop((left, top, min(width, left + longest), min(height, top + longest)))


def as_array(image: Image.Image) -> ImageArray:
    """Return a grey or RGB image as (height, width, n_channels) uint8."""
    pixels = np.asarray(image, np.uint8)
    return pixels[:, :, np.newaxis] if pixels.ndim == 2 else pixels


def read_image(
    file: Path | IO[bytes] | Image.Image,
    view: View,
    n_channels: int,
    *,
    white_level: float | None = None,
    name: str = "",
) -> ImageArray:
    """Decode one image, rotated upright, with transparent parts on white; of an animation the first frame.

    Of the metadata only the orientation is used, and damaged metadata are ignored. 16-bit grey values keep their upper
    8 bits, as Pillow does for 16-bit colours.

    Args:
        file: A path, a stream of the file's bytes, or an image that Pillow has opened.
        view: Size and crop of the result.
        n_channels: 1 (grey) or 3 (RGB).
        white_level: The grey value that is white, where it does not follow from the file: 4095 for 12 bits, 1 for
            floating-point pixels from 0 to 1. None takes 255 or 65535 and refuses files that seem to use fewer bits.
        name: The name of the image in error messages; by default the path.

    Returns:
        (image_size, image_size, n_channels) uint8 in [0, 255].

    Raises:
        UserError: The file is missing, damaged or not an image, or its pixels have no known range.
    """
    name = name or str(file)
    _let_pillow_read(name)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about metadata, and about images that are large but not too large
            image = _decode(file, n_channels, white_level)
    except MemoryError:
        raise
    except Exception as error:  # a damaged file raises errors of many kinds
        raise UserError(
            f"{printable(name)} cannot be read as an image: {_reason(file, error)}",
            "an intact image file with integer pixels from 0 to 255 or from 0 to 65535",
            error.fix if isinstance(error, _UnknownRangeError) else REPLACE,
        ) from error
    return as_array(fit_square(image, view))


def printable(name: str) -> str:
    """Return a file name as text that any file and terminal takes: control characters and bytes are escaped."""
    if name.isprintable():
        return name
    is_of_file = all("\udc80" <= character <= "\udcff" for character in name if "\ud800" <= character <= "\udfff")
    text = name.encode("utf-8", "surrogateescape" if is_of_file else "surrogatepass").decode(
        "utf-8", "backslashreplace"
    )
    return re.sub(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]", lambda found: found[0].encode("unicode_escape").decode(), text)


class _UnknownRangeError(ValueError):
    """The values of an image's pixels do not say what white is."""

    fix = "set white_level of the data set, e.g. to 4095 for 12 bits, 65535 for 16 bits or 1 for numbers from 0 to 1"


def _reason(file: Path | IO[bytes] | Image.Image, error: Exception) -> str:
    if isinstance(file, Path) and isinstance(error, OSError) and file.is_file() and not file.stat().st_size:
        return "it is empty"
    if error.__class__.__name__ == "UnidentifiedImageError":
        return "its content is no image that Pillow can read"
    return first_line(error)


def _let_pillow_read(name: str) -> None:
    """Register the decoder of HEIC images, which Pillow has not.

    Raises:
        UserError: It is not installed.
    """
    if name.lower().endswith((".heic", ".heif")):
        try:
            import pillow_heif
        except ImportError as error:
            raise not_installed(f"{printable(name)}, a HEIC image,", "heic", error) from error
        pillow_heif.register_heif_opener()


def _decode(file: Path | IO[bytes] | Image.Image, n_channels: int, white_level: float | None) -> Image.Image:
    from PIL import Image

    try:
        opened = file if isinstance(file, Image.Image) else Image.open(file)
    except ValueError:  # a PNG file with too much text
        assert not isinstance(file, Image.Image)
        opened = Image.open(_without_text(file))
    with opened:
        upright = _upright(_in_8_bits(opened, white_level), _orientation(opened))
        # Otherwise a black drawing on transparent black would become a black square.
        if upright.has_transparency_data:
            upright = Image.alpha_composite(Image.new("RGBA", upright.size, "white"), upright.convert("RGBA"))
        return upright.convert("L" if n_channels == 1 else "RGB")


def _orientation(image: Image.Image) -> int:
    """Return the orientation that an image's EXIF block states, 1 to 8; 1 if the block is damaged or missing."""
    try:
        value = image.getexif().get(0x0112, 1)
    except Exception:  # damaged blocks raise anything
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _upright(image: Image.Image, orientation: int) -> Image.Image:
    from PIL.Image import Transpose

    turns = {
        2: Transpose.FLIP_LEFT_RIGHT,
        3: Transpose.ROTATE_180,
        4: Transpose.FLIP_TOP_BOTTOM,
        5: Transpose.TRANSPOSE,
        6: Transpose.ROTATE_270,
        7: Transpose.TRANSVERSE,
        8: Transpose.ROTATE_90,
    }
    return image.transpose(turns[orientation]) if orientation in turns else image


def _without_text(file: Path | IO[bytes]) -> IO[bytes]:
    """Return a PNG file without its chunks of text and metadata, of which Pillow refuses large ones."""
    if not isinstance(file, Path):
        file.seek(0)
    content = file.read_bytes() if isinstance(file, Path) else file.read()
    kept, place = [content[:8]], 8
    while place + 8 <= len(content):
        end = place + 12 + int.from_bytes(content[place : place + 4], "big")
        if content[place + 4 : place + 8] not in (b"tEXt", b"zTXt", b"iTXt", b"iCCP", b"eXIf"):
            kept.append(content[place:end])
        place = end
    return io.BytesIO(b"".join(kept))


def _in_8_bits(image: Image.Image, white_level: float | None) -> Image.Image:
    """Scale grey values of more than 8 bits to 8; Pillow would clip them, so that nearly all become white."""
    from PIL import Image

    if image.mode != "F" and not image.mode.startswith("I"):
        _refuse_dark_colours(image)
        return image
    pixels = np.asarray(image).astype(np.float64)
    low, high = pixels.min(), pixels.max()
    if not np.isfinite(low + high):
        raise ValueError("some of its pixels are not finite numbers")
    if white_level is None:
        white_level = _white_level(image, low, high)
    if low < 0 or high > white_level:
        raise _UnknownRangeError(f"its pixels go from {low:g} to {high:g}, and white_level is {white_level:g}")
    scaled = np.floor(pixels / 256) if white_level == 65535 else np.rint(pixels * (255 / white_level))
    return Image.fromarray(scaled.astype(np.uint8))


def _white_level(image: Image.Image, low: float, high: float) -> float:
    """Return the grey value of an image that is white.

    Raises:
        ValueError: The pixels do not say which.
    """
    if image.mode == "F":
        raise _UnknownRangeError("its pixels are floating-point numbers, whose range is not known")
    if low < 0 or high > 65535:
        raise _UnknownRangeError(f"its pixels go from {low:g} to {high:g}")
    if image.mode == "I" and image.format != "PNG" and high <= 255:
        return 255
    if 0 < high < LEAST_OF_16_BITS:
        raise _UnknownRangeError(f"its pixels have 16 bits but go up to {high:g} only, so it may be dark or not")
    return 65535


def _refuse_dark_colours(image: Image.Image) -> None:
    """Refuse colour images of 16 bits that seem to use fewer: Pillow keeps the upper 8 bits alone.

    Raises:
        ValueError: It is one.
    """
    if not any(";16" in str(tile[3]) for tile in getattr(image, "tile", ())):
        return
    bands = image.split()[: 1 if image.mode == "LA" else 3]
    high = max(int(np.asarray(band).max()) for band in bands)
    if 0 <= high < LEAST_OF_16_BITS >> 8:
        raise ValueError(
            f"its colours have 16 bits but use less than {256 * (high + 1)} of 65536 values: it would be almost black; "
            "convert it to 8 bits"
        )
