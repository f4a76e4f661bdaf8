"""Choice of a probe's settings on the validation episodes of a benchmark, and its file."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from episodes.bank import FeatureBank
from episodes.executors import Executor
from episodes.files import write_text
from episodes.fitting import ProbeError
from episodes.manifest import Manifest
from episodes.probes import Probe
from episodes.scoring import score_grid
from episodes.table import EpisodeTable, collect
from lurefs import console
from lurefs.config.choosing import grid_of, points, with_settings
from lurefs.config.identity import digest, probe_card
from lurefs.config.schema import ProbeConfig
from lurefs.errors import UserError, first_line
from lurefs.records import from_mapping, through_json, to_mapping
from lurefs.runs.directory import RunDirectory, damaged, read_json
from lurefs.runs.summary import ChoiceSummary, GridPoint
from lurefs.stages.stage import make_probe


@dataclass(frozen=True, kw_only=True)
class ChosenProbe:
    """A probe with its chosen settings.

    Attributes:
        probe: The probe.
        made_from: Everything that the choice depends on; a part of the identity of the probe's results.
    """

    probe: Probe
    made_from: dict[str, Any]


def choose_probe(
    name: str,
    config: ProbeConfig,
    bank: FeatureBank,
    manifest: Manifest,
    *,
    path: Path,
    where: str,
    reference: NDArray[np.float32] | None,
    executor: Executor,
    device: torch.device,
) -> ChosenProbe:
    """Return a probe with the settings of its grid that are best on validation episodes, and store the choice.

    A stored choice that was made from the same is kept.

    Args:
        name: The probe's name.
        config: Its configuration, with a grid.
        bank: The features of the validation classes.
        manifest: The validation episodes.
        path: File of the choice.
        where: The benchmark, and whose features they are, in words.
        reference: The features that transforms are fitted on; None if no transform needs them.
        executor: Where the episodes are scored.
        device: Device of the batched solver.

    Raises:
        UserError: A probe cannot be fitted, or the file of the choice is damaged.
    """
    made_from = through_json(
        {"probe": probe_card(config), "manifest": manifest.hash, "bank": digest(dict(bank.identity))}
    )
    stored = read_json(path) if path.is_file() else {}
    if stored.get("made_from") == made_from:
        choice = read_choice(path)
    else:
        probes = [make_probe(name, point, reference) for point in points(config)]
        try:
            blocks = console.track_blocks(
                score_grid(bank, manifest, probes, executor, device=str(device)),
                len(manifest),
                f"settings of {name} on validation classes, {where}",
                count=lambda tables: len(tables[0]),
            )
            tables = [collect(parts, {}) for parts in zip(*blocks, strict=True)]
        except ProbeError as error:
            raise UserError(
                f"probe {name!r} on validation episodes of {where}: {first_line(error)}",
                "values of probes.choose that suit these features",
                f"change probes.{name}.choose; finished work is kept, and the same command resumes",
            ) from error
        choice = choice_of(config, tables, n_classes=len(bank.class_names))
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, json.dumps({"made_from": made_from, **to_mapping(choice)}, indent=2) + "\n")
    return ChosenProbe(
        probe=make_probe(name, with_settings(config, choice.settings), reference),
        made_from=made_from,
    )


def choice_of(config: ProbeConfig, tables: Sequence[EpisodeTable], *, n_classes: int) -> ChoiceSummary:
    """Return the best settings of a grid by the scores of all of them; the first of equally good ones.

    Args:
        config: The probe with its grid.
        tables: The results of each combination, in the order of the grid.
        n_classes: Number of validation classes.
    """
    grid = grid_of(config)
    has_nll = all(np.isfinite(table.nll).all() for table in tables)
    curve = [
        GridPoint(
            settings=settings,
            accuracy=float(table.accuracy.mean()),
            nll=float(table.nll.mean()) if np.isfinite(table.nll).all() else None,
        )
        for settings, table in zip(grid, tables, strict=True)
    ]
    by = config.choose_by if has_nll else "accuracy"
    scores = [table.nll.mean() if by == "nll" else -table.accuracy.mean() for table in tables]
    chosen = grid[int(np.argmin(scores))]
    return ChoiceSummary(
        settings=chosen,
        by=by,
        n_episodes=len(tables[0]),
        n_classes=n_classes,
        at_edge=[key for key, values in (config.choose or {}).items() if _is_at_edge(chosen[key], values)],
        curve=curve,
    )


def choice_path(directory: RunDirectory, benchmark: str, probe: str, control: str = "") -> Path:
    """Return the file of a probe's choice for a benchmark, on a control's features if one is named."""
    folder = directory.path / "controls" / control if control else directory.path / "choices"
    return folder / f"{benchmark}--{probe}.json"


def read_choice(path: Path) -> ChoiceSummary:
    """Return a stored choice.

    Raises:
        UserError: The file is damaged.
    """
    values: Mapping[str, Any] = read_json(path)
    try:
        return from_mapping(ChoiceSummary, {key: value for key, value in values.items() if key != "made_from"})
    except UserError as error:
        raise damaged(path, error.problem) from error


def _is_at_edge(value: Any, values: Sequence[Any]) -> bool:
    """Return whether a number is the smallest or largest of several; a count of 1 has no smaller one beside it."""
    are_numbers = all(isinstance(each, int | float) and not isinstance(each, bool) for each in values)
    if not are_numbers or len(values) < 2:
        return False
    return bool(value == max(values) or (value == min(values) and not (isinstance(value, int) and value == 1)))
