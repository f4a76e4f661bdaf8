"""Finished runs that nobody trained: their figures as records, runs of them in memory, and run directories.

Every test that needs a finished run without training one makes it here, so that what a run holds is said once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from episodes.accuracies import Accuracies
from episodes.manifest import Manifest
from episodes.summary import Summary, Tails
from episodes.table import EpisodeTable
from lurefs.comparing.finished_runs import Run
from lurefs.config.identity import digest, run_identity
from lurefs.config.load import run_config
from lurefs.config.schema import RunConfig
from lurefs.runs.directory import RunDirectory
from lurefs.runs.outcomes import ChunkOutcome
from lurefs.runs.summary import (
    BenchmarkSummary,
    ControlSummary,
    PretrainSummary,
    ProbeSummary,
    RunStatement,
    RunSummary,
    TransferSummary,
    summarise_table,
)
from lurefs.stages.summary import summarise_outcomes


def outcome(chunk_index: int = 0, **changes: Any) -> ChunkOutcome:
    """What a chunk led to: 80 % of 100 test images are named correctly."""
    values: dict[str, Any] = {
        "phase": "relearn" if chunk_index else "learn",
        "n_new": 100,
        "n_train": 100,
        "n_images_seen": 500,
        "best_epoch": 0,
        "train_loss": 0.5,
        "train_accuracy": 0.9,
        "fit_accuracy": 0.9,
        "val_accuracy": 0.5,
        "n_test_errors": 20,
        "n_test": 100,
        "test_ece": 0.125,
        "test_nll": 1.5,
        "train_seconds": 10.0,
        "seconds": 20.0,
    }
    return ChunkOutcome(chunk_index=chunk_index, **{**values, **changes})


def accuracy(mean: float, **changes: Any) -> Summary:
    """A mean over 100 episodes, ± 2 points on this pool and ± 5 on new classes."""
    return Summary(**{"mean": mean, "std": 0.1, "n": 100, "ci95_episodes": 0.02, "ci95_classes": 0.05, **changes})


def probe(found: float | Summary | EpisodeTable, **changes: Any) -> ProbeSummary:
    """The figures of a probe without probabilities: those of a table of results, or of an accuracy alone."""
    if isinstance(found, EpisodeTable):
        values = vars(summarise_table(found))
    else:
        found = found if isinstance(found, Summary) else accuracy(found)
        worst = Tails(percentile_5=0.2, hardest_class=0, hardest_class_mean=0.3, hardest_class_n=10)
        values = {"accuracy": found, "tails": worst, "nll": None, "brier": None, "ece": None, "n_not_converged": 0}
        values |= {"n_by_solver": {}, "ms_per_episode": 1.0}
    return ProbeSummary(**{**values, **changes})


def control(probes: Mapping[str, ProbeSummary], feature_spread: float | None = 0.5) -> ControlSummary:
    """The figures of a control."""
    return ControlSummary(probes=dict(probes), feature_spread=feature_spread)


def benchmark(probes: Mapping[str, ProbeSummary], **changes: Any) -> BenchmarkSummary:
    """The figures of a benchmark of 5 classes and 1 shot."""
    values = {"manifest": "0" * 64, "n_way": 5, "n_shot": 1, "n_query": 15, "n_episodes": 100, "corrupt": None}
    values |= {"target_ci95": None, "feature_spread": 0.5, "controls": {}, "probes": dict(probes), **changes}
    n_way, n_shot, n_query = (values[name] for name in ("n_way", "n_shot", "n_query"))
    values.setdefault("form", f"{n_way}-way {n_shot}-shot, {n_query} queries per class")
    values.setdefault("chance", 1 / n_way)
    return BenchmarkSummary(**values)


def summary(
    benchmarks: Mapping[str, BenchmarkSummary] | None = None,
    *,
    name: str = "lure",
    outcomes: Sequence[ChunkOutcome] = (),
    pretrain: Mapping[str, Any] | None = None,
    transfer: Mapping[str, TransferSummary] | None = None,
    **run: Any,
) -> RunSummary:
    """The figures of a run: of its outcomes those that follow from them, but for changes in `pretrain`."""
    strategy = "by_saliency"
    figures = {**vars(summarise_outcomes(outcomes or [outcome()], strategy=strategy)), **(pretrain or {})}
    stated = {"digest": f"digest of {name}", "seed": 0, "version": "0.1.0", "seconds": 1.0, **run}
    return RunSummary(
        run=RunStatement(name=name, **stated),
        pretrain=PretrainSummary(**figures),
        benchmarks=dict(benchmarks or {}),
        transfer=dict(transfer or {}),
    )


def run_in_memory(
    config: RunConfig | Mapping[str, Any],
    benchmarks: Mapping[str, BenchmarkSummary] | None = None,
    *,
    outcomes: Sequence[ChunkOutcome] = (),
    **changes: Any,
) -> Run:
    """A finished run of which nothing is on disk."""
    if not isinstance(config, RunConfig):
        config = run_config(dict(config))
    values = {
        "label": config.name,
        "directory": RunDirectory(Path("nowhere")),
        "summary": summary(benchmarks, name=config.name, outcomes=outcomes, digest=digest(run_identity(config))),
        "identity": {},
    }
    run = Run(config=config, outcomes=outcomes, **{**values, **changes})
    for name, found in run.summary.benchmarks.items():
        for by, figures in found.probes.items():
            if isinstance(figures.accuracy, Summary):
                run._accuracies[name, by] = _constant(figures.accuracy.mean, found.manifest)
    return run


def _constant(mean: float, manifest: str) -> Accuracies:
    """The accuracies of two episodes that are equal."""
    classes = np.array([[0, 1], [2, 3]])
    return Accuracies(index=np.arange(2), classes=classes, accuracy=np.full(2, mean), identity={"manifest": manifest})


def write_run(
    path: Path,
    config: Mapping[str, Any],
    results: Mapping[str, Mapping[str, EpisodeTable]],
    manifests: Mapping[str, Manifest],
    *,
    controls: Mapping[str, Mapping[str, EpisodeTable]] | None = None,
    outcomes: Sequence[ChunkOutcome] = (),
    seconds: float = 1.0,
    **probes: Any,
) -> RunDirectory:
    """Write the files of a finished run, but for weights, features and identity.

    Args:
        path: The directory.
        config: Its settings.
        results: Benchmark -> probe -> results.
        manifests: Benchmark -> episodes.
        controls: Control -> probe -> results, on every benchmark; none by default.
        outcomes: Its chunks; none are written by default.
        seconds: What it took.
        probes: Changes of the figures of every probe.
    """
    directory, run = RunDirectory(path), run_config(dict(config))
    directory.write_config(run)
    if outcomes:
        directory.write_outcomes(outcomes)
    benchmarks = {}
    for name, of_probe in results.items():
        manifest = manifests[name]
        manifest.save(directory.manifest_path(name))
        for by, table in of_probe.items():
            table.save(directory.episodes_path(name, by))
        for kind, of_control in (controls or {}).items():
            for by, table in of_control.items():
                table.save(directory.control_path(name, kind, by))
        benchmarks[name] = benchmark(
            {by: probe(table, **probes) for by, table in of_probe.items()},
            manifest=manifest.hash,
            n_episodes=len(manifest),
            controls={
                kind: control({by: probe(table) for by, table in of_control.items()})
                for kind, of_control in (controls or {}).items()
            },
            **manifest.spec.counts,
        )
    stated = {"digest": digest(run_identity(run)), "seed": run.seed, "seconds": seconds}
    directory.write_summary(summary(benchmarks, name=run.name, outcomes=outcomes, **stated))
    return directory


def change_benchmark(directory: RunDirectory, name: str, **changes: Any) -> None:
    """Store other figures of a benchmark."""
    found = directory.read_summary()
    changed = replace(found.benchmarks[name], **changes)
    directory.write_summary(replace(found, benchmarks={**found.benchmarks, name: changed}))


def change_probe(directory: RunDirectory, name: str, by: str, **changes: Any) -> None:
    """Store other figures of a probe on a benchmark."""
    probes = directory.read_summary().benchmarks[name].probes
    change_benchmark(directory, name, probes={**probes, by: replace(probes[by], **changes)})
