"""The third stage: score the probes on the benchmarks' episodes, and compute the run's figures."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

import lurefs
from episodes.probes import Probe
from episodes.summary import chance_level, summarise, tails
from episodes.table import EpisodeTable
from lurefs import plugins
from lurefs.config.schema import digest, run_identity
from lurefs.errors import UserError
from lurefs.runs.directory import REFERENCE
from lurefs.runs.outcomes import (
    ChunkOutcome,
    accuracy_changes,
    anytime_accuracy,
    changed_predictions,
    cumulative_error_rate,
    cumulative_errors,
    unlearn_seconds,
)
from lurefs.stages.cell import Cell, score_cell
from lurefs.stages.controls import control_spread, read_controls, score_controls
from lurefs.stages.identity import result_identity
from lurefs.stages.plan import Benchmark
from lurefs.stages.stage import Stage, make_probe, probes_need_reference, read_or_draw_manifest
from lurefs.stages.transfer import evaluate_transfers, summarise_transfers


def evaluate(stage: Stage) -> None:
    """Score every probe on every benchmark's episodes; results that are there and fit are kept.

    Raises:
        UserError: A benchmark's features were not extracted, or a probe cannot be fitted.
    """
    plan, directory = stage.plan, stage.directory
    executor = plugins.build("executor", plan.config.executor.name, plan.config.executor.params)
    reference = directory.read_bank(REFERENCE).features if probes_need_reference(plan) else None
    probes = [make_probe(name, config, reference) for name, config in plan.config.probes.items()]
    for name, benchmark in plan.benchmarks.items():
        for cell in _cells(stage, benchmark, probes):
            path = directory.episodes_path(name, cell.probe.name)
            if not path.exists() or directory.read_episodes(name, cell.probe.name).identity != cell.identity:
                score_cell(cell, executor, stage.device).save(path)
    score_controls(stage, executor)
    evaluate_transfers(stage)
    write_summary(stage)
    for name in plan.benchmarks:
        for probe in probes:
            stage.tracker.log_cell(name, probe.name)
    for name in plan.config.transfer:
        stage.tracker.log_transfer(name)


def _cells(stage: Stage, benchmark: Benchmark, probes: Sequence[Probe]) -> list[Cell]:
    """Return what there is to score on a benchmark, by the features that were extracted."""
    read = {name: stage.directory.read_bank(name) for name in {images.name for images in benchmark.sides}}
    bank, query_bank = (read[images.name] for images in benchmark.sides)
    manifest = read_or_draw_manifest(stage, benchmark)
    if {bank.images_digest, query_bank.images_digest} != {manifest.images_digest}:
        raise UserError(
            f"the features of benchmark {benchmark.name!r} are of other images than its episodes",
            "features and episodes of one configuration",
            "run 'lurefs extract' first",
        )
    digests = digest(dict(bank.identity)), digest(dict(query_bank.identity))
    return [
        Cell(
            benchmark=benchmark.name,
            manifest=manifest,
            probe=probe,
            banks=(bank, query_bank),
            identity=result_identity(benchmark, manifest, probe, digests),
            target_ci95=benchmark.target_ci95,
        )
        for probe in probes
    ]


def write_summary(stage: Stage) -> dict[str, Any]:
    """Compute the run's figures from its files, and store them."""
    directory, config = stage.directory, stage.plan.config
    outcomes = directory.read_outcomes()
    seconds = sum(outcome.seconds for outcome in outcomes)
    benchmarks = {}
    for name, benchmark in stage.plan.benchmarks.items():
        probes = {}
        for probe_name in config.probes:
            table = directory.read_episodes(name, probe_name)
            seconds += float(table.seconds.sum())
            probes[probe_name] = summarise_table(table)
        benchmarks[name] = {
            "manifest": directory.read_manifest(name).hash,
            **benchmark.spec.counts,
            "form": ", ".join(
                [benchmark.spec.words(), *([benchmark.corrupt.words()] if benchmark.corrupt is not None else [])]
            ),
            "corrupt": benchmark.corrupt and asdict(benchmark.corrupt),
            "n_episodes": benchmark.spec.n_episodes,
            "target_ci95": benchmark.target_ci95,
            "chance": chance_level(table.classes),
            "feature_spread": min(directory.read_bank(images.name).spread for images in benchmark.sides),
            "probes": probes,
            "controls": {
                control: {
                    "probes": {probe: summarise_table(found) for probe, found in tables.items()},
                    "feature_spread": control_spread(stage, name, control),
                }
                for control, tables in read_controls(stage, name).items()
            },
        }
    transfers = summarise_transfers(stage)
    seconds += sum(size["seconds"] for transfer in transfers.values() for size in transfer["sizes"].values())
    summary = {
        "run": {
            "name": config.name,
            "digest": digest(run_identity(config)),
            "seed": config.seed,
            "version": lurefs.__version__,
            "seconds": seconds,
        },
        "pretrain": {"strategy": config.unlearn.name, **summarise_outcomes(outcomes)},
        "benchmarks": benchmarks,
        **({"transfer": transfers} if transfers else {}),
    }
    directory.write_summary(summary)
    return summary


def summarise_outcomes(outcomes: Sequence[ChunkOutcome]) -> dict[str, Any]:
    """Return the figures of the chunks: over all of them, and calibration, gap and robustness after the last one."""
    last = outcomes[-1]
    robustness = last.robustness
    return {
        "n_chunks": len(outcomes),
        "test_accuracy": [outcome.test_accuracy for outcome in outcomes],
        "accuracy_changes": accuracy_changes(outcomes),
        "anytime_accuracy": anytime_accuracy(outcomes),
        "cumulative_errors": cumulative_errors(outcomes),
        "cumulative_error_rate": cumulative_error_rate(outcomes),
        "n_forgotten": sum(outcome.n_forgotten for outcome in outcomes),
        "test_ece": last.test_ece,
        "test_nll": last.test_nll,
        "generalisation_gap": last.generalisation_gap,
        "robustness": None
        if robustness is None
        else {
            "n_images": robustness.n_images,
            "clean_accuracy": robustness.clean_accuracy,
            "corruption_accuracy": robustness.corruption_accuracy,
            "attacks": robustness.attacks,
        },
        "changed_predictions": changed_predictions(outcomes),
        "n_images_seen": sum(outcome.n_images_seen for outcome in outcomes),
        "train_seconds": sum(outcome.train_seconds for outcome in outcomes),
        "unlearn_seconds": sum(map(unlearn_seconds, outcomes)),
    }


def summarise_table(table: EpisodeTable) -> dict[str, Any]:
    """Return the figures of one probe on one benchmark; null where the classifier has no probabilities."""

    def figures(values: NDArray[np.float64]) -> dict[str, Any] | None:
        return asdict(summarise(values, table.classes)) if np.isfinite(values).all() else None

    ece = table.reliability.ece
    return {
        "accuracy": figures(table.accuracy),
        "tails": asdict(tails(table.accuracy, table.classes)),
        "nll": figures(table.nll),
        "brier": figures(table.brier),
        "ece": None if math.isnan(ece) else ece,
        "n_not_converged": int((~table.converged).sum()),
        "n_by_solver": table.n_by_solver,
        "ms_per_episode": float(table.seconds.mean() * 1000),
    }
