"""What a backbone predicts for images in memory, and how well."""

from __future__ import annotations

import torch
from torch import Tensor

from episodes import metrics
from lurefs.backbones import Backbone
from lurefs.images import LabelledImages


@torch.inference_mode()
def predict(backbone: Backbone, images: LabelledImages, positions: Tensor, batch_size: int) -> Tensor:
    """Return class probabilities (len(positions), n_classes) float32 on the CPU, in evaluation mode."""
    backbone.model.eval()
    parts = [backbone.logits(images.images[batch]).softmax(1) for batch in positions.split(batch_size)]
    return torch.cat(parts).cpu()


def accuracy(backbone: Backbone, images: LabelledImages, positions: Tensor, batch_size: int) -> float:
    """Return the share of the images at `positions` that are classified rightly."""
    probabilities = predict(backbone, images, positions, batch_size).numpy()
    return metrics.accuracy(probabilities, images.labels[positions].cpu().numpy())


def evenly(positions: Tensor, n: int) -> Tensor:
    """Return n of the positions, or all if there are fewer, at equal distances."""
    chosen = torch.linspace(0, len(positions) - 1, min(n, len(positions)), dtype=torch.float64).round().long()
    return positions[chosen.to(positions.device)]
