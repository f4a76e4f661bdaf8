"""The few-shot data sets of learn2learn, in the files that it leaves on the disk."""

from __future__ import annotations

import io
import os
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from learn2learn.vision.datasets import cu_birds200, describable_textures, fgvc_aircraft, vgg_flowers
from scipy.io import savemat

from forms import image_of
from lurefs.data.few_shot_set import learn2learn
from lurefs.data.recognise import recognise
from lurefs.errors import UserError

Classes = dict[str, tuple[str, ...]]


def dump(path: Path, content: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pickle.dumps(content, protocol=2))


def png(label: int, number: int) -> bytes:
    content = io.BytesIO()
    image_of(label, number).save(content, "png")
    return content.getvalue()


def save(path: Path, label: int, number: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image_of(label, number).save(path)


def arrays(label: int) -> list[np.ndarray]:
    return [np.asarray(image_of(label, number)) for number in range(3)]


def mini_imagenet(root: Path) -> Classes:
    for first, part in ((0, "train"), (2, "validation"), (4, "test")):
        rows = {f"n{label}": [3 * (label - first) + number for number in range(3)] for label in (first, first + 1)}
        content = {"image_data": np.stack(arrays(first) + arrays(first + 1)), "class_dict": rows}
        dump(root / f"mini-imagenet-cache-{part}.pkl", content)
    return {"base": ("n0", "n1"), "validation": ("n2", "n3"), "novel": ("n4", "n5")}


def tiered_imagenet(root: Path) -> Classes:
    for first, part in ((0, "train"), (2, "val"), (4, "test")):
        coded = [np.frombuffer(png(label, n), np.uint8)[:, None] for label in (first, first + 1) for n in range(3)]
        names = [f"kind {first}", f"kind {first + 1}"]
        labels = {"label_specific": np.repeat([0, 1], 3), "label_specific_str": names}
        dump(root / "tiered-imagenet" / f"{part}_images_png.pkl", coded)
        dump(root / "tiered-imagenet" / f"{part}_labels.pkl", labels)
    return {"base": ("kind 0", "kind 1"), "validation": ("kind 2", "kind 3"), "novel": ("kind 4", "kind 5")}


def fc100(root: Path) -> Classes:
    for first, part in ((0, "train"), (2, "val"), (4, "test")):
        content = {"data": np.stack(arrays(first) + arrays(first + 1)), "labels": [0, 0, 0, 1, 1, 1]}
        dump(root / f"FC100_{part}.pickle", content)
    return {
        group: (f"{part}-00", f"{part}-01")
        for group, part in (("base", "train"), ("validation", "val"), ("novel", "test"))
    }


def cifar_fs(root: Path) -> Classes:
    base = root / "cifarfs" / "cifar100"
    (base / "splits" / "bertinetto").mkdir(parents=True)
    for first, part in ((0, "train"), (2, "val"), (4, "test")):
        (base / "splits" / "bertinetto" / f"{part}.txt").write_text(f"kind_{first}\nkind_{first + 1}\n")
        for label in (first, first + 1):
            save(base / "data" / f"kind_{label}" / "1.png", label, 1)
    return {"base": ("kind_0", "kind_1"), "validation": ("kind_2", "kind_3"), "novel": ("kind_4", "kind_5")}


def omniglot(root: Path) -> Classes:
    for part, alphabet in (("images_background", "Greek"), ("images_evaluation", "Tengwar")):
        for number in range(2):
            save(root / "omniglot-py" / part / alphabet / f"character{number:02d}" / "0001_01.png", number, 1)
    return {
        "base": ("Greek/character00", "Greek/character01"),
        "validation": (),
        "novel": ("Tengwar/character00", "Tengwar/character01"),
    }


def of_splits(splits: dict[str, list[str]], text: str = "{}") -> Classes:
    groups = {"train": "base", "validation": "validation", "valid": "validation", "test": "novel"}
    return {
        group: tuple(sorted(text.format(name) for name in splits[part]))
        for part, group in groups.items()
        if part in splits
    }


def birds(root: Path) -> Classes:
    for name in (name for names in cu_birds200.SPLITS.values() for name in names):
        save(root / "cubirds200" / "CUB_200_2011" / "images" / name / "one.png", 0, 1)
    (root / "cubirds200" / "CUB_200_2011" / "attributes").mkdir()
    return of_splits(cu_birds200.SPLITS)


def textures(root: Path) -> Classes:
    for name in (name for names in describable_textures.SPLITS.values() for name in names):
        save(root / "describable_textures" / "dtd" / "images" / name / "one.png", 0, 1)
    return of_splits(describable_textures.SPLITS)


def aircraft(root: Path) -> Classes:
    base = root / "fgvc_aircraft" / "fgvc-aircraft-2013b" / "data"
    names = fgvc_aircraft.SPLITS["all"]
    for number, name in enumerate(names):
        save(base / "images" / f"{number:07d}.jpg", 0, 1)
        with (base / f"images_variant_{('train', 'val', 'test')[number % 3]}.txt").open("a") as file:
            file.write(f"{number:07d} {name}\n")
    return of_splits(fgvc_aircraft.SPLITS)


def flowers(root: Path) -> Classes:
    for number in range(1, 103):
        save(root / "vgg_flower102" / "jpg" / f"image_{number:05d}.jpg", 0, 1)
    savemat(root / "vgg_flower102" / "imagelabels.mat", {"labels": np.arange(1, 103)[None]})
    return of_splits(vgg_flowers.SPLITS, "{:03d}")


SETS: dict[str, Callable[[Path], Classes]] = {
    "MiniImagenet": mini_imagenet,
    "TieredImagenet": tiered_imagenet,
    "FC100": fc100,
    "CIFARFS": cifar_fs,
    "FullOmniglot": omniglot,
    "CUBirds200": birds,
    "DescribableTextures": textures,
    "FGVCAircraft": aircraft,
    "VGGFlower102": flowers,
}


@pytest.mark.parametrize("name", SETS)
def test_a_set_is_read_with_its_usual_split(tmp_path: Path, name: str) -> None:
    expected = SETS[name](tmp_path)
    dataset = learn2learn(name, str(tmp_path), image_size=20)
    assert dataset.class_split == expected
    assert dataset.read(np.arange(3)).shape == (3, 20, 20, 3)
    assert len(set(dataset.image_ids)) == len(dataset)


@pytest.mark.parametrize("name", ["MiniImagenet", "TieredImagenet", "FC100"])
def test_the_pixels_are_those_of_the_file(tmp_path: Path, name: str) -> None:
    SETS[name](tmp_path)
    dataset = learn2learn(name, str(tmp_path), image_size=20)
    third = {"MiniImagenet": "n3/00005", "TieredImagenet": "val/000005", "FC100": "val/00005"}[name]
    row = dataset.image_ids.index(third)
    assert (dataset.read(np.array([row]))[0] == np.asarray(image_of(3, 2))[:, 2:22]).all()


@pytest.mark.parametrize("name", ["MiniImagenet", "FC100"])
def test_a_set_is_recognised_by_its_files(tmp_path: Path, name: str) -> None:
    SETS[name](tmp_path)
    assert recognise(str(tmp_path)) == ("learn2learn", {"name": name, "path": str(tmp_path)})


def test_images_that_imagenet_has_too_are_left_out(tmp_path: Path) -> None:
    birds(tmp_path)
    twin = cu_birds200.IMAGENET_DUPLICATES["train"][0]
    save(tmp_path / "cubirds200" / "CUB_200_2011" / "images" / cu_birds200.SPLITS["train"][0] / twin, 0, 2)
    assert len(learn2learn("CUBirds200", str(tmp_path))) == 200


class Evil:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, ("touch /tmp/lurefs-was-here",)


def test_a_pickle_runs_no_code(tmp_path: Path) -> None:
    mini_imagenet(tmp_path)
    dump(tmp_path / "mini-imagenet-cache-train.pkl", Evil())
    with pytest.raises(UserError, match=r"cannot be read: it holds a .*system\n.*\n.*can run any code"):
        learn2learn("MiniImagenet", str(tmp_path))
    assert not Path("/tmp/lurefs-was-here").exists()


def test_missing_and_damaged_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"mini-imagenet-cache-train\.pkl, as learn2learn stores it"):
        learn2learn("MiniImagenet", str(tmp_path))
    mini_imagenet(tmp_path)
    file = tmp_path / "mini-imagenet-cache-test.pkl"
    file.write_bytes(file.read_bytes()[:500])
    with pytest.raises(UserError, match=r"cache-test\.pkl cannot be read"):
        learn2learn("MiniImagenet", str(tmp_path))
    with pytest.raises(UserError, match=r"unknown data set of learn2learn 'MiniImageNet'.*\n.*\n.*'MiniImagenet'"):
        learn2learn("MiniImageNet", str(tmp_path))
