from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from lurefs.config.learning_schema import BackboneConfig
from lurefs.config.schema import RunConfig
from lurefs.errors import UserError
from lurefs.learning.backbones import Backbone, build_backbone, build_twin
from lurefs.learning.boundary import (
    Answers,
    Effect,
    apply_strategy,
    count_changes,
    effect,
    look,
    probe_images,
    share_of,
    with_new_statistics,
    without_effect,
)
from lurefs.learning.images import load_images
from lurefs.learning.unlearn.contract import Changes, ProbeImages
from lurefs.stages.plan import make_plan
from lurefs.stages.stage import plan_backbone

NO_IMAGES = ProbeImages(draw=lambda source, n_images: iter(()))


def test_probe_images_come_from_what_is_asked_for(make_config: Callable[..., RunConfig]) -> None:
    plan = make_plan(make_config())
    images = load_images(
        plan.dataset, plan.images.train, plan.classes.base, torch.device("cpu"), labels=plan.given_labels
    )
    draw = probe_images(plan_backbone(plan), images, plan.chunks, 2, seed=0).draw
    for source, rows in (
        ("seen", plan.chunks[2].train),
        ("oldest", plan.chunks[0].train),
        ("new", np.intersect1d(plan.chunks[2].new, plan.chunks[2].train)),
    ):
        labels = torch.cat([batch[1] for batch in draw(source, 10_000)])  # type: ignore[arg-type]
        expected = images.labels[images.positions(rows)]
        assert torch.equal(labels.sort().values, expected.sort().values)
    assert sum(len(batch[1]) for batch in draw("seen", 7)) == 7


def test_a_strategy_that_changes_nothing_is_refused() -> None:
    model = nn.Linear(2, 1)
    with pytest.raises(UserError, match="'idle' changed no weight"):
        apply_strategy(lambda *_: Changes(masks={}), "idle", model, nn.Linear(2, 1), NO_IMAGES, seed=0)


def test_changes_are_counted_for_every_parameter() -> None:
    counts = count_changes(nn.Linear(2, 3), Changes(masks={"weight": torch.eye(3, 2, dtype=torch.bool)}))
    assert counts == {"weight": (2, 6), "bias": (0, 3)}
    assert count_changes(nn.Linear(2, 3), Changes(masks={})) == {"weight": (0, 6), "bias": (0, 3)}


def answers(*logits: list[float]) -> Answers:
    return Answers(logits=torch.tensor(logits), is_silent={})


def test_the_effect_is_the_share_of_other_answers_and_the_mean_change_of_a_logit() -> None:
    before = answers([1.0, 0.0], [0.0, 1.0], [3.0, 0.0], [0.0, 2.0])
    after = answers([0.0, 1.0], [0.0, 1.0], [2.0, 0.0], [0.0, 1.0])
    assert effect(before, after) == Effect(n_images=4, changed_predictions=0.25, logit_change=0.5)


def test_the_share_of_silent_weights_is_over_all_tensors_together() -> None:
    assert share_of({"a": torch.tensor([True]), "b": torch.tensor([False, False, True])}) == 0.5
    assert share_of({}) == 0.0


def backbone_of(name: str, **settings: Any) -> Backbone:
    config = BackboneConfig(name=name, **settings)
    return build_backbone(config, n_classes=4, n_channels=1, image_size=32, seed=0)


def draw_noise(source: str, n_images: int) -> Iterator[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(0)
    images = 3 + torch.randn(24, 1, 32, 32, generator=generator)
    labels = torch.randint(0, 4, (24,), generator=generator)
    yield from zip(images.split(12), labels.split(12), strict=True)


def test_the_answers_are_those_of_the_model_in_evaluation_mode() -> None:
    backbone = backbone_of("test_resnet", params={"zero_init_last": False})
    found = look(backbone.model.train(), ProbeImages(draw=draw_noise))
    with torch.no_grad():
        expected = torch.cat([backbone.model.eval()(images) for images, _ in draw_noise("seen", 24)])
    assert torch.equal(found.logits, expected)
    assert found.is_silent["layer4.0.conv1.weight"].float().mean() > 0.8
    assert 0.4 < share_of(found.is_silent) < 1


def test_a_unit_that_is_dead_in_the_model_alone_is_no_structural_zero() -> None:
    backbone = backbone_of("test_resnet", stem="small")
    with torch.no_grad():
        dead = backbone.model.get_submodule("layer1.0.bn1")
        dead.weight[0], dead.bias[0] = 0, -1
    twin = build_twin(backbone, BackboneConfig(name="test_resnet", stem="small"), seed=1)
    before = look(backbone.model, ProbeImages(draw=draw_noise))
    assert before.is_silent["layer1.0.conv1.weight"][0].all()
    zeros = without_effect(backbone, twin, before)
    assert not any(mask.any() for mask in zeros.values())


def test_a_weight_that_an_image_reaches_is_no_structural_zero_whatever_the_twin_says() -> None:
    backbone = backbone_of("test_resnet", stem="small")
    twin = build_twin(backbone, BackboneConfig(name="test_resnet", stem="small"), seed=1)
    with torch.no_grad():
        last: Any = backbone.model.get_submodule("layer1.0.bn2")
        last.weight.fill_(1)  # zero at first, which hides what lies before it
        norm: Any = twin.get_submodule("layer1.0.bn1")
        norm.weight.mul_(1e-3)
        norm.bias.fill_(-9)  # no unit of the twin is ever active
    before = look(backbone.model, ProbeImages(draw=draw_noise))
    assert not without_effect(backbone, twin, before)["layer1.0.conv1.weight"].all()


def test_new_statistics_are_those_of_the_images_and_the_model_keeps_its_own() -> None:
    backbone = backbone_of("test_resnet")
    before = {name: buffer.clone() for name, buffer in backbone.model.named_buffers()}
    renewed = with_new_statistics(backbone, ProbeImages(draw=draw_noise))
    assert renewed is not None
    assert all(torch.equal(buffer, before[name]) for name, buffer in backbone.model.named_buffers())
    first: Any = renewed.model.get_submodule("bn1")
    with torch.no_grad():
        batches = [backbone.model.get_submodule("conv1")(images) for images, _ in draw_noise("seen", 24)]
    expected = torch.stack([maps.mean((0, 2, 3)) for maps in batches]).mean(0)
    stem: Any = backbone.model.get_submodule("conv1")
    assert first.running_mean.shape[0] == (stem[-1] if isinstance(stem, nn.Sequential) else stem).out_channels
    assert torch.allclose(first.running_mean, expected, atol=1e-5)


def test_a_model_without_batch_norm_has_no_new_statistics() -> None:
    backbone = build_backbone(BackboneConfig(name="test_vit"), n_classes=4, n_channels=1, image_size=32, seed=0)
    assert with_new_statistics(backbone, ProbeImages(draw=draw_noise)) is None


def test_a_single_image_left_over_makes_no_batch_of_its_own() -> None:
    def draw(source: str, n_images: int) -> Iterator[tuple[Tensor, Tensor]]:
        for n in (4, 1):
            yield torch.randn(n, 1, 32, 32), torch.zeros(n, dtype=torch.long)

    assert with_new_statistics(backbone_of("test_resnet"), ProbeImages(draw=draw)) is not None
