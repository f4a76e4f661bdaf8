from __future__ import annotations

from typing import Any

import pytest
import timm
import torch
from timm.models import group_parameters
from timm.optim import list_optimizers

from lurefs.config.fields import PluginConfig
from lurefs.errors import UserError
from lurefs.learning.optimizers import (
    UNFIT,
    build_optimizer,
    clear_moments,
    pull_to,
    refuse_divergence,
    set_learning_rate,
    try_out,
)


def test_only_marked_moments_are_cleared() -> None:
    model = torch.nn.Linear(2, 1)
    optimizer = build_optimizer(model, PluginConfig(name="adamw", params={"lr": 0.1}))
    model(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    clear_moments(optimizer, model, {"weight": torch.tensor([[True, False]])})
    moment = optimizer.state[model.weight]["exp_avg"]
    assert moment[0, 0] == 0 != moment[0, 1]
    assert optimizer.state[model.bias]["exp_avg"] != 0


def test_steps_after_a_reset_are_as_many_times_a_new_optimizers_as_its_docstring_says() -> None:
    config = PluginConfig(name="adamw", params={"lr": 0.1, "weight_decay": 0})
    models = [torch.nn.Linear(1, 1, bias=False) for _ in range(2)]
    old, new = (build_optimizer(model, config) for model in models)

    def step(model: torch.nn.Linear, optimizer: torch.optim.Optimizer, gradient: float) -> float:
        before = model.weight.item()
        model.weight.grad = torch.tensor([[gradient]])
        optimizer.step()
        return abs(model.weight.item() - before)

    for _ in range(4000):
        step(models[0], old, 1.0)
    clear_moments(old, models[0], {"weight": torch.tensor([[True]])})
    ratios = [step(models[0], old, 2.0) / step(models[1], new, 2.0) for _ in range(30)]
    assert ratios[0] == pytest.approx(3.13, abs=0.05)
    assert max(ratios) == pytest.approx(6.5, abs=0.1)
    assert ratios.index(max(ratios)) + 1 in (11, 12, 13)


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (PluginConfig(name="sdg"), "unknown optimizer 'sdg'"),
        (PluginConfig(name="sgd", params={"lr": 0.1, "momentun": 0.9}), "do not suit 'sgd'"),
        (PluginConfig(name="adamw", params={"lr": 0.1, "betas": [0.9]}), "do not suit 'adamw'"),
    ],
)
def test_wrong_optimizers_are_refused(config: PluginConfig, words: str) -> None:
    with pytest.raises(UserError, match=words):
        build_optimizer(torch.nn.Linear(2, 1), config)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("madgrad", "which brings back what was unlearned"),
        ("madgradw", "which brings back what was unlearned"),
        ("adahessian", "it needs second derivatives"),
    ],
)
def test_optimizers_that_no_run_can_learn_with_are_refused_with_the_reason(name: str, words: str) -> None:
    with pytest.raises(UserError, match=f"'{name}' cannot be used: .*{words}"):
        build_optimizer(torch.nn.Linear(2, 1), PluginConfig(name=name, params={"lr": 0.1}))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there they may run")
@pytest.mark.parametrize("name", ["bnbadamw", "fusedadam"])
def test_optimizers_of_a_gpu_are_refused_without_one(name: str) -> None:
    with pytest.raises(UserError, match=rf"'{name}' cannot be used: .*(\n.*)*set learner\.optimizer\.name"):
        build_optimizer(torch.nn.Linear(2, 1), PluginConfig(name=name))


PLAIN = [name for name in list_optimizers() if name not in UNFIT and not name.startswith(("bnb", "fused", "kron"))]


@pytest.mark.parametrize("name", PLAIN)
def test_other_optimizers_keep_no_weights_that_would_come_back(name: str) -> None:
    model = torch.nn.Linear(4, 3)
    first = model.weight.detach().clone()
    optimizer = build_optimizer(model, PluginConfig(name=name, params={"lr": 0.1}))
    for _ in range(3):
        optimizer.zero_grad()
        model(torch.randn(8, 4)).square().mean().backward()
        optimizer.step()
    for moment in optimizer.state[model.weight].values():
        if isinstance(moment, torch.Tensor) and moment.shape == first.shape:
            assert not torch.equal(moment.float(), first)
            assert not torch.equal(moment.float(), model.weight)


@pytest.mark.parametrize(
    ("name", "params", "words"),
    [
        ("sgd", {"lr": 0.1, "nesterov": 5}, "optimizer.params.nesterov is 5"),
        ("adamw", {"lr": 0.1, "eps": "x"}, "optimizer.params.eps is 'x'"),
        ("lion", {"lr": 0.1, "betas": "x"}, "optimizer.params.betas is 'x'"),
        ("sgd", {"lr": 0.1, "foreach": "yes"}, "optimizer.params.foreach is 'yes'"),
    ],
)
def test_parameters_of_a_wrong_type_are_refused(name: str, params: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        build_optimizer(torch.nn.Linear(2, 1), PluginConfig(name=name, params=params))


@pytest.mark.parametrize(
    ("name", "params"),
    [
        ("adamw", {"maximize": True}),
        ("rmsprop", {"alpha": 5}),
        ("sgd", {"momentum": 0.9, "nesterov": False, "dampening": 5}),
        ("adamw", {"betas": [[0.9], 0.9]}),
    ],
)
def test_optimizers_whose_steps_lead_uphill_or_nowhere_are_refused(name: str, params: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=f"do not suit '{name}'"):
        try_out(PluginConfig(name=name, params={"lr": 0.1, **params}))


@pytest.mark.parametrize("name", PLAIN)
def test_each_optimizer_leads_downhill(name: str) -> None:
    try_out(PluginConfig(name=name, params={"lr": 0.1}))


def test_a_last_step_that_diverges_is_told_although_the_loss_before_it_is_finite() -> None:
    model = torch.nn.Linear(2, 1)
    refuse_divergence(model, 0.5, 0.5, 0, 0)
    with torch.no_grad():
        model.bias.fill_(torch.inf)
    with pytest.raises(UserError, match="bias is not finite in chunk 1, epoch 2"):
        refuse_divergence(model, 0.5, 0.5, 1, 2)
    with pytest.raises(UserError, match="the loss is nan in chunk 0"):
        refuse_divergence(torch.nn.Linear(2, 1), 0.5, float("nan"), 0, 0)


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


@pytest.mark.parametrize("name", ["test_vit", "test_resnet"])
def test_layer_decay_lowers_the_rate_of_early_layers(name: str) -> None:
    model = timm.create_model(name, num_classes=3)
    optimizer = build_optimizer(model, PluginConfig(name="momentum", params={"lr": 0.1, "layer_decay": 0.5}))
    set_learning_rate(optimizer, 0.5)
    rates = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    of = {key: rates[id(parameter)] for key, parameter in model.named_parameters()}
    parts = group_parameters(model, model.group_matcher(coarse=False))
    last = max(parts)
    for part, names in parts.items():
        for key in names:
            assert of[key] == pytest.approx(0.1 * 0.5 * 0.5 ** (last - part))
    before = {key: parameter.detach().clone() for key, parameter in model.named_parameters()}
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    for key, parameter in model.named_parameters():
        torch.testing.assert_close(before[key] - parameter, torch.full_like(parameter, of[key]), rtol=1e-3, atol=1e-6)
