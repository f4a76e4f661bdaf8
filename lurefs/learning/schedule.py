"""Epoch sizes and learning rates of a chunk, as plain numbers without torch."""

from __future__ import annotations

import math
from collections.abc import Sequence

from lurefs.config.learning_schema import LearnerConfig


def epoch_sizes(n_train: Sequence[int], chunk_index: int, settings: LearnerConfig) -> list[int]:
    """Return the number of training images of each epoch of a chunk.

    With `match_images_seen` the epochs of a chunk together train on as many images as all chunks up to this one would
    without it. If that is no whole number of epochs, each epoch leaves out a few images, each time others.

    Args:
        n_train: Number of training images of every chunk of the stream.
        chunk_index: Index of the chunk.
        settings: `epochs`, `relearn_epochs`, `match_images_seen`.
    """

    def n_epochs(index: int) -> int:
        return settings.epochs if index == 0 or settings.relearn_epochs is None else settings.relearn_epochs

    first = 0 if settings.match_images_seen else chunk_index
    n_images = sum(n_train[index] * n_epochs(index) for index in range(first, chunk_index + 1))
    n = -(-n_images // n_train[chunk_index])
    return [n_images * (epoch + 1) // n - n_images * epoch // n for epoch in range(n)]


def n_batches(n_images: int, batch_size: int) -> int:
    """Return the number of batches in an epoch, all of at least `batch_size` images if there are as many."""
    return max(1, n_images // batch_size)


def learning_rate_factor(step: int, n_steps: int, steps_per_epoch: float, config: LearnerConfig) -> float:
    """Return the factor on the learning rate at one step of a chunk, in [0, 1].

    Args:
        step: From 0.
        n_steps: Number of steps in the chunk.
        steps_per_epoch: Mean number of steps in an epoch.
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
