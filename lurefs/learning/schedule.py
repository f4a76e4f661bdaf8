"""How long a chunk is learned, and the learning rate on the way. Numbers only: nothing here knows torch."""

from __future__ import annotations

import math
from collections.abc import Sequence

from lurefs.config.schema import LearnerConfig


def epoch_sizes(n_train: Sequence[int], chunk_index: int, settings: LearnerConfig) -> list[int]:
    """Return how many images each epoch of a chunk trains on.

    With `match_images_seen` all epochs of a chunk together have as many images as all chunks up to this one have
    without it. Where that is no whole number of epochs, each is a little short of the chunk's images, and leaves out
    others.

    Args:
        n_train: Training images of every chunk of the stream.
        chunk_index: Which chunk.
        settings: `epochs`, `relearn_epochs`, `match_images_seen`.
    """

    def n_epochs(index: int) -> int:
        return settings.epochs if index == 0 or settings.relearn_epochs is None else settings.relearn_epochs

    first = 0 if settings.match_images_seen else chunk_index
    n_images = sum(n_train[index] * n_epochs(index) for index in range(first, chunk_index + 1))
    n = -(-n_images // n_train[chunk_index])
    return [n_images * (epoch + 1) // n - n_images * epoch // n for epoch in range(n)]


def n_batches(n_images: int, batch_size: int) -> int:
    """Return into how many batches of about `batch_size` an epoch is divided; none of them is small."""
    return max(1, n_images // batch_size)


def learning_rate_factor(step: int, n_steps: int, steps_per_epoch: float, config: LearnerConfig) -> float:
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
