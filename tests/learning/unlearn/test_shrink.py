from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from lurefs import plugins
from lurefs.errors import UserError
from lurefs.learning.unlearn.contract import Changes, ProbeImages
from lurefs.learning.unlearn.shrink import dash, shrink_perturb
from lurefs.ranks import Ranks

BATCHES = [
    (torch.tensor([[1.0, 0.0], [0.0, 2.0]]), torch.tensor([0, 1])),
    (torch.tensor([[0.5, -1.0], [1.0, 1.0]]), torch.tensor([1, 2])),
]


def apply(strategy: Any, model: nn.Module, twin: nn.Module, batches: list[tuple[Tensor, Tensor]] = BATCHES) -> Changes:
    def draw(source: str, n_images: int) -> Iterator[tuple[Tensor, Tensor]]:
        return iter(batches)

    changes: Changes = strategy(model, twin, ProbeImages(draw=draw), torch.Generator())
    return changes


def copy_of(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in model.named_parameters()}


def test_shrink_perturb_by_hand() -> None:
    model, twin = nn.Linear(2, 1), nn.Linear(2, 1)
    old, fresh = copy_of(model), copy_of(twin)
    apply(shrink_perturb(shrink=0.4, perturb=0.1), model, twin)
    assert torch.allclose(model.weight, 0.4 * old["weight"] + 0.1 * fresh["weight"])
    assert torch.allclose(model.bias, 0.4 * old["bias"] + 0.1 * fresh["bias"])


def test_shrink_perturb_takes_the_running_statistics_of_the_fresh_model() -> None:
    model, twin = (nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)) for _ in range(2))
    for x, _ in BATCHES:
        model(x)
    twin[1].running_mean.fill_(0.5)
    changes = apply(shrink_perturb(shrink=0.4, perturb=0.1), model, twin)
    assert model[1].running_mean.tolist() == [0.5, 0.5]
    assert model[1].running_var.tolist() == [1.0, 1.0]
    assert model[1].num_batches_tracked == 0
    assert model[1].weight.tolist() == [0.5, 0.5]
    assert set(changes.masks) == set(dict(model.named_parameters()))


def test_dash_by_hand() -> None:
    """A linear map of known softmax gradients: row by row, and the bias as a whole."""
    torch.manual_seed(2)
    model = nn.Linear(2, 3)
    old = copy_of(model)
    weight, bias = old["weight"].double(), old["bias"].double()
    average, bias_average = torch.zeros(3, 2, dtype=torch.double), torch.zeros(3, dtype=torch.double)
    for x, labels in BATCHES:
        error = ((x.double() @ weight.T + bias).softmax(1) - functional.one_hot(labels, 3)) / len(x)
        average = 0.7 * average - 0.3 * error.T @ x.double()
        bias_average = 0.7 * bias_average - 0.3 * error.sum(0)
    factors = [float(average[row] @ weight[row] / average[row].norm() / weight[row].norm()) for row in range(3)]
    bias_factor = float(bias_average @ bias / bias_average.norm() / bias.norm())
    apply(dash(floor=0.1, alpha=0.3), model, nn.Linear(2, 3))
    for row in range(3):
        assert torch.allclose(model.weight[row], min(max(factors[row], 0.1), 1) * old["weight"][row])
    assert torch.allclose(model.bias, min(max(bias_factor, 0.1), 1) * old["bias"])
    assert min(factors) < 0.1 < sorted(factors)[1] < max(factors) < 1


class OneFilter(nn.Module):
    """The logit of the first class is a convolution's output; that of the second is 0."""

    def __init__(self, n_out: int, n_in: int, size: int, kernels: list[list[list[list[float]]]]) -> None:
        super().__init__()
        self.conv = nn.Conv2d(n_in, n_out, size, bias=False)
        with torch.no_grad():
            self.conv.weight.copy_(torch.tensor(kernels))

    def forward(self, images: Tensor) -> Tensor:
        first = self.conv(images).sum((1, 2, 3))
        return torch.stack([first, torch.zeros_like(first)], 1)


def test_dash_shrinks_each_kernel_of_a_convolution() -> None:
    """The loss falls towards the image: kernels along it stay, those across it or against it shrink to the floor."""
    image = torch.tensor([[[[1.0, 0.0], [0.0, 0.0]], [[0.0, 1.0], [0.0, 0.0]]]])
    along, across, slanted = [[2.0, 0.0], [0.0, 0.0]], [[0.0, 1.0], [0.0, 0.0]], [[0.0, 3.0], [4.0, 0.0]]
    model = OneFilter(2, 2, 2, [[along, slanted], [across, across]])
    apply(dash(floor=0.3), model, model, [(image, torch.tensor([0]))])
    expected = torch.tensor([[along, [[0.0, 1.8], [2.4, 0.0]]], [[[0.0, 0.3], [0.0, 0.0]], across]])
    assert torch.allclose(model.conv.weight, expected)


def test_dash_takes_1_x_1_convolutions_by_rows() -> None:
    model = OneFilter(1, 2, 1, [[[[3.0]], [[4.0]]]])
    apply(dash(floor=0.3), model, model, [(torch.tensor([[[[1.0]], [[0.0]]]]), torch.tensor([0]))])
    assert model.conv.weight.flatten().tolist() == pytest.approx([0.6 * 3, 0.6 * 4])


def test_dash_shrinks_what_no_gradient_reaches_to_the_floor() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 3))
    with torch.no_grad():
        model[0].bias.fill_(-100.0)
    old = copy_of(model)
    apply(dash(floor=0.25), model, model)
    assert torch.allclose(model[0].weight, 0.25 * old["0.weight"])
    assert torch.isfinite(model[2].weight).all()


class Pair(Ranks):
    """A process whose partner saw the same images."""

    def sum(self, values: Tensor) -> Tensor:
        return values.mul_(2)


def test_dash_does_the_same_on_several_processes() -> None:
    torch.manual_seed(0)
    models = [nn.Linear(2, 3), nn.Linear(2, 3)]
    models[1].load_state_dict(models[0].state_dict())
    doubled = [(torch.cat([x, x]), torch.cat([labels, labels])) for x, labels in BATCHES]
    apply(dash(), models[0], models[0], doubled)
    dash()(models[1], models[1], ProbeImages(draw=lambda source, n: iter(BATCHES), ranks=Pair()), torch.Generator())
    assert torch.allclose(models[0].weight, models[1].weight)


@pytest.mark.parametrize(
    ("name", "params", "words"),
    [
        ("shrink_perturb", {"shrink": 1.2}, r"shrink in \[0, 1\]"),
        ("dash", {"floor": 0.0}, "floor is 0.0"),
        ("dash", {"alpha": 1.5}, "alpha is 1.5"),
        ("dash", {"gradient_images": 0}, "gradient_images is 0"),
        ("dash", {"probe": "old"}, "one of seen, new, oldest"),
    ],
)
def test_wrong_settings_are_refused(name: str, params: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        plugins.build("unlearn", name, params)


def test_dash_refuses_a_model_without_filters() -> None:
    with pytest.raises(UserError, match="neither convolutions nor linear maps"):
        apply(dash(), nn.LayerNorm(2), nn.LayerNorm(2))
