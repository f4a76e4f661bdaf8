from __future__ import annotations

import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest

from forms import CLASSES, image_of, write_archive, write_folders
from lurefs.data.archive import archive
from lurefs.data.folder import folder
from lurefs.errors import UserError


@pytest.mark.parametrize("name", ["a.tar", "a.zip"])
def test_an_archive_of_folders_is_read_as_these_folders(tmp_path: Path, name: str) -> None:
    dataset = archive(str(write_archive(tmp_path / name)), image_size=20)
    plain = folder(str(tmp_path / "packed"), image_size=20)
    assert dataset.class_names == plain.class_names == CLASSES
    assert dataset.image_ids == plain.image_ids
    assert (dataset.read(np.arange(48)) == plain.read(np.arange(48))).all()
    assert (dataset.read(np.array([9]))[0] == np.asarray(image_of(1, 1))[:, 2:22]).all()


def test_an_archive_has_the_layouts_of_a_folder(tmp_path: Path) -> None:
    for part in ("train", "test"):
        write_folders(tmp_path / "root" / part)
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        tar.add(tmp_path / "root", "data")
    dataset = archive(str(tmp_path / "a.tar"))
    assert dataset.class_names == CLASSES and dataset.parts is not None and len(dataset) == 96


def test_a_file_that_is_stored_twice_by_a_hard_link_is_read(tmp_path: Path) -> None:
    root = write_folders(tmp_path / "root")
    (root / "class-0" / "x.png").hardlink_to(root / "class-0" / "0.png")
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        tar.add(root, ".")
    dataset = archive(str(tmp_path / "a.tar"))
    images = dataset.read(np.array([0, dataset.image_ids.index("class-0/x.png")]))
    assert (images[0] == images[1]).all()


def test_a_compressed_tar_archive_is_refused_with_the_command_that_unpacks_it(tmp_path: Path) -> None:
    path = write_archive(tmp_path / "a.tar.gz")
    with pytest.raises(UserError, match=r"compressed with gzip.*\n.*\n.*tar -xf a\.tar\.gz -C images"):
        archive(str(path))


@pytest.mark.parametrize("name", ["a.tar", "a.zip"])
def test_damaged_archives_are_refused(tmp_path: Path, name: str) -> None:
    path = write_archive(tmp_path / name)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match=f"{name} is damaged"):
        archive(str(path))
    path.write_bytes(b"no archive")
    with pytest.raises(UserError, match=f"{name} is damaged: no tar or zip archive"):
        archive(str(path))
    path.write_bytes(whole)
    dataset = archive(str(path))
    path.write_bytes(bytes(len(whole)))
    with pytest.raises(UserError):
        dataset.read(np.arange(48))


def test_an_encrypted_zip_archive_is_refused(tmp_path: Path) -> None:
    path = write_archive(tmp_path / "a.zip")
    with zipfile.ZipFile(path) as found:
        start = found.start_dir
    content = bytearray(path.read_bytes())
    content[start + 8] |= 1
    path.write_bytes(content)
    with pytest.raises(UserError, match="is encrypted"):
        archive(str(path))
