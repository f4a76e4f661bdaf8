"""The data set interface: labelled images that are decoded on demand. Other modules here read particular sources."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from episodes.arrays import IntArray
from lurefs.errors import UserError

if TYPE_CHECKING:
    from lurefs.data.decoded import DecodedImages

ImageArray = NDArray[np.uint8]
PARTS = ("train", "val", "test")
"""The parts of a split that data bring, in the order of the groups of classes: base, validation, novel."""


@dataclass(frozen=True, kw_only=True)
class View:
    """How a file becomes an image: its centre, resized.

    Attributes:
        image_size: Height and width of the image, in pixels.
        crop_share: Side of the centre that is kept, as a share of the shorter side of the file's image, in (0, 1].
        interpolation: Filter that resizes it, by timm's names: `bicubic`, `bilinear`, `nearest`, `lanczos` ...
        is_squashed: Whether a wide or tall image is made square before its centre is kept, instead of cropped.
    """

    image_size: int
    crop_share: float = 1.0
    interpolation: str = "bicubic"
    is_squashed: bool = False


@dataclass(frozen=True, kw_only=True)
class ImageDataset:
    """Labelled images whose labels, names and ids are known before any image is decoded.

    Attributes:
        name: The source's name in a config, e.g. `icons`.
        labels: (n_images,) int64, index into `class_names`, read-only.
        class_names: One name per class.
        image_ids: One stable, unique name per image, e.g. `calendar/feather` or a path below the folder.
        sources: (n_images,) int64, index into `source_names`: who or what made the image (icon set, font face);
            all zero if unknown.
        source_names: One name per origin.
        image_size: Height and width of every image that `read` returns, in pixels.
        n_channels: 1 (grey) or 3 (RGB).
        identity: JSON-serialisable settings and content digest; equal identities mean equal images.
        read: Rows (n,) int64 -> images (n, image_size, image_size, n_channels) uint8 in [0, 255].
        viewed: Returns the same images in another view, decoded from their files; None for a source whose images have
            one size only.
        class_split: The names of the base, validation and novel classes, if the data bring such a split.
        parts: (n_images,) int64, index into `PARTS`, if the data bring a split of the images of each class.
        notes: What the user should know about how the data were read, one sentence each.
        stamp: Returns a text that changes whenever a file changes, also one that keeps its name and size; None for a
            source that decodes no files. Images of a source with a stamp are checked before they are used, and decoded
            once per view (see `lurefs.data.decoded`).
        decoded: The store of the decoded images; None if there is none.
        n_features: Number of features per image, if the data bring features in place of images; otherwise 0.
        read_features: Rows (n,) int64 -> features (n, n_features) float32, if the data bring them.
        original: The data set whose images this one changes when they are read; None if it changes none.
    """

    name: str
    labels: IntArray
    class_names: tuple[str, ...]
    image_ids: tuple[str, ...]
    sources: IntArray
    source_names: tuple[str, ...]
    image_size: int
    n_channels: int
    identity: Mapping[str, Any]
    read: Callable[[IntArray], ImageArray]
    viewed: Callable[[View], ImageDataset] | None = None
    class_split: Mapping[str, tuple[str, ...]] | None = None
    parts: IntArray | None = None
    notes: tuple[str, ...] = ()
    stamp: Callable[[], str] | None = None
    decoded: DecodedImages | None = None
    n_features: int = 0
    read_features: Callable[[IntArray], NDArray[np.float32]] | None = None
    original: ImageDataset | None = None

    def __post_init__(self) -> None:
        n_images = len(self.labels)
        if len(self.image_ids) != n_images or len(self.sources) != n_images:
            raise ValueError(
                f"{self.name}: {n_images} labels, {len(self.image_ids)} ids and {len(self.sources)} sources"
            )
        for what, names in (("class", self.class_names), ("image", self.image_ids)):
            broken = [name for name in names if name != name.encode("utf-8", "replace").decode()]
            if broken:
                raise UserError(
                    f"the {what} name {broken[0]!r} of {self.name} is no text", "names in UTF-8", "rename it"
                )
        self.labels.setflags(write=False)
        self.sources.setflags(write=False)

    def __len__(self) -> int:
        return len(self.labels)

    @cached_property
    def n_per_class(self) -> IntArray:
        """(n_classes,) int64, the number of images per class."""
        return np.bincount(self.labels, minlength=len(self.class_names)).astype(np.int64)
