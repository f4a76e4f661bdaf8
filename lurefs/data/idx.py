"""Images in the idx files of MNIST and its relatives: a file of images beside a file of labels."""

from __future__ import annotations

import gzip
import hashlib
import re
from functools import partial
from importlib.metadata import version
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from episodes.arrays import IntArray
from lurefs.data.dataset import ImageArray, ImageDataset
from lurefs.data.encoded import PART_NAMES, Split, coded, given_split
from lurefs.data.pixels import check_image_size, resize_images
from lurefs.errors import UserError, first_line

IMAGES = re.compile(r"^(?P<start>.*)images?[-.]idx3-ubyte(?P<gz>\.gz)?$")
FASHION = ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")


def idx(
    path: str, image_size: int | None = None, class_names: list[str] | None = None, use_split: bool = True
) -> ImageDataset:
    """Return the images of idx files, as of MNIST, KMNIST and EMNIST, as a data set: grey, all parts of a folder.

    The files of EMNIST hold turned images; they are turned back.

    Args:
        path: A folder with files such as `train-images-idx3-ubyte` and `train-labels-idx1-ubyte`, also with `.gz`; or
            one file of images, whose labels are beside it.
        image_size: Side length in pixels; None keeps that of the files.
        class_names: The names of labels 0, 1 ...; otherwise the numbers are the names.
        use_split: Whether train and test are used as a split, see `docs/data.md`.

    Raises:
        UserError: A file is missing, damaged, or not an idx file.
    """
    return _of_files("idx", path, image_size, class_names, use_split)


def fashion_mnist(path: str, image_size: int | None = None, use_split: bool = True) -> ImageDataset:
    """Return Fashion-MNIST from its four idx files: 70,000 grey images of 10 kinds of clothes, 28 x 28 pixels.

    Args:
        path: The folder of the files.
        image_size: Side length in pixels; None keeps 28.
        use_split: Whether train and test are used as a split, see `docs/data.md`.

    Raises:
        UserError: A file is missing or damaged.
    """
    return _of_files("fashion_mnist", path, image_size, list(FASHION), use_split)


def images_in(path: Path) -> list[Path]:
    """Return the idx files of images in a folder, of which each is there once, compressed or not; or the file."""
    if path.is_file():
        return [path] if IMAGES.match(path.name) else []
    if not path.is_dir():
        return []
    found = {}
    for file in sorted(path.iterdir(), reverse=True):
        if match := IMAGES.match(file.name):
            found[match["start"]] = file  # the plain file comes after the compressed one
    return [found[start] for start in sorted(found)]


def _of_files(
    name: str, path: str, image_size: int | None, class_names: list[str] | None, use_split: bool
) -> ImageDataset:
    if image_size is not None:
        check_image_size(image_size, where=name)
    root = Path(path).expanduser().absolute()
    files = images_in(root)
    if not files:
        raise UserError(
            f"{root} has no idx files of images",
            "e.g. train-images-idx3-ubyte and train-labels-idx1-ubyte, also with .gz",
            "set path to the folder of these files",
        )
    starts = [_start(file) for file in files]
    pixels = [_images(file) for file in files]
    values = [_labels(file, len(images)) for file, images in zip(files, pixels, strict=True)]
    sides = {images.shape[1:] for images in pixels}
    if len(sides) > 1 or len(set(*sides)) > 1:
        raise UserError(f"{root} has images of {sides} pixels", "square images of one size", "name one file of them")
    stored: ImageArray = np.concatenate(pixels)[..., np.newaxis]
    if class_names is not None and max(int(array.max()) for array in values) >= len(class_names):
        raise UserError(
            f"{root} has labels up to {max(int(array.max()) for array in values)}, but {len(class_names)} class_names",
            "one name for each label",
            "correct class_names",
        )
    numbers = np.concatenate(values)
    texts = [str(number) if class_names is None else class_names[number] for number in numbers]
    if class_names is None:
        width = len(str(numbers.max()))
        known = np.unique(numbers)
        labels, names = np.searchsorted(known, numbers).astype(np.int64), tuple(f"{value:0{width}d}" for value in known)
    else:
        labels, names = coded(texts)
    codes = [PART_NAMES.get(_word(start), -1) for start in starts]
    split = Split()
    if min(codes) >= 0:
        of_rows = np.repeat(codes, [len(images) for images in pixels])
        split = given_split(of_rows, labels, names, use_split=use_split, where=str(root))
    size = stored.shape[1] if image_size is None else image_size
    return ImageDataset(
        name=name,
        labels=labels,
        class_names=names,
        image_ids=_ids(starts, pixels),
        sources=np.zeros(len(labels), np.int64),
        source_names=(name,),
        image_size=size,
        n_channels=1,
        identity={
            "source": name,
            "images_sha256": hashlib.sha256(stored.tobytes() + labels.tobytes()).hexdigest(),
            "image_size": size,
            **({} if stored.shape[1] == size else {"pillow": version("pillow")}),
        },
        read=partial(_read, stored, size),
        class_split=split.class_split,
        parts=split.parts,
        notes=split.notes,
    )


