"""The controls stand in every run, on the episodes of the run, and are computed once."""

from __future__ import annotations

import importlib
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from episodes.bank import FeatureBank
from episodes.scoring import score
from episodes.table import EpisodeTable, collect
from lurefs.config.load import run_config
from lurefs.errors import UserError
from lurefs.records import to_mapping
from lurefs.runs.directory import RunDirectory
from lurefs.stages import controls
from lurefs.stages.plan import ImageSet, make_plan
from lurefs.stages.run import run_stage
from lurefs.stages.stage import make_probe, plan_backbone, reference_images

BENCHMARK = "novel-3way-1shot"
PROBE = "logistic_regression"


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the features of every test in it, rather than take those of an earlier one."""
    monkeypatch.setenv("LUREFS_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    """One run of one chunk with its controls, that no test changes."""
    folder = tmp_path_factory.mktemp("controls")
    labels = np.repeat(np.arange(8), 24)
    noise = np.random.default_rng(0).integers(0, 40, (192, 8, 8))
    np.savez(folder / "images.npz", images=(labels[:, None, None] * 26 + noise).astype(np.uint8), labels=labels)
    config = run_config(
        {
            "name": "small",
            "dataset": {"name": "npz", "params": {"path": str(folder / "images.npz")}},
            "class_split": {"base": 0.5, "validation": 0.0, "novel": 0.5},
            "chunks": {"n_chunks": 1},
            "backbone": {"name": "test_byobnet", "image_size": 32},
            "learner": {"epochs": 1, "batch_size": 16},
            "benchmarks": {BENCHMARK: {"n_way": 3, "n_shot": 1, "n_query": 5, "n_episodes": 20}},
            "probes": {PROBE: {}, "centroid": {"name": "nearest_centroid"}},
            "after_chunk": {"few_shot": False},
            "trackers": {"wandb": {"mode": "disabled"}},
        }
    )
    directory = RunDirectory(folder / "run")
    run_stage(make_plan(config), directory, "run")
    return directory


@pytest.fixture
def directory(finished: RunDirectory, tmp_path: Path) -> RunDirectory:
    """A copy of that run."""
    return RunDirectory(shutil.copytree(finished.path, tmp_path / "run"))


def evaluate_again(directory: RunDirectory, **changes: Any) -> None:
    plan = make_plan(run_config({**to_mapping(directory.read_config()), **changes}))
    for stage in ("extract", "evaluate"):
        run_stage(plan, directory, stage)


def test_image_statistics_of_one_image_by_hand() -> None:
    image = np.zeros((1, 16, 16, 3), dtype=np.uint8)
    image[0, :2, :2, 1] = 255
    image[0, 2:4, :2, 2] = 51
    features = controls.image_statistics(image)
    assert features.shape == (1, 3 * 66) and features.dtype == np.float32
    grid, mean, std = np.split(features[0], [192, 195])
    assert grid.reshape(3, 8, 8)[1, 0, 0] == 1 and grid.reshape(3, 8, 8)[2, 1, 0] == pytest.approx(0.2)
    assert np.count_nonzero(grid) == 2
    assert mean.tolist() == pytest.approx([0, 4 / 256, 0.2 * 4 / 256])
    assert std[1] == pytest.approx(np.sqrt(4 / 256 * 252 / 256))


@pytest.mark.parametrize("size", [5, 8, 11, 32])
def test_image_statistics_have_one_length_for_every_image_size(size: int) -> None:
    images = np.full((2, size, size, 1), 102, dtype=np.uint8)
    features = controls.image_statistics(images)
    assert features.shape == (2, 66)
    np.testing.assert_allclose(features[:, :65], 0.4, rtol=1e-6)
    np.testing.assert_allclose(features[:, 65], 0, atol=1e-6)


def test_both_controls_stand_in_the_summary_with_the_fields_of_a_probe(finished: RunDirectory) -> None:
    described = finished.read_summary().benchmarks[BENCHMARK]
    assert list(described.controls) == ["untrained_twin", "image_statistics"]
    for control, figures in described.controls.items():
        assert list(figures.probes) == [PROBE, "centroid"]
        accuracy = figures.probes[PROBE].accuracy
        assert accuracy is not None and accuracy.n == 20
        table = EpisodeTable.load(finished.control_path(BENCHMARK, control, PROBE))
        assert table.identity["manifest"] == described.manifest
        assert np.array_equal(table.classes, finished.read_manifest(BENCHMARK).classes)
    assert described.chance == pytest.approx(1 / 3)


def test_image_statistics_are_scored_like_any_other_features(finished: RunDirectory) -> None:
    plan = make_plan(finished.read_config())
    images = plan.benchmarks[BENCHMARK].images
    bank = FeatureBank(
        features=controls.image_statistics(images.dataset.read(images.rows)),
        labels=images.labels.copy(),
        image_ids=images.image_ids,
        class_names=images.class_names,
    )
    probe = make_probe(PROBE, plan.config.probes[PROBE])
    expected = collect(score(bank, finished.read_manifest(BENCHMARK), probe), {})
    table = EpisodeTable.load(finished.control_path(BENCHMARK, "image_statistics", PROBE))
    assert np.array_equal(table.accuracy, expected.accuracy)


def test_a_second_evaluation_computes_no_control_anew(directory: RunDirectory, monkeypatch: pytest.MonkeyPatch) -> None:
    before = directory.read_summary().benchmarks
    monkeypatch.setattr(controls, "score_cell", None)
    monkeypatch.setattr(controls, "build_twin", None)
    evaluate_again(directory)
    assert directory.read_summary().benchmarks == before


def test_other_episodes_are_measured_anew(directory: RunDirectory) -> None:
    spec = {"n_way": 3, "n_shot": 1, "n_query": 5, "n_episodes": 12}
    evaluate_again(directory, benchmarks={BENCHMARK: spec})
    described = directory.read_summary().benchmarks[BENCHMARK]
    accuracy = described.controls["untrained_twin"].probes[PROBE].accuracy
    assert accuracy is not None and accuracy.n == 12


def test_benchmarks_on_the_same_images_share_the_features_of_the_controls(
    directory: RunDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    embedded = []
    original = controls.embed
    monkeypatch.setattr(controls, "embed", lambda *args: embedded.append(args[2].name) or original(*args))
    spec = {"n_way": 2, "n_query": 5, "n_episodes": 4}
    evaluate_again(directory, benchmarks={"a": spec, "b": {**spec, "n_shot": 2}})
    assert embedded == ["a"]
    assert set(directory.read_summary().benchmarks["b"].controls) == {"untrained_twin", "image_statistics"}


def test_transforms_are_fitted_on_the_control_s_own_base_features(directory: RunDirectory) -> None:
    evaluate_again(directory, probes={"centred": {"name": "nearest_centroid", "transform": "center,l2"}})
    plan = make_plan(directory.read_config())
    base = plan.dataset.read(plan.images.train)
    images = plan.benchmarks[BENCHMARK].images
    bank = FeatureBank(
        features=controls.image_statistics(images.dataset.read(images.rows)),
        labels=images.labels.copy(),
        image_ids=images.image_ids,
        class_names=images.class_names,
    )
    probe = make_probe("centred", plan.config.probes["centred"], controls.image_statistics(base))
    expected = collect(score(bank, directory.read_manifest(BENCHMARK), probe), {})
    table = EpisodeTable.load(directory.control_path(BENCHMARK, "image_statistics", "centred"))
    assert np.array_equal(table.accuracy, expected.accuracy)


def test_reference_features_are_made_once_a_control_and_named_by_their_own_images(
    directory: RunDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[tuple[str, str, str]] = []
    original = controls.make_bank

    def make_bank(images: ImageSet, batches: Any, identity: dict[str, Any]) -> FeatureBank:
        made.append((identity["control"], images.name, identity["images_digest"]))
        return original(images, batches, identity)

    monkeypatch.setattr(controls, "make_bank", make_bank)
    spec = {"n_way": 2, "n_query": 5, "n_episodes": 4}
    probes = {name: {"name": name, "transform": "center,l2"} for name in ("nearest_centroid", "logistic_regression")}
    evaluate_again(directory, benchmarks={"a": spec, "b": {**spec, "n_shot": 2}}, probes=probes)
    plan = make_plan(directory.read_config())
    digests = {"a": plan.benchmarks["a"].images.images_digest, "base--train": reference_images(plan).images_digest}
    assert sorted(made) == [
        (control, name, digests[name])
        for control in ("image_statistics", "untrained_twin")
        for name in ("a", "base--train")
    ]


EXECUTOR = """
calls = []

