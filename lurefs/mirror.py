"""What a tracker is told about a run: labels, curves, flat figures. Pure functions of what the run directory holds."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from episodes.summary import summarise
from episodes.table import COLUMNS, EpisodeTable
from lurefs.config import RunConfig, digest, run_identity
from lurefs.outcomes import (
    ChunkOutcome,
    RobustnessScores,
    anytime_accuracy,
    cumulative_error_rate,
    cumulative_errors,
    unlearn_seconds,
)

Row = dict[str, Any]
MAX_CURVE_POINTS = 100
_REGIME = ("replay", "schedule", "class_order", "images_per_class", "label_noise")


@dataclass(frozen=True, kw_only=True)
class Card:
    """How one tracked run is labelled.

    Attributes:
        id: Follows from the configuration, so that a rerun finds its earlier records.
        name: For people.
        group: What it may be compared with: the protocol's digest and the benchmark.
        job_type: What was done.
        config: Flat settings to filter by, without those that are not known yet.
    """

    id: str
    name: str
    group: str
    job_type: Literal["pretrain", "evaluate", "compare"]
    config: Row


def pretrain_card(config: RunConfig, identity: Mapping[str, Any], outcomes: Sequence[ChunkOutcome]) -> Card:
    """Label the pre-training of a run; its protocol is the images, their splits and their chunks.

    Args:
        config: The run's configuration.
        identity: The content of `identity.json`; empty before that is written.
        outcomes: The chunks that are done.
    """
    images = identity.get("dataset", config.dataset)
    protocol = digest([images, config.class_split, config.image_split, config.chunks])
    n_chunks = config.chunks.n_chunks if config.chunks.n_chunks is not None else len(outcomes)
    return Card(
        id=_run_id(config, "pretrain"),
        name=f"{_label(config)} | pretrain",
        group=f"{protocol}-pretrain",
        job_type="pretrain",
        config={**_flat_config(config, identity), "protocol": protocol, "n_chunks": n_chunks},
    )


def cell_card(
    config: RunConfig, identity: Mapping[str, Any], summary: Mapping[str, Any], benchmark: str, probe: str
) -> Card:
    """Label one probe on one benchmark; its protocol is the manifest, so that a group has the same episodes."""
    described = summary["benchmarks"][benchmark]
    protocol = str(described["manifest"])[:12]
    cell = {
        "protocol": protocol,
        "n_chunks": summary["pretrain"]["n_chunks"],
        "benchmark": benchmark,
        "probe": probe,
        **{name: described[name] for name in ("n_way", "n_shot", "n_query")},
        "n_episodes": described["probes"][probe]["accuracy"]["n"],
        **{f"corrupt_{name}": value for name, value in (described.get("corrupt") or {}).items()},
    }
    return Card(
        id=_run_id(config, f"{benchmark}--{probe}"),
        name=f"{_label(config)} | {benchmark} | {probe}",
        group=f"{protocol}-{benchmark}",
        job_type="evaluate",
        config={**_flat_config(config, identity), **_without_none(cell)},
    )


def report_card(config: RunConfig, identity: Mapping[str, Any]) -> Card:
    """Label the report page of a run."""
    return Card(
        id=_run_id(config, "report"),
        name=f"{_label(config)} | report",
        group="reports",
        job_type="compare",
        config=_flat_config(config, identity),
    )


def tags(config: RunConfig) -> list[str]:
    """Return the run's tags, at most 64 characters each as W&B demands."""
    wanted = [config.backbone.name, config.unlearn.name, config.dataset.name, *config.trackers.wandb.tags]
    return list(dict.fromkeys(tag[:64] for tag in wanted if tag))


def chunk_rows(outcomes: Sequence[ChunkOutcome]) -> list[Row]:
    """Return the row of each chunk in the curves of pre-training."""
    rows = []
    for n_done, outcome in enumerate(outcomes, start=1):
        row: Row = {
            "chunk_index": outcome.chunk_index,
            "test_accuracy": outcome.test_accuracy,
            "val_accuracy": outcome.val_accuracy,
            "test_ece": outcome.test_ece,
            "test_nll": outcome.test_nll,
            "n_test_errors": outcome.n_test_errors,
            "cumulative_errors": cumulative_errors(outcomes[:n_done]),
            "generalisation_gap": outcome.generalisation_gap,
            "n_forgotten": outcome.n_forgotten,
            "n_images_seen": outcome.n_images_seen,
            "train_seconds": outcome.train_seconds,
            "unlearn_seconds": unlearn_seconds(outcome),
            "seconds": outcome.seconds,
        }
        if n_done > 1:
            row["accuracy_change"] = outcome.test_accuracy - outcomes[n_done - 2].test_accuracy
        if outcome.unlearn is not None:
            row["unlearn_drop"] = outcome.unlearn.accuracy_before - outcome.unlearn.accuracy_after
        for benchmark, score in outcome.few_shot.items():
            row[f"few_shot/{benchmark}"] = score.accuracy
        row |= _robustness_row(outcome.robustness)
        rows.append(row)
    return rows


def pretrain_summary(outcomes: Sequence[ChunkOutcome]) -> Row:
    """Return the figures over all chunks; W&B itself adds those of the last one."""
    figures = {
        "anytime_accuracy": anytime_accuracy(outcomes),
        "cumulative_error_rate": cumulative_error_rate(outcomes),
        "images_per_second": images_per_second(outcomes),
        "total_forgotten": sum(outcome.n_forgotten for outcome in outcomes),
        "total_images_seen": sum(outcome.n_images_seen for outcome in outcomes),
        "total_train_seconds": sum(outcome.train_seconds for outcome in outcomes),
        "total_unlearn_seconds": sum(map(unlearn_seconds, outcomes)),
    }
    return _without_none(figures)


