"""The stages of a run: each starts again from what is on disk, and computes nothing twice."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lurefs.config.schema import CorruptConfig, RunConfig
from lurefs.data.dataset import ImageDataset
from lurefs.errors import UserError
from lurefs.runs.directory import RunDirectory
from lurefs.runs.summary import BenchmarkSummary
from lurefs.stages.checks import check
from lurefs.stages.plan import make_plan
from lurefs.stages.run import run_stage

MakeConfig = Callable[..., RunConfig]


@pytest.fixture
def directory(tmp_path: Path) -> RunDirectory:
    return RunDirectory(tmp_path / "run")


def numbers(directory: RunDirectory) -> dict[str, Any]:
    """The summary without times."""
    summary: dict[str, Any] = json.loads(directory.summary_path.read_text())
    del summary["run"]["seconds"], summary["pretrain"]["train_seconds"], summary["pretrain"]["unlearn_seconds"]
    for benchmark in summary["benchmarks"].values():
        for probe in benchmark["probes"].values():
            del probe["ms_per_episode"]
    return summary


def times_of_files(directory: RunDirectory, *patterns: str) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for pattern in patterns for path in sorted(directory.path.glob(pattern))}


def test_one_run_leaves_everything_a_reader_needs(make_config: MakeConfig, directory: RunDirectory) -> None:
    run_stage(make_plan(make_config()), directory, "run")
    summary = directory.read_summary()
    pretrain = summary.pretrain
    assert len(pretrain.test_accuracy) == 3
    assert pretrain.accuracy_changes == pytest.approx(np.diff(pretrain.test_accuracy))
    outcomes = directory.read_outcomes()
    assert pretrain.n_images_seen == sum(outcome.n_images_seen for outcome in outcomes)
    assert pretrain.generalisation_gap == outcomes[-1].generalisation_gap
    assert pretrain.robustness is None
    cell = summary.benchmarks["novel-3way-1shot"].probes["logistic_regression"].accuracy
    table = directory.read_episodes("novel-3way-1shot", "logistic_regression")
    assert cell is not None and cell.mean == pytest.approx(table.accuracy.mean())
    assert cell.n == 20
    manifest = directory.read_manifest("novel-3way-1shot")
    bank = directory.read_bank("novel-3way-1shot")
    assert summary.benchmarks["novel-3way-1shot"].manifest == manifest.hash
    assert manifest.images_digest == bank.images_digest
    assert np.array_equal(bank.labels[manifest.support[:, 0]], manifest.classes[:, 0])
    assert [outcome.few_shot["novel-3way-1shot"].n_episodes for outcome in directory.read_outcomes()] == [10] * 3
    assert directory.report_path.exists()
    assert directory.read_config() == make_config()
    for chunk_index in range(3):
        assert directory.checkpoint_path(chunk_index).exists()


def test_a_second_run_computes_nothing_anew(make_config: MakeConfig, directory: RunDirectory) -> None:
    patterns = ("checkpoints/*", "features/*/*", "manifests/*", "episodes/*", "chunks.jsonl")
    run_stage(make_plan(make_config()), directory, "run")
    before = times_of_files(directory, *patterns)
    run_stage(make_plan(make_config()), directory, "run")
    assert times_of_files(directory, *patterns) == before


def test_equal_configs_give_equal_bytes(
    make_config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directories = [RunDirectory(tmp_path / name) for name in ("one", "other")]
    for directory in directories:
        monkeypatch.setenv("LUREFS_CACHE", f"{directory.path}-cache")  # otherwise the other's features are the one's
        run_stage(make_plan(make_config()), directory, "run", with_page=False)
    one, other = directories
    assert numbers(one) == numbers(other)
    for path in ("checkpoints/chunk-002.safetensors", "features/novel-3way-1shot/features.npy"):
        assert (one.path / path).read_bytes() == (other.path / path).read_bytes()
    assert (one.path / "manifests/novel-3way-1shot.parquet").read_bytes() == (
        other.path / "manifests/novel-3way-1shot.parquet"
    ).read_bytes()


@pytest.mark.parametrize("strategy", ["by_saliency", "from_scratch"])
@pytest.mark.parametrize("state", ["keep", "clear_reset"])
def test_a_run_broken_between_chunks_ends_like_an_unbroken_one(
    make_config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, strategy: str, state: str
) -> None:
    config = make_config(
        unlearn={"name": strategy},
        learner={"epochs": 2, "batch_size": 16, "optimizer_state": state},
        after_chunk={"few_shot": False},
    )
    whole, broken = RunDirectory(tmp_path / "whole"), RunDirectory(tmp_path / "broken")
    run_stage(make_plan(config), whole, "run", with_page=False)

    from lurefs.learning import learner

    original = learner._train_epoch

    def fail_in_the_last_chunk(*args: Any) -> Any:
        if args[2:] == (2, 1):
            raise RuntimeError("killed")
        return original(*args)

    with monkeypatch.context() as patch:
        patch.setattr(learner, "_train_epoch", fail_in_the_last_chunk)
        with pytest.raises(RuntimeError, match="killed"):
            run_stage(make_plan(config), broken, "run", with_page=False)
    assert len(broken.read_outcomes()) == 2
    run_stage(make_plan(config), broken, "run", with_page=False)
    assert numbers(broken) == numbers(whole)
    assert broken.checkpoint_path(2).read_bytes() == whole.checkpoint_path(2).read_bytes()


@pytest.mark.parametrize("strategy", ["by_saliency", "from_scratch"])
@pytest.mark.parametrize(
    ("optimizer", "select", "more"),
    [
        ("sgd", "best", {}),
        ("adamw", "last", {}),
        ("sgd", "best", {"ema_decay": 0.9, "freeze": 1, "augment": {"mixup": 0.4, "cutmix": 1.0}}),
    ],
)
def test_a_run_broken_within_a_chunk_goes_on_from_its_epoch_to_the_same_bits(
    make_config: MakeConfig,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    strategy: str,
    optimizer: str,
    select: str,
    more: dict[str, Any],
) -> None:
    config = make_config(
        unlearn={"name": strategy},
        learner={
            "epochs": 3,
            "batch_size": 16,
            "optimizer": {"name": optimizer, "params": {"lr": 0.01}},
            "select": select,
            "l2_init": 0.01,
            **more,
        },
        checkpoints={"every_seconds": 0},
        after_chunk={"few_shot": False},
    )
    whole, broken = RunDirectory(tmp_path / "whole"), RunDirectory(tmp_path / "broken")
    run_stage(make_plan(config), whole, "pretrain")

    from lurefs.learning import learner

    trained: list[Any] = []
    original = learner._train_epoch

    def fail_once(*args: Any) -> Any:
        if args[2:] == (1, 2) and args[2:] not in trained:
            trained.append(args[2:])
            raise RuntimeError("killed")
        trained.append(args[2:])
        return original(*args)

    monkeypatch.setattr(learner, "_train_epoch", fail_once)
    with pytest.raises(RuntimeError, match="killed"):
        run_stage(make_plan(config), broken, "pretrain")
    assert broken.progress_path.exists()
    trained_before = len(trained)
    run_stage(make_plan(config), broken, "pretrain")
    assert trained[trained_before:] == [(1, 2), (2, 0), (2, 1), (2, 2)]
    assert not broken.progress_path.exists()
    for index in range(3):
        assert broken.checkpoint_path(index).read_bytes() == whole.checkpoint_path(index).read_bytes()
    found, expected = (
        [
            replace(
                outcome,
                seconds=0.0,
                train_seconds=0.0,
                unlearn=outcome.unlearn and replace(outcome.unlearn, seconds=0.0),
            )
            for outcome in directory.read_outcomes()
        ]
        for directory in (broken, whole)
    )
    assert found == expected


def test_images_read_by_workers_give_the_bits_of_images_in_memory(make_config: MakeConfig, tmp_path: Path) -> None:
    directories = [RunDirectory(tmp_path / name) for name in ("memory", "loader")]
    for directory in directories:
        learner = {"epochs": 2, "batch_size": 16, "images": directory.path.name, "augment": {"flip": True}}
        backbone = {"name": "test_byobnet", "image_size": 32, "params": {"drop_rate": 0.1}}
        config = make_config(learner=learner, backbone=backbone, after_chunk={"few_shot": False})
        run_stage(make_plan(config), directory, "pretrain")
    one, other = (directory.checkpoint_path(2).read_bytes() for directory in directories)
    assert one == other
    learner = {"epochs": 2, "batch_size": 16, "images": "memory", "augment": {"flip": True}}
    config = make_config(learner=learner, backbone=backbone, after_chunk={"few_shot": False})
    run_stage(make_plan(config), directories[1], "pretrain")  # where images are kept is no part of what a run is


@pytest.mark.parametrize(("keep", "kept"), [("all", [0, 1, 2]), ("last", [2]), ("best", [1, 2])])
def test_weights_that_are_not_to_be_kept_are_removed(
    make_config: MakeConfig, directory: RunDirectory, monkeypatch: pytest.MonkeyPatch, keep: str, kept: list[int]
) -> None:
    from lurefs.stages import pretrain

    accuracies = {0: 0.2, 1: 0.9, 2: 0.4}
    original = pretrain.with_few_shot
    monkeypatch.setattr(
        pretrain,
        "with_few_shot",
        lambda stage, outcome, *rest: original(
            stage, replace(outcome, val_accuracy=accuracies[outcome.chunk_index]), *rest
        ),
    )
    run_stage(make_plan(make_config(checkpoints={"keep": keep})), directory, "run", with_page=False)
    assert [index for index in range(3) if directory.checkpoint_path(index).exists()] == kept
    before = numbers(directory)
    run_stage(make_plan(make_config(checkpoints={"keep": keep})), directory, "run", with_page=False)
    assert numbers(directory) == before
    spec = {"n_way": 2, "n_shot": 2, "n_query": 5, "n_episodes": 12}
    run_stage(
        make_plan(make_config(checkpoints={"keep": keep}, benchmarks={"other": spec})),
        directory,
        "run",
        with_page=False,
    )
    measured = [outcome.chunk_index for outcome in directory.read_outcomes() if set(outcome.few_shot) == {"other"}]
    assert measured == kept
    assert all(set(outcome.few_shot) <= {"other"} for outcome in directory.read_outcomes())


def test_few_shot_accuracy_follows_changed_settings_of_the_probe(
    make_config: MakeConfig, directory: RunDirectory
) -> None:
    def scores() -> list[str]:
        return [few.settings for outcome in directory.read_outcomes() for few in outcome.few_shot.values()]

    def config(n_neighbors: int) -> RunConfig:
        probes = {"knn": {"name": "knn", "params": {"n_neighbors": n_neighbors}}}
        spec = {"n_way": 2, "n_shot": 3, "n_query": 5, "n_episodes": 12}
        return make_config(probes=probes, checkpoints={"keep": "all"}, benchmarks={"novel": spec})

    run_stage(make_plan(config(1)), directory, "run", with_page=False)
    before, learned = scores(), [outcome.test_accuracy for outcome in directory.read_outcomes()]
    run_stage(make_plan(config(5)), directory, "run", with_page=False)
    changed = scores()
    assert len(changed) == len(before) == 3 and not {*changed} & {*before}
    assert [outcome.test_accuracy for outcome in directory.read_outcomes()] == learned
    run_stage(make_plan(config(1)), directory, "run", with_page=False)
    assert scores() == before


def test_stages_one_by_one_give_what_the_whole_line_gives(make_config: MakeConfig, tmp_path: Path) -> None:
    whole, parts = RunDirectory(tmp_path / "whole"), RunDirectory(tmp_path / "parts")
    run_stage(make_plan(make_config()), whole, "run", with_page=False)
    for stage in ("pretrain", "extract", "evaluate"):
        run_stage(make_plan(make_config()), parts, stage)
    assert numbers(parts) == numbers(whole)


@pytest.mark.parametrize(("stage", "words"), [("extract", "run 'lurefs pretrain' first"), ("evaluate", "extract")])
def test_a_stage_before_its_turn_says_which_is_missing(
    make_config: MakeConfig, directory: RunDirectory, stage: str, words: str
) -> None:
    with pytest.raises(UserError, match=words):
        run_stage(make_plan(make_config()), directory, stage)


def test_another_configuration_in_the_same_directory_is_refused(
    make_config: MakeConfig, directory: RunDirectory
) -> None:
    run_stage(make_plan(make_config()), directory, "pretrain")
    with pytest.raises(UserError, match=r"learner\.epochs was 2 and is now 5"):
        run_stage(make_plan(make_config(learner={"epochs": 5, "batch_size": 16})), directory, "run", with_page=False)


def test_new_benchmarks_and_probes_are_added_without_training_anew(
    make_config: MakeConfig, directory: RunDirectory
) -> None:
    run_stage(make_plan(make_config()), directory, "run", with_page=False)
    before = times_of_files(directory, "checkpoints/*")
    spec = {"n_way": 2, "n_shot": 2, "n_query": 5, "n_episodes": 12}
    config = make_config(benchmarks={"other": spec}, probes={"centroid": {"name": "nearest_centroid"}})
    run_stage(make_plan(config), directory, "run", with_page=False)
    assert times_of_files(directory, "checkpoints/*") == before
    assert list(directory.read_summary().benchmarks["other"].probes) == ["centroid"]
    assert [set(outcome.few_shot) for outcome in directory.read_outcomes()] == [{"other"}] * 3


def test_benchmarks_on_the_same_images_share_their_features(
    make_config: MakeConfig, directory: RunDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lurefs.stages import extract

    monkeypatch.setenv("LUREFS_CACHE", str(directory.path.parent / "cache"))
    embedded, original = [], extract.embed
    monkeypatch.setattr(extract, "embed", lambda *args, **kw: embedded.append(args[2].name) or original(*args, **kw))
    spec = {"n_way": 2, "n_query": 5, "n_episodes": 4}
    config = make_config(benchmarks={"a": spec, "b": {**spec, "n_shot": 2}}, after_chunk={"few_shot": False})
    run_stage(make_plan(config), directory, "run", with_page=False)
    assert embedded == ["a"]
    assert np.array_equal(directory.read_bank("a").features, directory.read_bank("b").features)


def test_a_truncated_checkpoint_is_told(make_config: MakeConfig, directory: RunDirectory) -> None:
    run_stage(make_plan(make_config()), directory, "pretrain")
    path = directory.checkpoint_path(2)
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(UserError, match="is damaged: it has 1000 bytes"):
        run_stage(make_plan(make_config()), directory, "run", with_page=False)


@pytest.mark.parametrize("name", ["chunks.jsonl", "identity.json", "manifests/novel-3way-1shot.parquet"])
def test_other_damaged_files_are_told_by_name(make_config: MakeConfig, directory: RunDirectory, name: str) -> None:
    run_stage(make_plan(make_config()), directory, "run", with_page=False)
    (directory.path / name).write_bytes(b'{"broken')
    with pytest.raises(UserError, match=f"{Path(name).name} is damaged"):
        run_stage(make_plan(make_config()), directory, "run", with_page=False)


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("[enforce fail at alloc_cpu.cpp:121] . DefaultCPUAllocator: can't allocate memory: you tried"),
        torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
        MemoryError(),
    ],
    ids=["CPU", "CUDA", "Python"],
)
def test_too_little_memory_for_training_is_told_and_the_run_resumes(
    error: Exception, make_config: MakeConfig, directory: RunDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = make_plan(make_config())

    def fail(*_: object, **__: object) -> None:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(torch.Tensor, "backward", fail)
        with pytest.raises(UserError, match="too little memory") as caught:
            run_stage(plan, directory, "run", with_page=False)
    assert "learner.batch_size" in caught.value.fix
    run_stage(plan, directory, "run", with_page=False)
    assert directory.read_summary().pretrain is not None


def test_another_error_of_training_is_not_taken_for_one_of_memory(
    make_config: MakeConfig, directory: RunDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("element 0 of tensors does not require grad")

    monkeypatch.setattr(torch.Tensor, "backward", fail)
    with pytest.raises(RuntimeError, match="does not require grad"):
        run_stage(make_plan(make_config()), directory, "pretrain")


def test_a_held_directory_is_refused(make_config: MakeConfig, directory: RunDirectory) -> None:
    with directory.locked(), pytest.raises(UserError, match="another process is working"):
        run_stage(make_plan(make_config()), directory, "run", with_page=False)


def test_any_scikit_learn_classifier_is_a_probe_by_its_path(make_config: MakeConfig, directory: RunDirectory) -> None:
    config = make_config(probes={"bayes": {"name": "sklearn.naive_bayes:GaussianNB", "transform": "none"}})
    run_stage(make_plan(config), directory, "run")
    cell = directory.read_summary().benchmarks["novel-3way-1shot"].probes["bayes"]
    assert cell.accuracy is not None and cell.accuracy.n == 20
    assert cell.nll is not None


def test_scoring_ends_at_the_width_that_is_asked_for(
    make_config: MakeConfig, directory: RunDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = {"n_way": 3, "n_shot": 1, "n_query": 5, "n_episodes": 1000}
    patterns = ("episodes/*", "controls/*/*.parquet")

    def run(target: float | None) -> BenchmarkSummary:
        benchmarks = {"b": {**spec, "target_ci95": target}}
        run_stage(make_plan(make_config(benchmarks=benchmarks, controls=True)), directory, "run")
        return directory.read_summary().benchmarks["b"]

    whole = run(None)
    every = directory.read_episodes("b", "logistic_regression").accuracy
    stopped = run(0.02)
    cell = stopped.probes["logistic_regression"].accuracy
    assert cell is not None and 200 <= cell.n < 1000 and cell.ci95_episodes <= 0.02
    assert (stopped.n_episodes, stopped.target_ci95, whole.target_ci95) == (1000, 0.02, None)
    assert stopped.manifest == whole.manifest == directory.read_manifest("b").hash
    assert len(directory.read_manifest("b")) == 1000
    assert np.array_equal(directory.read_episodes("b", "logistic_regression").accuracy, every[: cell.n])
    twin = stopped.controls["untrained_twin"].probes["logistic_regression"].accuracy
    assert twin is not None and twin.n < 1000 and twin.ci95_episodes <= 0.02
    before = times_of_files(directory, *patterns)
    assert run(0.02).probes == stopped.probes
    assert times_of_files(directory, *patterns) == before
    assert run(0.0199).target_ci95 == 0.0199
    assert all(times_of_files(directory, *patterns)[path] > time for path, time in before.items())


@pytest.fixture
def large_images(tmp_path: Path, make_dataset: Callable[..., ImageDataset]) -> dict[str, Any]:
    """Images that are large enough to be corrupted, as the data set of a config."""
    pytest.importorskip("imagecorruptions")
    dataset = make_dataset(n_classes=8, n_per_class=12, size=32)
    np.savez(tmp_path / "large.npz", images=dataset.read(np.arange(len(dataset))), labels=dataset.labels)
    return {"name": "npz", "params": {"path": str(tmp_path / "large.npz")}}


def test_corrupted_images_are_met_in_the_episodes_of_the_clean_ones(
    make_config: MakeConfig, directory: RunDirectory, large_images: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from episodes import Probe, collect, score
    from episodes.probes import nearest_centroid
    from lurefs.stages import extract

    embedded, original = [], extract.embed
    monkeypatch.setattr(extract, "embed", lambda *args, **kw: embedded.append(args[2].name) or original(*args, **kw))
    spec = {"n_way": 3, "n_shot": 1, "n_query": 5, "n_episodes": 20}
    fog = {"corruption": "fog", "severity": 4}
    benchmarks = {
        "clean": spec,
        **{side: {**spec, "corrupt": {**fog, "images": side}} for side in ("query", "support", "both")},
    }
    probes = {"p": {"name": "nearest_centroid"}}
    settings: dict[str, Any] = {"dataset": large_images, "benchmarks": benchmarks, "probes": probes, "controls": True}
    run_stage(make_plan(make_config(**settings)), directory, "run")

    assert embedded == ["clean", "query--fog-4"]  # once a corruption and severity, whoever asks for it
    summary = directory.read_summary().benchmarks
    assert len({benchmark.manifest for benchmark in summary.values()}) == 1
    assert summary["query"].corrupt == CorruptConfig(**fog)
    assert summary["query"].form == "3-way 1-shot, 5 queries per class, queries under fog of severity 4"
    clean, foggy = directory.read_bank("clean"), directory.read_bank("query--fog-4")
    assert clean.images_digest == foggy.images_digest and not np.array_equal(clean.features, foggy.features)
    manifest, probe = directory.read_manifest("clean"), Probe(name="p", classifier=nearest_centroid())
    banks = {"clean": (clean, clean), "query": (clean, foggy), "support": (foggy, clean), "both": (foggy, foggy)}
    for name, (bank, query_bank) in banks.items():
        expected = collect(score(bank, manifest, probe, query_bank=query_bank), {}).accuracy
        assert np.array_equal(directory.read_episodes(name, "p").accuracy, expected)
        assert set(directory.read_outcomes()[-1].few_shot) == set(banks)
        assert directory.read_outcomes()[-1].few_shot[name].accuracy == pytest.approx(expected[:10].mean())
    page = directory.report_path.read_text()
    assert page.count("Accuracy on corrupted and on clean images of the same episodes") == 3

    patterns = ("features/*/*", "episodes/*", "controls/*/*", "chunks.jsonl")
    before = times_of_files(directory, *patterns)
    run_stage(make_plan(make_config(**settings)), directory, "run")
    assert times_of_files(directory, *patterns) == before
    benchmarks["query"]["corrupt"] = {**fog, "severity": 1}
    run_stage(make_plan(make_config(**settings)), directory, "run")
    assert embedded[2:] == ["query--fog-1"]
    changed = [name for name, time in times_of_files(directory, "episodes/*").items() if time > before[name]]
    assert [Path(name).name for name in changed] == ["query--p.parquet"]


def test_counts_that_a_form_leaves_open_are_null_and_the_form_is_said(
    make_config: MakeConfig, directory: RunDirectory
) -> None:
    benchmarks = {
        "ranged": {"n_way": 3, "shot_range": [1, 4], "n_query": 5, "n_episodes": 10},
        "varied": {"meta_dataset": {"min_way": 2, "max_way": 4}, "n_episodes": 10},
    }
    run_stage(make_plan(make_config(benchmarks=benchmarks)), directory, "run")
    summary = directory.read_summary().benchmarks
    ranged, varied = (
        [getattr(summary[name], count) for count in ("n_way", "n_shot", "n_query")] for name in ("ranged", "varied")
    )
    assert (ranged, varied) == ([3, None, 5], [None, None, None])
    assert summary["ranged"].form == "3-way 1- to 4-shot, 5 queries per class"
    page = directory.report_path.read_text()
    assert "3-way 1- to 4-shot, 5 queries per class, chance 33.33" in page
    assert "2- to 4-way, up to 500 support images" in page


def test_figures_without_probabilities_are_null(make_config: MakeConfig, directory: RunDirectory) -> None:
    run_stage(make_plan(make_config(probes={"ridge": {"name": "ridge"}})), directory, "run")
    cell = directory.read_summary().benchmarks["novel-3way-1shot"].probes["ridge"]
    assert (cell.nll, cell.brier, cell.ece) == (None, None, None)
    assert cell.accuracy is not None and cell.accuracy.mean > 0


def test_the_features_are_those_of_the_last_checkpoint(make_config: MakeConfig, directory: RunDirectory) -> None:
    from lurefs.learning.checkpoints import load_checkpoint
    from lurefs.stages.stage import plan_backbone

    plan = make_plan(make_config())
    run_stage(plan, directory, "run", with_page=False)
    backbone = plan_backbone(plan)
    load_checkpoint(directory.checkpoint_path(2), backbone.model)
    backbone.model.eval()
    benchmark = plan.benchmarks["novel-3way-1shot"]
    images = torch.from_numpy(plan.dataset.read(benchmark.images.rows[:4]).transpose(0, 3, 1, 2).copy())
    with torch.inference_mode():
        expected = backbone.embed(images).numpy()
    np.testing.assert_allclose(directory.read_bank("novel-3way-1shot").features[:4], expected, rtol=1e-4, atol=1e-5)


def test_identity_says_what_the_weights_were_made_from(make_config: MakeConfig, directory: RunDirectory) -> None:
    run_stage(make_plan(make_config()), directory, "pretrain")
    identity = json.loads(directory.identity_path.read_text())
    assert identity["backbone"]["name"] == "test_byobnet"
    assert identity["split"]["n_novel_classes"] == 4
    assert identity["pretrain"]["learner"]["epochs"] == 2
    assert str(os.getpid()) in (directory.path / ".lock").read_text()


@pytest.mark.parametrize("chain", ["cl2n", "l2,pca:3"])
def test_transforms_are_fitted_on_base_training_features(
    make_config: MakeConfig, directory: RunDirectory, chain: str
) -> None:
    from episodes import Probe, collect, score
    from episodes.probes import logistic_regression

    config = make_config(probes={"p": {"name": "logistic_regression", "transform": chain}})
    check(make_plan(config))
    run_stage(make_plan(config), directory, "run")
    reference = directory.read_bank("base--train")
    assert len(reference.labels) == len(make_plan(config).images.train)
    probe = Probe(name="p", classifier=logistic_regression(), transform=chain, reference=reference.features)
    manifest = directory.read_manifest("novel-3way-1shot")
    expected = collect(score(directory.read_bank("novel-3way-1shot"), manifest, probe), {})
    assert np.array_equal(directory.read_episodes("novel-3way-1shot", "p").accuracy, expected.accuracy)
