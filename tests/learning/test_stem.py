from __future__ import annotations

import pytest
import torch

from lurefs.config.schema import BackboneConfig
from lurefs.errors import UserError
from lurefs.learning.backbones import Backbone, build_backbone


def build(name: str, stem: str) -> Backbone:
    config = BackboneConfig(name=name, stem=stem)  # type: ignore[arg-type]
    return build_backbone(config, n_classes=10, n_channels=3, image_size=32, seed=0)


def test_resnet18_with_a_small_stem_has_the_known_number_of_parameters() -> None:
    assert build("resnet18", stem="small").n_parameters == 11_173_962


def test_a_small_stem_keeps_the_size_of_small_images() -> None:
    image = torch.zeros(1, 3, 32, 32)
    for stem, size in (("default", 1), ("small", 4)):
        model = build("resnet18", stem=stem).model.eval()
        assert model.forward_features(image).shape[-1] == size  # type: ignore[operator]


def test_a_patch_embedding_has_no_small_stem() -> None:
    with pytest.raises(UserError, match="no plain overlapping first convolution"):
        build("test_vit", stem="small")
