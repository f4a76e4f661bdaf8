"""One thread a process (two are far slower on small work), no account, no network, small data for every test."""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = "1"
for name in ("WANDB_API_KEY", "WANDB_MODE", "WANDB_DISABLED"):
    os.environ.pop(name, None)
for name in ("COLUMNS", "LINES"):  # pytest imports readline, which sets them for child processes, not in os.environ
    os.environ.pop(name, None)
    os.unsetenv(name)

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lurefs import plugins
from lurefs.config.load import run_config
from lurefs.config.schema import RunConfig
from lurefs.data.dataset import ImageDataset


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    import torch

    torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def cache_folder(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Keep decoded images of the tests, and of the commands that they start, out of the user's cache."""
    os.environ["LUREFS_CACHE"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="session", autouse=True)
def own_code() -> None:
    """Plug-ins of the tests need no permission."""
    plugins._permitted["tests"] = __file__


@pytest.fixture
def make_dataset() -> Callable[..., ImageDataset]:
    """Build a data set whose images are noise around one brightness a class."""

    def make(
        n_classes: int = 6, n_per_class: int = 20, size: int = 8, n_sources: int = 4, channels: int = 1
    ) -> ImageDataset:
        labels = np.repeat(np.arange(n_classes), n_per_class).astype(np.int64)
        rng = np.random.default_rng(0)
        level = (labels * (255 // n_classes))[:, None, None, None]
        images = np.clip(level + rng.integers(0, 40, (len(labels), size, size, channels)), 0, 255).astype(np.uint8)
        return ImageDataset(
            name="made",
            labels=labels,
            class_names=tuple(f"class-{label}" for label in range(n_classes)),
            image_ids=tuple(f"{label}/{row}" for row, label in enumerate(labels)),
            sources=(np.arange(len(labels)) % n_sources).astype(np.int64),
            source_names=tuple(f"source-{source}" for source in range(n_sources)),
            image_size=size,
            n_channels=channels,
            identity={"name": "made", "n_classes": n_classes, "n_per_class": n_per_class, "size": size},
            read=lambda rows: images[rows],
        )

    return make


@pytest.fixture
def npz_path(tmp_path: Path, make_dataset: Callable[..., ImageDataset]) -> Path:
    """A small data set as a file: 8 classes of 24 grey images of 8 x 8 pixels."""
    dataset = make_dataset(n_classes=8, n_per_class=24)
    path = tmp_path / "images.npz"
    np.savez(path, images=dataset.read(np.arange(len(dataset))), labels=dataset.labels)
    return path


@pytest.fixture
def make_config(npz_path: Path) -> Callable[..., RunConfig]:
    """Build the configuration of a run of seconds; keywords win over its settings, key by key at the top level."""

    def make(**changes: Any) -> RunConfig:
        values: dict[str, Any] = {
            "name": "small",
            "dataset": {"name": "npz", "params": {"path": str(npz_path)}},
            "class_split": {"base": 0.5, "validation": 0.0, "novel": 0.5},
            "chunks": {"n_chunks": 3},
            "backbone": {"name": "test_byobnet", "image_size": 32},
            "learner": {"epochs": 2, "batch_size": 16},
            "benchmarks": {"novel-3way-1shot": {"n_way": 3, "n_shot": 1, "n_query": 5, "n_episodes": 20}},
            "after_chunk": {"n_episodes": 10},
            "controls": False,
            "trackers": {"wandb": {"mode": "disabled"}},
        }
        return run_config({**values, **changes})

    return make


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder of 6 classes of 8 colour images, wide and tall, each class around a colour of its own."""
    from PIL import Image

    rng = np.random.default_rng(0)
    for label in range(6):
        folder = tmp_path / "my photos" / f"class {label}"
        folder.mkdir(parents=True)
        for number in range(8):
            shape = (40, 56 + number, 3) if number % 2 else (56 + number, 40, 3)
            pixels = np.clip(rng.integers(0, 160, shape) + np.array([label * 15, 90 - label * 15, 20]), 0, 255)
            Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{number}.png")
    return tmp_path / "my photos"


@pytest.fixture
def weights_path(tmp_path: Path) -> Path:
    """A file of two copies of weights for test_byobnet, as timm's training script stores them."""
    import timm
    import torch

    with torch.random.fork_rng():
        torch.manual_seed(0)
        state = timm.create_model("test_byobnet", num_classes=10).state_dict()
    path = tmp_path / "trained.pth"
    torch.save({"epoch": 3, "arch": "test_byobnet", "state_dict": state, "state_dict_ema": state}, path)
    return path
