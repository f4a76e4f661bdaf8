"""Names of the images and classes of a bank, by which episodes are found again in another bank."""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np

from episodes.arrays import IntArray
from episodes.bank import check_names, images_digest
from episodes.cards import NUMBERS, TEXTS, check_card, read_card

MAX_EXPANSION = 100
"""Names expand to less than this many times their compressed size; ids of real data sets to about ten times."""


class Images(Protocol):
    """Anything with labelled, named rows, such as a `FeatureBank`."""

    @property
    def labels(self) -> IntArray:
        """(n_images,) int64, index into `class_names`."""

    @property
    def image_ids(self) -> tuple[str, ...]:
        """One unique name per image."""

    @property
    def class_names(self) -> tuple[str, ...]:
        """One unique name per class."""

    @property
    def images_digest(self) -> str:
        """`episodes.bank.images_digest` of labels, image ids and class names."""


@dataclass(frozen=True, kw_only=True)
class ImageNames:
    """Labels, image ids and class names of a bank, without its features; see `Images`."""

    labels: IntArray
    image_ids: tuple[str, ...]
    class_names: tuple[str, ...]

    @cached_property
    def images_digest(self) -> str:
        """The `FeatureBank.images_digest` of a bank with these rows."""
        return images_digest(self.labels, self.image_ids, self.class_names)

    @classmethod
    def of(cls, images: Images) -> ImageNames:
        """Return only the names of `images`."""
        return cls(labels=images.labels, image_ids=images.image_ids, class_names=images.class_names)

    def to_text(self) -> str:
        """Return the names as compressed ASCII text, about a tenth as long."""
        values = [self.labels.tolist(), self.image_ids, self.class_names]
        return base64.b64encode(zlib.compress(json.dumps(values).encode())).decode()

    @classmethod
    def from_text(cls, text: bytes) -> ImageNames:
        """Return the names that `to_text` wrote.

        Raises:
            ValueError: They are of another form, or expand to far more than names do.
        """
        try:
            unpacker, packed = zlib.decompressobj(), base64.b64decode(text)
            unpacked = unpacker.decompress(packed, MAX_EXPANSION * len(packed) + 2**20)
        except zlib.error as error:
            raise ValueError(f"the names of the images are damaged: {error}") from error
        if not unpacker.eof:
            raise ValueError("the names of the images are incomplete, or expand to far more than names do")
        values = read_card(b'{"names": %s}' % unpacked, {"names": list}, what="the names of the images")["names"]
        kinds = {"labels": NUMBERS, "image_ids": TEXTS, "class_names": TEXTS}
        if len(values) != len(kinds):
            raise ValueError(f"the names of the images have {len(values)} parts in place of {len(kinds)}")
        card = check_card(dict(zip(kinds, values, strict=True)), kinds, what="the names of the images")
        labels = np.array(card["labels"], dtype=np.int64)
        ids, classes = tuple(card["image_ids"]), tuple(card["class_names"])
        check_names(labels, ids, classes)
        return cls(labels=labels, image_ids=ids, class_names=classes)


def alphabetical(used: IntArray, names: Sequence[str]) -> tuple[list[str], IntArray]:
    """Sort the names in use alphabetically, and return the position of each.

    Args:
        used: Indices of different names.
        names: All names.

    Returns:
        The names in use, sorted; and (len(names),) int64, the position of each name among them, -1 if not in use.
    """
    order = sorted(used.tolist(), key=names.__getitem__)
    places = np.full(len(names), -1, dtype=np.int64)
    places[order] = np.arange(len(order))
    return [names[index] for index in order], places


def find_rows(wanted: Images, rows: IntArray, images: Images) -> IntArray:
    """Return the rows of `images` that hold the images in `rows` of `wanted`, (len(rows),) int64.

    Raises:
        ValueError: An image is missing, or has another class.
    """
    row_of = {image_id: row for row, image_id in enumerate(images.image_ids)}
    ids = [wanted.image_ids[row] for row in rows]
    missing = [image_id for image_id in ids if image_id not in row_of]
    if missing:
        raise ValueError(f"{len(missing)} of the manifest's {len(ids)} images are missing, such as {missing[0]!r}")
    found = np.array([row_of[image_id] for image_id in ids], dtype=np.int64)
    for image_id, old, new in zip(ids, wanted.labels[rows], images.labels[found], strict=True):
        if wanted.class_names[old] != images.class_names[new]:
            raise ValueError(
                f"image {image_id!r} is of class {wanted.class_names[old]!r} in the manifest, "
                f"but of class {images.class_names[new]!r} here"
            )
    return found
