"""Small models of different families, as timm has them: features, one reset between two chunks, no special case."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lurefs.config.learning_schema import BackboneConfig
from lurefs.config.schema import RunConfig
from lurefs.errors import UserError
from lurefs.learning.backbones import build_backbone
from lurefs.runs.directory import RunDirectory
from lurefs.stages.checks import check
from lurefs.stages.plan import make_plan
from lurefs.stages.run import run_stage

FAMILIES: dict[str, tuple[int, dict[str, Any]]] = {
    "starnet_s050": (32, {}),  # convolutions, products of two branches
    "dla46x_c": (32, {}),  # grouped convolutions, joined as a tree
    "test_byobnet": (32, {}),  # residual convolutions
    "test_nfnet": (32, {}),  # no norm: weights are standardised
    "test_convnext2": (32, {}),  # layer norm, layer scales
    "test_mambaout": (32, {}),  # gated convolutions, channels last
    "test_vit4": (32, {}),  # attention, several tokens before the patches
    "pit_ti_224": (64, {"depth": [1, 1, 1]}),  # attention, pooled between stages
    "xcit_nano_12_p8_224": (32, {"depth": 2}),  # attention over channels
    "gmlp_ti16_224": (32, {}),  # a mixer of tokens by gates
    "mobilevit_xxs": (32, {}),  # convolutions and attention
    "levit_128s": (64, {"depth": [1, 1, 1]}),  # keeps tensors of a pass in evaluation mode
    "swin_tiny_patch4_window7_224": (56, {"embed_dim": 24, "depths": [1, 1, 2]}),  # attention in windows
}
"""By name, the size of the images in pixels, and parameters that make the model small."""
of_every_family = pytest.mark.parametrize("name", FAMILIES)


def settings(name: str) -> dict[str, Any]:
    size, params = FAMILIES[name]
    return {"name": name, "image_size": size, "params": params}


@of_every_family
def test_features_of_an_image_are_finite_and_its_own(name: str) -> None:
    size, _ = FAMILIES[name]
    backbone = build_backbone(BackboneConfig(**settings(name)), n_classes=4, n_channels=3, image_size=size, seed=0)
    shape = (8, 3, size, size)
    images = torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    backbone.model.eval()
    with torch.inference_mode():
        together = backbone.embed(images)
        alone = torch.cat([backbone.embed(image[None]) for image in images])
    assert together.shape == (8, backbone.n_features)
    assert torch.isfinite(together).all()
    assert torch.allclose(alone, together, rtol=1e-3, atol=1e-4 * float(together.abs().max()))


@of_every_family
def test_a_chunk_is_learned_after_a_reset(name: str, make_config: Callable[..., RunConfig], tmp_path: Path) -> None:
    config = make_config(
        backbone=settings(name),
        chunks={"n_chunks": 2},
        learner={"epochs": 1, "batch_size": 16},
        after_chunk={"few_shot": False},
    )
    plan, directory = make_plan(config), RunDirectory(tmp_path / "run")
    run_stage(plan, directory, "pretrain")
    first, second = directory.read_outcomes()
    assert first.unlearn is None and second.unlearn is not None
    assert second.unlearn.n_reset > 0
    assert second.unlearn.changed_predictions is not None
    assert np.isfinite([second.train_loss, second.test_nll, second.unlearn.logit_change]).all()


@pytest.mark.filterwarnings("ignore:CSATv2 is designed")
def test_a_family_that_needs_colours_is_refused_for_grey_images(make_config: Callable[..., RunConfig]) -> None:
    """It transforms colours to luminance and chrominance first."""
    with pytest.raises(UserError, match="cannot read 64 x 64 grey images") as refused:
        check(make_plan(make_config(backbone={"name": "csatv2", "image_size": 64})))
    assert "dataset.params.n_channels=3" in refused.value.fix
