"""Images in a folder with one sub-folder per class."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path

import numpy as np

from episodes.arrays import IntArray
from lurefs.data.dataset import ImageArray, ImageDataset, View
from lurefs.data.paths import existing
from lurefs.data.pixels import check_image_size, read_image
from lurefs.errors import UserError

IMAGE_SUFFIXES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"})


def folder(path: str, image_size: int = 64, n_channels: int = 3) -> ImageDataset:
    """Return the images of a folder with one sub-folder per class as a data set; images are decoded when read.

    Files may lie at any depth below their class folder; hidden files are skipped. The shorter side is resized and the
    centre cropped. The identity holds names and sizes of the files, not their bytes, so replacing a file by one of the
    same size goes unnoticed.

    Args:
        path: The folder; `~` and relative paths are allowed.
        image_size: Side length in pixels.
        n_channels: 1 (grey) or 3 (RGB).

    Raises:
        UserError: The folder is missing or has no class folders, or a class has no images. While images are read: an
            image is damaged.
    """
    check_image_size(image_size, where="folder")
    if n_channels not in (1, 3):
        raise UserError(
            f"folder: n_channels is {n_channels!r}", "1 (grey) or 3 (RGB)", "set n_channels to one of the two"
        )
    root = existing(path, "folder")
    class_names = _class_folders(root)
    files_of = [_images_below(root / name) for name in class_names]
    files = [file for of_class in files_of for file in of_class]
    image_ids = tuple(file.relative_to(root).as_posix() for file in files)
    return _view_files(
        _Files(
            root=root,
            labels=np.repeat(np.arange(len(class_names)), [len(of_class) for of_class in files_of]),
            class_names=class_names,
            image_ids=image_ids,
            sha256=_listing_digest(image_ids, files),
            n_channels=n_channels,
        ),
        View(image_size=image_size),
    )


@dataclass(frozen=True, kw_only=True)
class _Files:
    """The image files below a folder, one sub-folder per class."""

    root: Path
    labels: IntArray
    class_names: tuple[str, ...]
    image_ids: tuple[str, ...]
    sha256: str
    n_channels: int


def _view_files(files: _Files, view: View) -> ImageDataset:
    """Return the images of files in one view."""
    plain = View(image_size=view.image_size)
    return ImageDataset(
        name="folder",
        labels=files.labels,
        class_names=files.class_names,
        image_ids=files.image_ids,
        sources=np.zeros(len(files.image_ids), np.int64),
        source_names=("folder",),
        image_size=view.image_size,
        n_channels=files.n_channels,
        identity={
            "source": "folder",
            "files_sha256": files.sha256,
            "image_size": view.image_size,
            "n_channels": files.n_channels,
            "pillow": version("pillow"),
            **({} if view == plain else {"crop_share": view.crop_share, "interpolation": view.interpolation}),
            **({"is_squashed": True} if view.is_squashed else {}),
        },
        read=partial(_read_files, files.root, files.image_ids, view, files.n_channels),
        viewed=partial(_view_files, files),
    )


def _class_folders(root: Path) -> tuple[str, ...]:
    names = tuple(sorted(entry.name for entry in root.iterdir() if entry.is_dir() and not entry.name.startswith(".")))
    if not names:
        raise UserError(
            f"{root} has no sub-folders",
            "one sub-folder per class, with the images of the class in it",
            "sort the images into a sub-folder for each class, or point at the folder above the classes",
        )
    return names


def _images_below(class_dir: Path) -> list[Path]:
    """List a class's images, sorted by path."""
    found = [
        Path(below, name)
        for below, folders, names in os.walk(class_dir)
        if _prune_hidden(folders)
        for name in names
        if Path(name).suffix.lower() in IMAGE_SUFFIXES and not name.startswith(".")
    ]
    if not found:
        raise UserError(
            f"class {class_dir.name!r} has no images: {class_dir}",
            f"at least one file that ends in {', '.join(sorted(IMAGE_SUFFIXES))}",
            "add images to the folder, or delete it",
        )
    return sorted(found, key=lambda file: file.relative_to(class_dir).as_posix())


def _prune_hidden(folders: list[str]) -> bool:
    """Remove hidden folders from the list of `os.walk`, so that it skips them; return True."""
    folders[:] = [name for name in folders if not name.startswith(".")]
    return True


def _listing_digest(image_ids: Sequence[str], files: Sequence[Path]) -> str:
    digest = hashlib.sha256()
    for image_id, file in zip(image_ids, files, strict=True):
        digest.update(f"{image_id}\0{file.stat().st_size}\n".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def _read_files(root: Path, image_ids: Sequence[str], view: View, n_channels: int, rows: IntArray) -> ImageArray:
    images = np.empty((len(rows), view.image_size, view.image_size, n_channels), np.uint8)
    for place, row in enumerate(rows):
        images[place] = read_image(root / image_ids[row], view, n_channels)
    return images
