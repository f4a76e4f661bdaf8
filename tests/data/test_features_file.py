"""Features from files: three forms, one order of rows, and wrong files refused."""

from __future__ import annotations

import io
import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lurefs.data.dataset import ImageDataset
from lurefs.data.features_file import difference, features, holds_features
from lurefs.data.recognise import recognise
from lurefs.errors import UserError

LABELS = np.repeat([3, 5], 4)
NUMBERS = np.random.default_rng(0).normal(size=(8, 3)).astype(np.float32)
IDS = np.array([f"image-{row}" for row in range(8)])


def rows(dataset: ImageDataset) -> np.ndarray[Any, Any]:
    assert dataset.read_features is not None
    return dataset.read_features(np.arange(len(dataset)))


def write_npz(folder: Path) -> Path:
    np.savez(folder / "x.npz", features=NUMBERS, labels=LABELS)
    return folder / "x.npz"


def write_npy(folder: Path) -> Path:
    np.save(folder / "x.npy", NUMBERS)
    np.save(folder / "x_labels.npy", LABELS)
    return folder / "x.npy"


def write_npy_and_csv(folder: Path) -> Path:
    np.save(folder / "x.npy", NUMBERS)
    (folder / "labels.csv").write_text("\n".join(map(str, LABELS)))
    return folder / "x.npy"


def write_lists(folder: Path) -> Path:
    pq.write_table(pa.table({"features": NUMBERS.tolist(), "label": LABELS}), folder / "x.parquet")
    return folder / "x.parquet"


def write_columns(folder: Path) -> Path:
    pq.write_table(pa.table({"label": LABELS, **{f"f{i}": NUMBERS[:, i] for i in range(3)}}), folder / "x.parquet")
    return folder / "x.parquet"


@pytest.mark.parametrize("write", [write_npz, write_npy, write_npy_and_csv, write_lists, write_columns])
def test_every_form_holds_the_same_features(write: Callable[[Path], Path], tmp_path: Path) -> None:
    path = write(tmp_path)
    assert recognise(str(path)) == ("features", {"path": str(path)})
    dataset = features(str(path))
    assert np.array_equal(rows(dataset), NUMBERS)
    assert dataset.class_names == ("3", "5") and dataset.labels.tolist() == [0] * 4 + [1] * 4
    assert dataset.n_features == 3


def test_rows_with_ids_are_ordered_by_them_and_classes_by_their_names(tmp_path: Path) -> None:
    order = np.random.default_rng(1).permutation(8)
    np.savez(tmp_path / "a.npz", features=NUMBERS, labels=LABELS == 5, image_ids=IDS)
    with pytest.raises(UserError, match="labels of type bool"):
        features(str(tmp_path / "a.npz"))
    np.savez(tmp_path / "a.npz", features=NUMBERS, labels=(LABELS == 5) * 1, class_names=["wolf", "ant"], paths=IDS)
    np.savez(
        tmp_path / "b.npz", features=NUMBERS[order], labels=np.where(LABELS == 5, "ant", "wolf")[order], id=IDS[order]
    )
    one, other = features(str(tmp_path / "a.npz")), features(str(tmp_path / "b.npz"))
    assert one.class_names == other.class_names == ("ant", "wolf")
    assert one.image_ids == other.image_ids == tuple(IDS)
    assert np.array_equal(rows(one), rows(other)) and difference(one, other) == ""


