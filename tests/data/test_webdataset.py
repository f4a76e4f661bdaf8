from __future__ import annotations

import tarfile
from pathlib import Path

import numpy as np
import pytest

from forms import CLASSES, image_of, write_shards
from lurefs.data.recognise import recognise
from lurefs.data.webdataset import webdataset
from lurefs.errors import UserError


def test_samples_of_all_shards_are_read(tmp_path: Path) -> None:
    dataset = webdataset(write_shards(tmp_path), image_size=20)
    assert dataset.class_names == tuple("012345")
    assert dataset.n_per_class.tolist() == [8] * 6
    row = dataset.image_ids.index("photos-000001/100003")
    assert dataset.class_names[dataset.labels[row]] == "1"
    assert (dataset.read(np.array([row]))[0] == np.asarray(image_of(1, 3))[:, 2:22]).all()


def test_classes_may_stand_in_json_or_be_named(tmp_path: Path) -> None:
    assert webdataset(write_shards(tmp_path / "a", with_json=True)).class_names == CLASSES
    path = write_shards(tmp_path / "b")
    assert webdataset(path, class_names=list(CLASSES)).class_names == CLASSES
    with pytest.raises(UserError, match=r"is of class '5', but there are 5 class_names\n.*from 0 to 4"):
        webdataset(path, class_names=list(CLASSES[:5]))


def test_a_folder_a_pattern_and_a_list_of_shards_are_the_same(tmp_path: Path) -> None:
    path = write_shards(tmp_path)
    expected = webdataset(path).identity
    for other in (tmp_path, tmp_path / "photos-*.tar", tmp_path / "photos-{000000..000002}.tar"):
        assert recognise(str(other)) == ("webdataset", {"path": str(other)})
        assert webdataset(str(other)).identity == expected
    assert recognise(str(tmp_path / "photos-000000.tar"))[0] == "webdataset"


def test_names_of_shards_are_parts_of_a_split(tmp_path: Path) -> None:
    write_shards(tmp_path, part="train")
    write_shards(tmp_path, part="val", n_shards=1)
    dataset = webdataset(str(tmp_path))
    assert dataset.parts is not None and np.bincount(dataset.parts).tolist() == [48, 48]


def test_missing_shards_and_samples_without_a_class_are_refused(tmp_path: Path) -> None:
    write_shards(tmp_path)
    with pytest.raises(UserError, match=r"there is no shard .*photos-000003\.tar"):
        webdataset(str(tmp_path / "photos-{000000..000003}.tar"))
    with pytest.raises(UserError, match="there is no shard"):
        webdataset(str(tmp_path / "none-*.tar"))
    (tmp_path / "1.png").write_bytes(b"x")
    with tarfile.open(tmp_path / "bare.tar", "w") as tar:
        tar.add(tmp_path / "1.png", "1.png")
    with pytest.raises(UserError, match=r"bare\.tar: the sample 1 has no class\n.*\.cls"):
        webdataset(str(tmp_path / "bare.tar"))
