from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch

from lurefs.config.learning_schema import AugmentConfig, LearnerConfig
from lurefs.data.dataset import ImageDataset
from lurefs.errors import UserError
from lurefs.learning.images import LabelledImages, StreamedImages, augment, draw_moves, load_images, open_images

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


@pytest.mark.parametrize("n_workers", [0, 2])
def test_streamed_images_are_those_in_memory_and_leave_the_global_generator_alone(
    make_dataset: Callable[..., ImageDataset], n_workers: int
) -> None:
    dataset = make_dataset()
    rows, classes = np.arange(20, 100), np.array([1, 2, 3, 4])
    in_memory = load_images(dataset, rows, classes, CPU, labels=dataset.labels)
    settings = LearnerConfig(images="loader", n_workers=n_workers)
    streamed = open_images(dataset, rows, classes, CPU, settings, labels=dataset.labels)
    parts = list(torch.randperm(80).split(32))
    state = torch.random.get_rng_state()
    found = list(streamed.batches(parts))
    assert torch.equal(torch.random.get_rng_state(), state)
    for (images, labels), (expected, of_expected) in zip(found, in_memory.batches(parts), strict=True):
        assert torch.equal(images, expected)
        assert torch.equal(labels, of_expected)
    assert torch.equal(streamed.positions(rows[:5]), in_memory.positions(rows[:5]))


def test_images_are_streamed_by_themselves_where_they_are_large(
    make_dataset: Callable[..., ImageDataset], monkeypatch: pytest.MonkeyPatch
) -> None:
    from lurefs.learning import images

    dataset = make_dataset()
    arguments = dataset, np.arange(20), np.array([0]), CPU, LearnerConfig()
    assert isinstance(open_images(*arguments, labels=dataset.labels), LabelledImages)
    monkeypatch.setattr(images, "LARGEST_IN_MEMORY", 20 * 8 * 8 - 1)
    assert isinstance(open_images(*arguments, labels=dataset.labels), StreamedImages)


@pytest.mark.parametrize("n_workers", [0, 1])
def test_an_image_that_cannot_be_read_is_told_as_it_would_be_without_workers(
    make_dataset: Callable[..., ImageDataset], n_workers: int
) -> None:
    def fail(rows: np.ndarray) -> np.ndarray:
        raise UserError("image 7 is damaged", "an image", "replace it")

    dataset = replace(make_dataset(), read=fail)
    streamed = StreamedImages(np.arange(9), dataset, torch.zeros(9, dtype=torch.int64), n_workers)
    with pytest.raises(UserError, match="image 7 is damaged"):
        list(streamed.batches([torch.arange(3)]))


def test_a_reader_whose_parent_was_killed_before_it_began_ends() -> None:
    code = "import time; from lurefs.learning import images; images._begin(-1, 0); time.sleep(600)"
    process = subprocess.run([sys.executable, "-c", code], timeout=120)
    assert process.returncode == 1
