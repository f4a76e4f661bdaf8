"""A bad input, and the valid files from which bad ones are made."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from bad_input_kinds.running import say


@dataclass(frozen=True, kw_only=True)
class Case:
    """One bad input.

    Attributes:
        name: In words.
        commands: The arguments of each command to try.
        is_meaningless: Whether a command that finishes has taken something that means nothing.
        folders: Runs that were made for it, deleted afterwards.
    """

    name: str
    commands: list[list[str]]
    is_meaningless: bool = False
    folders: tuple[Path, ...] = ()


@dataclass(frozen=True, kw_only=True)
class World:
    """Valid files, from which the cases are made.

    Attributes:
        folder: Where the cases write.
        recipe: Settings of a small run.
        run: A finished run of it.
        images: Its data set.
        features: A file of features.
        photos: A folder of images.
        weights: A file of weights for its backbone.
    """

    folder: Path
    recipe: dict[str, Any]
    run: Path
    images: Path
    features: Path
    photos: Path
    weights: Path

    @property
    def manifest(self) -> Path:
        """Episodes of the run."""
        return next((self.run / "manifests").glob("*.parquet"))

    def fresh(self, name: str) -> Path:
        """Return a path that no other case has."""
        number = sum(1 for _ in self.folder.iterdir())
        return self.folder / f"{number}-{name}"

    def dry_run(self, changes: dict[str, Any] | None = None, *more: str) -> list[str]:
        """Return the arguments to check the recipe with changes of whole sections."""
        path = self.fresh("recipe.yaml")
        path.write_text(yaml.safe_dump(self.recipe | (changes or {}), allow_unicode=True))
        return ["run", str(path), "--run-dir", str(self.folder / "new"), "--dry-run", *more]


def make_world(folder: Path) -> World:
    """Write the valid files and do one small run."""
    import timm
    import torch
    from PIL import Image

    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(8), 12)
    pixels = np.clip(labels[:, None, None] * 25 + rng.integers(0, 60, (len(labels), 8, 8)), 0, 255).astype(np.uint8)
    np.savez(folder / "images.npz", images=pixels, labels=labels)
    np.savez(folder / "features.npz", features=rng.normal(size=(len(labels), 6)).astype(np.float32), labels=labels)
    for row, label in enumerate(labels[:60]):
        file = folder / "photos" / f"class {label}" / f"{row}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels[row]).resize((16, 16)).save(file)
    torch.save(timm.create_model("test_byobnet", num_classes=10).state_dict(), folder / "weights.pth")
    recipe = {
        "name": "small",
        "dataset": {"name": "npz", "params": {"path": str(folder / "images.npz")}},
        "class_split": {"base": 0.5, "validation": 0.0, "novel": 0.5},
        "chunks": {"n_chunks": 2},
        "backbone": {"name": "test_byobnet", "image_size": 16},
        "learner": {"epochs": 1, "batch_size": 16},
        "benchmarks": {"novel": {"n_way": 3, "n_shot": 1, "n_query": 3, "n_episodes": 10}},
        "after_chunk": {"n_episodes": 5},
        "transfer": {"all": {"sizes": [1, "all"], "n_repeats": 2}},
        "controls": False,
        "trackers": {"wandb": {"mode": "disabled"}},
    }
    world = World(
        folder=folder / "cases", recipe=recipe, run=folder / "run", images=folder / "images.npz",
        features=folder / "features.npz", photos=folder / "photos", weights=folder / "weights.pth",
    )  # fmt: skip
    world.folder.mkdir(exist_ok=True)
    if not (world.run / "summary.json").exists():
        command = [word for word in world.dry_run() if word != "--dry-run"]
        code, said = say([*command, "--run-dir", str(world.run)], limit=600)
        assert code == 0, said
    return world
