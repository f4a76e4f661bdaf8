"""timm's optimizers by name, and changes to their learning rates, moments and gradients."""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from lurefs.config.fields import PluginConfig
from lurefs.errors import UserError, first_line, unknown_name
from lurefs.plugins import check_types

_COPIES_WEIGHTS = "it keeps its initial weights and returns to them, which brings back what was unlearned"
UNFIT = {
    "madgrad": _COPIES_WEIGHTS,
    "madgradw": _COPIES_WEIGHTS,
    "adahessian": "it needs second derivatives, which a training step does not compute",
}
"""timm's optimizers that no run can learn with, and why."""


def build_optimizer(model: nn.Module, config: PluginConfig) -> torch.optim.Optimizer:
    """Build a timm optimizer; by default timm does not decay biases and norm scales.

    Raises:
        UserError: timm has no such optimizer, no run can learn with it, it does not take these parameters, or it needs
            a GPU or a library that is missing.
    """
    from timm.optim import create_optimizer_v2, get_optimizer_class, list_optimizers

    if config.name not in list_optimizers():
        raise unknown_name("optimizer", config.name, set(list_optimizers()) - set(UNFIT))
    if config.name in UNFIT:
        raise _cannot_be_used(config.name, UNFIT[config.name])
    try:
        for factory in (create_optimizer_v2, get_optimizer_class(config.name)):
            check_types(inspect.signature(factory), config.params, where="learner.optimizer.params")
        optimizer: torch.optim.Optimizer = create_optimizer_v2(model, opt=config.name, **config.params)
    except (TypeError, ValueError, LookupError, ArithmeticError) as error:
        raise _unsuitable(config, first_line(error)) from error
    except (AssertionError, ImportError, RuntimeError) as error:
        raise _cannot_be_used(config.name, first_line(error)) from error
    for group in optimizer.param_groups:
        group["initial_lr"] = group["lr"] * group.get("lr_scale", 1)  # timm's layer_decay
    return optimizer


def try_out(config: PluginConfig) -> None:
    """Let an optimizer take two steps down a slope, on a small layer of its own and without decay.

    Some parameters have no bounds in timm: an `alpha` of 5 makes RMSprop's first step NaN, and `maximize` climbs.

    Raises:
        UserError: A step fails, ends at values that are not finite, or leads uphill.
    """
    params = {key: value for key, value in config.params.items() if key != "layer_decay"} | {"weight_decay": 0.0}
    with torch.random.fork_rng(devices=[]):  # an optimizer may draw
        layer = nn.Linear(3, 2)
        optimizer = build_optimizer(layer, PluginConfig(name=config.name, params=params))
        for parameter in layer.parameters():
            torch.nn.init.zeros_(parameter)
        try:
            for _ in range(2):
                before = [parameter.detach().clone() for parameter in layer.parameters()]
                for parameter in layer.parameters():
                    parameter.grad = torch.ones_like(parameter)
                optimizer.step()
        except Exception as error:  # of any optimizer's code
            raise _unsuitable(config, f"a step fails: {first_line(error)}") from error
    moves = [parameter.detach() - old for parameter, old in zip(layer.parameters(), before, strict=True)]
    if not all(move.isfinite().all() and move.sum() <= 0 for move in moves):
        raise _unsuitable(config, "its steps lead uphill, or to values that are not finite")


def _unsuitable(config: PluginConfig, reason: str) -> UserError:
    return UserError(
        f"learner.optimizer.params {config.params} do not suit {config.name!r}: {reason}",
        "what the optimizer takes, e.g. lr, momentum, weight_decay",
        "change learner.optimizer.params",
    )


def _cannot_be_used(name: str, reason: str) -> UserError:
    return UserError(
        f"learner.optimizer.name {name!r} cannot be used: {reason}",
        "an optimizer of timm that takes plain gradients, keeps no weights, and runs on this machine",
        "set learner.optimizer.name to e.g. sgd, adamw or lamb",
    )


def set_learning_rate(optimizer: torch.optim.Optimizer, factor: float) -> None:
    """Set every group's learning rate to `factor` times its initial one."""
    for group in optimizer.param_groups:
        group["lr"] = group["initial_lr"] * factor


def refuse_divergence(model: nn.Module, loss: float, val_loss: float, chunk_index: int, epoch: int) -> None:
    """Raise if the loss of an epoch, or after its last step a weight or the loss on validation images, is not finite.

    Raises:
        UserError: Training diverged.
    """
    broken = [name for name, tensor in model.state_dict().items() if not tensor.isfinite().all()]
    if broken or not math.isfinite(loss + val_loss):
        what = f"{broken[0]} is not finite" if broken and math.isfinite(loss) else f"the loss is {loss + val_loss}"
        raise UserError(
            f"training diverged: {what} in chunk {chunk_index}, epoch {epoch}",
            "a finite loss and finite weights",
            "lower learner.optimizer.params.lr, or add learner.warmup_epochs",
        )


def clear_moments(optimizer: torch.optim.Optimizer, model: nn.Module, masks: Mapping[str, Tensor]) -> None:
    """Set the optimizer's moments to zero where a mask is true; moments of another shape stay.

    State for a tensor as a whole stays, such as Adafactor's moments of rows and columns, and Adam's number of steps. So
    Adam does not repeat its correction for moments that start at zero: k steps after the reset, and many after the
    optimizer's start, the masked weights move (1 - 0.9^k) / sqrt(1 - 0.999^k) times as far as under a new optimizer
    with the usual betas (3.2 times for k = 1, at most 6.5 for k = 12, 1.3 for k = 1000).

    Args:
        optimizer: The optimizer to change.
        model: The model with the parameters that the masks name.
        masks: By parameter name, bool of the parameter's shape.
    """
    for name, parameter in model.named_parameters():
        if name not in masks:
            continue
        for moment in optimizer.state.get(parameter, {}).values():
            if isinstance(moment, Tensor) and moment.shape == parameter.shape:
                moment.masked_fill_(masks[name], 0)


def pull_to(model: nn.Module, targets: Mapping[str, Tensor], strength: float) -> None:
    """Add the gradient of strength / 2 * |theta - target|^2 to the gradients of all parameters that have one.

    With the initial weights as targets this is L2 Init (Kumar et al. 2023, "Maintaining plasticity in continual
    learning via regenerative regularization", equation 2, whose lambda is strength / 2). Norm scales and biases are
    pulled as well: the source regularises all parameters, and its networks have no norm layers.

    Args:
        model: The model, after the backward pass.
        targets: Target values by parameter name.
        strength: At least 0.
    """
    found = [
        (parameter.grad, parameter.detach(), targets[name])
        for name, parameter in model.named_parameters()
        if parameter.grad is not None
    ]
    gradients, parameters, wanted = (list(column) for column in zip(*found, strict=True))
    torch._foreach_add_(gradients, parameters, alpha=strength)
    torch._foreach_add_(gradients, wanted, alpha=-strength)
