"""The base images in memory, and how a training batch of them is augmented."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from lurefs.config import AugmentConfig
from lurefs.data.dataset import ImageDataset, IntArray


@dataclass(frozen=True)
class LabelledImages:
    """Images in memory, on the device, addressed by their rows in the data set.

    Attributes:
        rows: (n,) int64, sorted.
        images: (n, n_channels, height, width) uint8.
        labels: (n,) int64 in 0..n_classes-1.
    """

    rows: IntArray
    images: Tensor
    labels: Tensor

    def positions(self, rows: IntArray) -> Tensor:
        """Return where the given rows stand, (len(rows),) int64 on the device."""
        return torch.from_numpy(np.searchsorted(self.rows, rows)).to(self.images.device)

    def batches(self, parts: Iterable[Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield images (n, n_channels, height, width) uint8 and labels (n,) of each part's positions."""
        for positions in parts:
            yield self.images[positions], self.labels[positions]


def load_images(
    dataset: ImageDataset, rows: IntArray, classes: IntArray, device: torch.device, *, labels: IntArray
) -> LabelledImages:
    """Decode images once, and keep them as uint8 on the device.

    Args:
        dataset: Where from.
        rows: (n,) rows to load.
        classes: (n_classes,) sorted class indices; they become labels 0..n_classes-1.
        device: Where to.
        labels: (n_images of `dataset`,) the class that each image is given, true or not.
    """
    rows = np.sort(rows)
    images = torch.from_numpy(np.ascontiguousarray(dataset.read(rows).transpose(0, 3, 1, 2)))
    places = torch.from_numpy(np.searchsorted(classes, labels[rows]).astype(np.int64))
    return LabelledImages(rows, images.to(device), places.to(device))


@dataclass(frozen=True, kw_only=True)
class Moves:
    """How each image of an epoch is augmented.

    Attributes:
        shifts: (2, n_images) int64, down and right, from 0 to 2 * crop_padding.
        mirrored: (n_images,) bool; None if `flip` is off.
    """

    shifts: Tensor
    mirrored: Tensor | None

    def of(self, part: slice, start: int = 0) -> Moves:
        """Return the moves of the images of a part, which is counted from the epoch's image `start`."""
        part = slice(start + part.start, start + part.stop)
        return Moves(shifts=self.shifts[:, part], mirrored=None if self.mirrored is None else self.mirrored[part])


def draw_moves(
    sizes: Sequence[int], settings: AugmentConfig, generator: torch.Generator, device: torch.device
) -> Moves:
    """Draw the moves of an epoch at once, so that the device need not be waited for between its batches.

    Args:
        sizes: Images of each batch.
        settings: What is to be done.
        generator: On the CPU, so that every device draws alike.
        device: Where the moves are needed.
    """
    shifts, mirrored = [], []
    for n in sizes:
        if settings.crop_padding:
            shifts.append(torch.randint(2 * settings.crop_padding + 1, (2, n), generator=generator))
        if settings.flip:
            mirrored.append(torch.rand(n, generator=generator) < 0.5)
    none = torch.zeros(2, 0, dtype=torch.int64)
    return Moves(
        shifts=torch.cat([none, *shifts], 1).to(device), mirrored=torch.cat(mirrored).to(device) if mirrored else None
    )


def augment(batch: Tensor, moves: Moves, padding: int) -> Tensor:
    """Shift each image by up to `padding` pixels with zeros behind it, and mirror those that are to be mirrored.

    Args:
        batch: (n, channels, height, width).
        moves: Of these images.
        padding: The `crop_padding` that the moves were drawn for.
    """
    n, n_channels, height, width = batch.shape
    if padding:
        padded = functional.pad(batch, (padding,) * 4)
        ys = (moves.shifts[0, :, None] + torch.arange(height, device=batch.device))[:, None, :, None]
        xs = (moves.shifts[1, :, None] + torch.arange(width, device=batch.device))[:, None, None, :]
        images = torch.arange(n, device=batch.device)[:, None, None, None]
        channels = torch.arange(n_channels, device=batch.device)[None, :, None, None]
        batch = padded[images, channels, ys, xs]
    if moves.mirrored is not None:
        batch = torch.where(moves.mirrored[:, None, None, None], batch.flip(3), batch)
    return batch
