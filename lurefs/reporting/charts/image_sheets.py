"""Images of the page: data URIs, and whole sheets as PNG files."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

from lurefs.data.dataset import ImageArray
from lurefs.reporting.charts.episode_sheets import EpisodeSheet, Strip
from lurefs.reporting.charts.style import COLOURS, INK, RULE

if TYPE_CHECKING:
    from PIL.Image import Image

MAX_PIXELS = 64
WRONG = COLOURS[1]


def samples_sheet(strips: Sequence[Strip]) -> Image:
    """Return one image of all strips: one row per class, its name on the left."""
    return _sheet([(strip.class_name, list(strip.images), [""] * len(strip.images)) for strip in strips])


def episode_sheet(sheet: EpisodeSheet) -> Image:
    """Return one image of an episode: name, support, gap, queries; wrong ones have a frame and a letter."""
    return _sheet(
        [
            (
                f"{row.letter}  {row.class_name}",
                [*row.support, None, *row.query],
                [*[""] * (len(row.support) + 1), *row.taken_for],
            )
            for row in sheet.rows
        ]
    )


def data_uris(images: ImageArray) -> list[str]:
    """Return each image as a data URI: PNG if it is grey, otherwise JPEG, a quarter of the size for photographs."""
    return [_data_uri(_image(image)) for image in images]


def _data_uri(image: Image) -> str:
    if image.mode == "L":
        return f"data:image/png;base64,{base64.b64encode(png_bytes(image)).decode()}"
    buffer = io.BytesIO()
    image.save(buffer, format="JPEG", quality=85)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def png_bytes(image: Image) -> bytes:
    """Return an image as a PNG file."""
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()


def _image(pixels: ImageArray) -> Image:
    """Return one image, at most `MAX_PIXELS` wide."""
    import PIL.Image

    image = PIL.Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
    if image.width > MAX_PIXELS:
        image = image.resize((MAX_PIXELS, MAX_PIXELS), PIL.Image.Resampling.BOX)
    return image


def _sheet(rows: Sequence[tuple[str, list[ImageArray | None], list[str]]]) -> Image:
    import PIL.Image
    from PIL import ImageDraw, ImageFont

    tile, gap, name_width = 64, 6, 190
    step = tile + gap
    font, small = ImageFont.load_default(17), ImageFont.load_default(15)
    n_columns = max(len(images) for _, images, _ in rows)
    sheet = PIL.Image.new("RGB", (name_width + n_columns * step + gap, len(rows) * step + gap), "white")
    draw = ImageDraw.Draw(sheet)
    for place, (name, images, marks) in enumerate(rows):
        top = gap + place * step
        draw.text((gap, top + tile / 2), name if len(name) < 22 else f"{name[:20]}…", INK, font, anchor="lm")
        for column, (pixels, mark) in enumerate(zip(images, marks, strict=True)):
            if pixels is None:
                continue
            left = name_width + column * step
            sheet.paste(_image(pixels).convert("RGB").resize((tile, tile), PIL.Image.Resampling.NEAREST), (left, top))
            box = (left - 2, top - 2, left + tile + 1, top + tile + 1)
            draw.rectangle(box, outline=WRONG if mark else RULE, width=3 if mark else 1)
            if mark:
                draw.rectangle((left + tile - 18, top - 2, left + tile + 1, top + 18), fill=WRONG)
                draw.text((left + tile - 8, top + 8), mark, "white", small, anchor="mm")
    return sheet
