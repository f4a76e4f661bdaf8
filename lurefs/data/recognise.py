"""Which data set a path or a name on the command line stands for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lurefs import plugins
from lurefs.data.pixels import printable
from lurefs.data.table import TABLES, is_folder_of_tables
from lurefs.errors import UserError

FORMS = "a folder with one sub-folder per class, an .npz file, a table (.csv, .tsv, .parquet)"


def recognise(data: str) -> tuple[str, dict[str, Any]]:
    """Return the plug-in and the parameters of the data that a user names, without reading images.

    Raises:
        UserError: There is no such data.
    """
    if data != data.encode("utf-8", "replace").decode():
        raise UserError(f"the path {printable(data)} is no text in UTF-8", "a path that a recipe can hold", "rename it")
    path = Path(data).expanduser()
    params = {"path": str(path.resolve())}
    if path.is_dir():
        return ("table" if is_folder_of_tables(path) else "folder"), params
    if path.is_file():
        return ("table" if path.suffix.lower() in TABLES else "npz"), params
    if data in plugins.names("dataset"):
        return data, {}
    raise UserError(
        f"there is no folder or file {data}, and no data set of that name",
        f"{FORMS}, or one of {', '.join(plugins.names('dataset'))}",
        "correct the path, or give a recipe with --config",
    )
