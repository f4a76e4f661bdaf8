from __future__ import annotations

from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn

from lurefs.errors import UserError
from lurefs.learning.unlearn.contract import Changes, ProbeImages
from lurefs.learning.unlearn.fire import fire


def apply(model: nn.Module, **params: Any) -> Changes:
    images = ProbeImages(draw=lambda source, n_images: iter(()))
    return fire(**params)(model, model, images, torch.Generator())


def copy_of(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in model.named_parameters()}


def changed(model: nn.Module, old: dict[str, Tensor]) -> set[str]:
    return {name for name, tensor in model.named_parameters() if not torch.equal(tensor, old[name])}


@pytest.mark.parametrize("shape", [(8, 8), (12, 6), (6, 12)])
def test_singular_values_become_equal_and_directions_stay(shape: tuple[int, int]) -> None:
    """Against the polar factor U V^T of a singular value decomposition."""
    torch.manual_seed(0)
    n_out, n_in = shape
    model = nn.Linear(n_in, n_out)
    with torch.no_grad():
        nn.init.orthogonal_(model.weight)
        model.weight += 0.15 * torch.randn(shape) / shape[1] ** 0.5
    u, values, vt = torch.linalg.svd(model.weight.detach(), full_matrices=False)
    assert values.max() > 1.1 * values.min()
    bias = model.bias.detach().clone()
    apply(model)
    assert torch.allclose(model.weight, u @ vt * (n_out / n_in) ** 0.5, atol=1e-5)
    assert torch.equal(model.bias, bias)


def test_each_tap_is_orthogonal_by_itself_and_scaled_by_their_number() -> None:
    torch.manual_seed(0)
    model = nn.Conv2d(4, 8, (3, 2))
    with torch.no_grad():
        for row in range(3):
            for column in range(2):
                model.weight[:, :, row, column] = nn.init.orthogonal_(torch.empty(8, 4)) * (1 + row + column)
    before = model.weight.detach().clone()
    apply(model)
    for row in range(3):
        for column in range(2):
            tap = model.weight[:, :, row, column]
            assert torch.allclose(torch.linalg.svdvals(tap), torch.full((4,), 2**0.5 / 6), atol=1e-5)
            assert torch.allclose(tap, before[:, :, row, column] / (1 + row + column) * 2**0.5 / 6, atol=1e-5)


def test_a_depthwise_tap_gets_its_direction_kept_and_its_length_set() -> None:
    model = nn.Conv2d(3, 3, 1, groups=3, bias=False)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([2.0, -1.0, 2.0]).view(3, 1, 1, 1))
    apply(model)
    assert torch.allclose(model.weight.flatten(), torch.tensor([2.0, -1.0, 2.0]) / 3 * 3**0.5, atol=1e-5)


def test_a_matrix_of_zeros_stays() -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    nn.init.zeros_(model[1].weight)
    apply(model)
    assert model[1].weight.abs().sum() == 0


def test_more_steps_come_nearer() -> None:
    spreads = []
    for steps in (2, 10, 30):
        torch.manual_seed(0)
        model = nn.Linear(16, 16)
        apply(model, steps=steps)
        values = torch.linalg.svdvals(model.weight.detach())
        spreads.append(float(values.max() - values.min()))
    assert spreads[0] > spreads[1] > spreads[2]
    assert spreads[2] < 1e-3


def test_of_a_vision_transformer_only_query_and_key_move() -> None:
    torch.manual_seed(0)
    model = timm.create_model("test_vit", num_classes=5)
    old = copy_of(model)
    changes = apply(model)
    assert changed(model, old) == {f"blocks.{block}.attn.qkv.weight" for block in range(6)}
    width = model.embed_dim
    for name in changed(model, old):
        assert changes.masks[name][: 2 * width].all()
        assert not changes.masks[name][2 * width :].any()


@pytest.mark.parametrize("head_first", [True, False])
def test_query_and_key_are_found_in_both_layouts(head_first: bool) -> None:
    class Attention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.qkv, self.num_heads, self.head_first = nn.Linear(4, 12), 2, head_first

    torch.manual_seed(0)
    model = nn.Sequential(Attention(), nn.Linear(4, 4))
    changes = apply(model)
    rows = changes.masks["0.qkv.weight"].all(1).tolist()
    assert rows == (([True] * 4 + [False] * 2) * 2 if head_first else [True] * 8 + [False] * 4)
    assert set(changes.masks) == {"0.qkv.weight"}


def test_projections_of_their_own_move_and_the_value_stays() -> None:
    class Attention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.q, self.kv, self.proj = nn.Linear(4, 4), nn.Linear(4, 8), nn.Linear(4, 4)

    changes = apply(nn.Sequential(Attention()))
    assert set(changes.masks) == {"0.q.weight", "0.kv.weight"}
    assert changes.masks["0.q.weight"].all()
    assert changes.masks["0.kv.weight"].all(1).tolist() == [True] * 4 + [False] * 4


def test_a_hybrid_moves_its_convolutions_too() -> None:
    model = timm.create_model("test_coatnet", num_classes=5, img_size=32)
    old = copy_of(model)
    apply(model)
    moved = changed(model, old)
    assert "stem.conv1.weight" in moved
    assert "stages.0.blocks.0.conv1_1x1.weight" in moved
    assert "stages.2.blocks.0.attn.qkv.weight" in moved
    assert not any("mlp" in name or "proj" in name or name.startswith("head") for name in moved)


def test_a_model_without_matrices_is_refused() -> None:
    with pytest.raises(UserError, match="could be made orthogonal"):
        apply(nn.LayerNorm(3))


def test_no_steps_are_refused() -> None:
    with pytest.raises(UserError, match="steps is 0"):
        fire(steps=0)