def cell_summary(summary: Mapping[str, Any], benchmark: str, probe: str, outcomes: Sequence[ChunkOutcome]) -> Row:
    """Return the flat figures of one cell, without those that its probe does not have."""
    scores = summary["benchmarks"][benchmark]["probes"][probe]
    figures = {
        "accuracy": scores["accuracy"]["mean"],
        "accuracy_ci95_episodes": scores["accuracy"]["ci95_episodes"],
        "accuracy_ci95_classes": scores["accuracy"]["ci95_classes"],
        "nll": scores["nll"] and scores["nll"]["mean"],
        "brier": scores["brier"] and scores["brier"]["mean"],
        "ece": scores["ece"],
        "n_not_converged": scores["n_not_converged"],
        "ms_per_episode": scores["ms_per_episode"],
        "cumulative_error_rate": summary["pretrain"]["cumulative_error_rate"],
        "anytime_accuracy": summary["pretrain"]["anytime_accuracy"],
        "images_per_second": images_per_second(outcomes),
    }
    if outcomes:
        figures |= {"generalisation_gap": outcomes[-1].generalisation_gap, **_robustness_row(outcomes[-1].robustness)}
    return _without_none(figures)


def images_per_second(outcomes: Sequence[ChunkOutcome]) -> float | None:
    """Return the training throughput over all chunks, images per second; None if no time was measured."""
    seconds = sum(outcome.train_seconds for outcome in outcomes)
    return sum(outcome.n_images_seen for outcome in outcomes) / seconds if seconds > 0 else None


def running_accuracy(table: EpisodeTable) -> list[Row]:
    """Return the accuracy over the first `episode` episodes and its interval, at `MAX_CURVE_POINTS` points or fewer."""
    first = max(2, len(table) // MAX_CURVE_POINTS)
    points = np.unique(np.linspace(first, len(table), MAX_CURVE_POINTS).round().astype(int))
    rows = []
    for n_episodes in points.tolist():
        summary = summarise(table.accuracy[:n_episodes], table.classes[:n_episodes])
        rows.append(
            {
                "episode": n_episodes,
                "running_accuracy": summary.mean,
                "running_accuracy_ci95_episodes": summary.ci95_episodes,
            }
        )
    return rows


def episode_rows(table: EpisodeTable) -> list[list[Any]]:
    """Return one row an episode, in the order of `COLUMNS`; its classes are one text, a missing value is None."""
    floats = {
        name: [None if math.isnan(value) else value for value in getattr(table, name).tolist()]
        for name in ("accuracy", "nll", "brier", "seconds")
    }
    columns = {
        "index": range(len(table)),
        "classes": [" ".join(map(str, row)) for row in table.classes.tolist()],
        "converged": table.converged.tolist(),
        **floats,
    }
    return [list(row) for row in zip(*(columns[name] for name in COLUMNS), strict=True)]


def _run_id(config: RunConfig, part: str) -> str:
    """Return an id of at most 64 characters that W&B accepts and a person can read.

    Where something had to be replaced or cut off, a digest keeps different parts different.
    """
    wanted = f"{digest(run_identity(config))}-{part}"
    readable = re.sub(r"[^A-Za-z0-9_.-]", "_", wanted)
    return wanted if readable == wanted and len(wanted) <= 64 else f"{readable[:51]}-{digest(wanted)}"


def _label(config: RunConfig) -> str:
    return f"{config.name} | {config.backbone.name} | {config.unlearn.name} | seed {config.seed}"


def _flat_config(config: RunConfig, identity: Mapping[str, Any]) -> Row:
    backbone = identity.get("backbone", {})
    n_parameters = backbone.get("n_parameters")
    flat = {
        "run_name": config.name,
        "run_digest": digest(run_identity(config)),
        "backbone": config.backbone.name,
        "backbone_params_m": None if n_parameters is None else n_parameters / 1e6,
        "n_features": backbone.get("n_features"),
        "image_size": backbone.get("image_size"),
        "pretrained": config.backbone.pretrained,
        "strategy": config.unlearn.name,
        "n_chunks": config.chunks.n_chunks,
        **{name: getattr(config.chunks, name) for name in _REGIME},
        "dataset": config.dataset.name,
        "seed": config.seed,
        "device": config.device,
        **{f"version_{name}": version for name, version in identity.get("versions", {}).items()},
    }
    return _without_none(flat)


def _robustness_row(scores: RobustnessScores | None) -> Row:
    """Return robustness under keys without dots, which W&B takes for nesting; empty if it was not measured."""
    if scores is None:
        return {}
    row: Row = {"clean": scores.clean_accuracy, "corruptions": scores.corruption_accuracy}
    row |= {name: float(np.mean(list(levels.values()))) for name, levels in scores.corruptions.items()}
    for name, levels in scores.attacks.items():
        row |= {f"{name}_{epsilon.replace('.', '_')}": accuracy for epsilon, accuracy in levels.items()}
    return {f"robustness/{key}": accuracy for key, accuracy in _without_none(row).items()}


def _without_none(row: Row) -> Row:
    return {key: value for key, value in row.items() if value is not None}
