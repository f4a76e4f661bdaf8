"""Temperature and prediction sets of a run: from validation classes, measured on others."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from episodes.calibration import fit_temperature
from episodes.scoring import score
from episodes.table import collect
from lurefs.config.schema import RunConfig
from lurefs.errors import UserError
from lurefs.runs.calibration import calibration_path, read_calibration
from lurefs.runs.directory import RunDirectory
from lurefs.stages.calibrate import query_labels
from lurefs.stages.plan import make_plan
from lurefs.stages.run import run_stage
from lurefs.stages.stage import make_probe
from lurefs.stages.validation import check_validation, read_validation

MakeConfig = Callable[..., RunConfig]
Run = Callable[..., RunDirectory]
NAME = "novel-3way-1shot"
SPLIT = {"base": 0.25, "validation": 0.375, "novel": 0.375}
FROZEN: dict[str, Any] = {"frozen": True, "class_split": SPLIT, "calibrate": {}}


def features_of(path: Path, *, shuffled: bool = False) -> Path:
    """Write features of 24 classes, the last 9 of them novel; `shuffled` permutes the labels of the novel images."""
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(24), 30)
    centres = rng.normal(0, 1, (24, 6))
    features = (centres[labels] + rng.normal(0, 0.8, (len(labels), 6))).astype(np.float32)
    if shuffled:
        labels[-9 * 30 :] = np.random.default_rng(1).permutation(labels[-9 * 30 :])
    np.savez(path, features=features, labels=labels)
    return path


@pytest.fixture
def run_on_features(make_config: MakeConfig, tmp_path: Path) -> Run:
    """Evaluate features, with a named part of the classes for validation."""

    def run(*, name: str = "run", shuffled: bool = False, **changes: Any) -> RunDirectory:
        path = features_of(tmp_path / f"{name}.npz", shuffled=shuffled)
        names = [str(label) for label in range(24)]
        config = make_config(
            **{
                **FROZEN,
                "backbone": {"name": "brought"},
                "dataset": {"name": "features", "params": {"path": str(path)}},
                "class_split": {"base": [], "validation": names[:15], "novel": names[15:]},
                "benchmarks": {NAME: {"n_way": 3, "n_shot": 1, "n_query": 5, "n_episodes": 60}},
                **changes,
            }
        )
        directory = RunDirectory(tmp_path / name)
        run_stage(make_plan(config), directory, "run", with_page=False)
        return directory

    return run


def test_the_summary_has_the_temperature_of_the_validation_classes(
    run_on_features: Run,
) -> None:
    directory = run_on_features()
    config = directory.read_config()
    plan = make_plan(config)
    bank, manifest = read_validation(plan, directory, plan.benchmarks[NAME])
    probe = make_probe("logistic_regression", config.probes["logistic_regression"])
    table = collect(score(bank, manifest, probe, with_values=True), {})
    assert table.values is not None
    expected = fit_temperature(table.values, query_labels(manifest, len(manifest)), table.classes)
    found = directory.read_summary().benchmarks[NAME].probes["logistic_regression"]
    assert found.calibration is not None
    assert found.calibration.temperature == expected
    assert set(bank.class_names) == {str(label) for label in range(15)}
    assert found.nll is not None
    assert found.calibration.nll is not None
    assert found.ece is not None
    assert found.calibration.ece is not None
    assert found.calibration.nll.mean < found.nll.mean
    assert found.calibration.ece < found.ece


def test_novel_labels_change_neither_temperature_nor_threshold(run_on_features: Run) -> None:
    found = {
        name: read_calibration(
            run_on_features(name=name, shuffled=name == "shuffled"), NAME, "logistic_regression"
        ).summary
        for name in ("true", "shuffled")
    }
    for name in ("temperature", "threshold", "least_alpha"):
        assert getattr(found["true"], name) == getattr(found["shuffled"], name)
    coverage = {name: each.validation_sets.coverage.mean for name, each in found.items() if each.validation_sets}
    assert coverage["true"] > 0.8
    assert coverage["shuffled"] < coverage["true"] - 0.1


def test_validation_labels_change_the_temperature(run_on_features: Run) -> None:
    names = [str(label) for label in range(24)]
    found = [
        read_calibration(
            run_on_features(name=f"split-{n}", class_split={"base": [], "validation": names[:n], "novel": names[15:]}),
            NAME,
            "logistic_regression",
        ).summary
        for n in (15, 9)
    ]
    assert found[0].temperature != found[1].temperature


def test_sets_of_one_shot_from_the_support_are_full_and_those_of_nine_are_not(
    run_on_features: Run,
) -> None:
    form = {"n_way": 3, "n_query": 5, "n_episodes": 60}
    directory = run_on_features(benchmarks={"one": {**form, "n_shot": 1}, "nine": {**form, "n_shot": 9}})
    one, nine = (read_calibration(directory, name, "logistic_regression").summary for name in ("one", "nine"))
    assert one.least_alpha == 0.5
    assert one.support_sets.sizes == (0.0, 0.0, 0.0, 1.0)
    assert (one.support_sets.coverage.mean, one.support_sets.accuracy) == (1.0, None)
    assert nine.least_alpha == 0.1
    assert nine.support_sets.mean_size < 2.5
    assert 0.85 < nine.support_sets.coverage.mean < 0.95


def test_probes_without_probabilities_have_sets_and_no_temperature(
    run_on_features: Run,
) -> None:
    probes = {name: {"name": name} for name in ("ridge", "nearest_centroid", "linear_svm")}
    directory = run_on_features(probes=probes)
    for probe in probes:
        found = directory.read_summary().benchmarks[NAME].probes[probe].calibration
        assert found is not None
        assert (found.temperature, found.nll, found.ece) == (None, None, None)
        assert found.validation_sets is not None
        assert 0.75 < found.validation_sets.coverage.mean < 1
        assert read_calibration(directory, NAME, probe).reliability is None


@pytest.mark.parametrize(
    "form",
    [
        {"meta_dataset": {"min_way": 2, "max_way": 4, "max_support": 60, "max_query": 3}},
        {"n_way": 3, "shots": [1, 9, 12], "n_query": 4},
        {"n_way": 3, "n_query": 2, "query_alpha": 0.5},
        {"n_way": 2, "n_shot": 1, "n_query": 1},
    ],
    ids=str,
)
def test_every_form_of_episode_has_its_calibration(run_on_features: Run, form: dict[str, Any]) -> None:
    directory = run_on_features(benchmarks={"b": {"n_episodes": 50, **form}})
    found = directory.read_summary().benchmarks["b"].probes["logistic_regression"].calibration
    assert found is not None
    assert found.validation_sets is not None
    for sets in (found.validation_sets, found.support_sets):
        assert sum(sets.sizes) == pytest.approx(1)
        assert sets.coverage.mean > 0.75


def test_a_rerun_keeps_the_file_another_alpha_replaces_it_and_no_score_changes(
    run_on_features: Run,
) -> None:
    directory = run_on_features(calibrate=None)
    scores = directory.episodes_path(NAME, "logistic_regression")
    assert not (directory.path / "calibration").exists()
    before = scores.read_bytes()
    run_on_features()
    path = calibration_path(directory, NAME, "logistic_regression")
    stamps = path.stat().st_mtime_ns, path.read_bytes()
    run_on_features()
    assert (path.stat().st_mtime_ns, path.read_bytes()) == stamps
    run_on_features(calibrate={"alpha": 0.3})
    assert read_calibration(directory, NAME, "logistic_regression").summary.alpha == 0.3
    assert scores.read_bytes() == before


def test_a_run_of_images_extracts_the_validation_classes(make_config: MakeConfig, tmp_path: Path) -> None:
    directory = RunDirectory(tmp_path / "run")
    run_stage(make_plan(make_config(**FROZEN)), directory, "run", with_page=False)
    assert read_calibration(directory, NAME, "logistic_regression").summary.temperature is not None


def test_a_run_without_validation_classes_is_refused_with_a_way_out(make_config: MakeConfig) -> None:
    plan = make_plan(make_config(calibrate={}))
    with pytest.raises(UserError) as caught:
        check_validation(plan)
    assert "on validation classes, and there are none" in caught.value.problem
    assert "leave calibrate out" in caught.value.fix


@pytest.mark.parametrize("changes", [{"benchmarks": {"b": {"classes": "validation"}}}, {"calibrate": {"alpha": 1.0}}])
def test_what_would_be_measured_on_what_it_was_fitted_on_is_refused(
    make_config: MakeConfig, changes: dict[str, Any]
) -> None:
    with pytest.raises(UserError, match=r"calibrate would be fitted on the|calibrate\.alpha is 1\.0"):
        make_config(**{**FROZEN, **changes})


@pytest.mark.parametrize("text", ["[]", "{}", '{"identity": 1}', "nonsense"])
def test_a_damaged_file_is_named(run_on_features: Run, text: str) -> None:
    directory = run_on_features()
    path = calibration_path(directory, NAME, "logistic_regression")
    path.write_text(text)
    with pytest.raises(UserError, match=r"calibration/novel-3way-1shot--logistic_regression\.json is damaged"):
        read_calibration(directory, NAME, "logistic_regression")
    values = json.loads(calibration_path(run_on_features(name="other"), NAME, "logistic_regression").read_text())
    path.write_text(json.dumps({**values, "n": []}))
    with pytest.raises(UserError, match="not of the same bins"):
        read_calibration(directory, NAME, "logistic_regression")
