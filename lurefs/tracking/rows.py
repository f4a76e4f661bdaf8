"""Curves, flat figures and tables of a run for W&B, as pure functions of the run directory."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from episodes.summary import Summary, summarise
from episodes.table import EpisodeTable
from episodes.transfer.table import SizeSummary, TransferFigure, TransferTable
from lurefs.comparing.texts import settings
from lurefs.records import Row
from lurefs.runs.outcomes import (
    ChunkOutcome,
    RobustnessScores,
    UnlearnReport,
    anytime_accuracy,
    cumulative_error_rate,
    cumulative_errors,
    mean_changed_predictions,
    train_seconds,
    unlearn_seconds,
)
from lurefs.runs.summary import CalibrationSummary, ChoiceSummary, RunSummary, TransferSummary
from lurefs.tracking.labels import without_none

MAX_CURVE_POINTS = 100
ROBUSTNESS_COLUMNS = ("chunk_index", "kind", "name", "level", "accuracy")
FIT_COLUMNS = ("size", "repeat", "n_train", "accuracy", "macro_accuracy", "nll", "ece", "chosen", "seconds")
CHOICE_COLUMNS = ("settings", "accuracy", "nll", "is_chosen")
EPISODE_COLUMNS = ("index", "classes", "accuracy", "nll", "brier", "converged", "seconds")


def chunk_rows(outcomes: Sequence[ChunkOutcome]) -> list[Row]:
    """Return one row per chunk for the curves of pre-training."""
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
            row |= _unlearn_row(outcome.unlearn)
        for benchmark, score in outcome.few_shot.items():
            row[f"few_shot/{benchmark}"] = score.accuracy
        row |= _robustness_row(outcome.robustness)
        rows.append(row)
    return rows


def _unlearn_row(did: UnlearnReport) -> Row:
    """Return the measured effects of a reset."""
    figures = {
        "unlearn_drop": did.accuracy_before - did.accuracy_after,
        "unlearn_changed_predictions": did.changed_predictions,
        "unlearn_logit_change": did.logit_change,
        "unlearn_silent_before": did.silent_before,
        "unlearn_silent_after": did.silent_after,
    }
    if did.accuracy_after_new_statistics is not None:
        figures["unlearn_drop_new_statistics"] = did.accuracy_before - did.accuracy_after_new_statistics
    return without_none(figures)


def pretrain_summary(outcomes: Sequence[ChunkOutcome]) -> Row:
    """Return the figures over all chunks; W&B itself adds those of the last chunk."""
    figures = {
        "anytime_accuracy": anytime_accuracy(outcomes),
        "cumulative_error_rate": cumulative_error_rate(outcomes),
        "train_images_per_second": train_images_per_second(outcomes),
        "mean_changed_predictions": mean_changed_predictions(outcomes),
        "total_forgotten": sum(outcome.n_forgotten for outcome in outcomes),
        "total_images_seen": sum(outcome.n_images_seen for outcome in outcomes),
        "total_train_seconds": train_seconds(outcomes),
        "total_unlearn_seconds": sum(map(unlearn_seconds, outcomes)),
    }
    return without_none(figures)


def cell_summary(
    summary: RunSummary,
    benchmark: str,
    probe: str,
    outcomes: Sequence[ChunkOutcome],
    cost: Mapping[str, Any],
) -> Row:
    """Return the flat figures of one cell, without missing ones.

    `images_per_second` is the speed of embedding, from `cost.json`; `train_images_per_second` is that of training.
    `control_NAME` is the accuracy of a control on the same episodes by the same probe.
    """
    described = summary.benchmarks[benchmark]
    scores = described.probes[probe]
    accuracy = scores.accuracy
    figures = {
        "accuracy": _mean(accuracy),
        "accuracy_ci95_episodes": None if accuracy is None else accuracy.ci95_episodes,
        "accuracy_ci95_classes": None if accuracy is None else accuracy.ci95_classes,
        "nll": _mean(scores.nll),
        "brier": _mean(scores.brier),
        "ece": scores.ece,
        **_calibration(scores.calibration),
        "n_not_converged": scores.n_not_converged,
        "ms_per_episode": scores.ms_per_episode,
        "cumulative_error_rate": None if summary.pretrain is None else summary.pretrain.cumulative_error_rate,
        "anytime_accuracy": None if summary.pretrain is None else summary.pretrain.anytime_accuracy,
        "images_per_second": cost.get("images_per_second"),
        "train_images_per_second": train_images_per_second(outcomes),
        "feature_spread": described.feature_spread,
        **_choice_row(scores.choice),
        **(vars(described.transferability) if described.transferability is not None else {}),
        **{
            f"control_{name}": _mean(control.probes[probe].accuracy)
            for name, control in described.controls.items()
            if probe in control.probes
        },
    }
    if outcomes:
        figures |= {
            "total_images_seen": sum(outcome.n_images_seen for outcome in outcomes),
            "generalisation_gap": outcomes[-1].generalisation_gap,
            "mean_changed_predictions": mean_changed_predictions(outcomes),
            **_robustness_row(outcomes[-1].robustness),
        }
    return without_none(figures)


def _calibration(found: CalibrationSummary | None) -> Row:
    """Return the temperature, the scores of the scaled probabilities, and the figures of both kinds of sets."""
    if found is None:
        return {}
    temperature = found.temperature
    figures: Row = {
        "temperature": None if temperature is None else temperature.value,
        "temperature_low": None if temperature is None else temperature.low,
        "temperature_high": None if temperature is None else temperature.high,
        "scaled_nll": _mean(found.nll),
        "scaled_brier": _mean(found.brier),
        "scaled_ece": found.ece,
        "alpha": found.alpha,
    }
    for kind, sets in (("validation", found.validation_sets), ("support", found.support_sets)):
        if sets is not None:
            figures |= {
                f"{kind}_coverage": sets.coverage.mean,
                f"{kind}_coverage_ci95_classes": sets.coverage.ci95_classes,
                f"{kind}_lowest_coverage": sets.lowest_coverage,
                f"{kind}_set_size": sets.mean_size,
                f"{kind}_answered": sets.answered,
                f"{kind}_answered_accuracy": sets.accuracy,
            }
    return figures


def _choice_row(choice: ChoiceSummary | None) -> Row:
    """Return the chosen settings of a probe as `chosen_NAME`, and whether one is at an edge of its grid."""
    if choice is None:
        return {}
    chosen = {f"chosen_{name}": value for name, value in choice.settings.items()}
    return {**chosen, "chosen_by": choice.by, "chosen_at_edge": bool(choice.at_edge)}


def choice_rows(choice: ChoiceSummary) -> list[list[Any]]:
    """Return the validation scores of each value that a probe could choose, see `CHOICE_COLUMNS`."""
    return [
        [settings(point.settings, opening="", closing=""), point.accuracy, point.nll, point.settings == choice.settings]
        for point in choice.curve
    ]


def train_images_per_second(outcomes: Sequence[ChunkOutcome]) -> float | None:
    """Return the training speed over all chunks, images per second; None if no time was measured."""
    seconds = train_seconds(outcomes)
    return sum(outcome.n_images_seen for outcome in outcomes) / seconds if seconds > 0 else None


def transfer_rows(described: TransferSummary) -> list[Row]:
    """Return one row per size of a transfer; the size `all` counts as its mean number per class."""
    rows = []
    for size, figures in described.sizes.items():
        n_images = figures.n_train / described.n_classes if size == "all" else int(size)
        rows.append({"images_per_class": n_images, **transfer_figures(figures)})
    return sorted(rows, key=lambda row: float(row["images_per_class"]))


def transfer_figures(figures: SizeSummary) -> Row:
    """Return the flat figures of one size of a transfer."""
    accuracy = figures.accuracy
    low, high = accuracy.ci95_images or (None, None)
    row = {
        "accuracy": accuracy.mean,
        "accuracy_ci95_repeats": accuracy.ci95_repeats,
        "accuracy_ci95_images_low": low,
        "accuracy_ci95_images_high": high,
        "macro_accuracy": figures.macro_accuracy.mean,
        "nll": _mean(figures.nll),
        "ece": _mean(figures.ece),
        "n_fits": figures.n_fits,
        "seconds": figures.seconds,
    }
    return without_none(row)


def _mean(figure: Summary | TransferFigure | None) -> float | None:
    return None if figure is None else figure.mean


def running_accuracy(table: EpisodeTable) -> list[Row]:
    """Return the accuracy over the first `episode` episodes with its interval, at up to `MAX_CURVE_POINTS` points."""
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
    """Return one row per episode with `EPISODE_COLUMNS`; its classes are one text, missing values None."""
    floats = {
        name: [_plain(value) for value in getattr(table, name).tolist()]
        for name in ("accuracy", "nll", "brier", "seconds")
    }
    columns = {
        "index": range(len(table)),
        "classes": [" ".join(map(str, row)) for row in table.classes.tolist()],
        "converged": table.converged.tolist(),
        **floats,
    }
    return [list(row) for row in zip(*(columns[name] for name in EPISODE_COLUMNS), strict=True)]


def robustness_rows(outcomes: Sequence[ChunkOutcome]) -> list[list[Any]]:
    """Return one row per chunk, change and level with `ROBUSTNESS_COLUMNS`; accuracies are fractions."""
    return [
        [outcome.chunk_index, kind, name, float(level), accuracy]
        for outcome in outcomes
        if outcome.robustness is not None
        for kind, changes in (("corruption", outcome.robustness.corruptions), ("attack", outcome.robustness.attacks))
        for name, levels in changes.items()
        for level, accuracy in levels.items()
    ]


def fit_rows(table: TransferTable) -> list[list[Any]]:
    """Return one row per fit of a transfer with `FIT_COLUMNS`; missing values are None."""
    return [[_plain(getattr(fit, name)) for name in FIT_COLUMNS] for fit in table.fits]


def _robustness_row(scores: RobustnessScores | None) -> Row:
    """Return robustness under keys without dots, which would nest at W&B; empty if not measured."""
    if scores is None:
        return {}
    row: Row = {"clean": scores.clean_accuracy, "corruptions": scores.corruption_accuracy}
    row |= {name: float(np.mean(list(levels.values()))) for name, levels in scores.corruptions.items()}
    for name, levels in scores.attacks.items():
        row |= {f"{name}_{epsilon.replace('.', '_')}": accuracy for epsilon, accuracy in levels.items()}
    return {f"robustness/{key}": accuracy for key, accuracy in without_none(row).items()}


def _plain(value: Any) -> Any:
    if isinstance(value, float):
        return None if math.isnan(value) else value
    return value if isinstance(value, (bool, int)) else str(value)
