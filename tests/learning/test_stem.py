"""The stem for small images, in families whose first layers look different."""

from __future__ import annotations

import pytest
import timm
import torch
from torch import nn

from lurefs.config.learning_schema import BackboneConfig
from lurefs.errors import UserError
from lurefs.learning.backbones import build_backbone
from lurefs.learning.stem import has_overlapping_stem, make_stem_small

SIZE = 64


def small(name: str) -> tuple[nn.Module, nn.Module]:
    """Return a model as timm builds it, and with a small stem."""
    torch.manual_seed(0)
    plain = timm.create_model(name, num_classes=3)
    torch.manual_seed(0)
    model = timm.create_model(name, num_classes=3)
    make_stem_small(model, name, n_channels=3, image_size=SIZE)
    return plain.eval(), model.eval()


@pytest.mark.parametrize(
    ("name", "factor"),
    [
        ("resnet10t", 4),
        ("resnetblur18", 4),
        ("densenet121", 4),
        ("dpn48b", 4),
        ("cspresnet50", 4),
        ("nf_resnet26", 4),
        ("resnetv2_50", 4),
        ("test_nfnet", 2),
        ("eca_nfnet_l0", 2),
        ("test_efficientnet", 2),
        ("test_byobnet", 2),
        ("tf_efficientnet_lite0", 2),
    ],
)
def test_maps_grow_by_the_strides_that_go(name: str, factor: int) -> None:
    plain, model = small(name)
    images = torch.rand(2, 3, SIZE, SIZE)
    with torch.inference_mode():
        before, after = plain.forward_features(images), model.forward_features(images)
    assert after.shape[-1] == factor * before.shape[-1]
    assert torch.isfinite(model(images)).all()


@pytest.mark.parametrize("name", ["resnet10t", "test_nfnet", "tf_efficientnet_lite0", "densenet121"])
def test_layers_keep_their_types_and_names(name: str) -> None:
    plain, model = small(name)
    assert type(plain.get_submodule(plain.pretrained_cfg["first_conv"])) is type(
        model.get_submodule(model.pretrained_cfg["first_conv"])
    )
    assert list(plain.state_dict()) == list(model.state_dict())


def test_resnet18_with_a_small_stem_has_the_known_number_of_parameters() -> None:
    config = BackboneConfig(name="resnet18", stem="small")
    backbone = build_backbone(config, n_classes=10, n_channels=3, image_size=32, seed=0)
    assert backbone.n_parameters == 11_173_962
    assert backbone.model.eval().forward_features(torch.zeros(1, 3, 32, 32)).shape[-1] == 4  # type: ignore[operator]


def test_of_seven_taps_the_three_in_the_middle_stay() -> None:
    plain, model = small("resnet18")
    assert torch.equal(model.conv1.weight, plain.conv1.weight[:, :, 2:5, 2:5] * (7 / 3))


def test_a_standardised_convolution_keeps_the_variance_of_its_output() -> None:
    plain, model = small("nf_resnet26")
    images = torch.randn(4, 3, SIZE, SIZE)
    with torch.inference_mode():
        spread = [m.get_submodule("stem.conv")(images)[..., 8:-8, 8:-8].var().item() for m in (plain, model)]
    assert spread[1] == pytest.approx(spread[0], rel=0.15)


@pytest.mark.parametrize("name", ["pit_ti_224", "levit_128s", "coatnet_nano_rw_224", "hiera_tiny_224", "mvitv2_tiny"])
def test_a_family_that_depends_on_the_size_of_its_maps_is_refused(name: str) -> None:
    size = 224 if name == "pit_ti_224" else SIZE
    model = timm.create_model(name, **({} if name in ("pit_ti_224", "mvitv2_tiny") else {"img_size": SIZE}))
    assert not has_overlapping_stem(model, n_channels=3, image_size=size)
    with pytest.raises(UserError, match=r"depend on the size of its maps(.*\n)*.*stem=default"):
        make_stem_small(model, name, n_channels=3, image_size=size)


@pytest.mark.parametrize(("name", "reason"), [("test_vit", "no overlapping"), ("dla46x_c", "stride 1 already")])
def test_a_stem_that_cannot_become_smaller_is_refused(name: str, reason: str) -> None:
    model = timm.create_model(name)
    size = 160 if name == "test_vit" else SIZE
    assert not has_overlapping_stem(model, n_channels=3, image_size=size)
    with pytest.raises(UserError, match=reason):
        make_stem_small(model, name, n_channels=3, image_size=size)


def test_asking_leaves_the_model_as_it_was() -> None:
    model = timm.create_model("test_nfnet")
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    assert has_overlapping_stem(model, n_channels=3, image_size=SIZE)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
