from __future__ import annotations

import hashlib
import re
from importlib.resources import files

import numpy as np
import pytest

from lurefs.data import icons as module
from lurefs.data.icons import icons
from lurefs.errors import UserError

ASSETS = files("lurefs.data") / "assets"
BRANDS = {"airplay", "android", "apple", "behance", "bitcoin", "bluetooth", "facebook", "github", "google", "instagram"}
BRANDS |= {"linkedin", "paypal", "twitter", "usb", "windows", "youtube"}
PERMISSIVE = {"MIT", "Apache-2.0", "ISC", "CC0-1.0", "BSD-3-Clause", "Unlicense", "OFL-1.1"}


def notice_rows() -> list[list[str]]:
    lines = (ASSETS / "NOTICE").read_text(encoding="utf-8").splitlines()
    return [line.split(" | ") for line in lines[lines.index("") + 1 :]]


def test_the_card_states_the_counts_of_the_array() -> None:
    dataset, card = icons(), (ASSETS / "ICONS.md").read_text(encoding="utf-8")
    per_class = dataset.n_per_class
    assert f"| images | {len(dataset):,} |" in card
    assert f"| classes | {len(dataset.class_names)} |" in card
    assert f"| icon sets | {len(dataset.source_names)} |" in card
    assert f"{per_class.min()} to {per_class.max()}, median {int(np.median(per_class))} |" in card


def test_the_notice_lists_each_icon_set_once_with_its_count() -> None:
    dataset = icons()
    counts = np.bincount(dataset.sources)
    assert [(row[0], int(row[-1])) for row in notice_rows()] == list(zip(dataset.source_names, counts, strict=True))


def test_the_notice_names_a_permissive_licence_and_an_author_for_each_set() -> None:
    assert {row[3] for row in notice_rows()} <= PERMISSIVE
    assert all(row[4] for row in notice_rows())
    # The one set for which the collection declares no address.
    assert [row[0] for row in notice_rows() if not row[5].startswith("https://")] == ["il"]


def test_the_licences_of_the_array_are_those_of_the_notice() -> None:
    with (ASSETS / "icons.npz").open("rb") as stream, np.load(stream) as arrays:
        assert arrays["licences"].tolist() == [row[3] for row in notice_rows()]


def test_no_class_is_a_brand() -> None:
    words = {word for name in icons().class_names for word in name.split("-")}
    assert not words & BRANDS


def test_no_icon_set_is_a_set_of_logos() -> None:
    assert not [name for name in icons().source_names if re.search("brand|logo|simple-icons|crypto|devicon", name)]


def test_every_class_has_twenty_to_sixty_images_of_different_sets() -> None:
    dataset = icons()
    assert dataset.n_per_class.min() >= 20
    assert dataset.n_per_class.max() <= 60
    assert len(set(dataset.image_ids)) == len(dataset)


def test_an_id_is_the_class_and_the_icon_set() -> None:
    dataset = icons()
    row = dataset.image_ids.index("calendar/feather")
    assert dataset.class_names[dataset.labels[row]] == "calendar"
    assert dataset.source_names[dataset.sources[row]] == "feather"


def test_labels_are_there_before_any_pixel_is_unpacked() -> None:
    module._stored_images.cache_clear()
    dataset = icons()
    assert len(dataset.labels) == len(dataset)
    assert module._stored_images.cache_info().currsize == 0
    dataset.read(np.array([0]))
    assert module._stored_images.cache_info().currsize == 1


def test_images_are_grey_with_sixteen_levels_and_ink_on_nothing() -> None:
    images = icons().read(np.arange(200))
    assert images.shape == (200, 32, 32, 1)
    assert images.dtype == np.uint8
    assert set(np.unique(images).tolist()) == set(range(0, 256, 17))
    assert not images[:, :2].any()


def test_images_come_in_the_order_asked_for() -> None:
    dataset = icons()
    np.testing.assert_array_equal(dataset.read(np.array([7, 3, 7])), dataset.read(np.arange(10))[[7, 3, 7]])


def test_packing_lies_in_the_bound_that_the_card_states() -> None:
    grey = np.arange(256)
    assert np.abs((grey + 8) // 17 * 17 - grey).max() == 8
    assert "at most 8 of 255" in (ASSETS / "ICONS.md").read_text(encoding="utf-8")


def test_another_size_is_resized_and_says_so_in_the_identity() -> None:
    dataset = icons(image_size=16)
    assert dataset.read(np.array([0, 1])).shape == (2, 16, 16, 1)
    assert dataset.identity["image_size"] == 16
    assert "pillow" in dataset.identity
    assert "pillow" not in icons().identity


def test_the_identity_holds_the_digest_of_the_asset() -> None:
    digest = hashlib.sha256((ASSETS / "icons.npz").read_bytes()).hexdigest()
    assert icons().identity == {"source": "icons", "asset_sha256": digest, "image_size": 32}


def test_the_asset_is_small() -> None:
    assert len((ASSETS / "icons.npz").read_bytes()) < 2_200_000


@pytest.mark.parametrize("image_size", [0, -1, 2.5, True])
def test_a_size_that_is_no_number_of_pixels_is_refused(image_size: int) -> None:
    with pytest.raises(UserError, match=r"icons: image_size is .*\n.*whole number of pixels"):
        icons(image_size=image_size)
