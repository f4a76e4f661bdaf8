"""Locks of open files between processes; where the module `fcntl` is missing (Windows) nothing is locked."""

from __future__ import annotations

import importlib
from typing import Any

LOCK_SH, LOCK_EX, LOCK_NB, LOCK_UN = 1, 2, 4, 8
"""As in `fcntl`, on every system that has it."""


def flock(file: Any, operation: int) -> None:
    """Lock or unlock an open file.

    Raises:
        OSError: Another process has locked it, and `operation` does not wait.
    """
    try:
        fcntl = importlib.import_module("fcntl")
    except ImportError:
        return
    fcntl.flock(file, operation)
