from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

from forms import CLASSES, image_of, write_images
from lurefs.data.table import table
from lurefs.errors import UserError


def write(path: Path, *rows: str) -> str:
    path.write_text("\n".join(rows) + "\n", encoding="utf-8")
    return str(path)


@pytest.fixture
def rows(tmp_path: Path) -> list[tuple[str, str]]:
    return [(f"pixels/{file}", name) for file, name in write_images(tmp_path / "pixels")]


@pytest.mark.parametrize(
    ("name", "head", "mark"),
    [
        ("a.csv", "path,label", ","),
        ("a.csv", "Filename;Class", ";"),
        ("a.tsv", "image_path\tcategory", "\t"),
        ("a.csv", "", ","),
    ],
)
def test_paths_and_labels_are_read(
    tmp_path: Path, rows: list[tuple[str, str]], name: str, head: str, mark: str
) -> None:
    dataset = table(write(tmp_path / name, *filter(None, [head]), *(mark.join(row) for row in rows)), image_size=20)
    assert dataset.class_names == CLASSES
    assert dataset.image_ids == tuple(path for path, _ in rows)
    assert dataset.n_per_class.tolist() == [8] * 6
    assert (dataset.read(np.array([9]))[0] == np.asarray(image_of(1, 1))[:, 2:22]).all()


def test_a_parquet_file_may_give_parts_sources_and_ids(tmp_path: Path, rows: list[tuple[str, str]]) -> None:
    columns = {
        "path": [path for path, _ in rows],
        "label": [int(name[-1]) for _, name in rows],
        "split": ["train", "train", "train", "train", "val", "val", "test", "test"] * 6,
        "source": ["camera", "phone"] * 24,
        "id": [f"id-{row}" for row in range(48)],
    }
    pyarrow.parquet.write_table(pyarrow.table(columns), tmp_path / "a.parquet")
    dataset = table(str(tmp_path / "a.parquet"), image_size=8)
    assert dataset.class_names == tuple("012345")
    assert dataset.image_ids[:2] == ("id-0", "id-1")
    assert [dataset.source_names[source] for source in dataset.sources[:2]] == ["camera", "phone"]
    assert dataset.parts is not None and dataset.parts[:8].tolist() == [0, 0, 0, 0, 1, 1, 2, 2]


def test_three_lists_as_mini_imagenet_has_them_are_a_split_of_the_classes(tmp_path: Path) -> None:
    found = write_images(tmp_path / "images", ".jpg")
    for part, names in (("train", CLASSES[:3]), ("val", CLASSES[3:4]), ("test", CLASSES[4:])):
        lines = (f"{file},{name}" for file, name in found if name in names)
        write(tmp_path / f"{part}.csv", "filename,label", *lines)
    dataset = table(str(tmp_path), image_size=8)
    assert dataset.class_split == {"base": CLASSES[:3], "validation": CLASSES[3:4], "novel": CLASSES[4:]}
    assert dataset.read(np.arange(48)).shape == (48, 8, 8, 3)
    only = table(str(tmp_path / "test.csv"), image_size=8)
    assert only.class_names == CLASSES[4:] and only.class_split is None


def test_the_identity_ignores_where_the_table_lies(tmp_path: Path, rows: list[tuple[str, str]]) -> None:
    path = write(tmp_path / "a.csv", "path,label", *(",".join(row) for row in rows))
    before = table(path).identity
    moved = tmp_path.rename(tmp_path.with_name("moved"))
    assert table(str(moved / "a.csv")).identity == before
    write(moved / "a.csv", "path,label", *(f"{path},{name.upper()}" for path, name in rows))
    assert table(str(moved / "a.csv")).identity != before


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        (["path,label", "gone.png,a"], r"lists 1 images that are not there, e\.g\. gone\.png"),
        (["path,label", "pixels/class-0-0.png,a", "pixels/class-0-0.png,b"], "lists pixels/class-0-0.png twice"),
        (["path,label", "pixels/class-0-0.png,"], "has '' as the label of image 1"),
        (["path,label", "pixels/class-0-0.png"], "has 1 cells for image 1"),
        (["path,label"], "lists no image"),
        ([""], "is empty"),
        (["path,number", "pixels/class-0-0.png,1"], r"has no column 'label', only path, number\n.*class_name"),
        (["path,label,split", "pixels/class-0-0.png,a,fold 1"], r"has the part 'fold 1' of a split\n.*\n.*use_split"),
        (["path,label", "pixels,a"], "lists pixels, which is no file"),
        (["path,label", "pipe.png,a"], r"lists pipe\.png, which is no file"),
        (
            ["path,label,category", "pixels/class-0-0.png,a,x", "pixels/class-0-1.png,b,x"],
            "has several columns that could be the label: label, category",
        ),
    ],
)
def test_wrong_tables_are_refused(tmp_path: Path, rows: list[tuple[str, str]], lines: list[str], words: str) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(UserError, match=words):
        table(write(tmp_path / "a.csv", *lines))


def test_settings_name_unusual_columns_and_the_root(tmp_path: Path, rows: list[tuple[str, str]]) -> None:
    lines = (f"{Path(path).name},{name},1" for path, name in rows)
    path = write(tmp_path / "a.csv", "photo,species,fold", *lines)
    dataset = table(path, columns={"path": "photo", "label": "species"}, root=str(tmp_path / "pixels"))
    assert dataset.class_names == CLASSES
    with pytest.raises(UserError, match=r"columns has the key 'class'\n.*path, label"):
        table(path, columns={"class": "species"})


def test_of_two_columns_that_go_together_the_one_with_names_is_taken(
    tmp_path: Path, rows: list[tuple[str, str]]
) -> None:
    lines = (f"{path},{name[-1]},{name}" for path, name in rows)
    assert table(write(tmp_path / "a.csv", "path,label,class_name", *lines)).class_names == CLASSES


def test_a_quoted_cell_may_hold_marks_and_line_breaks(tmp_path: Path) -> None:
    for number, name in enumerate(("a,b.png", "a\nb.png")):
        image_of(0, number).save(tmp_path / name)
    dataset = table(write(tmp_path / "a.csv", "path,label", '"a,b.png",x', '"a\nb.png",y'), image_size=8)
    assert dataset.image_ids == ("a,b.png", "a\\nb.png") and dataset.class_names == ("x", "y")
    assert dataset.read(np.arange(2)).shape == (2, 8, 8, 3)


def test_damaged_tables_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.parquet").write_bytes(b"PAR1 no table")
    (tmp_path / "b.csv").write_bytes(b"path,label\n\xff\xfe.png,a\n")
    for name in ("a.parquet", "b.csv"):
        with pytest.raises(UserError, match=f"{name} cannot be read"):
            table(str(tmp_path / name))
