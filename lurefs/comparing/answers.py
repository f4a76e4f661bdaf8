"""Answers of a run to every query of a benchmark, for the sections on episodes and on classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from episodes.image_names import Images
from episodes.manifest import Manifest
from lurefs.comparing.finished_runs import Run, benchmarks_of, best_run
from lurefs.errors import UserError


@dataclass(frozen=True, kw_only=True)
class Answers:
    """Answers of one run by one probe.

    Attributes:
        run: The run.
        benchmark: The benchmark's name.
        probe: The probe's name.
        manifest: The episodes.
        images: Names of the manifest's images and classes.
        accuracy: (n_episodes,) float64 of the scored episodes, perhaps only the first of the manifest.
        predicted: (n_episodes, n_query) int16, see `EpisodeTable.predicted`.
    """

    run: Run
    benchmark: str
    probe: str
    manifest: Manifest
    images: Images
    accuracy: NDArray[np.float64]
    predicted: NDArray[np.int16]


def read_answers(run: Run, benchmark: str, probe: str) -> Answers:
    """Return the answers of a run.

    Raises:
        UserError: A file is missing or damaged, or is older than stored answers.
    """
    table = run.directory.read_episodes(benchmark, probe, with_predicted=True)
    if table.predicted is None:
        raise UserError(
            f"the results of {run.label} on {benchmark} are older than stored answers",
            "results with the answer to every query",
            f"delete {run.directory.episodes_path(benchmark, probe)} and run 'lurefs evaluate' again",
        )
    manifest = run.directory.read_manifest(benchmark)
    return Answers(
        run=run,
        benchmark=benchmark,
        probe=probe,
        manifest=manifest,
        images=manifest.images or run.directory.read_bank(benchmark),
        accuracy=table.accuracy,
        predicted=table.predicted,
    )


def shown_of(runs: Sequence[Run], n_most: int) -> list[tuple[Run, str, str]]:
    """Return the best run, first benchmark and first probe of each of the first `n_most` pools of classes.

    Benchmarks that draw from the same classes share a pool.
    """
    found: dict[str, tuple[Run, str, str]] = {}
    for benchmark, probes in benchmarks_of(runs).items():
        run = best_run(runs, benchmark, probes[0]) if probes else None
        if run is None or benchmark not in run.config.benchmarks:
            continue
        config = run.config.benchmarks[benchmark]
        pool = f"{config.classes} of {config.dataset or run.config.dataset}"
        found.setdefault(pool, (run, benchmark, probes[0]))
    return list(found.values())[:n_most]
