"""The default reset on every family: it leaves out what cannot matter, and it changes what the model says."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache

import pytest
import timm
import torch
from torch import Tensor
from torch.nn import functional

from lurefs.config.learning_schema import BackboneConfig
from lurefs.learning.backbones import Backbone, build_backbone, build_twin
from lurefs.learning.boundary import Effect, effect, look, without_effect
from lurefs.learning.unlearn.contract import Changes, ProbeImages
from lurefs.learning.unlearn.masks import by_saliency

BACKBONES = {
    **{name: BackboneConfig(name=name) for name in timm.list_models("test_*")},
    "resnet18, small stem": BackboneConfig(name="resnet18", stem="small"),
    "resnet50, small stem": BackboneConfig(name="resnet50", stem="small"),
}
"""All of timm's small models of many families, at 32 pixels, where some of their last maps are 1 x 1."""
LARGE = ("resnet18, small stem", "resnet50, small stem")
N_CLASSES = 50
of_every_backbone = pytest.mark.parametrize("name", BACKBONES)


def images_of(n_images: int, seed: int, size: int) -> tuple[Tensor, Tensor]:
    """Draw grey images of many classes, each a coarse pattern under noise: a few steps leave most answers unsure."""
    generator = torch.Generator().manual_seed(seed)
    patterns = torch.randn(N_CLASSES, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    labels = torch.randint(0, N_CLASSES, (n_images,), generator=generator)
    coarse = functional.interpolate(patterns[labels], size=size)
    return coarse + torch.randn(n_images, 1, size, size, generator=generator), labels


def probe_of(size: int) -> ProbeImages:
    def draw(source: str, n_images: int) -> Iterator[tuple[Tensor, Tensor]]:
        images, labels = images_of(128, seed=1, size=size)
        yield from zip(images.split(64), labels.split(64), strict=True)

    return ProbeImages(draw=draw)


@dataclass(frozen=True)
class Reset:
    changes: Changes
    structural_zeros: dict[str, Tensor]
    effect: Effect


def trained(name: str) -> Backbone:
    """A model after a few steps, short of knowing its classes for sure."""
    size = 16 if name in LARGE else 32
    backbone = build_backbone(BACKBONES[name], n_classes=N_CLASSES, n_channels=1, image_size=size, seed=0)
    optimizer = torch.optim.Adam(backbone.model.parameters(), lr=5e-3 if name in LARGE else 2e-3)
    backbone.model.train()
    for step in range(8):
        images, labels = images_of(16 if name in LARGE else 32, seed=10 + step, size=size)
        optimizer.zero_grad()
        functional.cross_entropy(backbone.model(images), labels).backward()
        optimizer.step()
    return backbone


@cache
def reset_of(name: str) -> Reset:
    backbone = trained(name)
    probe = probe_of(backbone.image_size)
    before = look(backbone.model, probe)
    twin = build_twin(backbone, BACKBONES[name], seed=1)
    zeros = without_effect(backbone, twin, before)
    probe = replace(probe, structural_zeros=zeros)
    changes = by_saliency()(backbone.model, twin, probe, torch.Generator().manual_seed(0))
    return Reset(changes, zeros, effect(before, look(backbone.model, probe)))


@of_every_backbone
def test_no_structural_zero_is_reset(name: str) -> None:
    reset = reset_of(name)
    assert not any((mask & reset.structural_zeros[key]).any() for key, mask in reset.changes.masks.items())


@of_every_backbone
def test_a_reset_changes_predictions(name: str) -> None:
    assert reset_of(name).effect.changed_predictions > 0
