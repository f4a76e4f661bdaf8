"""`lurefs evaluate features.npz`: runs on features that another program made."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import lurefs
from episodes.bank import FeatureBank
from lurefs.cli import main, parse
from lurefs.commands import frozen
from lurefs.config.load import load, run_config
from lurefs.errors import UserError
from lurefs.runs.directory import RunDirectory
from lurefs.stages import stage

LABELS = np.repeat(np.arange(6), 8)
CENTRES = np.random.default_rng(0).normal(size=(6, 5))
QUICK = ["--shots", "1", "--way", "3", "benchmarks.3way-1shot.n_episodes=30", "trackers.wandb.mode=disabled"]
SETTINGS = {"benchmarks.3way-1shot.n_episodes": 30, "trackers.wandb.mode": "disabled"}


def noisy(noise: float) -> np.ndarray:
    return CENTRES[LABELS] + noise * np.random.default_rng(1).normal(size=(48, 5))


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """Two files of features of the same images; none may need a backbone."""

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a backbone is built")

    monkeypatch.setattr(stage, "build_backbone", refuse)  # modules that are imported now keep plan_backbone
    for name, noise in (("near", 0.5), ("far", 5.0)):
        np.savez(tmp_path / f"{name}.npz", features=noisy(noise), labels=LABELS)
    return tmp_path / "near.npz", tmp_path / "far.npz"


def test_files_are_compared_on_the_same_episodes_without_a_backbone(
    files: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root, words = tmp_path / "out", [str(file) for file in files]
    main(["evaluate", *words, "--run-dir", str(root), *QUICK])
    said = capsys.readouterr()
    assert "difference from near, points" in said.out and "there are no controls" in said.err
    near, far = (RunDirectory(root / name) for name in ("near", "far"))
    assert near.read_manifest("3way-1shot").hash == far.read_manifest("3way-1shot").hash
    accuracies = [
        run.read_summary().benchmarks["3way-1shot"].probes["logistic_regression"].accuracy.mean for run in (near, far)
    ]
    assert accuracies[0] > 0.9 > accuracies[1]
    assert near.read_identity()["backbone"] == {"name": "near", "n_features": 5}
    page = (root / "report.html").read_text()
    assert "features of a file, so there is no model and no control" in page and "older than" not in page

    main(["evaluate", *words, "--run-dir", str(root), *QUICK])
    assert "finished, nothing to do" in capsys.readouterr().err
    np.savez(files[0], features=noisy(0.6), labels=LABELS)
    with pytest.raises(SystemExit):
        main(["evaluate", *words, "--run-dir", str(root), *QUICK])
    assert "another configuration: files of the data set were added, deleted or replaced" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["near.npz", "other.npz"], "are not of the same images: 48 images and 47"),
        (["near.npz", "digits"], "digits holds no features"),
        (["digits", "near.npz"], "images from one place, or several files of features"),
        (["near.npz", "--backbone", "resnet18"], "--backbone is given for features"),
        (["near.npz", "--way", "7"], "7-way episodes are wanted, and there are"),
        (["near.npz", "--shots", "8"], "has 8 images, too few for 8 shots and a query"),
        (["near.npz", "near.npz"], "do not differ in their names"),
        (["near.npz", "backbone.pretrained=true"], "backbone has settings other than its name"),
        (["near.npz", "frozen=false"], "frozen is false"),
        (["near.npz", "dataset.name=folder"], "near.npz holds features, and dataset.name is 'folder'"),
        (["near.npz", "benchmarks.5way-1shot.dataset.name=digits"], "features in all parts of a run"),
        (["near.npz", "probes.logistic_regression.name=fine_tuning"], "is fine-tuned"),
    ],
)
def test_what_does_not_suit_features_is_refused_before_anything_is_written(
    words: list[str],
    said: str,
    files: tuple[Path, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    np.savez("other.npz", features=noisy(1)[1:], labels=LABELS[1:])
    with pytest.raises(SystemExit) as caught:
        main(["evaluate", *words])
    error = capsys.readouterr().err
    assert caught.value.code == 2 and said in error and "to fix:" in error
    assert not (tmp_path / "runs").exists()


def test_a_written_recipe_of_several_files_means_what_evaluate_does(
    files: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["near.npz", "far.npz", "--way", "3"]
    main(["init", *words])
    parsed = parse(["evaluate", "--way", "3"])
    parsed.data, parsed.others = "near.npz", ["far.npz"]
    group, root = frozen.frozen_group(parsed)
    assert load("features.yaml") == group
    assert (list(group.runs), root) == (["near", "far"], Path("runs/features"))
    np.savez("other.npz", features=noisy(1)[1:], labels=LABELS[1:])
    for more, said in (("other.npz", "not of the same images"), ("digits", "digits holds no features")):
        with pytest.raises(SystemExit) as caught:
            main(["init", "near.npz", more, "--output", "more.yaml"])
        assert caught.value.code == 2 and said in capsys.readouterr().err
    assert not Path("more.yaml").exists()


def test_features_in_memory_are_evaluated_and_stay_with_the_results(tmp_path: Path) -> None:
    banks = {name: FeatureBank.from_arrays(noisy(noise), LABELS) for name, noise in (("near", 0.5), ("far", 5.0))}
    found = lurefs.evaluate(banks, settings=SETTINGS, shots=1, way=3, run_dir=tmp_path / "banks")
    assert [run.label for run in found.runs] == ["near", "far"]
    assert (tmp_path / "banks" / "given" / "near.npz").is_file()
    lurefs.evaluate(noisy(0.5), settings=SETTINGS, labels=LABELS, shots=1, way=3, run_dir=tmp_path / "array")
    with pytest.raises(UserError, match="9-way episodes are wanted"):
        lurefs.evaluate(noisy(0.5), labels=LABELS, way=9, run_dir=tmp_path / "refused")
    with pytest.raises(UserError, match="zeros only"):
        lurefs.evaluate(0 * noisy(0.5), labels=LABELS, run_dir=tmp_path / "refused")
    assert not (tmp_path / "refused").exists()


def test_a_recipe_names_the_backbone_after_the_file_unless_it_says_more(tmp_path: Path) -> None:
    values = {"name": "mine", "frozen": True, "dataset": {"name": "features", "params": {"path": "some/vit.npz"}}}
    assert run_config(values).backbone.name == "vit" and not run_config(values).controls
    assert run_config(values | {"backbone": {"name": "dino"}}).backbone.name == "dino"
