"""Intervals of standings over other images of the same classes, from stored answers: `compare --over images`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from episodes.arrays import FloatArray
from episodes.over_images import ImageError, correct_answers, error_over_images
from lurefs.comparing.finished_runs import Run
from lurefs.comparing.groups import groups_of
from lurefs.comparing.pairs import manifests_of
from lurefs.comparing.standing_rows import Standing
from lurefs.comparing.standings import Standings
from lurefs.errors import UserError


def with_intervals_over_images(found: Standings, runs: Sequence[Run]) -> Standings:
    """Return the standings of some runs with the intervals over images of all accuracies and differences.

    Several seeds count as the mean of these trained models. A row whose answers cannot be read says why.
    """
    groups = {group.label: group.runs for group in groups_of(runs)}
    rows = {}
    for row in found.groups:
        if row.mean is not None:
            rows[row.name, row.benchmark, row.probe] = _with_intervals(row, groups, found.reference)
    group_of = {card.run: card.group for card in found.runs if len(groups[card.group]) == 1}

    def replaced(row: Standing, name: str | None) -> Standing:
        new = rows.get((name or "", row.benchmark, row.probe))
        if new is None:
            return row
        widths = {name: getattr(new, name) for name in ("ci95_images", "difference_ci95_images")}
        return replace(row, **widths, note=new.note)

    return replace(
        found,
        groups=tuple(replaced(row, row.name) for row in found.groups),
        rows=tuple(replaced(row, group_of.get(row.name)) for row in found.rows),
    )


def _with_intervals(row: Standing, groups: Mapping[str, Sequence[Run]], reference: str | None) -> Standing:
    own = [run for run in groups[row.name] if run.accuracy(row.benchmark, row.probe) is not None]
    error = _error(row, own, [])
    if isinstance(error, str):
        return replace(row, note="; ".join(filter(None, [row.note, f"no interval over images: {error}"])))
    row = replace(row, ci95_images=error.half_width)
    if row.difference is None or reference is None:
        return row
    others = [run for run in groups[reference] if run.accuracy(row.benchmark, row.probe) is not None]
    if {run.config.seed for run in own} != {run.config.seed for run in others} and len(own) + len(others) > 2:
        return row  # the difference is over the shared seeds alone
    error = _error(row, own, others)
    return row if isinstance(error, str) else replace(row, difference_ci95_images=error.half_width)


def _error(row: Standing, runs: Sequence[Run], less: Sequence[Run]) -> ImageError | str:
    """Return the error over images of the mean of some runs, minus that of others, or why there is none."""
    benchmark, probe = row.benchmark, row.probe
    if len(manifests_of([*runs, *less], benchmark)) > 1:
        return "the runs met different episodes"
    try:
        tables = [run.directory.read_episodes(benchmark, probe, with_predicted=True) for run in [*runs, *less]]
        manifest = runs[0].manifest(benchmark)
    except UserError as error:
        return error.problem
    n_episodes = min(run.first.get(benchmark, len(table)) for run, table in zip([*runs, *less], tables, strict=True))
    manifest = manifest.prefix(n_episodes)
    if manifest.n_ways is not None:
        return "the episodes differ in their numbers of classes or images"
    predicted = [table.predicted for table in tables if table.predicted is not None]
    if len(predicted) < len(tables):
        return "the results are older than stored answers"
    correct = [correct_answers(answers[:n_episodes], manifest) for answers in predicted]
    return error_over_images(_mean(correct[: len(runs)]) - (_mean(correct[len(runs) :]) if less else 0), manifest)


def _mean(correct: Sequence[FloatArray]) -> FloatArray:
    return np.asarray(np.mean(correct, axis=0))
