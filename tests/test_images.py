from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from lurefs.config import AugmentConfig
from lurefs.data.dataset import ImageDataset
from lurefs.images import augment, draw_moves, load_images

CPU = torch.device("cpu")


def test_images_keep_their_rows(make_dataset: Callable[..., ImageDataset]) -> None:
    dataset = make_dataset()
    classes = np.array([1, 2, 4])
    images = load_images(dataset, np.flatnonzero(np.isin(dataset.labels, classes)), classes, CPU, labels=dataset.labels)
    rows = np.array([95, 20, 41])
    assert images.labels[images.positions(rows)].tolist() == [2, 0, 1]
    assert np.array_equal(images.images[images.positions(rows)].permute(0, 2, 3, 1).numpy(), dataset.read(rows))


def moved(batch: torch.Tensor, settings: AugmentConfig, seed: int = 0) -> torch.Tensor:
    moves = draw_moves([len(batch)], settings, torch.Generator().manual_seed(seed), CPU)
    return augment(batch, moves, settings.crop_padding)


def test_augmentation_shifts_whole_images_and_mirrors_half() -> None:
    batch = torch.zeros(200, 1, 8, 8, dtype=torch.uint8)
    batch[:, 0, 4, 2] = 255
    shifted = moved(batch, AugmentConfig(crop_padding=2, flip=False))
    assert shifted.sum(dim=(1, 2, 3)).unique().tolist() == [255]
    places = {tuple(place) for place in shifted[:, 0].nonzero()[:, 1:].tolist()}
    assert places == {(y, x) for y in range(2, 7) for x in range(5)}
    n_mirrored = int((moved(batch, AugmentConfig(crop_padding=0, flip=True))[:, 0, 4, 5] == 255).sum())
    assert 70 < n_mirrored < 130
    assert torch.equal(moved(batch, AugmentConfig(crop_padding=0)), batch)


def test_a_part_of_a_batch_is_augmented_as_in_the_whole() -> None:
    batch = torch.randint(256, (10, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    settings = AugmentConfig(crop_padding=2, flip=True)
    moves = draw_moves([4, 6], settings, torch.Generator().manual_seed(0), CPU)
    whole = augment(batch, moves, 2)
    assert torch.equal(augment(batch[3:8], moves.of(slice(3, 8)), 2), whole[3:8])
