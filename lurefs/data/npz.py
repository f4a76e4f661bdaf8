"""Images in an `.npz` file."""

from __future__ import annotations

import hashlib
import zipfile
from functools import lru_cache, partial
from importlib.metadata import version
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from episodes.arrays import IntArray
from lurefs.data.dataset import ImageArray, ImageDataset
from lurefs.data.paths import existing
from lurefs.data.pixels import check_image_size, resize_images
from lurefs.errors import UserError


def npz(path: str, image_size: int | None = None) -> ImageDataset:
    """Return the images of an `.npz` file as a data set; pixels are loaded when the first image is read.

    The file holds `images` (n_images, height, width) or (n_images, height, width, 1 or 3) uint8, and `labels`
    (n_images,) integers. Optional: `class_names` (n_classes,), which labels then index (otherwise the classes are the
    values of `labels`); `image_ids` (n_images,), unique names; `sources` (n_images,), names or numbers of who made each
    image.

    Args:
        path: The file; `~` and relative paths are allowed.
        image_size: Side length in pixels: the shorter side is resized, the centre cropped. None keeps square images.

    Raises:
        UserError: The file is missing, damaged or lacks an array, or an array has the wrong type, shape or values.
    """
    if image_size is not None:
        check_image_size(image_size, where="npz")
    file = existing(path, "file")
    arrays = _NpzFile(file)
    shape = arrays.images_shape()
    labels, class_names = _classes(arrays, shape[0])
    sources, source_names = _origins(arrays, shape[0])
    size = _square_side(file, shape) if image_size is None else image_size
    digest = _file_digest(file)
    identity = {"source": "npz", "file_sha256": digest, "image_size": size}
    if shape[1:3] != (size, size):
        identity["pillow"] = version("pillow")
    return ImageDataset(
        name="npz",
        labels=labels,
        class_names=class_names,
        image_ids=_ids(arrays, shape[0]),
        sources=sources,
        source_names=source_names,
        image_size=size,
        n_channels=shape[3],
        identity=identity,
        read=partial(_read_npz, file, digest, size),
    )


