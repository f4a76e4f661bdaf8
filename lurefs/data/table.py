"""Images that a table lists: a CSV, TSV or Parquet file of paths and labels."""

from __future__ import annotations

import csv
import hashlib
import io
import os
import stat
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import IO, Any

import numpy as np

from lurefs.data.dataset import ImageDataset, View
from lurefs.data.encoded import (
    PART_NAMES,
    Encoded,
    Split,
    below,
    check_settings,
    coded,
    dataset_of,
    given_split,
    unique_ids,
)
from lurefs.data.layouts import IMAGE_SUFFIXES, ending_of
from lurefs.data.paths import existing
from lurefs.errors import UserError

COLUMNS: Mapping[str, tuple[str, ...]] = {
    "path": (
        "path",
        "file",
        "filename",
        "file_name",
        "filepath",
        "file_path",
        "image",
        "image_path",
        "img",
        "img_path",
    ),
    "label": ("label", "class", "class_name", "label_name", "category", "target", "labels"),
    "split": ("split", "part", "subset", "set"),
    "source": ("source", "origin"),
    "id": ("id", "image_id"),
}
"""Names by which columns are found, in small letters."""
TABLES = (".csv", ".tsv", ".parquet")
Columns = dict[str, list[str]]


def table(
    path: str,
    image_size: int = 64,
    n_channels: int = 3,
    root: str | None = None,
    columns: dict[str, str] | None = None,
    use_split: bool = True,
    white_level: float | None = None,
) -> ImageDataset:
    """Return the images that a CSV, TSV or Parquet file lists by path and label as a data set.

    The table has a row per image and may also give the part of a split (train, val, test), a source and an id. A folder
    with train.csv, val.csv and test.csv is one table of three parts, as mini-ImageNet's.

    Args:
        path: The file or folder.
        image_size: Side length in pixels: the shorter side is resized, the centre cropped.
        n_channels: 1 (grey) or 3 (RGB).
        root: Where relative paths in the table start; by default at the folder of the table, or at `images` below it.
        columns: The names of the columns `path`, `label`, `split`, `source` and `id`, where these are unusual.
        use_split: Whether the parts are used as a split, see `docs/data.md`.
        white_level: As for `folder`.

    Raises:
        UserError: The table is missing or incomplete, an image is missing or listed twice, or labels or parts are
            wrong. While images are read: an image is damaged.
    """
    check_settings("table", image_size, n_channels, white_level)
    found, where = _read(path, columns or {}, use_split=use_split)
    base = _base(where, found["path"][0]) if root is None else existing(root, "folder")
    names = [name.replace(os.sep, "/") for name in found["path"]]
    sizes = _sizes(base, names, where)
    labels, class_names = coded(found["label"])
    split = Split()
    if "split" in found and use_split:
        codes = np.array([_part(value, where) for value in found["split"]], np.int64)
        split = given_split(codes, labels, class_names, use_split=True, where=str(where))
    sources, source_names = coded(found["source"]) if "source" in found else (None, ())
    ids = unique_ids(found.get("id", names))
    digest = hashlib.sha256()
    for row in zip(ids, names, found["label"], sizes, strict=True):
        digest.update("\0".join(map(str, row)).encode("utf-8", "surrogateescape") + b"\n")
    return dataset_of(
        Encoded(
            name="table",
            labels=labels,
            class_names=class_names,
            image_ids=ids,
            identity={"source": "table", "rows_sha256": digest.hexdigest()},
            open=partial(_open, base, tuple(names)),
            files=partial(below, base, tuple(names)),
            n_channels=n_channels,
            white_level=white_level,
            sources=sources,
            source_names=source_names,
            split=split,
        ),
        View(image_size=image_size),
    )


def is_folder_of_tables(path: Path) -> bool:
    """Return whether a folder holds a table for each part of a split, such as train.csv and test.csv."""
    return path.is_dir() and len(_parts_of(path)) > 1


def _open(base: Path, names: tuple[str, ...], row: int) -> tuple[Path | IO[bytes], str]:
    path = base / names[row]
    return path, str(path)


def _parts_of(folder: Path) -> list[Path]:
    files = [file for file in sorted(folder.iterdir()) if file.suffix.lower() in TABLES and file.is_file()]
    return [file for file in files if file.stem.lower() in PART_NAMES]


def _read(path: str, columns: Mapping[str, str], *, use_split: bool) -> tuple[Columns, Path]:
    """Return the columns that are used, and the path for error messages."""
    unknown = set(columns) - COLUMNS.keys()
    if unknown:
        raise UserError(
            f"columns has the key {min(unknown)!r}", f"keys {', '.join(COLUMNS)}", "give the name of a column for each"
        )
    folder = Path(path).expanduser().absolute()
    if not folder.is_dir():
        file = existing(path, "file")
        return _used(read_columns(file), columns, file, use_split=use_split), file
    files = _parts_of(folder)
    if not files:
        raise UserError(
            f"{folder} has no tables of a split", "files such as train.csv, val.csv and test.csv", "name one table"
        )
    joined: Columns = {}
    for file in files:
        part = _used(read_columns(file), columns, file, use_split=False)
        part["split"] = [file.stem] * len(part["path"])
        if joined and joined.keys() != part.keys():
            raise _wrong(file, f"has the columns {', '.join(part)}", f"{', '.join(joined)}, as {files[0].name}")
        joined = {key: [*joined.get(key, ()), *values] for key, values in part.items()}
    return joined, folder


