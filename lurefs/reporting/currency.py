"""Check whether a page is up to date, by a digest of its sources at its end."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import fields
from functools import cache
from pathlib import Path

import episodes
import lurefs
from lurefs.comparing.finished_runs import Run
from lurefs.config.identity import digest

_TAIL = 200
"""Number of bytes at the end of a page that hold what `with_origin` adds."""


def made_from(runs: Sequence[Run]) -> str:
    """Return a digest of all that a page depends on: the content of the runs, and the code of the page.

    Per-episode results count by the figures over them and by the hash of their manifest.
    """
    names = [field.name for field in fields(Run) if field.name != "directory"]
    read = [[str(run.directory.path), *(getattr(run, name) for name in names)] for run in runs]
    return digest([_code(), read])


def with_origin(page: str, origin: str) -> str:
    """Return the page with the digest of its sources at its end."""
    return f"{page.rstrip()}\n{_mark(origin)}\n"


def is_current(path: Path, origin: str) -> bool:
    """Return whether a page and its figures exist and were made from these sources."""
    if not path.is_file() or not (path.parent / "figures").is_dir():
        return False
    return path.read_bytes()[-_TAIL:].decode("utf-8", errors="replace").endswith(f"{_mark(origin)}\n")


def _mark(origin: str) -> str:
    return f"<!-- made from {origin} -->"


@cache
def _code() -> str:
    """Return a digest of the version of lurefs and of the code of the page and of its numbers."""
    package = Path(lurefs.__file__).parent
    numbers = Path(episodes.__file__).parent
    paths = [*package.glob("reporting/**/*.*"), *package.glob("comparing/*.py"), *numbers.glob("**/*.py")]
    sources = [path.read_bytes() for path in sorted(paths) if "__pycache__" not in path.parts]
    return hashlib.sha256(b"\0".join([lurefs.__version__.encode(), *sources])).hexdigest()
