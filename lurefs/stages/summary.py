"""Last step of the evaluate stage: from the files of a run directory to its summary."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import lurefs
from episodes.summary import chance_level
from episodes.table import EpisodeTable
from lurefs.config.choosing import choosing_probes
from lurefs.config.fine_tuning import fixed_probes
from lurefs.config.identity import digest, run_identity
from lurefs.errors import UserError
from lurefs.runs.calibration import read_calibration
from lurefs.runs.outcomes import (
    ChunkOutcome,
    RobustnessScores,
    accuracy_changes,
    anytime_accuracy,
    changed_predictions,
    cumulative_error_rate,
    cumulative_errors,
    train_seconds,
    unlearn_seconds,
)
from lurefs.runs.summary import (
    BenchmarkSummary,
    ControlSummary,
    DuplicateCounts,
    PretrainSummary,
    ProbeSummary,
    RobustnessSummary,
    RunStatement,
    RunSummary,
    TransferabilitySummary,
    summarise_table,
)
from lurefs.stages.choosing import choice_path, read_choice
from lurefs.stages.controls import control_spread, read_controls
from lurefs.stages.duplicates import read_duplicates
from lurefs.stages.sources import source_shares
from lurefs.stages.stage import Stage
from lurefs.stages.transfer import summarise_transfers
from lurefs.stages.transferability import score_features


def write_summary(stage: Stage) -> None:
    """Compute the run's figures from its files, and write `summary.json`.

    Raises:
        UserError: A file of results is missing or damaged.
    """
    directory, config = stage.directory, stage.plan.config
    outcomes, transfers = directory.read_outcomes(), summarise_transfers(stage)
    if not outcomes and not config.frozen:
        raise UserError(
            f"there is no {directory.chunks_path}",
            "a run whose chunks are learned",
            "run 'lurefs pretrain' first, with the same --config and --run-dir",
        )
    tables = {
        name: {probe: directory.read_episodes(name, probe) for probe in config.probes} for name in stage.plan.benchmarks
    }
    seconds = sum(outcome.seconds for outcome in outcomes)
    seconds += sum(float(table.seconds.sum()) for of_probe in tables.values() for table in of_probe.values())
    seconds += sum(size.seconds for transfer in transfers.values() for size in transfer.sizes.values())
    statement = RunStatement(
        name=config.name,
        digest=digest(run_identity(config)),
        seed=config.seed,
        version=lurefs.__version__,
        seconds=seconds,
    )
    duplicates, scores = read_duplicates(stage), score_features(stage)
    directory.write_summary(
        RunSummary(
            run=statement,
            pretrain=None if config.frozen else summarise_outcomes(outcomes, strategy=config.unlearn.name),
            benchmarks={
                name: _summarise_benchmark(stage, name, found, duplicates[name], scores.get(name))
                for name, found in tables.items()
            },
            transfer=transfers,
        )
    )


def summarise_outcomes(outcomes: Sequence[ChunkOutcome], *, strategy: str) -> PretrainSummary:
    """Return the figures over all chunks; calibration, gap and robustness are those after the last one."""
    last = outcomes[-1]
    return PretrainSummary(
        strategy=strategy,
        n_chunks=len(outcomes),
        test_accuracy=[outcome.test_accuracy for outcome in outcomes],
        accuracy_changes=accuracy_changes(outcomes),
        anytime_accuracy=anytime_accuracy(outcomes),
        cumulative_errors=cumulative_errors(outcomes),
        cumulative_error_rate=cumulative_error_rate(outcomes),
        n_forgotten=sum(outcome.n_forgotten for outcome in outcomes),
        test_ece=last.test_ece,
        test_nll=last.test_nll,
        generalisation_gap=last.generalisation_gap,
        robustness=None if last.robustness is None else _summarise_robustness(last.robustness),
        changed_predictions=changed_predictions(outcomes),
        n_images_seen=sum(outcome.n_images_seen for outcome in outcomes),
        train_seconds=train_seconds(outcomes),
        unlearn_seconds=sum(map(unlearn_seconds, outcomes)),
    )


def _summarise_benchmark(
    stage: Stage,
    name: str,
    tables: Mapping[str, EpisodeTable],
    duplicates: DuplicateCounts,
    transferability: TransferabilitySummary | None,
) -> BenchmarkSummary:
    directory, benchmark = stage.directory, stage.plan.benchmarks[name]
    manifest = directory.read_manifest(name)
    words = [benchmark.spec.words(), *([benchmark.corrupt.words()] if benchmark.corrupt is not None else [])]
    return BenchmarkSummary(
        manifest=manifest.hash,
        **benchmark.spec.counts,
        form=", ".join(words),
        corrupt=benchmark.corrupt,
        n_episodes=benchmark.spec.n_episodes,
        target_ci95=benchmark.target_ci95,
        chance=chance_level(list(tables.values())[-1].classes),
        feature_spread=min(directory.read_bank(images.name).spread for images in benchmark.sides),
        probes={probe: _summarise_probe(stage, name, probe, table) for probe, table in tables.items()},
        controls={
            control: ControlSummary(
                probes={probe: _summarise_probe(stage, name, probe, table, control) for probe, table in found.items()},
                feature_spread=control_spread(stage, name, control),
            )
            for control, found in read_controls(stage, name).items()
        },
        sources=source_shares(stage.plan, benchmark, manifest),
        duplicates=duplicates,
        transferability=transferability,
    )


def _summarise_probe(stage: Stage, benchmark: str, probe: str, table: EpisodeTable, control: str = "") -> ProbeSummary:
    summary, config, directory = summarise_table(table), stage.plan.config, stage.directory
    if config.calibrate is not None and probe in fixed_probes(config) and not control:
        summary = replace(summary, calibration=read_calibration(directory, benchmark, probe).summary)
    if probe in choosing_probes(config):
        summary = replace(summary, choice=read_choice(choice_path(directory, benchmark, probe, control)))
    return summary


def _summarise_robustness(scores: RobustnessScores) -> RobustnessSummary:
    return RobustnessSummary(
        n_images=scores.n_images,
        clean_accuracy=scores.clean_accuracy,
        corruption_accuracy=scores.corruption_accuracy,
        attacks=scores.attacks,
    )
