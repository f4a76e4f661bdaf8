"""Weights that no image can reach, against what padding and one-token attention leave of them."""

from __future__ import annotations

from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn
from torch.nn import functional

from lurefs.learning.saliency import weight_names
from lurefs.learning.structure import estimate_statistics, has_layer_scales, structural_zeros


def taps_on_padding_alone(model: nn.Module, size: int) -> dict[str, Tensor]:
    """From the shapes of the maps: the taps of each convolution that lie on padding wherever it is placed."""
    found = {}

    def look(name: str, layer: nn.Conv2d, maps: tuple[Tensor]) -> None:
        is_on_maps = []
        for axis in (0, 1):
            padding, step, stretch = (int(value[axis]) for value in (layer.padding, layer.stride, layer.dilation))  # type: ignore
            length, n_taps = maps[0].shape[2 + axis], layer.kernel_size[axis]
            places = range((length + 2 * padding - stretch * (n_taps - 1) - 1) // step + 1)
            is_on_maps.append(
                torch.tensor(
                    [any(0 <= p * step - padding + tap * stretch < length for p in places) for tap in range(n_taps)]
                )
            )
        found[f"{name}.weight"] = ~(is_on_maps[0][:, None] & is_on_maps[1][None]).expand(layer.weight.shape)

    for name, module in model.named_modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_pre_hook(lambda layer, maps, name=name: look(name, layer, maps))
    with torch.no_grad():
        model.eval()(torch.zeros(1, 3, size, size))
    return found


def build(name: str, **params: Any) -> nn.Module:
    torch.manual_seed(0)
    return timm.create_model(name, num_classes=7, **params)


@pytest.mark.parametrize(
    ("name", "size", "share"),
    [
        ("test_resnet", 32, 0.444),
        ("test_resnet", 24, 0.444),
        ("test_resnet", 64, 0.0),
        ("test_convnext", 32, 0.067),
        ("test_efficientnet", 32, 0.009),
        ("test_mambaout", 32, 0.121),
        ("test_byobnet", 32, 0.098),
        ("resnet10t", 32, 0.56),
    ],
)
def test_taps_that_only_meet_padding_are_found_in_every_family(name: str, size: int, share: float) -> None:
    found = structural_zeros(build(name), (3, size, size))
    expected = taps_on_padding_alone(build(name), size)
    for key, mask in expected.items():
        assert torch.equal(found[key] | mask, found[key]), key  # dead units of a fresh model may be marked as well
    n_marked, n_expected = (sum(int(mask[key].sum()) for key in expected) for mask in (found, expected))
    n_weights = sum(found[key].numel() for key in weight_names(build(name)))
    assert n_expected <= n_marked <= n_expected + 0.005 * n_weights
    assert n_marked / n_weights == pytest.approx(share, abs=0.02)


def test_query_and_key_of_a_single_token_cannot_matter() -> None:
    class OneToken(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.qkv, self.head = nn.Linear(4, 12), nn.Linear(4, 2)

        def forward(self, images: Tensor) -> Tensor:
            tokens = images.mean((2, 3))[:, None, None]
            query, key, value = self.qkv(tokens).chunk(3, dim=-1)
            logits: Tensor = self.head(functional.scaled_dot_product_attention(query, key, value)[:, 0, 0])
            return logits

    torch.manual_seed(0)
    found = structural_zeros(OneToken(), (4, 2, 2))
    assert found["qkv.weight"].all(1).tolist() == [True] * 8 + [False] * 4
    assert not found["head.weight"].any()


@pytest.mark.parametrize("hide", ["norm scale", "gain", "matrix"])
def test_what_a_zero_by_initialisation_hides_can_matter(hide: str) -> None:
    class Branch(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.norm = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)
            self.gain, self.last = nn.Parameter(torch.ones(())), nn.Linear(3, 2)
            with torch.no_grad():
                zero = {"norm scale": self.norm.weight, "gain": self.gain, "matrix": self.last.weight}[hide]
                zero.zero_()

        def forward(self, images: Tensor) -> Tensor:
            branch = self.gain * self.norm(self.conv(images))
            logits: Tensor = self.last((images + branch).mean((2, 3)))
            return logits

    model = Branch()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    found = structural_zeros(model, (3, 8, 8))
    assert not found["conv.weight"].any() and not found["last.weight"].any()
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_an_unused_weight_is_one_that_no_image_can_reach() -> None:
    class Idle(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.idle = nn.Linear(2, 2), nn.Linear(2, 2)

        def forward(self, images: Tensor) -> Tensor:
            logits: Tensor = self.used(images.mean((2, 3)))
            return logits

    found = structural_zeros(Idle(), (2, 4, 4))
    assert found["idle.weight"].all() and not found["used.weight"].any()


@pytest.mark.parametrize(
    ("name", "is_so"),
    [
        ("test_convnext", True),
        ("test_mambaout", True),
        ("test_vit_relpos", True),
        ("cait_xxs24_224", True),
        ("swiftformer_xs", True),  # a scale of three dimensions
        ("test_resnet", False),  # timm starts the last norm of a block at zero
        ("test_nfnet", False),  # a gain of zero per channel
        ("nf_resnet26", False),
        ("test_vit", False),
        ("test_efficientnet", False),
        ("test_convnext2", True),
        ("test_coatnet", False),
    ],
)
def test_scales_that_hide_branches_are_told_from_others(name: str, is_so: bool) -> None:
    assert has_layer_scales(build(name)) == is_so


def test_statistics_are_the_mean_over_batches_and_nothing_else_moves() -> None:
    model = nn.Sequential(nn.BatchNorm2d(1), nn.Dropout(0.5), nn.Conv2d(1, 1, 1))
    weights = {name: parameter.clone() for name, parameter in model.named_parameters()}
    model.train()
    model[1].eval()
    estimate_statistics(model, [torch.full((2, 1, 1, 1), 2.0), torch.tensor([3.0, 5.0]).view(2, 1, 1, 1)])
    norm: Any = model[0]
    assert norm.running_mean.item() == 3.0  # of the means 2 and 4
    assert norm.running_var.item() == 1.0  # of the variances 0 and 2
    assert [module.training for module in model] == [True, False, True] and norm.momentum == 0.1
    assert all(torch.equal(parameter, weights[name]) for name, parameter in model.named_parameters())


def test_a_model_that_keeps_tensors_of_a_pass_has_structural_zeros() -> None:
    """A LeViT in evaluation mode keeps its attention biases, with their graph, until its mode is set again."""
    fresh = timm.create_model("levit_128s", num_classes=5, img_size=64)
    found = structural_zeros(fresh, (3, 64, 64))
    assert not found["stages.0.blocks.0.attn.qkv.linear.weight"].any()
