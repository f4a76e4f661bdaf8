"""All images of a run are decoded, and damaged ones found, before anything is learned."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lurefs import cache, console
from lurefs.cli import main
from lurefs.config.identity import run_identity
from lurefs.config.load import run_config
from lurefs.config.schema import RunConfig
from lurefs.data import encoded
from lurefs.errors import UserError
from lurefs.records import to_mapping
from lurefs.runs.directory import RunDirectory
from lurefs.stages.plan import make_plan
from lurefs.stages.run import run_stage


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(cache.PLACE, str(tmp_path / "cache"))
    console.note_once.cache_clear()
    return tmp_path / "cache"


@pytest.fixture
def decodes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], Counter[str]]:
    """Return how often each file was decoded in each size, in this process and its workers."""
    log, decoded = tmp_path / "decodes.txt", encoded.read_image

    def counted(path: Path, view: Any, n_channels: int, **more: Any) -> np.ndarray:
        with log.open("a") as stream:
            stream.write(f"{path.name} of {path.parent.name} at {view.image_size}\n")
        return decoded(path, view, n_channels, **more)

    monkeypatch.setattr(encoded, "read_image", counted)
    return lambda: Counter(log.read_text().splitlines()) if log.exists() else Counter()


@pytest.fixture
def of_photos(photos: Path, make_config: Callable[..., RunConfig]) -> Callable[..., RunConfig]:
    def make(**changes: Any) -> RunConfig:
        dataset = {"name": "folder", "params": {"path": str(photos), "image_size": 16}}
        return make_config(**{"dataset": dataset, "chunks": {"n_chunks": 2}, **changes})

    return make


def damage(photos: Path, *names: str) -> None:
    for name in names:
        (photos / name).write_bytes(b"GIF89a and no more")


@pytest.mark.parametrize("n_workers", [0, 2])
def test_a_run_with_training_controls_and_transfer_decodes_each_file_once_per_size(
    n_workers: int, of_photos: Callable[..., RunConfig], decodes: Callable[[], Counter[str]], tmp_path: Path
) -> None:
    learner = {"epochs": 1, "batch_size": 16, "n_workers": n_workers}
    transfer = {"t": {"classes": "all", "sizes": [1], "n_repeats": 1}}
    for name in ("first", "second"):
        config = of_photos(name=name, controls=True, transfer=transfer, learner=learner)
        run_stage(make_plan(config), RunDirectory(tmp_path / name), "run")
        assert set(decodes().values()) == {1}
        sizes = Counter(line.rpartition(" ")[2] for line in decodes())
        assert sizes == {"32": 48, "16": 48}  # the backbone's, and the folder's for the controls and the page
    assert RunDirectory(tmp_path / "first").read_bank("t").features.tobytes() == (
        RunDirectory(tmp_path / "second").read_bank("t").features.tobytes()
    )


def test_all_damaged_images_are_named_at_once_before_anything_is_written(
    of_photos: Callable[..., RunConfig], photos: Path, tmp_path: Path
) -> None:
    damage(photos, *(f"class {label}/{number}.png" for label in (0, 3) for number in range(6)))
    directory = RunDirectory(tmp_path / "run")
    with pytest.raises(UserError, match="12 of 48 images cannot be read") as caught:
        run_stage(
            make_plan(of_photos(benchmarks={"b": {"classes": "novel", "n_way": 3, "n_query": 5}})), directory, "run"
        )
    assert caught.value.problem.count("cannot be read as an image") == 10
    assert "class 0/0.png" in caught.value.problem
    assert "and 2 more" in caught.value.problem
    assert not directory.path.exists()


def test_a_damaged_image_that_no_run_uses_refuses_none(
    of_photos: Callable[..., RunConfig], photos: Path, tmp_path: Path
) -> None:
    names = [f"class {label}" for label in range(6)]
    damage(photos, "class 5/0.png")
    split = {"base": names[:2], "validation": names[5:], "novel": names[2:5]}
    run_stage(make_plan(of_photos(class_split=split)), RunDirectory(tmp_path / "run"), "run", with_page=False)


@pytest.mark.parametrize("options", [["--dry-run"], [], ["--workers", "2"]])
def test_no_run_of_a_group_starts_if_images_of_one_are_damaged(
    options: list[str], photos: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    damage(photos, "class 2/1.png")
    recipe = tmp_path / "two.yaml"
    values = {
        "name": "two",
        "frozen": True,
        "backbone": {"name": "test_byobnet"},
        "trackers": {"wandb": {"mode": "disabled"}},
        "benchmarks": {"b": {"n_way": 2, "n_query": 2, "n_episodes": 4}},
        "variants": {
            "digits": {"dataset": {"name": "digits"}},
            "photos": {"dataset": {"name": "folder", "params": {"path": str(photos), "image_size": 32}}},
        },
    }
    recipe.write_text(json.dumps(values))
    with pytest.raises(SystemExit) as caught:
        main(["run", "--config", str(recipe), "--run-dir", str(tmp_path / "runs"), *options])
    assert caught.value.code == 2
    assert "1 of 48 images cannot be read" in capfd.readouterr().err
    assert not (tmp_path / "runs").exists()


def test_skipped_images_are_named_and_those_of_base_classes_make_another_run(
    of_photos: Callable[..., RunConfig], photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = RunDirectory(tmp_path / "whole")
    run_stage(make_plan(of_photos()), whole, "run", with_page=False)
    damage(photos, "class 4/1.png", "class 4/7.png")
    config = of_photos(on_bad_image="skip")
    assert run_identity(config) == run_identity(of_photos())
    plan, directory = make_plan(config), RunDirectory(tmp_path / "run")
    assert "2 of 48 images of folder cannot be read and are left out" in capsys.readouterr().err
    assert len(plan.dataset) == 46
    run_stage(plan, directory, "run", with_page=False)
    skipped = ["class 4/1.png", "class 4/7.png"]
    assert directory.read_identity()["dataset"]["skipped"] == skipped
    bank = directory.read_bank("novel-3way-1shot")
    assert not set(skipped) & set(bank.image_ids)
    before = whole.checkpoint_path(1).stat().st_mtime_ns
    run_stage(plan, whole, "run", with_page=False)
    assert whole.checkpoint_path(1).stat().st_mtime_ns == before
    assert len(whole.read_bank("novel-3way-1shot").image_ids) == len(bank.image_ids)
    run_stage(make_plan(run_config({**to_mapping(directory.read_config())})), directory, "run", with_page=False)
    base = plan.dataset.image_ids[plan.images.train[0]]
    damage(photos, base)
    with pytest.raises(UserError, match="have other names, classes or parts"):
        run_stage(make_plan(config), whole, "run", with_page=False)


def test_a_class_without_a_readable_image_is_refused(of_photos: Callable[..., RunConfig], photos: Path) -> None:
    damage(photos, *(f"class 1/{number}.png" for number in range(8)))
    with pytest.raises(UserError, match="all images of class 'class 1' are damaged"):
        make_plan(of_photos(on_bad_image="skip"))


def test_images_that_change_while_a_run_without_a_cache_reads_them_are_refused(
    of_photos: Callable[..., RunConfig],
    own_cache: Path,
    photos: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    own_cache.write_text("no folder")
    directory, image = RunDirectory(tmp_path / "run"), photos / "class 1" / "0.png"
    content, write = image.read_bytes(), RunDirectory.write_outcomes

    def write_and_replace(self: RunDirectory, outcomes: Any) -> None:
        write(self, outcomes)
        (photos / "new.png").write_bytes((photos / "class 1" / "1.png").read_bytes())
        (photos / "new.png").replace(image)

    with monkeypatch.context() as patch:
        patch.setattr(RunDirectory, "write_outcomes", write_and_replace)
        with pytest.raises(UserError, match="files of images were changed while the run read them"):
            run_stage(make_plan(of_photos()), directory, "run", with_page=False)
    assert len(directory.read_outcomes()) == 1 and not directory.progress_path.exists()
    image.write_bytes(content)
    run_stage(make_plan(of_photos()), directory, "run", with_page=False)
    assert len(directory.read_outcomes()) == len(make_plan(of_photos()).chunks)


@pytest.mark.parametrize("changes", [{}, {"backbone": {"image_size": 32}}])
def test_files_of_images_that_a_run_took_from_the_cache_may_change_while_it_learns(
    changes: dict[str, Any],
    of_photos: Callable[..., RunConfig],
    photos: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    write = RunDirectory.write_outcomes

    def write_and_touch(self: RunDirectory, outcomes: Any) -> None:
        write(self, outcomes)
        for image in photos.rglob("*.png"):
            image.touch()

    monkeypatch.setattr(RunDirectory, "write_outcomes", write_and_touch)
    names = sorted(path.name for path in photos.iterdir() if path.is_dir())
    split = {"base": names[:2], "validation": [], "novel": names[2:5]}  # the images of other classes are never decoded
    plan = make_plan(of_photos(class_split=split, **changes))
    run_stage(plan, RunDirectory(tmp_path / "run"), "run", with_page=False)
    assert len(RunDirectory(tmp_path / "run").read_outcomes()) == len(plan.chunks)


def test_a_run_without_a_cache_gives_the_same_numbers_and_says_so_once(
    of_photos: Callable[..., RunConfig], own_cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kept, without = RunDirectory(tmp_path / "kept"), RunDirectory(tmp_path / "without")
    run_stage(make_plan(of_photos()), kept, "run", with_page=False)
    for path in sorted(own_cache.rglob("*"), reverse=True):
        path.unlink() if path.is_file() else path.rmdir()
    own_cache.rmdir()
    own_cache.write_text("no folder")
    capsys.readouterr()
    run_stage(make_plan(of_photos()), without, "run", with_page=False)
    assert capsys.readouterr().err.count(cache.WITHOUT) == 1
    found, expected = (run.read_bank("novel-3way-1shot").features for run in (without, kept))
    assert found.tobytes() == expected.tobytes()
