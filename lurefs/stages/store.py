"""Files in the cache that all runs of a machine share: written whole or not at all, and damaged ones count as missing.

An entry holds files and a card with their checksums and its own, which is written last. One process writes an entry at
a time; others that have made the same leave it to that one. Decoded images change record by record and are stored
elsewhere (`lurefs.data.decoded`).
"""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from episodes.files import atomic_path, release_pages, write_text
from lurefs import cache, console, locks

_CARD, _WRITING = "card.json", ".writing"
_AT_ONCE = 2**22


class Output(Protocol):
    """Takes the bytes of a file."""

    def write(self, data: bytes, /) -> object:
        """Append bytes."""


def take(kind: str, key: str, names: Sequence[str]) -> tuple[list[NDArray[np.uint8]], dict[str, Any]] | None:
    """Return the bytes of an entry's files, mapped from the disk, and its notes; None if there are none.

    An entry that is damaged counts as missing, and a note on stderr says so. A cache of no size has none.

    Args:
        kind: The kind of the entry.
        key: See `cache.key_of`.
        names: The names of all its files.
    """
    if cache.bound() == 0:
        return None
    try:
        with cache.found(kind, key) as folder:
            if folder is None:
                return None
            try:
                text = (folder / _CARD).read_bytes()
            except FileNotFoundError:  # also while another process writes the entry again
                return None
            try:
                card = json.loads(text)
                files = [np.memmap(folder / name, np.uint8, mode="r") for name in names]
            except (OSError, ValueError):  # also an empty file, which cannot be mapped
                _note_damaged(folder)
                return None
    except OSError as error:
        _note_unusable(error)
        return None
    try:
        content, notes = card["content"], dict(card["content"]["notes"])
        is_right = card["crc32"] == _card_checksum(content) and content["crc32"] == dict(
            zip(names, map(_checksum, files), strict=True)
        )
    except (KeyError, TypeError, ValueError):
        is_right = False
    if not is_right:
        _note_damaged(folder)
        return None
    return list(files), notes


def give(
    kind: str,
    key: str,
    files: Mapping[str, Callable[[Output], object]],
    *,
    about: str,
    n_bytes: int,
    notes: Mapping[str, Any],
) -> None:
    """Store files for all runs of this machine, unless the cache cannot hold them.

    What an earlier process left unfinished in the entry is removed.

    Args:
        kind: The kind of the entry.
        key: See `cache.key_of`.
        files: By its name, what writes a file.
        about: What they hold, in words.
        n_bytes: Their size.
        notes: What is kept beside the files.
    """
    if cache.bound() == 0:
        return
    try:
        with cache.opened(kind, key, about=about, n_bytes=n_bytes) as (folder, in_use):
            pass
        try:
            with (folder / _WRITING).open("wb") as writing:
                locks.flock(writing, locks.LOCK_EX | locks.LOCK_NB)
                _write(folder, files, notes)
        except BlockingIOError:  # another process writes the same
            return
        finally:
            os.close(in_use)
    except cache.NoCacheError as error:
        console.note_once(f"{error}; {cache.WITHOUT}")
    except OSError as error:
        _note_unusable(error)


def _write(folder: Path, files: Mapping[str, Callable[[Output], object]], notes: Mapping[str, Any]) -> None:
    """Write the files of an entry that no other process writes."""
    for left in folder.glob(".*.partial*"):  # whoever wrote it has ended, since it no longer holds the lock
        left.unlink(missing_ok=True)
    (folder / _CARD).unlink(missing_ok=True)
    checksums = {}
    for name, write in files.items():
        with atomic_path(folder / name) as temporary, temporary.open("wb") as file:
            summed = _Summed(file)
            write(summed)
            checksums[name] = summed.checksum
    content = {"crc32": checksums, "notes": dict(notes)}
    write_text(folder / _CARD, json.dumps({"content": content, "crc32": _card_checksum(content)}))


class _Summed:
    """A file that is written from its beginning to its end, and the CRC-32 of its bytes."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.checksum = 0

    def write(self, data: bytes, /) -> object:
        self.checksum = zlib.crc32(data, self.checksum)
        return self._file.write(data)


def _checksum(content: NDArray[np.uint8]) -> int:
    checksum = 0
    for start in range(0, len(content), _AT_ONCE):
        checksum = zlib.crc32(content[start : start + _AT_ONCE].data, checksum)
    release_pages(content)
    return checksum


def _card_checksum(content: Any) -> int:
    return zlib.crc32(json.dumps(content, sort_keys=True).encode())


def _note_damaged(folder: Path) -> None:
    console.note_once(f"{folder} is damaged, or of another version: it is not used, but made again")


def _note_unusable(error: OSError) -> None:
    console.note_once(f"{cache.unusable(error)}; {cache.WITHOUT}")
