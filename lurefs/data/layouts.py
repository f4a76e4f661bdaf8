"""The layout of folders of images: which level is the class, which one a part of a split, for disks and archives."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from episodes.arrays import IntArray
from lurefs.data.encoded import PART_NAMES, Split, given_split, unique_ids
from lurefs.errors import UserError

IMAGE_SUFFIXES = frozenset(
    [
        ".apng",
        ".avif",
        ".bmp",
        ".gif",
        ".heic",
        ".heif",
        ".j2k",
        ".jfif",
        ".jp2",
        ".jpe",
        ".jpeg",
        ".jpg",
        ".jpx",
        ".pbm",
        ".pgm",
        ".png",
        ".pnm",
        ".ppm",
        ".tga",
        ".tif",
        ".tiff",
        ".webp",
    ]
)
NEUTRAL = frozenset(("data", "dataset", "image", "images", "img", "imgs", "jpegimages", "photos", "pictures"))
"""Folders between the levels, in small letters, which are never classes if they are alone."""
SKIPPED = frozenset({"__MACOSX", "@eaDir", "lost+found"})
"""Folders that systems leave, beside hidden ones."""
ROLES = ("class", "part", "*")
Place = tuple[str, ...]
"""Names of the folders from the root to a folder; the root is empty."""


@dataclass(frozen=True, kw_only=True)
class Tree:
    """Folders of images.

    Attributes:
        where: What the user calls the root.
        folders: The name and size in bytes of each image, by its folder; folders without images are there, too.
        endings: The number of other files by their ending.
        notes: What the user should know.
    """

    where: str
    folders: Mapping[Place, Sequence[tuple[str, int]]]
    endings: Mapping[str, int]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Listing:
    """The images of a tree, sorted by class and path.

    Attributes:
        layout: Roles of the levels, joined by `/`.
        names: (n_images,) paths below the root, as the system has them.
        sizes: (n_images,) of the files, in bytes.
        image_ids: The names as unique printable text.
        labels: (n_images,) int64, index into `class_names`.
        class_names: The classes.
        split: The split that the folders make.
        notes: What the user should know.
    """

    layout: str
    names: tuple[str, ...]
    sizes: tuple[int, ...]
    image_ids: tuple[str, ...]
    labels: IntArray
    class_names: tuple[str, ...]
    split: Split
    notes: tuple[str, ...]


def is_image(name: str) -> bool:
    """Return whether a file's name ends like that of an image, and is not hidden."""
    return not name.startswith(".") and ending_of(name) in IMAGE_SUFFIXES


def is_skipped(name: str) -> bool:
    """Return whether a folder is left out without a word."""
    return name.startswith(".") or name in SKIPPED


def ending_of(name: str) -> str:
    """Return the ending of a file's name in small letters, with its dot; empty if there is none."""
    dot = name.rfind(".")
    return name[dot:].lower() if dot > 0 else ""


def list_images(tree: Tree, layout: str, *, use_split: bool) -> Listing:
    """Return the images of a tree with their classes and parts.

    Args:
        tree: The folders.
        layout: The roles of the levels from the root, `class`, `part` or `*` for neither, joined by `/`; a class on two
            levels is named by both. `auto` finds them.
        use_split: Whether the parts are used as a split, see `given_split`.

    Raises:
        UserError: The layout has two readings, or does not suit the folders; a class has no images.
    """
    roles = _find_roles(tree) if layout == "auto" else _parse(layout)
    rows, n_loose = [], 0
    for place, files in tree.folders.items():
        if len(place) < len(roles):
            n_loose += len(files)
            continue
        levels = list(zip(roles, place, strict=False))
        name = "/".join(folder for role, folder in levels if role == "class")
        part = next((PART_NAMES.get(folder.lower(), -1) for role, folder in levels if role == "part"), 0)
        if part < 0 and files:
            raise UserError(
                f"{tree.where}: the folder {'/'.join(place)} is in no part of a split",
                "folders such as train, val and test where the layout has 'part'",
                "rename the folder, or set layout to another text, e.g. class",
            )
        start = "/".join((*place, ""))
        rows += [(name, start + file, size, part) for file, size in files]
    if not rows:
        raise _no_classes(tree, "no images in folders of that layout" if layout != "auto" else "no images")
    _refuse_empty(tree, roles, {row[0] for row in rows})
    rows.sort()
    class_names = tuple(dict.fromkeys(row[0] for row in rows))
    index_of = {name: index for index, name in enumerate(class_names)}
    labels = np.array([index_of[row[0]] for row in rows], np.int64)
    class_names = unique_ids(class_names)
    codes = np.array([row[3] for row in rows], np.int64)
    names = tuple(row[1] for row in rows)
    split = Split()
    if "part" in roles:
        split = given_split(codes, labels, class_names, use_split=use_split, where=tree.where)
    return Listing(
        layout="/".join(roles),
        names=names,
        sizes=tuple(row[2] for row in rows),
        image_ids=unique_ids(names),
        labels=labels,
        class_names=class_names,
        split=split,
        notes=(*tree.notes, *_notes(tree, roles, class_names, n_loose)),
    )


