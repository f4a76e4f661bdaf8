"""How far features differ between images, and what is said where they hardly do."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from episodes import bank
from episodes.bank import NEARLY_CONSTANT, FeatureBank
from lurefs.comparing.finished_runs import Run
from lurefs.comparing.texts import constancy
from lurefs.config.learning_schema import BackboneConfig
from lurefs.config.schema import RunConfig
from lurefs.data.dataset import ImageDataset
from lurefs.learning.backbones import build_backbone
from lurefs.reporting.sections import narrative
from lurefs.runs.directory import RunDirectory
from lurefs.stages.features import embed_batches
from lurefs.stages.plan import choose_images, make_plan
from lurefs.stages.run import run_stage
from made_up_runs import benchmark, control, run_in_memory


def spread_of(features: list[list[float]]) -> float:
    return FeatureBank.from_arrays(np.array(features), np.zeros(len(features))).spread


def test_the_spread_by_hand() -> None:
    """The mean is (3, 0), both images are 1 from it, and their lengths are 4 and 2."""
    assert spread_of([[4.0, 0.0], [2.0, 0.0]]) == pytest.approx((1 / 10) ** 0.5)


def test_features_that_all_images_share_have_none_and_centred_ones_have_one() -> None:
    assert spread_of([[0.1, 0.3]] * 7) == pytest.approx(0.0, abs=1e-15)
    assert spread_of([[0.0, 0.0]] * 3) == 0.0
    assert spread_of([[5.0, 1.0]]) == 0.0
    assert spread_of([[1.0, -2.0], [-1.0, 2.0]]) == 1.0


def test_a_small_spread_is_not_lost_to_rounding() -> None:
    step = 2.0**-20
    assert spread_of([[1 + step], [1 - step]]) == pytest.approx(step, rel=1e-6)


def test_the_spread_does_not_depend_on_how_many_rows_are_read_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    features = np.random.default_rng(0).normal(1, 1, (50, 3))
    whole = FeatureBank.from_arrays(features, np.zeros(50)).spread
    monkeypatch.setattr(bank, "_ROWS_AT_ONCE", 7)
    assert FeatureBank.from_arrays(features, np.zeros(50)).spread == pytest.approx(whole, rel=1e-12)


@pytest.mark.parametrize(
    ("spread", "words"),
    [
        (0.0, "constant: all images have the same"),
        (5e-8, "constant: they differ between images by 5e-08 of their length"),
        (3e-7, "nearly constant: they differ between images by 3e-07 of their length"),
        (9e-6, "nearly constant"),
    ],
)
def test_features_that_single_precision_hardly_tells_apart_are_named(spread: float, words: str) -> None:
    assert constancy(spread).startswith(words)


@pytest.mark.parametrize("spread", [NEARLY_CONSTANT, 0.16, 1.0, None, float("nan")])
def test_others_and_those_that_are_not_known_are_not(spread: float | None) -> None:
    assert constancy(spread) == ""


def on_white(images: np.ndarray) -> np.ndarray:
    """Return drawings that leave the corner blank, the one place that untrained residual networks such as RegNets read.

    Their residual branches begin at zero, and the shortcuts that are left stride over all but the first position.
    """
    images = images.copy()
    images[:, :3, :3] = 255
    return images


@pytest.mark.parametrize(
    ("name", "is_constant"),
    [
        ("test_resnet", False),
        ("test_byobnet", False),
        ("test_efficientnet", False),
        ("test_convnext", False),
        ("test_nfnet", False),
        ("test_vit", False),
        ("regnetx_002", True),
        ("regnety_002", True),
        ("repvgg_a0", True),
    ],
)
def test_untrained_backbones_are_named_only_where_their_features_are_constant(
    name: str, is_constant: bool, make_dataset: Callable[..., ImageDataset], make_config: Callable[..., RunConfig]
) -> None:
    plan = make_plan(make_config())
    dataset = make_dataset(n_classes=8, n_per_class=24)
    dataset = replace(dataset, read=lambda rows, read=dataset.read: on_white(read(rows)))  # type: ignore[misc]
    config = make_config().benchmarks["novel-3way-1shot"]
    images = choose_images("novel", config, dataset, plan.classes, plan.images, plan.config)
    build = BackboneConfig(name=name, image_size=32)
    backbone = build_backbone(build, n_classes=4, n_channels=1, image_size=8, seed=0)
    features = np.concatenate(list(embed_batches(backbone, images, 512, range(1))))
    assert bool(constancy(FeatureBank.from_arrays(features, images.labels).spread)) == is_constant


def test_a_run_stores_its_spread_and_says_that_it_is_none(
    make_config: Callable[..., RunConfig], npz_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with np.load(npz_path) as stored:
        np.savez(tmp_path / "drawings.npz", images=on_white(stored["images"]), labels=stored["labels"])
    config = make_config(
        dataset={"name": "npz", "params": {"path": str(tmp_path / "drawings.npz")}},
        backbone={"name": "regnetx_002", "image_size": 32},
        chunks={"n_chunks": 1},
        learner={
            "epochs": 1,
            "batch_size": 16,
            "augment": {"crop_padding": 0},
            "optimizer": {"name": "sgd", "params": {"lr": 1e-9}},
        },
        after_chunk={"few_shot": False},
        controls=True,
    )
    directory = RunDirectory(tmp_path / "run")
    run_stage(make_plan(config), directory, "run")
    described = directory.read_summary().benchmarks["novel-3way-1shot"]
    spreads = {name: control.feature_spread or 0 for name, control in described.controls.items()}
    assert described.feature_spread < NEARLY_CONSTANT
    assert spreads["untrained_twin"] < NEARLY_CONSTANT
    assert spreads["image_statistics"] > 0.01
    said = capsys.readouterr().err
    assert "the features of small on the images of novel-3way-1shot are" in said
    assert "the features of the control 'untrained twin' on the images of novel-3way-1shot are constant" in said
    assert "the control “untrained twin” of small" in directory.report_path.read_text(encoding="utf-8")


def test_the_page_says_whose_features_are_constant_in_one_sentence_a_reason(
    make_config: Callable[..., RunConfig],
) -> None:
    def run(label: str, spread: float, of_twin: float) -> Run:
        found = benchmark({}, feature_spread=spread, controls={"untrained_twin": control({}, of_twin)})
        return run_in_memory(make_config(), {"novel": found}, label=label)

    notes = narrative.notes([run("a", 0.0, 0.0), run("b", 0.0, 0.2), run("c", 2e-6, 0.3)], "novel", [])
    assert [note.partition(":")[0] for note in notes] == [
        "The features of a, the control “untrained twin” of a and b are constant",
        "The features of c are nearly constant",
    ]
    assert narrative.notes([run("a", 0.5, 0.3)], "novel", []) == []
