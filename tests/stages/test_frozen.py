"""Runs that measure a backbone as it is: their files, and what they refuse."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lurefs.config.load import run_config
from lurefs.config.schema import RunConfig
from lurefs.data.corruptions import corrupt
from lurefs.data.dataset import View
from lurefs.errors import UserError
from lurefs.runs.directory import RunDirectory
from lurefs.stages.checks import check
from lurefs.stages.features import as_needed
from lurefs.stages.plan import make_plan
from lurefs.stages.run import run_stage
from lurefs.stages.stage import plan_backbone

MakeConfig = Callable[..., RunConfig]


@pytest.fixture
def directory(tmp_path: Path) -> RunDirectory:
    return RunDirectory(tmp_path / "run")


@pytest.fixture
def frozen(photos: Path) -> Callable[..., RunConfig]:
    """Build the configuration of a frozen run on the photographs; keywords win over its settings."""

    def make(**changes: Any) -> RunConfig:
        values: dict[str, Any] = {
            "name": "as-it-is",
            "frozen": True,
            "dataset": {"name": "folder", "params": {"path": str(photos)}},
            "backbone": {"name": "test_byobnet", "image_size": 32},
            "benchmarks": {"3way-1shot": {"n_way": 3, "n_shot": 1, "n_query": 5, "n_episodes": 20}},
            "controls": False,
            "trackers": {"wandb": {"mode": "disabled"}},
        }
        return run_config({**values, **changes})

    return make


def test_all_classes_are_novel_and_nothing_is_learned(
    frozen: Callable[..., RunConfig], directory: RunDirectory
) -> None:
    plan = make_plan(frozen(controls=True))
    assert (len(plan.classes.base), len(plan.classes.validation), len(plan.classes.novel)) == (0, 0, 6)
    run_stage(plan, directory, "run")
    assert {path.name for path in directory.path.glob("[!.]*")} == {
        "config.yaml",
        "controls",
        "cost.json",
        "duplicates.json",
        "episodes",
        "features",
        "figures",
        "identity.json",
        "manifests",
        "report.html",
        "summary.json",
    }
    assert set(directory.read_summary().benchmarks["3way-1shot"].controls) == {"untrained_twin", "image_statistics"}
    assert "weights" not in directory.read_identity()  # they are initial


def test_a_frozen_run_has_no_training_to_start(frozen: Callable[..., RunConfig], directory: RunDirectory) -> None:
    with pytest.raises(UserError, match="nothing to pre-train"):
        run_stage(make_plan(frozen()), directory, "pretrain")
    assert not directory.path.exists()


def test_a_run_stopped_before_its_scores_keeps_its_features(
    frozen: Callable[..., RunConfig], directory: RunDirectory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = RunDirectory(tmp_path / "whole")
    run_stage(make_plan(frozen()), whole, "run", with_page=False)

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("lurefs.stages.run.evaluate", stop)
        run_stage(make_plan(frozen()), directory, "run", with_page=False)
    bank = directory.features_dir("3way-1shot") / "bank.json"
    stored = bank.stat().st_mtime_ns
    run_stage(make_plan(frozen()), directory, "run", with_page=False)
    assert bank.stat().st_mtime_ns == stored
    one, other = (
        made.read_summary().benchmarks["3way-1shot"].probes["logistic_regression"] for made in (whole, directory)
    )
    assert one.accuracy == other.accuracy and one.ece == other.ece


def test_the_weights_that_were_taken_are_said_and_noted_down(
    frozen: Callable[..., RunConfig], directory: RunDirectory, weights_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = frozen(backbone={"name": "test_byobnet", "checkpoint_path": str(weights_path)})
    run_stage(make_plan(config), directory, "run", with_page=False)
    words = directory.read_identity()["weights"]
    assert words.startswith("state_dict_ema of trained.pth") and words.endswith("not taken: state_dict")
    assert capsys.readouterr().err.count(f"as-it-is: the weights are {words}\n") == 1
    bank = directory.read_bank("3way-1shot")
    assert bank.identity["dataset"]["image_size"] == 160
    assert bank.identity["dataset"]["crop_share"] == 0.95


def test_pretrained_weights_are_identified_by_what_was_loaded(
    frozen: Callable[..., RunConfig], directory: RunDirectory, tmp_path: Path
) -> None:
    import timm
    import torch
    from safetensors.torch import save_file

    def store(seed: int) -> None:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            save_file(timm.create_model("test_byobnet").state_dict(), tmp_path / "w.safetensors")

    overlay = {"file": str(tmp_path / "w.safetensors")}
    backbone = {"name": "test_byobnet", "pretrained": True, "params": {"pretrained_cfg_overlay": overlay}}
    store(0)
    run_stage(make_plan(frozen(backbone=backbone)), directory, "run", with_page=False)
    known = directory.read_identity()["loaded_sha256"]
    run_stage(make_plan(frozen(backbone=backbone)), directory, "extract")
    store(1)
    with pytest.raises(UserError, match=rf"SHA-256 of the loaded weights was {known} and is now"):
        run_stage(make_plan(frozen(backbone=backbone)), directory, "extract")


def test_a_transfer_is_measured_on_frozen_features(frozen: Callable[..., RunConfig], directory: RunDirectory) -> None:
    config = frozen(transfer={"all": {"sizes": [1, "all"], "n_repeats": 2, "grid": {}}})
    check(make_plan(config))
    run_stage(make_plan(config), directory, "run")
    transfer = directory.read_summary().transfer["all"]
    assert set(transfer.sizes) == {"1", "all"} and transfer.n_classes == 6


@pytest.mark.parametrize("n_channels", [1, 3])
def test_grey_images_suit_weights_of_colour_images(
    frozen: Callable[..., RunConfig], photos: Path, directory: RunDirectory, weights_path: Path, n_channels: int
) -> None:
    config = frozen(
        dataset={"name": "folder", "params": {"path": str(photos), "n_channels": n_channels}},
        backbone={"name": "test_byobnet", "checkpoint_path": str(weights_path), "image_size": 32},
    )
    run_stage(make_plan(config), directory, "extract")
    backbone = plan_backbone(make_plan(config))
    assert backbone.n_channels == len(backbone.mean) == n_channels
    assert np.isfinite(directory.read_bank("3way-1shot").features).all()


def test_corrupted_images_are_those_that_the_backbone_sees(
    frozen: Callable[..., RunConfig], directory: RunDirectory, weights_path: Path
) -> None:
    benchmark = {"n_way": 3, "n_query": 5, "n_episodes": 20, "corrupt": {"corruption": "fog", "severity": 2}}
    config = frozen(
        backbone={"name": "test_byobnet", "checkpoint_path": str(weights_path)}, benchmarks={"foggy": benchmark}
    )
    plan = make_plan(config)
    backbone = plan_backbone(plan)
    clean, foggy = (as_needed(images, backbone).dataset for images in plan.benchmarks["foggy"].sides)
    rows = np.arange(2)
    pixels = clean.read(rows)
    assert pixels.shape == (2, 160, 160, 3)
    expected = corrupt(pixels, clean.image_ids[:2], corruption="fog", severity=2)
    assert np.array_equal(foggy.read(rows), expected)
    run_stage(plan, directory, "run", with_page=False)
    assert directory.read_summary().benchmarks["foggy"].corrupt is not None


def test_a_view_too_small_to_be_corrupted_is_refused(frozen: Callable[..., RunConfig]) -> None:
    benchmark = {"n_way": 3, "n_query": 5, "n_episodes": 20, "corrupt": {"corruption": "fog"}}
    config = frozen(backbone={"name": "test_byobnet", "image_size": 16}, benchmarks={"foggy": benchmark})
    with pytest.raises(UserError, match=r"decoded at 16 pixels(.*\n)*.*backbone\.image_size to 32"):
        check(make_plan(config))


def test_a_chunk_of_an_own_run_sees_images_as_that_run_did(
    frozen: Callable[..., RunConfig], photos: Path, directory: RunDirectory, tmp_path: Path
) -> None:
    shared = {
        "class_split": {"base": 0.5, "validation": 0.0, "novel": 0.5},
        "dataset": {"name": "folder", "params": {"path": str(photos), "image_size": 48}},
    }
    learned = frozen(
        frozen=False,
        backbone={"name": "test_byobnet", "image_size": 40},
        chunks={"n_chunks": 1},
        learner={"epochs": 1, "batch_size": 8},
        after_chunk={"few_shot": False},
        **shared,
    )
    run_stage(make_plan(learned), directory, "run", with_page=False)
    checkpoint = directory.checkpoint_path(0)
    card = json.loads(checkpoint.with_suffix(".json").read_text())
    assert (card["image_size"], card["crop_share"]) == (40, 1.0)
    again = RunDirectory(tmp_path / "again")
    config = frozen(backbone={"name": "test_byobnet", "checkpoint_path": str(checkpoint)}, **shared)
    assert plan_backbone(make_plan(config)).view == View(image_size=40)
    run_stage(make_plan(config), again, "extract")
    one, other = (made.read_bank("3way-1shot").features for made in (directory, again))
    assert np.allclose(one, other, atol=1e-5)
    larger = frozen(backbone={"name": "test_byobnet", "checkpoint_path": str(checkpoint), "image_size": 64})
    assert plan_backbone(make_plan(larger)).image_size == 64


def test_wandb_gets_the_cells_of_a_frozen_run_and_no_training(
    frozen: Callable[..., RunConfig], directory: RunDirectory, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("NETRC", str(tmp_path / "no-netrc"))
    run_stage(make_plan(frozen(trackers={"wandb": {"mode": "offline"}})), directory, "run")
    names = [path.name.partition("-")[2] for path in directory.path.glob("wandb/*run-*")]
    assert len(names) == 2
    assert any(name.endswith("3way-1shot--logistic_regression") for name in names)
    assert any(name.endswith("report") for name in names)


def test_the_twin_of_loaded_weights_is_not_loaded(
    frozen: Callable[..., RunConfig], directory: RunDirectory, weights_path: Path
) -> None:
    config = frozen(
        backbone={"name": "test_byobnet", "checkpoint_path": str(weights_path), "image_size": 32}, controls=True
    )
    run_stage(make_plan(config), directory, "run", with_page=False)
    own = directory.read_summary().benchmarks["3way-1shot"]
    twin = own.controls["untrained_twin"].probes["logistic_regression"]
    assert twin.accuracy != own.probes["logistic_regression"].accuracy