def _read(stored: ImageArray, image_size: int, rows: IntArray) -> ImageArray:
    return resize_images(stored[rows], image_size)


def _start(file: Path) -> str:
    match = IMAGES.match(file.name)
    assert match is not None
    return match["start"]


def _word(start: str) -> str:
    """Return the part of a split in the start of a file's name: `train-`, `t10k-`, `emnist-letters-test-`."""
    words = [word for word in re.split(r"[^a-z0-9]+", start.lower()) if word]
    return "test" if words[-1:] == ["t10k"] else next((word for word in words[::-1] if word in PART_NAMES), "")


def _ids(starts: list[str], pixels: list[NDArray[np.uint8]]) -> tuple[str, ...]:
    return tuple(
        f"{start.strip('-_.') or 'images'}/{row:0{len(str(len(images)))}d}"
        for start, images in zip(starts, pixels, strict=True)
        for row in range(len(images))
    )


def _images(file: Path) -> NDArray[np.uint8]:
    images = _array(file, 3)
    return images.transpose(0, 2, 1) if "emnist" in file.name.lower() and "kmnist" not in file.name.lower() else images


def _labels(images: Path, n_images: int) -> NDArray[np.uint8]:
    """Return the labels beside a file of images."""
    stem = re.sub(r"images?([-.])idx3", r"labels\1idx1", images.name).removesuffix(".gz")
    file = next((images.with_name(name) for name in (stem, f"{stem}.gz") if images.with_name(name).is_file()), None)
    if file is None:
        raise UserError(f"there is no {stem} beside {images}", "a file of labels for each file of images", "add it")
    labels = _array(file, 1)
    if len(labels) != n_images:
        raise UserError(
            f"{file} has {len(labels)} labels for {n_images} images", "a label for each image", "get both files again"
        )
    return labels


def _array(file: Path, n_dimensions: int) -> NDArray[np.uint8]:
    """Read an idx file of bytes: two zeros, type 8, number of dimensions, their sizes, the values."""
    try:
        content = file.read_bytes()
        content = gzip.decompress(content) if content[:2] == b"\x1f\x8b" else content
    except MemoryError:
        raise
    except Exception as error:  # a damaged file raises errors of many kinds
        raise UserError(f"{file} cannot be read: {first_line(error)}", "an intact file", "get it again") from error
    start = 4 + 4 * n_dimensions
    shape = tuple(int(size) for size in np.frombuffer(content[4:start], ">u4")) if len(content) >= start else ()
    if content[:4] != bytes([0, 0, 8, n_dimensions]) or len(content) - start != int(np.prod(shape)):
        raise UserError(
            f"{file} is no complete idx file of {n_dimensions} dimensions of bytes", "an intact file", "get it again"
        )
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape)
