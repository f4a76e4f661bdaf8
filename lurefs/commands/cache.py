"""The command `lurefs cache`: what the cache folder of this machine holds, and its removal."""

from __future__ import annotations

import argparse
from datetime import datetime
from typing import Any

from lurefs import cache, console

ALL = "all"
KINDS = ("images", "features", "controls", ALL)


def add_parser(commands: Any) -> None:
    """Add the command `cache` to an argument parser's commands."""
    words = "what this machine keeps for all runs: decoded images, features, scores of controls"
    text = (
        f"List what the runs of this machine share and can make again. {cache.PLACE} names the folder, "
        f"{cache.BOUND} the most that it may hold (default: {cache.DEFAULT_GB:g} GB); what was not used for the "
        "longest time goes first."
    )
    parser = commands.add_parser("cache", help=words, description=text)
    parser.add_argument("--clear", nargs="?", const=ALL, choices=KINDS, help="remove what no process uses now")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print the entries of the cache, or remove them; return the exit code.

    Raises:
        UserError: The folder cannot be changed.
    """
    if arguments.clear:
        removed, kept = cache.clear(None if arguments.clear == ALL else arguments.clear)
        in_use = f"; {_size(kept)} in use stay" if kept else ""
        print(f"removed {_size(removed)} from {cache.cache_dir()}{in_use}")
        return 0
    entries = cache.entries()
    if entries:
        rows = [
            (
                f"{entry.kind}: {entry.about}",
                _megabytes(entry.n_bytes),
                datetime.fromtimestamp(entry.used).strftime("%Y-%m-%d %H:%M"),
            )
            for entry in entries
        ]
        console.print_table("Kept for all runs of this machine", ("what", "size", "last use"), rows)
    for kind in sorted({entry.kind for entry in entries}):
        print(f"{kind}: {_size([entry for entry in entries if entry.kind == kind])}")
    print(f"{_size(entries)} of at most {cache.bound() / 1e9:g} GB in {cache.cache_dir()}")
    return 0


def _size(entries: list[cache.Entry]) -> str:
    return f"{len(entries)} entr{'y' if len(entries) == 1 else 'ies'}, {_megabytes(sum(e.n_bytes for e in entries))}"


def _megabytes(n_bytes: int) -> str:
    return f"{n_bytes / 1e6:,.1f} MB"