class _NpzFile:
    """An `.npz` file whose arrays are checked when they are loaded; opening it reads only the names of its arrays."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            with zipfile.ZipFile(path) as archive:
                self.names = {name[:-4] for name in archive.namelist() if name.endswith(".npy")}
        except OSError:
            raise
        except Exception as error:  # a damaged archive raises errors of many kinds
            raise self.wrong("is not an .npz file, or is incomplete", "an intact file") from error

    def wrong(
        self, problem: str, expected: str, fix: str = "write the file again with numpy.savez_compressed"
    ) -> UserError:
        """Build a `UserError` about this file."""
        return UserError(f"{self.path} {problem}", expected, fix)

    def unreadable(self, name: str, error: Exception) -> UserError:
        """Build the `UserError` for an array that is damaged or holds Python objects."""
        return self.wrong(f"has an array {name!r} that cannot be read: {error}", "an intact array of numbers or text")

    def load(self, name: str) -> NDArray[Any]:
        """Load the array `name`."""
        self._require(name)
        try:
            with np.load(self.path, allow_pickle=False) as arrays:
                array: NDArray[Any] = arrays[name]
                return array
        except Exception as error:  # a damaged archive raises errors of many kinds
            raise self.unreadable(name, error) from error

    def images_shape(self) -> tuple[int, int, int, int]:
        """Read (n_images, height, width, n_channels) from the header of `images`, without its pixels."""
        self._require("images")
        try:
            with zipfile.ZipFile(self.path) as archive, archive.open("images.npy") as stream:
                shape, dtype = _read_header(stream)
        except Exception as error:  # a damaged archive raises errors of many kinds
            raise self.unreadable("images", error) from error
        full = (*shape, 1) if len(shape) == 3 else shape
        if dtype != np.uint8 or len(full) != 4 or full[3] not in (1, 3) or 0 in full:
            raise self.wrong(
                f"has images of shape {shape}, {dtype}",
                "(n_images, height, width) or (n_images, height, width, 1 or 3), uint8 in [0, 255]",
                "convert the array before saving it; channels come last",
            )
        return full

    def column(self, name: str, n_images: int) -> NDArray[Any]:
        """Load an array that must have one entry per image."""
        array = self.load(name)
        if array.shape != (n_images,):
            raise self.wrong(
                f"has {name} of shape {array.shape}", f"({n_images},), one entry per image", f"correct {name}"
            )
        return array

    def _require(self, name: str) -> None:
        if name not in self.names:
            raise self.wrong(
                f"has no array {name!r}, only {', '.join(sorted(self.names)) or 'none at all'}",
                "images and labels, optionally class_names, image_ids, sources",
                f"save the file with {name}=...",
            )


def _read_header(stream: IO[bytes]) -> tuple[tuple[int, ...], np.dtype[Any]]:
    major, _ = np.lib.format.read_magic(stream)
    read = np.lib.format.read_array_header_1_0 if major == 1 else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(stream)
    return shape, dtype


def _classes(arrays: _NpzFile, n_images: int) -> tuple[IntArray, tuple[str, ...]]:
    """Return labels as class indices, and the class names."""
    stored = arrays.column("labels", n_images)
    if not np.issubdtype(stored.dtype, np.integer):
        raise arrays.wrong(f"has labels of type {stored.dtype}", "integers", "save labels.astype('int64')")
    if "class_names" not in arrays.names:
        values, labels = np.unique(stored, return_inverse=True)
        return labels.astype(np.int64), tuple(str(value) for value in values)
    names = tuple(str(name) for name in arrays.load("class_names").ravel())
    labels = stored.astype(np.int64)
    if labels.min() < 0 or labels.max() >= len(names):
        raise arrays.wrong(
            f"has labels from {labels.min()} to {labels.max()}, but {len(names)} class_names",
            f"labels from 0 to {len(names) - 1}",
            "save one class name for each label, or leave class_names out",
        )
    empty = [names[label] for label in np.flatnonzero(np.bincount(labels, minlength=len(names)) == 0)]
    if empty or len(set(names)) < len(names):
        raise arrays.wrong(
            f"has no image of class {empty[0]!r}" if empty else "has class_names that occur twice",
            "different class_names, each with at least one image",
            "leave that name out and renumber the labels",
        )
    return labels, names


def _origins(arrays: _NpzFile, n_images: int) -> tuple[IntArray, tuple[str, ...]]:
    """Return sources as indices, and their names; a single source if the file names none."""
    if "sources" not in arrays.names:
        return np.zeros(n_images, np.int64), ("npz",)
    values, sources = np.unique(arrays.column("sources", n_images), return_inverse=True)
    return sources.astype(np.int64), tuple(str(value) for value in values)


def _ids(arrays: _NpzFile, n_images: int) -> tuple[str, ...]:
    if "image_ids" not in arrays.names:
        return tuple(f"{row:0{len(str(n_images - 1))}d}" for row in range(n_images))
    image_ids = tuple(str(image_id) for image_id in arrays.column("image_ids", n_images))
    if len(set(image_ids)) < n_images:
        raise arrays.wrong("has image_ids that occur twice", "one unique id per image", "save unique ids, or none")
    return image_ids


def _square_side(path: Path, shape: tuple[int, int, int, int]) -> int:
    _, height, width, _ = shape
    if height != width:
        raise UserError(
            f"{path} has images of {height} x {width} pixels",
            "square images, or an image_size to resize them to",
            f"set image_size, e.g. dataset.params.image_size={min(height, width)}",
        )
    return height


def _file_digest(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _read_npz(path: Path, digest: str, image_size: int, rows: IntArray) -> ImageArray:
    return resize_images(_npz_images(path, digest)[rows], image_size)


@lru_cache(maxsize=2)
def _npz_images(path: Path, digest: str) -> ImageArray:
    """Load all pixels, (n_images, height, width, n_channels); the last two files stay in memory."""
    images: ImageArray = _NpzFile(path).load("images")
    return images[..., np.newaxis] if images.ndim == 3 else images
