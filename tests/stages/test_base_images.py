"""Weights depend on base images alone: other images may be repaired or added without training again."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from lurefs.config.schema import RunConfig
from lurefs.errors import UserError
from lurefs.records import to_mapping
from lurefs.runs.directory import RunDirectory
from lurefs.stages.places import check_place
from lurefs.stages.plan import make_plan
from lurefs.stages.run import run_stage
from lurefs.sweeps.cells import is_finished

BASE, NOVEL = [f"class {label}" for label in (0, 2, 3)], [f"class {label}" for label in (1, 4, 5)]


@pytest.fixture
def of_photos(photos: Path, make_config: Callable[..., RunConfig]) -> Callable[..., RunConfig]:
    def make(novel: list[str] | None = None, **changes: Any) -> RunConfig:
        return make_config(
            dataset={"name": "folder", "params": {"path": str(photos), "image_size": 16}},
            class_split={"base": BASE, "validation": [], "novel": novel or NOVEL},
            chunks={"n_chunks": 2, "label_noise": 0.2},
            benchmarks={"novel-2way": {"n_way": 2, "n_shot": 1, "n_query": 4, "n_episodes": 40}},
            **{"controls": True, **changes},
        )

    return make


@pytest.fixture
def trained(of_photos: Callable[..., RunConfig], tmp_path: Path) -> RunDirectory:
    directory = RunDirectory(tmp_path / "run")
    plan = make_plan(of_photos())
    run_stage(plan, directory, "run", with_page=False)
    assert is_finished(plan, directory)
    return directory


def repaint(file: Path, *, to: int) -> None:
    """Write another image of the same number of bytes."""
    n_bytes = file.stat().st_size
    with Image.open(file) as image:
        pixels = np.full((image.height, image.width, 3), to, np.uint8)
    Image.fromarray(pixels).save(file)
    file.write_bytes(file.read_bytes().ljust(n_bytes, b"\0"))
    assert file.stat().st_size == n_bytes


def learned(directory: RunDirectory) -> tuple[list[tuple[int, bytes]], list[Any]]:
    files = sorted(directory.path.rglob("*.safetensors"))
    outcomes = [{**to_mapping(outcome), "few_shot": None} for outcome in directory.read_outcomes()]
    return [(file.stat().st_mtime_ns, file.read_bytes()) for file in files], outcomes


def test_another_novel_image_of_the_same_size_changes_features_and_results_but_no_weights(
    of_photos: Callable[..., RunConfig], photos: Path, trained: RunDirectory
) -> None:
    weights, results, bank = learned(trained), trained.read_summary(), trained.read_bank("novel-2way")
    scores = [outcome.few_shot["novel-2way"].images for outcome in trained.read_outcomes()]
    repaint(photos / "class 4" / "3.png", to=255)
    plan = make_plan(of_photos())
    assert not is_finished(plan, trained)
    run_stage(plan, trained, "run", with_page=False)
    assert learned(trained) == weights
    changed = trained.read_bank("novel-2way")
    differs = (changed.features != bank.features).any(axis=1)
    assert [changed.image_ids[row] for row in np.flatnonzero(differs)] == ["class 4/3.png"]
    assert trained.read_summary().benchmarks != results.benchmarks
    assert trained.read_manifest("novel-2way").hash == results.benchmarks["novel-2way"].manifest
    assert scores != [outcome.few_shot["novel-2way"].images for outcome in trained.read_outcomes()]
    assert is_finished(plan, trained)


def test_a_new_novel_class_changes_no_weights_and_no_base_label(
    of_photos: Callable[..., RunConfig], photos: Path, trained: RunDirectory
) -> None:
    weights, before = learned(trained), make_plan(of_photos())
    (photos / "a first class").mkdir()
    for number in range(8):
        Image.new("RGB", (30, 30), (number * 30, 0, 200)).save(photos / "a first class" / f"{number}.png")
    after = make_plan(of_photos(novel=["a first class", *NOVEL]))
    assert len(after.benchmarks["novel-2way"].images.class_names) == 4
    run_stage(after, trained, "run", with_page=False)
    assert learned(trained) == weights

    def arrivals(plan: Any) -> list[list[tuple[str, str]]]:
        names = plan.dataset.class_names
        return [
            [(plan.dataset.image_ids[row], names[plan.given_labels[row]]) for row in chunk.train]
            for chunk in plan.chunks
        ]

    assert arrivals(before) == arrivals(after)


@pytest.mark.parametrize("change", ["repainted", "added", "deleted"])
def test_another_base_image_is_another_run(
    of_photos: Callable[..., RunConfig], photos: Path, trained: RunDirectory, change: str
) -> None:
    weights, file = learned(trained), photos / "class 2" / "3.png"
    if change == "repainted":
        repaint(file, to=0)
    elif change == "added":
        (file.parent / "9.png").write_bytes(file.read_bytes())
    else:
        file.unlink()
    plan = make_plan(of_photos())
    with pytest.raises(UserError, match=r"another configuration: .*images of the base classes have other"):
        run_stage(plan, trained, "run", with_page=False)
    assert learned(trained) == weights
    if change != "repainted":
        with pytest.raises(UserError, match="have other names, classes or parts"):
            check_place(plan, trained, "run")


def test_a_folder_that_was_copied_holds_the_same_run(
    of_photos: Callable[..., RunConfig], photos: Path, trained: RunDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights, bank = learned(trained), trained.features_dir("novel-2way") / "bank.json"
    written = bank.stat().st_mtime_ns
    for file in photos.rglob("*.png"):
        content = file.read_bytes()
        file.unlink()
        file.write_bytes(content)
    plan = make_plan(of_photos())
    assert not is_finished(plan, trained)
    run_stage(plan, trained, "run", with_page=False)
    assert learned(trained) == weights and bank.stat().st_mtime_ns == written and is_finished(plan, trained)


def test_a_run_on_arrays_depends_on_its_base_images_too(
    make_config: Callable[..., RunConfig], npz_path: Path, tmp_path: Path
) -> None:
    config = make_config(class_split={"base": ["0", "2", "4", "6"], "validation": [], "novel": ["1", "3", "5", "7"]})
    directory = RunDirectory(tmp_path / "run")
    run_stage(make_plan(config), directory, "run", with_page=False)
    weights = learned(directory)
    with np.load(npz_path) as stored:
        arrays = dict(stored)
    arrays["images"][np.flatnonzero(arrays["labels"] == 3)[0]] = 7
    np.savez(npz_path, **arrays)
    run_stage(make_plan(config), directory, "run", with_page=False)
    assert learned(directory) == weights
    arrays["images"][np.flatnonzero(arrays["labels"] == 2)[0]] = 7
    np.savez(npz_path, **arrays)
    with pytest.raises(UserError, match="have other pixels"):
        run_stage(make_plan(config), directory, "run", with_page=False)
