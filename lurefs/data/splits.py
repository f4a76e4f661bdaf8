"""Splits: classes into base, validation and novel; images of base classes into train, val and test."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import yaml

from episodes.arrays import IntArray
from lurefs.config.schema import ClassSplitConfig, ImageSplitConfig
from lurefs.data.dataset import ImageDataset
from lurefs.errors import UserError, unknown_name
from lurefs.seeding import numpy_generator

GROUPS = ("base", "validation", "novel")


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

    Shares are drawn from the sorted class names, so the order in which a source lists its classes does not matter.

    Raises:
        UserError: A class does not exist or is in two groups, the file does not hold the three lists, or there are
            fewer than `min_base` base classes.
    """
    lists = _read_split_file(config.file) if config.file else _given_lists(config)
    if lists is None:
        lists = _draw_lists(dataset.class_names, config)
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


def split_images(dataset: ImageDataset, base: IntArray, config: ImageSplitConfig) -> ImageSplit:
    """Split the images of each base class into train, val and test (stratified), with at least one image per part.

    A class is split the same way whatever other classes there are.

    Raises:
        UserError: A base class has too few images.
    """
    none = np.empty(0, dtype=np.int64)
    parts: dict[str, list[IntArray]] = {"train": [none], "val": [none], "test": [none]}
    for label in base:
        rows = np.flatnonzero(dataset.labels == label)
        name = dataset.class_names[label]
        n_val = max(1, round(config.val * len(rows)))
        n_test = max(1, round(config.test * len(rows)))
        if n_val + n_test >= len(rows):
            raise UserError(
                f"base class {name!r} has {len(rows)} images, of which {n_val} go to validation and {n_test} to test",
                "at least one left for training",
                "lower image_split.val or image_split.test, or leave the class out",
            )
        rows = numpy_generator(config.seed, "image_split", name).permutation(rows)
        parts["val"].append(rows[:n_val])
        parts["test"].append(rows[n_val : n_val + n_test])
        parts["train"].append(rows[n_val + n_test :])
    return ImageSplit(**{part: np.sort(np.concatenate(rows)) for part, rows in parts.items()})


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


def _read_split_file(path: str) -> dict[str, list[str]]:
    try:
        lists = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UserError(
            f"class_split.file {path} cannot be read: {error}", "a JSON or YAML file", "check the path and the file"
        ) from error
    if (
        not isinstance(lists, dict)
        or set(lists) != set(GROUPS)
        or not all(isinstance(names, list) for names in lists.values())
    ):
        raise UserError(
            f"class_split.file {path} does not hold a class split",
            "a mapping with the lists base, validation and novel",
            "write the three lists of class names",
        )
    return {group: [str(name) for name in lists[group]] for group in GROUPS}
