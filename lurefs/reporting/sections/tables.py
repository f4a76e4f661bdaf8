"""Rows of the report's tables, as texts."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

import numpy as np

from episodes.comparison import holm
from episodes.summary import hardest_by_chance, percentile_5_by_chance
from lurefs.comparing.controls import Control, controls_of
from lurefs.comparing.estimates import Estimate, over_seeds
from lurefs.comparing.fine_tuning import FINE_TUNED_LEGEND, fine_tuned_differences, fine_tuned_texts
from lurefs.comparing.finished_runs import Run
from lurefs.comparing.groups import Group
from lurefs.comparing.pairs import clean_benchmark, loss_by_corruption
from lurefs.comparing.texts import (
    MISSING,
    count,
    duration,
    half_width,
    joined,
    number,
    p_value,
    percent,
    points,
    sign_of,
    win_tie_loss,
)
from lurefs.comparing.verdict_words import not_compared
from lurefs.comparing.verdicts import Verdict, Verdicts
from lurefs.records import Row
from lurefs.runs.outcomes import (
    ChunkOutcome,
    anytime_accuracy,
    cumulative_error_rate,
    cumulative_errors,
    mean_changed_predictions,
    train_seconds,
    unlearn_seconds,
)
from lurefs.runs.summary import ProbeSummary, known


def results(runs: Sequence[Run], benchmark: str, probe: str) -> list[Row]:
    """Return one row per run measured by the probe, then one per control, then chance."""
    found = [(run, result) for run in runs if (result := run.result(benchmark, probe)) is not None]
    if not found:
        return []
    measured = [run for run, _ in found]
    rows = [_result(run, benchmark, result) for run, result in found]
    for control in controls_of(measured, benchmark, probe):
        rows.append({**_result(control.runs[0], benchmark, control.result), "run": _control(control, measured)})
    for share, group in _chance(measured, benchmark).items():
        dashes = {name: "" if name == "hardest_class" or name.endswith("by_chance") else MISSING for name in rows[0]}
        rows.append({**dashes, "run": group, "accuracy": percent(share)})
    for row in rows[len(measured) :]:
        row["is_control"] = True
    return rows


def differences(judged: Sequence[Verdicts]) -> dict[str, list[Row]]:
    """Return probe -> differences of single trainings from the reference; their p are corrected for all pairs."""
    rows = {
        verdicts.probe: [
            _difference(verdict)
            for group in verdicts.groups
            if not group.is_pooled and (verdict := verdicts.against_reference(group.label)) is not None
        ]
        for verdicts in judged
    }
    return {probe: of_probe for probe, of_probe in rows.items() if of_probe}


def seed_rows(judged: Sequence[Verdicts]) -> dict[str, list[Row]]:
    """Return probe -> one row per group of several seeds: its mean, and its difference from the reference."""
    rows = {
        verdicts.probe: [_seed_row(group, verdicts) for group in verdicts.groups if group.is_pooled]
        for verdicts in judged
    }
    return {probe: of_probe for probe, of_probe in rows.items() if of_probe}


def corrupted(runs: Sequence[Run], benchmark: str, probes: Sequence[str]) -> dict[str, list[Row]]:
    """Return probe -> one row per run: accuracy on corrupted and on clean images of the same episodes.

    The p-values of one probe are corrected for their number. Empty if no images are corrupted, or if no benchmark has
    the same episodes with clean images.
    """
    measured = [run for run in runs if run.is_corrupted(benchmark)]
    pairs = [(run, clean) for run in measured if (clean := clean_benchmark(run, benchmark)) is not None]
    rows: dict[str, list[Row]] = {}
    for probe in probes:
        losses = [(run, clean, loss_by_corruption(run, benchmark, clean, probe)) for run, clean in pairs]
        found = [(run, clean, loss) for run, clean, loss in losses if loss is not None]
        p_values = holm([loss.p_episodes for _, _, loss in found])
        rows[probe] = [
            {
                "run": run.label,
                "clean": _mean_of_first(run, clean, probe, loss.difference.n),
                "corrupted": _mean_of_first(run, benchmark, probe, loss.difference.n),
                "difference": points(loss.difference.mean),
                "pool": percent(loss.difference.ci95_episodes),
                "classes": percent(loss.difference.ci95_classes),
                "p": p_value(p),
                "episodes": count(loss.difference.n),
            }
            for (run, clean, loss), p in zip(found, p_values, strict=True)
        ]
    return {probe: of_probe for probe, of_probe in rows.items() if of_probe}


def fine_tuned(judged: Sequence[Verdicts]) -> Row:
    """Return the table of fine-tuned probes against those on fixed features; empty if no probe is fine-tuned."""
    found = {
        verdicts.probe: fine_tuned_differences(verdicts.groups, verdicts.benchmark, verdicts.probe)
        for verdicts in judged
    }
    rows = {probe: [fine_tuned_texts(row) for row in of_probe] for probe, of_probe in found.items() if of_probe}
    if not rows:
        return {}
    return {"columns": list(next(iter(rows.values()))[0]), "rows": rows, "legend": FINE_TUNED_LEGEND}


def percent_over_seeds(fractions: Sequence[float | None]) -> str:
    """Return the mean over runs in percent, with its interval over seeds if it has one; a dash without values."""
    known = [fraction for fraction in fractions if fraction is not None]
    return in_percent(over_seeds(known), len(fractions)) if known else MISSING


def in_percent(estimate: Estimate, n_runs: int) -> str:
    """Return an estimate with its interval in percent, and the number of its runs if some are missing."""
    width = "" if estimate.half_width is None else f" {sign_of(estimate.mean)} {percent(estimate.half_width)}"
    n_known = len(estimate.values)
    return f"{percent(estimate.mean)}{width}" + (f" ({n_known} of {n_runs} seeds)" if n_known < n_runs else "")


def _mean_of_first(run: Run, benchmark: str, probe: str, n_episodes: int) -> str:
    """Return the mean over the first episodes, which two benchmarks share, in percent."""
    return percent(float(run.directory.read_episodes(benchmark, probe).accuracy[:n_episodes].mean()))


def learning_row(run: Run) -> Row:
    """Return the figures over all chunks of a run."""
    last = run.outcomes[-1]
    return {
        "run": run.label,
        "anytime": percent(anytime_accuracy(run.outcomes)),
        "last": percent(last.test_accuracy),
        "ece": percent(last.test_ece),
        "nll": number(last.test_nll, 3),
        "errors": count(cumulative_errors(run.outcomes)),
        "error_rate": percent(cumulative_error_rate(run.outcomes)),
        "gap": points(last.generalisation_gap),
        **_unlearning(run),
    }


def chunk_rows(run: Run) -> Row:
    """Return the table of a run's chunks: names of the benchmarks, and one row per chunk."""
    benchmarks = list(dict.fromkeys(name for outcome in run.outcomes for name in outcome.few_shot))
    return {"benchmarks": benchmarks, "rows": [_chunk_row(outcome, benchmarks) for outcome in run.outcomes]}


