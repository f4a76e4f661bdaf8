"""Which data set a path or a name on the command line stands for."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any
from zipfile import is_zipfile

from lurefs import plugins
from lurefs.data.arrow import is_arrow
from lurefs.data.features_file import holds_features
from lurefs.data.few_shot_set import set_in
from lurefs.data.idx import images_in
from lurefs.data.pixels import printable
from lurefs.data.table import TABLES, is_folder_of_tables
from lurefs.data.webdataset import is_shard
from lurefs.errors import UserError

FORMS = (
    "a folder with one sub-folder per class, a table (.csv, .tsv, .parquet), an archive (.tar, .zip), shards "
    "(train-{000..003}.tar), Arrow, idx or .npz files, or features (.npz, .npy, .parquet)"
)


def recognise(data: str) -> tuple[str, dict[str, Any]]:
    """Return the plug-in and the parameters of the data that a user names, without reading images.

    Raises:
        UserError: There is no such data.
    """
    if data != data.encode("utf-8", "replace").decode():
        raise UserError(f"the path {printable(data)} is no text in UTF-8", "a path that a recipe can hold", "rename it")
    path = Path(os.path.expanduser(data))
    params = {"path": os.path.realpath(path)}
    if path.is_dir():
        if (known := set_in(path)) is not None:
            return "learn2learn", {"name": known, **params}
        return _form_of_folder(path), params
    if path.is_file():
        return _form_of_file(path), params
    if path.suffix == ".tar" and ("{" in path.name or "*" in path.name):
        return "webdataset", params
    if data in plugins.names("dataset") or data.partition(":")[0] in plugins.NAMED["dataset"]:
        return data, {}
    raise UserError(
        f"there is no folder or file {data}, and no data set of that name",
        f"{FORMS}, or one of {', '.join(plugins.names('dataset'))}",
        "correct the path, write e.g. torchvision:CIFAR10 or hf:NAME, or give a recipe with --config",
    )


def _form_of_folder(path: Path) -> str:
    if is_arrow(path):
        return "arrow"
    if images_in(path):
        return "idx"
    if is_folder_of_tables(path):
        return "table"
    entries = [entry for entry in path.iterdir() if not entry.name.startswith(".")]
    if any(entry.suffix == ".tar" for entry in entries) and not any(entry.is_dir() for entry in entries):
        return "webdataset"
    return "folder"


def _form_of_file(path: Path) -> str:
    ending = path.suffix.lower()
    if is_arrow(path):
        return "arrow"
    if holds_features(path):
        return "features"
    if ending in TABLES:
        return "table"
    if images_in(path):
        return "idx"
    if ending == ".tar":
        return "webdataset" if is_shard(path) else "archive"
    if ending in (".zip", ".gz", ".tgz", ".bz2", ".xz"):
        return "archive"
    if ending == ".npz" or is_zipfile(path):
        return "npz"
    raise UserError(
        f"{path} is a file of no form that is recognised", FORMS, "name its form, e.g. with dataset.name=idx"
    )
