"""Episodes on the validation classes, of the form of each benchmark."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lurefs.cli import main
from lurefs.config.schema import RunConfig
from lurefs.errors import UserError
from lurefs.runs.directory import RunDirectory
from lurefs.stages.needed import image_sets
from lurefs.stages.plan import make_plan
from lurefs.stages.run import run_stage
from lurefs.stages.validation import (
    N_EPISODES,
    VALIDATION,
    check_validation,
    read_validation,
    validation_episodes,
    validation_twin,
)

MakeConfig = Callable[..., RunConfig]
NAME = "novel-3way-1shot"
SPEC = {"n_way": 3, "n_shot": 1, "n_query": 5, "n_episodes": 20}
SPLIT = {"base": 0.25, "validation": 0.375, "novel": 0.375}
CHOOSING: dict[str, Any] = {"logistic_regression": {"choose": {"C": [0.1, 1.0, 10.0]}}}


@pytest.fixture
def make_choosing(make_config: MakeConfig) -> MakeConfig:
    return lambda **changes: make_config(**{"class_split": SPLIT, "probes": CHOOSING, **changes})


def test_a_twin_has_the_form_of_its_benchmark_on_the_validation_classes_alone(make_choosing: MakeConfig) -> None:
    plan = make_plan(make_choosing())
    twin = validation_twin(plan, plan.benchmarks[NAME])
    manifest = validation_episodes(twin)
    assert (twin.spec.n_way, twin.spec.n_shot, twin.spec.n_query, len(manifest)) == (3, 1, 5, N_EPISODES)
    used = twin.images.rows[np.unique(np.concatenate([manifest.support, manifest.query], axis=1))]
    assert set(plan.dataset.labels[used]) == set(plan.classes.validation)


def test_a_twin_is_the_same_for_every_seed_of_the_run_and_has_a_seed_of_its_own(make_choosing: MakeConfig) -> None:
    def hash_of(**changes: Any) -> str:
        plan = make_plan(make_choosing(**changes))
        return validation_episodes(validation_twin(plan, plan.benchmarks[NAME])).hash

    assert hash_of(seed=1) == hash_of(seed=2)
    assert hash_of(benchmarks={NAME: {**SPEC, "seed": 1}}) != hash_of()
    plan = make_plan(make_choosing())
    assert validation_twin(plan, plan.benchmarks[NAME]).seed != plan.benchmarks[NAME].seed


@pytest.mark.parametrize(
    "form",
    [
        {"disjoint": True, "n_episodes": 3},
        {"meta_dataset": {"min_way": 2, "max_way": 3, "max_support": 9, "max_query": 3}},
        {"n_way": 3, "shots": [1, 2, 3], "n_query": 4},
        {"n_way": 3, "n_query": 2, "query_alpha": 2.0},
    ],
    ids=str,
)
def test_a_twin_takes_over_every_form_except_disjoint_episodes(make_choosing: MakeConfig, form: dict[str, Any]) -> None:
    values = {"n_episodes": 20, **form} if "meta_dataset" in form else {**SPEC, **form}
    plan = make_plan(make_choosing(benchmarks={"b": values}))
    twin, spec = validation_twin(plan, plan.benchmarks["b"]), plan.benchmarks["b"].spec
    assert (twin.spec.counts, twin.spec.shots, twin.spec.meta_dataset) == (spec.counts, spec.shots, spec.meta_dataset)
    assert not twin.spec.disjoint and len(validation_episodes(twin)) == N_EPISODES


def test_a_benchmark_on_another_data_set_has_its_twin_on_the_runs_own(make_choosing: MakeConfig) -> None:
    digits = {"dataset": {"name": "digits"}, "classes": "all", **SPEC}
    plan = make_plan(make_choosing(benchmarks={"digits": digits}))
    assert validation_twin(plan, plan.benchmarks["digits"]).images.dataset is plan.dataset


def test_features_of_validation_classes_are_extracted_only_for_a_choice(make_choosing: MakeConfig) -> None:
    assert VALIDATION in [images.name for images in image_sets(make_plan(make_choosing()))]
    plain = make_plan(make_choosing(probes={"logistic_regression": {}}))
    assert VALIDATION not in [images.name for images in image_sets(plain)]


def test_features_of_validation_classes_are_extracted_once_for_all_benchmarks(
    make_choosing: MakeConfig, tmp_path: Path
) -> None:
    benchmarks = {NAME: SPEC, "novel-3way-2shot": {**SPEC, "n_shot": 2}}
    plan, directory = make_plan(make_choosing(frozen=True, benchmarks=benchmarks)), RunDirectory(tmp_path / "run")
    run_stage(plan, directory, "extract")
    stored = directory.features_dir(VALIDATION) / "bank.json"
    written = stored.stat().st_mtime_ns
    run_stage(plan, directory, "extract")
    assert stored.stat().st_mtime_ns == written
    banks = [read_validation(plan, directory, benchmark) for benchmark in plan.benchmarks.values()]
    assert banks[0][0].images_digest == banks[1][0].images_digest == banks[0][1].images_digest
    assert banks[0][1].hash != banks[1][1].hash


def test_features_of_other_validation_classes_are_refused(make_choosing: MakeConfig, tmp_path: Path) -> None:
    plan, directory = make_plan(make_choosing(frozen=True)), RunDirectory(tmp_path / "run")
    run_stage(plan, directory, "extract")
    other = make_plan(make_choosing(frozen=True, class_split={**SPLIT, "seed": 1}))
    with pytest.raises(UserError, match="of other images"):
        read_validation(other, directory, other.benchmarks[NAME])


@pytest.mark.parametrize(
    ("split", "frozen"),
    [
        ({"base": 0.5, "validation": 0.0, "novel": 0.5}, False),
        ({"base": 0.5, "validation": 0.125, "novel": 0.375}, False),
        ({"base": 0.0, "validation": 0.0, "novel": 1.0}, True),
    ],
)
def test_too_few_validation_classes_are_refused_with_shares_that_work(
    make_choosing: MakeConfig, split: dict[str, float], frozen: bool
) -> None:
    with pytest.raises(UserError, match=r"chosen on validation classes, and there are (none|1)") as caught:
        check_validation(make_plan(make_choosing(class_split=split, frozen=frozen)))
    advice = {name: float(share) for name, share in re.findall(r"class_split\.(\w+)=([\d.]+\d)", caught.value.fix)}
    assert "validation" in advice
    check_validation(make_plan(make_choosing(class_split={**split, **advice}, frozen=frozen)))


def test_where_no_shares_work_the_error_recommends_none(make_choosing: MakeConfig) -> None:
    wide, split = {NAME: {**SPEC, "n_way": 5}}, {"base": 0.375, "validation": 0.0, "novel": 0.625}
    with pytest.raises(UserError) as caught:
        check_validation(make_plan(make_choosing(class_split=split, benchmarks=wide)))
    assert caught.value.fix.startswith("lower benchmarks.novel-3way-1shot.n_way, or leave probes.logistic_regression")


def test_too_few_images_of_a_validation_class_are_refused(
    make_choosing: MakeConfig, npz_path: Path, tmp_path: Path
) -> None:
    stored = np.load(npz_path)
    lists = {"base": ["0", "1"], "validation": ["2", "3", "4"], "novel": ["5", "6", "7"]}
    kept = np.flatnonzero((stored["labels"] != 3) | (np.arange(len(stored["labels"])) % 24 < 4))
    np.savez(tmp_path / "few.npz", images=stored["images"][kept], labels=stored["labels"][kept])
    dataset = {"name": "npz", "params": {"path": str(tmp_path / "few.npz")}}
    with pytest.raises(UserError, match="n_shot \\+ n_query is 6 per class, but class '3' has 4 images"):
        check_validation(make_plan(make_choosing(dataset=dataset, class_split=lists)))


def test_a_dry_run_refuses_a_frozen_run_without_validation_classes(
    make_config: MakeConfig, npz_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = tmp_path / "frozen.yaml"
    recipe.write_text(
        f"name: f\nfrozen: true\ndataset: {{name: npz, params: {{path: {npz_path}}}}}\n"
        f"backbone: {{name: test_byobnet}}\nbenchmarks: {{b: {{n_way: 3, n_query: 5, n_episodes: 20}}}}\n"
        "probes: {p: {choose: {C: [0.1, 1]}}}\n"
    )
    with pytest.raises(SystemExit) as caught:
        main(["run", "--config", str(recipe), "--dry-run"])
    assert caught.value.code == 2
    error = capsys.readouterr().err
    assert "chosen on validation classes, and there are none" in error and "class_split.novel=" in error


def test_a_dry_run_says_what_is_chosen_and_on_what(
    make_config: MakeConfig, npz_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = tmp_path / "choosing.yaml"
    recipe.write_text(
        f"name: f\nfrozen: true\ndataset: {{name: npz, params: {{path: {npz_path}}}}}\n"
        "backbone: {name: test_byobnet}\n"
        "class_split: {base: 0, validation: 0.5, novel: 0.5}\ncontrols: false\n"
        "benchmarks: {b: {n_way: 3, n_query: 5, n_episodes: 20}}\nprobes: {p: {choose: {C: [0.1, 1]}}}\n"
    )
    main(["run", "--config", str(recipe), "--dry-run"])
    assert "choose    p: C from 0.1, 1, on 300 episodes of 4 validation classes" in capsys.readouterr().out
