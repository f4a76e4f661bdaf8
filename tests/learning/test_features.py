from __future__ import annotations

import pytest
import timm
import torch
from torch import Tensor, nn

from lurefs.config.learning_schema import BackboneConfig, FeaturesConfig
from lurefs.errors import UserError
from lurefs.learning.backbones import Backbone, build_backbone, build_twin

OTHERS = ("resnet18", "mobilenetv3_small_050", "deit_tiny_distilled_patch16_224", "swin_tiny_patch4_window7_224")
SIZES = {"test_vit_relpos": 160, "test_maxvit": 128, "test_coatnet": 128, "swin_tiny_patch4_window7_224": 224}
BY_CLASS_TOKEN = ("test_vit", "deit_tiny_distilled_patch16_224")


def build(name: str, **features: object) -> Backbone:
    config = BackboneConfig(name=name, features=FeaturesConfig(**features))  # type: ignore[arg-type]
    return build_backbone(config, n_classes=5, n_channels=3, image_size=SIZES.get(name, 64), seed=0)


def images_for(backbone: Backbone, n: int = 8) -> Tensor:
    shape = (n, 3, backbone.image_size, backbone.image_size)
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def embed(backbone: Backbone, images: Tensor) -> Tensor:
    backbone.model.eval()
    with torch.inference_mode():
        return backbone.embed(images)


def output_of(backbone: Backbone, layer: str, images: Tensor) -> Tensor:
    """Return what a module of the model returns, watched by a hook."""
    seen: list[Tensor] = []
    hook = backbone.model.get_submodule(layer).register_forward_hook(lambda module, given, output: seen.append(output))
    with torch.no_grad():
        backbone.model.eval()(backbone.prepare(images))
    hook.remove()
    return seen[-1]


def layers_of(backbone: Backbone) -> list[str]:
    model: nn.Module = backbone.model
    return [each["module"] for each in model.feature_info]  # type: ignore[union-attr]


@pytest.mark.parametrize("name", [*timm.list_models("test_*"), *OTHERS])
@pytest.mark.parametrize(
    "features", [{}, {"pool": "avg"}, {"layer": 1, "pool": "max"}, {"n_layers": 3, "pool": "avg"}], ids=str
)
def test_features_of_any_family_are_vectors_that_do_not_depend_on_the_batch(
    name: str, features: dict[str, object]
) -> None:
    if "deit" in name and features == {"pool": "avg"}:
        pytest.skip("timm refuses it, tested below")
    backbone = build(name, **features)
    images = images_for(backbone)
    together = embed(backbone, images)
    alone = torch.cat([embed(backbone, image[None]) for image in images])
    assert together.shape == (8, backbone.n_features)
    assert torch.isfinite(together).all()
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-4)
    assert together.std(0).max() > 0


@pytest.mark.parametrize("name", ["test_resnet", "test_byobnet", "test_convnext", "resnet18", "test_nfnet"])
@pytest.mark.parametrize("number", [0, 2, -1])
def test_a_layer_of_a_convolutional_network_is_what_a_hook_sees_there(name: str, number: int) -> None:
    by_number = build(name, layer=number, pool="avg", norm=False)
    layer = layers_of(by_number)[number]
    images = images_for(by_number)
    seen = output_of(by_number, layer, images)
    assert torch.equal(embed(by_number, images), seen.mean((2, 3)))
    by_name = build(name, layer=layer, pool="max", norm=False)
    assert torch.equal(embed(by_name, images), seen.amax((2, 3)))
    assert by_name.n_features == seen.shape[1]


@pytest.mark.parametrize("name", ["test_vit", "test_vit4", *OTHERS[2:3]])
def test_a_block_of_a_vision_transformer_is_what_a_hook_sees_there(name: str) -> None:
    images = images_for(build(name))
    for norm in (False, True):
        backbone = build(name, layer="blocks.2", pool="avg", norm=norm)
        model: nn.Module = backbone.model
        seen = output_of(backbone, "blocks.2", images)
        wanted = model.norm(seen) if norm else seen  # type: ignore[operator]
        patches = wanted[:, model.num_prefix_tokens :]  # type: ignore[misc]
        torch.testing.assert_close(embed(backbone, images), patches.mean(1))
        if name in BY_CLASS_TOKEN:
            by_default = build(name, layer="blocks.2", norm=norm)
            assert torch.equal(embed(by_default, images), wanted[:, 0])


