"""Finished runs as files, without any training: what `lurefs compare` reads, and nothing else."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest

from episodes.manifest import Manifest, make_manifest
from episodes.metrics import empty_reliability
from episodes.sampler import EpisodeSpec
from episodes.summary import summarise, tails
from episodes.table import EpisodeTable
from lurefs.config.load import run_config
from lurefs.runs.directory import RunDirectory

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
        directory = RunDirectory(tmp_path / "runs" / (folder or name))
        spec = EpisodeSpec(n_way=3, n_shot=n_shot, n_query=4, n_episodes=n_episodes)
        manifest = make_manifest(LABELS, spec, seed=episode_seed, images_digest=images)
        form = {"n_way": 3, "n_shot": n_shot, "n_query": 4, "n_episodes": n_episodes, "seed": episode_seed}
        directory.write_config(
            run_config(
                {
                    "name": name,
                    "seed": seed,
                    "unlearn": {"name": unlearn},
                    "benchmarks": dict.fromkeys(benchmarks, form),
                    "probes": {probe: {"name": "nearest_centroid"} for probe in probes},
                }
            )
        )
        table = _table(manifest, gain, seed, n_scored or n_episodes)
        cell = {
            "accuracy": asdict(summarise(table.accuracy, table.classes)),
            "tails": asdict(tails(table.accuracy, table.classes)),
            "nll": None,
            "brier": None,
            "ece": None,
            "n_not_converged": 0,
            "ms_per_episode": 2.0,
        }
        found = {
            **form,
            "manifest": manifest.hash,
            "corrupt": None,
            "chance": 1 / 3,
            "probes": dict.fromkeys(probes, cell),
        }
        own = {name: _control(table, lower) for name, lower in controls.items()}
        found["controls"] = {
            name: {
                "probes": {
                    probe: {"accuracy": asdict(summarise(control.accuracy, control.classes))} for probe in probes
                }
            }
            for name, control in own.items()
        }
        for benchmark in benchmarks:
            for name, control in own.items():
                for probe in probes:
                    control.save(directory.control_path(benchmark, name, probe))
            manifest.save(directory.manifest_path(benchmark))
            for probe in probes:
                table.save(directory.episodes_path(benchmark, probe))
        run = {"name": name, "digest": f"digest of {name}", "seed": seed, "version": "0.1.0", "seconds": 1.0}
        directory.write_summary({"run": run, "benchmarks": dict.fromkeys(benchmarks, found)})
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
