"""A synthetic run directory, an environment without a user's settings, and a W&B server on this machine."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from episodes.metrics import empty_reliability
from episodes.table import EpisodeTable
from lurefs.config.identity import digest, run_identity
from lurefs.config.load import run_config
from lurefs.config.schema import RunConfig
from lurefs.runs.directory import RunDirectory
from lurefs.runs.outcomes import ChunkOutcome, FewShotScore, UnlearnReport
from lurefs.tracking.tracker import Tracker, start
from made_up_runs import benchmark as benchmark_of
from made_up_runs import control as control_of
from made_up_runs import outcome as outcome_of
from made_up_runs import probe as probe_of
from made_up_runs import summary as summary_of

N_CHUNKS = 3
BENCHMARK, PROBE, PLAIN_PROBE = "novel-5way-1shot", "logistic_regression", "ridge"
MANIFEST = "0123456789abcdef" * 4
SETTINGS = {
    "name": "demo",
    "chunks": {"n_chunks": N_CHUNKS},
    "benchmarks": {BENCHMARK: {"n_episodes": 250}},
    "probes": {PROBE: {}, PLAIN_PROBE: {"name": "ridge"}},
}

KILLED_AFTER_TWO_CHUNKS = """
import os, signal, sys, time
from pathlib import Path
from lurefs.tracking.tracker import start
from lurefs.runs.directory import RunDirectory

directory = RunDirectory(Path(sys.argv[1]))
outcomes = directory.read_outcomes()
directory.chunks_path.unlink()
tracker = start(directory.read_config(), directory)
for n_done in (1, 2):
    directory.write_outcomes(outcomes[:n_done])
    tracker.log_chunk(outcomes[n_done - 1])
