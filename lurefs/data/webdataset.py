"""Images in the tar shards of WebDataset: files of one name are a sample, e.g. 000.jpg, 000.cls and 000.json."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np

from lurefs.data.archive import Member, members, open_member
from lurefs.data.dataset import ImageDataset, View
from lurefs.data.encoded import PART_NAMES, Encoded, Split, check_settings, coded, dataset_of, given_split, unique_ids
from lurefs.data.layouts import IMAGE_SUFFIXES
from lurefs.data.table import COLUMNS
from lurefs.errors import UserError

RANGE = re.compile(r"\{(\d+)\.\.(\d+)\}")


@dataclass(kw_only=True)
class _Sample:
    """The files of one sample."""

    shard: Path
    key: str
    images: list[Member] = field(default_factory=list)
    cls: Member | None = None
    json: Member | None = None


def webdataset(
    path: str,
    image_size: int = 64,
    n_channels: int = 3,
    class_names: list[str] | None = None,
    use_split: bool = True,
    white_level: float | None = None,
) -> ImageDataset:
    """Return the images of tar shards in the WebDataset format as a data set; nothing is unpacked.

    A sample has an image (`.jpg`, `.png` ...) and its class in `.cls`, or in `.json` under `label` or `class`. The
    identity holds names, sizes and classes of the images, not their bytes.

    Args:
        path: A pattern such as `train-{000000..000003}.tar` or `train-*.tar`, one file, or a folder of `.tar` files.
        image_size: Side length in pixels: the shorter side is resized, the centre cropped.
        n_channels: 1 (grey) or 3 (RGB).
        class_names: The names of classes 0, 1 ... if `.cls` files hold numbers; otherwise the numbers are the names.
        use_split: Whether names of shards such as `train-000000.tar` and `val-000000.tar` are used as a split.
        white_level: As for `folder`.

    Raises:
        UserError: A shard is missing, compressed or damaged, or a sample has no class.
    """
    check_settings("webdataset", image_size, n_channels, white_level)
    samples = [sample for shard in shards_of(path) for sample in _samples(shard)]
    if not samples:
        raise UserError(f"{path} holds no images", "samples such as 000.jpg and 000.cls", "correct the path")
    classes = [_class_of(sample, class_names) for sample in samples]
    labels, names = coded(classes)
    images = tuple(sample.images[0] for sample in samples)
    ids = unique_ids([f"{sample.shard.stem}/{sample.key}" for sample in samples])
    parts = [_part_of(sample.shard) for sample in samples]
    split = Split()
    if None not in parts:
        codes = np.array(parts, np.int64)
        split = given_split(codes, labels, names, use_split=use_split, where=path)
    digest = hashlib.sha256()
    for image_id, image, name in zip(ids, images, classes, strict=True):
        digest.update(f"{image_id}\0{image.size}\0{name}\n".encode("utf-8", "surrogateescape"))
    return dataset_of(
        Encoded(
            name="webdataset",
            labels=labels,
            class_names=names,
            image_ids=ids,
            identity={"source": "webdataset", "samples_sha256": digest.hexdigest()},
            open=partial(open_member, images),
            files=partial(list, sorted({sample.shard for sample in samples})),
            n_channels=n_channels,
            white_level=white_level,
            split=split,
        ),
        View(image_size=image_size),
    )


def shards_of(path: str) -> list[Path]:
    """Return the files that a pattern, a file or a folder stands for.

    Raises:
        UserError: One of them is missing.
    """
    texts = [path]
    while found := RANGE.search(texts[0]):
        first, last = found.groups()
        numbers = [f"{number:0{len(first)}d}" for number in range(int(first), int(last) + 1)]
        texts = [RANGE.sub(number, text, count=1) for text in texts for number in numbers]
    shards = []
    for text in texts:
        place = Path(text).expanduser().absolute()
        if "*" in place.name:
            shards += sorted(place.parent.glob(place.name))
        elif place.is_dir():
            shards += sorted(place.glob("*.tar")) or sorted(place.glob("*/*.tar"))
        else:
            shards.append(place)
    missing = [shard for shard in shards if not shard.is_file()]
    if missing or not shards:
        raise UserError(
            f"there is no shard {missing[0] if missing else path}",
            "tar files: a pattern such as train-{000000..000003}.tar, or a folder of them",
            "correct the path",
        )
    return shards


def is_shard(path: Path) -> bool:
    """Return whether a tar archive holds samples of WebDataset, by its first files."""
    found = [member.name for _, member in zip(range(8), members(path), strict=False)]
    return any(name.endswith((".cls", ".json")) for name in found)


def _samples(shard: Path) -> list[_Sample]:
    found: dict[str, _Sample] = {}
    for member in members(shard):
        folder, _, name = member.name.rpartition("/")
        stem, _, kind = name.partition(".")
        key = f"{folder}/{stem}" if folder else stem
        sample = found.setdefault(key, _Sample(shard=shard, key=key))
        if kind.lower() == "cls":
            sample.cls = member
        elif kind.lower() == "json":
            sample.json = member
        elif f".{kind.lower()}" in IMAGE_SUFFIXES:
            sample.images.append(member)
    samples = [sample for sample in found.values() if sample.images]
    for sample in samples:
        if len(sample.images) > 1:
            kinds = ", ".join(member.name for member in sample.images)
            raise UserError(
                f"{shard}: the sample {sample.key} has several images: {kinds}", "one image per sample", "leave one"
            )
    return samples


def _class_of(sample: _Sample, class_names: Sequence[str] | None) -> str:
    """Return the class of a sample from its `.cls` file, otherwise from its `.json` file."""
    name = None
    try:
        if sample.cls is not None:
            name = sample.cls.read().decode().strip()
        elif sample.json is not None:
            values = json.loads(sample.json.read())
            keys = [
                key for key in COLUMNS["label"] if isinstance(values, dict) and isinstance(values.get(key), str | int)
            ]
            name = str(values[keys[0]]) if keys else None
    except ValueError:
        name = None
    if not name:
        raise UserError(
            f"{sample.shard}: the sample {sample.key} has no class",
            "a file .cls with a number or a name, or .json with a key such as label or class",
            "write the classes into the shards",
        )
    if class_names is None:
        return name
    if not name.isdecimal() or int(name) >= len(class_names):
        raise UserError(
            f"{sample.shard}: {sample.key} is of class {name!r}, but there are {len(class_names)} class_names",
            f"numbers from 0 to {len(class_names) - 1}",
            "correct class_names",
        )
    return class_names[int(name)]


def _part_of(shard: Path) -> int | None:
    """Return the part of a split that a shard's name or folder tells."""
    word = re.split(r"[^a-z]", shard.stem.lower())[0]
    return PART_NAMES.get(word, PART_NAMES.get(shard.parent.name.lower()))
