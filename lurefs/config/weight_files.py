"""Digests of the files that a backbone's weights come from."""

from __future__ import annotations

import errno
import hashlib
import stat
from dataclasses import replace
from functools import cache
from pathlib import Path

from lurefs.config.learning_schema import BackboneConfig
from lurefs.errors import UserError

LOCAL_DIR = "local-dir:"
"""What timm's names of models in a local folder start with; the folder follows."""
ENDINGS = (".safetensors", ".bin", ".pth", ".pt", ".pkl")
"""Of the files that timm takes weights from in such a folder."""


def with_digest(backbone: BackboneConfig) -> BackboneConfig:
    """Note down the SHA-256 of the file or folder that weights come from, where the config does not state it.

    Raises:
        UserError: There is no such file or folder.
    """
    if backbone.checkpoint_sha256 is not None:
        return backbone
    if backbone.checkpoint_path is not None:
        where, path = "backbone.checkpoint_path", Path(backbone.checkpoint_path)
        expected = "a file of weights"
    elif backbone.name.startswith(LOCAL_DIR):
        where, path = "the folder of backbone.name", Path(backbone.name.removeprefix(LOCAL_DIR))
        expected = "a folder as timm saves one, with config.json and a file of weights"
    else:
        return backbone
    try:
        sha256 = file_sha256(path) if backbone.checkpoint_path is not None else folder_sha256(path, backbone.pretrained)
    except OSError as error:
        raise UserError(
            f"{where} {path} cannot be read: {error.strerror or error}",
            f"{expected}; a relative path starts at the config's folder, or on the command line where you are",
            "correct the path",
        ) from error
    return replace(backbone, checkpoint_sha256=sha256)


def folder_sha256(folder: Path, is_loaded: bool) -> str:
    """Return the digest of a model's folder: of its config.json and, if they are loaded, its files of weights.

    Raises:
        OSError: A file cannot be read.
    """
    weights = sorted(path for path in folder.iterdir() if path.suffix in ENDINGS) if is_loaded else []
    lines = [f"{path.name} {file_sha256(path)}\n" for path in (folder / "config.json", *weights)]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def file_sha256(path: Path) -> str:
    """Return the digest of a file, computed once as long as its size and time of change stay.

    Raises:
        OSError: It cannot be read.
    """
    state = path.stat()
    if not stat.S_ISREG(state.st_mode):  # reading a pipe or a device might not end
        raise OSError(errno.EINVAL, "it is not a file")
    return _file_sha256(str(path), state.st_size, state.st_mtime_ns)


def identity_name(backbone: BackboneConfig) -> str:
    """Return the name of a backbone for identities: without a folder, since the digest of its bytes identifies it."""
    is_known = backbone.checkpoint_path is None and backbone.checkpoint_sha256 is not None
    return LOCAL_DIR if is_known and backbone.name.startswith(LOCAL_DIR) else backbone.name


@cache
def _file_sha256(path: str, size: int, modified: int) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
