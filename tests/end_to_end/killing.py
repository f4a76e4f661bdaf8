"""Train a run whose process is killed again and again at random moments, then once to the end.

    python killing.py CONFIG WHOLE_DIR KILLED_DIR N_KILLS

Modules are imported once: each life of the run is a fork. A run that ends before it is killed is begun anew in another
directory, KILLED_DIR-1, KILLED_DIR-2 and so on; the last line printed says how many directories there are.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from pathlib import Path

import torch

from lurefs.config.load import load
from lurefs.runs.directory import RunDirectory
from lurefs.stages.plan import make_plan
from lurefs.stages.run import run_stage


def life(config_path: str, directory: Path, kill_after: float | None, how: int = signal.SIGKILL) -> bool:
    """Fork a process that pre-trains; return whether it was killed, and not done before."""
    child = os.fork()
    if child == 0:
        (run,) = load(config_path).runs.values()
        run_stage(make_plan(run), RunDirectory(directory), "pretrain")
        os._exit(0)
    if kill_after is not None:
        time.sleep(kill_after)
        os.kill(child, how)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        return True
    if os.waitstatus_to_exitcode(status) != 0:
        sys.exit(f"{directory} cannot go on")
    return False


def main(config_path: str, whole: Path, killed: Path, n_kills: int) -> None:
    torch.set_num_threads(1)
    start = time.monotonic()
    life(config_path, whole, None)
    seconds = time.monotonic() - start
    rng = random.Random(0)
    n_directories, n_killed = 1, 0
    while n_killed < n_kills:
        directory = killed.with_name(f"{killed.name}-{n_directories}")
        how = rng.choice([signal.SIGKILL, signal.SIGTERM])
        if life(config_path, directory, rng.uniform(0.02, 0.5) * seconds, how):
            n_killed += 1
        else:
            n_directories += 1
    life(config_path, killed.with_name(f"{killed.name}-{n_directories}"), None)
    print(n_directories)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4]))
