from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from episodes import FeatureBank
from episodes.bank import write_bank


def test_a_saved_bank_reads_back_as_a_memory_map(tmp_path: Path) -> None:
    bank = FeatureBank.from_arrays(np.arange(12.0).reshape(4, 3), np.array(["b", "a", "b", "a"]))
    bank.save(tmp_path)
    again = FeatureBank.load(tmp_path)
    assert isinstance(again.features, np.memmap)
    assert np.array_equal(again.features, bank.features)
    assert again.labels.tolist() == [1, 0, 1, 0]
    assert (again.class_names, again.image_ids) == (("a", "b"), ("0", "1", "2", "3"))
    assert again.images_digest == bank.images_digest


def test_arrays_of_a_bank_are_read_only() -> None:
    bank = FeatureBank.from_arrays(np.zeros((2, 3)), np.array([0, 1]))
    with pytest.raises(ValueError, match="read-only"):
        bank.features[0, 0] = 1


def test_arrays_that_do_not_belong_together_are_refused() -> None:
    with pytest.raises(ValueError, match="do not belong together"):
        FeatureBank.from_arrays(np.zeros((3, 2)), np.array([0, 1]))


@pytest.mark.parametrize(
    ("feature", "labels", "words"),
    [
        (0.0, np.zeros((3, 1)), r"labels have the shape \(3, 1\)"),
        (np.nan, np.arange(3), "row 2 of the features"),
        (-np.inf, np.arange(3), "row 2 of the features"),
        (1e39, np.arange(3), "row 2 of the features holds a number that is not finite in single precision"),
    ],
)
def test_arrays_that_cannot_be_measured_are_refused(feature: float, labels: np.ndarray[Any, Any], words: str) -> None:
    features = np.zeros((3, 2))
    features[2, 1] = feature
    with pytest.raises(ValueError, match=words):
        FeatureBank.from_arrays(features, labels)


def test_half_a_bank_is_no_bank(tmp_path: Path) -> None:
    FeatureBank.from_arrays(np.zeros((2, 3)), np.array([0, 1])).save(tmp_path)
    (tmp_path / "bank.json").unlink()
    with pytest.raises(FileNotFoundError):
        FeatureBank.load(tmp_path)


def write(folder: Path, batches: Iterator[np.ndarray], n_images: int, identity: str) -> None:
    write_bank(
        folder,
        batches,
        n_features=3,
        labels=np.zeros(n_images, np.int64),
        image_ids=tuple(map(str, range(n_images))),
        class_names=("a",),
        identity={"made": identity},
    )


def test_a_bank_written_in_batches_has_the_bytes_of_one_array(tmp_path: Path) -> None:
    features = np.random.default_rng(0).normal(size=(7, 3)).astype(np.float32)
    write(tmp_path / "bank", iter([features[:4], features[4:]]), 7, "first")
    np.save(tmp_path / "whole.npy", features)
    assert (tmp_path / "bank" / "features.npy").read_bytes() == (tmp_path / "whole.npy").read_bytes()
    assert FeatureBank.load(tmp_path / "bank").identity == {"made": "first"}


def test_a_bank_whose_batches_end_early_is_none(tmp_path: Path) -> None:
    write(tmp_path, iter([np.zeros((2, 3), np.float32)]), 2, "first")

    def broken() -> Iterator[np.ndarray]:
        yield np.ones((1, 3), np.float32)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write(tmp_path, broken(), 2, "second")
    with pytest.raises(ValueError, match="1 rows of features and 2 labels"):
        write(tmp_path, iter([np.ones((1, 3), np.float32)]), 2, "second")
    first = FeatureBank.load(tmp_path)
    assert (first.features.sum(), first.identity) == (0.0, {"made": "first"})
    assert not list(tmp_path.glob(".*"))


def test_new_features_never_lie_under_an_old_card(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, iter([np.zeros((2, 3), np.float32)]), 2, "first")

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("episodes.bank.np.save", killed)
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path, iter([np.ones((2, 3), np.float32)]), 2, "second")
    with pytest.raises(FileNotFoundError):
        FeatureBank.load(tmp_path)


CHANGES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "other numbers": lambda features: features + 1,
    "zeros": lambda features: features * 0,
    "double precision": lambda features: features.astype(np.float64),
    "complex numbers": lambda features: features.astype(np.complex64),
    "fewer rows": lambda features: features[:2],
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_features_that_were_changed_after_writing_are_refused(
    change: Callable[[np.ndarray], np.ndarray], tmp_path: Path
) -> None:
    bank = FeatureBank.from_arrays(np.arange(12.0).reshape(4, 3), np.array([0, 1, 0, 1]))
    bank.save(tmp_path)
    assert len(FeatureBank.load(tmp_path).features) == 4
    np.save(tmp_path / "features.npy", change(np.asarray(bank.features)))
    with pytest.raises(ValueError, match=r"not what was written|not float32"):
        FeatureBank.load(tmp_path)


@pytest.mark.parametrize(("entry", "value"), [("image_ids", 7), ("class_names", [1]), ("identity", []), (None, [])])
def test_a_card_of_another_form_is_no_bank(entry: str | None, value: Any, tmp_path: Path) -> None:
    FeatureBank.from_arrays(np.zeros((2, 3)), np.array([0, 1])).save(tmp_path)
    card = json.loads((tmp_path / "bank.json").read_text())
    (tmp_path / "bank.json").write_text(json.dumps(value if entry is None else card | {entry: value}))
    with pytest.raises(ValueError, match=r"which should be|should be a mapping"):
        FeatureBank.load(tmp_path)


def test_features_that_are_not_finite_are_not_written(tmp_path: Path) -> None:
    batches = (np.full((1, 2), value, dtype=np.float32) for value in (1.0, np.nan))
    with pytest.raises(ValueError, match="row 1 of the features holds a number that is not finite"):
        write(tmp_path, batches, 2, "a")
    assert not (tmp_path / "bank.json").exists()
