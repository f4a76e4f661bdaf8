from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from episodes.arrays import IntArray
from lurefs.config.learning_schema import ChunksConfig
from lurefs.data.arrival import apportion, arrivals, limit_images
from lurefs.data.dataset import ImageDataset
from lurefs.data.splits import ImageSplit
from lurefs.errors import UserError

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
    assert limited.train.tolist() == sorted(limited.train)


@pytest.mark.parametrize(("images_per_class", "n_train", "n_val"), [(2, 1, 1), (3, 1, 2), (9, 1, 8)])
def test_of_a_large_validation_part_one_image_is_left_to_train_on(
    make_dataset: MakeDataset, images_per_class: int, n_train: int, n_val: int
) -> None:
    dataset, split = make_dataset(), ImageSplit(train=SPLIT.val[::2], val=SPLIT.train, test=SPLIT.test)
    limited = limit_images(dataset, split, ChunksConfig(images_per_class=images_per_class), seed=0)
    assert np.bincount(dataset.labels[limited.train]).tolist() == [n_train] * 6
    assert np.bincount(dataset.labels[limited.val]).tolist() == [n_val] * 6


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
        limited = limit_images(make_dataset(), SPLIT, config, seed=seed)
        return [*limited.train.tolist(), *limited.val.tolist()]

    assert rows(0) == rows(0) != rows(1)
    assert rows(0, own=7) == rows(1, own=7) == rows(7)


def test_a_schedule_that_leaves_a_chunk_one_image_to_train_on_is_refused(make_dataset: MakeDataset) -> None:
    split = ImageSplit(train=ROWS[::10], val=ROWS[1::5], test=ROWS[2::5])
    with pytest.raises(UserError, match="12 training and 24 validation images over 4 chunks, the smallest with 1 and"):
        arrivals(make_dataset(), split, ChunksConfig(n_chunks=4, schedule="growing"), 0)


def test_classes_arrive_in_orders_of_their_own(make_dataset: MakeDataset) -> None:
    dataset = make_dataset()
    (first, *_), _ = arrivals(dataset, SPLIT, ChunksConfig(n_chunks=3, class_order="balanced"), 0)
    assert len({tuple(sorted(first[dataset.labels[first] == label] % 20)) for label in range(6)}) > 1


class TestBySource:
    def arrive(
        self, make_dataset: MakeDataset, n_of_source: list[int], n_chunks: int, seed: int = 0
    ) -> tuple[list[IntArray], list[IntArray]]:
        """Return the rows by chunk where each source has so many training images and one validation image."""
        n_sources, n_train = len(n_of_source), sum(n_of_source)
        sources = np.repeat(np.arange(n_sources), n_of_source)
        dataset = make_dataset(n_sources=n_sources)
        dataset = replace(dataset, sources=np.concatenate([sources, np.arange(120 - n_train) % n_sources]))
        split = ImageSplit(
            train=ROWS[:n_train], val=ROWS[n_train : n_train + n_sources], test=ROWS[n_train + n_sources :]
        )
        return arrivals(dataset, split, ChunksConfig(n_chunks=n_chunks, chunk_by="source"), seed)

    def test_neither_early_nor_late_chunks_are_larger(self, make_dataset: MakeDataset) -> None:
        gaps = []
        for seed in range(40):
            first, last = self.arrive(make_dataset, [5, 10, 15, 20, 30], 2, seed)[0]
            gaps.append(len(first) - len(last))
        assert abs(np.mean(gaps)) < 5
        assert len(set(gaps)) > 3

    def test_a_source_that_holds_most_images_leaves_no_chunk_empty(self, make_dataset: MakeDataset) -> None:
        train, _ = self.arrive(make_dataset, [80, 3, 3, 3], 4)
        assert sorted(map(len, train)) == [3, 3, 3, 80]

    def test_a_source_without_training_images_validates_the_last_chunk(self, make_dataset: MakeDataset) -> None:
        _, val = self.arrive(make_dataset, [20, 20, 0], 2)
        assert [len(rows) for rows in val] == [1, 2]

    def test_only_sources_with_training_images_make_chunks(self, make_dataset: MakeDataset) -> None:
        with pytest.raises(UserError, match="asks for 3 chunks by source, but the training images have 2 sources"):
            self.arrive(make_dataset, [20, 20, 0], 3)
