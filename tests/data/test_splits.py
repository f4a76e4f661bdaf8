from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lurefs.config.schema import ClassSplitConfig, ImageSplitConfig
from lurefs.data.dataset import ImageDataset
from lurefs.data.splits import split_classes, split_images
from lurefs.errors import UserError

MakeDataset = Callable[..., ImageDataset]


def test_shares_divide_all_classes_without_overlap(make_dataset: MakeDataset) -> None:
    split = split_classes(make_dataset(n_classes=20), ClassSplitConfig(base=0.5, validation=0.2, novel=0.3))
    assert [len(split.base), len(split.validation), len(split.novel)] == [10, 4, 6]
    assert sorted([*split.base, *split.validation, *split.novel]) == list(range(20))


def test_the_draw_does_not_depend_on_the_order_of_the_classes(make_dataset: MakeDataset) -> None:
    dataset = make_dataset(n_classes=10)
    turned = replace(dataset, class_names=dataset.class_names[::-1])
    one, other = (split_classes(data, ClassSplitConfig(seed=3)) for data in (dataset, turned))
    assert {dataset.class_names[label] for label in one.base} == {turned.class_names[label] for label in other.base}


def test_another_seed_draws_other_classes(make_dataset: MakeDataset) -> None:
    dataset = make_dataset(n_classes=20)
    one, other = (split_classes(dataset, ClassSplitConfig(seed=seed)) for seed in (0, 1))
    assert one.base.tolist() != other.base.tolist()


def test_lists_and_a_file_give_the_same_split(make_dataset: MakeDataset, tmp_path: Path) -> None:
    lists = {"base": ["class-4", "class-0"], "validation": [], "novel": ["class-2"]}
    (tmp_path / "split.json").write_text(json.dumps(lists))
    for config in (ClassSplitConfig(**lists), ClassSplitConfig(file=str(tmp_path / "split.json"))):  # type: ignore[arg-type]
        split = split_classes(make_dataset(), config)
        assert (split.base.tolist(), split.validation.tolist(), split.novel.tolist()) == ([0, 4], [], [2])


@pytest.mark.parametrize(
    ("lists", "words"),
    [
        ({"base": ["class-0", "class-1"], "validation": [], "novel": ["class-1"]}, "listed under base and novel"),
        ({"base": ["class-0", "clas-1"], "validation": [], "novel": []}, "did you mean 'class-1'?"),
        ({"base": ["class-0"], "validation": [], "novel": []}, "leaves 1 base classes"),
    ],
)
def test_wrong_lists_are_refused(make_dataset: MakeDataset, lists: dict[str, list[str]], words: str) -> None:
    with pytest.raises(UserError, match=words.replace("?", r"\?")):
        split_classes(make_dataset(), ClassSplitConfig(**lists))  # type: ignore[arg-type]


def test_names_of_digits_are_read_as_they_are_written(make_dataset: MakeDataset, tmp_path: Path) -> None:
    dataset = replace(make_dataset(), class_names=("010", "0x1", "1e3", "08", "null", "yes"))
    (tmp_path / "split.yaml").write_text("base: [010, 0x1, 1e3]\nvalidation: [08]\nnovel: [null, yes]\n")
    split = split_classes(dataset, ClassSplitConfig(file=str(tmp_path / "split.yaml")))
    assert [dataset.class_names[label] for label in split.base] == ["010", "0x1", "1e3"]
    assert [dataset.class_names[label] for label in split.novel] == ["null", "yes"]


def test_a_file_without_the_three_lists_is_refused(make_dataset: MakeDataset, tmp_path: Path) -> None:
    (tmp_path / "split.json").write_text('{"base": ["class-0"]}')
    with pytest.raises(UserError, match="does not hold a class split"):
        split_classes(make_dataset(), ClassSplitConfig(file=str(tmp_path / "split.json")))


def test_images_are_divided_class_by_class(make_dataset: MakeDataset) -> None:
    dataset = make_dataset(n_per_class=20)
    split = split_images(dataset, np.array([1, 3]), ImageSplitConfig(val=0.1, test=0.2))
    for rows, n_per_class in ((split.train, 14), (split.val, 2), (split.test, 4)):
        assert np.bincount(dataset.labels[rows]).tolist() == [0, n_per_class, 0, n_per_class]
    assert len({*split.train, *split.val, *split.test}) == 40


