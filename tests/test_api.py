"""lurefs from Python."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch

import lurefs
from lurefs import UserError
from lurefs.cli import main
from lurefs.config.schema import RunConfig
from lurefs.data.dataset import ImageDataset
from lurefs.data.folder import folder
from lurefs.learning.backbones import build_backbone
from lurefs.records import to_mapping
from lurefs.runs.directory import RunDirectory
from lurefs.stages import run as stages

BENCHMARK, PROBE = "novel-3way-1shot", "logistic_regression"


@pytest.fixture
def recipe(make_config: Callable[..., RunConfig]) -> dict[str, Any]:
    """Two variants with two seeds each."""
    plain: dict[str, Any] = to_mapping(make_config(chunks={"n_chunks": 2}))
    del plain["seed"]
    return plain | {"seeds": [0, 1], "variants": {"lure": {}, "warm": {"unlearn": {"name": "nothing"}}}}


def test_importing_lurefs_loads_no_library() -> None:
    heavy = ("numpy", "torch", "timm", "sklearn", "matplotlib", "omegaconf", "wandb")
    code = f"import sys, lurefs; print([name for name in {heavy} if name in sys.modules], 'run' in dir(lurefs))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "[] True\n"
    with pytest.raises(AttributeError, match="has no attribute 'runs_all'"):
        lurefs.runs_all  # noqa: B018


def test_a_recipe_gives_the_files_and_the_tables_of_the_command(
    recipe: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import yaml

    monkeypatch.chdir(tmp_path)
    results = lurefs.run(recipe, {"learner.epochs": 1, "learner": {"batch_size": 8}})
    assert results.folder == Path("runs/small") and not results.failures
    assert [run.config.learner.epochs for run in results.runs] == [1] * 4
    assert results.runs[0].config.learner.batch_size == 8

    Path("recipe.yaml").write_text(yaml.safe_dump(recipe))
    capsys.readouterr()
    main(["run", "recipe.yaml", "--run-dir", "runs/small", "learner.epochs=1", "learner.batch_size=8"])
    said = capsys.readouterr()
    assert "finished, nothing to do" in said.err
    tables, last = repr(results).rsplit("\n", 1)
    assert said.out.startswith(tables.split("What it costs")[0])
    assert last == "page: runs/small/report.html" and (tmp_path / "runs/small/report.html").is_file()

    monkeypatch.setattr(stages, "run_stage", None)  # nothing is computed again
    again = lurefs.run(Path("recipe.yaml"), ["learner.epochs=1", "learner.batch_size=8"])
    assert again.records("groups") == results.records("groups") == lurefs.compare("runs/small").records("groups")


def test_one_configuration_gives_one_run(make_config: Callable[..., RunConfig], tmp_path: Path) -> None:
    n_threads = torch.get_num_threads() + 1
    torch.set_num_threads(n_threads)
    try:
        results = lurefs.run(make_config(), run_dir=str(tmp_path / "one"), n_workers=1)
        assert torch.get_num_threads() == n_threads
    finally:
        torch.set_num_threads(n_threads - 1)
    assert RunDirectory(tmp_path / "one").read_config() == make_config()
    assert [run.directory.path for run in results.runs] == [tmp_path / "one"] and results.records("pairs") == []
    with pytest.raises(UserError, match="holds a run of another configuration"):
        lurefs.run(make_config(), {"chunks.n_chunks": 4}, run_dir=tmp_path / "one")


def test_a_script_without_a_guard_starts_its_runs_once(tmp_path: Path, npz_path: Path) -> None:
    script = f"""
