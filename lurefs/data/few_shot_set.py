"""The few-shot data sets of learn2learn, from the files that it leaves, with their usual splits of the classes."""

from __future__ import annotations

import hashlib
import io
import pickle
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from lurefs.data.dataset import PARTS, ImageDataset, View
from lurefs.data.encoded import PART_NAMES, Encoded, check_settings, coded, dataset_of, given_split, unique_ids
from lurefs.data.layouts import is_image
from lurefs.errors import UserError, first_line, unknown_name

if TYPE_CHECKING:
    from PIL import Image

Found = Iterator[tuple[str, str, str, "Path | tuple[Path, str, int]"]]
"""For each image its part, its class, its name, and a file; or a file of arrays, the key of the images and the row."""


def learn2learn(
    name: str,
    path: str,
    image_size: int = 64,
    n_channels: int = 3,
    use_split: bool = True,
    white_level: float | None = None,
) -> ImageDataset:
    """Return a few-shot data set with its usual split of the classes, e.g. MiniImagenet; also `learn2learn:NAME`.

    Args:
        name: The name in `learn2learn.vision.datasets`: MiniImagenet, TieredImagenet, CIFARFS, FC100, FullOmniglot,
            CUBirds200, FGVCAircraft, VGGFlower102 or DescribableTextures.
        path: The folder that learn2learn calls `root`, or the folder of the files.
        image_size: Side length in pixels: the shorter side is resized, the centre cropped.
        n_channels: 1 (grey) or 3 (RGB).
        use_split: Whether the usual base, validation and novel classes are used, see `docs/data.md`.
        white_level: As for `folder`.

    Raises:
        UserError: There is no such data set, or files are missing or damaged.
    """
    check_settings("learn2learn", image_size, n_channels, white_level)
    if name not in READERS:
        raise unknown_name("data set of learn2learn", name, READERS)
    found = sorted(READERS[name](Path(path).expanduser().absolute()), key=lambda each: (each[1], each[2]))
    if not found:
        raise UserError(f"learn2learn:{name}: {path} holds no images", "the files of the data set", "correct path")
    labels, class_names = coded([each[1] for each in found])
    codes = np.array([PART_NAMES[each[0]] for each in found], np.int64)
    ids = unique_ids([each[2] for each in found])
    places = tuple(each[3] for each in found)
    digest = hashlib.sha256("\n".join(f"{a}\0{b[1]}" for a, b in zip(ids, found, strict=True)).encode())
    for file in sorted({place[0] for place in places if isinstance(place, tuple)}):
        digest.update(f"{file.name}\0{file.stat().st_size}\n".encode())
    where = f"learn2learn:{name}"
    files = list(dict.fromkeys(place if isinstance(place, Path) else place[0] for place in places))
    return dataset_of(
        Encoded(
            name="learn2learn",
            labels=labels,
            class_names=class_names,
            image_ids=ids,
            identity={"source": where, "files_sha256": digest.hexdigest()},
            open=partial(_open, places),
            files=partial(list, files),
            n_channels=n_channels,
            white_level=white_level,
            split=given_split(codes, labels, class_names, use_split=use_split, where=where),
        ),
        View(image_size=image_size),
    )


def set_in(path: Path) -> str | None:
    """Return the name of the data set whose files lie in a folder, if they can be told by their names."""
    known = {
        "MiniImagenet": "mini-imagenet-cache-*.pkl",
        "TieredImagenet": "*_images_png.pkl",
        "FC100": "FC100_*.pickle",
    }
    return next((name for name, pattern in known.items() if next(path.glob(pattern), None)), None)


def _mini_imagenet(root: Path) -> Found:
    """Read pickles of `image_data` and `class_dict`, as of Ren et al. and of learn2learn."""
    for part in PARTS:
        texts = ("validation", "val") if part == "val" else (part,)
        file = _existing([root / f"mini-imagenet-cache-{text}.pkl" for text in texts], root)
        for class_name, rows in _content(file, "class_dict").items():
            for row in rows:
                yield part, str(class_name), f"{class_name}/{int(row):05d}", (file, "image_data", int(row))


