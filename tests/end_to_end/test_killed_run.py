from __future__ import annotations

import json
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from lurefs.config.schema import RunConfig
from lurefs.records import to_mapping
from lurefs.runs.directory import RunDirectory
from lurefs.runs.outcomes import ChunkOutcome
from processes import Lurefs

KILLED = """
import os, signal, sys
from importlib import import_module
from operator import attrgetter
from lurefs.cli import main

module, _, path = sys.argv[1].partition(":")
*owner, name = path.split(".")
owner = attrgetter(".".join(owner))(import_module(module)) if owner else import_module(module)
function, n_calls, pid = getattr(owner, name), int(sys.argv[2]), os.getpid()

def counted(*arguments, **settings):
    global n_calls
    n_calls -= 1
    if n_calls == 0 and os.getpid() == pid:
        os.kill(pid, signal.SIGKILL)
    elif n_calls == 0:
        os.killpg(pid, signal.SIGKILL)  # otherwise this one would go on
    return function(*arguments, **settings)

setattr(owner, name, counted)
main(sys.argv[3:])
"""


@pytest.fixture
def kill_at(tmp_path: Path, start: Callable[..., Lurefs]) -> Callable[..., None]:
    """Run a command that is killed when it, or a process that it started, calls a function for the n-th time."""
    script = tmp_path / "killed.py"
    script.write_text(KILLED)

    def kill_at(function: str, n_calls: int, *command: object, **variables: str) -> None:
        process = start(script, function, n_calls, *command, **variables)
        assert process.wait() == -signal.SIGKILL, process.output

    return kill_at


def numbers(run_dir: Path) -> dict[str, Any]:
    summary = json.loads((run_dir / "summary.json").read_text())
    del summary["run"]["seconds"], summary["pretrain"]["train_seconds"], summary["pretrain"]["unlearn_seconds"]
    for probe in summary["benchmarks"]["novel-3way-1shot"]["probes"].values():
        del probe["ms_per_episode"]
    return {**summary, "weights": (run_dir / "checkpoints" / "chunk-002.json").read_text()}


def test_a_run_killed_in_its_third_chunk_ends_with_the_numbers_of_an_unbroken_one(
    config_file: Path, tmp_path: Path, start: Callable[..., Lurefs], kill_at: Callable[..., None]
) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    command = ["run", "--config", config_file, "learner.epochs=3", "trackers.wandb.mode=offline", "--run-dir"]
    start(*command, whole).finish()
    kill_at("lurefs.learning.learner:_train_epoch", 8, *command, killed)  # the second epoch
    assert len((killed / "chunks.jsonl").read_text().splitlines()) == 2
    assert not (killed / "checkpoints" / "chunk-002.json").exists()
    start(*command, killed).finish()
    assert numbers(killed) == numbers(whole)


def test_a_run_killed_at_twenty_random_moments_ends_like_an_unbroken_one(
    make_config: Callable[..., RunConfig], tmp_path: Path, start: Callable[..., Lurefs]
) -> None:
    config = make_config(
        learner={"epochs": 3, "batch_size": 16},
        checkpoints={"keep": "last", "every_seconds": 0},
        after_chunk={"few_shot": False},
    )
    config_path, whole, killed = tmp_path / "small.yaml", tmp_path / "whole", tmp_path / "killed"
    config_path.write_text(yaml.safe_dump(to_mapping(config)))
    said = start(Path(__file__).with_name("killing.py"), config_path, whole, killed, 20).finish()
    for number in range(1, int(said.splitlines()[-1]) + 1):
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
    photos: Path, tmp_path: Path, start: Callable[..., Lurefs], kill_at: Callable[..., None]
) -> None:
    command = ["evaluate", photos, "--backbone", "test_byobnet,test_resnet", *FROZEN, "--run-dir"]
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    names = ("test_byobnet", "test_resnet")

    def accuracies(root: Path) -> list[Any]:
        summaries = [RunDirectory(root / name).read_summary() for name in names]
        return [summary.benchmarks["3way-1shot"].probes["logistic_regression"].accuracy for summary in summaries]

    start(*command, whole).finish()
    cache = str(tmp_path / "cache of the killed one")
    kill_at("lurefs.stages.run:evaluate", 2, *command, killed, LUREFS_CACHE=cache)
    summary = killed / "test_byobnet" / "summary.json"
    assert [(killed / name / "summary.json").exists() for name in names] == [True, False]
    assert not (killed / "report.html").exists()
    written = summary.stat().st_mtime_ns
    start(*command, killed, LUREFS_CACHE=cache).finish()
    assert summary.stat().st_mtime_ns == written
    assert accuracies(killed) == accuracies(whole)
    assert (killed / "report.html").exists()


def test_an_extraction_killed_anywhere_leaves_no_bank_that_looks_whole(
    photos: Path, tmp_path: Path, start: Callable[..., Lurefs], kill_at: Callable[..., None]
) -> None:
    cache = tmp_path / "cache"
    command = ["evaluate", photos, "--backbone", "test_byobnet", *FROZEN, "controls=false"]
    command += ["learner.eval_batch_size=2", "--run-dir"]
    whole, killed = (tmp_path / name / "test_byobnet" / "features" / "3way-1shot" for name in ("whole", "killed"))
    start(*command, tmp_path / "whole", LUREFS_CACHE=str(tmp_path / "another cache")).finish()

    kill_at("lurefs.data.decoded:DecodedImages._try", 10, *command, tmp_path / "killed", LUREFS_CACHE=str(cache))
    (checksums,) = cache.rglob("checksums.bin")
    assert any(checksums.read_bytes()) and b"\0" * 8 in checksums.read_bytes()  # some are decoded
    assert not (killed / "bank.json").exists()
    kill_at("lurefs.learning.backbones:Backbone.embed", 20, *command, tmp_path / "killed", LUREFS_CACHE=str(cache))
    assert any(killed.glob(".features*")) and not (killed / "bank.json").exists()
    run_dir = tmp_path / "killed" / "test_byobnet"
    kill_at("lurefs.stages.feature_store:give", 1, *command, tmp_path / "killed", LUREFS_CACHE=str(cache))
    assert (killed / "bank.json").exists() and (run_dir / "cost.json").exists()  # a whole bank is not embedded again

    start(*command, tmp_path / "killed", LUREFS_CACHE=str(cache)).finish()
    bank = {"bank.json", "features.npy", "labels.npy"}
    assert {file.name for file in killed.iterdir()} == bank | {"transferability.json"}
    assert (killed / "features.npy").read_bytes() == (whole / "features.npy").read_bytes()
