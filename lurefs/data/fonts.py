"""Font files for `glyphs`: finding usable ones, and drawing characters with them.

Placeholders and other glyphs that are not real drawings of their characters are left out here.
"""

from __future__ import annotations

import hashlib
import logging
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from episodes.arrays import IntArray
from lurefs.data.dataset import ImageArray
from lurefs.errors import UserError

if TYPE_CHECKING:
    from fontTools.ttLib import TTFont
    from PIL import ImageFont

FONT_SUFFIXES = frozenset({".otf", ".ttc", ".ttf"})
# First bytes of a font file; some files with these suffixes are web pages.
FONT_MAGIC = frozenset({b"\0\1\0\0", b"OTTO", b"true", b"ttcf"})
NO_LETTERS = re.compile(r"icon|emoji|barcode|awesome|dingbat|symbol|glyphicons|code ?(39|128)|ean ?13", re.IGNORECASE)
OUTLINE_TABLES = frozenset({"glyf", "CFF "})
COLOUR_TABLES = frozenset({"CBDT", "COLR", "SVG ", "sbix"})

# A drawing that one face uses for more characters than this is a placeholder.
MAX_USES = 4
# Letters whose capital has another shape; if both are equal, the face draws small letters as capitals.
CASE_PROBES = "abdefghnqrt"
CASE_COSINE = 0.95
CASE_RATIO = 0.5
# Shares of the canvas: height of a capital H, and where the baseline lies.
CAP_HEIGHT = 0.52
BASELINE = 0.74
# Pixels per em when the height of the H is measured.
MEASURING_SIZE = 256

# Not a character: a font with a glyph for it only shows what kind of character is missing.
NONCHARACTER = 0x10FFFF

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Face:
    """One usable font file.

    Attributes:
        path: The file.
        digest: SHA-256 of its bytes.
        name: Full name of the face, e.g. `DejaVu Sans Bold`.
        family: Name of the family.
        points: Code points that the font has a glyph for.
    """

    path: Path
    digest: str
    name: str
    family: str
    points: frozenset[int]


@dataclass(frozen=True, kw_only=True)
class Drawings:
    """Drawings of characters by faces, one per row.

    Attributes:
        points: (n_drawings,) int64 code points.
        faces: (n_drawings,) int64, index into the list of faces.
        images: (n_drawings, image_size, image_size) uint8, ink 255 on 0.
        coarse: (n_drawings, 256) float32, centred 16 x 16 means of unit length.
        outlines: (n_drawings,) int64, a number for the curves; equal curves have equal numbers.
    """

    points: IntArray
    faces: IntArray
    images: ImageArray
    coarse: NDArray[np.float32]
    outlines: IntArray

    def take(self, rows: IntArray | NDArray[np.bool_]) -> Drawings:
        """Return the drawings of the given rows."""
        return Drawings(
            points=self.points[rows],
            faces=self.faces[rows],
            images=self.images[rows],
            coarse=self.coarse[rows],
            outlines=self.outlines[rows],
        )


def font_files(font_dirs: Sequence[str]) -> dict[str, Path]:
    """Find font files, without duplicates, ordered by content so that their names and places do not matter.

    Returns:
        SHA-256 of a file -> its path.

    Raises:
        UserError: A folder is missing, or none of them has a font.
    """
    if isinstance(font_dirs, str):
        font_dirs = [font_dirs]
    found: dict[str, Path] = {}
    for font_dir in font_dirs:
        root = Path(font_dir).expanduser().absolute()
        if not root.is_dir():
            raise UserError(
                f"font_dirs: {font_dir} is not a folder (looked at {root})",
                "existing folders; a relative path starts at the working directory",
                "correct font_dirs",
            )
        for path in sorted(root.rglob("*")):
            if path.suffix.lower() in FONT_SUFFIXES and path.is_file() and _magic(path) in FONT_MAGIC:
                found.setdefault(hashlib.sha256(path.read_bytes()).hexdigest(), path)
    if not found:
        raise UserError(
            f"font_dirs: no font below {', '.join(font_dirs) or 'an empty list'}",
            f"files that end in {', '.join(sorted(FONT_SUFFIXES))} and are fonts",
            "name a folder that holds fonts, e.g. the one of the package pretix-fontpack-free",
        )
    return dict(sorted(found.items()))


def _magic(path: Path) -> bytes:
    with path.open("rb") as stream:
        return stream.read(4)


