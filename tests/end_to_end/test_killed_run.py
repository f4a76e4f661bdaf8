from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from lurefs.config.schema import RunConfig
from lurefs.records import to_mapping
from lurefs.runs.directory import RunDirectory
from lurefs.runs.outcomes import ChunkOutcome
from processes import Lurefs


def kill_when(has_come: Callable[[], bool], command: Lurefs) -> None:
    """Kill a command by SIGKILL at a moment that it must reach."""
    deadline = time.monotonic() + 240
    while not has_come():
        assert command.is_alive, command.output
        assert time.monotonic() < deadline
        time.sleep(0.002)
    command.kill()


def numbers(run_dir: Path) -> dict[str, Any]:
    summary = json.loads((run_dir / "summary.json").read_text())
    del summary["run"]["seconds"], summary["pretrain"]["train_seconds"], summary["pretrain"]["unlearn_seconds"]
    for probe in summary["benchmarks"]["novel-3way-1shot"]["probes"].values():
        del probe["ms_per_episode"]
    return {**summary, "weights": (run_dir / "checkpoints" / "chunk-002.json").read_text()}


def test_a_run_killed_in_its_third_chunk_ends_with_the_numbers_of_an_unbroken_one(
    config_file: Path, tmp_path: Path, start: Callable[..., Lurefs]
) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    command = ["run", "--config", config_file, "learner.epochs=20", "trackers.wandb.mode=offline", "--run-dir"]
    start(*command, whole).finish()
    chunks = killed / "chunks.jsonl"
    kill_when(lambda: chunks.exists() and len(chunks.read_text().splitlines()) == 2, start(*command, killed))
    assert len(chunks.read_text().splitlines()) == 2
    assert not (killed / "checkpoints" / "chunk-002.json").exists()
    start(*command, killed).finish()
    assert numbers(killed) == numbers(whole)


def test_a_run_killed_at_twenty_random_moments_ends_like_an_unbroken_one(
    make_config: Callable[..., RunConfig], tmp_path: Path, environment: dict[str, str]
) -> None:
    config = make_config(
        learner={"epochs": 3, "batch_size": 16},
        checkpoints={"keep": "last", "every_seconds": 0},
        after_chunk={"few_shot": False},
    )
    config_path, whole, killed = tmp_path / "small.yaml", tmp_path / "whole", tmp_path / "killed"
    config_path.write_text(yaml.safe_dump(to_mapping(config)))
    command = [sys.executable, str(Path(__file__).with_name("killing.py")), config_path, whole, killed, "20"]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
    assert result.returncode == 0, result.stderr
    for number in range(1, int(result.stdout.splitlines()[-1]) + 1):
        directory = tmp_path / f"killed-{number}"
        assert outcomes(directory) == outcomes(whole)
        for name in ("chunk-002.safetensors", "chunk-002.json"):
            assert (directory / "checkpoints" / name).read_bytes() == (whole / "checkpoints" / name).read_bytes()
        names = sorted(path.name for path in (directory / "checkpoints").iterdir())
        assert names == ["chunk-002.json", "chunk-002.resume.pt", "chunk-002.safetensors"]


def outcomes(run_dir: Path) -> list[ChunkOutcome]:
    return [
        replace(
            outcome,
            seconds=0.0,
            train_seconds=0.0,
            unlearn=outcome.unlearn and replace(outcome.unlearn, seconds=0.0),
        )
        for outcome in RunDirectory(run_dir).read_outcomes()
    ]


FROZEN = ("--shots", "1", "--way", "3", "backbone.pretrained=false", "backbone.image_size=32")
FROZEN += ("trackers.wandb.mode=disabled", "benchmarks.3way-1shot.n_episodes=50")


def test_frozen_backbones_killed_after_the_first_go_on_with_the_second(
    photos: Path, tmp_path: Path, start: Callable[..., Lurefs]
) -> None:
    def evaluate(root: Path) -> Lurefs:
        command = ["evaluate", photos, "--backbone", "test_byobnet,test_resnet", *FROZEN, "--run-dir", root]
        return start(*command, LUREFS_CACHE=f"{root}-cache")

    def accuracies(root: Path) -> list[Any]:
        summaries = [RunDirectory(root / name).read_summary() for name in ("test_byobnet", "test_resnet")]
        return [summary.benchmarks["3way-1shot"].probes["logistic_regression"].accuracy for summary in summaries]

    evaluate(tmp_path / "whole").finish()
    summary = tmp_path / "killed" / "test_byobnet" / "summary.json"
    identity = summary.with_name("identity.json")  # its files are noted last
    kill_when(lambda: summary.exists() and '"files"' in identity.read_text(), evaluate(tmp_path / "killed"))
    assert not (tmp_path / "killed" / "report.html").exists()
    written = summary.stat().st_mtime_ns
    evaluate(tmp_path / "killed").finish()
    assert summary.stat().st_mtime_ns == written
    assert accuracies(tmp_path / "killed") == accuracies(tmp_path / "whole")
    assert (tmp_path / "killed" / "report.html").exists()


def test_an_extraction_killed_anywhere_leaves_no_bank_that_looks_whole(
    photos: Path, tmp_path: Path, start: Callable[..., Lurefs]
) -> None:
    cache = tmp_path / "cache"

    def extract(run_dir: Path) -> Lurefs:
        command = ["evaluate", photos, "--backbone", "test_byobnet", *FROZEN, "--run-dir", run_dir]
        return start(*command, "learner.eval_batch_size=2", "controls=false", LUREFS_CACHE=str(cache))

    whole, killed = (tmp_path / name / "test_byobnet" / "features" / "3way-1shot" for name in ("whole", "killed"))
    extract(tmp_path / "whole").finish()
    for file in cache.rglob("checksums.bin"):
        file.write_bytes(b"")  # the images are decoded again, too
    shutil.rmtree(cache / "features")
    for has_come in (
        lambda: any(any(file.read_bytes()) for file in cache.rglob("checksums.bin")),  # it decodes
        lambda: any(killed.glob(".features*")),  # it embeds
    ):
        kill_when(has_come, extract(tmp_path / "killed"))
        assert not (killed / "bank.json").exists()
    extract(tmp_path / "killed").finish()
    bank = {"bank.json", "features.npy", "labels.npy"}
    assert {file.name for file in killed.iterdir()} == bank | {"transferability.json"}
    assert (killed / "features.npy").read_bytes() == (whole / "features.npy").read_bytes()
