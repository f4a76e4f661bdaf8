from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from episodes.arrays import IntArray
from lurefs.data import duplicates
from lurefs.data.content import checksums
from lurefs.data.dataset import ImageArray, ImageDataset
from lurefs.data.duplicates import difference_hashes, near_twins, pixel_keys

MakeDataset = Callable[..., ImageDataset]
OfImages = Callable[[ImageArray], tuple[ImageDataset, IntArray]]


@pytest.fixture
def of_images(make_dataset: MakeDataset) -> Callable[[ImageArray], tuple[ImageDataset, IntArray]]:
    def make(images: ImageArray) -> tuple[ImageDataset, IntArray]:
        dataset = make_dataset(n_classes=1, n_per_class=len(images))
        size, channels = images.shape[1], images.shape[3]
        dataset = replace(dataset, read=lambda rows: images[rows], image_size=size, n_channels=channels)
        return dataset, np.arange(len(images))

    return make


def test_equal_pixels_have_equal_keys_and_others_have_not(
    of_images: OfImages,
) -> None:
    images = np.random.default_rng(0).integers(0, 256, (6, 8, 8, 3)).astype(np.uint8)
    images[4] = images[1]
    one, other = pixel_keys([of_images(images), of_images(images[[3, 1, 5]])])
    assert one[4] == one[1] == other[1] and one[3] == other[0] and one[5] == other[2]
    assert len({*one, *other}) == 5


def test_equal_checksums_of_other_pixels_are_told_apart(of_images: OfImages, monkeypatch: pytest.MonkeyPatch) -> None:
    images = np.random.default_rng(0).integers(0, 256, (4, 8, 8, 1)).astype(np.uint8)
    images[3] = images[0]
    monkeypatch.setattr(duplicates, "checksums", lambda dataset, rows: np.full(len(rows), 7, np.uint32))
    (keys,) = pixel_keys([of_images(images)])
    assert keys[0] == keys[3] and len(set(keys)) == 3
    assert len(set(checksums(*of_images(images)))) == 3


def test_a_hash_says_where_the_grey_level_rises(of_images: OfImages) -> None:
    rising = np.tile(np.arange(18, dtype=np.uint8) * 10, (16, 1))[:, :, np.newaxis]
    hashes, is_flat = difference_hashes(
        *of_images(np.stack([rising, rising[:, ::-1], np.full_like(rising, 9)])[:, :, :16])
    )
    assert hashes.tolist() == [2**64 - 1, 0, 0]
    assert is_flat.tolist() == [False, False, True]


@pytest.mark.parametrize("size", [1, 5, 8, 9, 30])
def test_images_of_any_size_have_hashes(of_images: OfImages, size: int) -> None:
    images = np.random.default_rng(1).integers(0, 256, (3, size, size, 3)).astype(np.uint8)
    hashes, is_flat = difference_hashes(*of_images(images))
    assert len(set(hashes.tolist())) == (1 if size == 1 else 3)
    assert is_flat.all() == (size == 1)


def test_a_resized_and_brighter_image_has_nearly_the_same_hash(
    of_images: OfImages,
) -> None:
    rng = np.random.default_rng(2)
    small = rng.integers(0, 200, (20, 12, 12, 1)).astype(np.uint8)
    large = np.clip(small.repeat(3, 1).repeat(3, 2) + 20.0 + rng.normal(0, 2, (20, 36, 36, 1)), 0, 255).astype(np.uint8)
    one, other = (difference_hashes(*of_images(images))[0] for images in (small, large))
    assert near_twins(one, other, 7).tolist() == list(range(20))


@pytest.mark.parametrize("distance", [0, 3, 7])
def test_near_twins_are_those_of_a_search_of_all_pairs(distance: int) -> None:
    rng = np.random.default_rng(3)
    hashes = rng.integers(0, 2**64, 200, dtype=np.uint64)
    others = hashes[rng.permutation(200)[:120]].copy()
    for place in range(len(others)):
        for bit in rng.choice(64, rng.integers(0, 10), replace=False):
            others[place] ^= np.uint64(1) << np.uint64(bit)
    for theirs in (others, hashes):
        far = np.bitwise_count(hashes[:, np.newaxis] ^ theirs) > distance
        if theirs is hashes:
            np.fill_diagonal(far, True)
        found = near_twins(hashes, theirs, distance)
        assert ((found >= 0) == ~far.all(axis=1)).all()
        assert not far[np.flatnonzero(found >= 0), found[found >= 0]].any()


def test_a_hundred_thousand_hashes_take_seconds() -> None:
    rng = np.random.default_rng(4)
    hashes = rng.integers(0, 2**64, 100_000, dtype=np.uint64)
    hashes[rng.permutation(100_000)[:20_000]] &= np.uint64(0xFFFF)  # many bytes in common
    start = time.process_time()
    near_twins(hashes[:50_000], hashes[50_000:], 4)
    assert time.process_time() - start < 20
