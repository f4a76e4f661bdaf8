from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any


def start(config_file: Path, run_dir: Path, environment: dict[str, str]) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "lurefs", "run", "--config", str(config_file), "--run-dir", str(run_dir)]
    command += ["learner.epochs=20", "trackers.wandb.mode=offline"]
    return subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def numbers(run_dir: Path) -> dict[str, Any]:
    summary = json.loads((run_dir / "summary.json").read_text())
    del summary["run"]["seconds"], summary["pretrain"]["train_seconds"], summary["pretrain"]["unlearn_seconds"]
    for probe in summary["benchmarks"]["novel-3way-1shot"]["probes"].values():
        del probe["ms_per_episode"]
    return {**summary, "weights": (run_dir / "checkpoints" / "chunk-002.json").read_text()}


def test_a_run_killed_in_its_third_chunk_ends_with_the_numbers_of_an_unbroken_one(
    config_file: Path, tmp_path: Path, environment: dict[str, str]
) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert start(config_file, whole, environment).wait(timeout=240) == 0
    process = start(config_file, killed, environment)
    chunks = killed / "chunks.jsonl"
    deadline = time.monotonic() + 240
    while not (chunks.exists() and len(chunks.read_text().splitlines()) == 2):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert len(chunks.read_text().splitlines()) == 2
    assert not (killed / "checkpoints" / "chunk-002.json").exists()
    assert start(config_file, killed, environment).wait(timeout=240) == 0
    assert numbers(killed) == numbers(whole)
