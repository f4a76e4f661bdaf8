"""Decoded images on disk: every file is decoded once per size, for all runs of a machine.

The pixels of a data set in one view are the records of one file, in the order of the rows. A second file has a checksum
per record, and a record counts only if its pixels have that checksum. So a record is right or missing, whatever
happened to the files: a process that was killed, a computer that lost power, two processes that write the same record,
a file that was cut short. The files are read and written by calls, not mapped: otherwise a full disk, or a file that is
cut short, would kill the process by a signal.
"""

from __future__ import annotations

import errno
import os
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from episodes.arrays import IntArray
from lurefs import cache, locks
from lurefs.data.dataset import ImageArray, ImageDataset, View
from lurefs.errors import UserError

KIND = "images"
"""Kind of these entries of the cache."""
_SUMS, _SUM_BYTES = "checksums.bin", 8
_LOW = np.uint64(2**32 - 1)
"""The bits of a stored checksum that hold it; the others hold its complement, so that damage is noticed."""


class Decoding(NamedTuple):
    """How the decoding of one image ended.

    Attributes:
        damage: Why it cannot be read; empty if it can.
        fix: What helps; empty likewise.
        unstored: Why its pixels could not be stored; empty if they could.
    """

    damage: str = ""
    fix: str = ""
    unstored: str = ""


class _Files:
    """File descriptors of an entry, closed when nothing refers to them."""

    def __init__(self, folder: Path, in_use: int, sizes: Mapping[str, int]) -> None:
        self._open: list[int] = []
        for name, n_bytes in sizes.items():
            self._open.append(os.open(folder / name, os.O_RDWR | os.O_CREAT, 0o666))
            os.ftruncate(self._open[-1], n_bytes)  # what is added is a hole, which takes no space on the disk
        self.pixels, self.sums = self._open
        self.folder = folder
        self._open.append(in_use)

    def __del__(self) -> None:
        for descriptor in self._open:
            os.close(descriptor)


