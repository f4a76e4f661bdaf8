"""Images that a reader of timm finds: its folders, and data sets of the hub."""

from __future__ import annotations

import hashlib
import io
from functools import partial
from pathlib import Path
from typing import IO, Any

from lurefs.data.dataset import ImageDataset, View
from lurefs.data.encoded import Encoded, check_settings, coded, dataset_of, unique_ids
from lurefs.errors import UserError, first_line


def timm(
    name: str,
    path: str,
    split: str = "train",
    image_size: int = 64,
    n_channels: int = 3,
    white_level: float | None = None,
) -> ImageDataset:
    """Return the images that a reader of timm finds; also written `timm:NAME`.

    The classes are those of timm: of a folder, each innermost folder is a class.

    Args:
        name: As timm's `--dataset`: `folder` or `hfds/NAME`. For tar archives see `archive` and `webdataset`.
        path: As timm's `--data-dir`.
        split: The split of `hfds/`; folders have none.
        image_size: Side length in pixels: the shorter side is resized, the centre cropped.
        n_channels: 1 (grey) or 3 (RGB).
        white_level: As for `folder`.

    Raises:
        UserError: timm cannot read it, or reads images in a stream only.
    """
    from timm.data.readers import create_reader

    check_settings("timm", image_size, n_channels, white_level)
    root = Path(path).expanduser().absolute()
    if not root.exists():
        raise UserError(f"timm:{name}: there is no {root}", "the folder that timm reads", "correct path")
    if name != "folder" and not name.startswith("hfds/"):
        raise UserError(
            f"timm:{name} names no reader that can read any image at any time",
            "folder or hfds/NAME",
            "use one of the two, or the data sets archive, webdataset, hf or torchvision",
        )
    try:
        reader = create_reader("" if name == "folder" else name, root=str(root), split=split)
        labels = _labels(reader)
        names = unique_ids([str(each) for each in reader.filenames()])
    except Exception as error:  # timm's readers raise many kinds
        raise UserError(
            f"timm:{name} cannot read {root}: {first_line(error)}",
            "images that the reader finds",
            "correct name and path, or use the data sets folder or hf",
        ) from error
    known = {index: str(each) for each, index in (getattr(reader, "class_to_idx", None) or {}).items()}
    texts = [known.get(label, str(label)) for label in labels]
    rows, class_names = coded(texts)
    digest = hashlib.sha256("\n".join(f"{a}\0{b}" for a, b in zip(names, texts, strict=True)).encode())
    return dataset_of(
        Encoded(
            name="timm",
            labels=rows,
            class_names=class_names,
            image_ids=names,
            identity={"source": f"timm:{name}", "split": split, "names_sha256": digest.hexdigest()},
            open=partial(_open, reader, names),
            files=partial(_files, reader),
            n_channels=n_channels,
            white_level=white_level,
        ),
        View(image_size=image_size),
    )


def _open(reader: Any, names: tuple[str, ...], row: int) -> tuple[IO[bytes], str]:
    with reader[row][0] as file:
        return io.BytesIO(file.read()), names[row]


def _files(reader: Any) -> list[Path]:
    """Return the files that hold the images."""
    if hasattr(reader, "samples"):
        return [Path(path) for path, _ in reader.samples]
    return [Path(entry["filename"]) for entry in reader.dataset.cache_files]


def _labels(reader: Any) -> list[int]:
    """Return the label of each image, without opening it."""
    if hasattr(reader, "samples"):
        return [label for _, label in reader.samples]
    return [int(label) for label in reader.dataset[reader.label_key]]
