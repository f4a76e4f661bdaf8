from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

from forms import CLASSES, image_of, rows_of_bytes, write_parquet_bytes, write_saved
from lurefs.data.arrow import arrow
from lurefs.data.recognise import recognise
from lurefs.errors import UserError


def test_a_saved_data_set_is_read_with_the_names_of_its_classes_and_its_split(tmp_path: Path) -> None:
    dataset = arrow(str(write_saved(tmp_path / "saved")), image_size=20)
    assert dataset.class_names == CLASSES
    assert dataset.parts is not None and np.bincount(dataset.parts).tolist() == [24, 0, 24]
    row = dataset.image_ids.index("test/05")  # every second image, from the second: number 3 of class 1
    assert (dataset.read(np.array([row]))[0] == np.asarray(image_of(1, 3))[:, 2:22]).all()
    part = arrow(str(tmp_path / "saved" / "train"))
    assert len(part) == 24 and part.parts is None
    assert recognise(str(tmp_path / "saved"))[0] == recognise(str(tmp_path / "saved" / "train"))[0] == "arrow"


def test_parquet_files_of_image_bytes_are_read_row_group_by_row_group(tmp_path: Path) -> None:
    root = write_parquet_bytes(tmp_path / "hub")
    dataset = arrow(str(root), image_size=20)
    assert dataset.class_names == CLASSES and len(dataset) == 48
    images = dataset.read(np.arange(48)[::-1])
    expected = [np.asarray(image_of(*divmod(number, 8)))[:, 2:22] for number in [*range(0, 48, 2), *range(1, 48, 2)]]
    assert (images == np.stack(expected)[::-1]).all()
    file = root / "data" / "train-00000-of-00002.parquet"
    assert recognise(str(root))[0] == recognise(str(file))[0] == "arrow"
    assert len(arrow(str(file))) == 24


def test_columns_that_are_not_clear_are_named_by_settings(tmp_path: Path) -> None:
    rows, labels = rows_of_bytes()
    table = pyarrow.table({"img": rows, "thumb": rows, "fine": labels, "coarse": [label // 2 for label in labels]})
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet")
    with pytest.raises(UserError, match=r"2 columns that could be the image; .*img, thumb.*\n.*\n.*params\.image=img"):
        arrow(str(tmp_path / "a.parquet"))
    with pytest.raises(UserError, match="0 columns that could be the label"):
        arrow(str(tmp_path / "a.parquet"), image="img")
    assert arrow(str(tmp_path / "a.parquet"), image="img", label="coarse").class_names == ("0", "1", "2")


def test_wrong_folders_and_damaged_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no data set"):
        arrow(str(tmp_path))
    root = write_saved(tmp_path / "saved")
    file = root / "train" / "data-00000-of-00001.arrow"
    file.write_bytes(file.read_bytes()[:300])
    with pytest.raises(UserError, match=r"data-00000-of-00001\.arrow cannot be read"):
        arrow(str(root))
    file.unlink()
    with pytest.raises(UserError, match=r"data-00000-of-00001\.arrow cannot be read"):
        arrow(str(root))


def test_a_row_without_a_class_is_refused(tmp_path: Path) -> None:
    rows, labels = rows_of_bytes()
    pyarrow.parquet.write_table(pyarrow.table({"image": rows, "label": [None, *labels[1:]]}), tmp_path / "a.parquet")
    with pytest.raises(UserError, match="has an image of the class None"):
        arrow(str(tmp_path / "a.parquet"))
