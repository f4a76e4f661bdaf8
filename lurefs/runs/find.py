"""Search for run directories by path, folder of runs, pattern or name."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from lurefs.errors import UserError, nearest

ROOT = Path("runs")
"""Folder where `lurefs run` puts its results and where names are searched."""


def find_runs(names: Sequence[str | Path], *, root: Path | str = ROOT) -> list[Path]:
    """Return the directories of runs, each once, in the order in which they are named.

    Args:
        names: Each is a run directory, a folder with runs at any depth, a pattern such as `runs/*-seed?`, or the name
            of a run or folder below `root` or beside another of the given directories.
        root: First folder in which names are searched.

    Raises:
        UserError: A name leads to no run, or the name of a run to several.
    """
    places = [Path(root), *dict.fromkeys(Path(name).parent for name in names if Path(name).is_dir())]
    found = [path for name in names for path in _resolve(str(name), places)]
    return list({path.resolve(): path for path in found}.values())


def runs_below(folder: Path | str, *, above: tuple[Path, ...] = ()) -> Iterator[Path]:
    """Yield the run directories at or below a folder, in the order of their names.

    Args:
        folder: Where to look; hidden folders are skipped, and links are followed.
        above: Folders on the way here; links back to them are not followed.
    """
    folder = Path(folder)
    if (folder / "config.yaml").is_file():
        yield folder
        return
    if (place := folder.resolve()) in above:
        return
    children = sorted(name for name in os.listdir(folder) if os.path.isdir(folder / name) and not name.startswith("."))
    for name in children:
        yield from runs_below(folder / name, above=(*above, place))


def _resolve(name: str, places: Sequence[Path]) -> list[Path]:
    path = Path(name)
    if path.is_dir():
        found = list(runs_below(path))
    elif glob.has_magic(name):
        matches = [Path(match) for match in sorted(glob.glob(name, recursive=True))]
        found = [run for match in matches if match.is_dir() for run in runs_below(match)]
    else:
        return _named(name, places)
    if not found:
        raise UserError(
            f"{name} holds no run", "a directory that 'lurefs run' made, or a folder of them", "check the path"
        )
    return found


def _named(name: str, places: Sequence[Path]) -> list[Path]:
    """Return the runs with a name: those directly below a place, otherwise the only run of that name at any depth."""
    for place in places:
        if (place / name).is_dir() and (found := list(runs_below(place / name))):
            return found
    known = list(dict.fromkeys(run for place in places if place.is_dir() for run in runs_below(place)))
    matches = [run for run in known if run.parts[-len(Path(name).parts) :] == Path(name).parts]
    if len(matches) > 1:
        raise UserError(
            f"{name!r} is the name of {len(matches)} runs: {', '.join(map(str, matches))}",
            "the name of a single run",
            "give the path of that run",
        )
    if not matches:
        searched = ", ".join(str(place) for place in places)
        guess = nearest(name, [run.name for run in known])
        raise UserError(
            f"{name} is no directory, and no run below {searched} has that name",
            "a run directory, a folder of runs, a pattern in quotation marks, or the name of a run",
            f"did you mean {guess!r}?" if guess else "check the path",
        )
    return matches
