"""Predictions of a backbone for base images, and their accuracy."""

from __future__ import annotations

import torch
from torch import Tensor

from episodes import metrics
from lurefs.learning.backbones import Backbone
from lurefs.learning.images import Images, at_once
from lurefs.ranks import ONE_PROCESS, Ranks


@torch.inference_mode()
def predict(
    backbone: Backbone, images: Images, positions: Tensor, batch_size: int, ranks: Ranks = ONE_PROCESS
) -> Tensor:
    """Return class probabilities (len(positions), n_classes) float32 on the CPU, in evaluation mode.

    With several processes each computes a share, and all return the same tensor to the bit.
    """
    backbone.model.eval()
    probabilities = torch.zeros(len(positions), backbone.n_classes, device=positions.device)
    mine = probabilities[ranks.part(len(positions))]
    parts = positions[ranks.part(len(positions))].split(batch_size)
    for place, (batch, _) in zip(mine.split(batch_size), images.batches(parts), strict=True):
        n_at_once = at_once(backbone.image_size, batch.device)
        logits = [backbone.logits(part) for part in batch.split(n_at_once)]
        place.copy_(torch.cat(logits).softmax(1))
    return ranks.sum(probabilities).cpu()


def accuracy(
    backbone: Backbone, images: Images, positions: Tensor, batch_size: int, ranks: Ranks = ONE_PROCESS
) -> float:
    """Return the share of the images at `positions` that are classified correctly."""
    probabilities = predict(backbone, images, positions, batch_size, ranks).numpy()
    return metrics.accuracy(probabilities, images.labels[positions].cpu().numpy())


def evenly(positions: Tensor, n: int) -> Tensor:
    """Return n evenly spaced positions, or all if there are fewer."""
    chosen = torch.linspace(0, len(positions) - 1, min(n, len(positions)), dtype=torch.float64).round().long()
    return positions[chosen.to(positions.device)]
