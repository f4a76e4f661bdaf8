from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from lurefs.config.learning_schema import BackboneConfig
from lurefs.learning import images as images_module
from lurefs.learning.backbones import Backbone, build_backbone
from lurefs.learning.images import LabelledImages
from lurefs.learning.predictions import predict


def made_up(n_images: int, size: int) -> LabelledImages:
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (n_images, 1, size, size), generator=generator, dtype=torch.uint8)
    return LabelledImages(np.arange(n_images), pixels, torch.arange(n_images) % 5)


def backbone_of(name: str, size: int, stem: str = "default") -> Backbone:
    config = BackboneConfig(name=name, image_size=size, stem=stem)  # type: ignore[arg-type]
    return build_backbone(config, n_classes=5, n_channels=1, image_size=size, seed=0)


def sizes_of_passes(backbone: Backbone) -> list[int]:
    """Note how many images each pass of a model gets."""
    sizes: list[int] = []
    backbone.model.register_forward_pre_hook(lambda _, inputs: sizes.append(len(inputs[0])))
    return sizes


def test_a_large_batch_is_computed_in_parts_on_a_cpu() -> None:
    """However many images are asked for at one time; 16 is the least number."""
    backbone, images = backbone_of("test_resnet", 256), made_up(40, 256)
    sizes = sizes_of_passes(backbone)
    predict(backbone, images, torch.arange(40), 512)
    assert sizes == [16, 16, 8]


def test_fewer_images_at_one_time_are_obeyed() -> None:
    backbone, images = backbone_of("test_resnet", 32), made_up(10, 32)
    sizes = sizes_of_passes(backbone)
    predict(backbone, images, torch.arange(10), 4)
    assert sizes == [4, 4, 2]


@pytest.mark.parametrize(("name", "stem"), [("test_efficientnet", "small"), ("test_vit", "default")])
def test_predictions_do_not_depend_on_the_parts(name: str, stem: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """To the bit, also for the model and the images of the quickstart, whose largest batch has two parts."""
    size = 24 if stem == "small" else 160
    backbone, images = backbone_of(name, size, stem), made_up(512 if stem == "small" else 20, size)

    def found() -> Tensor:
        return predict(backbone, images, torch.arange(len(images.labels)), 512)

    in_parts = found()
    monkeypatch.setattr(images_module, "CPU_PIXELS", 2**40)
    assert torch.equal(found(), in_parts)
