from __future__ import annotations

from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn

from lurefs.errors import UserError
from lurefs.learning.unlearn.contract import Changes, ProbeImages
from lurefs.learning.unlearn.parts import head, last_layers


def model_of(family: str, seed: int) -> nn.Module:
    torch.manual_seed(seed)
    model = timm.create_model(family, num_classes=5)
    for tensor in model.state_dict().values():  # so that fresh norms and biases differ as well
        if tensor.is_floating_point():
            tensor += 0.01 * torch.randn(tensor.shape)
    return model


def apply(strategy: Any, model: nn.Module, twin: nn.Module) -> Changes:
    images = ProbeImages(draw=lambda source, n_images: iter(()))
    changes: Changes = strategy(model, twin, images, torch.Generator())
    return changes


def changed(strategy: Any, family: str) -> tuple[set[str], Changes]:
    """Return the names of what now equals the twin's state, after checking that the rest is as it was."""
    model, twin = model_of(family, 0), model_of(family, 1)
    before: dict[str, Tensor] = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    changes = apply(strategy, model, twin)
    fresh = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}
    assert all(torch.equal(model.state_dict()[name], twin.state_dict()[name]) for name in fresh)
    assert {name for name in fresh if name in dict(model.named_parameters())} == set(changes.masks)
    return fresh, changes


@pytest.mark.parametrize(
    ("family", "expected"),
    [
        ("test_resnet", {"fc.weight", "fc.bias"}),
        ("test_efficientnet", {"classifier.weight", "classifier.bias"}),
        ("test_convnext", {"head.fc.weight", "head.fc.bias"}),
        ("test_vit", {"head.weight", "head.bias"}),
        ("levit_128s", {"head.linear.weight", "head.linear.bias", "head_dist.linear.weight", "head_dist.linear.bias"}),
    ],
)
def test_the_head_alone_starts_anew_whatever_its_name(family: str, expected: set[str]) -> None:
    fresh, changes = changed(head(), family)
    assert {name for name in fresh if ".bn." not in name} == expected
    assert all(mask.all() for mask in changes.masks.values())


@pytest.mark.parametrize(
    ("family", "first", "last_kept"),
    [
        ("test_resnet", "layer4.", "layer3."),
        ("test_byobnet", "stages.3.", "stages.2."),
        ("test_efficientnet", "blocks.4.", "blocks.3."),
        ("test_vit", "blocks.5.", "blocks.4."),
    ],
)
def test_the_last_stage_and_the_head_start_anew(family: str, first: str, last_kept: str) -> None:
    fresh, _ = changed(last_layers(), family)
    names = [name for name, tensor in model_of(family, 0).state_dict().items() if tensor.is_floating_point()]
    assert fresh == set(names[names.index(next(name for name in names if name.startswith(first))) :])
    assert not any(name.startswith(last_kept) for name in fresh)


def test_norm_layers_and_their_statistics_start_anew_with_the_rest() -> None:
    fresh, _ = changed(last_layers(), "test_resnet")
    assert {"layer4.0.bn1.weight", "layer4.0.bn1.running_mean", "layer4.0.bn1.running_var"} <= fresh


def test_any_module_can_be_the_first() -> None:
    fresh, _ = changed(last_layers(from_module="layer4.0.conv2"), "test_resnet")
    names = [name for name, tensor in model_of("test_resnet", 0).state_dict().items() if tensor.is_floating_point()]
    assert fresh == set(names[names.index("layer4.0.conv2.weight") :])


def test_the_order_is_that_of_computation() -> None:
    """Twins registers all patch embeddings before all blocks, but computes them stage by stage."""
    model, twin = (timm.create_model("twins_svt_small", num_classes=5, img_size=64) for _ in range(2))
    masks = apply(last_layers(), model, twin).masks
    assert "patch_embeds.3.proj.weight" in masks
    assert "blocks.3.0.attn.qkv.weight" in masks
    assert not any(name.startswith(("blocks.0.", "blocks.2.", "patch_embeds.2")) for name in masks)


def test_an_unknown_module_is_answered_with_the_nearest() -> None:
    with pytest.raises(UserError, match=r"no module 'layr4'[\s\S]*conv1, bn1, layer1[\s\S]*did you mean 'layer4'"):
        apply(last_layers(from_module="layr4"), model_of("test_resnet", 0), model_of("test_resnet", 1))


def test_what_timm_does_not_know_is_refused() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    with pytest.raises(UserError, match=r"does not divide[\s\S]*one of 0, 1[\s\S]*from_module"):
        apply(last_layers(), model, model)
    with pytest.raises(UserError, match="no classifier"):
        apply(head(), model, model)


def test_a_named_module_works_where_timm_knows_no_stages() -> None:
    model, twin = (nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)) for _ in range(2))
    assert set(apply(last_layers(from_module="1"), model, twin).masks) == {"1.weight", "1.bias"}
    assert torch.equal(model[1].weight, twin[1].weight)