@pytest.mark.parametrize("n_layers", [1, 4])
def test_the_features_of_the_linear_evaluation_of_dinov2_are_made(n_layers: int) -> None:
    backbone = build("test_vit", n_layers=n_layers, pool="token_avg")
    images = images_for(backbone)
    model: nn.Module = backbone.model
    blocks = [model.norm(output_of(backbone, f"blocks.{i}", images)) for i in range(6)]  # type: ignore[operator]
    expected = torch.cat([*(block[:, 0] for block in blocks[-n_layers:]), blocks[-1][:, 1:].mean(1)], dim=1)
    torch.testing.assert_close(embed(backbone, images), expected)
    assert backbone.n_features == (n_layers + 1) * 64


def test_layers_end_with_the_chosen_one_in_their_order() -> None:
    backbone = build("test_resnet", layer="layer3", n_layers=2, pool="avg")
    images = images_for(backbone)
    parts = [output_of(backbone, layer, images).mean((2, 3)) for layer in ("layer2", "layer3")]
    assert torch.equal(embed(backbone, images), torch.cat(parts, dim=1))


@pytest.mark.parametrize("name", ["test_resnet", "test_efficientnet", "resnet18", "test_vit", "test_convnext"])
@pytest.mark.parametrize("pool", ["max", "avgmax", "avg"])
def test_another_pooling_is_that_of_a_model_which_timm_builds_with_it(name: str, pool: str) -> None:
    backbone = build(name, pool=pool)
    images = images_for(backbone)
    more = {"fc_norm": False, "img_size": 64} if "vit" in name else {}
    model = timm.create_model(name, num_classes=0, global_pool=pool, **more).eval()
    model.load_state_dict({n: t for n, t in backbone.model.state_dict().items() if n in model.state_dict()})
    with torch.inference_mode():
        expected = model(backbone.prepare(images))
    assert torch.equal(embed(backbone, images), expected)


def test_the_default_is_what_the_classifier_gets_and_choosing_it_by_name_changes_no_bit() -> None:
    for name, pool in (("test_vit", "token"), ("test_resnet", "avg")):
        backbone, chosen = build(name), build(name, pool=pool)
        images = images_for(backbone)
        features = embed(backbone, images)
        assert torch.equal(embed(chosen, images), features)
        classifier = backbone.model.get_classifier()  # type: ignore[operator]
        with torch.inference_mode():
            assert torch.equal(classifier(features), backbone.logits(images))


def test_only_what_is_embedded_changes_not_the_logits_and_not_the_weights() -> None:
    plain, chosen = build("test_resnet"), build("test_resnet", pool="max", layer=1)
    images = images_for(plain)
    embed(chosen, images)
    with torch.inference_mode():
        assert torch.equal(plain.model.eval()(plain.prepare(images)), chosen.model.eval()(chosen.prepare(images)))
    assert list(plain.model.state_dict()) == list(chosen.model.state_dict())


def test_a_pooling_follows_weights_that_change_or_move() -> None:
    backbone = build("test_resnet", pool="max")
    images = images_for(backbone)
    before = embed(backbone, images)
    with torch.no_grad():
        for parameter in backbone.model.parameters():
            parameter.mul_(1.1)
    changed = embed(backbone, images)
    assert not torch.equal(before, changed)
    backbone.model.double().float()  # replaces buffers, as a move to another device does
    for buffer in backbone.model.buffers():
        buffer.mul_(2)
    assert not torch.equal(changed, embed(backbone, images))


def test_a_twin_embeds_by_the_same_choice() -> None:
    from dataclasses import replace

    backbone = build("test_vit", n_layers=2, pool="token_avg")
    config = BackboneConfig(name="test_vit", features=backbone.features)
    twin = replace(backbone, model=build_twin(backbone, config, seed=1))
    images = images_for(backbone)
    assert embed(twin, images).shape == (8, 3 * 64)
    assert not torch.equal(embed(twin, images), embed(backbone, images))