def read_columns(file: Path) -> dict[str, list[Any]]:
    """Return all columns of a table by their names.

    Raises:
        UserError: It cannot be read.
    """
    if file.suffix.lower() == ".parquet":
        import pyarrow
        import pyarrow.parquet

        try:
            columns: dict[str, list[Any]] = pyarrow.parquet.read_table(file).to_pydict()
        except MemoryError:
            raise
        except Exception as error:  # a damaged file raises errors of many kinds
            raise _wrong(file, f"cannot be read: {error}", "an intact Parquet file") from error
        return columns
    try:
        text = file.read_bytes().decode("utf-8-sig")
    except (UnicodeDecodeError, OSError) as error:
        raise _wrong(file, f"cannot be read as text: {error}", "text in UTF-8") from error
    first = text.partition("\n")[0]
    delimiter = "\t" if file.suffix.lower() == ".tsv" else max(",;\t|", key=first.count)
    try:
        read = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
        rows = [row for row in read if any(cell.strip() for cell in row)]
    except csv.Error as error:
        raise _wrong(file, f"cannot be read: {error}", "cells with marks between, and a row per image") from error
    if not rows:
        raise _wrong(file, "is empty", "a row per image")
    heads = [head.strip() for head in rows[0]]
    if len(heads) > 1 and ending_of(heads[0]) in IMAGE_SUFFIXES:
        heads = ["path", "label", *(["split"] if len(heads) > 2 and heads[2].lower() in PART_NAMES else [])]
        heads += [f"column {number}" for number in range(len(heads), len(rows[0]))]
    else:
        rows = rows[1:]
    for number, row in enumerate(rows):
        if len(row) != len(heads):
            raise _wrong(file, f"has {len(row)} cells for image {number + 1}, {row[:1]}", f"{len(heads)} cells per row")
    return {head: [row[place].strip() for row in rows] for place, head in enumerate(heads)}


def _used(values: dict[str, list[Any]], columns: Mapping[str, str], file: Path, *, use_split: bool) -> Columns:
    """Return the columns that mean something, as texts."""
    found: Columns = {}
    for meaning, usual in COLUMNS.items():
        given = columns.get(meaning)
        names = [name for name in values if (name.strip().lower() in usual if given is None else name == given)]
        if meaning == "split" and not use_split:
            continue
        if not names and (given is not None or meaning in ("path", "label")):
            raise UserError(
                f"{file} has no column {given or meaning!r}, only {', '.join(map(str, values))}",
                f"a column of the name {given}" if given else f"a column called {', '.join(usual)}",
                f"set columns, e.g. columns: {{{meaning}: NAME}}",
            )
        if names:
            found[meaning] = _texts(values[_only(names, values, meaning, file)], meaning, file)
    if not found["path"]:
        raise _wrong(file, "lists no image", "a row per image")
    return found


def _only(names: Sequence[str], values: dict[str, list[Any]], meaning: str, file: Path) -> str:
    """Return the column of a meaning; if several could be it, their values must go together one to one."""
    pairs = len(set(zip(*(map(str, values[name]) for name in names), strict=True)))
    if any(len(set(map(str, values[name]))) != pairs for name in names):
        raise UserError(
            f"{file} has several columns that could be the {meaning}: {', '.join(names)}",
            "one of them",
            f"set columns, e.g. columns: {{{meaning}: {names[0]}}}",
        )
    return max(names, key=lambda name: not all(str(value).isdecimal() for value in values[name]))


def _texts(values: Sequence[Any], meaning: str, file: Path) -> list[str]:
    texts = []
    for number, value in enumerate(values):
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if value is None or value == "" or not isinstance(value, str | int):
            raise _wrong(file, f"has {value!r} as the {meaning} of image {number + 1}", "a text or a whole number")
        texts.append(str(value))
    return texts


def _part(value: str, where: Path) -> int:
    part = PART_NAMES.get(value.lower())
    if part is None:
        raise UserError(
            f"{where} has the part {value!r} of a split",
            "train, val or test (or base, validation, novel)",
            "correct it, or set use_split: false to leave the column out",
        )
    return part


def _base(where: Path, first: str) -> Path:
    folder = where if where.is_dir() else where.parent
    below = folder / "images"
    return below if not (folder / first).exists() and (below / first).exists() else folder


def _sizes(base: Path, names: Sequence[str], where: Path) -> list[int]:
    """Return the sizes of the files; raise if one is missing, no file, or listed twice."""
    if len(set(names)) < len(names):
        seen: set[str] = set()
        twice = next(name for name in names if name in seen or seen.add(name))  # type: ignore[func-returns-value]
        raise _wrong(where, f"lists {twice} twice", "one row per image")
    sizes, missing = [], []
    for name in names:
        try:
            found = os.stat(os.path.join(base, name))
        except (OSError, ValueError):
            missing.append(name)
            continue
        if not stat.S_ISREG(found.st_mode):
            raise _wrong(where, f"lists {name}, which is no file", "image files")
        sizes.append(found.st_size)
    if missing:
        raise UserError(
            f"{where} lists {len(missing)} images that are not there, e.g. {missing[0]} (looked below {base})",
            f"{len(names)} image files, by paths that start at the folder of the table",
            "correct the paths, or set root to the folder where they start",
        )
    return sizes


def _wrong(file: Path, problem: str, expected: str) -> UserError:
    return UserError(f"{file} {problem}", expected, "correct the table")
