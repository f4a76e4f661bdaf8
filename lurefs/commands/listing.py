"""The command `lurefs list`: names and settings that a config can use."""

from __future__ import annotations

import argparse
import inspect
import re
from collections.abc import Iterator, Mapping
from typing import Any

from episodes import transforms
from lurefs import plugins
from lurefs.config.load import recipes_dir
from lurefs.config.schema import CORRUPTIONS
from lurefs.config.settings_page import settings_page

PLUGINS = {"datasets": "dataset", "unlearn": "unlearn", "probes": "probe"}
"""The kind of plug-in in each list."""
LISTS = ("backbones", *PLUGINS, "recipes", "transforms", "corruptions", "settings")


def add_parser(commands: Any) -> None:
    """Add the command `list` to an argument parser's commands."""
    text = "List names or settings."
    parser = commands.add_parser("list", help="names and settings that a config can use", description=text)
    parser.add_argument("kind", choices=LISTS)
    parser.add_argument("pattern", nargs="?", default="", help="only what contains this text")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print the matching names with one line about each, or the matching settings; return the exit code."""
    kind, pattern = arguments.kind, arguments.pattern
    if kind == "settings":
        found = list(_settings(pattern.casefold()))
    elif kind == "backbones":
        from lurefs.learning.timm_models import list_backbones

        found = list_backbones(pattern)
    else:
        entries = _entries(kind)
        width = max(map(len, entries))
        rows = [f"{name:{width}}  {words}" for name, words in entries.items()]
        found = [row for row in rows if pattern.casefold() in row.casefold()]
    print("\n".join(found) if found else f"no {kind} contain {pattern!r}")
    return 0


def _entries(kind: str) -> Mapping[str, str]:
    """Return the names of a list, each with one line about it."""
    if kind == "recipes":
        texts = {path.stem: path.read_text(encoding="utf-8") for path in sorted(recipes_dir().glob("*.yaml"))}
        return {name: " ".join(text.replace("#", "").split()).partition(". ")[0] for name, text in texts.items()}
    if kind == "transforms":
        short = {name: f"short for {chain}" for name, chain in transforms.SHORT.items()}
        return {transforms.NONE: "the features as they are", **transforms.STEPS, **short}
    if kind == "corruptions":
        return CORRUPTIONS
    factories = {name: plugins.resolve(PLUGINS[kind], name) for name in plugins.names(PLUGINS[kind])}
    docs = {name: inspect.cleandoc(factory.__doc__ or "") for name, factory in factories.items()}
    return {name: doc.partition("\n")[0].removeprefix("Return ").removesuffix(".") for name, doc in docs.items()}


def _settings(pattern: str) -> Iterator[str]:
    """Yield the parts of the settings page whose title has the pattern, and of other parts the rows and texts."""
    for part in re.split(r"\n#+ ", settings_page())[1:]:
        title, _, text = part.partition("\n")
        if pattern in title.casefold():
            yield part
            continue
        paragraphs = [block.splitlines() if block.startswith("|") else [block] for block in text.split("\n\n")]
        found = [piece.strip("\n") for pieces in paragraphs for piece in pieces if pattern in piece.casefold()]
        if found:
            yield "\n".join([title, *found, ""])
