"""Strategies that keep or replace a model as a whole."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lurefs.learning.unlearn.contract import Changes, ProbeImages, UnlearnStrategy

if TYPE_CHECKING:
    import torch
    from torch import nn


def nothing() -> None:
    """Warm start: keep the weights as they are. The only strategy that changes nothing."""


def from_scratch() -> UnlearnStrategy:
    """Start each chunk with a new model and a new optimizer: the ceiling in cost."""

    def unlearn(model: nn.Module, twin: nn.Module, images: ProbeImages, generator: torch.Generator) -> Changes:
        import torch

        model.load_state_dict(twin.state_dict())
        masks = {name: torch.ones_like(weight, dtype=torch.bool) for name, weight in model.named_parameters()}
        return Changes(masks=masks, is_new_model=True)

    return unlearn