def noting():
    def run(function, shared, items):
        calls.append(len(items))
        return (function(*shared, item) for item in items)
    return run
"""


def test_controls_are_scored_where_the_executor_says(
    finished: RunDirectory, directory: RunDirectory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "noting_executor.py").write_text(EXECUTOR)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("LUREFS_ALLOW_CODE", "1")
    shutil.rmtree(directory.path / "controls")
    evaluate_again(directory, executor={"name": "noting_executor:noting"})
    assert importlib.import_module("noting_executor").calls == [1] * 4  # two controls, two probes
    for control in ("untrained_twin", "image_statistics"):
        tables = [EpisodeTable.load(run.control_path(BENCHMARK, control, PROBE)) for run in (finished, directory)]
        assert np.array_equal(tables[0].nll, tables[1].nll)
        assert tables[0].identity == tables[1].identity


def test_the_twin_has_the_build_and_other_weights_than_the_run_starts_from(
    directory: RunDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    twins = []
    original = controls.build_twin
    monkeypatch.setattr(
        controls, "build_twin", lambda *args, **seed: twins.append(original(*args, **seed)) or twins[-1]
    )
    shutil.rmtree(directory.path / "controls")
    evaluate_again(directory)
    initial = plan_backbone(make_plan(directory.read_config())).model.state_dict()
    twin = twins[0].state_dict()
    assert {name: tensor.shape for name, tensor in twin.items()} == {
        name: tensor.shape for name, tensor in initial.items()
    }
    weights = [name for name, tensor in initial.items() if tensor.dim() == 4]
    assert weights and not any(torch.equal(initial[name], twin[name]) for name in weights)


def test_controls_made_anew_are_the_same(finished: RunDirectory, directory: RunDirectory) -> None:
    shutil.rmtree(directory.path / "controls")
    evaluate_again(directory)
    for control in ("untrained_twin", "image_statistics"):
        tables = [EpisodeTable.load(run.control_path(BENCHMARK, control, PROBE)) for run in (finished, directory)]
        assert np.array_equal(tables[0].nll, tables[1].nll)


def test_controls_can_be_switched_off_and_change_no_identity(directory: RunDirectory) -> None:
    before = directory.read_summary()
    shutil.rmtree(directory.path / "controls")
    evaluate_again(directory, controls=False)
    after = directory.read_summary()
    assert after.benchmarks[BENCHMARK].controls == {}
    assert not (directory.path / "controls").exists()
    assert after.run.digest == before.run.digest


def test_a_damaged_file_is_told_by_name(directory: RunDirectory) -> None:
    directory.control_path(BENCHMARK, "image_statistics", PROBE).write_bytes(b"broken")
    with pytest.raises(UserError, match=rf"{BENCHMARK}--{PROBE}\.parquet is damaged"):
        evaluate_again(directory)
