"""Calibration of a cell's answers: a temperature and prediction sets, fitted without the labels that measure them.

The temperature and the threshold of the sets come from the benchmark's validation twin. The sets from the support use
the support of each episode.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from episodes.arrays import FloatArray, IntArray
from episodes.calibration import apply_temperature, are_probabilities, fit_temperature, score_answers
from episodes.conformal import (
    SetCounts,
    count_sets,
    full_sets,
    join_counts,
    nonconformity,
    of_labels,
    split_p_values,
    split_threshold,
    summarise_sets,
    support_p_values,
)
from episodes.executors import Executor
from episodes.manifest import Manifest
from episodes.metrics import Reliability, empty_reliability
from episodes.summary import summarise
from episodes.table import EpisodeTable
from episodes.transforms import fit_transform
from lurefs.config.identity import digest
from lurefs.records import through_json
from lurefs.runs.calibration import Calibration, calibration_path, read_calibration
from lurefs.runs.directory import RunDirectory
from lurefs.runs.summary import CalibrationSummary
from lurefs.stages.cell import Cell, score_cell
from lurefs.stages.plan import Benchmark
from lurefs.stages.stage import Stage
from lurefs.stages.validation import read_validation

Values = NDArray[np.floating]
EPISODES_AT_ONCE = 512
"""Episodes whose answers are scaled and counted at a time."""


def calibration_identity(stage: Stage, benchmark: Benchmark, cell: Cell) -> dict[str, Any] | None:
    """Return everything that a cell's calibration depends on; None if the run wants none.

    Raises:
        UserError: The features of the validation classes were not extracted.
    """
    if stage.plan.config.calibrate is None:
        return None
    bank, manifest = read_validation(stage.plan, stage.directory, benchmark)
    held_out = {"bank": digest(dict(bank.identity)), "manifest": manifest.hash}
    identity: dict[str, Any] = through_json(
        {"results": cell.identity, "held_out": held_out, "alpha": stage.plan.config.calibrate.alpha}
    )
    return identity


def is_calibrated(directory: RunDirectory, cell: Cell, identity: dict[str, Any] | None) -> bool:
    """Return whether a cell has a valid stored calibration, or needs none."""
    if identity is None:
        return True
    if not calibration_path(directory, cell.benchmark, cell.probe.name).exists():
        return False
    return read_calibration(directory, cell.benchmark, cell.probe.name).identity == identity


def calibrate(
    stage: Stage,
    benchmark: Benchmark,
    cell: Cell,
    table: EpisodeTable,
    executor: Executor,
    identity: dict[str, Any],
) -> Calibration:
    """Fit a temperature and prediction sets for a cell, and measure them on its episodes.

    Args:
        stage: The context.
        benchmark: The benchmark.
        cell: The cell.
        table: Its results, with the values of all queries.
        executor: Scores the episodes of the validation classes.
        identity: See `calibration_identity`.

    Raises:
        UserError: The probe cannot be fitted on the validation classes.
    """
    alpha: float = identity["alpha"]
    bank, manifest = read_validation(stage.plan, stage.directory, benchmark)
    twin = replace(cell, whose="validation classes", manifest=manifest, banks=(bank, bank), target_ci95=None)
    held_out = score_cell(twin, executor, stage.device, with_values=True)
    labels = query_labels(cell.manifest, len(table))
    counts, least_alpha = support_sets(cell, labels, table.classes, alpha=alpha)
    figures: dict[str, Any] = dict.fromkeys(("temperature", "nll", "brier", "ece", "threshold", "validation_sets"))
    reliability: Reliability | None = None
    if held_out.values is not None and table.values is not None:
        truths = query_labels(manifest, len(held_out))
        parts = [slice(start, start + EPISODES_AT_ONCE) for start in range(0, len(table), EPISODES_AT_ONCE)]
        scores_of, n_used = _scores(held_out, truths)
        own = of_labels(scores_of(held_out.values[n_used:]), truths[n_used:])
        p_values = (split_p_values(own, scores_of(table.values[part])) for part in parts)
        sets = [count_sets(found, labels[part], alpha=alpha) for found, part in zip(p_values, parts, strict=True)]
        figures["threshold"] = split_threshold(own, alpha=alpha)
        figures["validation_sets"] = summarise_sets(join_counts(sets), table.classes)
        if are_probabilities(held_out.values):
            fitted = fit_temperature(held_out.values, truths, held_out.classes)
            scaled = [
                score_answers(apply_temperature(table.values[part], fitted.value), labels[part]) for part in parts
            ]
            reliability = sum((each.reliability for each in scaled), start=empty_reliability())
            figures |= {
                "temperature": fitted,
                "nll": summarise(np.concatenate([each.nll for each in scaled]), table.classes),
                "brier": summarise(np.concatenate([each.brier for each in scaled]), table.classes),
                "ece": reliability.ece,
            }
    support = summarise_sets(counts, table.classes)
    return Calibration(
        identity=identity,
        summary=CalibrationSummary(alpha=alpha, support_sets=support, least_alpha=least_alpha, **figures),
        n=[] if reliability is None else reliability.n.tolist(),
        confidence=[] if reliability is None else reliability.confidence.tolist(),
        correct=[] if reliability is None else reliability.correct.tolist(),
    )


def support_sets(cell: Cell, labels: IntArray, classes: IntArray, *, alpha: float) -> tuple[SetCounts, float]:
    """Return the counts of the sets from the support, and the smallest alpha for which they are not full.

    Args:
        cell: The cell; of its probe only the transform matters.
        labels: (n_episodes, n_query) of its first episodes, see `query_labels`.
        classes: (n_episodes, n_way) of them.
        alpha: Largest share of misses that is allowed.
    """
    episodes = [cell.manifest[index] for index in range(len(labels))]
    least_alpha = 1 / (1 + max(int(np.bincount(episode.support_labels).max()) for episode in episodes))
    if alpha < least_alpha:
        return full_sets(labels, classes), least_alpha
    transform = fit_transform(cell.probe.transform, cell.probe.reference)
    support, query = (bank.features for bank in cell.banks)
    counts = []
    for episode, own in zip(episodes, labels, strict=True):
        p_values = np.full((len(own), classes.shape[1]), np.nan)
        p_values[: len(episode.query), : len(episode.classes)] = support_p_values(
            transform(support[episode.support]), episode.support_labels, transform(query[episode.query])
        )
        counts.append(count_sets(p_values[None], own[None], alpha=alpha))
    return join_counts(counts), least_alpha


def query_labels(manifest: Manifest, n_episodes: int) -> IntArray:
    """Return the episode labels of the queries of the first episodes, (n_episodes, n_query); -1 for missing queries."""
    rows = [manifest[index].query_labels for index in range(n_episodes)]
    labels = np.full((n_episodes, max(map(len, rows))), -1, dtype=np.int64)
    for place, row in enumerate(rows):
        labels[place, : len(row)] = row
    return labels


def _scores(held_out: EpisodeTable, labels: IntArray) -> tuple[Callable[[Values], FloatArray], int]:
    """Return the nonconformity scores of values, and the number of held-out episodes that they were chosen on.

    For probabilities, the temperature of the first half of the episodes scales them: answers of an underconfident probe
    are told apart better by it. The other half is left for the threshold, whose guarantee needs scores that it did not
    choose.
    """
    assert held_out.values is not None
    if not are_probabilities(held_out.values):
        return partial(nonconformity, are_probabilities=False), 0
    half = len(held_out) // 2
    fitted = fit_temperature(held_out.values[:half], labels[:half], held_out.classes[:half])
    return lambda values: nonconformity(apply_temperature(values, fitted.value), are_probabilities=True), half
