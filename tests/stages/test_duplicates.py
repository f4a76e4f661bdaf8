"""Duplicates of base and novel images are counted before training, and told where there are many."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from lurefs.cli import main
from lurefs.config.load import to_yaml
from lurefs.config.schema import RunConfig
from lurefs.runs.directory import RunDirectory
from lurefs.runs.summary import DuplicateCounts

BASE, NOVEL = [f"class {label}" for label in (0, 2, 3)], [f"class {label}" for label in (1, 4, 5)]


@pytest.fixture
def run(photos: Path, make_config: Callable[..., RunConfig], tmp_path: Path) -> Callable[..., RunDirectory]:
    def start(name: str = "run", **changes: Any) -> RunDirectory:
        benchmark = {"n_way": 2, "n_shot": 1, "n_query": 4, "n_episodes": 20}
        config = make_config(
            **{
                "dataset": {"name": "folder", "params": {"path": str(photos), "image_size": 16}},
                "class_split": {"base": BASE, "validation": [], "novel": NOVEL},
                "chunks": {"n_chunks": 1},
                "benchmarks": {"novel": benchmark, "again": {**benchmark, "n_shot": 2}},
                "learner": {"epochs": 1, "batch_size": 16},
                "after_chunk": {"few_shot": False},
                **changes,
            }
        )
        (tmp_path / "recipe.yaml").write_text(to_yaml(config))
        main(["run", str(tmp_path / "recipe.yaml"), "--run-dir", str(tmp_path / name)])
        return RunDirectory(tmp_path / name)

    return start


def test_without_duplicates_there_is_one_quiet_sentence(
    run: Callable[..., RunDirectory], capsys: pytest.CaptureFixture[str]
) -> None:
    directory = run()
    said = capsys.readouterr()
    assert "warning" not in said.err
    assert said.out.count("duplicates: none of 24 images has the pixels of a base image or of another one") == 2
    assert (
        "Duplicates: none of 24 images has the pixels of a base image or of another one."
        in directory.report_path.read_text()
    )
    counts = directory.read_summary().benchmarks["novel"].duplicates
    assert counts == DuplicateCounts(n_images=24, in_base=0, in_pool=0, in_other_class=0)


def test_copies_are_counted_named_and_told_before_training(
    run: Callable[..., RunDirectory], photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(8):  # all, since a part of them are test images, which training does not see
        with Image.open(photos / "class 0" / f"{number}.png") as image:
            image.save(photos / "class 1" / f"{number}.png", compress_level=1)  # other bytes, the same pixels
    shutil.copy(photos / "class 4" / "1.png", photos / "class 4" / "8.png")
    shutil.copy(photos / "class 4" / "2.png", photos / "class 5" / "8.png")
    directory = run()
    counts = directory.read_summary().benchmarks["novel"].duplicates
    assert counts is not None and counts.n_images == 26
    assert (counts.in_pool, counts.in_other_class) == (4, 2)
    assert counts.in_base == 6  # 8 less one fifth for the test
    said = capsys.readouterr()
    line = next(line for line in said.err.splitlines() if line.startswith("warning: "))
    assert (
        "novel, again: duplicates: 6 of 26 images (23.1\u00a0%) have the pixels of an image that base training saw"
        in line
    )
    assert "4 of 26 images (15.4\u00a0%) have those of another image of the benchmark; 2 of these" in line
    assert "duplicates: 6 of 26 images" in said.out
    stored = json.loads(directory.duplicates_path.read_text())
    assert ["class 4/1.png", "class 4/8.png"] in stored["examples"]["novel"]
    assert all(Path(one).name == Path(two).name for one, two in stored["examples"]["novel"][:6])


def test_near_duplicates_are_a_setting(run: Callable[..., RunDirectory], photos: Path) -> None:
    rng = np.random.default_rng(0)
    for folder in ("class 2", "class 4"):
        rng = np.random.default_rng(0)
        for number in range(8):
            grid = rng.integers(0, 200, (9, 9)).astype(np.uint8)
            image = Image.fromarray(grid.repeat(6, 0).repeat(6, 1)).convert("RGB")
            if folder == "class 4":
                image = image.point(lambda value: value + 9)
            image.save(photos / folder / f"{number}.png")
    exact = run().read_summary().benchmarks["novel"].duplicates
    assert exact is not None and (exact.in_base, exact.near_in_base) == (0, None)
    near = run("near", near_duplicates=4).read_summary().benchmarks["novel"].duplicates
    assert near is not None and (near.distance, near.in_base, near.near_in_base) == (4, 0, 6)


def test_flat_images_are_like_no_other(run: Callable[..., RunDirectory], photos: Path) -> None:
    for folder, level in (("class 2", 30), ("class 4", 90)):
        for number in range(8):
            Image.new("RGB", (20, 20), (level + number,) * 3).save(photos / folder / f"{number}.png")
    counts = run(near_duplicates=0).read_summary().benchmarks["novel"].duplicates
    assert counts is not None and (counts.near_in_base, counts.near_in_pool) == (0, 0)


def test_a_frozen_run_has_no_base_images(run: Callable[..., RunDirectory], photos: Path) -> None:
    shutil.copy(photos / "class 0" / "1.png", photos / "class 1" / "8.png")
    frozen = run(frozen=True, class_split={"base": 0.0, "validation": 0.0, "novel": 1.0}, chunks={})
    counts = frozen.read_summary().benchmarks["novel"].duplicates
    assert counts == DuplicateCounts(n_images=49, in_base=None, in_pool=2, in_other_class=2)


def test_a_repeated_count_is_read_and_that_of_other_images_is_made_again(
    run: Callable[..., RunDirectory], photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = run()
    first = directory.duplicates_path.read_text()
    monkeypatch.setattr("lurefs.stages.duplicates.pixel_keys", lambda parts: pytest.fail("compared again"))
    main(["evaluate", "--run-dir", str(directory.path)])
    assert directory.duplicates_path.read_text() == first
    monkeypatch.undo()
    shutil.copy(photos / "class 4" / "1.png", photos / "class 4" / "2.png")
    assert run().duplicates_path.read_text() != first
    counts = directory.read_summary().benchmarks["novel"].duplicates
    assert counts is not None and counts.in_pool == 2
