"""Paths that a user gives."""

from __future__ import annotations

import os
from pathlib import Path

from lurefs.errors import UserError


def existing(path: str, kind: str) -> Path:
    """Return the absolute path of an existing folder or file; raise UserError if it does not exist."""
    found = Path(os.path.expanduser(path)).absolute()
    if not (found.is_dir() if kind == "folder" else found.is_file()):
        raise UserError(
            f"{path} is not a {kind} (looked at {found})",
            f"the path of an existing {kind}; a relative one starts at the working directory",
            "correct the path",
        )
    return found
