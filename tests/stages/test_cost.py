from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from lurefs.config.learning_schema import BackboneConfig
from lurefs.config.schema import RunConfig
from lurefs.data.dataset import View
from lurefs.learning.backbones import Backbone, build_backbone
from lurefs.learning.timm_models import list_backbones
from lurefs.runs.directory import RunDirectory
from lurefs.stages.cost import Speed, cost_card, count_macs
from lurefs.stages.plan import make_plan
from lurefs.stages.run import run_stage

CPU = torch.device("cpu")


def backbone(name: str, size: int, n_channels: int = 3) -> Backbone:
    config = BackboneConfig(name=name)
    return build_backbone(config, n_classes=10, n_channels=n_channels, image_size=size, seed=0)


@pytest.mark.parametrize(("name", "expected"), [("resnet18", 1.82e9), ("vit_tiny_patch16_224", 1.26e9)])
def test_multiply_adds_are_those_that_are_published(name: str, expected: float) -> None:
    assert count_macs(backbone(name, 224), CPU) == pytest.approx(expected, rel=0.01)


@pytest.mark.parametrize("name", list_backbones("test_"))
def test_every_small_model_of_timm_is_counted_and_can_still_be_trained(name: str) -> None:
    model = backbone(name, 32)
    assert count_macs(model, CPU) > 100_000
    assert all(parameter.requires_grad for parameter in model.model.parameters())


def test_multiply_adds_of_one_convolution_are_counted_by_hand() -> None:
    class OneLayer(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = torch.nn.Conv2d(3, 4, 3, padding=1)

        def forward_features(self, images: torch.Tensor) -> torch.Tensor:
            return self.layer(images)

        def forward_head(self, features: torch.Tensor, pre_logits: bool) -> torch.Tensor:
            return features.mean(dim=(2, 3))

    model = Backbone(
        name="one",
        model=OneLayer(),
        n_features=4,
        n_classes=2,
        view=View(image_size=8),
        n_channels=3,
        mean=(0,) * 3,
        std=(1,) * 3,
    )
    assert count_macs(model, CPU) == 8 * 8 * 4 * 3 * 3 * 3


class TestSpeed:
    def watched(self, sizes: list[int], clock: list[float], monkeypatch: pytest.MonkeyPatch) -> Speed:
        """Return the speed of batches that end at the even ticks of a clock and are used until the odd ones."""
        ticks: Iterator[float] = iter(clock)
        monkeypatch.setattr("lurefs.stages.cost.perf_counter", lambda: next(ticks))
        speed = Speed()
        batches = [np.zeros((n, 2), dtype=np.float32) for n in sizes]
        seen: list[NDArray[np.float32]] = list(speed.watch(batches))
        assert [len(batch) for batch in seen] == sizes
        return speed

    def test_leaves_out_the_first_batch_and_what_is_done_between(self, monkeypatch: pytest.MonkeyPatch) -> None:
        speed = self.watched([8, 8, 4], [0, 9, 10, 12, 20, 21, 30], monkeypatch)
        assert speed.batches == [(8, 9), (8, 2), (4, 1)]
        assert speed.measured() == (12, 3)

    def test_is_that_of_the_first_batch_where_it_is_the_only_one(self, monkeypatch: pytest.MonkeyPatch) -> None:
        assert self.watched([8], [0, 4, 5], monkeypatch).measured() == (8, 4)

    def test_of_nothing_is_refused(self) -> None:
        with pytest.raises(ValueError, match="nothing was embedded"):
            Speed().measured()


def test_a_card_holds_what_a_reader_compares_by() -> None:
    model = backbone("test_resnet", 32, n_channels=1)
    card = cost_card(model, Speed([(100, 9.0), (60, 3.0), (60, 1.0)]), CPU)
    assert card == {
        "n_parameters": model.n_parameters,
        "n_macs": count_macs(model, CPU),
        "images_per_second": 30.0,
        "n_images": 120,
        "image_size": 32,
        "device": "cpu",
        "n_threads": torch.get_num_threads(),
    }


def test_the_cost_is_stored_once_and_kept_where_features_are_read(
    make_config: Callable[..., RunConfig], tmp_path: Path
) -> None:
    directory = RunDirectory(tmp_path / "run")
    assert directory.read_cost() == {}
    run_stage(make_plan(make_config()), directory, "pretrain")
    run_stage(make_plan(make_config()), directory, "extract")
    cost = directory.read_cost()
    assert cost["n_images"] == 96
    assert cost["images_per_second"] > 0
    before = directory.cost_path.stat().st_mtime_ns
    run_stage(make_plan(make_config()), directory, "extract")
    assert directory.cost_path.stat().st_mtime_ns == before
