"""Data sets of torchvision, timm and the Hugging Face hub, from files as these libraries store them."""

from __future__ import annotations

import hashlib
import pickle
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
from torchvision.datasets import CIFAR10

from forms import CLASSES, image_of, write_folders, write_idx, write_saved
from lurefs import plugins
from lurefs.data.dataset import ImageDataset
from lurefs.data.timm_reader import timm
from lurefs.data.torchvision_set import torchvision
from lurefs.errors import UserError


@pytest.fixture
def cifar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """CIFAR-10 in its own files, with 6 classes of 8 images; each file's checksum is that of these bytes."""
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    for key, numbers in (("train_list", range(5)), ("test_list", range(5, 8))):
        pairs = [(label, number) for number in numbers for label in range(6)]
        pixels = np.stack([np.asarray(image_of(*pair).resize((32, 32))).transpose(2, 0, 1) for pair in pairs])
        content = pickle.dumps({"data": pixels.reshape(len(pairs), -1), "labels": [label for label, _ in pairs]})
        (folder / key).write_bytes(content)
        monkeypatch.setattr(CIFAR10, key, [[key, hashlib.md5(content).hexdigest()]])
    content = pickle.dumps({"label_names": list(CLASSES)})
    (folder / "batches.meta").write_bytes(content)
    monkeypatch.setattr(CIFAR10, "meta", {**CIFAR10.meta, "md5": hashlib.md5(content).hexdigest()})
    return tmp_path


def test_a_data_set_of_torchvision_is_read_with_its_split(cifar: Path) -> None:
    dataset = torchvision("CIFAR10", str(cifar), image_size=32)
    assert dataset.class_names == CLASSES
    assert dataset.parts is not None and np.bincount(dataset.parts).tolist() == [30, 0, 18]
    row = dataset.image_ids.index("test/07")
    assert (dataset.read(np.array([row]))[0] == np.asarray(image_of(1, 6).resize((32, 32)))).all()
    only = torchvision("CIFAR10", str(cifar), split="test")
    assert len(only) == 18 and only.parts is None and only.identity != dataset.identity


def test_the_parts_of_omniglot_are_a_split_of_the_classes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torchvision.datasets.Omniglot._check_integrity", lambda self: True)
    for part, alphabet in (("images_background", "Greek"), ("images_evaluation", "Tengwar")):
        for number in range(2):
            folder = tmp_path / "omniglot-py" / part / alphabet / f"character{number:02d}"
            folder.mkdir(parents=True)
            image_of(0, number).convert("1").save(folder / f"000{number}_01.png")
    dataset = torchvision("Omniglot", str(tmp_path))
    assert dataset.class_split is not None
    assert dataset.class_split["novel"] == ("Tengwar/character00", "Tengwar/character01")
    assert dataset.read(np.arange(4)).shape == (4, 64, 64, 3)


def test_idx_files_are_read_by_torchvision_too(tmp_path: Path) -> None:
    write_idx(tmp_path / "FashionMNIST" / "raw")
    dataset = torchvision("FashionMNIST", str(tmp_path))
    assert "Pullover" in dataset.class_names and len(dataset) == 48


@pytest.mark.parametrize(
    ("name", "settings", "words"),
    [
        ("CIFAR10", {}, r"cannot be read from .*Dataset not found.*\n.*\n.*dataset\.params\.download=true"),
        ("CIFAR", {}, r"unknown data set of torchvision 'CIFAR'.*\n.*\n.*did you mean 'CIFAR10'"),
        ("CIFAR10", {"split": "val"}, "split of CIFAR10 is 'val'"),
        ("CIFAR10", {"options": {"colour": 1}}, "does not accept its options"),
        ("EMNIST", {}, "does not accept its options: .*split"),
    ],
)
def test_what_torchvision_has_not_is_refused(
    tmp_path: Path, name: str, settings: dict[str, object], words: str
) -> None:
    with pytest.raises(UserError, match=words):
        torchvision(name, str(tmp_path), **settings)  # type: ignore[arg-type]


def test_the_folder_reader_of_timm_is_used(tmp_path: Path) -> None:
    dataset = timm("folder", str(write_folders(tmp_path / "a")), image_size=20)
    assert dataset.class_names == CLASSES and len(dataset) == 48
    row = next(row for row, image_id in enumerate(dataset.image_ids) if image_id.endswith("class-1/3.png"))
    assert (dataset.read(np.array([row]))[0] == np.asarray(image_of(1, 3))[:, 2:22]).all()


def test_what_timm_cannot_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no"):
        timm("folder", str(tmp_path / "none"))
    with pytest.raises(UserError, match=r"timm:tfds/mnist names no reader that can.*\n.*folder or hfds/NAME"):
        timm("tfds/mnist", str(tmp_path))
    with pytest.raises(UserError, match="timm:folder cannot read"):
        timm("folder", str(tmp_path))


def test_a_name_before_a_colon_gives_the_first_argument(cifar: Path) -> None:
    dataset: ImageDataset = plugins.build("dataset", "torchvision:CIFAR10", {"path": str(cifar)})
    assert dataset.identity == torchvision("CIFAR10", str(cifar)).identity
    with pytest.raises(UserError, match=r"missing a required argument: 'path'"):
        plugins.build("dataset", "torchvision:CIFAR10", {})


def test_a_data_set_of_the_hub_is_read_from_the_cache_of_its_library(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = write_saved(tmp_path / "saved")
    asked: list[object] = []

    def load_dataset(name: str, config: str | None, **settings: object) -> dict[str, SimpleNamespace]:
        asked.append(vars(library)["config"].HF_HUB_OFFLINE)
        if name != "owner/name":
            raise ConnectionError("Couldn't reach it\nmore")
        files = {part: root / part / "data-00000-of-00001.arrow" for part in ("train", "test")}
        return {part: SimpleNamespace(cache_files=[{"filename": str(file)}]) for part, file in files.items()}

    library = ModuleType("datasets")
    vars(library).update(
        load_dataset=load_dataset,
        config=SimpleNamespace(HF_DATASETS_CACHE=str(tmp_path), HF_HUB_OFFLINE=False),
    )
    monkeypatch.setitem(sys.modules, "datasets", library)
    dataset: ImageDataset = plugins.build("dataset", "hf:owner/name", {"image_size": 20})
    assert dataset.class_names == CLASSES and dataset.parts is not None
    with pytest.raises(UserError, match=r"hf:other cannot be loaded: Couldn't reach it\n.*cache .*\n.*download=true"):
        plugins.build("dataset", "hf:other", {})
    plugins.build("dataset", "hf:owner/name", {"download": True})
    assert asked == [True, True, False]
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(UserError, match=r'pip install "lurefs\[hf\]"'):
        plugins.build("dataset", "hf:owner/name", {})
