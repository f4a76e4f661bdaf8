"""Finished runs as files, without any training: what `lurefs compare` reads, and nothing else."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest

from episodes.manifest import Manifest, make_manifest
from episodes.metrics import empty_reliability
from episodes.sampler import EpisodeSpec
from episodes.table import EpisodeTable
from lurefs.runs.directory import RunDirectory
from made_up_runs import write_run

LABELS = np.repeat(np.arange(6), 10).astype(np.int64)
MakeRun = Callable[..., RunDirectory]


@pytest.fixture
def make_run(tmp_path: Path) -> MakeRun:
    """Write a finished run below `tmp_path/runs`; its accuracies are those of all others and its `gain` on top.

    `controls` says by how much each control is lower, on average; it is the run's own, with some noise.
    """

    def make(
        name: str,
        *,
        gain: float = 0.0,
        seed: int = 0,
        unlearn: str = "by_saliency",
        n_episodes: int = 40,
        n_scored: int | None = None,
        n_shot: int = 1,
        episode_seed: int = 0,
        images: str = "abc",
        benchmarks: Sequence[str] = ("novel",),
        probes: Sequence[str] = ("centroid",),
        cost: dict[str, Any] | None = None,
        controls: Mapping[str, float] = MappingProxyType({}),
        folder: str = "",
    ) -> RunDirectory:
        spec = EpisodeSpec(n_way=3, n_shot=n_shot, n_query=4, n_episodes=n_episodes)
        manifest = make_manifest(LABELS, spec, seed=episode_seed, images_digest=images)
        form = {"n_way": 3, "n_shot": n_shot, "n_query": 4, "n_episodes": n_episodes, "seed": episode_seed}
        table = _table(manifest, gain, seed, n_scored or n_episodes)
        directory = write_run(
            tmp_path / "runs" / (folder or name),
            {
                "name": name,
                "seed": seed,
                "unlearn": {"name": unlearn},
                "benchmarks": dict.fromkeys(benchmarks, form),
                "probes": {probe: {"name": "nearest_centroid"} for probe in probes},
            },
            dict.fromkeys(benchmarks, dict.fromkeys(probes, table)),
            dict.fromkeys(benchmarks, manifest),
            controls={kind: dict.fromkeys(probes, _control(table, lower)) for kind, lower in controls.items()},
        )
        if cost is not None:
            directory.write_cost(cost)
        return directory

    return make


def _control(table: EpisodeTable, lower: float) -> EpisodeTable:
    noise = np.random.default_rng(11).normal(0, 0.02, len(table))
    return replace(table, accuracy=table.accuracy - lower + noise - noise.mean())


def _table(manifest: Manifest, gain: float, seed: int, n_scored: int) -> EpisodeTable:
    """Return results that vary with the episode and a little with the seed; `gain` is the chance of one more hit."""
    n = len(manifest)
    shared, own = np.random.default_rng(7), np.random.default_rng([seed, int(1000 * gain)])
    hits = shared.integers(3, 9, 200)[:n] + (own.random(200) < 0.1)[:n] + (own.random(200) < gain)[:n]
    return EpisodeTable(
        index=np.arange(n_scored),
        classes=manifest.classes[:n_scored],
        accuracy=hits[:n_scored] / 12,
        nll=np.full(n_scored, np.nan),
        brier=np.full(n_scored, np.nan),
        converged=np.ones(n_scored, dtype=bool),
        seconds=np.full(n_scored, 0.002),
        reliability=empty_reliability(),
        identity={"manifest": manifest.hash},
    )
