"""Features that another program made, from a file: a data set without images."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from episodes.arrays import IntArray
from lurefs.data.dataset import ImageArray, ImageDataset
from lurefs.data.encoded import PART_NAMES, Split, coded, given_split
from lurefs.data.paths import existing
from lurefs.data.table import COLUMNS, read_columns
from lurefs.errors import UserError, first_line

FEATURE_NAMES = ("features", "feature", "embeddings", "embedding")
NAMES: Mapping[str, tuple[str, ...]] = {
    "features": FEATURE_NAMES,
    "label": COLUMNS["label"],
    "class_names": ("class_names", "classes"),
    "id": ("image_ids", *COLUMNS["id"], "ids", "paths", *COLUMNS["path"]),
    "split": (*COLUMNS["split"], "splits"),
    "source": (*COLUMNS["source"], "sources"),
}
"""What arrays and columns are called, the usual name first."""
NOTE = "the features are those of a file: without a model and images there are no controls and no pictures"
Arrays = dict[str, NDArray[Any]]


def features(path: str, use_split: bool = True) -> ImageDataset:
    """Return features of labelled images as a data set; without its images.

    Three forms of file are read, and never a pickle. An `.npz` file holds `features` (n_images, n_features) and
    `labels` (n_images,) of whole numbers or texts; optional are `class_names` (n_classes,), which whole numbers then
    index, `image_ids` or `paths`, `split` (train, val, test) and `source`. An `.npy` file of features has its labels
    beside it: `X_labels.npy` or `X_labels.csv` of `X.npy`, otherwise `labels.npy` or `labels.csv`. A `.parquet` file
    has a column `features` of lists, or a column of decimal numbers per feature, and a column `label`.

    With ids of images the rows are ordered by them, so that files of different backbones have the same order.

    Args:
        path: The file; `~` and relative paths are allowed.
        use_split: Whether the parts are used as a split, see `docs/data.md`.

    Raises:
        UserError: The file is missing or damaged, or an array is missing, or has the wrong type, shape or values.
    """
    file = existing(path, "file")
    files = (file, *_labels_beside(file))
    digests = tuple(_sha256(each) for each in files)
    loaded = _load(files, digests)
    numbers = checked_features(file, loaded)
    n_images, n_features = numbers.shape
    labels, class_names = checked_classes(file, loaded, n_images)
    names = _texts(file, loaded, "id", n_images)
    if names is not None and len(set(names)) < n_images:
        raise _wrong(file, "has image ids that occur twice", "one unique id per image", "save unique ids, or none")
    order = np.arange(n_images) if names is None else np.argsort(np.array(names), kind="stable")
    ids = [f"{row:0{len(str(n_images - 1))}d}" for row in range(n_images)] if names is None else names
    labels = labels[order]
    parts, origins = (_texts(file, loaded, key, n_images) for key in ("split", "source"))
    sources, source_names = (np.zeros(n_images, np.int64), ("features",)) if origins is None else coded(origins)
    split = Split()
    if parts is not None:
        codes = np.array([_part(file, part) for part in parts], np.int64)[order]
        split = given_split(codes, labels, class_names, use_split=use_split, where=str(file))
    return ImageDataset(
        name="features",
        labels=labels,
        class_names=class_names,
        image_ids=tuple(ids[row] for row in order),
        sources=sources if origins is None else sources[order],
        source_names=source_names,
        image_size=0,
        n_channels=0,
        identity={"source": "features", "files_sha256": list(digests), **({"ids": True} if names else {})},
        read=partial(_no_images, file),
        class_split=split.class_split,
        parts=split.parts,
        notes=(NOTE, *split.notes),
        n_features=n_features,
        read_features=partial(_read_rows, files, digests, order),
    )


def holds_features(file: Path) -> bool:
    """Return whether a file holds features by its ending and the names of its arrays or columns."""
    ending = file.suffix.lower()
    if not file.is_file():  # opening a named pipe would wait for ever
        return False
    try:
        if ending == ".npz":
            with file.open("rb") as opened, np.load(opened, allow_pickle=False) as arrays:
                return "images" not in arrays.files and any(name.lower() in FEATURE_NAMES for name in arrays.files)
        if ending == ".parquet":
            return _is_table_of_features(file)
    except Exception:  # a damaged file raises errors of many kinds
        return False
    return ending == ".npy"


def difference(one: ImageDataset, other: ImageDataset) -> str:
    """Say in what the images of two files of features differ; empty if they are the same in the same order."""
    if len(one) != len(other):
        return f"{len(one):,} images and {len(other):,}"
    if ("ids" in one.identity) != ("ids" in other.identity):
        return "only one of them has ids of images"
    if one.image_ids != other.image_ids:
        missing = sorted(set(one.image_ids) - set(other.image_ids))
        return f"{len(missing):,} images of the first are not in the other, e.g. {missing[0]!r}"
    if one.class_names != other.class_names:
        unshared = sorted(set(one.class_names) ^ set(other.class_names))
        return f"the classes differ, e.g. {unshared[0]!r} is in one of them"
    rows = np.flatnonzero(one.labels != other.labels)
    if len(rows):
        classes = (each.class_names[each.labels[rows[0]]] for each in (one, other))
        of_one, of_other = classes
        return f"image {one.image_ids[rows[0]]!r} is {of_one!r} in the first and {of_other!r} in the other"
    return ""


@lru_cache(maxsize=2)
def _load(files: tuple[Path, ...], digests: tuple[str, ...]) -> Arrays:
    """Load all arrays of a file, by their keys in `NAMES`; those of the last two files stay in memory."""
    file = files[0]
    ending = file.suffix.lower()
    if ending == ".npz":
        return _named(file, _load_npz(file))
    if ending == ".parquet":
        return _from_table(file)
    if ending != ".npy":
        raise UserError(
            f"{file} is no file of features", "an .npz, .npy or .parquet file", "save with numpy.savez(features=...)"
        )
    if len(files) == 1:
        beside = " or ".join(path.name for path in _beside(file))
        raise UserError(
            f"{file} has no labels beside it", f"a file {beside} in {file.parent}", "save one label per row there"
        )
    if files[1].suffix == ".npy":
        return {"features": _load_npy(file), "label": _load_npy(files[1])}
    return {"features": _load_npy(file), **_from_csv(files[1])}


def _read_rows(
    files: tuple[Path, ...], digests: tuple[str, ...], order: IntArray, rows: IntArray
) -> NDArray[np.float32]:
    """Return the features of some images, (n, n_features) float32."""
    return np.asarray(_load(files, digests)["features"][order[rows]], np.float32)


def _no_images(file: Path, rows: IntArray) -> ImageArray:
    raise UserError(f"{file} holds features, and no images", "images", "name the images that they were made from")


def _beside(file: Path) -> list[Path]:
    names = [f"{file.stem}_labels.npy", f"{file.stem}_labels.csv", "labels.npy", "labels.csv"]
    return [file.with_name(name) for name in names]


def _labels_beside(file: Path) -> tuple[Path, ...]:
    """Return the file of labels beside an `.npy` file, if there is one."""
    if file.suffix.lower() != ".npy":
        return ()
    return tuple(path for path in _beside(file) if path.is_file() and path != file)[:1]


def _load_npy(file: Path) -> NDArray[Any]:
    try:
        array = np.load(file, allow_pickle=False)
    except Exception as error:  # a damaged file raises errors of many kinds
        raise _unreadable(file, error) from error
    if not isinstance(array, np.ndarray):
        raise _wrong(file, "is no .npy file", "one array of numbers", "save it with numpy.save")
    return array


def _load_npz(file: Path) -> Arrays:
    try:
        with file.open("rb") as opened, np.load(opened, allow_pickle=False) as arrays:
            if isinstance(arrays, np.ndarray):
                raise ValueError("it is an .npy file")
            known = {name for names in NAMES.values() for name in names}
            return {name: arrays[name] for name in arrays.files if name.lower() in known}
    except Exception as error:  # a damaged file raises errors of many kinds
        raise _unreadable(file, error) from error


def _named(file: Path, columns: Mapping[str, Any]) -> Arrays:
    """Return columns by their keys in `NAMES`; others are left out."""
    found: Arrays = {}
    for key, names in NAMES.items():
        given = [name for usual in names for name in columns if name.strip().lower() == usual]
        if given:
            found[key] = np.asarray(columns[given[0]])
    return found


def _from_csv(file: Path) -> Arrays:
    """Return the labels of a CSV file, and what else it has; a single column needs no head."""
    columns = read_columns(file)
    found = _named(file, columns)
    if "label" not in found and len(columns) == 1:
        ((head, values),) = columns.items()
        found["label"] = np.array([head, *values])
    if "label" in found and all(_is_whole(value) for value in found["label"]):
        found["label"] = found["label"].astype(np.int64)
    return found


def _is_whole(text: str) -> bool:
    return text.removeprefix("-").isdecimal()


def _from_table(file: Path) -> Arrays:
    import pyarrow
    import pyarrow.parquet

    try:
        table = pyarrow.parquet.read_table(file)
        lists, decimals = _feature_columns(table.schema)
        others = [name for name in table.column_names if name not in (*lists, *decimals)]
        if not lists:
            columns = [table[name].to_numpy() for name in decimals]
            found = {"features": np.stack(columns, axis=1)} if columns else {}
        else:
            chosen = table[lists[0]].combine_chunks()
            widths = set(chosen.value_lengths().to_pylist())
            if len(widths) != 1 or widths & {None, 0}:
                raise _wrong(
                    file,
                    f"has lists of different lengths in {lists[0]!r}",
                    "as many features per image",
                    "save it again",
                )
            found = {"features": chosen.flatten().to_numpy(zero_copy_only=False).reshape(len(chosen), -1)}
        return {**_named(file, {name: table[name].to_numpy() for name in others}), **found}
    except (UserError, MemoryError):
        raise
    except Exception as error:  # a damaged file raises errors of many kinds
        raise _unreadable(file, error) from error


def _feature_columns(schema: Any) -> tuple[list[str], list[str]]:
    """Return the columns of lists of numbers, the one called `features` first, and those of decimal numbers."""
    from pyarrow import types

    lists = [
        field.name
        for field in schema
        if (types.is_list(field.type) or types.is_large_list(field.type) or types.is_fixed_size_list(field.type))
        and (types.is_floating(field.type.value_type) or types.is_integer(field.type.value_type))
    ]
    lists.sort(key=lambda name: name.lower() not in FEATURE_NAMES)
    return lists, [field.name for field in schema if types.is_floating(field.type)]


def _is_table_of_features(file: Path) -> bool:
    import pyarrow
    import pyarrow.parquet

    try:
        lists, decimals = _feature_columns(pyarrow.parquet.read_schema(file))
    except (pyarrow.ArrowException, OSError):
        return False
    return bool(lists) or len(decimals) > 1


def checked_features(file: Path, loaded: Arrays) -> NDArray[Any]:
    """Return the features of a file, checked.

    Raises:
        UserError: They are missing, of another shape or type, not finite, or zeros only.
    """
    if "features" not in loaded:
        raise _wrong(file, "has no features", "an array or column 'features'", "save it with features=...")
    found = loaded["features"]
    if found.dtype.kind not in "fiu":
        raise _wrong(
            file, f"has features of type {found.dtype}", "real numbers", "convert them with .astype('float32')"
        )
    if found.ndim != 2 or 0 in found.shape:
        raise _wrong(
            file, f"has features of shape {found.shape}", "(n_images, n_features), none of them 0", "reshape the array"
        )
    with np.errstate(over="ignore"):
        is_finite = np.isfinite(found.astype(np.float32)).all(axis=1)
    if not is_finite.all():
        row, n_wrong = int(np.argmin(is_finite)), int((~is_finite).sum())
        raise _wrong(
            file,
            f"has {n_wrong:,} of {len(found):,} rows with a feature that is not finite, the first is row {row}",
            "finite numbers in single precision",
            "find out why the model gives NaN or infinity, or leave these images out",
        )
    if not found.any():
        raise _wrong(file, "has zeros only as features", "features that differ between images", "save them again")
    return found


def checked_classes(file: Path, loaded: Arrays, n_images: int) -> tuple[IntArray, tuple[str, ...]]:
    """Return labels as class indices, and the class names; names are sorted, so that files agree on their order."""
    if "label" not in loaded:
        raise _wrong(file, "has no labels", "an array or column 'labels'", "save one label per image with labels=...")
    given = loaded["label"]
    if given.shape != (n_images,):
        raise _wrong(
            file,
            f"has labels of shape {given.shape}",
            f"({n_images},), one label per row of features",
            "correct labels",
        )
    missing = [row for row, value in enumerate(given.tolist()) if value is None or value != value]
    if missing:
        raise _wrong(
            file,
            f"has {len(missing):,} rows without a label, the first is row {missing[0]}",
            "one label per row of features",
            "fill them in, or leave these rows out",
        )
    if given.dtype == object and all(isinstance(value, str) for value in given):
        given = given.astype(str)
    if given.dtype.kind == "U":
        return coded(given.tolist())
    if given.dtype.kind not in "iu":
        raise _wrong(file, f"has labels of type {given.dtype}", "whole numbers or texts", "save labels.astype('int64')")
    if "class_names" not in loaded:
        values, labels = np.unique(given, return_inverse=True)
        return labels.astype(np.int64), tuple(str(value) for value in values)
    names = [str(name) for name in loaded["class_names"].ravel()]
    if given.min() < 0 or given.max() >= len(names) or len(set(names)) < len(names):
        raise _wrong(
            file,
            f"has labels from {given.min()} to {given.max()}, and {len(set(names))} different class_names",
            "labels that are indices into different class_names",
            "save one class name per label, or leave class_names out",
        )
    return coded([names[label] for label in given])


def _texts(file: Path, loaded: Arrays, key: str, n_images: int) -> list[str] | None:
    """Return an optional array of names or whole numbers as texts."""
    if key not in loaded:
        return None
    given = loaded[key]
    is_named = given.dtype.kind in "Uiu" or all(isinstance(value, str | int) for value in given.ravel())
    if given.shape != (n_images,) or not is_named:
        raise _wrong(
            file,
            f"has {NAMES[key][0]} of shape {given.shape} and type {given.dtype}",
            f"({n_images},), one text or whole number per row of features",
            f"correct {NAMES[key][0]}, or leave it out",
        )
    return [str(value) for value in given.tolist()]


def _part(file: Path, value: str) -> int:
    part = PART_NAMES.get(value.lower())
    if part is None:
        raise _wrong(
            file,
            f"has the part {value!r} of a split",
            "train, val or test (or base, validation, novel)",
            "correct it, or leave split out",
        )
    return part


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _unreadable(file: Path, error: Exception) -> UserError:
    return _wrong(
        file,
        f"cannot be read: {first_line(error)}",
        "an intact file of numbers and text; Python objects are never loaded, since a pickle can run any code",
        "save plain arrays with numpy.savez, and texts with .astype(str)",
    )


def _wrong(file: Path, problem: str, expected: str, fix: str) -> UserError:
    return UserError(f"{file} {problem}", expected, fix)