def test_a_split_divides_the_classes_and_sources_are_kept(tmp_path: Path) -> None:
    parts = np.where(LABELS == 3, "train", "test")
    np.savez(tmp_path / "x.npz", features=NUMBERS, labels=LABELS, split=parts, source=np.arange(8) % 2)
    dataset = features(str(tmp_path / "x.npz"))
    assert dataset.class_split == {"base": ("3",), "validation": (), "novel": ("5",)}
    assert dataset.sources.tolist() == [0, 1] * 4 and dataset.source_names == ("0", "1")
    assert features(str(tmp_path / "x.npz"), use_split=False).class_split is None


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"features": NUMBERS * np.nan}, "8 of 8 rows with a feature that is not finite, the first is row 0"),
        ({"features": NUMBERS.astype(float) * 1e300}, "not finite"),
        ({"features": NUMBERS * 0}, "zeros only"),
        ({"features": NUMBERS[:, 0]}, r"features of shape \(8,\)"),
        ({"features": NUMBERS[:0], "labels": LABELS[:0]}, r"features of shape \(0, 3\)"),
        ({"features": NUMBERS * 1j}, "features of type complex"),
        ({"features": NUMBERS.astype(str)}, "features of type <U"),
        ({"labels": LABELS[:7]}, r"labels of shape \(7,\)"),
        ({"labels": LABELS / 2}, "labels of type float64"),
        (
            {"labels": np.where(LABELS[-1] == LABELS, np.nan, LABELS)},
            r"has \d rows without a label, the first is row \d",
        ),
        ({"labels": None}, "has no labels"),
        ({"labels": LABELS, "class_names": ["a", "b"]}, "labels from 3 to 5, and 2 different class_names"),
        ({"image_ids": IDS[[0] * 8]}, "image ids that occur twice"),
        ({"image_ids": IDS[:3]}, r"image_ids of shape \(3,\)"),
        ({"split": ["elsewhere"] * 8}, "the part 'elsewhere'"),
        ({"labels": np.array([{}] * 8, object)}, "cannot be read: Object arrays"),
    ],
)
def test_wrong_arrays_are_refused(changes: dict[str, Any], words: str, tmp_path: Path) -> None:
    arrays = {"features": NUMBERS, "labels": LABELS} | changes
    np.savez(tmp_path / "x.npz", **{name: value for name, value in arrays.items() if value is not None})
    with pytest.raises(UserError, match=words) as caught:
        features(str(tmp_path / "x.npz"))
    assert caught.value.expected and caught.value.fix


def lying(path: Path, member: str) -> None:
    """Write an archive in which one array claims to have 10^13 rows."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f8", "fortran_order": False, "shape": (10**13, 2)})
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{member}.npy", header.getvalue())


def test_arrays_that_claim_more_than_any_memory_holds_are_refused(tmp_path: Path) -> None:
    lying(tmp_path / "x.npz", "features")
    with pytest.raises(UserError, match="cannot be read: Unable to allocate"):
        features(str(tmp_path / "x.npz"))


def test_a_named_pipe_holds_no_features(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "x.npz")
    assert not holds_features(tmp_path / "x.npz")


def test_names_that_are_no_text_are_escaped(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", features=NUMBERS, labels=np.array([f"\ud800{label}" for label in LABELS]))
    assert features(str(tmp_path / "x.npz")).class_names == (r"\xed\xa0\x803", r"\xed\xa0\x805")


class Trap:
    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return Path.touch, (Path("opened"),)  # type: ignore[return-value]


def test_a_pickle_is_never_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.npy").write_bytes(pickle.dumps(Trap()))
    np.save(tmp_path / "labels.npy", LABELS)
    with pytest.raises(UserError, match="cannot be read"):
        features("x.npy")
    (tmp_path / "x.npz").write_bytes(pickle.dumps(Trap()))
    assert not holds_features(tmp_path / "x.npz")
    assert not (tmp_path / "opened").exists()


def test_features_without_labels_beside_them_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", NUMBERS)
    with pytest.raises(UserError, match="has no labels beside it"):
        features(str(tmp_path / "x.npy"))


def test_lists_of_different_lengths_are_refused(tmp_path: Path) -> None:
    pq.write_table(pa.table({"features": [[1.0], [1.0, 2.0]], "label": [0, 1]}), tmp_path / "x.parquet")
    with pytest.raises(UserError, match="lists of different lengths"):
        features(str(tmp_path / "x.parquet"))


def test_what_differs_between_files_is_said(tmp_path: Path) -> None:
    def made(name: str, n: int = 8, **arrays: Any) -> ImageDataset:
        np.savez(tmp_path / f"{name}.npz", **({"features": NUMBERS[:n], "labels": LABELS[:n]} | arrays))
        return features(str(tmp_path / f"{name}.npz"))

    plain, with_ids = made("plain"), made("ids", image_ids=IDS)
    assert difference(plain, made("fewer", n=7)) == "8 images and 7"
    assert difference(plain, with_ids) == "only one of them has ids of images"
    assert "e.g. 'image-0'" in difference(
        with_ids, made("others", image_ids=IDS[::-1].copy().astype("U9") + np.array("x"))
    )
    assert "image '0' is '3' in the first and '5'" in difference(plain, made("turned", labels=LABELS[::-1]))
    assert "the classes differ" in difference(plain, made("renamed", labels=LABELS + 1))
