"""Turning back, by hand."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from lurefs import plugins
from lurefs.errors import UserError
from lurefs.learning.unlearn.contract import Changes, ProbeImages
from lurefs.learning.unlearn.turn import turn_back

IMAGES = torch.tensor([[1.0, 0.0], [0.0, 1.0]])


def linear(weight: list[list[float]], bias: list[float]) -> nn.Linear:
    layer = nn.Linear(2, len(bias))
    with torch.no_grad():
        layer.weight.copy_(torch.tensor(weight))
        layer.bias.copy_(torch.tensor(bias))
    return layer


def apply(model: nn.Module, twin: nn.Module, new_labels: list[int], **params: float) -> Changes:
    def draw(source: str, n_images: int) -> Iterator[tuple[Tensor, Tensor]]:
        assert source in ("previous", "new")
        yield IMAGES, torch.tensor([0, 1] if source == "previous" else new_labels)

    return turn_back(**params)(model, twin, ProbeImages(draw=draw), torch.Generator())


def test_rows_turn_by_the_angle_and_take_the_fresh_length() -> None:
    """Old and new images are alike, so that nothing shrinks; the fresh rows stand at right angles and opposite."""
    model = linear([[3.0, 0.0], [0.0, 5.0]], [1.0, 0.0])
    apply(model, linear([[0.0, 2.0], [0.0, -1.0]], [0.0, 1.0]), [0, 1], keep_cosine=0.8)
    assert torch.allclose(model.weight, torch.tensor([[1.6, 1.2], [0.0, 1.0]]))
    assert torch.allclose(model.bias, torch.tensor([0.8, 0.2]))


def test_rows_shrink_by_the_root_of_the_ratio_of_the_losses() -> None:
    weight, bias = [[1.0, 0.0], [0.0, 1.0]], [0.0, 0.0]
    model = linear(weight, bias)
    old_loss = math.log(1 + math.exp(-1.0))
    new_loss = (old_loss + math.log(1 + math.exp(1.0))) / 2  # one of the two images is misnamed
    apply(model, linear(weight, bias), [0, 0], keep_cosine=1.0, min_norm=0.1)
    assert torch.allclose(model.weight, torch.eye(2) * (old_loss / new_loss) ** 0.5)
    bounded = linear(weight, bias)
    apply(bounded, linear(weight, bias), [0, 0], keep_cosine=1.0, min_norm=0.9)
    assert torch.allclose(bounded.weight, torch.eye(2) * 0.9)


def test_a_model_that_is_better_on_new_images_does_not_grow() -> None:
    model = linear([[-1.0, 0.0], [0.0, 1.0]], [0.0, 0.0])
    apply(model, linear([[-1.0, 0.0], [0.0, 1.0]], [0.0, 0.0]), [1, 1], keep_cosine=0.5)
    assert torch.allclose(model.weight.norm(dim=1), torch.ones(2))


def test_a_dead_row_becomes_the_fresh_one_and_a_row_without_a_fresh_one_shrinks() -> None:
    model = linear([[0.0, 0.0], [0.0, 2.0]], [0.0, 0.0])
    apply(model, linear([[0.0, 3.0], [0.0, 0.0]], [0.0, 0.0]), [0, 1], keep_cosine=0.8, min_norm=1.0)
    assert torch.allclose(model.weight, torch.tensor([[0.0, 3.0], [0.0, 1.6]]))


def test_losses_are_measured_in_evaluation_mode_and_the_mode_is_kept() -> None:
    model, twin = (nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)).train() for _ in range(2))
    apply(model, twin, [0, 1])
    assert model[1].running_mean.tolist() == [0.0, 0.0]
    assert model.training


@pytest.mark.parametrize(
    ("params", "words"),
    [
        ({"keep_cosine": 0.0}, "keep_cosine is 0.0"),
        ({"min_norm": 1.5}, "min_norm is 1.5"),
        ({"loss_images": 0}, "loss_images is 0"),
    ],
)
def test_wrong_settings_are_refused(params: dict[str, float], words: str) -> None:
    with pytest.raises(UserError, match=words):
        plugins.build("unlearn", "turn_back", params)
