"""Images in a folder with one sub-folder per class."""

from __future__ import annotations

import os
from collections import Counter
from functools import partial
from pathlib import Path
from typing import IO

from lurefs.data.dataset import ImageDataset, View
from lurefs.data.encoded import Encoded, below, check_settings, dataset_of
from lurefs.data.layouts import Place, Tree, ending_of, is_image, is_skipped, list_images, listing_digest
from lurefs.data.paths import existing
from lurefs.data.pixels import printable
from lurefs.errors import UserError


def folder(
    path: str,
    image_size: int = 64,
    n_channels: int = 3,
    layout: str = "auto",
    use_split: bool = True,
    white_level: float | None = None,
) -> ImageDataset:
    """Return the images of a folder with one sub-folder per class as a data set; images are decoded when read.

    Files may lie at any depth below their class folder, and links are followed; hidden files are skipped. The shorter
    side is resized and the centre cropped. The identity holds names and sizes of the files, not their bytes; runs also
    compare the pixels.

    Args:
        path: The folder; `~` and relative paths are allowed.
        image_size: Side length in pixels.
        n_channels: 1 (grey) or 3 (RGB).
        layout: Roles of the folders from the top, joined by `/`: `class`, `part` (train, val, test) or `*` (neither),
            e.g. `part/class` or, for classes on two levels, `class/class`. `auto` finds them, and refuses folders with
            two readings.
        use_split: Whether folders such as train, val and test are used as a split, see `docs/data.md`.
        white_level: The pixel value that is white, for grey images of other than 8 or 16 bits: 4095 for 12 bits.

    Raises:
        UserError: The folder is missing or has no class folders, a class has no images, a link leads nowhere, or the
            layout has two readings. While images are read: an image is damaged.
    """
    check_settings("folder", image_size, n_channels, white_level)
    root = existing(path, "folder")
    listing = list_images(_scan(root), layout, use_split=use_split)
    return dataset_of(
        Encoded(
            name="folder",
            labels=listing.labels,
            class_names=listing.class_names,
            image_ids=listing.image_ids,
            identity={
                "source": "folder",
                "files_sha256": listing_digest(listing),
                **({} if listing.layout == "class" else {"layout": listing.layout}),
            },
            open=partial(_open, root, listing.names),
            files=partial(below, root, listing.names),
            n_channels=n_channels,
            white_level=white_level,
            split=listing.split,
            notes=listing.notes,
        ),
        View(image_size=image_size),
    )


def _open(root: Path, names: tuple[str, ...], row: int) -> tuple[Path | IO[bytes], str]:
    path = root / names[row]
    return path, str(path)


def _scan(root: Path) -> Tree:
    """List all folders below a root, and their images; links lead to each folder once per class, so that all ends."""
    folders: dict[Place, list[tuple[str, int]]] = {}
    endings: Counter[str] = Counter()
    notes: list[str] = []
    linked: set[tuple[str, tuple[int, int]]] = set()  # folders that each class has
    key = _key(str(root))
    pending: list[tuple[str, Place, frozenset[tuple[int, int]]]] = [(str(root), (), frozenset({key}))]
    while pending:
        directory, place, above = pending.pop()
        files = folders.setdefault(place, [])
        for entry in sorted(_entries(directory), key=lambda entry: (entry.is_symlink(), entry.name)):
            kind = _kind(entry)
            if kind == "folder":
                if is_skipped(entry.name):
                    continue
                key = _key(entry.path)
                once = (place[0] if place else entry.name, key)
                if key in above:
                    notes.append(f"{printable(entry.path)} is a link to a folder above it and is left out")
                elif entry.is_symlink() and once in linked:
                    notes.append(f"{printable(entry.path)} is a second link to one folder and is left out")
                else:
                    linked.add(once)
                    pending.append((entry.path, (*place, entry.name), above | {key}))
            elif is_image(entry.name):
                if kind != "file":
                    raise _no_file(entry.path, kind)
                files.append((entry.name, entry.stat().st_size))
            elif not entry.name.startswith("."):
                endings[ending_of(entry.name)] += 1
    return Tree(where=str(root), folders=folders, endings=endings, notes=tuple(notes))


def _entries(directory: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(directory) as entries:
            return list(entries)
    except OSError as error:
        raise UserError(
            f"{directory} cannot be listed: {error.strerror or error}", "a folder that can be read", "change its rights"
        ) from error


def _kind(entry: os.DirEntry[str]) -> str:
    """Return what an entry is, at the end of its links, without a system call for plain files and folders."""
    try:
        if entry.is_file():
            return "file"
        if entry.is_dir():
            return "folder"
    except OSError:  # a link to itself
        pass
    return "a link that leads nowhere" if entry.is_symlink() else "no regular file, but a pipe, socket or device"


def _key(directory: str) -> tuple[int, int]:
    found = os.stat(directory)
    return found.st_dev, found.st_ino


def _no_file(path: str, kind: str) -> UserError:
    return UserError(f"{path} is {kind}", "an image file, or a link to one", "replace it or delete it")
