"""The command `lurefs list`: names and settings that a config can use."""

from __future__ import annotations

from lurefs import plugins

LISTS = {"datasets": "dataset", "unlearn": "unlearn", "probes": "probe"}


def _list(kind: str, pattern: str) -> None:
    if kind == "settings":
        from lurefs.config.settings_page import settings_page

        found = [part for part in settings_page().split("\n## ")[1:] if pattern in part.splitlines()[0]]
    elif kind == "backbones":
        from lurefs.learning.backbones import list_backbones

        found = list_backbones(pattern)
    else:
        found = [name for name in plugins.names(LISTS[kind]) if pattern in name]
    print("\n".join(found) if found else f"no {kind} hold {pattern!r}")
