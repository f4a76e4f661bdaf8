from __future__ import annotations

import json
from pathlib import Path

import huggingface_hub
import pytest
import timm
import torch
from safetensors.torch import save_file

from lurefs.config.learning_schema import BackboneConfig
from lurefs.config.weight_files import folder_sha256
from lurefs.errors import UserError
from lurefs.learning.backbones import Backbone, build_backbone
from lurefs.learning.timm_models import check_backbone, list_backbones


def build(name: str = "test_resnet", *, n_channels: int = 3, image_size: int = 32, **settings: object) -> Backbone:
    config = BackboneConfig(name=name, **settings)  # type: ignore[arg-type]
    return build_backbone(config, n_classes=10, n_channels=n_channels, image_size=image_size, seed=0)


def test_an_unknown_model_is_answered_with_the_nearest() -> None:
    with pytest.raises(UserError, match="did you mean 'resnet18'"):
        check_backbone(BackboneConfig(name="resnet_18"))


def test_an_unknown_tag_is_answered_with_those_of_the_model() -> None:
    with pytest.raises(UserError, match=r"'resnet18\.a1_in1'\n.*resnet18\.a1_in1k, (.*\n)*.*mean 'resnet18\.a1_in1k'"):
        check_backbone(BackboneConfig(name="resnet18.a1_in1"))
    for name in ("resnet18.a1_in1k", "resnet50_mlp.untrained"):
        check_backbone(BackboneConfig(name=name))


@pytest.mark.parametrize("pretrained", [False, True])
def test_a_model_of_the_hub_without_a_network_is_told_in_words(
    monkeypatch: pytest.MonkeyPatch, pretrained: bool
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match=r"'hf-hub:nobody/nothing'(.*\n)*.*network connection"):
        build("hf-hub:nobody/nothing", pretrained=pretrained)


@pytest.mark.parametrize(
    ("params", "words"),
    [
        ({"num_classes": 3}, r"num_classes is 3\n.*per base class"),
        ({"in_chans": 1}, r"in_chans is 1\n.*as the images of the data set"),
        ({"features_only": True}, r"features_only is True\n.*a whole model is learned"),
        ({"pretrained": True}, r"pretrained is True\n.*backbone\.pretrained says whether"),
        ({"checkpoint_path": "w.pth"}, r"checkpoint_path is 'w\.pth'\n.*backbone\.checkpoint_path names"),
    ],
)
def test_parameters_that_other_settings_stand_for_are_refused(params: dict[str, object], words: str) -> None:
    with pytest.raises(UserError, match=r"backbone\.params\." + words):
        check_backbone(BackboneConfig(params=params))


def test_parameters_that_timm_does_not_take_are_refused() -> None:
    with pytest.raises(UserError, match="timm cannot build"):
        build(params={"nonsense": 3})


def test_pretrained_weights_without_a_network_are_told_in_words(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(UserError, match="pretrained weights of 'test_resnet' cannot be had"):
        build(pretrained=True)


def test_a_model_comes_from_a_folder_as_timm_saves_one(tmp_path: Path) -> None:
    source = timm.create_model("test_resnet", num_classes=10)
    save_file(source.state_dict(), tmp_path / "model.safetensors")
    card = {key: source.pretrained_cfg[key] for key in ("input_size", "mean", "std", "first_conv", "classifier")}
    (tmp_path / "config.json").write_text(json.dumps({"architecture": "test_resnet", "pretrained_cfg": card}))
    loaded = build(f"local-dir:{tmp_path}", pretrained=True).model.state_dict()
    assert torch.equal(loaded["conv1.0.weight"], source.state_dict()["conv1.0.weight"])


def test_a_name_of_the_hub_without_its_prefix_is_answered_with_it() -> None:
    with pytest.raises(UserError, match=r"write 'hf-hub:timm/resnet18\.a1_in1k'"):
        check_backbone(BackboneConfig(name="timm/resnet18.a1_in1k"))


def test_pretrained_weights_that_do_not_fill_the_model_are_refused(tmp_path: Path) -> None:
    save_file({"wrong.weight": torch.ones(1)}, tmp_path / "w.safetensors")
    overlay = {"file": str(tmp_path / "w.safetensors")}
    with pytest.raises(UserError, match=r"leave \d+ of \d+ tensors at random values"):
        build(pretrained=True, params={"pretrained_cfg_overlay": overlay})


def test_a_hub_whose_address_is_unknown_is_not_waited_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def unknown(*_: object) -> None:
        raise OSError("Name or service not known")

    monkeypatch.setattr("socket.getaddrinfo", unknown)
    monkeypatch.setattr("lurefs.learning.timm_models.getproxies", dict)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(UserError, match=r"weights of 'test_resnet' cannot be had: .*local cache"):
        build(pretrained=True)
    assert huggingface_hub.constants.HF_HUB_OFFLINE is False


def test_models_are_listed_by_a_part_of_their_name() -> None:
    found = list_backbones("test_res")
    assert "test_resnet" in found
    assert all("test_res" in name for name in found)


def test_a_folder_that_is_not_the_one_of_the_digest_is_refused(tmp_path: Path) -> None:
    source = timm.create_model("test_resnet", num_classes=10)
    save_file(source.state_dict(), tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps({"architecture": "test_resnet", "pretrained_cfg": {}}))
    known = folder_sha256(tmp_path, True)
    build(f"local-dir:{tmp_path}", pretrained=True, checkpoint_sha256=known)
    with pytest.raises(UserError, match=rf"SHA-256 {known}\n.*the one of backbone.checkpoint_sha256, abc"):
        build(f"local-dir:{tmp_path}", pretrained=True, checkpoint_sha256="abc")


def test_a_loader_that_loads_nothing_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    overlay = {"file": str(tmp_path / "w.npz"), "custom_load": True}
    loaded: list[str] = []
    monkeypatch.setattr(
        "timm.models.vision_transformer.VisionTransformer.load_pretrained", lambda self, path: loaded.append(path)
    )
    with pytest.raises(UserError, match=r"leave (\d+) of \1 tensors at random values"):
        build("test_vit", pretrained=True, params={"pretrained_cfg_overlay": overlay})
    assert loaded