def find_faces(files: Mapping[str, Path], max_faces_per_family: int) -> list[Face]:
    """Read the fonts as faces, without unusable ones, repeated names, and surplus faces of a family.

    Args:
        files: Font files from `font_files`, by digest.
        max_faces_per_family: Most faces of one family; the first ones by digest are used.

    Raises:
        UserError: fontTools is not installed.
    """
    faces: list[Face] = []
    names: set[str] = set()
    n_of_family: Counter[str] = Counter()
    for digest, path in files.items():
        face = _open_face(path, digest)
        if face and face.name not in names and n_of_family[face.family] < max_faces_per_family:
            faces.append(face)
            names.add(face.name)
            n_of_family[face.family] += 1
    logger.info("glyphs: %d faces of %d font files", len(faces), len(files))
    return faces


@contextmanager
def _opened(path: Path) -> Iterator[TTFont]:
    """Open a font, without fontTools' warnings about dates and the like."""
    chatter = logging.getLogger("fontTools")
    level = chatter.level
    chatter.setLevel(logging.ERROR)
    try:
        with _font_tools().TTFont(path, fontNumber=0, lazy=True) as font:
            yield font
    finally:
        chatter.setLevel(level)


def _open_face(path: Path, digest: str) -> Face | None:
    """Read a font's names and characters; return None if it holds no plain letters."""
    try:
        with _opened(path) as font:
            if not _is_usable(font):
                return None
            family, name = _names(font)
            points = frozenset(font.getBestCmap() or ())
    except UserError:
        raise
    except Exception as error:  # a damaged table can raise any exception
        logger.info("glyphs: %s left out: %s", path.name, error)
        return None
    if NO_LETTERS.search(name) or not points or NONCHARACTER in points:
        return None
    return Face(path=path, digest=digest, name=name, family=family, points=points)


def _font_tools() -> Any:
    try:
        from fontTools import ttLib
    except ImportError as error:
        raise UserError(
            "dataset 'glyphs' reads fonts with fontTools, which is not installed",
            "the package fonttools",
            "install it, e.g. with `uv pip install fonttools`",
        ) from error
    return ttLib


def _is_usable(font: TTFont) -> bool:
    tables = set(font.keys())
    return "fvar" not in tables and bool(tables & OUTLINE_TABLES) and not tables & COLOUR_TABLES


def _names(font: TTFont) -> tuple[str, str]:
    """Return the typographic family and the full name."""
    table = font["name"]
    family = table.getDebugName(16) or table.getDebugName(1) or ""
    style = table.getDebugName(17) or table.getDebugName(2) or ""
    name = table.getDebugName(4) or f"{family} {style}".strip()
    return family or name, " ".join(name.split())


def draw_all(faces: Sequence[Face], points: Iterable[int], image_size: int) -> Drawings:
    """Draw every character that a face really has, for all faces.

    Args:
        faces: One or more faces.
        points: Code points to look for.
        image_size: Side length of the images in pixels; drawings are compared at twice that.
    """
    wanted = tuple(points)
    parts = [
        _draw_face(face, index, [point for point in wanted if point in face.points], image_size)
        for index, face in enumerate(faces)
    ]
    return Drawings(
        points=np.concatenate([part.points for part in parts]),
        faces=np.concatenate([part.faces for part in parts]),
        images=np.concatenate([part.images for part in parts]),
        coarse=np.concatenate([part.coarse for part in parts]),
        outlines=np.concatenate([part.outlines for part in parts]),
    )


def _draw_face(face: Face, index: int, points: Sequence[int], image_size: int) -> Drawings:
    """Draw the characters of one face, without placeholders and small letters drawn as capitals."""
    canvas_side = 2 * image_size
    font = _sized_font(face, canvas_side)
    outlines = _honest_outlines(face, points) if font else {}
    canvases = {point: _draw(font, chr(point), canvas_side) for point in outlines} if font else {}
    drawn = {point: canvas for point, canvas in canvases.items() if canvas is not None}
    if _draws_small_as_capitals(drawn):
        drawn = {point: canvas for point, canvas in drawn.items() if not chr(point).islower()}
    images = [_resize(canvas, image_size) for canvas in drawn.values()]
    return Drawings(
        points=np.array(list(drawn), np.int64),
        faces=np.full(len(drawn), index, np.int64),
        images=np.array(images, np.uint8).reshape(-1, image_size, image_size),
        coarse=np.array([_coarse(canvas) for canvas in drawn.values()], np.float32).reshape(-1, 256),
        outlines=np.array([outlines[point] for point in drawn], np.int64),
    )


