"""Each form of data that people have, through `lurefs evaluate DATA` and `lurefs init DATA`."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import forms
from lurefs.cli import main
from lurefs.config.load import load

Make = Callable[[Path], Path | str]
FORMS: dict[str, Make] = {
    "folder": lambda root: forms.write_folders(root / "photos"),
    "csv": lambda root: forms.write_table(root / "list.csv"),
    "parquet": lambda root: forms.write_table(root / "list.parquet"),
    "three_lists": lambda root: forms.write_three_lists(root / "mini"),
    "tar": lambda root: forms.write_archive(root / "packed.tar"),
    "zip": lambda root: forms.write_archive(root / "packed.zip"),
    "shards": lambda root: forms.write_shards(root / "shards"),
    "saved": lambda root: forms.write_saved(root / "saved"),
    "parquet_bytes": lambda root: forms.write_parquet_bytes(root / "hub"),
    "idx": lambda root: forms.write_idx(root / "mnist"),
    "npz": lambda root: forms.write_npz(root / "images.npz"),
}


@pytest.fixture(params=FORMS)
def data(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(FORMS[request.param](tmp_path))


def test_every_form_is_planned_and_its_recipe_means_the_same(
    data: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = ["dataset.params.image_size=16", "--way", "2", "--shots", "1", "--backbone", "test_resnet"]
    main(["evaluate", data, *settings, "--run-dir", str(tmp_path / "out"), "backbone.pretrained=false", "--dry-run"])
    said = capsys.readouterr().out
    n_novel = 2 if "three" in data or "mini" in data else 6
    assert f"0 validation and {n_novel} novel classes" in said or "1 validation and 2 novel classes" in said
    assert "2way-1shot: 2000 episodes" in said
    main(["init", data, *settings, "--output", str(tmp_path / "recipe.yaml")])
    (run,) = load(str(tmp_path / "recipe.yaml")).runs.values()
    assert run.dataset.params["image_size"] == 16
    assert run.frozen


@pytest.mark.parametrize("name", FORMS)
def test_every_form_is_measured(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--backbone", "test_resnet", "--way", "2", "--shots", "1", "--run-dir", str(tmp_path / "out")]
    words += ["backbone.pretrained=false", "backbone.image_size=32", "benchmarks.2way-1shot.n_episodes=20"]
    words += ["controls=false", "trackers.wandb.mode=disabled", "dataset.params.image_size=16"]
    main(["evaluate", str(FORMS[name](tmp_path)), *words])
    assert "test_resnet" in capsys.readouterr().out


def failing(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    said = capsys.readouterr().err
    assert "to fix:" in said and "Traceback" not in said
    return said


def test_images_that_are_not_square_need_a_size_and_take_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    np.savez(tmp_path / "wide.npz", images=np.zeros((12, 6, 9), np.uint8), labels=np.arange(12) % 2)
    words = ["init", str(tmp_path / "wide.npz"), "--way", "2", "--shots", "1", "--output", str(tmp_path / "a.yaml")]
    assert "e.g. dataset.params.image_size=6" in failing(words, capsys)
    main([*words, "dataset.params.image_size=6"])
    assert '"image_size": 6' in (tmp_path / "a.yaml").read_text()
    assert "settings of the data set only" in failing([*words, "seed=1"], capsys)


def test_a_file_of_no_known_form_is_refused_unless_the_form_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    forms.write_npz(tmp_path / "images.npz").rename(tmp_path / "images.bin")
    (tmp_path / "notes.txt").write_text("no data")
    words = ["--way", "2", "--shots", "1", "--output", str(tmp_path / "a.yaml"), "dataset.params.image_size=8"]
    said = failing(["init", str(tmp_path / "notes.txt"), *words], capsys)
    assert "a file of no form that is recognised" in said and "dataset.name=" in said
    main(["init", str(tmp_path / "images.bin"), *words, "dataset.name=npz"])
    assert '"name": "npz"' in (tmp_path / "a.yaml").read_text()
    assert "is not an .npz file" in failing(["init", str(tmp_path / "notes.txt"), *words, "dataset.name=npz"], capsys)


def test_a_name_that_is_no_text_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "is no text in UTF-8" in failing(["init", str(tmp_path / "caf\udce9")], capsys)


def test_a_factory_of_another_type_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.yaml").write_text("name: a\ndataset: {name: 'argparse:Namespace', params: {path: x}}\n")
    said = failing(["run", str(tmp_path / "a.yaml"), "--dry-run", "--allow-code"], capsys)
    assert f"'argparse:Namespace' returned argparse.{argparse.Namespace.__name__}" in said
    assert "lurefs.data.dataset.ImageDataset" in said