def listing_digest(listing: Listing) -> str:
    """Return a digest of the names and sizes of image files."""
    digest = hashlib.sha256()
    for name, size in zip(listing.names, listing.sizes, strict=True):
        digest.update(f"{name}\0{size}\n".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def _notes(tree: Tree, roles: Sequence[str], class_names: Sequence[str], n_loose: int) -> list[str]:
    notes = []
    if tuple(roles) != ("class",):
        notes.append(f"{tree.where} has the layout {'/'.join(roles)}, with {len(class_names)} classes")
    if tree.endings:
        kinds = ", ".join(f"{count} {ending or 'without an ending'}" for ending, count in sorted(tree.endings.items()))
        notes.append(f"{tree.where}: files that are no images are left out: {kinds}")
    if n_loose:
        notes.append(f"{tree.where}: {n_loose} images lie outside of the class folders and are left out")
    first: dict[str, str] = {}
    for name in class_names:
        if (twin := first.setdefault(name.casefold(), name)) != name:
            notes.append(f"{tree.where}: the classes {twin!r} and {name!r} differ only in capital letters")
    return notes


def _parse(layout: str) -> tuple[str, ...]:
    roles = tuple(layout.split("/"))
    if not set(roles) <= set(ROLES) or "class" not in roles or roles.count("part") > 1:
        raise UserError(
            f"layout is {layout!r}",
            "auto, or roles of the folders from the top, joined by '/': class, part (train, val, test) or * (neither)",
            "write e.g. class, class/class, part/class or */class",
        )
    return roles


def _find_roles(tree: Tree) -> tuple[str, ...]:
    """Return the only reading of the folders.

    Raises:
        UserError: There are two readings, or none.
    """
    filled = {place[:depth] for place, files in tree.folders.items() if files for depth in range(len(place) + 1)}
    below: dict[Place, list[str]] = {}
    for place in sorted(filled - {()}):
        below.setdefault(place[:-1], []).append(place[-1])
    roles: list[str] = []
    here: list[Place] = [()]
    while True:
        inner = [(*place, name) for place in here for name in below.get(place, ())]
        names = {place[-1].lower() for place in inner}
        are_parts = bool(names) and names <= PART_NAMES.keys() and "part" not in roles
        if "class" in roles:
            if not names or any(tree.folders.get(place) for place in here):
                return tuple(roles)
            if are_parts:
                return (*roles, "part")
            groups = [place for place in here if sum(name.lower() not in NEUTRAL for name in below.get(place, ())) > 1]
            if not groups:
                return tuple(roles)
            raise _two_readings(tree, roles, here, inner, groups[0])
        if not names:
            raise _no_classes(tree, "no sub-folders" if not roles else "images, but no class folders")
        holds_images = any(tree.folders.get(place) for place in inner)
        is_between = not holds_images and all(place in below for place in inner)
        if are_parts and all(place in below for place in inner):
            roles.append("part")
        elif are_parts and (len(names) > 1 or not holds_images):
            flat = [place for place in inner if place not in below]
            raise UserError(
                f"{tree.where}: {'/'.join(flat[0])} holds images, but no class folders",
                "class folders in each part of a split, or one folder per class",
                "move it away if it has no labels, or set layout: class to take the folders as the classes",
            )
        elif is_between and len(names) == 1 and (len(inner) == 1 or names <= NEUTRAL):
            roles.append("*")
        else:
            _check_classes(tree, roles, inner)
            roles.append("class")
        here = inner


def _check_classes(tree: Tree, roles: Sequence[str], places: Sequence[Place]) -> None:
    """Refuse folders as classes of which some are rather parts of a split, or folders of images without classes.

    Raises:
        UserError: They are.
    """
    parts = [place for place in places if place[-1].lower() in PART_NAMES and not tree.folders.get(place)]
    if parts and "part" not in roles:
        raise UserError(
            f"{tree.where} has the folders {_some(places)}, of which {'/'.join(parts[0])} looks like a part of a split",
            "train, val and test alone, with the classes below, or one folder per class",
            "move the other folders away, or set layout: class to take all of them as classes",
        )
    flat = [place for place in places if place[-1].lower() in NEUTRAL]
    if flat and ("part" in roles or len(flat) == len(places)):
        raise _no_classes(tree, f"images in {'/'.join(flat[0])}, but no class folders there")


def _two_readings(
    tree: Tree, roles: Sequence[str], here: Sequence[Place], inner: Sequence[Place], group: Place
) -> UserError:
    shallow = "/".join(roles)
    deep = "/".join((*roles, "class"))
    depth = len(roles)
    n_shallow = len({place[depth - 1] for place in here})
    n_deep = len({place[depth - 1 :] for place in inner})
    example = "/".join(next(place for place in inner if place[:-1] == group))
    return UserError(
        f"the folders of {tree.where} can be read in two ways: as {n_shallow} classes, of which '{'/'.join(group)}' is "
        f"one, or as {n_deep} classes, of which '{example}' is one",
        f"images directly in the class folders, or a setting that says which: layout: {shallow} or layout: {deep}",
        f"set dataset.params.layout={shallow} or dataset.params.layout={deep}",
    )


def _no_classes(tree: Tree, problem: str) -> UserError:
    endings = ", ".join(f"{count} {ending or 'without an ending'}" for ending, count in sorted(tree.endings.items()))
    return UserError(
        f"{tree.where} has {problem}" + (f"; other files: {endings}" if endings else ""),
        "one sub-folder per class, with the images of the class in it",
        "sort the images into a sub-folder for each class, or point at the folder above the classes",
    )


def _refuse_empty(tree: Tree, roles: Sequence[str], found: set[str]) -> None:
    depth = len(roles) - list(reversed(roles)).index("class")
    for place in sorted(tree.folders):
        name = "/".join(folder for role, folder in zip(roles, place, strict=False) if role == "class")
        if len(place) == depth and name not in found:
            raise UserError(
                f"class {name!r} has no images: {tree.where}/{'/'.join(place)}",
                f"at least one file that ends in {', '.join(sorted(IMAGE_SUFFIXES))}",
                "add images to the folder, or delete it",
            )


def _some(places: Sequence[Place]) -> str:
    names = sorted({place[-1] for place in places})
    return ", ".join(names[:4]) + (" ..." if len(names) > 4 else "")
