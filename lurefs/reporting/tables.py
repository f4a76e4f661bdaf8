"""The rows of the report's tables: one function a row, numbers as people read them."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import Any

from lurefs.outcomes import ChunkOutcome
from lurefs.reporting.comparison import Comparison, Run, summary_of, train_seconds
from lurefs.reporting.wording import MISSING, count, duration, number, percent, points

Row = dict[str, Any]


def results(runs: Sequence[Run], benchmark: str, probe: str) -> list[Row]:
    """Return one row a run that the probe measured."""
    return [_result(run, benchmark, probe) for run in runs if run.result(benchmark, probe)]


def differences(comparisons: Sequence[Comparison]) -> dict[str, list[Row]]:
    """Return one row a paired difference, by probe."""
    rows: dict[str, list[Row]] = {}
    for comparison in comparisons:
        rows.setdefault(comparison.probe, []).append(_difference(comparison))
    return rows


def both_measured(comparison: Comparison) -> bool:
    """Return whether run and reference were both measured."""
    return all(run.result(comparison.benchmark, comparison.probe) for run in (comparison.run, comparison.reference))


def learning_row(run: Run) -> Row:
    """Return what a run's chunks led to, all in all."""
    pretrain = run.summary.get("pretrain", {})
    last = run.outcomes[-1]
    return {
        "run": run.label,
        "anytime": percent(pretrain.get("anytime_accuracy")),
        "last": percent(last.test_accuracy),
        "ece": percent(last.test_ece),
        "nll": number(last.test_nll, 3),
        "errors": count(pretrain.get("cumulative_errors")),
        "error_rate": percent(pretrain.get("cumulative_error_rate")),
    }


def chunk_rows(run: Run) -> Row:
    """Return the chunks of a run as a table: names of the benchmarks, and one row a chunk."""
    benchmarks = list(dict.fromkeys(name for outcome in run.outcomes for name in outcome.few_shot))
    return {"benchmarks": benchmarks, "rows": [_chunk_row(outcome, benchmarks) for outcome in run.outcomes]}


def cost_row(run: Run) -> Row:
    """Return what a run cost."""
    seen = sum(outcome.n_images_seen for outcome in run.outcomes)
    unlearning = sum(outcome.unlearn.seconds for outcome in run.outcomes if outcome.unlearn)
    return {
        "run": run.label,
        "training": duration(train_seconds(run)) if run.outcomes else MISSING,
        "unlearning": duration(unlearning) if run.outcomes else MISSING,
        "images": count(seen) if run.outcomes else MISSING,
        "total": duration(run.summary.get("run", {}).get("seconds")),
    }


def provenance_rows(run: Run) -> list[tuple[str, str]]:
    """Return what a run was made with."""
    stated = run.summary.get("run", {})
    versions = {"lurefs": stated.get("version"), **run.identity.get("versions", {})}
    rows = {
        "Configuration": stated.get("digest"),
        "Weights": run.identity.get("digest"),
        "Seed": run.config.seed,
        "Versions": ", ".join(f"{name} {version}" for name, version in versions.items() if version),
        "Repeat": f"lurefs run --config {shlex.quote(str(run.directory.config_path))}",
    }
    return [(name, str(value)) for name, value in rows.items() if value not in (None, "")]


def _result(run: Run, benchmark: str, probe: str) -> Row:
    values = run.result(benchmark, probe) or {}
    accuracy = summary_of(values.get("accuracy"))
    nll, brier = summary_of(values.get("nll")), summary_of(values.get("brier"))
    return {
        "run": run.label,
        "accuracy": percent(accuracy.mean) if accuracy else MISSING,
        "pool": percent(accuracy.ci95_episodes) if accuracy else MISSING,
        "classes": percent(accuracy.ci95_classes) if accuracy else MISSING,
        "nll": number(nll.mean, 3) if nll else MISSING,
        "brier": number(brier.mean, 3) if brier else MISSING,
        "ece": percent(values.get("ece")),
        "not_converged": count(values.get("n_not_converged")),
        "episodes": count(accuracy.n) if accuracy else MISSING,
    }


def _difference(comparison: Comparison) -> Row:
    row: Row = {"run": comparison.run.label, "not_paired": comparison.not_paired}
    if comparison.paired is not None:
        paired = comparison.paired
        row |= {
            "difference": points(paired.difference.mean),
            "pool": percent(paired.difference.ci95_episodes),
            "classes": percent(paired.difference.ci95_classes),
            "win_tie_loss": f"{count(paired.n_wins)} / {count(paired.n_ties)} / {count(paired.n_losses)}",
            "correlation": number(paired.correlation, 2),
        }
    return row


def _chunk_row(outcome: ChunkOutcome, benchmarks: Sequence[str]) -> Row:
    unlearn = outcome.unlearn
    n_weights = unlearn.n_kept + unlearn.n_reset if unlearn else 0
    few_shot = [outcome.few_shot.get(name) for name in benchmarks]
    return {
        "chunk": outcome.chunk_index + 1,
        "new": count(outcome.n_new),
        "trained": count(outcome.n_train),
        "reset": percent(unlearn.n_reset / n_weights, 1) if unlearn and n_weights else MISSING,
        "before": percent(unlearn.accuracy_before) if unlearn else MISSING,
        "after": percent(unlearn.accuracy_after) if unlearn else MISSING,
        "val": percent(outcome.val_accuracy),
        "test": percent(outcome.test_accuracy),
        "ece": percent(outcome.test_ece),
        "few_shot": [
            f"{percent(score.accuracy)} ± {percent(score.ci95_episodes)}" if score else MISSING for score in few_shot
        ],
        "seconds": duration(outcome.seconds),
    }
