"""Parts of settings that several sections have: bounds of numbers, and plug-ins by name."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

Params = dict[str, Any]


def number(default: Any, **bounds: float) -> Any:
    """Declare a numeric field with bounds (`low`, `high` inclusive; `above`, `below` exclusive)."""
    return field(default=default, metadata=bounds)


@dataclass(frozen=True, kw_only=True)
class PluginConfig:
    """A name in the plug-in table, or `package.module:factory`, and the keyword arguments of its factory."""

    name: str
    params: Params = field(default_factory=dict)
