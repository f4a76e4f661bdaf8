"""Bounds of parameters of plug-ins whose libraries take any number: beyond them nothing is learned, or nothing ends."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from lurefs.config.choosing import all_params
from lurefs.config.schema import ProbeConfig
from lurefs.records import check_bounds, convert

OPTIMIZER_BOUNDS: Mapping[str, Mapping[str, float]] = {
    "lr": {"above": 0, "high": 1e3},
    "momentum": {"low": 0, "below": 1},
    "weight_decay": {"low": 0, "high": 1e3},
    "eps": {"above": 0, "high": 1},
    "layer_decay": {"above": 0, "below": 1},
}
"""Bounds of parameters that most optimizers have, as in the metadata of a config's fields."""
PROBE_BOUNDS: Mapping[str, Mapping[str, float]] = {
    "C": {"low": 1e-12, "high": 10**12},
    "alpha": {"low": 0, "high": 10**12},
    "tol": {"low": 0, "high": 1},
}
"""Bounds of parameters that several probes have; with C = 1e300 a fit overflows or does not end."""
NAMED_PROBE_BOUNDS: Mapping[str, Mapping[str, float]] = {**PROBE_BOUNDS, "max_iter": {"low": 1}}
"""Those of probes that come with lurefs; scikit-learn's SVC means no limit by a `max_iter` of -1."""

DROP_RATE = re.compile(r"drop\w*_rate")
"""Parameters of timm's models that are shares of what is dropped: with all dropped, nothing is left to learn from."""
RATE_BOUNDS: Mapping[str, float] = {"low": 0, "below": 1}


def check_drop_rates(params: Mapping[str, Any]) -> None:
    """Check the numbers among a backbone's parameters that are rates of dropout.

    Raises:
        UserError: One is out of bounds.
    """
    for key, value in params.items():
        if DROP_RATE.search(key) and isinstance(value, int | float) and not isinstance(value, bool):
            check_bounds(value, RATE_BOUNDS, f"backbone.params.{key}")


def check_optimizer_bounds(params: Mapping[str, Any]) -> None:
    """Check the numbers among an optimizer's parameters.

    Raises:
        UserError: One is out of bounds, or no number.
    """
    for key, value in params.items():
        if key in OPTIMIZER_BOUNDS and value is not None:
            path = f"learner.optimizer.params.{key}"
            check_bounds(convert(float, value, path), OPTIMIZER_BOUNDS[key], path)


def check_probe_bounds(where: str, probe: ProbeConfig, grid: Mapping[str, list[Any]] | None = None) -> None:
    """Check the numbers among a probe's parameters, in the grid that it chooses from, and in a transfer's grid.

    Args:
        where: The probe's dotted path in the config.
        probe: The probe.
        grid: The transfer's grid.

    Raises:
        UserError: One is out of bounds.
    """
    bounds = PROBE_BOUNDS if ":" in probe.name else NAMED_PROBE_BOUNDS
    found = [
        (f"{where}.{'choose' if key in (probe.choose or {}) else 'params'}.{key}", key, value)
        for params in all_params(probe)
        for key, value in params.items()
    ]
    in_grid = f"{where.removesuffix('.probe')}.grid"
    found += [(f"{in_grid}.{key}", key, value) for key, values in (grid or {}).items() for value in values]
    for path, key, value in found:
        if not isinstance(value, bool):
            check_bounds(value, bounds.get(key, {}), path)