def test_images_of_a_class_are_divided_alike_whatever_other_classes_there_are(make_dataset: MakeDataset) -> None:
    dataset = make_dataset()
    one = split_images(dataset, np.array([1]), ImageSplitConfig())
    two = split_images(dataset, np.array([1, 2]), ImageSplitConfig())
    assert one.test.tolist() == [row for row in two.test if dataset.labels[row] == 1]


def test_a_class_with_too_few_images_is_named(make_dataset: MakeDataset) -> None:
    with pytest.raises(UserError, match="'class-0' has 2 images"):
        split_images(make_dataset(n_per_class=2), np.array([0, 1]), ImageSplitConfig())


@pytest.mark.parametrize(
    "files",
    [
        {"split.yaml": "train: [class-4, class-0]\nval: []\ntest: [class-2]\n"},
        {"split.yaml": "train: [class-4, class-0]\ntest: [class-2]\n"},
        {"split.csv": "class,split\nclass-4,train\nclass-0,base\nclass-2,Test\n"},
        {"split.tsv": "label\tset\nclass-4\tmeta-train\nclass-0\tmeta-train\nclass-2\tnovel\n"},
        {"train.csv": "filename,label\na.jpg,class-4\nb.jpg,class-4\nc.jpg,class-0\n", "test.csv": "label\nclass-2\n"},
    ],
)
def test_a_split_file_may_speak_of_train_val_and_test(
    make_dataset: MakeDataset, tmp_path: Path, files: dict[str, str]
) -> None:
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    for path in (tmp_path / next(iter(files)), *([tmp_path] if len(files) > 1 else [])):
        split = split_classes(make_dataset(), ClassSplitConfig(file=str(path)))
        assert (split.base.tolist(), split.validation.tolist(), split.novel.tolist()) == ([0, 4], [], [2])


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.yaml", "train: [class-0, class-1]\n"),
        ("a.yaml", "train: [class-0]\nbase: [class-1]\nnovel: []\n"),
        ("a.yaml", "train: [class-0]\nother: [class-1]\nnovel: []\n"),
        ("a.csv", "name,split\nclass-0,train\n"),
        ("a.csv", "label,split\nclass-0,train\nclass-1,fold 3\n"),
        ("a.csv", "label\nclass-0\n"),
        ("a.csv", ""),
    ],
)
def test_files_of_something_else_are_refused(make_dataset: MakeDataset, tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(UserError, match="does not hold a class split"):
        split_classes(make_dataset(), ClassSplitConfig(file=str(tmp_path / name)))


def test_a_split_of_the_data_is_used_unless_the_recipe_sets_one(make_dataset: MakeDataset) -> None:
    own = {"base": ("class-1", "class-3"), "validation": ("class-0",), "novel": ("class-2",)}
    dataset = replace(make_dataset(), class_split=own)
    for config in (ClassSplitConfig(), ClassSplitConfig(base=0.0, validation=0.0, novel=1.0)):
        split = split_classes(dataset, config)
        assert (split.base.tolist(), split.validation.tolist(), split.novel.tolist()) == ([1, 3], [0], [2])
    assert len(split_classes(dataset, ClassSplitConfig(base=0.5, validation=0.0, novel=0.5)).base) == 3


def test_images_that_the_data_hold_out_stay_held_out(make_dataset: MakeDataset) -> None:
    dataset = make_dataset(n_per_class=20)
    parts = np.zeros(len(dataset), np.int64)
    parts[15:20], parts[20:24] = 2, 1  # five test images of class 0; four validation images of class 1
    split = split_images(replace(dataset, parts=parts), np.array([0, 1]), ImageSplitConfig(val=0.2, test=0.25))
    assert split.test[split.test < 20].tolist() == [15, 16, 17, 18, 19]
    assert split.val[split.val >= 20].tolist() == [20, 21, 22, 23]
    assert (len(split.val), len(split.test), len(split.train)) == (3 + 4, 5 + 4, 12 + 12)
    assert sorted([*split.train, *split.val, *split.test]) == list(range(40))


def test_a_class_that_the_data_only_test_is_refused_as_a_base_class(make_dataset: MakeDataset) -> None:
    parts = np.full(120, 2)
    with pytest.raises(UserError, match="'class-0' has 20 images, of which the data leave 0 for training"):
        split_images(replace(make_dataset(), parts=parts), np.array([0]), ImageSplitConfig())
