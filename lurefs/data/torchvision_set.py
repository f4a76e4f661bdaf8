"""The classification data sets of torchvision by name."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Mapping, Sequence
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from lurefs.data.dataset import PARTS, ImageDataset, View
from lurefs.data.encoded import Encoded, Split, check_settings, coded, dataset_of, given_split
from lurefs.errors import UserError, first_line, unknown_name

if TYPE_CHECKING:
    from PIL import Image

SPLITS: Mapping[str, tuple[str, ...]] = {"train": ("train", "trainval"), "val": ("val", "valid"), "test": ("test",)}
"""What data sets call the parts of their splits; the first name that a data set knows is taken."""
LABELS = ("targets", "labels", "_labels", "y")
"""Where data sets keep their labels."""
FILES = ("samples", "_samples", "_image_files", "_images")
"""Where they keep the paths of their images."""


def torchvision(
    name: str,
    path: str,
    split: str = "all",
    image_size: int = 64,
    n_channels: int = 3,
    options: dict[str, Any] | None = None,
    download: bool = False,
    use_split: bool = True,
    white_level: float | None = None,
) -> ImageDataset:
    """Return the images of a data set of torchvision, e.g. CIFAR100; also written `torchvision:NAME`.

    Args:
        name: The class in `torchvision.datasets`.
        path: The folder that torchvision calls `root`.
        split: `train`, `val`, `test`, another one that the data set knows, or `all`.
        image_size: Side length in pixels: the shorter side is resized, the centre cropped.
        n_channels: 1 (grey) or 3 (RGB).
        options: Further keywords of the class, e.g. `{split: letters}` of EMNIST.
        download: Whether missing files are downloaded.
        use_split: Whether train, val and test are used as a split, see `docs/data.md`.
        white_level: As for `folder`.

    Raises:
        UserError: There is no such class, its files are missing, or its items are not an image and a class.
    """
    check_settings("torchvision", image_size, n_channels, white_level)
    root = Path(path).expanduser().absolute()
    parts = _parts(name, root, split, {**(options or {}), **({"download": download})})
    values = [value for data in parts.values() for value in _classes(name, data)]
    labels, class_names = coded(values)
    codes = np.repeat([PARTS.index(part) if part in PARTS else 0 for part in parts], [len(d) for d in parts.values()])
    where = f"torchvision:{name}"
    ids = [f"{part}/{row:0{len(str(len(data)))}d}" for part, data in parts.items() for row in range(len(data))]
    digest = hashlib.sha256("\n".join(f"{a}\0{b}" for a, b in zip(ids, values, strict=True)).encode())
    for data in parts.values():
        if hasattr(data, "data"):
            digest.update(np.asarray(data.data).tobytes())
    files = _files(list(parts.values()))
    return dataset_of(
        Encoded(
            name="torchvision",
            labels=labels,
            class_names=class_names,
            image_ids=tuple(ids),
            identity={
                "source": where,
                "images_sha256": digest.hexdigest(),
                "torchvision": version("torchvision"),
                **({"options": options} if options else {}),
            },
            open=partial(_open, list(parts.values()), where),
            files=None if files is None else partial(list, files),
            n_channels=n_channels,
            white_level=white_level,
            split=given_split(codes, labels, class_names, use_split=use_split, where=where)
            if len(parts) > 1
            else Split(),
        ),
        View(image_size=image_size),
    )


def _files(parts: Sequence[Any]) -> list[Path] | None:
    """Return the files that images are read from, where data sets keep a list; None if one of them keeps none.

    Data sets that hold their pixels have none, and their identity has a digest of the pixels.
    """
    files: list[Path] = []
    for data in parts:
        listed = next((found for key in FILES if isinstance(found := getattr(data, key, None), list) and found), None)
        names = [each[0] if isinstance(each, tuple) else each for each in listed or ()]
        if names and all(isinstance(name, str | Path) and Path(name).is_absolute() for name in names):
            files += map(Path, names)
        elif not hasattr(data, "data"):
            return None
    return files


def _open(parts: Sequence[Any], where: str, row: int) -> tuple[Path | IO[bytes] | Image.Image, str]:
    for data in parts:
        if row < len(data):
            return data[row][0], f"{where}, image {row}"
        row -= len(data)
    raise IndexError(row)


def _parts(name: str, root: Path, split: str, options: dict[str, Any]) -> dict[str, Any]:
    """Return the data sets of the parts that a split names, by part."""
    from torchvision import datasets

    if name not in datasets.__all__:
        raise unknown_name("data set of torchvision", name, datasets.__all__)
    factory = getattr(datasets, name)
    known = {key for kind in factory.__mro__ for key in inspect.signature(kind.__init__).parameters}
    options = {key: value for key, value in options.items() if key in known or key != "download"}
    key = next((key for key in ("train", "background", "split") if key in known and key not in options), None)
    if key is None:
        return {"all": _built(name, factory, root, options)}
    if key != "split":
        names = ("train", "test") if split == "all" else (split,)
        if not set(names) <= {"train", "test"}:
            raise UserError(f"split of {name} is {split!r}", "train, test or all", "change split")
        return {part: _built(name, factory, root, {**options, key: part == "train"}) for part in names}
    if split != "all":
        return {split: _built(name, factory, root, {**options, key: split})}
    found = {}
    for part, texts in SPLITS.items():
        for text in texts:
            try:
                found[part] = _built(name, factory, root, {**options, key: text})
                break
            except ValueError:  # it does not know this one
                continue
    if not found:
        raise UserError(f"{name} has no train, val or test", "a split that it knows", "set split")
    return found


def _built(name: str, factory: Any, root: Path, options: Mapping[str, Any]) -> Any:
    try:
        return factory(root, **options)
    except (RuntimeError, OSError) as error:
        raise UserError(
            f"torchvision:{name} cannot be read from {root}: {first_line(error)}",
            f"the files as torchvision stores them below {root}",
            "set path to the folder that torchvision calls root, or set dataset.params.download=true",
        ) from error
    except TypeError as error:
        raise UserError(
            f"torchvision:{name} does not accept its options: {first_line(error)}",
            f"keywords of torchvision.datasets.{name}",
            "set options, e.g. dataset.params.options.split=letters",
        ) from error


def _classes(name: str, data: Any) -> list[str]:
    """Return the class of each item, without decoding it where the data set keeps its labels."""
    labels = next((found for key in LABELS if (found := _labels(getattr(data, key, None))) is not None), None)
    if labels is None:
        pairs = next((getattr(data, key) for key in ("_samples", "_flat_character_images") if hasattr(data, key)), data)
        labels = [pair[1] for pair in pairs]
    if len(labels) != len(data) or not all(isinstance(label, int | np.integer) for label in labels):
        raise UserError(
            f"torchvision:{name} has no class for each image", "a data set for classification", "choose another one"
        )
    names = next((names for key in ("classes", "categories", "_characters") if (names := getattr(data, key, None))), ())
    names = [", ".join(each) if isinstance(each, tuple) else str(each) for each in names]
    return [names[label] if label < len(names) else str(label) for label in labels]


def _labels(found: Any) -> list[int] | None:
    """Return labels as a list, if that is what a data set keeps there."""
    if hasattr(found, "tolist"):
        found = found.tolist()
    return found if isinstance(found, list) and found and isinstance(found[0], int) else None