def _tiered_imagenet(root: Path) -> Found:
    for part in PARTS:
        folders = (root / "tiered-imagenet", root)
        file = _existing([folder / f"{part}_images_png.pkl" for folder in folders], root)
        labels = file.with_name(f"{part}_labels.pkl")
        names = _content(_existing([labels], root), None).get("label_specific_str") or ()
        for row, label in enumerate(np.asarray(_content(labels, "label_specific")).tolist()):
            class_name = str(names[label]) if label < len(names) else f"{part}-{label:03d}"
            yield part, class_name, f"{part}/{row:06d}", (file, "", row)


def _fc100(root: Path) -> Found:
    for part in PARTS:
        file = _existing([root / f"FC100_{part}.pickle"], root)
        for row, label in enumerate(np.asarray(_content(file, "labels")).tolist()):
            yield part, f"{part}-{label:02d}", f"{part}/{row:05d}", (file, "data", row)


def _cifar_fs(root: Path) -> Found:
    base = _existing([root / "cifarfs" / "cifar100", root / "cifar100", root], root, "data")
    for part in PARTS:
        file = _existing([base / "splits" / "bertinetto" / f"{part}.txt"], root)
        for class_name in file.read_text(encoding="utf-8").split():
            yield from _of_class(part, base / "data" / class_name, class_name)


def _omniglot(root: Path) -> Found:
    """Read the background and evaluation sets of characters, which share no alphabet."""
    base = _existing([root / "omniglot-py", root], root, "images_background")
    for part, folder in (("train", "images_background"), ("test", "images_evaluation")):
        for character in sorted(_existing([base / folder], root).glob("*/*")):
            yield from _of_class(part, character, f"{character.parent.name}/{character.name}")


def _birds(root: Path) -> Found:
    """Read the birds, as learn2learn does without images that ImageNet has, too."""
    from learn2learn.vision.datasets import cu_birds200

    base = _existing([root / "cubirds200" / "CUB_200_2011", root / "CUB_200_2011", root], root, "images") / "images"
    duplicates = {name for names in cu_birds200.IMAGENET_DUPLICATES.values() for name in names}
    for class_name, part in _part_of(cu_birds200.SPLITS).items():
        for found in _of_class(part, base / class_name, class_name):
            if found[2].rpartition("/")[2] not in duplicates:
                yield found


def _textures(root: Path) -> Found:
    from learn2learn.vision.datasets import describable_textures

    base = _existing([root / "describable_textures" / "dtd", root / "dtd", root], root, "images") / "images"
    for class_name, part in _part_of(describable_textures.SPLITS).items():
        yield from _of_class(part, base / class_name, class_name)


def _aircraft(root: Path) -> Found:
    from learn2learn.vision.datasets import fgvc_aircraft

    below = Path("fgvc-aircraft-2013b", "data")
    base = _existing([root / "fgvc_aircraft" / below, root / below, root], root, "images")
    part_of = _part_of(fgvc_aircraft.SPLITS)
    for text in PARTS:
        file = _existing([base / f"images_variant_{text}.txt"], root)
        for line in file.read_text(encoding="utf-8").splitlines():
            image, _, class_name = line.partition(" ")
            yield _known(part_of, class_name.strip(), file), class_name.strip(), image, base / "images" / f"{image}.jpg"


def _flowers(root: Path) -> Found:
    from learn2learn.vision.datasets import vgg_flowers
    from scipy.io import loadmat

    base = _existing([root / "vgg_flower102", root], root, "jpg")
    part_of = _part_of(vgg_flowers.SPLITS)
    file = _existing([base / "imagelabels.mat"], root)
    for number, label in enumerate(loadmat(file)["labels"][0].tolist(), start=1):
        name = f"image_{number:05d}.jpg"
        yield _known(part_of, label, file), f"{label:03d}", name, base / "jpg" / name


