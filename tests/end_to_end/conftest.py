from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from lurefs.config.schema import RunConfig
from lurefs.records import to_mapping


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
