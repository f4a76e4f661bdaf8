"""The cells of a study: from its file to configurations, and from one configuration to one row of results."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from episodes.files import write_text
from lurefs.config.load import merge, run_config, with_defaults
from lurefs.config.schema import RunConfig, digest, run_identity
from lurefs.errors import UserError, nearest
from lurefs.records import Row, from_mapping, to_mapping
from lurefs.runs.directory import RunDirectory, damaged

if TYPE_CHECKING:
    from lurefs.runs.outcomes import ChunkOutcome

Key = tuple[str, str, int]
"""Regime, strategy, seed."""
N_DIGITS = 6


@dataclass(frozen=True, kw_only=True)
class Study:
    """What a study file says.

    Attributes:
        base: The settings that all cells share.
        regimes: By name, the changes to them; one set of tables each.
        strategies: By name, the changes to these again; one row of a table each.
        seeds: What every strategy is repeated with.
        references: Strategies that the others are paired with.
        curves: Strategies whose accuracy over chunks is drawn, at most six.
        costs: Strategies whose accuracy is drawn against their cost, at most six.
    """

    base: dict[str, Any]
    regimes: dict[str, dict[str, Any]]
    strategies: dict[str, dict[str, Any]]
    seeds: list[int]
    references: list[str]
    curves: list[str]
    costs: list[str]

    @property
    def keys(self) -> list[Key]:
        """All cells, in the order of the study file."""
        return [
            (regime, strategy, seed)
            for regime in self.regimes
            for strategy in self.strategies
            for seed in sorted(self.seeds)
        ]

    def config(self, key: Key) -> RunConfig:
        """Return the configuration of one cell.

        Raises:
            UserError: A setting that does not exist, or a wrong value.
        """
        regime, strategy, seed = key
        values = with_defaults({**self.base, "name": f"{regime} {strategy} {seed}", "seed": seed})
        try:
            return run_config(merge(merge(values, self.regimes[regime]), self.strategies[strategy]))
        except UserError as error:
            raise UserError(f"{regime}, {strategy}: {error.problem}", error.expected, error.fix) from error


def read_study(folder: Path) -> Study:
    """Read `study.yaml` of a study's folder.

    Raises:
        UserError: There is none, or what it says does not fit together.
    """
    from omegaconf import OmegaConf

    path = folder / "study.yaml"
    if not path.is_file():
        raise UserError(f"there is no {path}", "the folder of a study", "e.g. docs/studies/strategies")
    values: Any = OmegaConf.to_container(OmegaConf.load(path), resolve=True)
    study = from_mapping(Study, values)
    for where in ("references", "curves", "costs"):
        check_names(where, getattr(study, where), study.strategies)
    return study


def check_names(where: str, names: Sequence[str], known: Mapping[str, Any]) -> None:
    """Refuse a name that is not among those known."""
    for name in names:
        if name not in known:
            guess = nearest(name, known)
            raise UserError(
                f"{where} names {name!r}", f"of {', '.join(known)}", f"did you mean {guess!r}?" if guess else "add it"
            )


def cell_digest(config: RunConfig) -> str:
    """Return what a row is known again by: the digest of the settings that its numbers depend on.

    A setting at its default is left out, so that a setting that a later version adds does not make old rows strange.
    """
    return digest({name: value for name, value in departures(config).items() if name in run_identity(config)})


def departures(record: Any) -> dict[str, Any]:
    """Return the fields of a dataclass that are not at their defaults, recursively."""
    found = {}
    for field in fields(record):
        value = getattr(record, field.name)
        default = field.default if field.default_factory is MISSING else field.default_factory()
        if value == default:
            continue
        if is_dataclass(value):
            value = departures(value)
        elif isinstance(value, dict):
            value = {name: departures(entry) if is_dataclass(entry) else entry for name, entry in value.items()}
        found[field.name] = to_mapping(value)
    return found


def measure(key: Key, config: RunConfig, run_root: Path) -> Row:
    """Train one cell in a run directory that is deleted afterwards, and return its row.

    Few-shot accuracy and robustness are measured from the checkpoints when all chunks are learned, so that
    `cpu_seconds` is of learning alone: training, unlearning, and the selection of epochs. Unlike seconds of the clock,
    it stands other work beside.
    """
    from lurefs.stages.plan import make_plan
    from lurefs.stages.run import run_stage

    start, cpu_start = time.perf_counter(), time.process_time()
    directory = RunDirectory(run_root / cell_digest(config))
    shutil.rmtree(directory.path, ignore_errors=True)  # of a study that was killed: its seconds are not to be trusted
    try:
        plan = make_plan(config)
        learning = replace(config, after_chunk=replace(config.after_chunk, few_shot=False), robustness=None)
        learning_start = time.process_time()
        run_stage(replace(plan, config=learning), directory, "pretrain")
        cpu_seconds = time.process_time() - learning_start
        run_stage(plan, directory, "pretrain")
        outcomes = directory.read_outcomes()
        versions = json.loads(directory.identity_path.read_text(encoding="utf-8"))["versions"]
    finally:
        shutil.rmtree(directory.path, ignore_errors=True)
    return {
        **dict(zip(("regime", "strategy", "seed"), key, strict=True)),
        "digest": cell_digest(config),
        **rounded(figures_of(outcomes)),
        "cpu_seconds": round(cpu_seconds, 3),
        "cell_cpu_seconds": round(time.process_time() - cpu_start, 3),
        "cell_seconds": round(time.perf_counter() - start, 3),
        "versions": versions,
        "machine": machine(),
    }


def figures_of(outcomes: Sequence[ChunkOutcome]) -> Row:
    """Return the figures of one cell: those of the last chunk, those over all chunks, and `chunks`, one list each.

    Shares are fractions. `reset_drop` is the mean over chunks of the validation accuracy that unlearning took away.
    `n_epochs_to_recover` is the mean over chunks of the epochs until it was back, and counts all the epochs of a chunk
    in which it never was; both are null where nothing was unlearned.
    """
    from lurefs.runs.outcomes import anytime_accuracy, cumulative_error_rate

    last = outcomes[-1]
    unlearned = [(outcome, outcome.unlearn) for outcome in outcomes if outcome.unlearn is not None]
    drops = [report.accuracy_before - report.accuracy_after for _, report in unlearned]
    waits = [
        round(outcome.n_images_seen / outcome.n_train)
        if outcome.n_epochs_to_recover is None
        else outcome.n_epochs_to_recover
        for outcome, _ in unlearned
    ]
    return {
        "accuracy": last.test_accuracy,
        "anytime_accuracy": anytime_accuracy(outcomes),
        "cumulative_error_rate": cumulative_error_rate(outcomes),
        "ece": last.test_ece,
        "nll": last.test_nll,
        "generalisation_gap": last.generalisation_gap,
        "few_shot": {name: score.accuracy for name, score in last.few_shot.items()},
        "reset_drop": float(np.mean(drops)) if drops else None,
        "n_epochs_to_recover": float(np.mean(waits)) if waits else None,
        "n_forgotten": sum(outcome.n_forgotten for outcome in outcomes),
        "n_images_seen": sum(outcome.n_images_seen for outcome in outcomes),
        "seconds": sum(outcome.seconds for outcome in outcomes),
        "train_seconds": sum(outcome.train_seconds for outcome in outcomes),
        "unlearn_seconds": sum((report.seconds for _, report in unlearned), 0.0),
        "corruption_accuracy": None if last.robustness is None else last.robustness.corruption_accuracy,
        "robustness": to_mapping(last.robustness),
        "chunks": {
            "accuracy": [outcome.test_accuracy for outcome in outcomes],
            "ece": [outcome.test_ece for outcome in outcomes],
            "nll": [outcome.test_nll for outcome in outcomes],
            "generalisation_gap": [outcome.generalisation_gap for outcome in outcomes],
            "few_shot": {name: [outcome.few_shot[name].accuracy for outcome in outcomes] for name in last.few_shot},
            "n_forgotten": [outcome.n_forgotten for outcome in outcomes],
            "n_epochs_to_recover": [outcome.n_epochs_to_recover for outcome in outcomes],
            "best_epoch": [outcome.best_epoch for outcome in outcomes],
        },
    }


def rounded(value: Any) -> Any:
    """Round the fractions in plain containers, so that a row can be read."""
    if isinstance(value, dict):
        return {name: rounded(entry) for name, entry in value.items()}
    if isinstance(value, list):
        return [rounded(entry) for entry in value]
    return round(value, N_DIGITS) if isinstance(value, float) else value


def machine() -> str:
    """Return the processor's name and the number of its cores."""
    from lurefs.stages.stage import processor

    return f"{processor()}, {os.cpu_count()} cores"


def read_rows(folder: Path) -> dict[Key, Row]:
    """Return the rows of a study's `cells.jsonl`; none if there is no such file.

    Raises:
        UserError: A line is damaged.
    """
    path = folder / "cells.jsonl"
    if not path.is_file():
        return {}
    rows = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        try:
            row = json.loads(line)
            rows[row["regime"], row["strategy"], row["seed"]] = row
        except (json.JSONDecodeError, KeyError) as error:
            raise damaged(path, f"line {number}: {error}") from error
    return rows


def write_rows(folder: Path, study: Study, rows: Mapping[Key, Row]) -> None:
    """Store all rows, atomically and in the order of the study file; those of cells that it has no more come last."""
    place = {key: number for number, key in enumerate(study.keys)}
    ordered = sorted(rows, key=lambda key: (place.get(key, len(place)), key))
    write_text(folder / "cells.jsonl", "".join(json.dumps(rows[key]) + "\n" for key in ordered))
