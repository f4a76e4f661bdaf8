"""Labelled image files, from a folder, an archive or a table, as a data set in any view."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from episodes.arrays import IntArray
from lurefs.data.dataset import PARTS, ImageArray, ImageDataset, View
from lurefs.data.pixels import check_image_size, printable, read_image
from lurefs.errors import UserError

if TYPE_CHECKING:
    from PIL import Image

PART_NAMES = {
    **dict.fromkeys(("train", "training", "trn", "meta-train", "meta_train", "base", "images_background"), 0),
    **dict.fromkeys(("val", "valid", "validation", "dev", "meta-val", "meta_val"), 1),
    **dict.fromkeys(("test", "testing", "tst", "meta-test", "meta_test", "novel", "images_evaluation"), 2),
}
"""What folders and columns call the parts of a split, in small letters, and the index of each in `PARTS`."""
GROUPS = ("base", "validation", "novel")
"""The groups of classes that the three parts are if they share no class."""


@dataclass(frozen=True, kw_only=True)
class Split:
    """The split that data bring: of the classes, or of the images of each class, or neither."""

    class_split: Mapping[str, tuple[str, ...]] | None = None
    parts: IntArray | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Encoded:
    """Images that are files, or bytes of files, before their size is chosen.

    Attributes:
        name: The plug-in's name.
        labels: (n_images,) int64, index into `class_names`.
        class_names: One name per class.
        image_ids: One unique name per image.
        identity: Digest of the content, and the settings that the labels depend on.
        open: From a row to the path or the bytes of the image, or the image itself, and its name in error messages.
        files: Returns the files that hold the images; None if they are not known.
        n_channels: 1 (grey) or 3 (RGB).
        white_level: See `lurefs.data.pixels.read_image`.
        sources: (n_images,) int64, index into `source_names`; None for one source.
        source_names: One name per source.
        split: The split that the data bring.
        notes: What the user should know.
    """

    name: str
    labels: IntArray
    class_names: tuple[str, ...]
    image_ids: tuple[str, ...]
    identity: Mapping[str, Any]
    open: Callable[[int], tuple[Path | IO[bytes] | Image.Image, str]]
    files: Callable[[], Iterable[Path]] | None = None
    n_channels: int = 3
    white_level: float | None = None
    sources: IntArray | None = None
    source_names: tuple[str, ...] = ()
    split: Split = Split()
    notes: tuple[str, ...] = ()


def dataset_of(images: Encoded, view: View) -> ImageDataset:
    """Return encoded images in one view, decoded when they are read."""
    plain = View(image_size=view.image_size)
    n_images = len(images.labels)
    split = images.split
    given = "classes" if split.class_split is not None else "images" if split.parts is not None else None
    return ImageDataset(
        name=images.name,
        labels=images.labels,
        class_names=images.class_names,
        image_ids=images.image_ids,
        sources=np.zeros(n_images, np.int64) if images.sources is None else images.sources,
        source_names=images.source_names or (images.name,),
        image_size=view.image_size,
        n_channels=images.n_channels,
        identity={
            **images.identity,
            "image_size": view.image_size,
            "n_channels": images.n_channels,
            "pillow": version("pillow"),
            **({} if images.white_level is None else {"white_level": images.white_level}),
            **({"given_split": given} if given else {}),
            **({} if view == plain else {"crop_share": view.crop_share, "interpolation": view.interpolation}),
            **({"is_squashed": True} if view.is_squashed else {}),
        },
        read=partial(_read, images, view),
        viewed=partial(dataset_of, images),
        stamp=None if images.files is None else partial(_stamp, images.files),
        class_split=split.class_split,
        parts=split.parts,
        notes=(*images.notes, *split.notes),
    )


def below(root: Path, names: Sequence[str]) -> Iterable[Path]:
    """Yield the paths of files below a folder."""
    return (root / name for name in names)


def _stamp(files: Callable[[], Iterable[Path]]) -> str:
    """Return a digest of what the file system says about files: it changes when one is written or replaced."""
    digest = hashlib.sha256()
    for file in files():
        try:
            found = os.stat(file)
            digest.update(f"{found.st_size} {found.st_mtime_ns} {found.st_ctime_ns} {found.st_ino}\n".encode())
        except OSError:  # reading the file says more
            digest.update(b"missing\n")
    return digest.hexdigest()


def check_settings(where: str, image_size: int, n_channels: int, white_level: float | None) -> None:
    """Check the settings that all encoded images share; error messages call the data set `where`.

    Raises:
        UserError: One of them is wrong.
    """
    check_image_size(image_size, where=where)
    if n_channels not in (1, 3):
        raise UserError(
            f"{where}: n_channels is {n_channels!r}", "1 (grey) or 3 (RGB)", "set n_channels to one of the two"
        )
    if white_level is not None and not 0 < white_level < 2**32:
        raise UserError(
            f"{where}: white_level is {white_level!r}", "a positive number, e.g. 4095", "change white_level"
        )


def unique_ids(names: Sequence[str]) -> tuple[str, ...]:
    """Return names as printable ones; names that look alike when printed are numbered."""
    found = tuple(map(printable, names))
    if len(set(found)) == len(found):
        return found
    taken: set[str] = set()
    ids = []
    for name in found:
        image_id, number = name, 1
        while image_id in taken:
            number += 1
            image_id = f"{name}~{number}"
        taken.add(image_id)
        ids.append(image_id)
    return tuple(ids)


def coded(values: Sequence[str]) -> tuple[IntArray, tuple[str, ...]]:
    """Return texts as indices of their sorted values, and these."""
    names, rows = np.unique(np.array(values), return_inverse=True)
    return rows.astype(np.int64), unique_ids([str(name) for name in names])


def given_split(codes: IntArray, labels: IntArray, class_names: Sequence[str], *, use_split: bool, where: str) -> Split:
    """Return the split that the parts of the images make: of the classes if no two parts share one.

    Args:
        codes: (n_images,) index into `PARTS`.
        labels: (n_images,) index into `class_names`.
        class_names: The classes.
        use_split: Whether it is used; otherwise the images of all parts are pooled.
        where: The data, for error messages.

    Raises:
        UserError: The parts share a few of their classes.
    """
    present = [part for part in range(len(PARTS)) if (codes == part).any()]
    if len(present) < 2:
        return Split()
    names = _joined([PARTS[part] for part in present])
    if not use_split:
        return Split(notes=(f"{names} of {where} are pooled, since use_split is false",))
    counts = np.stack([np.bincount(labels[codes == part], minlength=len(class_names)) for part in present])
    n_homes = (counts > 0).sum(axis=0)
    if (n_homes <= 1).all():
        home = {part: GROUPS[part] for part in present[:-1]} | {present[-1]: "novel"}
        lists: dict[str, tuple[str, ...]] = dict.fromkeys(GROUPS, ())
        for part, group in home.items():
            lists[group] = tuple(class_names[label] for label in np.unique(labels[codes == part]))
        sizes = _joined([f"{len(lists[group])} {group}" for group in home.values()])
        return Split(
            class_split=lists,
            notes=(f"{names} of {where} hold different classes: {sizes} ones, unless the recipe sets class_split",),
        )
    if (n_homes > 1).mean() < 0.5:
        shared = [name for name, is_shared in zip(class_names, n_homes > 1, strict=True) if is_shared]
        raise UserError(
            f"{names} of {where} share {len(shared)} of {len(class_names)} classes, e.g. {shared[0]!r}",
            "parts that share no class, or parts of the images of the same classes",
            "correct the parts, or set use_split: false to pool the images of all parts",
        )
    return Split(
        parts=codes,
        notes=(
            f"{names} of {where} hold the same classes: they divide the images of base classes, and each benchmark on "
            "other classes takes the images of all parts",
        ),
    )


def _joined(words: Sequence[str]) -> str:
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def _read(images: Encoded, view: View, rows: IntArray) -> ImageArray:
    pixels = np.empty((len(rows), view.image_size, view.image_size, images.n_channels), np.uint8)
    for place, row in enumerate(rows):
        file, name = images.open(int(row))
        pixels[place] = read_image(file, view, images.n_channels, white_level=images.white_level, name=name)
    return pixels
