"""Splits: classes into base, validation and novel; images of base classes into train, val and test.

A split that the data bring is used unless the recipe sets one.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import yaml
from numpy.typing import NDArray

from episodes.arrays import IntArray
from lurefs.config.schema import ClassSplitConfig, ImageSplitConfig, SourceSplitConfig
from lurefs.data.dataset import PARTS, ImageDataset
from lurefs.data.encoded import GROUPS, PART_NAMES
from lurefs.errors import UserError, unknown_name
from lurefs.seeding import numpy_generator

DEFAULTS = (ClassSplitConfig(), ClassSplitConfig(base=0.0, validation=0.0, novel=1.0))
"""The class splits of a recipe that sets none, with training and without."""
SPLITS = ("split", "part", "subset", "set", "group", "mode")
"""Column names of parts in a split file, in small letters."""
LABELS = ("label", "class", "class_name", "category", "wnid", "synset")
"""Column names of classes in a split file, in small letters."""


@dataclass(frozen=True, kw_only=True)
class ClassSplit:
    """Disjoint groups of classes, each a sorted array of class indices, int64."""

    base: IntArray
    validation: IntArray
    novel: IntArray


@dataclass(frozen=True, kw_only=True)
class ImageSplit:
    """Disjoint groups of rows of the base classes' images, each sorted, int64."""

    train: IntArray
    val: IntArray
    test: IntArray


def split_classes(dataset: ImageDataset, config: ClassSplitConfig, *, min_base: int = 2) -> ClassSplit:
    """Split the classes of a data set into base, validation and novel.

    If the recipe sets no split and the data bring one, it is used. Shares are drawn from the sorted class names, so the
    order in which a source lists its classes does not matter.

    Raises:
        UserError: A class does not exist or is in two groups, the file does not hold the three lists, or there are
            fewer than `min_base` base classes.
    """
    lists = _lists_of(dataset, config)
    index_of = {name: index for index, name in enumerate(dataset.class_names)}
    home: dict[str, str] = {}
    for group, names in lists.items():
        for name in names:
            if name not in index_of:
                raise unknown_name(f"class in class_split.{group}:", name, dataset.class_names)
            if name in home:
                raise UserError(
                    f"class {name!r} is listed under {home[name]} and {group} of class_split",
                    "each class in one group only, and once",
                    f"remove {name!r} from one of them",
                )
            home[name] = group
    if len(lists["base"]) < min_base:
        raise UserError(
            f"class_split leaves {len(lists['base'])} base classes of {len(dataset.class_names)}",
            f"at least {min_base} base classes",
            "raise class_split.base",
        )
    chosen = {group: np.array(sorted(index_of[name] for name in lists[group]), dtype=np.int64) for group in GROUPS}
    return ClassSplit(**chosen)


def held_back_sources(dataset: ImageDataset, config: SourceSplitConfig | None) -> NDArray[np.bool_]:
    """Return whether the source of each image is held back from base training, (n_images,).

    A share is drawn from the sorted names of the sources and rounded; at least one source is on either side.

    Raises:
        UserError: A source does not exist, or the data have fewer than two sources.
    """
    if config is None:
        return np.zeros(len(dataset), bool)
    names = dataset.source_names
    if len(names) < 2:
        raise UserError(
            f"source_split is set, but {dataset.name} does not say which source each image has",
            "data with several sources: icons, glyphs, a table with a column 'source', an .npz file with 'sources'",
            "leave source_split out, or add the sources to the data",
        )
    if isinstance(config.held_back, list):
        for name in config.held_back:
            if name not in names:
                raise unknown_name("source in source_split.held_back:", name, names)
        chosen = set(config.held_back)
        if not 0 < len(chosen) < len(names):
            raise UserError(
                f"source_split.held_back names {len(chosen)} of {len(names)} sources",
                "at least one source, and one that is left for base training",
                "change source_split.held_back",
            )
    else:
        n_held_back = min(max(1, round(config.held_back * len(names))), len(names) - 1)
        chosen = set(numpy_generator(config.seed, "source_split").permutation(sorted(names))[:n_held_back].tolist())
    return np.isin(dataset.sources, [index for index, name in enumerate(names) if name in chosen])


def split_images(
    dataset: ImageDataset, base: IntArray, config: ImageSplitConfig, *, left_out: NDArray[np.bool_] | None = None
) -> ImageSplit:
    """Split the images of each base class into train, val and test (stratified), with at least one image per part.

    A class is split the same way whatever other classes there are. A split of the images that the data bring is used;
    a part that it lacks for a class is drawn from the training images.

    Args:
        dataset: The data set.
        base: Its base classes.
        config: The shares.
        left_out: (n_images,) whether an image is in no part; None for none.

    Raises:
        UserError: A base class has too few images.
    """
    is_there = np.ones(len(dataset), bool) if left_out is None else ~left_out
    found: dict[str, list[IntArray]] = {part: [np.empty(0, dtype=np.int64)] for part in PARTS}
    for label in base:
        rows = np.flatnonzero((dataset.labels == label) & is_there)
        name = dataset.class_names[label]
        for part, part_rows in _divided(rows, _given_parts(dataset, rows), config, name).items():
            found[part].append(part_rows)
    return ImageSplit(**{part: np.sort(np.concatenate(rows)) for part, rows in found.items()})


def _given_parts(dataset: ImageDataset, rows: IntArray) -> dict[str, IntArray]:
    """Return the rows of one class that the data put into validation and test, without empty parts."""
    if dataset.parts is None:
        return {}
    given = {part: rows[dataset.parts[rows] == PARTS.index(part)] for part in ("val", "test")}
    return {part: of_part for part, of_part in given.items() if len(of_part)}


