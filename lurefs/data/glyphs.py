"""The `glyphs` data set: characters rendered from any folder of fonts, and cached.

A class is a character, a source is a face. The module `fonts` reads fonts and draws with them.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import unicodedata
import zipfile
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache, partial
from importlib.metadata import version
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from episodes.arrays import IntArray
from lurefs.data.dataset import ImageArray, ImageDataset
from lurefs.data.fonts import Drawings, Face, draw_all, find_faces, font_files
from lurefs.data.pixels import check_image_size
from lurefs.errors import UserError, unknown_name

# First and last code points of each alphabet. If two alphabets share a drawing, the class is named after the first one
# here.
ALPHABETS: Mapping[str, tuple[tuple[int, int], ...]] = MappingProxyType(
    {
        "digits": ((0x30, 0x39),),
        "latin": ((0x41, 0x5A), (0x61, 0x7A)),
        "latin_accented": ((0xC0, 0xD6), (0xD8, 0xF6), (0xF8, 0x17F)),
        "greek": ((0x391, 0x3A1), (0x3A3, 0x3C9)),
        "cyrillic": ((0x400, 0x45F), (0x490, 0x491)),
        "armenian": ((0x531, 0x556), (0x561, 0x586)),
        "hebrew": ((0x5D0, 0x5EA),),
        "arabic": ((0x621, 0x63A), (0x641, 0x64A)),
        "devanagari": ((0x904, 0x939),),
        "thai": ((0xE01, 0xE2E),),
        "georgian": ((0x10D0, 0x10F0),),
        "hiragana": ((0x3041, 0x3096),),
        "katakana": ((0x30A1, 0x30FA),),
        "symbols": ((0x21, 0x2F), (0x3A, 0x40), (0x5B, 0x60), (0x7B, 0x7E), (0xA1, 0xBF), (0x20A0, 0x20BF)),
    }
)
# Characters that look alike, though some fonts draw them slightly differently: character -> the one that replaces it.
LOOK_ALIKES: Mapping[int, int] = MappingProxyType(
    {
        **{0x391: 0x41, 0x392: 0x42, 0x395: 0x45, 0x396: 0x5A, 0x397: 0x48, 0x399: 0x49, 0x39A: 0x4B, 0x39C: 0x4D},
        **{0x39D: 0x4E, 0x39F: 0x4F, 0x3A1: 0x50, 0x3A4: 0x54, 0x3A5: 0x59, 0x3A7: 0x58, 0x3BF: 0x6F, 0x3BD: 0x76},
        **{0x400: 0xC8, 0x401: 0xCB, 0x405: 0x53, 0x406: 0x49, 0x407: 0xCF, 0x408: 0x4A, 0x410: 0x41, 0x412: 0x42},
        **{0x413: 0x393, 0x415: 0x45, 0x41A: 0x4B, 0x41C: 0x4D, 0x41D: 0x48, 0x41E: 0x4F, 0x41F: 0x3A0, 0x420: 0x50},
        **{0x421: 0x43, 0x422: 0x54, 0x424: 0x3A6, 0x425: 0x58, 0x430: 0x61, 0x435: 0x65, 0x43A: 0x138, 0x43E: 0x6F},
        **{0x440: 0x70, 0x441: 0x63, 0x443: 0x79, 0x445: 0x78, 0x450: 0xE8, 0x451: 0xEB, 0x455: 0x73, 0x456: 0x69},
        **{0x457: 0xEF, 0x458: 0x6A, 0x3BA: 0x138, 0xB5: 0x3BC, 0x555: 0x4F, 0x585: 0x6F},
    }
)

# Two drawings count as the same if the cosine of their centred 16 x 16 means is above this.
SAME_DRAWING = 0.985
# Two characters are one class if this share of the faces with both draws them the same.
LOOK_ALIKE_RATIO = 0.5
# Raise this with every change to what is drawn or selected.
RECIPE = 1


@dataclass(frozen=True, kw_only=True)
class GlyphSettings:
    """The settings that decide the images, together with the fonts.

    Attributes:
        image_size: Side length in pixels.
        min_faces: Characters with fewer different drawings, one per face, are left out.
        max_faces_per_family: Most faces of one family.
        alphabets: Names from `ALPHABETS`.
    """

    image_size: int
    min_faces: int
    max_faces_per_family: int
    alphabets: tuple[str, ...]


def glyphs(
    font_dirs: Sequence[str],
    *,
    image_size: int = 32,
    min_faces: int = 20,
    max_faces_per_family: int = 2,
    alphabets: Sequence[str] | None = None,
    cache_dir: str | None = None,
) -> ImageDataset:
    """Return the characters of all usable fonts below the given folders, grey with ink 255 on 0.

    Faces are scaled to the same height of capitals and keep baseline and proportions. Characters that most faces draw
    alike (Latin A, Greek Alpha, Cyrillic A) are one class. The first call renders (about 20 seconds for a hundred
    fonts). Later calls read the images from a cache, whose key is the content of the fonts and these settings.

    Args:
        font_dirs: Folders with `.ttf`, `.otf` or `.ttc` files at any depth; of a `.ttc`, only the first face is used.
        image_size: Side length in pixels.
        min_faces: Smallest number of images per class.
        max_faces_per_family: Largest number of faces of one family.
        alphabets: Names of the alphabets to draw; None for all of `ALPHABETS`.
        cache_dir: Folder of the cache; None for the environment variable `LUREFS_CACHE`, or `~/.cache/lurefs`.

    Returns:
        Classes named like `latin/U+0041`, with the alphabet before the slash; ids like `U+0041/DejaVu Sans`; one source
        per face.

    Raises:
        UserError: A folder is missing or has too few usable fonts, an alphabet is unknown, a setting is below 1,
            fontTools is not installed, or the cache cannot be written.
    """
    settings = _checked(
        GlyphSettings(
            image_size=image_size,
            min_faces=min_faces,
            max_faces_per_family=max_faces_per_family,
            alphabets=tuple(ALPHABETS) if alphabets is None else tuple(alphabets),
        )
    )
    files = font_files(font_dirs)
    identity = _identity(settings, files)
    path = _cache_path(cache_dir, identity)
    if not _is_intact(path):
        _save(path, _render(settings, files))
    return _load(path, settings, identity)


def _checked(settings: GlyphSettings) -> GlyphSettings:
    check_image_size(settings.image_size, where="glyphs")
    for name in ("min_faces", "max_faces_per_family"):
        value = getattr(settings, name)
        if value < 1:
            raise UserError(f"glyphs: {name} is {value}", "1 or more", f"raise {name}")
    for alphabet in settings.alphabets:
        if alphabet not in ALPHABETS:
            raise unknown_name("alphabet", alphabet, ALPHABETS)
    return settings


def _points_of(alphabets: Iterable[str]) -> dict[int, str]:
    """Map the code points of the given alphabets to the alphabet's name, in the order of `ALPHABETS`."""
    wanted = set(alphabets)
    return {
        point: alphabet
        for alphabet, ranges in ALPHABETS.items()
        if alphabet in wanted
        for first, last in ranges
        for point in range(first, last + 1)
        if unicodedata.category(chr(point)) not in ("Cn", "Cf", "Mn")
    }


