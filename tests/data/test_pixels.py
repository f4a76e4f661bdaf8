"""Files of images as people have them: right, or refused with the way out; never black, never hanging."""

from __future__ import annotations

import io
import struct
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from lurefs.data.dataset import ImageArray, View
from lurefs.data.pixels import read_image
from lurefs.errors import UserError

RAMP = np.tile(np.arange(32), (32, 1))


def read(path: Path, n_channels: int = 3, **settings: float) -> ImageArray:
    return read_image(path, View(image_size=32), n_channels, **settings)  # type: ignore[arg-type]


def drawing() -> Image.Image:
    pixels = np.zeros((32, 32, 3), np.uint8)
    pixels[:16, :, 0], pixels[:, :8, 1] = 250, 120
    return Image.fromarray(pixels)


@pytest.mark.parametrize(
    ("name", "pixels", "words"),
    [
        ("12_bits.png", (RAMP * 132).astype(np.uint16), "have 16 bits but go up to 4092 only"),
        ("8_bits.png", (RAMP * 8).astype(np.uint16), "have 16 bits but go up to 248 only"),
        ("14_bits.tif", (RAMP * 500).astype(np.uint16), "have 16 bits but go up to 15500 only"),
        ("floats.tif", (RAMP / 31).astype(np.float32), "floating-point numbers, whose range is not known"),
        ("int32.tif", (RAMP * 132).astype(np.int32), "have 16 bits but go up to 4092 only"),
        ("nan.tif", np.full((4, 4), np.nan, np.float32), "not finite"),
    ],
)
def test_grey_values_of_an_unknown_range_are_refused(tmp_path: Path, name: str, pixels: np.ndarray, words: str) -> None:
    Image.fromarray(pixels).save(tmp_path / name)
    with pytest.raises(UserError, match=words):
        read(tmp_path / name)


@pytest.mark.parametrize(
    ("pixels", "white_level"),
    [
        ((RAMP * 132).astype(np.uint16), 4092),
        ((RAMP * 8).astype(np.uint16), 248),
        ((RAMP / 31).astype(np.float32), 1.0),
        ((RAMP * 8).astype(np.float32), 248),
    ],
)
def test_a_white_level_gives_the_range(tmp_path: Path, pixels: np.ndarray, white_level: float) -> None:
    Image.fromarray(pixels).save(tmp_path / "a.tif")
    assert read(tmp_path / "a.tif", 1, white_level=white_level)[0, :, 0].tolist() == [
        round(255 * value / 31) for value in range(32)
    ]


def test_values_above_the_white_level_are_refused(tmp_path: Path) -> None:
    Image.fromarray((RAMP * 132).astype(np.uint16)).save(tmp_path / "a.png")
    with pytest.raises(UserError, match=r"go from 0 to 4092, and white_level is 1023\n.*\n.*set white_level"):
        read(tmp_path / "a.png", white_level=1023)


def test_8_bits_in_32_stay_what_they_are(tmp_path: Path) -> None:
    Image.fromarray((RAMP * 8).astype(np.int32)).save(tmp_path / "a.tif")
    assert read(tmp_path / "a.tif", 1)[0, :, 0].tolist() == (RAMP[0] * 8).tolist()


def test_an_image_that_is_all_black_is_black(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((32, 32), np.uint16)).save(tmp_path / "a.png")
    assert read(tmp_path / "a.png").max() == 0


