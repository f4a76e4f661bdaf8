"""Check whether a page is up to date, by a digest of its sources at its end."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import fields
from functools import cache
from pathlib import Path

import episodes
import lurefs
from lurefs.comparing.finished_runs import Run
from lurefs.config.identity import digest


def made_from(runs: Sequence[Run]) -> str:
    """Return a digest of all that a page depends on: the content of the runs, and the code of the page.

    Per-episode results count by the figures over them and by the hash of their manifest.
    """
    names = [field.name for field in fields(Run) if field.name != "directory"]
    read = [[str(run.directory.path), *(getattr(run, name) for name in names)] for run in runs]
    return digest([_code(), read])


def with_origin(page: str, origin: str, figures: Iterable[str]) -> str:
    """Return the page with the digest of its sources, and the names of its figures' files, at its end."""
    names = json.dumps(sorted(figures)).replace(">", "\\u003e")  # no name ends the comment
    return f"{page.rstrip()}\n<!-- made from {origin} with {names} -->\n"


def is_current(path: Path, origin: str) -> bool:
    """Return whether a page and all of its figures exist and were made from these sources."""
    if not path.is_file():
        return False
    last = path.read_bytes().rpartition(b"\n<!-- ")[2].decode("utf-8", errors="replace")
    found = re.fullmatch(r"made from (\w+) with (\[.*\]) -->\n", last)
    if found is None or found[1] != origin:
        return False
    try:
        return all((path.parent / "figures" / name).is_file() for name in json.loads(found[2]))
    except (ValueError, TypeError):  # somebody changed the names
        return False


@cache
def _code() -> str:
    """Return a digest of the version of lurefs and of the code of the page and of its numbers."""
    package = Path(lurefs.__file__).parent
    numbers = Path(episodes.__file__).parent
    paths = [*package.glob("reporting/**/*.*"), *package.glob("comparing/*.py"), *numbers.glob("**/*.py")]
    sources = [path.read_bytes() for path in sorted(paths) if "__pycache__" not in path.parts]
    return hashlib.sha256(b"\0".join([lurefs.__version__.encode(), *sources])).hexdigest()
