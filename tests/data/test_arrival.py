from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from lurefs.config import ChunksConfig
from lurefs.data.arrival import apportion, limit_images
from lurefs.data.dataset import ImageDataset
from lurefs.data.splits import ImageSplit

MakeDataset = Callable[..., ImageDataset]
ROWS = np.arange(120)
SPLIT = ImageSplit(train=ROWS[ROWS % 10 < 6], val=ROWS[ROWS % 10 == 6], test=ROWS[ROWS % 10 > 6])
"""Of each of six classes 12 training, 2 validation and 6 test images."""


@pytest.mark.parametrize(
    ("n_images", "weights", "owed", "sizes"),
    [
        (12, [1, 2, 3], None, [2, 4, 6]),
        (8, [1, 1, 1], None, [3, 3, 2]),
        (7, [1, 2, 3], None, [1, 2, 4]),
        (8, [1, 1, 1], [-0.5, 0.0, 0.5], [2, 3, 3]),
        (4, [1, 1], [0.0, 5.0], [2, 2]),
        (2, [1, 1, 1, 1, 1], None, [1, 1, 0, 0, 0]),
    ],
)
def test_images_are_divided_by_weights_with_the_largest_remainder_first(
    n_images: int, weights: list[float], owed: list[float] | None, sizes: list[int]
) -> None:
    given = None if owed is None else np.array(owed)
    assert apportion(n_images, np.array(weights, dtype=np.float64), given).tolist() == sizes


@pytest.mark.parametrize("n_chunks", range(1, 60))
def test_equal_weights_divide_like_array_split(n_chunks: int) -> None:
    for n_images in range(n_chunks, 3 * n_chunks):
        expected = [len(piece) for piece in np.array_split(np.arange(n_images), n_chunks)]
        assert apportion(n_images, np.ones(n_chunks)).tolist() == expected


@pytest.mark.parametrize(
    ("images_per_class", "n_train", "n_val"), [(2, 1, 1), (7, 6, 1), (11, 9, 2), (14, 12, 2), (99, 12, 2)]
)
def test_of_each_class_at_most_so_many_images_arrive(
    make_dataset: MakeDataset, images_per_class: int, n_train: int, n_val: int
) -> None:
    dataset = make_dataset()
    limited = limit_images(dataset, SPLIT, ChunksConfig(images_per_class=images_per_class), seed=0)
    assert np.bincount(dataset.labels[limited.train]).tolist() == [n_train] * 6
    assert np.bincount(dataset.labels[limited.val]).tolist() == [n_val] * 6
    assert set(limited.train) <= set(SPLIT.train)
    assert set(limited.val) <= set(SPLIT.val)
    assert limited.test.tolist() == SPLIT.test.tolist()


def test_without_a_limit_all_images_arrive(make_dataset: MakeDataset) -> None:
    assert limit_images(make_dataset(), SPLIT, ChunksConfig(), seed=0) is SPLIT


def test_fewer_images_are_among_those_of_more(make_dataset: MakeDataset) -> None:
    few, more = (
        limit_images(make_dataset(), SPLIT, ChunksConfig(images_per_class=n_images), seed=1) for n_images in (5, 9)
    )
    assert set(few.train) < set(more.train)
    assert set(few.val) <= set(more.val)


def test_which_images_arrive_follows_the_seed(make_dataset: MakeDataset) -> None:
    def rows(seed: int, own: int | None = None) -> list[int]:
        config = ChunksConfig(images_per_class=5, seed=own)
        return limit_images(make_dataset(), SPLIT, config, seed=seed).train.tolist()

    assert rows(0) == rows(0) != rows(1)
    assert rows(0, own=7) == rows(1, own=7) == rows(7)
