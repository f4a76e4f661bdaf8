"""The command `lurefs list`: names and settings that a config can use."""

from __future__ import annotations

import argparse
from typing import Any

from lurefs import plugins

LISTS = {"datasets": "dataset", "unlearn": "unlearn", "probes": "probe"}
"""The kind of plug-in in each list."""


def add_parser(commands: Any) -> None:
    """Add the command `list` to an argument parser's commands."""
    text = "List names or settings."
    parser = commands.add_parser("list", help="names and settings that a config can use", description=text)
    parser.add_argument("kind", choices=["backbones", *LISTS, "settings"])
    parser.add_argument("pattern", nargs="?", default="", help="only names that contain this text")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print the matching names, or parts of the settings page; return the exit code."""
    kind, pattern = arguments.kind, arguments.pattern
    if kind == "settings":
        from lurefs.config.settings_page import settings_page

        found = [part for part in settings_page().split("\n## ")[1:] if pattern in part.splitlines()[0]]
    elif kind == "backbones":
        from lurefs.learning.backbones import list_backbones

        found = list_backbones(pattern)
    else:
        found = [name for name in plugins.names(LISTS[kind]) if pattern in name]
    print("\n".join(found) if found else f"no {kind} contain {pattern!r}")
    return 0