def _honest_outlines(face: Face, points: Iterable[int]) -> dict[int, int]:
    """Return each code point's outline as a number, without the box for missing characters and other placeholders.

    Outlines are compared, not pixels, since hinting draws the same outline differently in another script.
    """
    try:
        with _opened(face.path) as font:
            glyph_set, glyph_names = font.getGlyphSet(), font.getBestCmap()
            box = _outline(glyph_set, font.getGlyphOrder()[0])
            outlines = {point: _outline(glyph_set, glyph_names[point]) for point in points}
    except Exception as error:  # as in `_open_face`
        logger.info("glyphs: %s left out: %s", face.path.name, error)
        return {}
    uses = Counter(outlines.values())
    return {point: outline for point, outline in outlines.items() if outline != box and uses[outline] <= MAX_USES}


def _outline(glyph_set: Mapping[str, Any], glyph_name: str) -> int:
    """Return a number for a glyph's curves that does not depend on its horizontal position."""
    from fontTools.pens.recordingPen import DecomposingRecordingPen

    pen = DecomposingRecordingPen(glyph_set)
    glyph_set[glyph_name].draw(pen)
    corners = [point for _, points in pen.value for point in points if point is not None]
    left = min((x for x, _ in corners), default=0)
    moved = [
        (command, [None if point is None else (round(point[0] - left), round(point[1])) for point in points])
        for command, points in pen.value
    ]
    return int.from_bytes(hashlib.sha256(repr(moved).encode()).digest()[:8], "big", signed=True)


def _sized_font(face: Face, canvas_side: int) -> ImageFont.FreeTypeFont | None:
    """Load a face at a size that gives H one height in all faces, or 0.7 em if there is no H; None on failure."""
    from PIL import ImageFont

    def load(size: float) -> ImageFont.FreeTypeFont:
        # The layout engine is fixed: the other one needs a library that may not be installed.
        return ImageFont.truetype(face.path, size, layout_engine=ImageFont.Layout.BASIC)

    try:
        _, top, _, bottom = load(MEASURING_SIZE).getbbox("H", anchor="ls")
        cap_height = (bottom - top) / MEASURING_SIZE if ord("H") in face.points else 0.7
        return load(CAP_HEIGHT * canvas_side / cap_height) if 0.2 < cap_height < 2 else None
    except OSError as error:
        logger.info("glyphs: %s left out: %s", face.path.name, error)
        return None


def _draw(font: ImageFont.FreeTypeFont, character: str, canvas_side: int) -> ImageArray | None:
    """Draw a character on its baseline, with its ink centred horizontally.

    Returns:
        (canvas_side, canvas_side) uint8, ink 255 on 0; None if it is blank, broken or does not fit.
    """
    from PIL import Image, ImageDraw

    try:
        # Three times the canvas each way, since a character's ink may lie outside the extent that the font states.
        image = Image.new("L", (3 * canvas_side, 3 * canvas_side))
        origin = (canvas_side, canvas_side + round(BASELINE * canvas_side))
        ImageDraw.Draw(image).text(origin, character, fill=255, font=font, anchor="ls")
    except OSError:
        return None
    left, top, right, bottom = image.getbbox() or (0, 0, 0, 0)
    if right - left > canvas_side or top < canvas_side or bottom > 2 * canvas_side:
        return None
    left = (left + right - canvas_side) // 2
    canvas = np.asarray(image.crop((left, canvas_side, left + canvas_side, 2 * canvas_side)), np.uint8)
    return canvas if int(np.count_nonzero(canvas > 127)) >= 4 else None


def _draws_small_as_capitals(drawn: Mapping[int, ImageArray]) -> bool:
    """Return whether small letters have the shapes of capitals, at any size."""
    cosines = [
        _shape(drawn[ord(small)]) @ _shape(drawn[ord(small.upper())])
        for small in CASE_PROBES
        if ord(small) in drawn and ord(small.upper()) in drawn
    ]
    n_equal = sum(bool(cosine > CASE_COSINE) for cosine in cosines)
    return n_equal > 0 and n_equal >= CASE_RATIO * len(cosines)


def _shape(canvas: ImageArray) -> NDArray[np.float32]:
    """Return the shape of a drawing, independent of its position and size, as (256,) float32."""
    rows, columns = np.nonzero(canvas > 127)
    return _coarse(canvas[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1])


def _coarse(canvas: ImageArray) -> NDArray[np.float32]:
    """Return 16 x 16 means of a drawing, centred and of unit length, as (256,) float32."""
    cells = np.asarray(_resize(canvas, 16), np.float32).ravel()
    cells -= cells.mean()
    return cells / (np.linalg.norm(cells) + np.float32(1e-6))


def _resize(canvas: ImageArray, side: int) -> ImageArray:
    from PIL import Image

    return np.asarray(Image.fromarray(canvas).resize((side, side), Image.Resampling.BOX))
