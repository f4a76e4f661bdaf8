from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from episodes.manifest import Manifest, draw_manifest, make_manifest
from lurefs.cli import main
from lurefs.commands.episodes import make, show, verify
from lurefs.config.load import load, run_config
from lurefs.config.schema import RunConfig
from lurefs.errors import UserError
from lurefs.stages.plan import make_plan

MakeConfig = Callable[..., RunConfig]
FORM = {"n_way": 3, "n_shot": 1, "n_query": 5, "n_episodes": 20}


@pytest.fixture
def recipe(tmp_path: Path, npz_path: Path) -> Path:
    path = tmp_path / "recipe.yaml"
    values = {
        "name": "small",
        "dataset": {"name": "npz", "params": {"path": str(npz_path)}},
        "class_split": {"base": 0.5, "validation": 0.0, "novel": 0.5},
        "benchmarks": {"one": FORM, "two": {"n_way": 2, "shot_range": [1, 4], "n_query": 2, "n_episodes": 10}},
    }
    path.write_text(yaml.safe_dump(values))
    return path


@pytest.fixture
def file(recipe: Path, tmp_path: Path) -> Path:
    path = tmp_path / "one.parquet"
    make(str(recipe), [], benchmark="one", output=path)
    return path


def test_all_benchmarks_are_made_by_default(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    make(str(recipe), ["benchmarks.two.n_episodes=7"], benchmark=None, output=None)
    printed = capsys.readouterr().out
    assert "manifests/one.parquet  20 episodes, 3-way 1-shot, 5 queries per class, hash" in printed
    assert "manifests/two.parquet  7 episodes, 2-way 1- to 4-shot, 2 queries per class, hash" in printed
    assert len(Manifest.load(tmp_path / "manifests" / "two.parquet")) == 7


def test_a_made_file_has_the_episodes_of_a_run(file: Path, recipe: Path) -> None:
    benchmark = make_plan(load(str(recipe)).runs["small"]).benchmarks["one"]
    assert Manifest.load(file).hash == draw_manifest(benchmark.images, benchmark.spec, seed=0).hash


def test_a_file_of_other_episodes_is_not_replaced(file: Path, recipe: Path) -> None:
    make(str(recipe), [], benchmark="one", output=file)
    with pytest.raises(UserError, match="holds other episodes"):
        make(str(recipe), ["benchmarks.one.seed=1"], benchmark="one", output=file)


def test_one_output_for_two_benchmarks_is_refused(recipe: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="add --benchmark: one, two"):
        make(str(recipe), [], benchmark=None, output=tmp_path / "x.parquet")


def test_an_unknown_benchmark_is_refused_with_the_nearest(recipe: Path) -> None:
    with pytest.raises(UserError, match="did you mean 'two'"):
        make(str(recipe), [], benchmark="tow", output=None)


def test_show_says_what_is_in_a_file(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    show(file, None)
    printed = capsys.readouterr().out
    manifest = Manifest.load(file)
    assert printed.startswith("episodes  20, 3-way 1-shot, 5 queries per class\nseed      0\n")
    assert f"hash      {manifest.hash}" in printed
    assert f"images    {len(manifest.rows)} in 4 classes, drawn from 96" in printed
    assert printed.count("\nepisode ") == 3
    assert manifest.images is not None
    assert f"support    1: {manifest.images.image_ids[manifest.support[0, 0]]}\n" in printed


def test_show_of_one_episode(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    show(file, 17)
    printed = capsys.readouterr().out
    assert "\nepisode 17\n" in printed and printed.count("\nepisode ") == 1
    with pytest.raises(UserError, match="there is no episode 20"):
        show(file, 20)


def test_show_says_the_counts_of_an_unequal_form(
    recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make(str(recipe), [], benchmark="two", output=tmp_path / "two.parquet")
    show(tmp_path / "two.parquet", None)
    assert "shots     1 to 4, mean" in capsys.readouterr().out


def test_show_imports_no_torch(file: Path) -> None:
    program = (
        "import sys; from lurefs.cli import main\n"
        f"main(['episodes', 'show', {str(file)!r}])\n"
        "assert not {'torch', 'timm', 'learn2learn'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], env=dict(os.environ), capture_output=True, check=True)


def test_verify_passes_what_make_wrote(file: Path, recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    verify(file, source=str(recipe), run_dir=None, benchmark=None)
    printed = capsys.readouterr().out
    assert "whole     20 episodes" in printed
    assert "data      all" in printed and "are among the 96 of benchmark one" in printed
    assert "drawn     seed 0 gives the same episodes" in printed


def test_verify_needs_no_data_where_the_file_has_names(file: Path) -> None:
    verify(file, source=None, run_dir=None, benchmark=None)


def test_verify_against_a_run(file: Path, recipe: Path, tmp_path: Path) -> None:
    from lurefs.runs.directory import RunDirectory

    RunDirectory(tmp_path / "run").write_config(load(str(recipe)).runs["small"])
    verify(file, source=None, run_dir=tmp_path / "run", benchmark="one")


def test_verify_refuses_episodes_that_the_seed_does_not_give(file: Path) -> None:
    manifest = Manifest.load(file)
    query = manifest.query.copy()
    query[4, :2] = query[4, 1::-1]
    Manifest(**{**vars_of(manifest), "query": query}).save(file)
    with pytest.raises(UserError, match="are not those of seed 0: episode 4 differs"):
        verify(file, source=None, run_dir=None, benchmark=None)


def test_verify_refuses_other_data(file: Path, recipe: Path) -> None:
    values = yaml.safe_load(recipe.read_text())
    recipe.write_text(yaml.safe_dump({**values, "dataset": {"name": "digits"}}))
    with pytest.raises(UserError, match="images are missing, such as"):
        verify(file, source=str(recipe), run_dir=None, benchmark=None)


def test_verify_without_names_asks_for_the_data(file: Path, recipe: Path, tmp_path: Path) -> None:
    benchmark = make_plan(load(str(recipe)).runs["small"]).benchmarks["one"]
    bare = tmp_path / "bare.parquet"
    images = benchmark.images
    make_manifest(images.labels, benchmark.spec, seed=0, images_digest=images.images_digest).save(bare)
    with pytest.raises(UserError, match="add --config or --run-dir"):
        verify(bare, source=None, run_dir=None, benchmark=None)
    verify(bare, source=str(recipe), run_dir=None, benchmark=None)


@pytest.mark.parametrize("action", ["show", "verify"])
def test_a_damaged_or_missing_file_ends_with_code_2(
    action: str, file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file.write_bytes(file.read_bytes()[:500])
    for path, words in ((file, "is not a complete file of episodes"), (tmp_path / "none.parquet", "there is no file")):
        with pytest.raises(SystemExit) as ended:
            main(["episodes", action, str(path)])
        assert ended.value.code == 2
        error = capsys.readouterr().err
        assert words in error and "expected:" in error and "to fix:" in error


def test_a_benchmark_takes_the_episodes_of_a_file(file: Path, make_config: MakeConfig) -> None:
    benchmark = make_plan(make_config(benchmarks={"b": {"manifest": str(file)}})).benchmarks["b"]
    assert benchmark.manifest is not None
    assert benchmark.manifest.hash == Manifest.load(file).hash
    assert benchmark.manifest.images_digest == benchmark.images.images_digest
    assert (benchmark.spec.n_way, benchmark.spec.n_query) == (3, 5)


def test_the_episodes_of_a_file_are_found_among_more_images(file: Path, make_config: MakeConfig) -> None:
    changed = make_config(benchmarks={"b": {"manifest": str(file), "classes": "all"}})
    benchmark = make_plan(changed).benchmarks["b"]
    assert benchmark.manifest is not None
    assert len(benchmark.images.rows) == 192
    assert benchmark.manifest.hash == Manifest.load(file).hash
    ids = {benchmark.images.image_ids[row] for row in benchmark.manifest.rows}
    stored = Manifest.load(file)
    assert stored.images is not None
    assert ids == {stored.images.image_ids[row] for row in stored.rows}


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"n_shot": 5}, r"benchmarks.b.n_shot is 5, but the episodes of .* have 1"),
        ({"seed": 3}, "benchmarks.b.seed is 3, but the episodes of .* were drawn with 0"),
        ({"classes": "base"}, "do not match the images of benchmarks.b: .* images are missing"),
    ],
)
def test_a_config_that_differs_from_its_file_is_refused(
    file: Path, make_config: MakeConfig, values: dict[str, Any], words: str
) -> None:
    with pytest.raises(UserError, match=words):
        make_plan(make_config(benchmarks={"b": {"manifest": str(file), **values}}))


def test_a_run_stores_the_episodes_of_the_file_as_rows_of_its_own_bank(
    file: Path, make_config: MakeConfig, tmp_path: Path
) -> None:
    import torch

    from lurefs.runs.directory import RunDirectory
    from lurefs.stages.stage import Stage, read_or_draw_manifest
    from lurefs.tracking.tracker import Tracker

    plan = make_plan(make_config(benchmarks={"b": {"manifest": str(file), "classes": "all"}}))
    directory = RunDirectory(tmp_path / "run")
    stage = Stage(plan=plan, directory=directory, tracker=Tracker(""), device=torch.device("cpu"))
    for _ in range(2):  # stored, then read
        found = read_or_draw_manifest(stage, plan.benchmarks["b"])
        assert found.hash == directory.read_manifest("b").hash == Manifest.load(file).hash
        assert found.images_digest == plan.benchmarks["b"].images.images_digest != Manifest.load(file).images_digest


def test_a_config_that_repeats_the_form_of_its_file_is_right(file: Path, make_config: MakeConfig) -> None:
    make_plan(make_config(benchmarks={"b": {"manifest": str(file), **FORM}}))


def test_the_path_of_a_file_is_stored_absolute(
    file: Path, make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(file.parent)
    config = make_config(benchmarks={"b": {"manifest": file.name}})
    assert config.benchmarks["b"].manifest == str(file)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"n_way": 2, "shots": [1, 3]}, "2-way 1, 3 shots, 15 queries per class"),
        ({"n_way": 2, "shot_range": [1, 3]}, "2-way 1- to 3-shot"),
        ({"n_way": 2, "n_query": 3, "query_alpha": 2}, r"6 queries, class shares Dirichlet\(2\)"),
        ({"meta_dataset": {"min_way": 2}}, "2- to 50-way"),
        ({"n_way": 2, "n_query": 3, "n_episodes": 10, "disjoint": True}, "no image in two episodes"),
    ],
)
def test_every_form_is_reached_from_a_config(make_config: MakeConfig, values: dict[str, Any], words: str) -> None:
    import re

    from lurefs.records import to_mapping

    config = make_config(benchmarks={"b": values})
    benchmark = make_plan(config).benchmarks["b"]
    assert re.search(words, benchmark.spec.words())
    assert run_config(yaml.safe_load(yaml.safe_dump(to_mapping(config)))) == config
    assert len(draw_manifest(benchmark.images, benchmark.spec, seed=0)) == benchmark.spec.n_episodes


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"shots": [1, 2]}, r"benchmarks.b: shots is \[1, 2\]"),
        ({"shot_range": [4]}, r"benchmarks.b: shot_range is \[4\]"),
        ({"query_alpha": 0.01}, "benchmarks.b: query_alpha is 0.01"),
        ({"meta_dataset": {"min_way": 9, "max_way": 3}}, "benchmarks.b: meta_dataset has min_way 9, max_way 3"),
        ({"meta_dataset": {"most_ways": 9}}, "unknown key 'benchmarks.b.meta_dataset.most_ways'"),
        ({"meta_dataset": {}, "n_shot": 5}, "n_shot is 5 and meta_dataset is set"),
        ({"meta_dataset": {}}, "benchmarks.b.meta_dataset.min_way is 5, but npz has 4 novel classes"),
        ({"n_way": 2, "n_query": 15, "query_alpha": 1}, r"is 31 per class, but class '\d' has 24 images"),
        ({"n_way": 2, "disjoint": True}, "96 images of 4 classes give 2 such episodes\n.*at most 2"),
    ],
)
def test_forms_that_cannot_be_are_refused(make_config: MakeConfig, values: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        make_plan(make_config(benchmarks={"b": values}))


def vars_of(manifest: Manifest) -> dict[str, Any]:
    from dataclasses import fields

    return {field.name: getattr(manifest, field.name) for field in fields(manifest)}


def test_variants_with_other_benchmarks_are_refused(recipe: Path) -> None:
    values = yaml.safe_load(recipe.read_text())
    variants = {"a": {}, "b": {"benchmarks": {"one": {"seed": 4}}}}
    recipe.write_text(yaml.safe_dump({**values, "variants": variants}))
    with pytest.raises(UserError, match="variants 'a' and 'b' differ in benchmarks"):
        make(str(recipe), [], benchmark=None, output=None)


def test_rows_of_a_made_file_are_those_of_the_data(file: Path, recipe: Path) -> None:
    benchmark = make_plan(load(str(recipe)).runs["small"]).benchmarks["one"]
    manifest = Manifest.load(file)
    assert np.array_equal(benchmark.images.labels[manifest.support], manifest.classes)