READERS: Mapping[str, Callable[[Path], Found]] = {
    "MiniImagenet": _mini_imagenet,
    "TieredImagenet": _tiered_imagenet,
    "CIFARFS": _cifar_fs,
    "FC100": _fc100,
    "FullOmniglot": _omniglot,
    "CUBirds200": _birds,
    "FGVCAircraft": _aircraft,
    "VGGFlower102": _flowers,
    "DescribableTextures": _textures,
}


def _part_of(splits: Mapping[str, Sequence[Any]]) -> dict[Any, str]:
    """Return the part of each class in a split of learn2learn."""
    return {name: PARTS[PART_NAMES[text]] for text, names in splits.items() if text in PART_NAMES for name in names}


def _known(part_of: Mapping[Any, str], name: Any, file: Path) -> str:
    if name not in part_of:
        raise UserError(f"{file} has the class {name!r}", "a class of the data set", "get the file again")
    return part_of[name]


def _of_class(part: str, folder: Path, class_name: str) -> Found:
    for file in sorted(_existing([folder], folder.parent).iterdir()):
        if is_image(file.name):
            yield part, class_name, f"{class_name}/{file.name}", file


def _existing(paths: Sequence[Path], root: Path, inner: str = "") -> Path:
    """Return the first path that exists, with `inner` in it.

    Raises:
        UserError: None does.
    """
    for path in paths:
        if (path / inner if inner else path).exists():
            return path
    missing = " or ".join(str(path / inner if inner else path) for path in paths)
    raise UserError(
        f"a part of the data set is missing below {root}",
        f"{missing}, as learn2learn stores it",
        "set path to the folder that learn2learn calls root, or download the data set there",
    )


def _open(places: Sequence[Path | tuple[Path, str, int]], row: int) -> tuple[Path | IO[bytes] | Image.Image, str]:
    from PIL import Image

    place = places[row]
    if isinstance(place, Path):
        return place, str(place)
    file, key, at = place
    value = _content(file, key or None)[at]
    name = f"{file}, image {at}"
    if isinstance(value, bytes) or np.ndim(value) != 3:
        return io.BytesIO(value if isinstance(value, bytes) else np.asarray(value, np.uint8).tobytes()), name
    return Image.fromarray(np.asarray(value, np.uint8)), name


def _content(file: Path, key: str | None) -> Any:
    """Return the content of a pickle, or one entry of it."""
    content = _load(file, file.stat().st_mtime_ns)
    if key is None:
        return content
    if not isinstance(content, dict) or key not in content:
        raise UserError(f"{file} has no {key!r}", "the file as it is handed on", "download it again")
    return content[key]


@lru_cache(maxsize=3)
def _load(file: Path, modified: int) -> Any:
    """Load a pickle of arrays, lists and texts; nothing else in it is built, so that no code of it is run."""
    try:
        with file.open("rb") as stream:
            return _Arrays(stream, encoding="latin1").load()
    except MemoryError:
        raise
    except Exception as error:  # a damaged file raises errors of many kinds
        raise UserError(
            f"{file} cannot be read: {first_line(error)}",
            "a pickle of arrays, lists and texts",
            "download it again; nothing else is loaded, since a pickle can run any code",
        ) from error


class _Arrays(pickle.Unpickler):
    """Reader of pickles that hold arrays, lists, texts and numbers only."""

    def find_class(self, module: str, name: str) -> Any:
        """Return a part of numpy that arrays are rebuilt with; refuse anything else."""
        if (module, name) == ("_codecs", "encode"):
            return super().find_class(module, name)
        module = module.replace("numpy._core", "numpy.core")
        if module in ("numpy", "numpy.core.multiarray", "numpy.core.numeric") and name in (
            "_reconstruct",
            "ndarray",
            "dtype",
            "scalar",
            "_frombuffer",
        ):
            return super().find_class(module.replace("numpy.core", "numpy._core"), name)
        raise pickle.UnpicklingError(f"it holds a {module}.{name}")
