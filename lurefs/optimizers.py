"""timm's optimizers by name, and the learning rate within a chunk."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from lurefs.config import LearnerConfig, PluginConfig
from lurefs.errors import UserError, unknown_name


def build_optimizer(model: nn.Module, config: PluginConfig) -> torch.optim.Optimizer:
    """Build a timm optimizer; timm leaves biases and norm scales out of the weight decay unless told otherwise.

    Raises:
        UserError: timm has no such optimizer, or it does not take these parameters.
    """
    from timm.optim import create_optimizer_v2, list_optimizers

    if config.name not in list_optimizers():
        raise unknown_name("optimizer", config.name, list_optimizers())
    try:
        optimizer: torch.optim.Optimizer = create_optimizer_v2(model, opt=config.name, **config.params)
    except (TypeError, ValueError) as error:
        raise UserError(
            f"learner.optimizer.params {config.params} do not suit {config.name!r}: {error}",
            "what the optimizer takes, e.g. lr, momentum, weight_decay",
            "change learner.optimizer.params",
        ) from error
    for group in optimizer.param_groups:
        group["initial_lr"] = group["lr"]
    return optimizer


def learning_rate_factor(step: int, n_steps: int, steps_per_epoch: int, config: LearnerConfig) -> float:
    """Return what the learning rate is multiplied with at one step of a chunk, in [0, 1].

    Args:
        step: From 0.
        n_steps: Steps in the chunk.
        steps_per_epoch: Steps in an epoch.
        config: `schedule` and `warmup_epochs`.
    """
    n_warmup = config.warmup_epochs * steps_per_epoch
    if step < n_warmup:
        return (step + 1) / (n_warmup + 1)
    progress = step / n_steps
    if config.schedule == "cosine":
        return 0.5 * (1 + math.cos(math.pi * progress))
    if config.schedule == "step":
        return 0.1 ** ((progress >= 0.4) + (progress >= 0.8))
    return 1.0


def set_learning_rate(optimizer: torch.optim.Optimizer, factor: float) -> None:
    """Set every group's learning rate to `factor` times the one it was built with."""
    for group in optimizer.param_groups:
        group["lr"] = group["initial_lr"] * factor


def clear_moments(optimizer: torch.optim.Optimizer, model: nn.Module, masks: dict[str, Tensor]) -> None:
    """Set the optimizer's moments to zero where a mask is true; only moments of a parameter's own shape are known.

    Args:
        optimizer: Whose state.
        model: Whose parameters the masks are named after.
        masks: By parameter name, bool of the parameter's shape.
    """
    for name, parameter in model.named_parameters():
        if name not in masks:
            continue
        for moment in optimizer.state.get(parameter, {}).values():
            if isinstance(moment, Tensor) and moment.shape == parameter.shape:
                moment.masked_fill_(masks[name], 0)
