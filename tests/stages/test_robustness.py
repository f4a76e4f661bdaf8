"""Accuracy on changed images, and when a run measures it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

from lurefs.config.learning_schema import BackboneConfig
from lurefs.config.schema import RobustnessConfig, RunConfig
from lurefs.data.dataset import ImageDataset
from lurefs.learning.backbones import Backbone, build_backbone
from lurefs.runs.directory import RunDirectory
from lurefs.runs.outcomes import RobustnessScores
from lurefs.stages.plan import make_plan
from lurefs.stages.robustness import measure
from lurefs.stages.run import run_stage

MakeDataset = Callable[..., ImageDataset]
MakeConfig = Callable[..., RunConfig]
LITTLE = {"corruptions": ["contrast"], "severities": [1, 5], "attacks": {"fgsm": [0.05]}, "n_images": 12}


@pytest.fixture
def dataset(make_dataset: MakeDataset) -> ImageDataset:
    return make_dataset(n_classes=4, n_per_class=40, size=32)


@pytest.fixture
def backbone(dataset: ImageDataset) -> Backbone:
    """A small model that has learned the images."""
    config = BackboneConfig(name="test_byobnet")
    backbone = build_backbone(config, n_classes=4, n_channels=1, image_size=32, seed=0)
    images = torch.from_numpy(dataset.read(np.arange(len(dataset))).transpose(0, 3, 1, 2).copy())
    optimizer = torch.optim.SGD(backbone.model.parameters(), lr=0.05, momentum=0.9)
    for step in range(40):
        rows = torch.randperm(len(images), generator=torch.Generator().manual_seed(step))[:32]
        loss = functional.cross_entropy(backbone.logits(images[rows]), torch.tensor(dataset.labels[rows.numpy()]))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return backbone


def scores_of(backbone: Backbone, dataset: ImageDataset, **settings: Any) -> RobustnessScores:
    rows = np.arange(len(dataset))
    return measure(backbone, dataset.read(rows), dataset.image_ids, dataset.labels, RobustnessConfig(**settings))


def test_a_stronger_attack_leaves_less(backbone: Backbone, dataset: ImageDataset) -> None:
    epsilons = [0.0, 0.02, 0.2]
    scores = scores_of(backbone, dataset, corruptions=[], attacks={"fgsm": epsilons, "pgd": epsilons})
    fgsm, pgd = (list(scores.attacks[name].values()) for name in ("fgsm", "pgd"))
    assert scores.clean_accuracy is not None
    assert scores.clean_accuracy > 0.9
    assert fgsm[0] == pgd[0] == scores.clean_accuracy
    assert list(scores.attacks["pgd"]) == ["0", "0.02", "0.2"]
    for by_one_step, by_many in zip(fgsm, pgd, strict=True):
        assert by_many <= by_one_step + 0.02 <= scores.clean_accuracy + 0.04
    assert pgd[2] < 0.5 * scores.clean_accuracy


def test_corruption_scores_are_by_name_and_severity(backbone: Backbone, dataset: ImageDataset) -> None:
    scores = scores_of(backbone, dataset, corruptions=["contrast", "fog"], severities=[1, 5], attacks={})
    assert (scores.n_images, scores.attacks) == (160, {})
    assert {name: list(levels) for name, levels in scores.corruptions.items()} == {
        "contrast": ["1", "5"],
        "fog": ["1", "5"],
    }
    values = [accuracy for levels in scores.corruptions.values() for accuracy in levels.values()]
    assert scores.corruption_accuracy == pytest.approx(np.mean(values))
    assert scores == scores_of(backbone, dataset, corruptions=["contrast", "fog"], severities=[1, 5], attacks={})


@pytest.fixture
def run_of(make_config: MakeConfig, make_dataset: MakeDataset, tmp_path: Path) -> Callable[..., RunConfig]:
    """Build the configuration of a small run on images of 32 pixels."""
    images = make_dataset(n_classes=8, n_per_class=24, size=32)
    np.savez(tmp_path / "large.npz", images=images.read(np.arange(len(images))), labels=images.labels)

    def make(**changes: Any) -> RunConfig:
        dataset = {"name": "npz", "params": {"path": str(tmp_path / "large.npz")}}
        return make_config(dataset=dataset, chunks={"n_chunks": 2}, after_chunk={"few_shot": False}, **changes)

    return make


@pytest.mark.parametrize("after", ["last", "every_chunk"])
def test_a_finished_run_is_measured_from_its_checkpoints_as_if_it_had_asked_before(
    run_of: Callable[..., RunConfig], tmp_path: Path, after: str
) -> None:
    asked = run_of(robustness={**LITTLE, "after": after})
    early, late = RunDirectory(tmp_path / "early"), RunDirectory(tmp_path / "late")
    run_stage(make_plan(asked), early, "run", with_page=False)
    run_stage(make_plan(run_of()), late, "run", with_page=False)
    assert late.read_summary().pretrain.robustness is None
    weights = late.checkpoint_path(1).stat().st_mtime_ns
    run_stage(make_plan(asked), late, "run", with_page=False)
    assert late.checkpoint_path(1).stat().st_mtime_ns == weights
    assert late.checkpoint_path(1).read_bytes() == early.checkpoint_path(1).read_bytes()
    found = [[outcome.robustness for outcome in directory.read_outcomes()] for directory in (early, late)]
    assert found[0] == found[1]
    assert [scores is not None for scores in found[0]] == [after == "every_chunk", True]
    summary = late.read_summary().pretrain.robustness
    assert summary is not None and summary == early.read_summary().pretrain.robustness
    assert summary.n_images == 12
    assert set(summary.attacks["fgsm"]) == {"0.05"}


def test_other_settings_are_measured_anew_and_equal_ones_are_not(
    run_of: Callable[..., RunConfig], tmp_path: Path
) -> None:
    directory = RunDirectory(tmp_path / "run")
    run_stage(make_plan(run_of(robustness={**LITTLE, "after": "every_chunk"})), directory, "pretrain")
    first, last = (outcome.robustness for outcome in directory.read_outcomes())
    before = directory.chunks_path.stat().st_mtime_ns
    run_stage(make_plan(run_of(robustness=LITTLE)), directory, "pretrain")
    assert directory.chunks_path.stat().st_mtime_ns == before
    run_stage(make_plan(run_of(robustness={**LITTLE, "severities": [2]})), directory, "pretrain")
    now_first, now_last = (outcome.robustness for outcome in directory.read_outcomes())
    assert first is not None and last is not None and now_last is not None
    assert (list(last.corruptions["contrast"]), list(now_last.corruptions["contrast"])) == (["1", "5"], ["2"])
    assert now_first is None