def cost_row(run: Run) -> Row:
    """Return the times of a run and the images that it saw."""
    seen = sum(outcome.n_images_seen for outcome in run.outcomes)
    unlearning = sum(map(unlearn_seconds, run.outcomes))
    return {
        "run": run.label,
        "training": duration(train_seconds(run.outcomes)) if run.outcomes else MISSING,
        "unlearning": duration(unlearning) if run.outcomes else MISSING,
        "images": count(seen) if run.outcomes else MISSING,
        "total": duration(run.summary.run.seconds),
    }


def provenance_rows(run: Run) -> list[tuple[str, str]]:
    """Return the facts that identify a run, and the command that repeats it."""
    versions = {"lurefs": run.summary.run.version, **run.identity.get("versions", {})}
    rows = {
        "Configuration": run.summary.run.digest,
        "Weights": run.identity.get("digest"),
        "Seed": run.config.seed,
        "Versions": ", ".join(f"{name} {version}" for name, version in versions.items() if version),
        "Repeat": f"lurefs run --config {shlex.quote(str(run.directory.config_path))}",
    }
    return [(name, str(value)) for name, value in rows.items() if value not in (None, "")]


def _result(run: Run, benchmark: str, result: ProbeSummary) -> Row:
    accuracy, nll, brier = known(result.accuracy), known(result.nll), known(result.brier)
    return {
        "run": run.label,
        "accuracy": percent(accuracy.mean) if accuracy else MISSING,
        "pool": half_width(accuracy.mean, accuracy.ci95_episodes) if accuracy else MISSING,
        "classes": half_width(accuracy.mean, accuracy.ci95_classes) if accuracy else MISSING,
        "percentile_5": percent(result.tails.percentile_5),
        "hardest": percent(result.tails.hardest_class_mean),
        "hardest_class": run.class_name(benchmark, result.tails.hardest_class),
        **_by_chance(run, benchmark, result),
        "is_control": False,
        "nll": number(nll.mean, 3) if nll else MISSING,
        "brier": number(brier.mean, 3) if brier else MISSING,
        "ece": percent(result.ece),
        "not_converged": count(result.n_not_converged),
        "episodes": count(accuracy.n) if accuracy else MISSING,
    }


def _by_chance(run: Run, benchmark: str, result: ProbeSummary) -> Row:
    """Return how far the worst cases would lie below the mean by chance, in points; "" where it is not known."""
    accuracy, form, n_classes = known(result.accuracy), run.benchmark(benchmark), run.n_classes(benchmark)
    row = {"percentile_5_by_chance": "", "hardest_by_chance": ""}
    if accuracy is None or form is None:
        return row
    if form.n_way is not None and form.n_query is not None:
        row["percentile_5_by_chance"] = points(-percentile_5_by_chance(accuracy.mean, form.n_way * form.n_query), 1)
    if n_classes is not None:
        below = hardest_by_chance(accuracy.std, result.tails.hardest_class_n, n_classes)
        row["hardest_by_chance"] = points(-below, 1)
    return row


