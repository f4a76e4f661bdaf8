"""A run whose episodes are scored by other processes, interrupted while they score."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import yaml

from lurefs.config.schema import RunConfig
from lurefs.records import to_mapping


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_processes_of_joblib_end_without_a_word(
    number: signal.Signals, make_config: Callable[..., RunConfig], tmp_path: Path, environment: dict[str, str]
) -> None:
    form = {"n_way": 3, "n_shot": 1, "n_query": 5, "n_episodes": 100_000}
    config = make_config(
        executor={"name": "joblib", "params": {"n_workers": 2}},
        frozen=True,
        backbone={"name": "test_byobnet", "image_size": 32, "pretrained": False},
        benchmarks={"novel-3way-1shot": form},
    )
    path = tmp_path / "small.yaml"
    path.write_text(yaml.safe_dump(to_mapping(config)))
    command = [sys.executable, "-m", "lurefs", "run", "--config", str(path), "--run-dir", str(tmp_path / "run")]
    with subprocess.Popen(
        command,
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),  # tests in the background ignore it
    ) as process:
        while not _has_workers(process.pid):
            assert process.poll() is None
            time.sleep(0.05)
        os.killpg(process.pid, number) if number == signal.SIGINT else process.send_signal(number)
        _, errors = process.communicate(timeout=60)  # it returns when the workers have ended, too
    assert process.returncode == 128 + number
    assert errors.splitlines()[-2].startswith("interrupted: all that was finished is kept")
    assert "Traceback" not in errors and "resource_tracker" not in errors


def _has_workers(parent: int) -> bool:
    """Return whether a process of joblib has started that scores."""
    listed = subprocess.run(["ps", "-o", "args=", "--ppid", str(parent)], capture_output=True, text=True).stdout
    return "popen_loky" in listed
