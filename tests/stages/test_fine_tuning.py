"""Fine-tuned probes in a run: same episodes as the other probes, resumed, stored with effect and cost, and shown."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from episodes.table import EpisodeTable
from lurefs.cli import main
from lurefs.comparing.fine_tuning import START, fine_tuned_differences
from lurefs.comparing.finished_runs import read_runs
from lurefs.comparing.groups import groups_of
from lurefs.comparing.same_episodes import on_common_episodes
from lurefs.config.schema import RunConfig
from lurefs.records import to_mapping
from lurefs.runs.directory import RunDirectory
from lurefs.stages import fine_tuning
from lurefs.stages.checks import check
from lurefs.stages.plan import make_plan
from lurefs.stages.run import run_stage

MakeConfig = Callable[..., RunConfig]
NAME = "novel-3way-1shot"
FEW = {"n_way": 3, "n_shot": 1, "n_query": 5, "n_episodes": 20}


def tuned(**params: Any) -> dict[str, Any]:
    return {"name": "fine_tuning", "params": {"steps": 2, "lr": 1e-3, "n_episodes": 12, **params}}


def probes(**params: Any) -> dict[str, Any]:
    return {"tuned": tuned(**params), "linear": {"name": "logistic_regression"}}


def run(config: RunConfig, path: Path) -> RunDirectory:
    check(make_plan(config))
    run_stage(make_plan(config), RunDirectory(path), "run")
    return RunDirectory(path)


def read(directory: RunDirectory, probe: str = "tuned", name: str = NAME) -> EpisodeTable:
    return directory.read_episodes(name, probe, with_predicted=True)


def assert_same(one: EpisodeTable, other: EpisodeTable) -> None:
    """Compare everything but times."""
    for name in ("index", "classes", "accuracy", "nll", "brier", "predicted"):
        assert np.array_equal(getattr(one, name), getattr(other, name)), name
    assert one.extra.keys() == other.extra.keys()
    assert all(np.array_equal(one.extra[name], other.extra[name]) for name in one.extra)
    assert one.reliability.ece == other.reliability.ece and one.n_by_solver == other.n_by_solver
    assert one.identity == other.identity


@pytest.fixture
def frozen(make_config: MakeConfig) -> MakeConfig:
    """A run without training, of seconds."""

    def make(**changes: Any) -> RunConfig:
        return make_config(**{"frozen": True, "probes": probes(), **changes})

    return make


@pytest.mark.parametrize("form", [{}, {"n_way": 2}, {"n_way": 4, "n_shot": 3}, {"shots": [1, 2, 3]}])
def test_without_steps_the_predictions_are_those_of_the_linear_probe(
    frozen: MakeConfig, tmp_path: Path, form: dict[str, Any]
) -> None:
    directory = run(frozen(probes=probes(steps=0), benchmarks={NAME: {**FEW, **form}}), tmp_path / "run")
    mine, linear = read(directory), read(directory, "linear")
    assert mine.predicted is not None and linear.predicted is not None
    assert len(mine) == 12 and np.array_equal(mine.predicted, linear.predicted[:12])
    assert np.array_equal(mine.accuracy, linear.accuracy[:12])
    assert np.array_equal(mine.extra["start_accuracy"], linear.accuracy[:12])
    assert np.allclose(mine.nll, linear.nll[:12], atol=1e-4)
    assert not mine.extra["changed_predictions"].any() and not mine.extra["weights_moved"].any()


def test_a_trained_run_fine_tunes_its_last_weights_on_the_first_episodes_of_all_probes(
    make_config: MakeConfig, tmp_path: Path
) -> None:
    directory = run(make_config(probes=probes(train="full", lr=1e-2)), tmp_path / "run")
    mine, linear = read(directory), read(directory, "linear")
    assert np.array_equal(mine.index, np.arange(12)) and np.array_equal(mine.classes, linear.classes[:12])
    assert mine.identity["manifest"] == linear.identity["manifest"] == directory.read_manifest(NAME).hash
    assert np.array_equal(mine.extra["start_accuracy"], linear.accuracy[:12])
    assert (mine.extra["weights_moved"] > 0).all() and mine.extra["changed_predictions"].any()
    assert set(mine.extra["forward_passes"]) == {2 * 3 + 15} and set(mine.extra["backward_passes"]) == {2 * 3}
    assert [outcome.few_shot[NAME].probe for outcome in directory.read_outcomes()] == ["linear"] * 3
    stored = json.loads(directory.summary_path.read_text())["benchmarks"][NAME]["probes"]
    assert "fine_tuning" not in stored["linear"]
    effect = stored["tuned"]["fine_tuning"]
    assert effect["gain"]["mean"] == pytest.approx((mine.accuracy - linear.accuracy[:12]).mean())
    assert effect["changed_predictions"] == pytest.approx(mine.extra["changed_predictions"].mean())
    assert effect["forward_passes"] == 21


def test_equal_runs_give_equal_results_and_a_finished_one_is_left_alone(frozen: MakeConfig, tmp_path: Path) -> None:
    settings = probes(crop_padding=2, flip=True)
    one, other = (run(frozen(probes=settings), tmp_path / name) for name in ("one", "other"))
    assert_same(read(one), read(other))
    before = one.episodes_path(NAME, "tuned").stat().st_mtime_ns
    run(frozen(probes=settings), one.path)
    assert one.episodes_path(NAME, "tuned").stat().st_mtime_ns == before
    another_seed = run(frozen(probes=settings, seed=1), tmp_path / "seed")
    assert not np.array_equal(read(one).nll, read(another_seed).nll)


def test_a_killed_run_goes_on_behind_the_last_stored_block(
    frozen: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fine_tuning, "EPISODES_AT_ONCE", 5)
    whole = read(run(frozen(), tmp_path / "whole"))
    calls, original = [], fine_tuning.fine_tune

    def fail_in_the_ninth(*args: Any) -> Any:
        calls.append(1)
        if len(calls) == 9:
            raise RuntimeError("killed")
        return original(*args)

    monkeypatch.setattr(fine_tuning, "fine_tune", fail_in_the_ninth)
    with pytest.raises(RuntimeError, match="killed"):
        run(frozen(), tmp_path / "run")
    directory = RunDirectory(tmp_path / "run")
    part = directory.unfinished_path(NAME, "tuned")
    assert len(EpisodeTable.load(part)) == 5 and not directory.episodes_path(NAME, "tuned").exists()
    run(frozen(), directory.path)
    assert len(calls) == 9 + 12 - 5 and not part.exists()
    assert_same(read(directory), whole)


@pytest.mark.parametrize("is_table", [True, False])
def test_unfinished_results_of_other_settings_or_damaged_ones_are_not_used(
    frozen: MakeConfig, tmp_path: Path, is_table: bool
) -> None:
    directory = RunDirectory(tmp_path / "run")
    part = directory.unfinished_path(NAME, "tuned")
    part.parent.mkdir(parents=True)
    part.write_bytes(b"PAR1")
    if is_table:
        read(run(frozen(probes=probes(lr=1e-2)), tmp_path / "other")).save(part)
    run(frozen(), directory.path)
    assert_same(read(directory), read(run(frozen(), tmp_path / "fresh")))
    assert not part.exists()


@pytest.mark.parametrize(
    "form", [{"meta_dataset": {"min_way": 3, "max_way": 4}}, {"shot_range": [1, 4]}, {"query_alpha": 2}]
)
def test_episodes_of_any_form_are_fine_tuned(frozen: MakeConfig, tmp_path: Path, form: dict[str, Any]) -> None:
    base = {"n_episodes": 20} if "meta_dataset" in form else FEW
    directory = run(frozen(benchmarks={NAME: {**base, **form}}), tmp_path / "run")
    mine, linear = read(directory), read(directory, "linear")
    assert np.array_equal(mine.extra["start_accuracy"], linear.accuracy[:12])
    n_support = [len(directory.read_manifest(NAME)[index].support) for index in range(12)]
    assert np.array_equal(mine.extra["backward_passes"], [2 * n for n in n_support])


def test_corrupted_queries_are_those_of_the_other_probes(frozen: MakeConfig, tmp_path: Path, photos: Path) -> None:
    pytest.importorskip("imagecorruptions")
    changes = {"dataset": {"name": "folder", "params": {"path": str(photos), "image_size": 32}}, "class_split": {}}
    fog = {"corrupt": {"corruption": "fog", "severity": 5}}
    config = frozen(
        **changes,
        probes=probes(steps=0),
        benchmarks={NAME: {**FEW, "n_query": 4, **fog}, "clean": {**FEW, "n_query": 4}},
    )
    directory = run(config, tmp_path / "run")
    for name in (NAME, "clean"):
        mine, linear = read(directory, name=name), read(directory, "linear", name)
        assert mine.predicted is not None and linear.predicted is not None
        assert np.array_equal(mine.predicted, linear.predicted[:12])


def test_fewer_episodes_are_compared_with_more_on_those_that_both_met(
    frozen: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)  # `compare` writes its files below the working directory
    directories = [
        run(frozen(name=name, backbone={"name": name, "image_size": 32}, probes=probes(n_episodes=n)), tmp_path / name)
        for name, n in (("test_byobnet", 12), ("test_resnet", 8))
    ]
    runs = read_runs(directories)
    rows = fine_tuned_differences(groups_of(runs), NAME, "tuned")
    assert [(row.group, row.against, row.n_episodes) for row in rows] == [
        ("test_byobnet", "linear", 12),
        ("test_resnet", "linear", 8),
    ]
    gap = (read(directories[0]).accuracy - read(directories[0], "linear").accuracy[:12]).mean()
    assert rows[0].difference.mean == pytest.approx(gap)
    assert rows[0].difference.half_widths["pool"] > 0
    assert fine_tuned_differences(groups_of(runs), NAME, "linear") == []
    cut = on_common_episodes(runs, [NAME])
    assert [each.accuracy(NAME, "linear").n for each in cut] == [20, 20]  # type: ignore[union-attr]
    main(["compare", *(str(directory.path) for directory in directories)])
    assert f"{NAME}, tuned, 8 to 12 episodes" in capsys.readouterr().out


def test_seeds_are_pooled_and_the_starting_head_stands_in_for_a_missing_linear_probe(
    frozen: MakeConfig, tmp_path: Path
) -> None:
    found = {"tuned": tuned(), "centroid": {"name": "nearest_centroid"}}
    directories = [
        run(frozen(name=f"frozen-seed{seed}", seed=seed, probes=found), tmp_path / str(seed)) for seed in (0, 1, 2)
    ]
    rows = fine_tuned_differences(groups_of(read_runs(directories)), NAME, "tuned")
    assert [row.against for row in rows] == [START, "centroid"]
    tables = [read(directory) for directory in directories]
    means = [(table.accuracy - table.extra["start_accuracy"]).mean() for table in tables]
    assert rows[0].difference.values == pytest.approx(means)
    assert set(rows[0].difference.half_widths) == {"seeds"} and rows[0].p is not None


def test_terminal_and_page_show_effect_and_cost(
    frozen: MakeConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "small.yaml").write_text(yaml.safe_dump(to_mapping(frozen(controls=True))))
    command = ["run", "--config", str(tmp_path / "small.yaml"), "--run-dir", str(tmp_path / "run")]
    main([*command, "--dry-run"])
    assert "fine-tune tuned: 2 steps on the last stage, first 12 episodes" in capsys.readouterr().out
    main(command)
    said = capsys.readouterr().out
    page = (tmp_path / "run" / "report.html").read_text()
    for text in (said, page):
        assert "small minus linear" in text and "probes on fixed features of the same run" in text
    for column in ("changed %", "moved %", "ms fine-tuned", "passes backward"):
        assert column in said and column.capitalize() in page
    controls = RunDirectory(tmp_path / "run").read_summary().benchmarks[NAME].controls
    assert {name: list(control.probes) for name, control in controls.items()} == {
        "untrained_twin": ["linear"],
        "image_statistics": ["linear"],
    }


def test_a_rate_that_diverges_is_told_with_a_way_out(
    frozen: MakeConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = frozen(probes=probes(lr=1e30, train="full"))
    (tmp_path / "small.yaml").write_text(yaml.safe_dump(to_mapping(config)))
    with pytest.raises(SystemExit) as caught:
        main(["run", "--config", str(tmp_path / "small.yaml"), "--run-dir", str(tmp_path / "run")])
    error = capsys.readouterr().err
    assert caught.value.code == 2 and "diverges on episode 0" in error and "lower probes.tuned.params.lr" in error


def test_a_run_whose_probes_are_all_fine_tuned_is_evaluated(frozen: MakeConfig, tmp_path: Path) -> None:
    directory = run(frozen(probes={"tuned": tuned()}, controls=True), tmp_path / "run")
    summary = directory.read_summary().benchmarks[NAME]
    assert list(summary.probes) == ["tuned"] and summary.controls == {}
    assert on_common_episodes(read_runs([directory, directory]), [NAME])[0].accuracy(NAME, "tuned").n == 12  # type: ignore[union-attr]


def test_any_backbone_of_evaluate_data_is_fine_tuned(
    photos: Path, tmp_path: Path, weights_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["evaluate", str(photos), "--backbone", "test_byobnet", "--weights", str(weights_path), "--shots", "1"]
    words += ["--way", "3", "--run-dir", str(tmp_path / "runs"), "probes.tuned.name=fine_tuning", "controls=false"]
    words += ["probes.tuned.params.n_episodes=3", "benchmarks.3way-1shot.n_episodes=5", "trackers.wandb.mode=disabled"]
    main(words)
    assert "3way-1shot, tuned, 3 episodes" in capsys.readouterr().out
    stored = RunDirectory(tmp_path / "runs" / "test_byobnet").read_episodes("3way-1shot", "tuned")
    assert len(stored) == 3 and (stored.extra["weights_moved"] > 0).all()
