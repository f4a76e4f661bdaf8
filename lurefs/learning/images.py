"""Base images, in memory or read batch by batch, and the augmentation of training batches."""

from __future__ import annotations

import gc
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from threading import Thread
from typing import Any, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset

from episodes.arrays import IntArray
from lurefs.config.learning_schema import AugmentConfig, LearnerConfig
from lurefs.data.dataset import ImageArray, ImageDataset
from lurefs.errors import UserError

T = TypeVar("T")
LARGEST_IN_MEMORY = 8 * 2**30
"""Most bytes of images that `learner.images: auto` keeps in memory."""
CPU_PIXELS = 2**18
"""Pixels per channel that a CPU computes at one time (64 images of 64 x 64). Activations of more pixels leave the
cache, and each image takes a quarter longer; those of many large images fill the memory."""
MIN_CPU_IMAGES = 16
PIXELS_WITH_GRADIENTS = 2**17
"""The same where gradients are wanted, for which all activations are held."""
MIN_IMAGES_WITH_GRADIENTS = 2
ALL = 2**31


class Images(Protocol):
    """Labelled images, addressed by positions."""

    @property
    def labels(self) -> Tensor:
        """(n,) int64 in 0..n_classes-1, on the device."""
        ...

    def positions(self, rows: IntArray) -> Tensor:
        """Return the positions of rows of the data set, (len(rows),) int64 on the device."""
        ...

    def batches(self, parts: Iterable[Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield images (n, n_channels, height, width) uint8 and labels (n,) of each part's positions, on the device."""
        ...


@dataclass(frozen=True)
class LabelledImages:
    """Images in memory, on the device; see `Images`.

    Attributes:
        rows: (n,) int64, sorted.
        images: (n, n_channels, height, width) uint8.
        labels: (n,) int64 in 0..n_classes-1.
    """

    rows: IntArray
    images: Tensor
    labels: Tensor

    def positions(self, rows: IntArray) -> Tensor:
        """Return the positions of rows of the data set, (len(rows),) int64 on the device."""
        return torch.from_numpy(np.searchsorted(self.rows, rows)).to(self.images.device)

    def batches(self, parts: Iterable[Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield images and labels of each part's positions."""
        for positions in parts:
            yield self.images[positions], self.labels[positions]


@dataclass(frozen=True)
class StreamedImages:
    """Images that worker processes read a few batches ahead; see `Images`.

    Attributes:
        rows: (n,) int64, sorted.
        dataset: The data set to read from.
        labels: (n,) int64 in 0..n_classes-1, on the device.
        n_workers: Number of processes; 0 reads in this one.
    """

    rows: IntArray
    dataset: ImageDataset
    labels: Tensor
    n_workers: int

    def positions(self, rows: IntArray) -> Tensor:
        """Return the positions of rows of the data set, (len(rows),) int64 on the device."""
        return torch.from_numpy(np.searchsorted(self.rows, rows)).to(self.labels.device)

    def batches(self, parts: Iterable[Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield images and labels of each part's positions.

        Raises:
            UserError: An image is missing or damaged.
        """
        parts = list(parts)
        rows = [self.rows[positions] for positions in _to_numpy(parts)]
        loaded = read_ahead(partial(read_tensor, self.dataset), rows, self.n_workers, is_pinned=self.labels.is_cuda)
        for positions, images in zip(parts, loaded, strict=True):
            yield images.to(self.labels.device, non_blocking=True), self.labels[positions]


def at_once(image_size: int, device: torch.device, *, with_gradients: bool = False) -> int:
    """Return how many images of a batch a device computes at one time: a GPU all, a CPU as many as suit its cache."""
    if device.type != "cpu":
        return ALL
    if with_gradients:
        return max(MIN_IMAGES_WITH_GRADIENTS, PIXELS_WITH_GRADIENTS // image_size**2)
    return max(MIN_CPU_IMAGES, CPU_PIXELS // image_size**2)


def in_parts(images: Tensor, *, with_gradients: bool = False) -> tuple[Tensor, ...]:
    """Return prepared images (n, channels, size, size) in parts that their device computes at one time."""
    size = at_once(images.shape[-1], images.device, with_gradients=with_gradients)
    parts: tuple[Tensor, ...] = images.split(size)
    return parts


def read_ahead(
    read: Callable[[IntArray], T], parts: Sequence[IntArray], n_workers: int, *, is_pinned: bool = False
) -> Iterator[T]:
    """Yield what `read` returns for each part, in order, made by worker processes a few parts ahead.

    Args:
        read: Called in the worker processes.
        parts: Rows of a data set.
        n_workers: Number of processes; 0 reads in this one.
        is_pinned: Whether tensors are put where a GPU can fetch them.

    Raises:
        UserError: `read` raised it.
    """
    loader = DataLoader(
        _Reader(read),
        batch_size=None,
        sampler=parts,
        num_workers=min(n_workers, len(parts)),
        collate_fn=_as_it_is,
        worker_init_fn=partial(_begin, os.getpid()),
        pin_memory=is_pinned,
        generator=torch.Generator(),  # otherwise it would draw from dropout's generator
    )
    for found in loader:
        if isinstance(found, UserError):
            raise found
        yield found


class _Reader(Dataset[Any]):
    """Reads whole parts; returns a UserError as a value, since torch would raise it as another type."""

    def __init__(self, read: Callable[[IntArray], Any]) -> None:
        self.read = read

    def __getitem__(self, rows: IntArray) -> Any:
        try:
            return self.read(rows)
        except UserError as error:
            return error


def _begin(parent: int, _: int) -> None:
    """Prepare a worker: it ends with its parent, and the garbage collector stays off the objects it was forked with.

    Touching these would copy them. torch's own watch on the parent misses one that was killed before the watch began.
    """
    gc.freeze()
    Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


def _as_it_is(found: Any) -> Any:
    return found


def read_tensor(dataset: ImageDataset, rows: IntArray) -> Tensor:
    """Return images of a data set as a tensor (n, n_channels, height, width) uint8."""
    return to_tensor(dataset.read(rows))


def open_images(
    dataset: ImageDataset,
    rows: IntArray,
    classes: IntArray,
    device: torch.device,
    settings: LearnerConfig,
    *,
    labels: IntArray,
) -> Images:
    """Open images in memory or streamed, as `settings.images` says; `auto` decides by their size.

    Args:
        dataset: The data set to read from.
        rows: (n,) rows to open.
        classes: (n_classes,) sorted class indices; they become labels 0..n_classes-1.
        device: The device of the images and labels.
        settings: `images` and `n_workers`.
        labels: (n_images of `dataset`,) the class given to each image, true or not.
    """
    n_bytes = len(rows) * dataset.image_size**2 * dataset.n_channels
    if settings.images == "memory" or (settings.images == "auto" and n_bytes <= LARGEST_IN_MEMORY):
        return load_images(dataset, rows, classes, device, labels=labels)
    rows = np.sort(rows)
    return StreamedImages(rows, dataset, _places(classes, labels[rows]).to(device), settings.n_workers)


def load_images(
    dataset: ImageDataset, rows: IntArray, classes: IntArray, device: torch.device, *, labels: IntArray
) -> LabelledImages:
    """Read images once, and keep them as uint8 on the device; arguments as for `open_images`."""
    rows = np.sort(rows)
    return LabelledImages(rows, to_tensor(dataset.read(rows)).to(device), _places(classes, labels[rows]).to(device))


def to_tensor(images: ImageArray) -> Tensor:
    """Return images (n, height, width, n_channels) as a tensor (n, n_channels, height, width)."""
    return torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))


def _places(classes: IntArray, labels: IntArray) -> Tensor:
    return torch.from_numpy(np.searchsorted(classes, labels).astype(np.int64))


def _to_numpy(parts: Sequence[Tensor]) -> list[IntArray]:
    """Return the parts as arrays, with a single wait for the device."""
    ends = np.cumsum([len(part) for part in parts])
    return np.split(torch.cat(list(parts)).cpu().numpy(), ends[:-1])


@dataclass(frozen=True, kw_only=True)
class Moves:
    """Random shifts and mirrorings of the images of an epoch.

    Attributes:
        shifts: (2, n_images) int64, down and right, from 0 to 2 * crop_padding.
        mirrored: (n_images,) bool; None if `flip` is off.
    """

    shifts: Tensor
    mirrored: Tensor | None

    def of(self, part: slice, start: int = 0) -> Moves:
        """Return the moves of a part of the images, counted from the epoch's image `start`."""
        part = slice(start + part.start, start + part.stop)
        return Moves(shifts=self.shifts[:, part], mirrored=None if self.mirrored is None else self.mirrored[part])


def draw_moves(
    sizes: Sequence[int], settings: AugmentConfig, generator: torch.Generator, device: torch.device
) -> Moves:
    """Draw the moves of an epoch at once, so that no batch has to wait for the device.

    Args:
        sizes: Number of images of each batch.
        settings: The augmentation.
        generator: On the CPU, so that the draw does not depend on the device.
        device: The device of the moves.
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
    """Shift each image by up to `padding` pixels, filling with zeros, and mirror those marked for it.

    Args:
        batch: (n, channels, height, width).
        moves: The moves of these images.
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