def _control(control: Control, runs: Sequence[Run]) -> str:
    """Return a control's name, with its runs unless all share it."""
    name = control.name.replace("_", " ").capitalize()
    return name if len(control.runs) == len(runs) else f"{name} of {joined([run.label for run in control.runs])}"


def _chance(runs: Sequence[Run], benchmark: str) -> dict[float, str]:
    """Return chance accuracy -> its name, for each level of chance of a benchmark."""
    levels: dict[float, list[str]] = {}
    for run in runs:
        levels.setdefault(run.summary.benchmarks[benchmark].chance, []).append(run.label)
    return {level: "Chance" if len(levels) == 1 else f"Chance of {joined(labels)}" for level, labels in levels.items()}


def _difference(verdict: Verdict) -> Row:
    row: Row = {"run": verdict.group, "not_compared": not_compared(verdict)}
    if verdict.paired is not None:
        paired = verdict.paired
        row |= {
            "difference": points(paired.difference.mean),
            "pool": percent(paired.difference.ci95_episodes),
            "classes": percent(paired.difference.ci95_classes),
            "p": p_value(verdict.p.get("pool")),
            "p_classes": p_value(verdict.p.get("classes")),
            "win_tie_loss": win_tie_loss(paired),
            "correlation": number(paired.correlation, 2),
            "episodes": count(paired.difference.n),
        }
    return row


def _seed_row(group: Group, verdicts: Verdicts) -> Row:
    accuracy, verdict = verdicts.accuracies[group.label], verdicts.against_reference(group.label)
    difference = verdict.difference if verdict else None
    return {
        "group": group.label,
        "seeds": count(len(accuracy.values)),
        "accuracy": percent(accuracy.mean),
        "interval": half_width(accuracy.mean, accuracy.half_width),
        "not_compared": not_compared(verdict) if verdict else "",
        "difference": MISSING if difference is None else points(difference.mean),
        "difference_interval": percent(None if difference is None else difference.half_width),
        "p": p_value(verdict.p.get("seeds") if verdict else None),
    }


def _unlearning(run: Run) -> Row:
    """Return the means over chunks of predictions changed, drop of accuracy and epochs to recover."""
    chunks = [(outcome.unlearn, outcome.n_epochs_to_recover) for outcome in run.outcomes]
    drops = [did.accuracy_before - did.accuracy_after for did, _ in chunks if did]
    epochs = [n_epochs for did, n_epochs in chunks if did and n_epochs is not None]
    mean = number(float(np.mean(epochs)), 1) if epochs else ""
    n_never = len(drops) - len(epochs)
    return {
        "changed": percent(mean_changed_predictions(run.outcomes)),
        "drop": percent(float(np.mean(drops))) if drops else MISSING,
        "recovery": " ".join(filter(None, [mean, f"({n_never} of {len(drops)} never)" if n_never else ""])) or MISSING,
    }


def _from_to(before: float | None, after: float | None) -> str:
    return MISSING if before is None or after is None else f"{percent(before, 1)} → {percent(after, 1)}"


def _recovery(outcome: ChunkOutcome) -> str:
    if outcome.unlearn is None:
        return MISSING
    return "never" if outcome.n_epochs_to_recover is None else count(outcome.n_epochs_to_recover)


def _chunk_row(outcome: ChunkOutcome, benchmarks: Sequence[str]) -> Row:
    unlearn = outcome.unlearn
    n_weights = unlearn.n_kept + unlearn.n_reset if unlearn else 0
    few_shot = [outcome.few_shot.get(name) for name in benchmarks]
    return {
        "chunk": outcome.chunk_index + 1,
        "new": count(outcome.n_new),
        "trained": count(outcome.n_train),
        "reset": percent(unlearn.n_reset / n_weights, 1) if unlearn and n_weights else MISSING,
        "changed": percent(unlearn.changed_predictions) if unlearn else MISSING,
        "logits": number(unlearn.logit_change, 3) if unlearn else MISSING,
        "silent": _from_to(unlearn.silent_before, unlearn.silent_after) if unlearn else MISSING,
        "before": percent(unlearn.accuracy_before) if unlearn else MISSING,
        "after": percent(unlearn.accuracy_after) if unlearn else MISSING,
        "renewed": percent(unlearn.accuracy_after_new_statistics) if unlearn else MISSING,
        "recovery": _recovery(outcome),
        "val": percent(outcome.val_accuracy),
        "test": percent(outcome.test_accuracy),
        "forgotten": count(outcome.n_forgotten) if outcome.chunk_index else MISSING,
        "gained": count(outcome.n_gained) if outcome.chunk_index else MISSING,
        "gap": points(outcome.generalisation_gap),
        "ece": percent(outcome.test_ece),
        "few_shot": [
            f"{percent(score.accuracy)} {sign_of(score.accuracy)} {percent(score.ci95_episodes)}" if score else MISSING
            for score in few_shot
        ],
        "seconds": duration(outcome.seconds),
    }
