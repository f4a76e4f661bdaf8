from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from forms import image_of, write_idx
from lurefs.data.idx import FASHION, fashion_mnist, idx
from lurefs.errors import UserError


@pytest.mark.parametrize("compress", [False, True])
def test_a_folder_of_idx_files_is_read_with_its_split(tmp_path: Path, compress: bool) -> None:
    dataset = idx(str(write_idx(tmp_path, compress=compress)))
    assert dataset.class_names == tuple("012345")
    assert (dataset.image_size, dataset.n_channels, len(dataset)) == (20, 1, 48)
    assert dataset.parts is not None and np.bincount(dataset.parts).tolist() == [30, 0, 18]
    row = dataset.image_ids.index("train/07")
    expected = np.asarray(image_of(1, 1).convert("L"))[:, 2:22]
    assert (dataset.read(np.array([row]))[0, :, :, 0] == expected).all()
    assert idx(str(tmp_path), image_size=10).read(np.array([0])).shape == (1, 10, 10, 1)


def test_one_file_is_read_with_the_labels_beside_it(tmp_path: Path) -> None:
    write_idx(tmp_path)
    dataset = idx(str(tmp_path / "t10k-images-idx3-ubyte"), class_names=list("abcdef"))
    assert dataset.class_names == tuple("abcdef") and len(dataset) == 18 and dataset.parts is None


def test_images_of_emnist_are_turned_upright(tmp_path: Path) -> None:
    write_idx(tmp_path / "plain")
    write_idx(tmp_path / "turned", start="emnist-letters-")
    plain, turned = idx(str(tmp_path / "plain")), idx(str(tmp_path / "turned"))
    assert (turned.read(np.arange(18, 20)) == 0).sum() < 800
    first = turned.image_ids.index("emnist-letters-train/00")
    upright = plain.read(np.array([plain.image_ids.index("train/00")]))[0, :, :, 0]
    assert (turned.read(np.array([first]))[0, :, :, 0] == upright.T).all()
    assert turned.parts is not None


def test_fashion_mnist_has_the_names_of_its_classes(tmp_path: Path) -> None:
    dataset = fashion_mnist(str(write_idx(tmp_path)))
    assert set(dataset.class_names) == set(FASHION[:6])
    counts = dict(zip(dataset.class_names, dataset.n_per_class.tolist(), strict=True))
    assert counts["Pullover"] == 8
    row = dataset.image_ids.index("train/02")
    assert dataset.class_names[dataset.labels[row]] == "Pullover"


def test_wrong_idx_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="has no idx files of images"):
        idx(str(tmp_path))
    write_idx(tmp_path)
    file = tmp_path / "train-images-idx3-ubyte"
    whole = file.read_bytes()
    for content in (whole[:-1], b"", whole[4:]):
        file.write_bytes(content)
        with pytest.raises(UserError, match="train-images-idx3-ubyte is no complete idx file"):
            idx(str(tmp_path))
    file.write_bytes(whole)
    with pytest.raises(UserError, match="has labels up to 5, but 3 class_names"):
        idx(str(tmp_path), class_names=list("abc"))
    (tmp_path / "train-labels-idx1-ubyte").unlink()
    with pytest.raises(UserError, match="there is no train-labels-idx1-ubyte beside"):
        idx(str(tmp_path))
