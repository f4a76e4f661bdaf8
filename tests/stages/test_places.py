"""What is refused because of the stage or the directory, with and without --dry-run, before anything is done."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml

from lurefs.cli import main
from lurefs.config.schema import RunConfig
from lurefs.records import to_mapping
from lurefs.runs.directory import RunDirectory

MakeConfig = Callable[..., RunConfig]


@pytest.fixture
def arguments(make_config: MakeConfig, tmp_path: Path) -> list[str]:
    config = tmp_path / "small.yaml"
    config.write_text(yaml.safe_dump(to_mapping(make_config())))
    return ["--config", str(config), "--run-dir", str(tmp_path / "run")]


def refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    words = capsys.readouterr().err
    assert "expected:" in words and "to fix:" in words
    return words


@pytest.mark.parametrize("dry", [[], ["--dry-run"]], ids=["run", "dry run"])
@pytest.mark.parametrize(
    ("stage", "override", "words"),
    [
        ("pretrain", "frozen=true", "there is nothing to pre-train"),
        ("extract", "seed=0", "there is no checkpoint of the last chunk"),
        ("evaluate", "seed=0", "run 'lurefs extract' first"),
    ],
)
def test_stages_that_cannot_be_done_leave_no_file(
    arguments: list[str], dry: list[str], stage: str, override: str, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert words in refused([stage, *arguments, override, *dry], capsys)
    assert not Path(arguments[-1]).exists()


@pytest.mark.parametrize("dry", [[], ["--dry-run"]], ids=["run", "dry run"])
def test_a_directory_of_another_run_is_refused_before_any_run_of_the_group_starts(
    arguments: list[str], dry: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    taken = RunDirectory(Path(arguments[-1]) / "small--seed-1")
    taken.path.mkdir(parents=True)
    taken.identity_path.write_text('{"pretrain": {"seed": 9}, "dataset": {}}')
    taken.chunks_path.write_text("{}\n")
    words = refused(["run", *arguments, "seeds=[0, 1]", *dry], capsys)
    assert "run small--seed-1: " in words and "holds a run of another configuration" in words
    assert [path.name for path in Path(arguments[-1]).iterdir()] == ["small--seed-1"]


def test_a_dry_run_of_a_grid_refuses_what_its_cells_cannot_have(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    grid = tmp_path / "grid.yaml"
    command = ["lurefs", "run", "--config", arguments[1], "--run-root", str(tmp_path / "runs"), "${args_no_hyphens}"]
    for key, value, words in (
        ("learner.optimizer.params.lr", -1, "lr is -1.0"),
        ("backbone.params.nonsense", 1, "argument 'nonsense'"),
        ("robustness.severities", [1], "corruptions need images of 32 pixels or more"),
    ):
        parameters = {"seed": {"values": [0, 1]}, key: {"values": [value]}}
        grid.write_text(yaml.safe_dump({"method": "grid", "command": command, "parameters": parameters}))
        assert words in refused(["sweep", "--config", str(grid), "--dry-run"], capsys)
    assert not (tmp_path / "runs").exists()


def test_runs_that_differ_only_by_device_or_executor_are_all_checked(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    variants = "variants={one: {}, other: {device: 'cuda:99'}}"
    assert "run other: device 'cuda:99'" in refused(["run", *arguments, variants, "--dry-run"], capsys)
    variants = "variants={one: {}, other: {executor: {name: joblib, params: {n_workers: 0}}}}"
    assert "run other: executor 'joblib'" in refused(["run", *arguments, variants, "--dry-run"], capsys)


def test_a_long_start_of_other_settings_is_kept(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    diverging = ["checkpoints.every_seconds=0", "learner.optimizer.params.lr=1000"]
    refused(["run", *arguments, *diverging], capsys)
    directory = RunDirectory(Path(arguments[-1]))
    torch.save({"progress": {"seconds": 601.0}}, directory.progress_path)
    words = refused(["run", *arguments, "learner.optimizer.params.lr=0.01"], capsys)
    assert "10 min 01 s of work on its first chunk are stored" in words and "give another --run-dir" in words
    torch.save({"progress": {"seconds": 599.0}}, directory.progress_path)
    main(["run", *arguments, "learner.optimizer.params.lr=0.01"])
    assert "it is replaced" in capsys.readouterr().err


def test_a_start_that_diverged_leaves_a_directory_that_a_corrected_command_takes(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    frequent = "checkpoints.every_seconds=0"
    assert "training diverged" in refused(["run", *arguments, frequent, "learner.optimizer.params.lr=1000"], capsys)
    directory = RunDirectory(Path(arguments[-1]))
    assert directory.identity_path.exists() and not directory.chunks_path.exists()
    main(["run", *arguments, "learner.optimizer.params.lr=0.01"])
    assert "it is replaced" in capsys.readouterr().err
    assert len(directory.read_outcomes()) == 3 and directory.summary_path.exists()
    words = refused(["run", *arguments, "learner.optimizer.params.lr=0.02"], capsys)
    assert "lr was 0.01 and is now 0.02" in words


def test_a_variant_that_fails_does_not_stop_the_others(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    good = "good: {learner: {optimizer: {params: {lr: 0.01}}}}"
    words = [f"variants={{bad: {{}}, {good}}}", "learner.epochs=1", "after_chunk.few_shot=false"]
    with pytest.raises(SystemExit) as caught:
        main(["run", *arguments, *words, "variants.bad.learner.optimizer.params.lr=1000", "learner.epochs=2"])
    said = capsys.readouterr()
    assert caught.value.code == 2 and "failed: bad" in said.err and "training diverged" in said.err
    assert "good" in said.out and RunDirectory(Path(arguments[-1]) / "good").summary_path.exists()
