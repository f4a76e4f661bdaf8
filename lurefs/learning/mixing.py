"""Mixup and CutMix: training batches whose images and labels are mixed in pairs."""

from __future__ import annotations

import torch
from torch import Tensor

from lurefs.config.learning_schema import AugmentConfig
from lurefs.seeding import seeded_numpy


def mixes(settings: AugmentConfig) -> bool:
    """Return whether batches are mixed."""
    return settings.mixup is not None or settings.cutmix is not None


def mix(images: Tensor, labels: Tensor, n_classes: int, settings: AugmentConfig, seed: int) -> tuple[Tensor, Tensor]:
    """Mix each image of a batch with the one at the opposite end, by timm's Mixup; one share for the whole batch.

    An odd batch keeps its last image as it is.

    Args:
        images: (n, n_channels, height, width), prepared; changed in place.
        labels: (n,) int64.
        n_classes: Number of classes.
        settings: `mixup` and `cutmix`.
        seed: Seed of the draw.

    Returns:
        The images, and their mixed labels (n, n_classes) float32, which add up to 1 per image.
    """
    from timm.data import Mixup

    mixup = Mixup(settings.mixup or 0.0, settings.cutmix or 0.0, label_smoothing=0.0, num_classes=n_classes)
    n_paired = len(images) - len(images) % 2
    targets = torch.nn.functional.one_hot(labels, n_classes).float()
    if n_paired:
        with seeded_numpy(seed % 2**32):
            images[:n_paired], targets[:n_paired] = mixup(images[:n_paired], labels[:n_paired])
    return images, targets