time.sleep(float(sys.argv[2]))
os.kill(os.getpid(), signal.SIGKILL)
"""


def _sibling(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"tracking_{name}", Path(__file__).with_name(f"{name}.py"))
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


wandb_server, wandb_log = _sibling("wandb_server"), _sibling("wandb_log")


def make_outcome(chunk_index: int) -> ChunkOutcome:
    unlearn = UnlearnReport(
        strategy="by_saliency",
        n_kept=80,
        n_reset=20,
        reset_share={"fc.weight": 0.2},
        accuracy_before=0.5,
        accuracy_after=0.25,
        seconds=0.1,
    )
    score = FewShotScore(
        manifest=MANIFEST, probe=PROBE, n_episodes=50, accuracy=0.25 * (chunk_index + 1), ci95_episodes=0.01
    )
    return outcome_of(
        chunk_index,
        n_train=100 * (chunk_index + 1),
        best_epoch=1,
        train_loss=1.0,
        train_accuracy=0.5,
        n_test_errors=50 - 10 * chunk_index,
        n_forgotten=2 * chunk_index,
        unlearn=unlearn if chunk_index else None,
        few_shot={BENCHMARK: score},
        train_seconds=2.0,
        seconds=3.0,
    )


@dataclass
class FakeRun:
    """A run directory with made-up results, filled step by step as `lurefs run` does."""

    config: RunConfig
    directory: RunDirectory

    def start(self) -> Tracker:
        return start(self.config, self.directory)

    def learn(self, tracker: Tracker, *, until: int = N_CHUNKS) -> None:
        """Add the chunks that are not on disk yet."""
        for chunk_index in range(len(self.directory.read_outcomes()), until):
            outcome = make_outcome(chunk_index)
            self.directory.write_outcomes([*self.directory.read_outcomes(), outcome])
            tracker.log_chunk(outcome)

    def evaluate(self) -> None:
        """Write per-episode results and the summary."""
        probes = {}
        for number, probe in enumerate((PROBE, PLAIN_PROBE)):
            table = make_table(np.random.default_rng(number), has_probabilities=probe == PROBE)
            path = self.directory.episodes_path(BENCHMARK, probe)
            table.save(path)
            probes[probe] = probe_of(table, ece=0.0625 if probe == PROBE else None)
        controls = {
            name: control_of(dict.fromkeys(probes, probe_of(mean)))
            for name, mean in (("untrained_twin", 0.25), ("image_statistics", 0.375))
        }
        found = benchmark_of(probes, manifest=MANIFEST, controls=controls)
        outcomes = self.directory.read_outcomes()
        self.directory.write_summary(
            summary_of({BENCHMARK: found}, name="demo", outcomes=outcomes, digest=digest(run_identity(self.config)))
        )

    def go(self) -> Tracker:
        """Do all that a whole run does with its tracker."""
        tracker = self.start()
        self.learn(tracker)
        tracker.finish_pretrain()
        if not self.directory.summary_path.exists():
            self.evaluate()
        for probe in (PROBE, PLAIN_PROBE):
            tracker.log_cell(BENCHMARK, probe)
        self.directory.report_path.write_text("<html>report</html>", encoding="utf-8")
        tracker.log_report(self.directory.report_path)
        tracker.close()
        return tracker

    def be_killed_after_two_chunks(self, *, waiting: float) -> None:
        """Learn two chunks in a process of its own, which is killed `waiting` seconds later."""
        self.directory.write_outcomes([make_outcome(chunk_index) for chunk_index in range(N_CHUNKS)])
        command = [sys.executable, "-c", KILLED_AFTER_TWO_CHUNKS, str(self.directory.path), str(waiting)]
        root = str(Path(__file__).parents[2])
        ended = subprocess.run(command, check=False, env={**os.environ, "PYTHONPATH": root}, timeout=60)
        assert ended.returncode == -signal.SIGKILL
        assert len(self.directory.read_outcomes()) == 2

    @staticmethod
    def sent(row: dict[str, Any]) -> dict[str, Any]:
        """Return what was sent of a row, without what W&B adds."""
        return {key: value for key, value in row.items() if not key.startswith("_")}

    def with_wandb(self, **settings: Any) -> FakeRun:
        """Return the same run with other W&B settings."""
        config = run_config({**SETTINGS, "trackers": {"wandb": settings}})
        return FakeRun(config=config, directory=self.directory)

    def wandb_ids(self) -> list[str]:
        """Return the ids of the local W&B runs, one each folder."""
        folders = (self.directory.path / "wandb").glob("*run-*-*")
        return sorted(folder.name.split("-", 3 if folder.name.startswith("offline") else 2)[-1] for folder in folders)

    def files_elsewhere(self) -> list[Path]:
        """Return what stands beside the run directory, but for the empty home and working directory."""
        root = self.directory.path.parent
        known = {self.directory.path, root / "home", root / "work"}
        return [path for path in root.rglob("*") if path not in known and self.directory.path not in path.parents]

    def read_log(self, part: str) -> Any:
        """Read the one offline copy whose id ends with `part`."""
        (path,) = (self.directory.path / "wandb").glob(f"offline-run-*-{part}/*.wandb")
        return wandb_log.read_log(path)


def make_table(generator: np.random.Generator, *, has_probabilities: bool, n_episodes: int = 250) -> EpisodeTable:
    accuracy = generator.integers(20, 76, n_episodes) / 75
    missing = np.full(n_episodes, np.nan)
    return EpisodeTable(
        index=np.arange(n_episodes),
        classes=np.stack([generator.permutation(12)[:5] for _ in range(n_episodes)]),
        accuracy=accuracy,
        nll=2 - accuracy if has_probabilities else missing,
        brier=1 - accuracy if has_probabilities else missing,
        converged=np.ones(n_episodes, dtype=bool),
        seconds=np.full(n_episodes, 0.003),
        reliability=empty_reliability(),
    )


@pytest.fixture(autouse=True)
def user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A user with an empty home, an empty working directory and no settings for W&B; returns the home."""
    for name in [*os.environ]:
        if name.startswith("WANDB_") or name == "NETRC":
            monkeypatch.delenv(name)
    for name in ("home", "work"):
        (tmp_path / name).mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    for name in ("XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path / "work")
    yield tmp_path / "home"
    if (wandb := sys.modules.get("wandb")) is not None:
        wandb.teardown()


@pytest.fixture
def run(tmp_path: Path) -> FakeRun:
    directory = RunDirectory(tmp_path / "run")
    directory.path.mkdir()
    identity = {
        "dataset": {"name": "icons"},
        "backbone": {"name": "test_resnet", "n_parameters": 250_000, "n_features": 64, "image_size": 32},
        "versions": {"lurefs": "0.1.0"},
    }
    directory.identity_path.write_text(json.dumps(identity), encoding="utf-8")
    directory.write_cost({"n_macs": 4_000_000, "images_per_second": 500.0, "device": "cpu", "n_threads": 1})
    config = run_config(SETTINGS)
    directory.write_config(config)
    return FakeRun(config=config, directory=directory)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A W&B server that the environment names, with a key for it."""
    with wandb_server.WandbServer() as server:
        monkeypatch.setenv("WANDB_BASE_URL", server.url)
        monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
        yield server


@pytest.fixture
def comparison(tmp_path: Path, run: FakeRun) -> Path:
    """A folder as `lurefs compare` writes it, of the run and of one that was not measured."""
    row = {
        "kind": "group",
        "name": "demo",
        "benchmark": BENCHMARK,
        "probe": PROBE,
        "mean": 0.5,
        "ci95_episodes": 0.0625,
        "ci95_classes": 0.125,
        "ci95_seeds": None,
        "difference": 0.25,
        "difference_ci95_episodes": 0.125,
        "difference_ci95_classes": None,
        "difference_ci95_seeds": None,
        "p_episodes": 0.03,
        "p_classes": None,
        "p_seeds": None,
        "beats_image_statistics": False,
        "beats_untrained_twin": True,
    }
    about = {
        "run": "demo",
        "group": "demo",
        "path": str(run.directory.path),
        "digest": "0",
        "seed": 3,
        "backbone": "vit",
        "strategy": "fire",
    }
    other = {**dict.fromkeys(row), "kind": "group", "name": "other", "benchmark": BENCHMARK, "probe": PROBE}
    numbers = {
        "version": 2,
        "lurefs": "0.1.0",
        "reference": "other",
        "one_training_each": True,
        "runs": [{**about, "run": "other", "group": "other"}, about],
        "groups": [other, row],
        "controls": [{**other, "kind": "control", "name": "control: image statistics", "mean": 0.75}],
        "rows": [{**other, "kind": "run"}, {**row, "kind": "run"}],
        "pairs": [],
    }
    folder = tmp_path / "work" / "comparison"
    folder.mkdir()
    (folder / "comparison.json").write_text(json.dumps(numbers))
    (folder / "report.html").write_text("<html>compared</html>")
    return folder


@pytest.fixture
def outcome() -> Callable[[int], ChunkOutcome]:
    return make_outcome


@pytest.fixture
def table() -> EpisodeTable:
    return make_table(np.random.default_rng(0), has_probabilities=False)
