"""Pre-train image backbones online with Learn, Unlearn, Relearn, and measure how they transfer.

`run` does a recipe's runs, `evaluate` measures frozen backbones on images, `embed` returns features, and `compare` puts
finished runs side by side. They load their libraries when they are first used.
"""

from __future__ import annotations

TYPE_CHECKING = False  # `typing` would take longer to import than all else here
if TYPE_CHECKING:
    from typing import Any

    from lurefs.api import compare, embed, evaluate, run
    from lurefs.errors import UserError
    from lurefs.results import Results

__version__ = "0.1.0"
__all__ = ["Results", "UserError", "__version__", "compare", "embed", "evaluate", "run"]
_HOMES = {name: "lurefs.api" for name in ("compare", "embed", "evaluate", "run")}
_HOMES |= {"Results": "lurefs.results", "UserError": "lurefs.errors"}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used."""
    if name not in _HOMES:
        raise AttributeError(f"module 'lurefs' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    """Return all public names, also those that are not imported yet."""
    return sorted({*globals(), *_HOMES})
