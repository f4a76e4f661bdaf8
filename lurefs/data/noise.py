"""Label noise: wrong labels for a share of the training and validation images."""

from __future__ import annotations

import numpy as np

from episodes.arrays import IntArray
from lurefs.config.learning_schema import ChunksConfig
from lurefs.data.dataset import ImageDataset
from lurefs.data.splits import ImageSplit
from lurefs.seeding import numpy_generator


def give_labels(
    dataset: ImageDataset, base: IntArray, of_base: IntArray, split: ImageSplit, config: ChunksConfig, *, seed: int
) -> IntArray:
    """Return the labels to train with: the true ones, with symmetric noise on a share of the images.

    round(label_noise * n) of the n training images, and likewise of the validation images, get another base class; all
    others are equally likely. An image with a wrong label keeps it at every higher rate. The draw is over base
    images, so that other images do not change it.

    Args:
        dataset: The images and their true labels.
        base: (n_base_classes,) sorted class indices.
        of_base: (n,) sorted rows of the images of these classes that are drawn from.
        split: The rows that may get noise, `train` and `val`; other rows keep their true labels.
        config: `label_noise`, a share in [0, 1).
        seed: The run's seed; `config.seed` replaces it if set.

    Returns:
        (n_images,) int64, index into the data set's `class_names`, read-only.
    """
    generator = numpy_generator(config.seed_of(seed), "label_noise")
    turn = generator.permutation(len(of_base))
    step = generator.integers(1, len(base), size=len(of_base))
    given = dataset.labels.copy()
    for rows in (split.train, split.val):
        drawn = np.searchsorted(of_base, rows)
        wrong = drawn[np.argsort(turn[drawn])][: round(config.label_noise * len(rows))]
        place = np.searchsorted(base, dataset.labels[of_base[wrong]])
        given[of_base[wrong]] = base[(place + step[wrong]) % len(base)]
    given.setflags(write=False)
    return given
