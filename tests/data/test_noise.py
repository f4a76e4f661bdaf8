from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from episodes.arrays import IntArray
from lurefs.config.learning_schema import ChunksConfig
from lurefs.data.dataset import ImageDataset
from lurefs.data.noise import give_labels
from lurefs.data.splits import ImageSplit

MakeDataset = Callable[..., ImageDataset]
BASE = np.array([0, 2, 3, 5])
ROWS = np.flatnonzero(np.isin(np.repeat(np.arange(6), 20), BASE))
SPLIT = ImageSplit(train=ROWS[ROWS % 10 < 6], val=ROWS[ROWS % 10 == 6], test=ROWS[ROWS % 10 > 6])


@pytest.fixture
def given(make_dataset: MakeDataset) -> Callable[..., IntArray]:
    def give(label_noise: float, seed: int = 0, own: int | None = None) -> IntArray:
        return give_labels(
            make_dataset(), BASE, ROWS, SPLIT, ChunksConfig(label_noise=label_noise, seed=own), seed=seed
        )

    return give


Given = Callable[..., IntArray]


@pytest.mark.parametrize(("rate", "n_train", "n_val"), [(0.0, 0, 0), (0.3, 14, 2), (0.5, 24, 4), (0.99, 48, 8)])
def test_exactly_the_share_of_each_part_is_misnamed(
    given: Given, make_dataset: MakeDataset, rate: float, n_train: int, n_val: int
) -> None:
    is_wrong = given(rate) != make_dataset().labels
    assert (len(SPLIT.train), len(SPLIT.val)) == (48, 8)
    assert (is_wrong[SPLIT.train].sum(), is_wrong[SPLIT.val].sum()) == (n_train, n_val)


def test_only_arriving_images_are_misnamed_and_only_as_base_classes(given: Given, make_dataset: MakeDataset) -> None:
    labels = make_dataset().labels
    wrong = np.flatnonzero(given(0.9) != labels)
    assert set(wrong) <= {*SPLIT.train, *SPLIT.val}
    assert set(given(0.9)[wrong]) == set(BASE)


def test_all_other_classes_are_equally_likely(given: Given, make_dataset: MakeDataset) -> None:
    labels = make_dataset().labels
    counts = np.zeros((6, 6))
    for seed in range(300):
        noisy = given(0.5, seed=seed)
        np.add.at(counts, (labels[SPLIT.train], noisy[SPLIT.train]), 1)
    drawn = counts[np.ix_(BASE, BASE)]
    others = drawn[~np.eye(4, dtype=bool)]
    assert others.sum() == 300 * 24
    assert np.abs(others - 600).max() < 5 * np.sqrt(600)


def test_more_noise_adds_wrong_names_and_changes_none(given: Given, make_dataset: MakeDataset) -> None:
    labels, little, much = make_dataset().labels, given(0.2), given(0.6)
    wrong = np.flatnonzero(little != labels)
    assert little[wrong].tolist() == much[wrong].tolist()


def test_noise_follows_the_seed_and_a_seed_of_its_own_wins(given: Given) -> None:
    assert given(0.3).tolist() == given(0.3).tolist() != given(0.3, seed=1).tolist()
    assert given(0.3, own=5).tolist() == given(0.3, seed=1, own=5).tolist()


def test_given_labels_cannot_be_changed(given: Given) -> None:
    with pytest.raises(ValueError, match="read-only"):
        given(0.1)[0] = 1
