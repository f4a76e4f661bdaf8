from __future__ import annotations

import sys
from collections.abc import Callable

import numpy as np
import pytest

from lurefs.config.schema import CORRUPTIONS
from lurefs.data.corruptions import check_corruptible, corrupt, corrupted_dataset
from lurefs.data.dataset import ImageArray, ImageDataset
from lurefs.errors import UserError

IDS = ("a/1", "b/2", "c/3")


def make_images(n_channels: int = 1) -> ImageArray:
    """Squares of 5 pixels, which no block of a corruption falls together with."""
    squares = np.random.default_rng(0).integers(0, 256, (len(IDS), 7, 7, n_channels)).astype(np.uint8)
    return squares.repeat(5, axis=1).repeat(5, axis=2)[:, :32, :32]


def test_the_fifteen_names_are_the_common_ones_of_the_library() -> None:
    from imagecorruptions import get_corruption_names

    assert len(CORRUPTIONS) == 15
    assert get_corruption_names("common") == list(CORRUPTIONS)


@pytest.mark.parametrize("corruption", CORRUPTIONS)
@pytest.mark.parametrize("n_channels", [1, 3])
def test_a_corrupted_image_follows_from_its_own_id_alone(corruption: str, n_channels: int) -> None:
    images = make_images(n_channels)
    before = images.copy()
    np.random.seed(1)
    whole = corrupt(images, IDS, corruption=corruption, severity=3)
    np.random.seed(2)
    alone = corrupt(images[1:2], IDS[1:2], corruption=corruption, severity=3)
    assert np.array_equal(whole[1:2], alone)
    assert (whole.shape, whole.dtype) == (images.shape, np.uint8)
    assert np.array_equal(images, before)
    assert not np.array_equal(whole, images)


@pytest.mark.parametrize("corruption", ["gaussian_noise", "impulse_noise", "glass_blur"])
def test_other_ids_give_other_noise(corruption: str) -> None:
    images = np.repeat(make_images()[:1], 2, axis=0)
    one, other = corrupt(images, ["a", "b"], corruption=corruption, severity=3)
    assert not np.array_equal(one, other)


@pytest.mark.parametrize("corruption", ["gaussian_noise", "shot_noise", "defocus_blur", "contrast", "pixelate"])
def test_a_higher_severity_changes_more(corruption: str) -> None:
    images = make_images()
    mild, severe = (corrupt(images, IDS, corruption=corruption, severity=severity) for severity in (1, 5))
    assert np.abs(severe.astype(int) - images).mean() > np.abs(mild.astype(int) - images).mean()


def test_contrast_of_a_grey_image_by_hand() -> None:
    images = np.zeros((1, 32, 32, 1), np.uint8)
    images[:, :16] = 200  # mean 100; severity 1 multiplies the distance from it by 0.4
    corrupted = corrupt(images, ["a"], corruption="contrast", severity=1)
    assert np.unique(corrupted).tolist() == [60, 140]


def test_noise_of_a_grey_image_keeps_its_strength() -> None:
    images = np.full((3, 64, 64, 1), 128, np.uint8)
    noise = corrupt(images, IDS, corruption="gaussian_noise", severity=1).astype(float) - 128
    assert noise.std() == pytest.approx(0.08 * 255, rel=0.03)


def test_global_random_state_is_left_alone() -> None:
    np.random.seed(0)
    expected = np.random.random()
    np.random.seed(0)
    corrupt(make_images(), IDS, corruption="snow", severity=2)
    assert np.random.random() == expected


@pytest.mark.parametrize("severity", [0, 6])
def test_there_are_five_severities(severity: int) -> None:
    with pytest.raises(UserError, match="a whole number from 1 to 5"):
        corrupt(make_images(), IDS, corruption="fog", severity=severity)


def test_an_unknown_corruption_is_answered_with_the_nearest() -> None:
    with pytest.raises(UserError, match="did you mean 'frost'"):
        corrupt(make_images(), IDS, corruption="frosty", severity=1)


def test_a_corrupted_data_set_has_the_same_images_under_another_identity(
    make_dataset: Callable[..., ImageDataset],
) -> None:
    dataset = make_dataset(size=32)
    changed = corrupted_dataset(dataset, corruption="fog", severity=2)
    rows = np.array([7, 3])
    ids = [dataset.image_ids[row] for row in rows]
    expected = corrupt(dataset.read(rows), ids, corruption="fog", severity=2)
    assert np.array_equal(changed.read(rows), expected)
    assert changed.image_ids == dataset.image_ids and np.array_equal(changed.labels, dataset.labels)
    assert changed.identity == {**dataset.identity, "corruption": "fog", "severity": 2}


def test_small_images_are_refused_with_the_setting_that_helps() -> None:
    with pytest.raises(UserError, match=r"of 32 pixels or more, and these have 16[^$]*dataset.params.image_size"):
        check_corruptible(16)


def test_a_missing_library_is_answered_with_the_command_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "imagecorruptions", None)
    with pytest.raises(UserError) as caught:
        check_corruptible(32)
    assert 'pip install "lurefs[robustness]"' in str(caught.value)
    assert "robustness.corruptions needs" in str(caught.value)