def _divided(rows: IntArray, given: Mapping[str, IntArray], config: ImageSplitConfig, name: str) -> dict[str, IntArray]:
    """Divide the images of one class; parts that are not given are drawn from the rest by their shares."""
    rest = np.setdiff1d(rows, np.concatenate(list(given.values()))) if given else rows
    n_val, n_test = (
        0 if part in given else max(1, round(share * len(rest)))
        for part, share in (("val", config.val), ("test", config.test))
    )
    if n_val + n_test >= len(rest):
        of_data = f", of which the data leave {len(rest)} for training" if given else ""
        raise UserError(
            f"base class {name!r} has {len(rows)} images{of_data}, of which {n_val} go to validation and {n_test} to "
            "test",
            "at least one left for training",
            "lower image_split.val or image_split.test, or leave the class out",
        )
    rest = numpy_generator(config.seed, "image_split", name).permutation(rest)
    drawn = {"val": rest[:n_val], "test": rest[n_val : n_val + n_test], "train": rest[n_val + n_test :]}
    return {**drawn, **given}


def _lists_of(dataset: ImageDataset, config: ClassSplitConfig) -> Mapping[str, Sequence[str]]:
    if config.file:
        return _read_split_file(Path(config.file))
    if (given := _given_lists(config)) is not None:
        return given
    if dataset.class_split is not None and config in DEFAULTS:
        return dataset.class_split
    return _draw_lists(dataset.class_names, config)


def _given_lists(config: ClassSplitConfig) -> dict[str, list[str]] | None:
    groups = {group: getattr(config, group) for group in GROUPS}
    return groups if all(isinstance(names, list) for names in groups.values()) else None


def _draw_lists(class_names: Sequence[str], config: ClassSplitConfig) -> dict[str, list[str]]:
    names = numpy_generator(config.seed, "class_split").permutation(sorted(class_names)).tolist()
    lists: dict[str, list[str]] = {}
    start, share = 0, 0.0
    for group in GROUPS:
        share += getattr(config, group)
        end = min(len(names), round(share * len(names)))
        lists[group] = names[start:end]
        start = end
    return lists


def _read_split_file(path: Path) -> dict[str, list[str]]:
    """Read the three lists of class names from a JSON, YAML, CSV or TSV file, or from a folder of three CSV files.

    The lists are called base, validation and novel, or train, val and test. A CSV file without a column of parts is one
    of three, such as train.csv beside val.csv and test.csv.
    """
    try:
        if path.is_dir():
            return _read_three(path)
        if path.suffix.lower() in (".csv", ".tsv"):
            columns = _columns(path)
            return _read_three(path.parent) if columns[1] is None else _grouped(path, *columns)
        if path.exists() and not path.is_file():  # opening a named pipe would wait for ever
            raise OSError("it is not a file")
        # all values are texts, so that the class 010 is not read as the number 8
        lists = yaml.load(path.read_text(encoding="utf-8"), Loader=yaml.BaseLoader)
    except (OSError, ValueError, csv.Error, yaml.YAMLError, RecursionError) as error:
        raise UserError(
            f"class_split.file {path} cannot be read: {error}",
            "a JSON, YAML or CSV file, or a folder with train.csv, val.csv and test.csv",
            "check the path and the file",
        ) from error
    is_mapping = isinstance(lists, dict) and all(isinstance(names, list) for names in lists.values())
    found = {_group_of(str(key), path): names for key, names in lists.items()} if is_mapping else {}
    if not is_mapping or len(found) < len(lists) or not {"base", "novel"} <= found.keys():
        raise _no_split(path)
    if any(not isinstance(name, str) for names in found.values() for name in names):
        raise _no_split(path)
    return {group: list(found.get(group, ())) for group in GROUPS}


def _no_split(path: Path) -> UserError:
    return UserError(
        f"class_split.file {path} does not hold a class split",
        "a mapping with the lists base, validation and novel (or train, val and test), or CSV files with a column "
        f"{LABELS[0]}",
        "write the three lists of class names",
    )


def _group_of(name: str, path: Path) -> str:
    part = PART_NAMES.get(name.strip().lower())
    if part is None:
        raise _no_split(path)
    return GROUPS[part]


def _read_three(folder: Path) -> dict[str, list[str]]:
    """Read the classes of three CSV files, of which each is named after a part."""
    lists: dict[str, list[str]] = {group: [] for group in GROUPS}
    for file in sorted([*folder.glob("*.csv"), *folder.glob("*.tsv")]):
        if file.stem.lower() in PART_NAMES:
            labels, _ = _columns(file)
            lists[_group_of(file.stem, file)] = list(dict.fromkeys(labels))
    if not lists["base"] or not lists["novel"]:
        raise _no_split(folder)
    return lists


def _columns(path: Path) -> tuple[list[str], list[str] | None]:
    """Return the classes and the parts in a CSV file, row by row; None if it has no parts."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        rows = [row for row in csv.reader(file, delimiter="\t" if path.suffix.lower() == ".tsv" else ",") if row]
    heads = [head.strip().lower() for head in rows[0]] if rows else []
    label = next((heads.index(name) for name in LABELS if name in heads), None)
    part = next((heads.index(name) for name in SPLITS if name in heads), None)
    if label is None or any(len(row) != len(heads) for row in rows):
        raise _no_split(path)
    return [row[label].strip() for row in rows[1:]], None if part is None else [row[part] for row in rows[1:]]


def _grouped(path: Path, labels: Sequence[str], parts: Sequence[str] | None) -> dict[str, list[str]]:
    lists: dict[str, list[str]] = {group: [] for group in GROUPS}
    for label, part in dict.fromkeys(zip(labels, parts or (), strict=True)):
        lists[_group_of(part, path)].append(label)
    return lists