@pytest.mark.parametrize(
    ("name", "features", "words"),
    [
        ("test_resnet", {"pool": "token"}, r"pool is 'token', which ResNet does not have"),
        ("test_resnet", {"pool": "map"}, r"pool is 'map', which ResNet does not have"),
        ("test_convnext", {"pool": "catavgmax"}, r"pool is 'catavgmax', which ConvNeXt does not have"),
        ("test_vit2", {"pool": "token"}, r"pool is 'token', which VisionTransformer does not have"),
        ("test_vit", {"pool": "map"}, r"pool is 'map', which VisionTransformer does not have"),
        (OTHERS[2], {"pool": "avg"}, r"pool is 'avg', which VisionTransformerDistilled does not have"),
        ("test_resnet", {"pool": "token_avg"}, r"'token_avg', but timm gives no class token of the layers of ResNet"),
        ("test_vit2", {"layer": 1, "pool": "token"}, r"no class token of the layers of VisionTransformer"),
        ("test_resnet", {"layer": "layer9"}, r"act1, layer1, layer2, layer3, layer4 of ResNet(.*\n)*.*mean 'layer\d'"),
        ("test_resnet", {"layer": 5}, r"layer is 5, but ResNet has 5 layers(.*\n)*.*from 0 to 4"),
        ("test_resnet", {"layer": -6}, r"layer is -6, but ResNet has 5 layers"),
        ("test_resnet", {"layer": 1, "n_layers": 3}, r"n_layers is 3, but ResNet has 2 layers up to 'layer1'"),
        ("test_vit", {"layer": "6"}, r"layer is '6', but timm knows the layers blocks\.0"),
        ("hiera_tiny_224", {"layer": 1}, r"layer 1\): normalization of features not supported(.*\n)*.*norm: false"),
    ],
)
def test_what_a_family_does_not_have_is_refused(name: str, features: dict[str, object], words: str) -> None:
    with pytest.raises(UserError, match=words):
        build(name, **features)


def test_a_choice_is_said_in_words() -> None:
    assert FeaturesConfig().words() == ""
    assert FeaturesConfig(pool="max").words() == "pooled by max"
    assert FeaturesConfig(layer="blocks.6", norm=False).words() == "layer 'blocks.6', without the final norm"
    assert FeaturesConfig(n_layers=4, pool="token_avg").words() == "4 layers up to the last one, pooled by token_avg"


@pytest.mark.parametrize(
    ("name", "layer"),
    [
        ("resnet18", "layer2.0"),
        ("resnet18", "layer1.0.conv1"),
        ("test_convnext", "stages.1.blocks.0"),
        ("test_vit", "blocks.1.mlp"),
        ("swin_tiny_patch4_window7_224", "layers.1.blocks.0"),
    ],
)
def test_any_module_by_its_name_gives_its_own_pooled_output(name: str, layer: str) -> None:
    backbone = build(name, layer=layer, pool="avg")
    images = images_for(backbone, 2)
    found, output = embed(backbone, images), output_of(backbone, layer, images)
    positions = (1, 2) if name.startswith("swin") else (2, 3)
    expected = output[:, 1:].mean(1) if output.ndim == 3 else output.mean(positions)
    assert torch.allclose(found, expected, atol=1e-6)
    assert backbone.n_features == expected.shape[1]


def test_a_module_of_a_transformer_gives_its_class_token_where_the_model_classifies_by_it() -> None:
    backbone = build("test_vit", layer="blocks.1.mlp")
    images = images_for(backbone, 2)
    assert torch.equal(embed(backbone, images), output_of(backbone, "blocks.1.mlp", images)[:, 0])


@pytest.mark.parametrize(
    ("name", "features", "words"),
    [
        ("resnet18", {"layer": "layer2.0", "n_layers": 2}, "n_layers is 2"),
        ("resnet18", {"layer": "layer2.0", "pool": "token"}, "gives no class token"),
        ("resnet18", {"layer": "layer2.9"}, "did you mean 'layer2"),
        ("swin_tiny_patch4_window7_224", {"layer": "layers.0.blocks.0.attn.qkv"}, "gives an output of shape"),
        ("resnet18", {"layer": "fc"}, "gives no tensor"),
    ],
)
def test_a_module_that_gives_no_features_is_refused(name: str, features: dict[str, object], words: str) -> None:
    with pytest.raises(UserError, match=words):
        build(name, **features)
