from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lurefs.data.npz import npz
from lurefs.errors import UserError


def save_npz(path: Path, **changes: Any) -> str:
    arrays: dict[str, Any] = {
        "images": np.arange(4 * 6 * 6, dtype=np.uint8).reshape(4, 6, 6),
        "labels": np.array([3, 5, 5, 3]),
        **changes,
    }
    np.savez_compressed(path, **{name: array for name, array in arrays.items() if array is not None})
    return str(path)


def test_an_npz_file_without_names_takes_classes_from_its_labels(tmp_path: Path) -> None:
    dataset = npz(save_npz(tmp_path / "a.npz"))
    assert dataset.class_names == ("3", "5")
    assert dataset.labels.tolist() == [0, 1, 1, 0]
    assert dataset.image_ids == ("0", "1", "2", "3")
    assert (dataset.image_size, dataset.n_channels) == (6, 1)
    assert dataset.read(np.array([1]))[0, 0, :2, 0].tolist() == [36, 37]


def test_an_npz_file_may_name_classes_images_and_sources(tmp_path: Path) -> None:
    path = save_npz(
        tmp_path / "a.npz",
        labels=np.array([0, 1, 1, 0]),
        class_names=np.array(["cat", "wolf"]),
        image_ids=np.array(["a", "b", "c", "d"]),
        sources=np.array(["zoo", "zoo", "farm", "zoo"]),
    )
    dataset = npz(path)
    assert dataset.class_names == ("cat", "wolf")
    assert dataset.image_ids == ("a", "b", "c", "d")
    assert [dataset.source_names[source] for source in dataset.sources] == ["zoo", "zoo", "farm", "zoo"]


def test_an_npz_file_in_colour_is_resized(tmp_path: Path) -> None:
    path = save_npz(tmp_path / "a.npz", images=np.zeros((4, 6, 9, 3), np.uint8))
    assert npz(path, image_size=5).read(np.array([0, 3])).shape == (2, 5, 5, 3)


def test_a_changed_npz_file_is_read_again(tmp_path: Path) -> None:
    first = npz(save_npz(tmp_path / "a.npz"))
    first.read(np.array([0]))
    second = npz(save_npz(tmp_path / "a.npz", images=np.full((4, 6, 6), 9, np.uint8)))
    assert second.identity != first.identity
    assert second.read(np.array([0])).max() == 9


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"labels": None}, r"has no array 'labels', only images\n.*images and labels"),
        ({"images": None}, r"has no array 'images', only labels"),
        ({"images": np.zeros((4, 6, 6))}, r"images of shape \(4, 6, 6\), float64\n.*uint8"),
        ({"images": np.zeros((4, 3, 6, 6), np.uint8)}, r"images of shape \(4, 3, 6, 6\).*\n.*\n.*channels come last"),
        (
            {"images": np.zeros((4, 6, 7), np.uint8)},
            r"images of 6 x 7 pixels\n.*\n.*set image_size",
        ),
        ({"labels": np.zeros(3, int)}, r"has labels of shape \(3,\)\n.*\(4,\), one entry per image"),
        ({"labels": np.zeros(4)}, r"labels of type float64\n.*integers"),
        ({"labels": np.array([0, 1, 2, 3], object)}, r"array 'labels' that cannot be read"),
        ({"class_names": np.array(["a", "b"])}, r"labels from 3 to 5, but 2 class_names\n.*labels from 0 to 1"),
        ({"class_names": np.array(list("abcdef"))}, r"has no image of class 'a'"),
        ({"image_ids": np.array(["a", "b", "c", "a"])}, r"image_ids that occur twice\n.*one unique id per image"),
    ],
)
def test_a_wrong_npz_file_is_refused(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        npz(save_npz(tmp_path / "a.npz", **changes))


def test_a_truncated_npz_file_is_refused(tmp_path: Path) -> None:
    path = Path(save_npz(tmp_path / "a.npz"))
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(UserError, match=r"a\.npz is not an \.npz file, or is incomplete"):
        npz(str(path))


def test_damaged_pixels_are_refused_when_read(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (4, 32, 32)).astype(np.uint8)
    path = Path(save_npz(tmp_path / "a.npz", images=noise))
    content = bytearray(path.read_bytes())
    content[2000:2100] = bytes(100)
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"array 'images' that cannot be read"):
        npz(str(path)).read(np.array([0]))


def test_a_missing_npz_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"a\.npz is not a file"):
        npz(str(tmp_path / "a.npz"))
