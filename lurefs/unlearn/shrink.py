"""Strategies that pull weights towards zero or towards a fresh model."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lurefs.errors import UserError
from lurefs.unlearn.contract import Changes, ProbeImages, UnlearnStrategy, parameters_of

if TYPE_CHECKING:
    import torch
    from torch import nn


def shrink_perturb(shrink: float = 0.4, perturb: float = 0.1) -> UnlearnStrategy:
    """Shrink every parameter and add a share of a fresh model's: theta = shrink * theta + perturb * theta_fresh.

    Ash and Adams (2020, "On warm-starting neural network training", section 4). Running statistics of norm layers stay.

    Args:
        shrink: What the old weights are multiplied with, in [0, 1].
        perturb: What the fresh weights are multiplied with, at least 0.

    Raises:
        UserError: A setting is out of range.
    """
    if not 0 <= shrink <= 1 or perturb < 0:
        raise UserError(
            f"shrink is {shrink} and perturb is {perturb}", "shrink in [0, 1], perturb >= 0", "change unlearn.params"
        )

    def unlearn(model: nn.Module, twin: nn.Module, images: ProbeImages, generator: torch.Generator) -> Changes:
        import torch

        fresh = parameters_of(twin)
        masks = {}
        with torch.no_grad():
            for name, weight in model.named_parameters():
                old = weight.clone()
                weight.mul_(shrink).add_(fresh[name], alpha=perturb)
                masks[name] = weight != old
        return Changes(masks=masks)

    return unlearn
