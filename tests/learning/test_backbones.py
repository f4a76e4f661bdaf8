from __future__ import annotations

from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file

from lurefs.config.learning_schema import BackboneConfig
from lurefs.errors import UserError
from lurefs.learning.backbones import (
    Backbone,
    build_backbone,
    build_twin,
    resolve_device,
    stages,
)
from lurefs.learning.weights import classifier_names


def build(name: str = "test_resnet", *, n_channels: int = 3, image_size: int = 32, **settings: object) -> Backbone:
    config = BackboneConfig(name=name, **settings)  # type: ignore[arg-type]
    return build_backbone(config, n_classes=10, n_channels=n_channels, image_size=image_size, seed=0)


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("test_resnet", {}),
        ("test_efficientnet", {}),
        ("test_byobnet", {}),
        ("test_convnext", {}),
        ("test_nfnet", {}),
        ("test_vit", {"params": {"patch_size": 8}}),
        ("test_mambaout", {}),
    ],
)
@pytest.mark.parametrize("n_channels", [1, 3])
def test_any_family_embeds_and_classifies(name: str, settings: dict[str, object], n_channels: int) -> None:
    backbone = build(name, n_channels=n_channels, **settings)
    images = torch.randint(0, 256, (2, n_channels, 32, 32), dtype=torch.uint8)
    backbone.model.eval()
    assert backbone.embed(images).shape == (2, backbone.n_features)
    assert backbone.logits(images).shape == (2, 10)


def test_equal_seeds_give_equal_weights_and_leave_the_global_generator_alone() -> None:
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    one, other = build(), build()
    assert torch.equal(torch.rand(3), expected)
    for name, tensor in one.model.state_dict().items():
        assert torch.equal(tensor, other.model.state_dict()[name])


def test_a_twin_is_of_the_same_build_with_weights_of_its_own() -> None:
    backbone = build()
    twin = build_twin(backbone, BackboneConfig(name="test_resnet"), seed=1)
    own, fresh = backbone.model.state_dict(), twin.state_dict()
    assert {name: tensor.shape for name, tensor in own.items()} == {name: t.shape for name, t in fresh.items()}
    assert not torch.equal(own["conv1.0.weight"], fresh["conv1.0.weight"])


def test_images_are_standardised_and_resized() -> None:
    backbone = build(n_channels=1)
    prepared = backbone.prepare(torch.full((1, 1, 16, 16), 255, dtype=torch.uint8))
    assert prepared.shape == (1, 1, 32, 32)
    assert prepared[0, 0, 0, 0] == pytest.approx((1 - backbone.mean[0]) / backbone.std[0])


def test_weights_of_a_plain_timm_model_load_with_another_head(tmp_path: Path) -> None:
    source = timm.create_model("test_resnet", num_classes=3)
    save_file(source.state_dict(), tmp_path / "w.safetensors")
    torch.save({"state_dict": source.state_dict()}, tmp_path / "w.pth")
    for file in ("w.safetensors", "w.pth"):
        loaded = build(checkpoint_path=str(tmp_path / file)).model.state_dict()
        assert torch.equal(loaded["conv1.0.weight"], source.state_dict()["conv1.0.weight"])
        assert loaded["fc.weight"].shape[0] == 10


def test_weights_of_another_model_are_refused(tmp_path: Path) -> None:
    save_file(timm.create_model("test_byobnet", num_classes=10).state_dict(), tmp_path / "w.safetensors")
    with pytest.raises(UserError, match="does not fit the model"):
        build(checkpoint_path=str(tmp_path / "w.safetensors"))


@pytest.mark.parametrize("suffix", ["safetensors", "pth"])
@pytest.mark.parametrize("content", [b"", b"not weights at all"])
def test_files_that_are_no_weights_are_refused(tmp_path: Path, suffix: str, content: bytes) -> None:
    path = tmp_path / f"w.{suffix}"
    path.write_bytes(content)
    with pytest.raises(UserError, match="cannot be read"):
        build(checkpoint_path=str(path))


@pytest.mark.parametrize("name", ["test_resnet", "test_vit"])
def test_features_that_are_no_vector_are_refused(name: str) -> None:
    with pytest.raises(UserError, match=r"have shape \(\d+, .*\)\n.*one vector an image\n.*global_pool"):
        build(name, params={"global_pool": ""})


def test_an_image_too_small_for_the_model_is_refused() -> None:
    with pytest.raises(UserError, match=r"set backbone.image_size|change backbone.params"):
        build("test_vit", image_size=8)


def test_a_device_that_is_not_there_is_refused() -> None:
    with pytest.raises(UserError, match="set device=auto"):
        resolve_device("cuda:99")
    with pytest.raises(UserError, match="device 'meta' cannot be used"):
        resolve_device("meta")


@pytest.mark.parametrize("key", ["act_layer", "norm_layer"])
def test_layers_that_timm_does_not_have_are_refused(key: str) -> None:
    with pytest.raises(UserError, match=f"timm cannot build 'test_byobnet' .*'{key}': 'no_such'"):
        build("test_byobnet", params={key: "no_such"})


@pytest.mark.parametrize(
    ("name", "expected"),
    [("test_resnet", ["fc"]), ("test_convnext", ["head.fc"]), ("levit_128s", ["head", "head_dist"])],
)
def test_classifiers_are_found_by_what_they_are(name: str, expected: list[str]) -> None:
    assert classifier_names(timm.create_model(name, num_classes=3)) == expected
    assert classifier_names(torch.nn.Linear(2, 2)) == []


@pytest.mark.parametrize("name", ["test_resnet", "test_byobnet", "test_vit", "test_coatnet", "twins_svt_small"])
def test_stages_hold_the_whole_state_once_with_buffers_beside_their_parameters(name: str) -> None:
    model = timm.create_model(name, num_classes=3)
    parts = stages(model)
    assert sorted(key for part in parts for key in part) == sorted(model.state_dict())
    for part in parts:
        for key in part:
            if key.endswith("running_mean"):
                assert key.replace("running_mean", "weight") in part
    assert set(parts[-1]) >= {f"{classifier_names(model)[0]}.{key}" for key in ("weight", "bias")}


def test_gradients_reach_the_images_after_predictions_were_made_in_inference_mode() -> None:
    backbone = build()
    with torch.inference_mode():
        backbone.logits(torch.zeros(2, 3, 32, 32, dtype=torch.uint8))
    images = torch.full((2, 3, 32, 32), 128.0, requires_grad=True)
    backbone.logits(images).sum().backward()
    assert images.grad is not None