import lurefs
print("the script")
recipe = {{
    "name": "small", "controls": False, "trackers": {{"wandb": {{"mode": "disabled"}}}}, "seeds": [0, 1],
    "dataset": {{"name": "npz", "params": {{"path": {str(npz_path)!r}}}}},
    "class_split": {{"base": 0.5, "validation": 0.0, "novel": 0.5}}, "chunks": {{"n_chunks": 2}},
    "backbone": {{"name": "test_byobnet", "image_size": 32}}, "learner": {{"epochs": 1, "batch_size": 16}},
    "benchmarks": {{"3way": {{"n_way": 3, "n_shot": 1, "n_query": 5, "n_episodes": 10}}}},
    "variants": {{"good": {{}}, "bad": {{"learner": {{"optimizer": {{"name": "sgd", "params": {{"lr": 1e3}}}}}}}}}},
}}
results = lurefs.run(recipe, n_workers=2)
print(sorted(run.label for run in results.runs), sorted(results.failures))
"""
    (tmp_path / "script.py").write_text(script)
    done = subprocess.run([sys.executable, "script.py"], cwd=tmp_path, capture_output=True, text=True)
    assert done.stdout.splitlines() == [
        "the script",
        "['good--seed-0', 'good--seed-1'] ['bad--seed-0', 'bad--seed-1']",
    ], done.stderr


def test_threads_take_turns(make_config: Callable[..., RunConfig], tmp_path: Path) -> None:
    found: dict[int, Any] = {}

    def go(place: int, seed: int) -> None:
        results = lurefs.run(make_config(), {"seed": seed, "learner.epochs": 1}, run_dir=tmp_path / f"run-{place}")
        found[place] = results.records()[0]["accuracy"]

    threads = [threading.Thread(target=go, args=(place, place // 2)) for place in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found[0] == found[1] != found[2] == found[3]


def test_photos_are_measured_by_frozen_backbones(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(photos.parent)
    settings = {"backbone": {"pretrained": False, "image_size": 32}, "benchmarks.3way-1shot.n_episodes": 20}
    settings |= {"trackers.wandb.mode": "disabled", "controls": False}
    results = lurefs.evaluate(
        "my photos", ["test_resnet", "test_byobnet"], settings, shots=1, way=3, run_dir=tmp_path / "out"
    )
    assert [row["run"] for row in results.records()] == ["test_resnet", "test_byobnet"]
    assert {row["strategy"] for row in results.records()} == {None}
    (pair,) = results.records("pairs")
    assert pair["difference"] == pytest.approx(np.subtract(*[row["accuracy"] for row in results.records()][::-1]))

    run = results.runs[0]
    bank = lurefs.embed({"name": "test_resnet", "image_size": 32}, folder("my photos"))
    stored = run.directory.read_bank("3way-1shot")
    assert stored.class_names == bank.class_names and np.array_equal(stored.labels, bank.labels)
    assert np.allclose(stored.features, bank.features, atol=1e-4)


@pytest.mark.parametrize("changes", [{}, {"in_chans": 1}, {"num_classes": 0}])
def test_a_given_model_is_embedded_and_not_changed(changes: dict[str, Any], photos: Path) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = timm.create_model("test_resnet", **changes)
    model.train()
    model.layer1.eval()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    images = np.random.default_rng(0).integers(0, 256, (9, 32, 32, 3), dtype=np.uint8)
    bank = lurefs.embed(model, images, list("bca" * 3), image_size=32, batch_size=4)
    assert bank.features.shape == (9, 96) and bank.class_names == ("a", "b", "c")
    assert bank.labels.tolist() == [1, 2, 0] * 3
    assert model.training and model.layer2.training and not model.layer1.training
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    one_by_one = [lurefs.embed(model, image[None], image_size=32).features[0] for image in images]
    assert np.allclose(bank.features, one_by_one, atol=1e-4)
    assert lurefs.embed(model, photos, image_size=32).features.shape == (48, 96)


def test_a_backbone_and_a_data_set_are_taken_as_they_are(make_dataset: Callable[..., ImageDataset]) -> None:
    from lurefs.config.learning_schema import BackboneConfig

    dataset = make_dataset()
    backbone = build_backbone(
        BackboneConfig(name="test_vit"), n_classes=2, n_channels=1, image_size=dataset.image_size * 4, seed=0
    )
    bank = lurefs.embed(backbone, dataset)
    assert bank.image_ids == dataset.image_ids and bank.identity["backbone"]["image_size"] == 32
    assert "120 images of 6 classes, 64 features" in repr(bank)


IMAGES = np.zeros((4, 8, 8, 3), np.uint8)
NAMED = {"name": "test_vit", "image_size": 32}


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: lurefs.run("quikstart"), "did you mean 'quickstart'"),
        (lambda: lurefs.run({"learnr": {}}), "unknown key 'learnr'"),
        (lambda: lurefs.run({"learner": {"epochs": {1}}}), "the recipe holds a set: {1}"),
        (lambda: lurefs.run("smoke", {"learner.epoch": 1}), "did you mean 'learner.epochs'"),
        (lambda: lurefs.run("smoke", "seed=1"), r"write .* or \['learner.epochs=2'\]"),
        (lambda: lurefs.run(3), "the recipe is a int"),
        (lambda: lurefs.run("smoke", n_workers=0), "n_workers is 0"),
        (lambda: lurefs.evaluate("nowhere", "resnet18"), "there is no folder or file nowhere"),
        (lambda: lurefs.evaluate("digits", "test_vit", shots=0), "shots is '0'"),
        (lambda: lurefs.compare([]), "there is no run to compare"),
        (lambda: lurefs.compare("nowhere"), "nowhere is no directory"),
        (lambda: lurefs.embed("resnet_18", IMAGES), "did you mean 'resnet18'"),
        (lambda: lurefs.embed({"nam": "resnet18"}, IMAGES), "did you mean 'backbone.name'"),
        (lambda: lurefs.embed(torch.nn.Linear(2, 2), IMAGES), "a Linear without forward_features"),
        (lambda: lurefs.embed(None, IMAGES), "the model is a NoneType"),
        (lambda: lurefs.embed(NAMED, IMAGES / 255), "type float64"),
        (lambda: lurefs.embed(NAMED, IMAGES.transpose(0, 3, 1, 2)), r"shape \(4, 3, 8, 8\)"),
        (lambda: lurefs.embed(NAMED, IMAGES[:, 1:]), "put channels last, .* or crop to squares"),
        (lambda: lurefs.embed(NAMED, IMAGES[:0]), r"shape \(0, 8, 8, 3\)"),
        (lambda: lurefs.embed(NAMED, IMAGES, [0, 1]), "one label per image"),
        (lambda: lurefs.embed(NAMED, "digits", [0, 1]), "labels only for an array"),
        (lambda: lurefs.embed(timm.create_model("test_vit"), IMAGES, image_size=0), "image_size is 0"),
        (lambda: lurefs.embed(NAMED, IMAGES, batch_size=0), "batch_size is 0"),
        (lambda: lurefs.embed(NAMED, IMAGES, device="tpu"), "device 'tpu' cannot be used"),
    ],
)
def test_mistakes_are_answered_in_three_parts(
    call: Callable[[], object], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=said) as caught:
        call()
    assert str(caught.value).count("\n") == 2
    assert list(tmp_path.iterdir()) == []


def test_processes_of_torchrun_are_sent_to_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match="torchrun -m lurefs run"):
        lurefs.run("smoke")
