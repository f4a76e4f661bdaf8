"""Which level of folders is the class: known, or refused with both readings; never silently wrong classes."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lurefs.data.dataset import ImageDataset
from lurefs.data.folder import folder
from lurefs.errors import UserError


def fill(root: Path, names: Sequence[str]) -> Path:
    """Write small images; each is named by its path below the root."""
    for number, name in enumerate(names):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 4), (number, 0, 0)).save(root / name)
    return root


def classes(root: Path, **settings: object) -> dict[str, list[str]]:
    dataset = folder(str(root), image_size=4, **settings)  # type: ignore[arg-type]
    return classes_of(dataset)


def classes_of(dataset: ImageDataset) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {name: [] for name in dataset.class_names}
    for image_id, label in zip(dataset.image_ids, dataset.labels, strict=True):
        found[dataset.class_names[label]].append(image_id)
    return found


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["cat/1.png", "dog/1.png"], ["cat", "dog"]),
        (["cat/2020/1.png", "dog/2020/1.png"], ["cat", "dog"]),
        (["cat/1.png", "cat/a/1.png", "cat/b/1.png", "dog/1.png"], ["cat", "dog"]),
        (["images/cat/1.png", "images/dog/1.png"], ["cat", "dog"]),
        (["flowers/rose/1.png", "flowers/tulip/1.png"], ["rose", "tulip"]),
        (["cat/images/1.jpg", "dog/images/1.jpg"], ["cat", "dog"]),
        (["train/cat/1.png", "train/dog/1.png", "test/cat/2.png", "test/dog/2.png"], ["cat", "dog"]),
        (["Training/cat/1.png", "Training/dog/1.png", "validation/cat/2.png"], ["cat", "dog"]),
        (["images/train/cat/1.png", "images/train/dog/1.png", "images/valid/cat/2.png"], ["cat", "dog"]),
        (["train/images/cat/1.png", "train/images/dog/1.png", "val/images/dog/2.png"], ["cat", "dog"]),
        (["cat/train/1.png", "cat/test/1.png", "dog/train/1.png", "dog/test/1.png"], ["cat", "dog"]),
        (["train/1.png", "bus/1.png", "tram/1.png"], ["bus", "train", "tram"]),  # vehicles
        (["train/cat/1.png", "train/dog/1.png"], ["cat", "dog"]),
        (["__MACOSX/cat/1.png", ".thumbnails/1.png", "cat/1.png", "dog/1.png"], ["cat", "dog"]),
    ],
)
def test_the_classes_of_common_layouts_are_found(tmp_path: Path, names: list[str], expected: list[str]) -> None:
    assert list(classes(fill(tmp_path, names))) == expected


def test_two_levels_are_refused_with_both_readings_until_a_setting_chooses(tmp_path: Path) -> None:
    names = [f"{alphabet}/{character}/1.png" for alphabet in ("greek", "latin") for character in ("a", "b")]
    fill(tmp_path, names)
    with pytest.raises(UserError, match=r"as 2 classes.*'greek'.*or as 4 classes.*'greek/a'.*\n.*layout: class/class"):
        folder(str(tmp_path))
    assert list(classes(tmp_path, layout="class/class")) == ["greek/a", "greek/b", "latin/a", "latin/b"]
    assert list(classes(tmp_path, layout="class")) == ["greek", "latin"]
    assert folder(str(tmp_path), layout="class").identity != folder(str(tmp_path), layout="class/class").identity


def test_omniglot_as_it_is_unpacked_has_a_split_of_classes(tmp_path: Path) -> None:
    names = [
        f"{part}/{alphabet}/character{number:02d}/0001_01.png"
        for part, alphabet in (("images_background", "Greek"), ("images_evaluation", "Tengwar"))
        for number in (1, 2)
    ]
    dataset = folder(str(fill(tmp_path, names)), layout="part/class/class")
    assert dataset.class_split == {
        "base": ("Greek/character01", "Greek/character02"),
        "validation": (),
        "novel": ("Tengwar/character01", "Tengwar/character02"),
    }


def test_parts_of_different_classes_are_a_split_of_the_classes(tmp_path: Path) -> None:
    dataset = folder(str(fill(tmp_path, ["train/a/1.png", "train/b/1.png", "val/c/1.png", "test/d/1.png"])))
    assert dataset.class_split == {"base": ("a", "b"), "validation": ("c",), "novel": ("d",)}
    assert dataset.parts is None
    assert any("2 base, 1 validation and 1 novel ones, unless the recipe sets class_split" in n for n in dataset.notes)


def test_parts_of_the_same_classes_are_a_split_of_the_images(tmp_path: Path) -> None:
    dataset = folder(str(fill(tmp_path, ["train/a/1.png", "train/b/1.png", "test/a/2.png", "test/b/2.png"])))
    assert dataset.class_split is None and dataset.parts is not None
    parts = dict(zip(dataset.image_ids, dataset.parts.tolist(), strict=True))
    assert parts == {"train/a/1.png": 0, "train/b/1.png": 0, "test/a/2.png": 2, "test/b/2.png": 2}
    pooled = folder(str(tmp_path), use_split=False)
    assert pooled.parts is None and len(pooled) == 4
    assert any("are pooled, since use_split is false" in note for note in pooled.notes)
    assert pooled.identity != dataset.identity


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["train/cat/1.png", "train/dog/1.png", "test/1.png"], "test holds images, but no class folders"),
        (["train/1.png", "test/1.png"], "test holds images, but no class folders"),
        (["train/cat/1.png", "test/cat/1.png", "extra/1.png"], "of which te?.* looks like a part of a split"),
        (["images/1.png", "images/2.png"], "images in images, but no class folders there"),
        (["train/n01/images/1.png", "val/images/1.png"], "images in val/images, but no class folders there"),
        (
            [*(f"train/{i}/1.png" for i in range(5)), *(f"test/{i}/1.png" for i in range(4, 8))],
            r"share 1 of 8 classes, e\.g\. '4'\n.*\n.*use_split: false",
        ),
    ],
)
def test_folders_that_are_no_classes_are_refused(tmp_path: Path, names: list[str], words: str) -> None:
    with pytest.raises(UserError, match=words):
        folder(str(fill(tmp_path, names)))


@pytest.mark.parametrize("layout", ["classes", "part", "", "class/", "part/part/class"])
def test_a_wrong_layout_is_refused(tmp_path: Path, layout: str) -> None:
    with pytest.raises(UserError, match=r"layout is .*\n.*auto, or roles of the folders"):
        folder(str(fill(tmp_path, ["a/1.png"])), layout=layout)


def test_a_layout_that_does_not_suit_the_folders_is_refused(tmp_path: Path) -> None:
    fill(tmp_path, ["cat/1.png", "dog/1.png"])
    with pytest.raises(UserError, match="no images in folders of that layout"):
        folder(str(tmp_path), layout="class/class")
    with pytest.raises(UserError, match="the folder cat/a is in no part of a split"):
        folder(str(fill(tmp_path, ["cat/a/1.png"])), layout="part/class")


def test_links_are_followed_and_cycles_end(tmp_path: Path) -> None:
    fill(tmp_path / "elsewhere", ["more/1.png"])
    root = fill(tmp_path / "root", ["a/1.png", "b/1.png"])
    (root / "c").symlink_to(tmp_path / "elsewhere" / "more")
    (root / "a" / "sub").symlink_to(tmp_path / "elsewhere" / "more")
    (root / "b" / "cycle").symlink_to(root)
    dataset = folder(str(root))
    assert classes_of(dataset) == {"a": ["a/1.png", "a/sub/1.png"], "b": ["b/1.png"], "c": ["c/1.png"]}
    assert any("b/cycle is a link to a folder above it" in note for note in dataset.notes)


def test_folders_that_all_link_to_each_other_end(tmp_path: Path) -> None:
    root = fill(tmp_path, [f"{top}/{name}/1.png" for top in "ab" for name in "0123456789"])
    for top in "ab":
        for name in "0123456789":
            for other in "0123456789":
                (root / top / name / f"to-{other}").symlink_to(root / top / other)
    dataset = folder(str(root), layout="class")
    assert 20 <= len(dataset) <= 200
    assert any("is a second link to one folder" in note for note in dataset.notes)


def test_a_link_that_leads_nowhere_is_refused_by_name(tmp_path: Path) -> None:
    root = fill(tmp_path, ["a/1.png", "b/1.png"])
    (root / "a" / "gone.png").symlink_to("nowhere.png")
    with pytest.raises(UserError, match=r"a/gone\.png is a link that leads nowhere\n.*image file.*\n.*delete it"):
        folder(str(root))
    (root / "a" / "gone.png").unlink()
    (root / "a" / "loop.png").symlink_to("loop.png")
    with pytest.raises(UserError, match=r"a/loop\.png is a link that leads nowhere"):
        folder(str(root))


def test_a_pipe_is_refused_without_waiting_for_it(tmp_path: Path) -> None:
    root = fill(tmp_path, ["a/1.png", "b/1.png"])
    os.mkfifo(root / "a" / "pipe.png")
    with pytest.raises(UserError, match=r"a/pipe\.png is no regular file, but a pipe, socket or device"):
        folder(str(root))
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UserError, match="is not a folder"):
        folder(str(tmp_path / "pipe"))


def test_files_of_other_endings_are_counted_and_told(tmp_path: Path) -> None:
    root = fill(tmp_path, ["a/1.png", "a/2.JFIF", "b/1.jp2", "loose.png"])
    for name in ("a/notes.txt", "b/x.raw", "b/y.RAW", "b/README"):
        (root / name).write_text("no image")
    dataset = folder(str(root), image_size=4)
    assert dataset.read(np.arange(3)).shape == (3, 4, 4, 3)
    assert any(note.endswith("left out: 1 without an ending, 2 .raw, 1 .txt") for note in dataset.notes)
    assert any("1 images lie outside of the class folders" in note for note in dataset.notes)


def test_names_that_are_no_text_are_read_and_printable(tmp_path: Path) -> None:
    root = fill(tmp_path, ["a/line\nbreak.png", "b/1.png", "B/1.png"])
    Image.new("RGB", (4, 4)).save(root / "a" / "first.png")
    os.rename(root / "a" / "first.png", os.path.join(os.fsencode(root), b"a", b"caf\xe9.png"))
    dataset = folder(str(root), image_size=4)
    assert dataset.image_ids == ("B/1.png", "a/caf\\xe9.png", "a/line\\nbreak.png", "b/1.png")
    assert all(image_id.isprintable() for image_id in dataset.image_ids)
    assert dataset.read(np.arange(4)).shape == (4, 4, 4, 3)
    assert any("'B' and 'b' differ only in capital letters" in note for note in dataset.notes)


def test_names_that_are_printed_alike_stay_apart(tmp_path: Path) -> None:
    dataset = folder(str(fill(tmp_path, ["a/x\ny.png", "a/x\\ny.png", "b/1.png"])), image_size=4)
    assert len(set(dataset.image_ids)) == 3


def test_files_are_listed_without_opening_one(tmp_path: Path) -> None:
    for label in range(10):
        (tmp_path / str(label)).mkdir()
        for number in range(100):
            (tmp_path / str(label) / f"{number}.png").touch()
    assert len(folder(str(tmp_path))) == 1000  # none of them is an image
