from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml
from torch import distributed

from lurefs.config.schema import RunConfig
from lurefs.records import to_mapping
from processes import Lurefs


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """The environment of a child process: no account, one thread, modules compiled once."""
    left_out = ("WANDB", "PYTHONDONTWRITE", "UV_RUN")
    kept = {key: value for key, value in os.environ.items() if not key.startswith(left_out)}
    return {**kept, "OMP_NUM_THREADS": "1", "NETRC": str(tmp_path / "no-netrc")}


@pytest.fixture
def config_file(make_config: Callable[..., RunConfig], tmp_path: Path) -> Path:
    """The small run of the other tests as a file."""
    path = tmp_path / "small.yaml"
    path.write_text(yaml.safe_dump(to_mapping(make_config())))
    return path


@pytest.fixture
def start(environment: dict[str, str], tmp_path: Path) -> Iterator[Callable[..., Lurefs]]:
    """Start commands of lurefs in processes that have the libraries already; all have ended after the test."""
    started: list[Lurefs] = []

    def start(*arguments: object, **variables: str) -> Lurefs:
        output = tmp_path / f"output-{len(started)}.txt"
        started.append(Lurefs([str(word) for word in arguments], {**environment, **variables}, output))
        return started[-1]

    yield start
    for command in started:
        command.kill()


@pytest.fixture
def start_all(start: Callable[..., Lurefs]) -> Callable[..., list[Lurefs]]:
    """Start a command in several processes, with the variables and the store that `torchrun` gives them."""
    stores = []

    def start_all(n_processes: int, *arguments: object, **variables: str) -> list[Lurefs]:
        if n_processes == 1:
            return [start(*arguments, **variables)]
        stores.append(distributed.TCPStore("127.0.0.1", 0, None, is_master=True))
        variables |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(stores[-1].port), "WORLD_SIZE": str(n_processes)}
        variables |= {"TORCHELASTIC_USE_AGENT_STORE": "True", "TORCHELASTIC_RESTART_COUNT": "0"}
        ranks = map(str, range(n_processes))
        return [start(*arguments, **variables, RANK=rank, LOCAL_RANK=rank) for rank in ranks]

    return start_all