def png(width: int, height: int, *, bits: int, content: bytes) -> bytes:
    """Return a colour PNG file of bytes that Pillow would not write."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    head = struct.pack(">IIBBBBB", width, height, bits, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(content)) + chunk(b"IEND", b"")


def png_of_16_bit_colours(pixels: np.ndarray) -> bytes:
    height, width, _ = pixels.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    return png(width, height, bits=16, content=rows)


def test_colours_of_12_bits_in_16_are_refused_and_those_of_16_read(tmp_path: Path) -> None:
    colours = np.repeat(RAMP[:, :, None], 3, axis=2)
    (tmp_path / "dark.png").write_bytes(png_of_16_bit_colours(colours * 132))
    with pytest.raises(UserError, match="its colours have 16 bits but use less than 4096 of 65536 values"):
        read(tmp_path / "dark.png")
    (tmp_path / "full.png").write_bytes(png_of_16_bit_colours(colours * 2048))
    assert read(tmp_path / "full.png")[0, :, 0].tolist() == (RAMP[0] * 8).tolist()


@pytest.mark.parametrize(
    ("kind", "count", "value"), [(2, 4, 6), (5, 10**6, 6), (99, 1, 6), (3, 1, 99), (3, 0, 6), (12, 1, 2**31)]
)
def test_damaged_metadata_change_nothing(tmp_path: Path, kind: int, count: int, value: int) -> None:
    drawing().save(tmp_path / "plain.jpg")
    entry = struct.pack("<HHII", 0x0112, kind, count, value)
    block = b"Exif\x00\x00II*\x00" + struct.pack("<I", 8) + struct.pack("<H", 1) + entry + struct.pack("<I", 0)
    drawing().save(tmp_path / "odd.jpg", exif=block)
    assert (read(tmp_path / "odd.jpg") == read(tmp_path / "plain.jpg")).all()


@pytest.mark.parametrize("block", [b"", b"Exif\x00\x00", b"Exif\x00\x00II*\x00\xff\xff\xff\x7f", b"nothing known"])
def test_blocks_that_are_no_metadata_change_nothing(tmp_path: Path, block: bytes) -> None:
    drawing().save(tmp_path / "plain.jpg")
    drawing().save(tmp_path / "odd.jpg", exif=block)
    assert (read(tmp_path / "odd.jpg") == read(tmp_path / "plain.jpg")).all()


def test_a_png_file_with_much_text_is_read(tmp_path: Path) -> None:
    text = PngImagePlugin.PngInfo()
    text.add_text("history", "x" * (2 << 20), zip=True)
    drawing().save(tmp_path / "a.png", pnginfo=text)
    assert (read(tmp_path / "a.png") == np.asarray(drawing())).all()
    stream = io.BytesIO((tmp_path / "a.png").read_bytes())
    assert (read_image(stream, View(image_size=32), 3, name="a.png") == np.asarray(drawing())).all()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_each_orientation_is_turned_as_pillow_does(tmp_path: Path, orientation: int) -> None:
    from PIL import ImageOps

    exif = Image.Exif()
    exif[0x0112] = orientation
    drawing().save(tmp_path / "a.png", exif=exif)
    with Image.open(tmp_path / "a.png") as image:
        assert (read(tmp_path / "a.png") == np.asarray(ImageOps.exif_transpose(image))).all()


def test_the_first_frame_of_an_animation_is_taken(tmp_path: Path) -> None:
    frames = [Image.new("L", (32, 32), shade) for shade in (40, 200)]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    assert read(tmp_path / "a.gif", 1).max() == 40


def test_colours_for_print_and_palettes_are_read(tmp_path: Path) -> None:
    Image.new("CMYK", (32, 32), (0, 255, 255, 0)).save(tmp_path / "print.jpg")
    red, green, blue = read(tmp_path / "print.jpg")[0, 0].tolist()
    assert red > 240 and green < 15 and blue < 15
    palette = Image.new("P", (32, 32), 0)
    palette.putpalette([0, 0, 0, 10, 20, 30])
    palette.save(tmp_path / "clear.png", transparency=0)
    assert read(tmp_path / "clear.png").min() == 255


@pytest.mark.parametrize(
    ("content", "words"),
    [(b"", "it is empty"), (b"no image", "no image that Pillow can read"), (b"<html>", "no image that Pillow can")],
)
def test_files_without_an_image_are_refused(tmp_path: Path, content: bytes, words: str) -> None:
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(UserError, match=rf"a\.png cannot be read as an image: .*{words}"):
        read(tmp_path / "a.png")


def test_an_image_of_too_many_pixels_is_refused(tmp_path: Path) -> None:
    (tmp_path / "bomb.png").write_bytes(png(60000, 60000, bits=8, content=b""))
    with pytest.raises(UserError, match=r"bomb\.png cannot be read as an image: Image size \(3600000000 pixels\)"):
        read(tmp_path / "bomb.png")


def test_of_a_long_strip_the_middle_is_kept(tmp_path: Path) -> None:
    pixels = np.zeros((1, 60000), np.uint8)
    pixels[:, 29000:31000] = 255
    Image.fromarray(pixels).save(tmp_path / "strip.png")
    image = read_image(tmp_path / "strip.png", View(image_size=224), 1)
    assert image.shape == (224, 224, 1) and image.min() == 255


def test_a_heic_image_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    (tmp_path / "a.heic").write_bytes(b"x")
    with pytest.raises(UserError, match=r'a HEIC image, needs a library.*\n.*\n.*pip install "lurefs\[heic\]"'):
        read(tmp_path / "a.heic")


def test_avif_and_jpeg_2000_are_read(tmp_path: Path) -> None:
    for ending in ("avif", "jp2"):
        drawing().save(tmp_path / f"a.{ending}")
        image = read(tmp_path / f"a.{ending}").astype(int)
        assert abs(image - np.asarray(drawing()).astype(int)).mean() < 12
