"""The cache folder of this machine: what runs share and can make again, in entries of a bounded total size.

An entry is a folder `<kind>/<key>`, whose key is a digest of all that its content depends on. Entries are opened, made
and removed under one lock. A process that uses an entry holds a shared lock on it, and entries in use are not removed.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lurefs import locks
from lurefs.errors import UserError

PLACE, BOUND = "LUREFS_CACHE", "LUREFS_CACHE_GB"
"""Environment variables: the folder, and the most that it may hold, in GB."""
DEFAULT_GB = 20.0
_CARD = "entry.json"
"""Says what an entry is; it is written at every use, and carries the lock of the processes that use the entry."""


WITHOUT = "images are decoded, and features and controls computed, whenever they are used"
"""What a run does without the cache."""


class NoCacheError(Exception):
    """An entry cannot be made or used; the text says why."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One entry of the cache.

    Attributes:
        path: Its folder.
        about: What it holds, in words.
        n_bytes: Its size on the disk.
        used: When it was last used, in seconds since 1970.
    """

    path: Path
    about: str
    n_bytes: int
    used: float

    @property
    def kind(self) -> str:
        """What kind of thing it holds."""
        return self.path.parent.name


def cache_dir() -> Path:
    """Return the cache folder: `$LUREFS_CACHE`, otherwise `lurefs` in the user's cache folder; it need not exist."""
    if os.environ.get(PLACE):
        return Path(os.environ[PLACE]).expanduser().absolute()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser().absolute() / "lurefs"


def bound() -> int:
    """Return the most that the cache may hold, in bytes.

    Raises:
        UserError: `$LUREFS_CACHE_GB` is not a positive number or zero.
    """
    text = os.environ.get(BOUND) or str(DEFAULT_GB)
    try:
        n_gb = float(text)
    except ValueError:
        n_gb = -1.0
    if not 0 <= n_gb < float("inf"):
        raise UserError(f"{BOUND} is {text!r}", "a number of GB, 0 or more", f"set it to e.g. {DEFAULT_GB:g}")
    return int(n_gb * 1e9)


def key_of(content: Any) -> str:
    """Return the key of an entry: a digest of a JSON-serialisable description of all that it depends on."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


@contextmanager
def opened(kind: str, key: str, *, about: str, n_bytes: int) -> Iterator[tuple[Path, int]]:
    """Yield the folder of an entry, made if it is missing, and a file descriptor whose closing ends its use.

    Other processes wait while the block runs, so it should only open files. The entries that were not used for the
    longest time are removed if the cache would become too large.

    Args:
        kind: The kind of the entry.
        key: See `key_of`.
        about: What it holds, in words.
        n_bytes: Its size when it is complete.

    Raises:
        NoCacheError: The folder cannot be written, or the entry would be too large.
    """
    path = cache_dir() / kind / key
    try:
        with _locked():
            _make_room(path, about, n_bytes)
            path.mkdir(parents=True, exist_ok=True)
            in_use = os.open(path / _CARD, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o666)
            try:
                os.write(in_use, json.dumps({"about": about}).encode())
                locks.flock(in_use, locks.LOCK_SH)
                yield path, in_use
            except BaseException:
                os.close(in_use)
                raise
    except OSError as error:
        raise NoCacheError(unusable(error)) from error


def unusable(error: OSError) -> str:
    """Return what is said of the cache folder if an error of the file system says that it cannot be used."""
    return f"the cache folder {cache_dir()} cannot be used: {error.strerror or error}"


def problem() -> str:
    """Return why no entry can be made in the cache folder; empty if nothing is known against it."""
    try:
        with _locked():
            return ""
    except OSError as error:
        return unusable(error)


@contextmanager
def found(kind: str, key: str) -> Iterator[Path | None]:
    """Yield the folder of an entry, or None if there is none; it is not removed while the block runs.

    Other processes wait meanwhile, so the block should only open files.

    Raises:
        OSError: The folder cannot be used.
    """
    card = cache_dir() / kind / key / _CARD
    if not card.is_file():
        yield None
        return
    with _locked():
        if card.is_file():
            os.utime(card)
        yield card.parent if card.is_file() else None


def entries() -> list[Entry]:
    """Return all entries, those that were used last first."""
    found = []
    for card in cache_dir().glob(f"*/*/{_CARD}"):
        try:
            files = [file.stat() for file in card.parent.iterdir()]
            about, used = json.loads(card.read_bytes())["about"], card.stat().st_mtime
        except FileNotFoundError:  # another process has removed it
            continue
        except (ValueError, TypeError, KeyError):
            about, used = "a damaged entry", card.stat().st_mtime
        n_bytes = sum(512 * file.st_blocks for file in files)
        found.append(Entry(path=card.parent, about=str(about), n_bytes=n_bytes, used=used))
    return sorted(found, key=lambda entry: entry.used, reverse=True)


def clear(kind: str | None = None) -> tuple[list[Entry], list[Entry]]:
    """Remove all entries of a kind that no process uses; return the removed ones and those that are in use.

    Args:
        kind: The kind; None for all.

    Raises:
        UserError: The folder cannot be changed.
    """
    if not cache_dir().is_dir():
        return [], []
    removed: list[Entry] = []
    kept: list[Entry] = []
    try:
        with _locked():
            for entry in entries():
                if kind not in (None, entry.kind):
                    continue
                (removed if _remove(entry) else kept).append(entry)
    except OSError as error:
        raise UserError(
            f"the cache folder {cache_dir()} cannot be changed: {error.strerror or error}",
            "a folder that you may write",
            f"delete it yourself, or point {PLACE} at another folder",
        ) from error
    return removed, kept


@contextmanager
def _locked() -> Iterator[None]:
    cache_dir().mkdir(parents=True, exist_ok=True)
    with (cache_dir() / ".lock").open("wb") as handle:
        locks.flock(handle, locks.LOCK_EX)
        yield


def _make_room(path: Path, about: str, n_bytes: int) -> None:
    """Remove the oldest other entries that are not in use until this one fits."""
    most = bound()
    others = [entry for entry in entries() if entry.path != path]
    n_others = sum(entry.n_bytes for entry in others)
    while others and n_bytes <= most < n_bytes + n_others:
        entry = others.pop()
        n_others -= entry.n_bytes if _remove(entry) else 0
    if n_bytes + n_others > most:
        of_others = f" beside {n_others / 1e9:.3g} GB in use" if n_others else ""
        raise NoCacheError(
            f"{about} take {n_bytes / 1e9:.3g} GB{of_others}; the cache may hold {most / 1e9:g} ({BOUND})"
        )


def _remove(entry: Entry) -> bool:
    """Remove an entry unless a process uses it; return whether it is gone."""
    with (entry.path / _CARD).open("rb") as card:
        try:
            locks.flock(card, locks.LOCK_EX | locks.LOCK_NB)
        except BlockingIOError:
            return False
        shutil.rmtree(entry.path)
    return True
