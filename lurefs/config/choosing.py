"""Settings of probes that are chosen on validation classes: the grid of their values, and its checks."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from math import prod

from lurefs.config.fields import Params
from lurefs.config.fine_tuning import NAME, fixed_probes
from lurefs.config.schema import ProbeConfig, RunConfig
from lurefs.errors import UserError
from lurefs.records import convert

MAX_POINTS = 64
"""Most combinations of values of a probe's grid."""
TRANSFORM = "transform"
"""The setting of a grid that is no parameter of the classifier."""


def choosing_probes(config: RunConfig) -> dict[str, ProbeConfig]:
    """Return a run's probes that have a setting to choose."""
    return {name: probe for name, probe in fixed_probes(config).items() if probe.choose is not None}


def grid_of(probe: ProbeConfig) -> list[Params]:
    """Return all combinations of the values of a probe's grid, in its order; the last setting varies first."""
    grid = probe.choose or {}
    return [dict(zip(grid, values, strict=True)) for values in product(*grid.values())]


def points(probe: ProbeConfig) -> list[ProbeConfig]:
    """Return a probe with each combination of the values of its grid; the probe alone if it chooses nothing."""
    return [with_settings(probe, settings) for settings in grid_of(probe)]


def all_params(probe: ProbeConfig) -> list[Params]:
    """Return parameters of the classifier in which each value of the grid occurs, though not each combination."""
    grid = {name: values for name, values in (probe.choose or {}).items() if name != TRANSFORM and values}
    first = {**probe.params, **{name: values[0] for name, values in grid.items()}}
    return [first, *({**first, name: value} for name, values in grid.items() for value in values[1:])]


def transforms_of(where: str, probe: ProbeConfig) -> dict[str, str]:
    """Return all transforms that a probe may have, by their dotted path in the configuration.

    Raises:
        UserError: One is no text.
    """
    values = (probe.choose or {}).get(TRANSFORM, [])
    paths = {f"{where}.choose.{TRANSFORM}[{place}]": value for place, value in enumerate(values)}
    return {f"{where}.{TRANSFORM}": probe.transform, **{path: convert(str, paths[path], path) for path in paths}}


def with_settings(probe: ProbeConfig, settings: Params) -> ProbeConfig:
    """Return a probe with the values of one point of its grid, and without the grid."""
    return replace(
        probe,
        params={**probe.params, **{name: value for name, value in settings.items() if name != TRANSFORM}},
        transform=settings.get(TRANSFORM, probe.transform),
        choose=None,
        choose_by=ProbeConfig().choose_by,
    )


def check_choices(config: RunConfig) -> None:
    """Check the grids of probes, and that no benchmark of a run is on the classes that they choose on.

    Raises:
        UserError: A grid is empty or too large, sets what the probe sets already, or cannot be used here.
    """
    for name, transfer in config.transfer.items():
        if transfer.probe.choose is not None:
            raise UserError(
                f"transfer.{name}.probe.choose is set, and transfers choose on images of their own classes",
                "a grid of the transfer",
                f"set transfer.{name}.grid instead",
            )
    for name, probe in config.probes.items():
        if probe.choose is not None:
            _check_grid(f"probes.{name}", probe)
        elif probe.choose_by != ProbeConfig().choose_by:
            raise UserError(
                f"probes.{name}.choose_by is {probe.choose_by!r}, and there is nothing to choose",
                "choose_by beside a grid",
                f"set probes.{name}.choose, e.g. to {{C: [0.1, 1, 10]}}, or leave probes.{name}.choose_by out",
            )
    users = [f"probes.{name}.choose would choose" for name in choosing_probes(config)]
    users += ["calibrate would be fitted"] if config.calibrate is not None else []
    for name, benchmark in config.benchmarks.items() if users else ():
        is_own = benchmark.dataset is None or benchmark.dataset == config.dataset
        if is_own and benchmark.classes in ("validation", "all"):
            raise UserError(
                f"benchmarks.{name} has the classes {benchmark.classes!r}, and {users[0]} on "
                "the validation classes that it measures",
                "novel or base classes, or fixed settings",
                f"set benchmarks.{name}.classes to novel, or leave {users[0].partition(' ')[0]} out",
            )


def _check_grid(where: str, probe: ProbeConfig) -> None:
    grid = probe.choose or {}
    if probe.name == NAME:
        raise UserError(
            f"{where}.choose is set, and {where} is fine-tuned",
            "fixed settings of fine-tuning: each episode costs seconds",
            f"leave {where}.choose out",
        )
    for key, values in grid.items():
        if not values or any(value in values[:place] for place, value in enumerate(values)):
            raise UserError(
                f"{where}.choose.{key} is {values}",
                "one or more different values",
                f"change {where}.choose.{key}, e.g. C: [0.01, 0.1, 1, 10, 100, 1000]",
            )
        if key in probe.params:
            raise UserError(
                f"{where} has {key} in params and in choose",
                f"{key} in one of the two",
                f"leave {where}.params.{key} or {where}.choose.{key} out",
            )
    n_points = prod(len(values) for values in grid.values()) if grid else 0
    if not 1 <= n_points <= MAX_POINTS:
        raise UserError(
            f"{where}.choose has {n_points:,} combinations of values",
            f"1 to {MAX_POINTS}",
            f"change {where}.choose, or set it to null to choose nothing",
        )