def _look_alikes(drawings: Drawings, order: Sequence[int]) -> dict[int, int]:
    """Map each code point to the one whose class it joins: the first in `order` that most faces draw the same."""
    place_of = {point: place for place, point in enumerate(order)}
    n_same: Counter[tuple[int, int]] = Counter()
    points_of_face: dict[int, set[int]] = defaultdict(set)
    for group in _groups(drawings.faces, drawings.outlines):
        alike = sorted(drawings.points[group].tolist(), key=place_of.__getitem__)
        n_same.update((first, second) for place, first in enumerate(alike) for second in alike[place + 1 :])
    for face, point in zip(drawings.faces.tolist(), drawings.points.tolist(), strict=True):
        points_of_face[face].add(point)
    stands_for = _known_look_alikes(order)
    for (first, second), count in sorted(n_same.items(), key=lambda item: (place_of[item[0][0]], place_of[item[0][1]])):
        n_both = sum(first in points and second in points for points in points_of_face.values())
        if count >= LOOK_ALIKE_RATIO * n_both:
            stands_for[second] = min(stands_for[second], stands_for[first], key=place_of.__getitem__)
    return stands_for


def _known_look_alikes(order: Sequence[int]) -> dict[int, int]:
    """Map each code point to the first in `order` of its group in `LOOK_ALIKES`."""
    first_of: dict[int, int] = {}
    return {point: first_of.setdefault(LOOK_ALIKES.get(point, point), point) for point in order}


def _groups(*keys: IntArray) -> Iterator[IntArray]:
    """Yield groups of two or more rows that have equal keys."""
    by_key: dict[tuple[int, ...], list[int]] = defaultdict(list)
    for row, key in enumerate(zip(*(key.tolist() for key in keys), strict=True)):
        by_key[key].append(row)
    return (np.array(rows) for rows in by_key.values() if len(rows) > 1)


def _distinct(drawings: Drawings) -> Drawings:
    """Keep one drawing per class and face; drop drawings that a face uses for two classes, and copies in a class."""
    keep = np.ones(len(drawings.points), bool)
    for group in _groups(drawings.faces, drawings.points):
        keep[group[1:]] = False
    kept = drawings.take(keep)
    honest = np.ones(len(kept.points), bool)
    for group in _groups(kept.faces, kept.outlines):
        honest[group] = False
    kept = kept.take(honest)
    rows = [row for point in np.unique(kept.points) for row in _without_copies(kept, point)]
    return kept.take(np.array(rows, np.int64))


def _without_copies(drawings: Drawings, point: int) -> list[int]:
    """Return the rows of one class, without drawings that are nearly equal to an earlier one."""
    chosen: list[int] = []
    for row in np.flatnonzero(drawings.points == point).tolist():
        if not chosen or (drawings.coarse[chosen] @ drawings.coarse[row]).max() <= SAME_DRAWING:
            chosen.append(row)
    return chosen


