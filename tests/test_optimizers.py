from __future__ import annotations

import pytest
import torch

from lurefs.config import PluginConfig
from lurefs.errors import UserError
from lurefs.optimizers import build_optimizer, clear_moments, pull_to


def test_only_marked_moments_are_cleared() -> None:
    model = torch.nn.Linear(2, 1)
    optimizer = build_optimizer(model, PluginConfig(name="adamw", params={"lr": 0.1}))
    model(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    clear_moments(optimizer, model, {"weight": torch.tensor([[True, False]])})
    moment = optimizer.state[model.weight]["exp_avg"]
    assert moment[0, 0] == 0 != moment[0, 1]
    assert optimizer.state[model.bias]["exp_avg"] != 0


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (PluginConfig(name="sdg"), "unknown optimizer 'sdg'"),
        (PluginConfig(name="sgd", params={"lr": 0.1, "momentun": 0.9}), "do not suit 'sgd'"),
    ],
)
def test_wrong_optimizers_are_refused(config: PluginConfig, words: str) -> None:
    with pytest.raises(UserError, match=words):
        build_optimizer(torch.nn.Linear(2, 1), config)


def test_weights_are_pulled_to_their_targets_by_the_gradient_of_half_the_squared_distance() -> None:
    model = torch.nn.Linear(2, 1)
    targets = {name: torch.randn_like(parameter) for name, parameter in model.named_parameters()}
    images = torch.rand(3, 2)

    def pull() -> torch.Tensor:
        return sum((((p - targets[name]) ** 2).sum() for name, p in model.named_parameters()), torch.zeros(()))

    (model(images).sum() + 0.5 * 0.3 * pull()).backward()
    expected = [parameter.grad.clone() for parameter in model.parameters() if parameter.grad is not None]
    model.zero_grad()
    model(images).sum().backward()
    pull_to(model, targets, 0.3)
    for parameter, gradient in zip(model.parameters(), expected, strict=True):
        torch.testing.assert_close(parameter.grad, gradient)