@dataclass(frozen=True, kw_only=True)
class DecodedImages:
    """The images of a data set that decodes files, stored as they are decoded.

    Attributes:
        source: The data set that decodes.
        kept: (n,) the rows of `source` that there are; None for all. Other rows are counted within these.
    """

    source: ImageDataset
    kept: IntArray | None = None
    _views: dict[View, ImageDataset] = field(default_factory=dict, init=False)
    _unstored: dict[int, int] = field(default_factory=dict, init=False)

    def read(self, rows: IntArray) -> ImageArray:
        """Return images as `ImageDataset.read` does; what is not stored is decoded and stored.

        Raises:
            UserError: An image is missing or damaged.
        """
        images = np.empty((len(rows), *self._shape), np.uint8)
        for place, row in enumerate(self._source_rows(rows)):
            if not self._load(row, images[place]):
                images[place] = self._decode(row)[0]
        return images

    def decode(self, rows: IntArray) -> list[Decoding]:
        """Decode and store the images that are not stored; return how it ended for each."""
        return [self._try(row) for row in self._source_rows(rows)]

    def missing(self, rows: IntArray) -> IntArray:
        """Return those rows whose images are not stored, each once and sorted."""
        rows = np.unique(rows)
        if self._files is None:
            return rows
        missing: IntArray = rows[self._sums()[self._source_rows(rows)] == 0]
        return missing

    def checksums(self, rows: IntArray) -> NDArray[np.uint32]:
        """Return the CRC-32 of the pixels of each image, (n,); what is not stored is decoded and stored.

        Raises:
            UserError: An image is missing or damaged.
        """
        rows = self._source_rows(rows)
        sums = self._sums()[rows]
        for place in np.flatnonzero(sums == 0):
            row = int(rows[place])
            if row not in self._unstored:  # the sums of images that cannot be stored are kept in memory
                self._unstored[row] = zlib.crc32(self._decode(row)[0].data)
            sums[place] = self._unstored[row]
        return sums.astype(np.uint32)

    @property
    def problem(self) -> str:
        """Why nothing can be stored; empty if it can."""
        return self._opened if isinstance(self._opened, str) else ""

    @contextmanager
    def filling(self) -> Iterator[None]:
        """Wait until no other process fills the entry, and let none fill it within the block."""
        with self._open_lock() as lock:
            if lock is not None:
                locks.flock(lock, locks.LOCK_EX)
            try:
                yield
            finally:
                if lock is not None:
                    locks.flock(lock, locks.LOCK_UN)  # processes forked within the block have it open, too

    def is_being_filled(self) -> bool:
        """Return whether another process fills the entry now."""
        with self._open_lock() as lock:
            try:
                if lock is not None:
                    locks.flock(lock, locks.LOCK_SH | locks.LOCK_NB)
            except BlockingIOError:
                return True
            return False

    @contextmanager
    def _open_lock(self) -> Iterator[IO[bytes] | None]:
        """Open the file that a filling process locks; None if there is no entry, or if somebody removed it by hand."""
        path = None if self._files is None else self._files.folder / _SUMS
        if path is None or not path.exists():
            yield None
        else:
            with path.open("rb") as lock:
                yield lock

    def viewed(self, view: View) -> ImageDataset:
        """Return the same images in another view, stored too."""
        assert self.source.viewed is not None
        if view not in self._views:
            self._views[view] = _dataset(DecodedImages(source=self.source.viewed(view), kept=self.kept))
        return self._views[view]

    def without(self, rows: IntArray) -> ImageDataset:
        """Return the data set without some rows; its identity names them as `skipped`."""
        all_rows = np.arange(len(self.source)) if self.kept is None else self.kept
        return _dataset(replace(self, kept=np.delete(all_rows, rows)))

    def _sums(self) -> NDArray[np.uint64]:
        """Return the stored checksum of each image of the source; 0 for those that are missing or damaged."""
        n_bytes = _SUM_BYTES * len(self.source)
        stored = b"" if self._files is None else os.pread(self._files.sums, n_bytes, 0)
        sums = np.frombuffer(stored.ljust(n_bytes, b"\0"), "<u8").astype(np.uint64)
        return np.where(sums >> 32 == ~sums & _LOW, sums, np.uint64(0))

    def _source_rows(self, rows: IntArray) -> IntArray:
        return rows if self.kept is None else self.kept[rows]

    @property
    def _shape(self) -> tuple[int, int, int]:
        return self.source.image_size, self.source.image_size, self.source.n_channels

    @cached_property
    def _n_bytes(self) -> int:
        height, width, n_channels = self._shape
        return height * width * n_channels

    @property
    def _files(self) -> _Files | None:
        return None if isinstance(self._opened, str) else self._opened

    @cached_property
    def _opened(self) -> _Files | str:
        """The open files, made if they are missing, or why there are none."""
        source = self.source
        assert source.stamp is not None
        if not hasattr(os, "preadv"):
            return "this system cannot read from a place of a file"
        size, n_channels = source.image_size, source.n_channels
        about = f"{source.name}, {len(source):,} images of {len(source.class_names)} classes"
        about += f" ({', '.join(source.class_names[:3])} ...), {size} x {size} pixels, {n_channels} channels"
        key = cache.key_of({"dataset": source.identity, "files": source.stamp()})
        n_pixels, n_sums = self._n_bytes * len(source), _SUM_BYTES * len(source)
        try:
            with cache.opened(KIND, key, about=about, n_bytes=n_pixels + n_sums) as (folder, in_use):
                return _Files(folder, in_use, {"pixels.bin": n_pixels, _SUMS: n_sums})
        except cache.NoCacheError as error:
            return str(error)

    def _load(self, row: int, image: ImageArray) -> bool:
        """Read one stored image into an array; return whether it was there and is right."""
        files = self._files
        if files is None:
            return False
        try:
            stored = os.pread(files.sums, _SUM_BYTES, row * _SUM_BYTES)
            if len(stored) < _SUM_BYTES or not any(stored):
                return False
            n_read = os.preadv(files.pixels, [image.reshape(-1).data], row * self._n_bytes)
        except OSError:
            return False
        return n_read == self._n_bytes and stored == _checksum(image)

    def _decode(self, row: int) -> tuple[ImageArray, str]:
        """Decode one image and store it; return it, and why it could not be stored."""
        (image,) = self.source.read(np.array([row]))
        image = np.ascontiguousarray(image)
        files = self._files
        if files is None:
            return image, self.problem
        try:
            if os.pwrite(files.pixels, image.data, row * self._n_bytes) < self._n_bytes:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))  # a part of the image still fitted
            os.pwrite(files.sums, _checksum(image), row * _SUM_BYTES)
        except OSError as error:
            return image, cache.unusable(error)
        return image, ""

    def _try(self, row: int) -> Decoding:
        image = np.empty(self._shape, np.uint8)
        if self._load(row, image):
            return Decoding()
        try:
            return Decoding(unstored=self._decode(row)[1])
        except UserError as error:
            return Decoding(damage=error.problem, fix=error.fix)


def stored(dataset: ImageDataset) -> ImageDataset:
    """Return a data set whose images are decoded once; one that does not decode files is returned as it is."""
    return dataset if dataset.stamp is None else _dataset(DecodedImages(source=dataset))


def _dataset(decoded: DecodedImages) -> ImageDataset:
    source, kept = decoded.source, decoded.kept
    whole = replace(
        source, read=decoded.read, viewed=None if source.viewed is None else decoded.viewed, decoded=decoded
    )
    if kept is None:
        return whole
    is_kept = np.zeros(len(source), bool)
    is_kept[kept] = True
    skipped = [source.image_ids[row] for row in np.flatnonzero(~is_kept)]
    return replace(
        whole,
        labels=source.labels[kept],
        image_ids=tuple(source.image_ids[row] for row in kept),
        sources=source.sources[kept],
        parts=None if source.parts is None else source.parts[kept],
        identity={**source.identity, "skipped": skipped},
    )


def _checksum(image: ImageArray) -> bytes:
    checksum = zlib.crc32(image.data)
    return (checksum | (~checksum & int(_LOW)) << 32).to_bytes(_SUM_BYTES, "little")