def _render(settings: GlyphSettings, files: Mapping[str, Path]) -> dict[str, NDArray[Any]]:
    """Draw the images of the data set, and return all its arrays by name."""
    alphabet_of = _points_of(settings.alphabets)
    order = list(alphabet_of)
    faces = find_faces(files, settings.max_faces_per_family)
    if len(faces) < settings.min_faces:
        raise UserError(
            f"font_dirs: {len(faces)} usable faces of {len(files)} font files, but min_faces is {settings.min_faces}",
            f"{settings.min_faces} static outline fonts or more, at most {settings.max_faces_per_family} per family",
            "name more font_dirs, or lower min_faces",
        )
    drawn = draw_all(faces, order, settings.image_size)
    stands_for = _look_alikes(drawn, order)
    merged = Drawings(
        points=np.array([stands_for[point] for point in drawn.points.tolist()], np.int64),
        faces=drawn.faces,
        images=drawn.images,
        coarse=drawn.coarse,
        outlines=drawn.outlines,
    )
    distinct = _distinct(merged)
    n_faces = Counter(distinct.points.tolist())
    classes = [point for point in order if n_faces[point] >= settings.min_faces]
    if not classes:
        raise UserError(
            f"font_dirs: no character of {', '.join(settings.alphabets)} is drawn by {settings.min_faces} faces",
            f"min_faces of at most {max(n_faces.values(), default=0)} for these fonts",
            "lower min_faces, name more font_dirs, or choose other alphabets",
        )
    return _arrays(distinct, classes, [f"{alphabet_of[point]}/U+{point:04X}" for point in classes], faces)


def _arrays(
    drawings: Drawings, classes: Sequence[int], class_names: Sequence[str], faces: Sequence[Face]
) -> dict[str, NDArray[Any]]:
    """Sort the drawings by class and face, and return the arrays of the data set by name."""
    label_of = {point: label for label, point in enumerate(classes)}
    labels = np.array([label_of.get(point, -1) for point in drawings.points.tolist()], np.int64)
    rows = np.lexsort((drawings.faces, labels))
    rows = rows[labels[rows] >= 0]
    used, sources = np.unique(drawings.faces[rows], return_inverse=True)
    return {
        "images": drawings.images[rows][..., np.newaxis],
        "labels": labels[rows],
        "sources": sources.astype(np.int64),
        "class_names": np.array(class_names),
        "source_names": np.array([faces[index].name for index in used]),
    }


def _identity(settings: GlyphSettings, files: Mapping[str, Path]) -> dict[str, Any]:
    from PIL import features

    return {
        "source": "glyphs",
        "recipe": RECIPE,
        "fonts_sha256": hashlib.sha256("\n".join(files).encode()).hexdigest(),
        **asdict(settings),
        "alphabets": list(settings.alphabets),
        "pillow": version("pillow"),
        "freetype": features.version("freetype2"),
    }


def _cache_path(cache_dir: str | None, identity: Mapping[str, Any]) -> Path:
    root = Path(cache_dir or os.environ.get("LUREFS_CACHE") or "~/.cache/lurefs").expanduser().absolute()
    digest = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()
    return root / f"glyphs-{digest[:16]}.npz"


def _is_intact(path: Path) -> bool:
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.testzip() is None
    except Exception:  # a damaged file raises errors of many kinds
        return False


def _save(path: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Write a cache file atomically, so that no other process reads an incomplete one."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, suffix=".tmp", delete=False) as stream:
            np.savez_compressed(stream, allow_pickle=False, **arrays)
        Path(stream.name).replace(path)
    except OSError as error:
        raise UserError(
            f"the cache {path.parent} cannot be written: {error}",
            "a folder that can be written to",
            "set cache_dir, or the environment variable LUREFS_CACHE, to another folder",
        ) from error


def _load(path: Path, settings: GlyphSettings, identity: Mapping[str, Any]) -> ImageDataset:
    with np.load(path, allow_pickle=False) as arrays:
        labels: IntArray = arrays["labels"]
        sources: IntArray = arrays["sources"]
        class_names = tuple(arrays["class_names"].tolist())
        source_names = tuple(arrays["source_names"].tolist())
    return ImageDataset(
        name="glyphs",
        labels=labels,
        class_names=class_names,
        image_ids=tuple(
            f"{class_names[label].rpartition('/')[2]}/{source_names[source]}"
            for label, source in zip(labels, sources, strict=True)
        ),
        sources=sources,
        source_names=source_names,
        image_size=settings.image_size,
        n_channels=1,
        identity=identity,
        read=partial(_read, path),
    )


def _read(path: Path, rows: IntArray) -> ImageArray:
    return _cached_images(path)[rows]


@lru_cache(maxsize=2)
def _cached_images(path: Path) -> ImageArray:
    with np.load(path, allow_pickle=False) as arrays:
        images: ImageArray = arrays["images"]
    return images
