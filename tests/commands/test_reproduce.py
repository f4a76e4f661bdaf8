from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lurefs.cli import main
from lurefs.commands.reproduce import compare_runs, likely_reasons
from lurefs.config.schema import RunConfig
from lurefs.runs.directory import RunDirectory
from lurefs.stages.plan import make_plan
from lurefs.stages.run import run_stage
from made_up_runs import summary

EPISODES = "episodes/novel-3way-1shot--logistic_regression.parquet"


@pytest.fixture
def run(make_config: Callable[..., RunConfig], tmp_path: Path) -> RunDirectory:
    directory = RunDirectory(tmp_path / "run")
    config = make_config(learner={"epochs": 1, "batch_size": 16}, chunks={"n_chunks": 2})
    run_stage(make_plan(config), directory, "run")
    return directory


def failing(arguments: list[str]) -> int:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert isinstance(caught.value.code, int)
    return caught.value.code


def test_a_run_is_made_again_to_the_same_numbers(
    run: RunDirectory, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "120")  # wide enough for the names of files
    main(["reproduce", str(run.path), "--output", str(tmp_path / "again")])
    out = capsys.readouterr().out
    last = out.splitlines()[-1]
    assert last.startswith("all ") and last.endswith(" values are the same")
    for name in ("summary.json", "chunks.jsonl", "checkpoints/chunk-001.json", "manifests/novel-3way-1shot", EPISODES):
        assert name in out
    again = RunDirectory(tmp_path / "again")
    weights = again.checkpoint_path(1).stat().st_mtime_ns
    for path in (again.summary_path, again.report_path):
        path.unlink()  # as if it had been interrupted
    main(["reproduce", str(run.path), "--output", str(again.path)])
    assert capsys.readouterr().out.endswith(f"{last}\n")
    assert again.summary_path.exists() and again.checkpoint_path(1).stat().st_mtime_ns == weights
    assert failing(["reproduce", str(run.path), "--output", str(tmp_path / "again")]) == 2
    assert f"{tmp_path / 'again'} is not empty" in capsys.readouterr().err
    (tmp_path / "file").touch()
    assert failing(["reproduce", str(run.path), "--output", str(tmp_path / "file")]) == 2
    assert f"{tmp_path / 'file'} is a file\n  expected: a new folder" in capsys.readouterr().err


def test_what_is_not_the_same_is_told_with_its_size_and_likely_reasons(
    run: RunDirectory, capsys: pytest.CaptureFixture[str]
) -> None:
    outcomes = run.read_outcomes()
    run.write_outcomes([outcomes[0], replace(outcomes[1], val_accuracy=outcomes[1].val_accuracy + 0.25)])
    identity = json.loads(run.identity_path.read_text())
    identity["versions"]["timm"] = "0.9"
    identity["machine"]["processor"] = "a slide rule"
    run.identity_path.write_text(json.dumps(identity))
    assert failing(["reproduce", str(run.path)]) == 1
    out = capsys.readouterr().out
    assert "chunks.jsonl: 1.val_accuracy: it was " in out
    assert "versions.timm was '0.9' and is now " in out
    assert "machine.processor was 'a slide rule' and is now " in out
    assert "values are the same" not in out


def test_tables_are_compared_value_by_value_and_times_are_not(run: RunDirectory, tmp_path: Path) -> None:
    other = RunDirectory(tmp_path / "other")
    shutil.copytree(run.path, other.path)
    table = run.read_episodes("novel-3way-1shot", "logistic_regression", with_predicted=True)
    accuracy = table.accuracy.copy()
    accuracy[[3, 7]] -= [0.5, 0.125]
    changed = replace(table, accuracy=accuracy, seconds=table.seconds + 1, nll=np.full(20, np.nan))
    changed.save(other.path / EPISODES)
    parts = {part.name: part for part in compare_runs(run, other)}
    assert [name for name, part in parts.items() if part.different] == [EPISODES]
    assert parts[EPISODES].different["accuracy"] == "2 of 20, by at most 0.5"
    assert set(parts[EPISODES].different) == {"accuracy", "nll"}
    replace(table, predicted=None).save(other.path / EPISODES)
    assert table.predicted is not None
    parts = {part.name: part for part in compare_runs(run, other)}
    assert parts[EPISODES].different == {"predicted": f"it was {table.predicted.size} values and is not there"}
    changed.save(run.path / EPISODES)
    changed.save(other.path / EPISODES)
    assert not any(part.different for part in compare_runs(run, other))
    (other.path / EPISODES).unlink()
    parts = {part.name: part for part in compare_runs(run, other)}
    assert parts[EPISODES].different == {"file": "the new run has none"}
    assert likely_reasons(run, other)[0].startswith("none is known")


def test_a_run_that_is_not_finished_or_lost_its_data_is_refused(
    make_config: Callable[..., RunConfig], npz_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = RunDirectory(tmp_path / "begun")
    assert failing(["reproduce", str(run.path)]) == 2
    assert "is not a run directory" in capsys.readouterr().err
    run.write_config(make_config())
    assert failing(["reproduce", str(run.path)]) == 2
    assert "has no summary.json" in capsys.readouterr().err
    run.write_summary(summary())
    run.chunks_path.write_text("{")
    assert failing(["reproduce", str(run.path)]) == 2
    assert f"{run.chunks_path} is damaged" in capsys.readouterr().err
    run.chunks_path.unlink()
    npz_path.unlink()
    assert failing(["reproduce", str(run.path)]) == 2
    assert str(npz_path) in capsys.readouterr().err
